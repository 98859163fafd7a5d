//! The answer of `rendergate probe` for people.

use std::fmt::Write as _;

use gpu::advice::Advice;
use gpu::{Capabilities, Machine, NodeProbe, NodeReport, Operation, Outcome, Processing};

/// All of it.
pub fn render(machine: &Machine) -> String {
    let mut text = String::new();
    for node in &machine.nodes {
        render_node(&mut text, node);
        text.push('\n');
    }
    render_advice(&mut text, &machine.advice);
    text.push_str(if machine.usable {
        "Usable: at least one GPU has moved frames.\n"
    } else {
        "Not usable: no GPU has moved a frame. Streams run in software.\n"
    });
    text
}

fn render_node(text: &mut String, report: &NodeReport) {
    let node = &report.node;
    let chip = node.pci.map_or("no PCI device".into(), |pci| format!("{} {pci}", pci.maker()));
    let driver = node.driver.as_deref().unwrap_or("unknown");
    let state = match &report.state {
        Outcome::Usable => "usable",
        Outcome::Untested => "untested",
        Outcome::Failed { .. } => "not usable",
    };
    line(text, format_args!("{}: {chip}, kernel driver {driver}: {state}", node.path.display()));
    if let Outcome::Failed { reason } = &report.state
        && report.advice.is_empty()
    {
        line(text, format_args!("  {reason}"));
    }
    if let Some(probe) = &report.probe {
        render_probe(text, probe, report);
    }
    render_advice(text, &report.advice);
}

fn render_probe(text: &mut String, probe: &NodeProbe, report: &NodeReport) {
    // Why there is none is the node's state, and said there.
    let Ok(capabilities) = &probe.vaapi else { return };
    line(
        text,
        format_args!(
            "  VA-API {}, {}; GStreamer {}",
            capabilities.version, capabilities.vendor, probe.gstreamer
        ),
    );
    render_operations(text, capabilities, report);
    match &capabilities.processing {
        Some(processing) => render_processing(text, processing),
        None => line(text, format_args!("  filters: none reported")),
    }
}

/// One row per operation, reported or not.
fn render_operations(text: &mut String, capabilities: &Capabilities, report: &NodeReport) {
    let mut rows = vec![["OPERATION", "REPORTED", "ELEMENT", "USABLE"].map(str::to_owned)];
    for operation in Operation::ALL {
        let trial = report.trials.iter().find(|trial| trial.operation == operation);
        let (profile, entrypoint) = operation.needs();
        let entry = capabilities.entry(profile, &entrypoint);
        let Some(entry) = entry.filter(|_| trial.is_some()) else {
            rows.push([operation.to_string(), "no".into(), "-".into(), "-".into()]);
            continue;
        };
        // Nothing that a driver reports.
        let mut reported = if operation == Operation::Transcode { "-" } else { "yes" }.to_owned();
        if let Some((width, height)) = entry.max_size
            && operation != Operation::Transcode
        {
            reported = format!("to {width}x{height}");
        }
        if !entry.rate_control.is_empty() {
            reported = format!("{reported}, {}", entry.rate_control.join(" "));
        }
        let element = trial.and_then(|trial| trial.element.clone()).unwrap_or("none".into());
        let usable = match trial.map(|trial| &trial.outcome) {
            Some(Outcome::Usable) => "yes".into(),
            Some(Outcome::Failed { reason }) => format!("no: {reason}"),
            Some(Outcome::Untested) | None => "untested".into(),
        };
        rows.push([operation.to_string(), reported, element, usable]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    for [operation, reported, element, usable] in &rows {
        let [first, second, third] = widths;
        line(
            text,
            format_args!("  {operation:first$}  {reported:second$}  {element:third$}  {usable}"),
        );
    }
}

fn render_processing(text: &mut String, processing: &Processing) {
    let list = |values: &[String]| match values {
        [] => "none".to_owned(),
        values => values.join(", "),
    };
    line(text, format_args!("  filters: {}", list(&processing.filters)));
    line(text, format_args!("  deinterlacing: {}", list(&processing.deinterlacing)));
    line(text, format_args!("  tone mapping of HDR10: {}", list(&processing.tone_mapping)));
    let degrees: Vec<_> = processing.rotation.iter().map(ToString::to_string).collect();
    line(text, format_args!("  rotation: {}", list(&degrees)));
    line(text, format_args!("  blending: {}", list(&processing.blend)));
}

fn render_advice(text: &mut String, advice: &[Advice]) {
    for Advice { found, remedy, .. } in advice {
        line(text, format_args!("! {found}"));
        line(text, format_args!("  -> {remedy}"));
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = text.write_fmt(content);
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

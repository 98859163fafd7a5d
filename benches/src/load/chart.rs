//! Leads over time, both sides above each other.
//!
//! Below each side's leads every stream has a lane: when its viewer waited for a first segment, played,
//! and stood still.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Parameters;
use super::run::{Played, Side};

/// Pixels.
const SIZE: (u32, u32) = (1100, 1000);
/// Height of a side's lanes in pixels; the rest is for leads.
const LANES: u32 = 170;
const TITLE: u32 = 44;
const LEGEND: u32 = 60;
const FONT: &str = "sans-serif";
/// Told apart also by those who see red and green alike (Okabe and Ito), none of them as light as
/// the paper. Red stays for stalls.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(110, 80, 40),
    RGBColor(100, 100, 100),
    RGBColor(90, 60, 160),
    RGBColor(0, 60, 60),
];
const STALL: RGBColor = RGBColor(213, 20, 20);
const WAIT: RGBColor = RGBColor(240, 190, 60);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Draws both sides into an SVG file.
///
/// # Errors
/// If it can't be written.
pub fn draw(path: &Path, parameters: &Parameters, sides: [&Side; 2]) -> Result<()> {
    draw_all(path, parameters, sides).map_err(|error| anyhow!("{}: {error}", path.display()))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw_all(path: &Path, parameters: &Parameters, sides: [&Side; 2]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    // A page's dark mode must not shine through.
    root.fill(&WHITE)?;
    let Parameters { sessions, width, height, output_height, .. } = parameters;
    let title = format!(
        "{sessions} viewers at once, {width}×{height} to {output_height} lines: media ready ahead of the picture"
    );
    root.draw(&Text::new(title, (16, 14), (FONT, 20).into_font()))?;
    let (_, rest) = root.split_vertically(TITLE);
    let (charts, legend) = rest.split_vertically(SIZE.1 - TITLE - LEGEND);
    let highest = sides.iter().flat_map(|side| leads(side)).fold(20.0, f64::max) * 1.05;
    let end = sides.iter().map(|side| side.seconds).fold(parameters.end(), f64::max);
    let halves = charts.split_evenly((2, 1));
    for (area, side) in halves.iter().zip(sides) {
        let (above, below) = area.split_vertically((SIZE.1 - TITLE - LEGEND) / 2 - LANES);
        draw_leads(&above, side, end, highest)?;
        draw_lanes(&below, side, end)?;
    }
    draw_legend(&legend, sides[0])?;
    root.present()?;
    Ok(())
}

fn whole(value: &f64) -> String {
    format!("{value:.0}")
}

fn leads(side: &Side) -> impl Iterator<Item = f64> {
    side.sessions.iter().flat_map(|session| session.viewing.lead.iter().filter_map(|point| point.1))
}

fn draw_leads(area: &Area<'_>, side: &Side, end: f64, highest: f64) -> Drawn {
    let (stalls, seconds) = side.stalls();
    let caption = format!("{}: {stalls} stalls, {seconds:.1} s in all", side.name);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 17))
        .margin_right(20)
        .x_label_area_size(20)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..end, 0.0..highest)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(12)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .y_desc("lead in seconds")
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for (index, session) in side.sessions.iter().enumerate() {
        let width = if session.newcomer { 3 } else { 1 };
        let style = colour(index).stroke_width(width);
        for line in session.viewing.lead.split(|(_, lead)| lead.is_none()) {
            let points = line.iter().filter_map(|(time, lead)| Some((*time, (*lead)?)));
            chart.draw_series(LineSeries::new(points, style))?;
        }
    }
    Ok(())
}

fn draw_lanes(area: &Area<'_>, side: &Side, end: f64) -> Drawn {
    let lanes = side.sessions.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(20)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..end, lanes..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(12)
        .y_labels(0)
        .x_label_formatter(&whole)
        .x_desc("time in seconds")
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for (index, session) in side.sessions.iter().enumerate() {
        let lane = index as f64;
        let bar = |from: f64, to: f64, thin: f64, style: ShapeStyle| {
            Rectangle::new([(from, lane + thin), (to, lane + 1.0 - thin)], style)
        };
        let playing = bar(session.start, session.end, 0.4, colour(index).filled());
        chart.draw_series([playing])?;
        for still in &session.viewing.standstills {
            let style = if still.beginning { WAIT.filled() } else { STALL.filled() };
            chart.draw_series([bar(still.from, still.to, 0.1, style)])?;
        }
    }
    let row = (area.dim_in_pixel().1 - 40) as f64 / lanes;
    for (index, session) in side.sessions.iter().enumerate() {
        let middle = (index as f64 + 0.5) * row - 3.0;
        let style = (FONT, 12).into_font().color(&colour(index));
        area.draw(&Text::new(session.name.clone(), (12, middle as i32), style))?;
    }
    Ok(())
}

fn draw_legend(area: &Area<'_>, side: &Side) -> Drawn {
    let text = || (FONT, 13).into_font();
    let has_residents = side.sessions.iter().any(|session| !session.newcomer);
    let sample = |session: Option<&Played>| {
        let at =
            session.and_then(|one| side.sessions.iter().position(|other| other.name == one.name));
        colour(at.unwrap_or(0))
    };
    let mut x = 24;
    let mut entry = |name: &str, color: RGBColor, height: i32| -> Drawn {
        area.draw(&Rectangle::new([(x, 22 - height), (x + 28, 22 + height)], color.filled()))?;
        area.draw(&Text::new(name.to_owned(), (x + 36, 15), text()))?;
        x += 60 + 7 * i32::try_from(name.len()).unwrap_or(0);
        Ok(())
    };
    if has_residents {
        entry("plays (a resident)", sample(side.sessions.first()), 1)?;
    }
    entry("plays (a newcomer)", sample(side.sessions.last()), 2)?;
    entry("waits for a first segment, or for one after a seek", WAIT, 6)?;
    entry("stalled: the picture stands still", STALL, 6)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::viewing::{Standstill, Viewing};

    #[test]
    fn axes_units_and_marks_are_there() {
        let still = |from, to, beginning| Standstill { from, to, beginning };
        let session = |name: &str, newcomer| Played {
            name: name.into(),
            start: 0.0,
            end: 30.0,
            newcomer,
            on_gateway: true,
            first_servable: vec![Some(1.0)],
            made: 30.0,
            viewing: Viewing {
                standstills: vec![still(0.0, 1.0, true), still(9.0, 12.0, false)],
                lead: vec![(1.0, Some(3.0)), (9.0, Some(0.0)), (12.0, Some(3.0)), (30.0, None)],
            },
            faults: Vec::new(),
        };
        let side = |name| Side {
            name,
            seconds: 30.0,
            cpu_seconds: 1.0,
            others_cpu_seconds: 2.0,
            peak_mib: 1.0,
            sessions: vec![session("resident 1", false), session("newcomer 1", true)],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load.svg");
        let (ours, ffmpeg) = (side("Rendergate"), side("ffmpeg"));
        draw(&path, &Parameters::fitting(), [&ours, &ffmpeg]).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        let drawn = |words: &str| svg.matches(words).count();
        assert_eq!((drawn("lead in seconds"), drawn("time in seconds")), (2, 2));
        assert_eq!(drawn("Rendergate: 2 stalls, 6.0 s in all"), 1);
        assert_eq!(drawn("newcomer 1"), 2);
        // A bar per stall on each side and one in the legend.
        assert_eq!(drawn("fill=\"#D51414\""), 5);
    }
}

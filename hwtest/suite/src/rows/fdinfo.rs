//! A GPU's time for one process, as the kernel's driver accounts it in `/proc/PID/fdinfo`
//! (Documentation/gpu/drm-usage-stats.rst of Linux): `drm-engine-NAME: N ns` for each engine, for i915
//! and amdgpu. xe counts cycles instead, which are not read.

use std::collections::BTreeMap;
use std::time::Duration;

/// The GPU time of a process until now; `None` if its driver accounts none.
pub fn gpu_time(process: u32) -> Option<Duration> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fdinfo")).ok()?;
    let texts = folder.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    sum(texts)
}

/// Of the texts of descriptors. Copies of one descriptor say the same, and are known by the number of
/// their client.
fn sum(texts: impl Iterator<Item = String>) -> Option<Duration> {
    let mut clients: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let Some(client) = field("drm-client-id") else { continue };
        let device = field("drm-pdev").unwrap_or_default();
        let engines = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let engine = name.strip_prefix("drm-engine-")?;
            let nanoseconds = value.trim().strip_suffix(" ns")?.parse::<u64>().ok()?;
            (!engine.starts_with("capacity-")).then_some(nanoseconds)
        });
        let times: Vec<u64> = engines.collect();
        if !times.is_empty() {
            clients.insert(format!("{device} {client}"), times.iter().sum());
        }
    }
    (!clients.is_empty()).then(|| Duration::from_nanos(clients.values().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Option<Duration> {
        sum(texts.iter().map(|text| (*text).to_owned()))
    }

    #[test]
    fn engines_are_added_and_copies_count_once() {
        let one = "pos:\t0\ndrm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\ndrm-client-id:\t7\n\
                   drm-engine-render:\t100 ns\ndrm-engine-video:\t50 ns\n\
                   drm-engine-capacity-video:\t2\n";
        let other = one.replace("client-id:\t7", "client-id:\t8");
        assert_eq!(of(&[one, one, &other]), Some(Duration::from_nanos(300)));
    }

    #[test]
    fn a_driver_that_counts_cycles_has_no_time() {
        let xe = "drm-driver:\txe\ndrm-client-id:\t7\ndrm-cycles-vcs:\t28257900\n";
        assert_eq!(of(&[xe, "pos:\t0\nflags:\t02\n"]), None);
    }
}

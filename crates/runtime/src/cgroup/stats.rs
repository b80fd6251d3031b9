//! What a cgroup has used. A counter that this machine does not keep is `None`, never 0.

use super::{Cgroup, Layout};
use serde::{Deserialize, Serialize};
use std::fs;

/// Counters of a task or a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupStats {
    /// CPU time, in ns.
    pub cpu_ns: Option<u64>,
    /// Periods in which the CPU quota ran out.
    pub throttled_periods: Option<u64>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Of that, page cache that can be given up at once, in bytes.
    pub inactive_file_bytes: Option<u64>,
    /// The most that was ever in use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The limit, in bytes; `None` without one.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Read from disks, in bytes.
    pub read_bytes: Option<u64>,
    /// Written to disks, in bytes.
    pub written_bytes: Option<u64>,
}

/// A limit above this is the kernel's way to write "none".
const NO_LIMIT: u64 = 1 << 60;

pub(super) fn read(cgroup: &Cgroup) -> CgroupStats {
    let text = |controller, name| {
        let path = cgroup.file(controller, name).ok()?;
        fs::read_to_string(path).ok()
    };
    let number = |controller, name| text(controller, name)?.trim().parse::<u64>().ok();
    let unified = cgroup.layout.v2().map(|root| root.join(&cgroup.path).join("cpu.stat"));
    let usage = unified.and_then(|path| fs::read_to_string(path).ok());
    let usage = usage.and_then(|t| keyed(&t, "usage_usec")).map(|us| us * 1000);
    let cpu = text("cpu", "cpu.stat");
    let throttled_periods = cpu.as_deref().and_then(|t| keyed(t, "nr_throttled"));
    let memory = text("memory", "memory.stat");
    let memory = |key| memory.as_deref().and_then(|t| keyed(t, key));
    let pids = number("pids", "pids.current");
    let limit = |limit: Option<u64>| limit.filter(|l| *l < NO_LIMIT);
    match &cgroup.layout {
        Layout::V2 { .. } => {
            let io = text("io", "io.stat");
            let io = |key| io.as_deref().map(|t| sum_of_pairs(t, key));
            CgroupStats {
                cpu_ns: usage,
                throttled_periods,
                memory_bytes: number("memory", "memory.current"),
                inactive_file_bytes: memory("inactive_file"),
                memory_peak_bytes: number("memory", "memory.peak"),
                memory_limit_bytes: limit(number("memory", "memory.max")),
                pids,
                read_bytes: io("rbytes"),
                written_bytes: io("wbytes"),
            }
        }
        Layout::V1 { .. } => {
            let io = text("blkio", "blkio.throttle.io_service_bytes_recursive");
            let io = |key| io.as_deref().map(|t| sum_of_lines(t, key));
            CgroupStats {
                cpu_ns: usage.or_else(|| number("cpuacct", "cpuacct.usage")),
                throttled_periods,
                memory_bytes: number("memory", "memory.usage_in_bytes"),
                inactive_file_bytes: memory("total_inactive_file"),
                memory_peak_bytes: number("memory", "memory.max_usage_in_bytes"),
                memory_limit_bytes: limit(number("memory", "memory.limit_in_bytes")),
                pids,
                read_bytes: io("Read"),
                written_bytes: io("Write"),
            }
        }
    }
}

/// The value of `key` in lines of `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(k, _)| *k == key).and_then(|(_, value)| value.trim().parse().ok())
}

/// The sum of `key` over lines of `device key=value …`.
fn sum_of_pairs(text: &str, key: &str) -> u64 {
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter(|(k, _)| *k == key).filter_map(|(_, v)| v.parse::<u64>().ok()).sum()
}

/// The sum of `key` over lines of `device key value`.
fn sum_of_lines(text: &str, key: &str) -> u64 {
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(|w| w.len() == 3 && w[1] == key).filter_map(|w| w[2].parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_among_others() {
        assert_eq!(keyed("nr_periods 5\nnr_throttled 3\n", "nr_throttled"), Some(3));
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(sum_of_pairs("8:0 rbytes=5 wbytes=1\n8:16 rbytes=7 wbytes=0\n", "rbytes"), 12);
        assert_eq!(sum_of_lines("8:0 Read 5\n8:0 Write 2\n8:16 Read 1\nTotal 8\n", "Read"), 6);
    }
}

//! CPU time and memory of a process and all its descendants, from /proc.

use nix::sys::resource::{UsageWho, getrusage};
use std::collections::HashMap;
use std::fs;

/// USER_HZ; fixed at 100 on every Linux architecture this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_kb: u64,
    pub(crate) peak_kb: u64,
    pub(crate) threads: u64,
}

/// The sum over `root` and its descendants.
pub(crate) fn tree(root: u32) -> Usage {
    let parents = parents();
    let mut total = Usage::default();
    for pid in parents
        .keys()
        .copied()
        .filter(|pid| descends(*pid, root, &parents))
    {
        add(pid, &mut total);
    }
    total
}

/// CPU time the whole machine has spent working, and processors it has.
pub(crate) fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|&i| ticks.get(i)).sum();
    let cpus = text.lines().skip(1).take_while(|l| l.starts_with("cpu")).count();
    (busy / TICKS_PER_SECOND, cpus.max(1) as f64)
}

/// CPU time this process has used.
pub(crate) fn own_cpu() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |r| {
        [r.user_time(), r.system_time()]
            .iter()
            .map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6)
            .sum()
    })
}

fn descends(mut pid: u32, root: u32, parents: &HashMap<u32, u32>) -> bool {
    while pid != root {
        match parents.get(&pid) {
            Some(&parent) if parent != 0 => pid = parent,
            _ => return false,
        }
    }
    true
}

/// Parent of every process.
fn parents() -> HashMap<u32, u32> {
    let Ok(dir) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    dir.flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, stat_fields(pid)?.get(1)?.parse().ok()?)))
        .collect()
}

/// The fields of /proc/PID/stat after the command's name, from the state on.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text.rsplit_once(") ")?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

fn add(pid: u32, total: &mut Usage) {
    if let Some(fields) = stat_fields(pid) {
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        total.cpu_s += (number(11) + number(12)) / TICKS_PER_SECOND;
        total.threads += number(17) as u64;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kb = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    total.rss_kb += kb("VmRSS:");
    total.peak_kb += kb("VmHWM:");
}

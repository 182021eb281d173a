//! `ipam check` in a process of its own: what it takes in time, memory and CPU is its own, not the rig's.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use twill_datastore::etcd::{EtcdConfig, EtcdStore};
use twill_ipam::check::check;

/// How it is started.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// URLs of etcd
    #[arg(long)]
    pub etcd: String,
}

/// What one check took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    /// Addresses allocated.
    pub addresses: usize,
    /// The one revision of all reads.
    pub revision: u64,
    /// Problems found.
    pub problems: usize,
    /// From the first read to the report.
    pub seconds: f64,
    /// CPU of this process, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that the process ever had.
    pub peak_kib: u64,
}

/// Checks, and prints [`Took`] as JSON.
///
/// # Errors
/// If etcd fails.
pub async fn run(args: AuditArgs) -> Result<()> {
    let mut config: EtcdConfig = args.etcd.parse()?;
    config.call_timeout = std::time::Duration::from_secs(60);
    let store = EtcdStore::connect(config).await?;
    let begun = Instant::now();
    let report = check(&store).await?;
    let took = Took {
        addresses: report.usage.blocks.iter().map(|b| b.used).sum(),
        revision: report.revision,
        problems: report.problems.len(),
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds("self"),
        peak_kib: peak_kib(),
    };
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

/// Runs it as a child.
///
/// # Errors
/// If it fails.
pub async fn measure(program: &Path, endpoints: &str) -> Result<Took> {
    let mut command = Command::new(program);
    command.args(["audit", "--etcd", endpoints]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "check: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&said).with_context(|| format!("check said {said:?}"))
}

/// CPU that a process has used, user and system, in seconds; 0 if it is gone.
#[must_use]
pub fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: state is the first, utime the twelfth.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|t| t.parse::<f64>().ok()).sum();
    // Linux has counted in hundredths for ever.
    ticks / 100.0
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

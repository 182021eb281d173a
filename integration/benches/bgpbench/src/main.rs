//! Benchmark of BGP daemons: convergence, CPU and memory under a repeatable load.
#![expect(
    clippy::cast_possible_truncation,
    reason = "its numbers are its own scenarios', all far below 16 bits"
)]

mod bench;
mod conn;
mod dut;
mod engine;
mod netns;
mod relay;
mod report;
mod scenario;
mod usage;
mod wire;
mod workload;

use anyhow::{Context, Result, ensure};
use bench::{Limits, Run};
use clap::{Args, Parser, Subcommand};
use dut::{DutOptions, Kind};
use scenario::{Custom, Scenario};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workload::Workload;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Measure daemons in scenarios.
    Run(Box<RunArgs>),
    /// Print the medians of recorded runs.
    Report {
        /// Files written by `run --json`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The relay daemon itself (`run --dut relay` starts it).
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        listen: SocketAddrV4,
        #[arg(long)]
        asn: u32,
    },
}

#[derive(Args)]
struct RunArgs {
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    dut: Vec<Kind>,
    /// a100k, a500k, a1m, b, c, c9600, d, or custom with the settings below.
    #[arg(long, value_delimiter = ',', default_value = "custom")]
    scenario: Vec<String>,
    #[arg(long, default_value_t = 3)]
    runs: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds one phase may take.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Seconds without an UPDATE that end a phase.
    #[arg(long, default_value_t = 1.0)]
    quiet: f64,
    /// Append each run to this file, one JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Held during a scenario's runs, so that no other measurement overlaps.
    #[arg(long, default_value = "/tmp/bgpbench.lock")]
    lock: PathBuf,
    /// Where the daemon's configuration and log go.
    #[arg(long, default_value = "/tmp/bgpbench-work")]
    dir: PathBuf,
    #[command(flatten)]
    options: DutOptions,
    #[command(flatten)]
    custom: Custom,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Cmd::Run(args) => measure(&args),
        Cmd::Report { files } => {
            let mut runs: Vec<Run> = Vec::new();
            for file in files {
                let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                for line in text.lines().filter(|l| !l.is_empty()) {
                    runs.push(serde_json::from_str(line)?);
                }
            }
            print!("{}", report::table(&runs));
            Ok(())
        }
        Cmd::Relay { listen, asn } => relay::run(listen, asn),
    }
}

fn measure(args: &RunArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let limits = Limits {
        timeout: Duration::from_secs(args.timeout),
        quiet: Duration::from_secs_f64(args.quiet),
    };
    let mut all = Vec::new();
    for name in &args.scenario {
        let scenario = Scenario::named(name, &args.custom)?;
        let load = Workload::build(scenario.shape, scenario.total(), &scenario.senders(), args.seed);
        // Held for the whole scenario: its runs stay close together in time.
        let lock = File::create(&args.lock).with_context(|| format!("open {}", args.lock.display()))?;
        lock.lock()?;
        for &kind in &args.dut {
            for n in 1..=args.runs {
                let dir = args.dir.join(kind.name(&args.options)).join(name);
                let run = bench::run(kind, &args.options, &scenario, &load, args.seed, &limits, &dir);
                let run = match run {
                    Ok(run) => run,
                    Err(e) => {
                        eprintln!("{name} {kind:?} run {n}: {e:#}");
                        continue;
                    }
                };
                progress(&run, n);
                if let Some(path) = &args.json {
                    append(path, &run)?;
                }
                all.push(run);
            }
        }
    }
    print!("{}", report::table(&all));
    Ok(())
}

fn progress(run: &Run, n: u32) {
    let show = |s: Option<f64>| s.map_or("-".into(), |s| format!("{s:.3}"));
    eprintln!(
        "{} {} #{n}: converged {} settled {:.3} cpu {:.2} rss {} MiB, withdraw {}, again {}, flap {} {}",
        run.scenario,
        run.dut,
        show(run.announce.converged_s),
        run.announce.settled_s,
        run.announce.dut_cpu_s,
        run.announce.dut_peak_kb / 1024,
        show(run.withdraw.converged_s),
        show(run.reannounce.converged_s),
        show(run.flap.converged_s),
        run.problem
    );
}

fn append(path: &Path, run: &Run) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(run)?)?;
    Ok(())
}

//! Black-box robustness cases: a client that shares no code with the speaker says to a daemon what peers say, and should not
//! say, and holds its answers to the RFCs.

mod case;
mod cases;
mod client;
mod dut;
mod net;
mod read;
mod roles;
mod sink;
mod spared;
mod wire;
mod world;

use anyhow::{Context, Result, ensure};
use case::{Case, Run};
use clap::{Parser, Subcommand};
use dut::{Dut, Kind};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use world::World;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Words,
}

#[derive(Subcommand)]
enum Words {
    /// Run the cases against a daemon.
    Run(RunArgs),
    /// Print the cases and where each is written.
    List,
    /// What `run --dut sink` starts.
    #[command(hide = true)]
    Sink,
}

#[derive(clap::Args)]
struct RunArgs {
    #[arg(long, value_enum, default_value = "twill")]
    dut: Kind,
    /// Binary to run instead of the daemon's usual one.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Only cases whose name holds this; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// Tell of each case as it goes, with its time.
    #[arg(long)]
    verbose: bool,
    /// Write the outcome to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Words::Run(args) => run(&args),
        Words::List => {
            for case in cases::all() {
                println!("{:<24} {}", case.basis, case.name);
            }
            Ok(true)
        }
        Words::Sink => sink::run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bgpcases: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the cases; whether all passed.
fn run(args: &RunArgs) -> Result<bool> {
    let wanted = |case: &Case| args.only.is_empty() || args.only.iter().any(|o| case.name.contains(o));
    let (cases, without): (Vec<Case>, Vec<Case>) = cases::all()
        .into_iter()
        .filter(wanted)
        .partition(|c| spared::spared(c, args.dut).is_none());
    ensure!(!cases.is_empty(), "no case has such a name");
    net::enter()?;
    let start = Instant::now();
    for case in without.iter().filter(|_| args.verbose) {
        let why = spared::spared(case, args.dut).unwrap_or_default();
        println!("spared    {}: {why}", case.name);
    }
    let failed = match Dut::start(args.dut, args.bin.as_deref()).and_then(World::new) {
        Ok(world) => all(args, &cases, world)?,
        Err(error) => {
            println!("FAILED  before the first case: {error:#}");
            cases.iter().map(|c| c.name.as_str()).collect()
        }
    };
    let passed = cases.len() - failed.len();
    println!(
        "{:?}: {passed} of {} cases passed in {:.1} s; {} do not apply",
        args.dut,
        cases.len(),
        start.elapsed().as_secs_f64(),
        without.len()
    );
    if let Some(path) = &args.json {
        let outcome =
            json!({"dut": format!("{:?}", args.dut), "passed": passed, "of": cases.len(), "failed": failed});
        std::fs::write(path, format!("{outcome:#}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(failed.is_empty())
}

/// The names of those that failed.
fn all<'a>(args: &RunArgs, cases: &'a [Case], mut world: World) -> Result<Vec<&'a str>> {
    let mut failed = Vec::new();
    let mut tell = |case: &'a Case, took: Duration, outcome: Result<()>| {
        if args.verbose {
            println!("{:6.2} s  {}", took.as_secs_f64(), case.name);
        }
        if let Err(error) = outcome {
            println!("FAILED  {} [{}]: {error:#}", case.name, case.basis);
            failed.push(case.name.as_str());
        }
    };
    let timed = |run: fn() -> Result<()>| {
        let begun = Instant::now();
        let outcome = run();
        (begun.elapsed(), outcome)
    };
    let beside: Vec<_> = cases
        .iter()
        .filter_map(|case| match case.run {
            Run::Alone(run) => Some((case, std::thread::spawn(move || timed(run)))),
            Run::Shared(_) => None,
        })
        .collect();
    for case in cases {
        let Run::Shared(run) = &case.run else { continue };
        let begun = Instant::now();
        let outcome = run(&mut world);
        tell(case, begun.elapsed(), outcome);
        if !world.dut.is_alive() {
            println!(
                "the daemon has ended after {}; it says:\n{}",
                case.name,
                world.dut.says()
            );
            world = World::new(Dut::start(args.dut, args.bin.as_deref())?)?;
        }
        world.mend().context("the watching peers are lost for good")?;
    }
    for (case, thread) in beside {
        let panicked = |_| (Duration::ZERO, Err(anyhow::anyhow!("it panicked")));
        let (took, outcome) = thread.join().unwrap_or_else(panicked);
        tell(case, took, outcome);
    }
    Ok(failed)
}

//! `ipam-rig`: the soak of address management, its benches, and the processes that they consist of.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use twill_ipam_rig::audit::{self, AuditArgs};
use twill_ipam_rig::bench::{self, BenchArgs};
use twill_ipam_rig::mixed::{self, MixedArgs};
use twill_ipam_rig::node::{self, NodeArgs};
use twill_ipam_rig::soak::{self, Outcome, SoakArgs};

#[derive(Parser)]
#[command(
    name = "ipam-rig",
    about = "Soak and benches of Twill's address management against real etcd"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Nodes, faults, collection and an independent check of the whole history
    Soak(SoakArgs),
    /// The numbers of docs/numbers.md
    Bench(BenchArgs),
    /// Twill's and Calico's allocators on one pool that is 95 % full, judged from the whole history
    Mixed(MixedArgs),
    /// One check of everything (started by the bench)
    #[command(hide = true)]
    Audit(AuditArgs),
    /// One node of a soak (started by it)
    #[command(hide = true)]
    Node(NodeArgs),
}

// What starts children runs on the main thread: the kernel ends them when that thread does.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Node(args) => {
            node::run(args).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit(args) => {
            audit::run(args).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Mixed(args) => {
            let outcome = mixed::run(args).await?;
            println!("{outcome}");
            let is_clean = outcome.verdict.violations.is_empty() && outcome.ownerless.is_empty();
            Ok(if is_clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Bench(args) => {
            bench::run(args).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Soak(args) => {
            let program = std::env::current_exe().context("the path of this program")?;
            let outcome = soak::run(args, &program).await?;
            print(&outcome);
            let is_clean = outcome.verdict.violations.is_empty();
            Ok(if is_clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn print(outcome: &Outcome) {
    let verdict = &outcome.verdict;
    println!(
        "{} assignments in {:.1} s, {} revisions, faults {:?}",
        verdict.assignments,
        outcome.took.as_secs_f64(),
        verdict.revisions,
        outcome.faults
    );
    println!("refused or given up: {:?}", verdict.failures);
    let at = |share: usize| {
        let index = (verdict.micros.len() * share / 100).min(verdict.micros.len().saturating_sub(1));
        verdict.micros.get(index).copied().unwrap_or(0) as f64 / 1000.0
    };
    println!("ADD p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
    println!(
        "one collection freed {} addresses, {} handles, {} blocks",
        outcome.collected.freed.len(),
        outcome.collected.handles.len(),
        outcome.collected.blocks.len()
    );
    let mut by_rule: BTreeMap<_, usize> = BTreeMap::new();
    for violation in &verdict.violations {
        *by_rule.entry(violation.rule).or_default() += 1;
    }
    println!("violations: {by_rule:?}");
    for violation in verdict.violations.iter().take(20) {
        println!(
            "  {:?} at {}: {}",
            violation.rule, violation.revision, violation.what
        );
    }
}

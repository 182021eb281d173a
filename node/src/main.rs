//! The Twill node daemon: the place where everything meets, and nothing else.

mod api;
mod bgp;
mod bootstrap;
mod cni;
mod daemon;
mod dataplane;
mod fabric;
mod guard;
mod handover;
mod health;
mod host;
mod http;
mod hub;
mod install;
mod metrics;
mod register;
mod retire;
mod socket;
mod speaker;
mod supervisor;
mod tunnels;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use bootstrap::{Bootstrap, Flags};
use speaker::SpeakerFlags;

/// The Twill node daemon.
#[derive(Debug, Parser)]
#[command(name = "twilld", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this node of the fabric.
    Run(Box<Flags>),
    /// Run the BGP speaker alone, as an ordinary BGP daemon.
    Bgp(SpeakerFlags),
    /// Remove Twill's routes and rules from this host, for calico-node to take it over; the daemon must not run.
    HandBack(handover::Flags),
    /// Install the CNI plugin and its network configuration on this host, or remove them.
    InstallCni(Box<install::Flags>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log();
    let outcome = match cli.command {
        Command::Run(flags) => run(*flags),
        Command::Bgp(flags) => on_runtime(speaker::run(flags)),
        Command::HandBack(flags) => handover::hand_back(&flags),
        Command::InstallCni(flags) => install::run(*flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the daemon ends; the kernel stays as it is"
            );
            ExitCode::FAILURE
        }
    }
}

/// To standard error, by `TWILL_LOG` (`info` if unset), in colour only for a terminal.
fn log() {
    let filter = EnvFilter::try_from_env("TWILL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

fn run(flags: Flags) -> Result<()> {
    let bootstrap = Bootstrap::load(flags)?;
    on_runtime(async {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        daemon::run(bootstrap, stop).await
    })
}

fn on_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(twill_bgp::net::EVENT_INTERVAL)
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(work);
    // A blocking call into a dead kernel or file system must not hold the process.
    runtime.shutdown_background();
    ended
}

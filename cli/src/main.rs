//! The Twill command line: what a person asks of the daemon, over gRPC on its socket and nothing else.

mod args;
mod client;
mod columns;
mod command;
mod config;
mod input;
mod output;
mod patch;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command, Node};
use command::drain::Drain;
use command::write::Verb;

fn main() -> ExitCode {
    // calicoctl exits with 1 on every error, usage included.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let asked = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing is left to do if even this cannot be printed.
            let _ = e.print();
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match runtime(cli) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(run(cli)))
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Validate(source) => return command::validate::run(source),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "twillctl", &mut script);
            output::out!("{}", String::from_utf8_lossy(&script));
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let daemon = &config::target(&cli.reach)?;
    match cli.command {
        Command::Get(get) => command::get::run(daemon, &get).await,
        Command::Apply(file) => command::write::run(daemon, Verb::Apply, &file).await,
        Command::Replace(file) => command::write::run(daemon, Verb::Replace, &file).await,
        Command::Create(create) => {
            let verb = Verb::Create {
                skip_exists: create.skip_exists,
            };
            command::write::run(daemon, verb, &create.file).await
        }
        Command::Patch(patch) => command::patch::run(daemon, &patch).await,
        Command::Delete(delete) => command::delete::run(daemon, &delete).await,
        Command::Label(label) => command::label::run(daemon, &label).await,
        Command::Node(Node::Status) => command::node::status(daemon).await,
        Command::Node(Node::Drain { name }) => command::drain::run(daemon, name, Drain::Begin).await,
        Command::Node(Node::Undrain { name }) => command::drain::run(daemon, name, Drain::End).await,
        Command::Bgp(bgp) => command::bgp::run(daemon, bgp).await,
        Command::Ipam(ipam) => command::ipam::run(daemon, &ipam).await,
        Command::Datastore(datastore) => command::datastore::run(daemon, &datastore).await,
        Command::Version(version) => command::version::run(daemon, &version).await,
        Command::Validate(_) | Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

//! The Twill command line: what a person asks of the daemon, over gRPC on its socket and nothing else.

mod args;
mod client;
mod columns;
mod command;
mod input;
mod output;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::error::ErrorKind;

use args::{Bgp, Cli, Command, Ipam, Node};

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
    let socket = &cli.socket;
    match cli.command {
        Command::Get(get) => command::get::run(socket, &get).await,
        Command::Apply(file) => command::write::run(socket, command::write::Verb::Apply, &file).await,
        Command::Replace(file) => command::write::run(socket, command::write::Verb::Replace, &file).await,
        Command::Create(create) => {
            let verb = command::write::Verb::Create {
                skip_exists: create.skip_exists,
            };
            command::write::run(socket, verb, &create.file).await
        }
        Command::Delete(delete) => command::delete::run(socket, &delete).await,
        Command::Node(Node::Status) => command::node::status(socket).await,
        Command::Bgp(Bgp::Peers) => command::bgp::peers(socket).await,
        Command::Bgp(Bgp::Routes { prefix, all_paths }) => {
            command::bgp::routes(socket, prefix, all_paths).await
        }
        Command::Ipam(Ipam::Show { show_blocks }) => command::ipam::show(socket, show_blocks).await,
        Command::Ipam(Ipam::Check { json }) => command::ipam::check(socket, json).await,
        Command::Version => command::node::version(socket).await,
    }
}

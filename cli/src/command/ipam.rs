//! `twillctl ipam ...`.

mod check;
mod configure;
mod release;
mod report;
mod show;
mod split;

use std::process::ExitCode;

use anyhow::Result;
use tonic::Status;

use crate::args::Ipam;
use crate::config;

pub(crate) async fn run(daemon: &config::Target, asked: &Ipam) -> Result<ExitCode> {
    match asked {
        Ipam::Show(show) => show::run(daemon, show).await,
        Ipam::Check(check) => check::run(daemon, check).await,
        Ipam::Release(release) => release::run(daemon, release).await,
        Ipam::Split(split) => split::run(daemon, split).await,
        Ipam::Configure(configure) => configure::run(daemon, configure).await,
    }
}

/// The daemon's own words; what went wrong on the way in ours.
fn said(status: &Status) -> anyhow::Error {
    match status.message() {
        "" => anyhow::anyhow!("the daemon answered {}", status.code()),
        message => anyhow::anyhow!("{message}"),
    }
}

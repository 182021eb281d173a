//! `twillctl bgp ...`.

mod peer;
mod peers;
mod routes;
mod watch;

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;
use twill_model::yaml;
use twill_proto::api::ResetRequest;
use twill_proto::api::bgp_client::BgpClient;

use crate::args::bgp::{Bgp, Format};
use crate::client;
use crate::config::Target;
use crate::output::out;

pub(super) use peers::status_tables;

/// Does what was asked of the BGP speaker.
pub(crate) async fn run(daemon: &Target, command: Bgp) -> Result<ExitCode> {
    let client = BgpClient::new(client::connect(daemon).await?);
    match command {
        Bgp::Peers { print } => peers::run(client, print.output).await,
        Bgp::Peer { peer, print } => peer::run(client, peer, print.output).await,
        Bgp::Routes(routes) => routes::run(client, routes).await,
        Bgp::Reset { peer, soft, message } => {
            let request = ResetRequest { peer, soft, message };
            reset(client, request).await
        }
        Bgp::Watch(watch) => watch::run(client, watch).await,
    }
}

async fn reset(mut client: BgpClient<Channel>, request: ResetRequest) -> Result<ExitCode> {
    let soft = request.soft;
    let reply = client.reset(request).await;
    let reply = reply.map_err(said)?.into_inner();
    for peer in &reply.peers {
        let what = if soft { "refreshed" } else { "reset" };
        if reply.down.contains(peer) {
            out!(ln "{peer}: there is no session to be {what}");
        } else {
            out!(ln "{peer}: {what}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The daemon's words alone.
fn said(status: Status) -> anyhow::Error {
    anyhow::Error::msg(status.message().to_owned())
}

/// Prints a value whole, if the format is one for machines.
fn whole(format: Format, value: impl FnOnce() -> Value) -> Result<bool> {
    match format {
        Format::Ps | Format::Wide => return Ok(false),
        Format::Yaml => out!("{}", yaml::to_string(&value()).context("printing YAML")?),
        Format::Json => {
            let text = serde_json::to_string_pretty(&value()).context("printing JSON")?;
            out!(ln "{text}");
        }
    }
    Ok(true)
}

/// `2d 03:04:05`, without days that there are none of.
fn duration(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 {
        clock
    } else {
        format!("{days}d {clock}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_clock_and_days_before_it() {
        assert_eq!(duration(0), "00:00:00");
        assert_eq!(duration(3_661), "01:01:01");
        assert_eq!(duration(2 * 86_400 + 5), "2d 00:00:05");
    }
}

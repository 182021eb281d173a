//! `twillctl node status`.

use crate::output::out;
use std::process::ExitCode;

use anyhow::{Context, Result};
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::node_client::NodeClient;
use twill_proto::api::{PeersRequest, StatusRequest};

use super::bgp;
use crate::client;
use crate::config;

pub(crate) async fn status(daemon: &config::Target) -> Result<ExitCode> {
    let channel = client::connect(daemon).await?;
    let status = NodeClient::new(channel.clone())
        .status(StatusRequest {})
        .await
        .context("asking for status")?
        .into_inner();
    let word = if status.ready { "ready" } else { "not ready" };
    out!(ln
        "Twill process is running on node {} (version {}): {word}.",
        status.node, status.version
    );
    for component in &status.components {
        let word = if component.ready { "ready" } else { "not ready" };
        let colon = if component.detail.is_empty() { "" } else { ": " };
        out!(ln "  {:<12} {word}{colon}{}", component.name, component.detail);
    }
    let peers = BgpClient::new(channel)
        .peers(PeersRequest {})
        .await
        .context("asking for BGP peers")?
        .into_inner()
        .peers;
    out!("{}", bgp::status_tables(&peers));
    Ok(if status.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

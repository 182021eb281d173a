//! `twillctl bgp peers` and `twillctl bgp routes`.

use crate::output::out;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::{BgpRoute, Peer, PeerType, PeersRequest, RoutesRequest};

use crate::client;
use crate::config;
use crate::table::{self, Align};

const SECS_A_DAY: u64 = 86_400;

pub(crate) async fn peers(daemon: &config::Target) -> Result<ExitCode> {
    let mut client = BgpClient::new(client::connect(daemon).await?);
    let reply = client
        .peers(PeersRequest {})
        .await
        .context("asking for BGP peers")?
        .into_inner();
    out!(ln "local AS {}, router id {}\n", reply.local_as, reply.router_id);
    let headings = [
        "PEER",
        "TYPE",
        "AS",
        "STATE",
        "SINCE",
        "RECEIVED",
        "ADVERTISED",
        "SOURCE",
        "INFO",
    ];
    let row = |p: &Peer| {
        let received = p.prefixes_received.to_string();
        let advertised = p.prefixes_advertised.to_string();
        let cells = [
            &p.address,
            kind(p.r#type()),
            &p.remote_as.to_string(),
            &p.state,
            &since(p.since_unix_secs),
            &received,
            &advertised,
            &p.source,
            &p.info,
        ];
        cells.map(str::to_owned).to_vec()
    };
    let rows: Vec<_> = reply.peers.iter().map(row).collect();
    out!("{}", table::plain(&headings, &rows));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn routes(
    daemon: &config::Target,
    prefix: Option<String>,
    all_paths: bool,
) -> Result<ExitCode> {
    let mut client = BgpClient::new(client::connect(daemon).await?);
    let request = RoutesRequest {
        prefix: prefix.unwrap_or_default(),
        all_paths,
    };
    let mut stream = client
        .routes(request)
        .await
        .map_err(|s| anyhow::anyhow!("{}", s.message()))?
        .into_inner();
    let mut rows = Vec::new();
    while let Some(reply) = stream.message().await.context("reading BGP routes")? {
        rows.extend(reply.routes.iter().map(row));
    }
    let headings = [
        "",
        "PREFIX",
        "NEXTHOP",
        "PEER",
        "LOCALPREF",
        "MED",
        "ASPATH",
        "ORIGIN",
        "COMMUNITIES",
    ];
    out!("{}", table::plain(&headings, &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(route: &BgpRoute) -> Vec<String> {
    let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
    let marks = format!(
        "{}{}",
        if route.best { "*" } else { " " },
        if route.stale { "S" } else { "" }
    );
    let peer = if route.peer.is_empty() {
        "local"
    } else {
        &route.peer
    };
    vec![
        marks,
        route.prefix.clone(),
        route.next_hop.clone(),
        peer.to_owned(),
        number(route.local_pref),
        number(route.med),
        route.as_path.clone(),
        route.origin.clone(),
        route.communities.join(","),
    ]
}

/// One boxed table a family, as `calicoctl node status` prints them.
pub(super) fn status_tables(peers: &[Peer]) -> String {
    let mut out = String::new();
    for (family, v6) in [("IPv4", false), ("IPv6", true)] {
        let rows: Vec<Vec<String>> = peers
            .iter()
            .filter(|p| p.address.contains(':') == v6)
            .map(status_row)
            .collect();
        let _ = writeln!(out, "\n{family} BGP status");
        if rows.is_empty() {
            let _ = writeln!(out, "No {family} peers found.");
            continue;
        }
        let headings = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"].map(|h| (h, Align::Left));
        out.push_str(&table::boxed(&headings, &rows));
    }
    out
}

fn status_row(peer: &Peer) -> Vec<String> {
    let state = if peer.state == "Established" {
        "up"
    } else {
        "start"
    };
    let info = format!("{} {}", peer.state, peer.info);
    vec![
        peer.address.clone(),
        kind(peer.r#type()).into(),
        state.into(),
        since(peer.since_unix_secs),
        info.trim_end().into(),
    ]
}

fn kind(kind: PeerType) -> &'static str {
    match kind {
        PeerType::Mesh => "node-to-node mesh",
        PeerType::Global => "global",
        PeerType::Node => "node specific",
        PeerType::Unspecified => "unknown",
    }
}

/// Time of day (UTC) within the last day, days before that.
fn since(unix_secs: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    since_at(unix_secs, now)
}

fn since_at(unix_secs: i64, now: u64) -> String {
    let Ok(then @ 1..) = u64::try_from(unix_secs) else {
        return String::new();
    };
    if now.saturating_sub(then) >= SECS_A_DAY {
        return format!("{}d ago", now.saturating_sub(then) / SECS_A_DAY);
    }
    let of_day = then % SECS_A_DAY;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_of_day_and_later_a_count_of_days() {
        assert_eq!(since_at(0, 5), "");
        assert_eq!(since_at(-5, 5), "");
        assert_eq!(since_at(86_400 + 3_661, 86_400 + 4_000), "01:01:01");
        assert_eq!(since_at(100, 100 + 3 * 86_400), "3d ago");
    }

    #[test]
    fn peers_stand_in_the_table_of_their_family() {
        let peer = |address: &str, state: &str| Peer {
            address: address.into(),
            state: state.into(),
            r#type: PeerType::Mesh.into(),
            ..Peer::default()
        };
        let text = status_tables(&[peer("10.0.0.2", "Established"), peer("10.0.0.3", "Active")]);
        assert!(
            text.contains("| 10.0.0.2     | node-to-node mesh | up    |       | Established |"),
            "{text}"
        );
        assert!(
            text.contains("| 10.0.0.3     | node-to-node mesh | start |       | Active      |"),
            "{text}"
        );
        assert!(
            text.ends_with("\nIPv6 BGP status\nNo IPv6 peers found.\n"),
            "{text}"
        );
    }
}

//! `twillctl bgp peers`, and the tables of `twillctl node status`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use tonic::transport::Channel;
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::{Peer, PeerType, PeersReply, PeersRequest};

use super::{duration, said, whole};
use crate::args::bgp::Format;
use crate::output::out;
use crate::table::{self, Align};

const SECS_A_DAY: u64 = 86_400;

pub(super) async fn run(mut client: BgpClient<Channel>, format: Format) -> Result<ExitCode> {
    let reply = client.peers(PeersRequest {}).await.map_err(said)?.into_inner();
    let all = || {
        json!({
            "localAS": reply.local_as,
            "routerID": reply.router_id,
            "peers": reply.peers.iter().map(value).collect::<Vec<_>>(),
            "warnings": reply.warnings,
        })
    };
    if !whole(format, all)? {
        out!("{}", text(&reply, format == Format::Wide));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(reply: &PeersReply, wide: bool) -> String {
    let mut headings = vec![
        "PEER",
        "TYPE",
        "AS",
        "STATE",
        "SINCE",
        "UPTIME",
        "RECEIVED",
        "ACCEPTED",
        "ADVERTISED",
        "SOURCE",
    ];
    if wide {
        headings.extend([
            "ROUTERID",
            "LASTSENT",
            "LASTRECEIVED",
            "DESCRIPTION",
            "BFD",
            "WARNINGS",
        ]);
    } else {
        headings.push("INFO");
    }
    let row = |p: &Peer| {
        let mut cells = vec![
            p.address.clone(),
            kind(p.r#type()).to_owned(),
            remote_as(p),
            p.state.clone(),
            since(p.since_unix_secs),
            duration(p.uptime_secs),
            p.prefixes_received.to_string(),
            p.prefixes_accepted.to_string(),
            p.prefixes_advertised.to_string(),
            p.source.clone(),
        ];
        if wide {
            cells.extend([
                p.router_id.clone(),
                p.last_error_sent.clone(),
                p.last_error_received.clone(),
                p.description.clone(),
                p.bfd_state.clone(),
                p.warnings.join("; "),
            ]);
        } else {
            let info = if p.info.is_empty() {
                p.warnings.join("; ")
            } else {
                p.info.clone()
            };
            cells.push(info);
        }
        cells
    };
    let rows: Vec<_> = reply.peers.iter().map(row).collect();
    let warnings = reply.warnings.iter().map(|w| format!("warning: {w}\n"));
    format!(
        "local AS {}, router id {}\n{}\n{}",
        reply.local_as,
        reply.router_id,
        warnings.collect::<String>(),
        table::plain(&headings, &rows)
    )
}

/// The peer's AS number, if it is known.
pub(super) fn remote_as(peer: &Peer) -> String {
    match peer.remote_as {
        0 => "-".to_owned(),
        asn => asn.to_string(),
    }
}

/// A peer for machines.
pub(super) fn value(peer: &Peer) -> Value {
    let families = peer.families.iter().map(|f| {
        json!({
            "family": f.family,
            "received": f.received,
            "accepted": f.accepted,
            "stale": f.stale,
            "advertised": f.advertised,
        })
    });
    json!({
        "address": peer.address,
        "port": peer.port,
        "type": kind(peer.r#type()),
        "source": peer.source,
        "description": peer.description,
        "session": peer.session,
        "remoteAS": peer.remote_as,
        "localAS": peer.local_as,
        "routerID": peer.router_id,
        "state": peer.state,
        "sinceUnixSecs": peer.since_unix_secs,
        "uptimeSecs": peer.uptime_secs,
        "establishedCount": peer.established_count,
        "prefixes": {
            "received": peer.prefixes_received,
            "accepted": peer.prefixes_accepted,
            "stale": peer.prefixes_stale,
            "advertised": peer.prefixes_advertised,
            "max": peer.prefixes_max,
        },
        "families": families.collect::<Vec<_>>(),
        "lastErrorSent": peer.last_error_sent,
        "lastErrorReceived": peer.last_error_received,
        "bfd": peer.bfd_state,
        "warnings": peer.warnings,
    })
}

/// One boxed table a family, as `calicoctl node status` prints them.
pub(crate) fn status_tables(peers: &[Peer]) -> String {
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
        PeerType::Unspecified => "configured",
    }
}

/// Time of day (UTC) within the last day, days before that.
pub(super) fn since(unix_secs: i64) -> String {
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

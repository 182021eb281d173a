//! `twillctl bgp peer`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use tonic::transport::Channel;
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::{DetailReply, DetailRequest, Peer};

use super::{duration, peers, said, whole};
use crate::args::bgp::Format;
use crate::output::out;

pub(super) async fn run(mut client: BgpClient<Channel>, peer: String, format: Format) -> Result<ExitCode> {
    let reply = client.detail(DetailRequest { peer }).await;
    let detail = reply.map_err(said)?.into_inner();
    if !whole(format, || value(&detail))? {
        out!("{}", text(&detail, format == Format::Wide));
    }
    Ok(ExitCode::SUCCESS)
}

fn value(detail: &DetailReply) -> Value {
    let mut value = peers::value(&detail.peer.clone().unwrap_or_default());
    let counters: serde_json::Map<String, Value> = detail
        .counters
        .iter()
        .map(|c| (c.name.clone(), json!(c.value)))
        .collect();
    let events = detail
        .events
        .iter()
        .map(|e| json!({"unixSecs": e.unix_secs, "what": e.what}));
    let more = json!({
        "localAddress": detail.local_address,
        "capabilities": {"sent": detail.capabilities_sent, "received": detail.capabilities_received},
        "timers": {
            "holdMs": detail.hold_time_ms,
            "keepaliveMs": detail.keepalive_ms,
            "connectRetryMs": detail.connect_retry_ms,
        },
        "gracefulRestart": {
            "enabled": detail.restart_enabled,
            "restartSecs": detail.restart_secs,
            "peerRestartSecs": detail.peer_restart_secs,
            "peerFamilies": detail.peer_restart_families,
            "notification": detail.notification_restart,
        },
        "messageMax": detail.message_max,
        "passive": detail.passive,
        "routeReflectorClient": detail.route_reflector_client,
        "ttlSecurityHops": detail.ttl_security_hops,
        "password": detail.password,
        "importPolicy": detail.import_policy,
        "exportPolicy": detail.export_policy,
        "counters": counters,
        "events": events.collect::<Vec<_>>(),
    });
    if let (Some(into), Value::Object(more)) = (value.as_object_mut(), more) {
        into.extend(more);
    }
    value
}

fn text(detail: &DetailReply, wide: bool) -> String {
    let mut out = String::new();
    let peer = detail.peer.clone().unwrap_or_default();
    session(&mut out, detail, &peer);
    let mut list = |title: &str, items: &[String]| {
        if !items.is_empty() {
            let _ = writeln!(out, "{title}:");
            for item in items {
                let _ = writeln!(out, "  {item}");
            }
        }
    };
    list("warnings", &peer.warnings);
    list("capabilities sent", &detail.capabilities_sent);
    list("capabilities received", &detail.capabilities_received);
    let restart = if detail.restart_enabled {
        format!("offered, {} s", detail.restart_secs)
    } else {
        "not offered".to_owned()
    };
    let theirs = match detail.peer_restart_families.as_slice() {
        [] => "does not restart gracefully".to_owned(),
        families => format!("{}, {} s", families.join(" and "), detail.peer_restart_secs),
    };
    let n_bit = if detail.notification_restart {
        "; over NOTIFICATIONs, too"
    } else {
        ""
    };
    let stale = peer.prefixes_stale;
    list(
        "graceful restart",
        &[format!(
            "{restart}; the peer: {theirs}{n_bit}; {stale} stale prefixes"
        )],
    );
    let families = peer.families.iter().map(|f| {
        format!(
            "{}: {} received, {} accepted, {} stale, {} advertised",
            f.family, f.received, f.accepted, f.stale, f.advertised
        )
    });
    list("prefixes", &families.collect::<Vec<_>>());
    let counters = detail.counters.iter().map(|c| format!("{} {}", c.name, c.value));
    list("counters", &counters.collect::<Vec<_>>());
    if wide {
        list("import policy", &detail.import_policy);
        list("export policy", &detail.export_policy);
    }
    let events = detail
        .events
        .iter()
        .map(|e| format!("{} {}", peers::since(e.unix_secs), e.what));
    list("events", &events.collect::<Vec<_>>());
    out
}

fn session(out: &mut String, detail: &DetailReply, peer: &Peer) {
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<17}{value}");
        }
    };
    line("peer", &peer.address);
    line("source", &peer.source);
    line("description", &peer.description);
    let asn = format!(
        "{} (ours {}), {}",
        peers::remote_as(peer),
        peer.local_as,
        peer.session
    );
    line("AS", &asn);
    line("router id", &peer.router_id);
    let state = format!(
        "{} for {}, established {} times",
        peer.state,
        duration(peer.uptime_secs),
        peer.established_count
    );
    line("state", &state);
    line("local address", &detail.local_address);
    line("BFD", &peer.bfd_state);
    line("error sent", &peer.last_error_sent);
    line("error received", &peer.last_error_received);
    let secs = |ms: u64| {
        let whole = ms / 1000;
        if ms.is_multiple_of(1000) {
            format!("{whole} s")
        } else {
            format!("{ms} ms")
        }
    };
    let timers = format!(
        "hold {}, keepalive {}, connect retry {}",
        secs(detail.hold_time_ms),
        secs(detail.keepalive_ms),
        secs(detail.connect_retry_ms)
    );
    line("timers", &timers);
    let mut options = Vec::new();
    options.extend(detail.passive.then(|| "passive".to_owned()));
    options.extend(
        detail
            .route_reflector_client
            .then(|| "route reflector client".to_owned()),
    );
    options.extend(
        (detail.ttl_security_hops > 0).then(|| format!("TTL security {} hops", detail.ttl_security_hops)),
    );
    options.extend(detail.password.then(|| "TCP MD5".to_owned()));
    options
        .extend((peer.prefixes_max > 0).then(|| format!("at most {} prefixes a family", peer.prefixes_max)));
    line("options", &options.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::api::{Counter, FamilyCounts, PeerEvent};

    fn detail() -> DetailReply {
        DetailReply {
            peer: Some(Peer {
                address: "192.0.2.1".into(),
                state: "Established".into(),
                remote_as: 65001,
                local_as: 65000,
                session: "eBGP".into(),
                uptime_secs: 61,
                established_count: 2,
                families: vec![FamilyCounts {
                    family: "ipv4-unicast".into(),
                    received: 3,
                    accepted: 2,
                    ..FamilyCounts::default()
                }],
                ..Peer::default()
            }),
            capabilities_sent: vec!["route-refresh".into()],
            hold_time_ms: 90_000,
            keepalive_ms: 30_000,
            counters: vec![Counter {
                name: "updates_in".into(),
                value: 7,
            }],
            events: vec![PeerEvent {
                unix_secs: 1,
                what: "up".into(),
            }],
            ..DetailReply::default()
        }
    }

    #[test]
    fn a_peer_is_told_in_lines() {
        let text = text(&detail(), false);
        for line in [
            "peer             192.0.2.1\n",
            "AS               65001 (ours 65000), eBGP\n",
            "state            Established for 00:01:01, established 2 times\n",
            "timers           hold 90 s, keepalive 30 s, connect retry 0 s\n",
            "capabilities sent:\n  route-refresh\n",
            "  ipv4-unicast: 3 received, 2 accepted, 0 stale, 0 advertised\n",
            "counters:\n  updates_in 7\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn machines_get_all_of_it() {
        let value = value(&detail());
        assert_eq!(value["address"], "192.0.2.1");
        assert_eq!(value["capabilities"]["sent"][0], "route-refresh");
        assert_eq!(value["counters"]["updates_in"], 7);
        assert_eq!(value["timers"]["holdMs"], 90_000);
    }
}

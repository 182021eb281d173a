//! `twill_bgp_*`: one line a peer and number, written at the time of a scrape, so that departed peers do not linger.

use std::fmt::Write;

use twill_bgp::view::{PeerState, PrefixCounts, Totals};
use twill_bgp::{Family, PeerStatus};

use super::warnings;
use crate::api::bgp_counters;

/// A name behind `twill_bgp_`, what it says, and where the number comes from.
type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

/// The text of all peers, and of the speaker as a whole.
pub(crate) fn text(peers: &[PeerStatus], totals: &Totals) -> String {
    let mut out = String::new();
    whole(&mut out, totals);
    gauges(&mut out, peers);
    prefixes(&mut out, peers);
    counters(&mut out, peers);
    out
}

/// Bounds over all peers, and what is used of them.
fn whole(out: &mut String, totals: &Totals) {
    let gauges: [Row<Totals>; 10] = [
        ("routes", "Routes of all peers and families", |t| t.routes),
        ("routes_limit", "So many routes there may be", |t| {
            t.limits.routes.into()
        }),
        ("attribute_sets", "Distinct sets of path attributes", |t| {
            t.attribute_sets
        }),
        ("attribute_octets", "Octets of these", |t| t.attribute_octets),
        ("attribute_octets_limit", "So many octets there may be", |t| {
            t.limits.attribute_octets
        }),
        (
            "unknown_attribute_octets",
            "Octets of unknown path attributes",
            |t| t.unknown_octets,
        ),
        (
            "unknown_attribute_octets_limit",
            "So many of them there may be",
            |t| t.limits.unknown_octets,
        ),
        (
            "neighbours_pending",
            "Dynamic neighbours that have no session yet",
            |t| t.pending,
        ),
        ("neighbours_pending_limit", "So many of them there may be", |t| {
            t.limits.pending.into()
        }),
        ("alarms", "Bounds that are near or were met", |t| {
            t.alarms.len() as u64
        }),
    ];
    let counters: [Row<Totals>; 5] = [
        (
            "unknown_attributes_stripped_total",
            "Announcements taken without their unknown attributes",
            |t| t.unknown_stripped,
        ),
        (
            "sessions_out_of_resources_total",
            "Sessions ended with Cease, Out of Resources",
            |t| t.sessions_exhausted,
        ),
        (
            "connections_refused_total",
            "Connections closed before a byte was read",
            |t| t.refused,
        ),
        (
            "connections_refused_of_crowds_total",
            "Of these, connections of hosts that had too many without a session",
            |t| t.refused_of_crowds,
        ),
        (
            "session_panics_total",
            "Panics in the work of sessions, each of which ended one",
            |t| t.panics,
        ),
    ];
    for (kind, rows) in [("gauge", &gauges[..]), ("counter", &counters[..])] {
        for (name, help, of) in rows {
            head(out, name, help, kind);
            let _ = writeln!(out, "twill_bgp_{name} {}", of(totals));
        }
    }
}

fn gauges(out: &mut String, peers: &[PeerStatus]) {
    let established = |p: &PeerStatus| u64::from(p.state == PeerState::Established);
    let state = |p: &PeerStatus| match p.state {
        PeerState::Idle => 1,
        PeerState::Connect => 2,
        PeerState::Active => 3,
        PeerState::OpenSent => 4,
        PeerState::OpenConfirm => 5,
        PeerState::Established => 6,
    };
    let hold = |p: &PeerStatus| p.negotiated.as_ref().map_or(0, |n| n.hold_secs.into());
    let bfd = |p: &PeerStatus| {
        u64::from(
            p.bfd
                .as_ref()
                .is_some_and(|b| b.state == twill_bgp::bfd::State::Up),
        )
    };
    let rows: [Row<PeerStatus>; 8] = [
        ("peer_established", "1 for each established session", established),
        (
            "peer_state",
            "State of each peer's FSM: 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established",
            state,
        ),
        (
            "peer_remote_as",
            "The peer's AS number; 0 while one that may have any has not said its own",
            |p| p.asn.unwrap_or(0).into(),
        ),
        ("peer_state_seconds", "Time in this state", |p| {
            p.state_age.as_secs()
        }),
        ("peer_hold_seconds", "Hold Time agreed", hold),
        ("peer_bfd_up", "1 where BFD is up beside the session", bfd),
        (
            "peer_prefixes_limit",
            "Prefixes of one family that end the session; 0 is no limit",
            |p| p.config.prefixes_max.unwrap_or(0).into(),
        ),
        ("peer_warnings", "Things about each peer to look at", |p| {
            u64::try_from(warnings::of(p).len()).unwrap_or(u64::MAX)
        }),
    ];
    for (name, help, of) in rows {
        head(out, name, help, "gauge");
        for peer in peers {
            let _ = writeln!(
                out,
                "twill_bgp_{name}{{peer=\"{}\"}} {}",
                peer.config.name(),
                of(peer)
            );
        }
    }
    head(out, "peers", "Peers that are configured or dialled in", "gauge");
    let _ = writeln!(out, "twill_bgp_peers {}", peers.len());
}

fn prefixes(out: &mut String, peers: &[PeerStatus]) {
    let rows: [Row<PrefixCounts>; 4] = [
        ("received", "Prefixes from each peer", |c| c.received),
        (
            "accepted",
            "Prefixes from each peer that import policy let through",
            |c| c.accepted,
        ),
        (
            "stale",
            "Prefixes from each peer that are kept over its restart",
            |c| c.stale,
        ),
        ("advertised", "Prefixes to each peer", |c| c.advertised),
    ];
    for (word, help, of) in rows {
        let name = format!("peer_prefixes_{word}");
        head(out, &name, help, "gauge");
        for peer in peers {
            let families = Family::ALL.into_iter().filter(|f| peer.config.families.has(*f));
            for family in families {
                let count = of(peer.prefixes.at(family));
                let _ = writeln!(
                    out,
                    "twill_bgp_{name}{{peer=\"{}\",family=\"{family}\"}} {count}",
                    peer.config.name()
                );
            }
        }
    }
}

fn counters(out: &mut String, peers: &[PeerStatus]) {
    let tables: Vec<_> = peers.iter().map(|p| (p.config.name(), bgp_counters(p))).collect();
    let Some((_, first)) = tables.first() else { return };
    for (place, (name, _)) in first.iter().enumerate() {
        let name = format!("peer_{name}_total");
        head(
            out,
            &name,
            &format!("Of each peer since the start: {}", name.replace('_', " ")),
            "counter",
        );
        for (address, table) in &tables {
            let value = table.get(place).map_or(0, |(_, value)| *value);
            let _ = writeln!(out, "twill_bgp_{name}{{peer=\"{address}\"}} {value}");
        }
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(
        out,
        "# HELP twill_bgp_{name} {help}.\n# TYPE twill_bgp_{name} {kind}"
    );
}

#[cfg(test)]
pub(crate) fn sample(address: &str) -> PeerStatus {
    use twill_bgp::PeerConfig;
    use twill_bgp::policy::SessionType;
    let address = address.parse().unwrap();
    PeerStatus {
        address,
        description: String::new(),
        asn: Some(65001),
        session: SessionType::Ebgp,
        state: PeerState::Established,
        state_age: std::time::Duration::from_secs(7),
        established_count: 1,
        prefixes: twill_bgp::PerFamily::default(),
        last_error_sent: None,
        last_error_received: None,
        negotiated: None,
        counters: twill_bgp::view::Counters::default(),
        config: Box::new(PeerConfig::new(address, 65001)),
        bfd: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_peer_is_a_line_with_its_type() {
        let mut peer = sample("192.0.2.1");
        peer.prefixes.ipv4.received = 81;
        peer.config.prefixes_max = Some(100);
        peer.counters.updates_in = 9;
        let totals = Totals {
            routes: 81,
            panics: 2,
            ..Totals::default()
        };
        let text = text(&[peer], &totals);
        for line in [
            "# TYPE twill_bgp_peer_established gauge",
            "twill_bgp_peer_established{peer=\"192.0.2.1\"} 1",
            "twill_bgp_peer_state{peer=\"192.0.2.1\"} 6",
            "twill_bgp_peer_remote_as{peer=\"192.0.2.1\"} 65001",
            "twill_bgp_peer_prefixes_received{peer=\"192.0.2.1\",family=\"ipv4-unicast\"} 81",
            "twill_bgp_peer_warnings{peer=\"192.0.2.1\"} 1",
            "# TYPE twill_bgp_peer_updates_in_total counter",
            "twill_bgp_peer_updates_in_total{peer=\"192.0.2.1\"} 9",
            "twill_bgp_peers 1",
            "twill_bgp_routes 81",
            "twill_bgp_routes_limit 10000000",
            "# TYPE twill_bgp_session_panics_total counter",
            "twill_bgp_session_panics_total 2",
            "twill_bgp_peer_session_panics_total{peer=\"192.0.2.1\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert!(!text.contains("ipv6-unicast"), "{text}");
    }

    #[test]
    fn a_limit_is_warned_of_before_it_is_reached() {
        let check = |received, warned: bool| {
            let mut peer = sample("192.0.2.1");
            peer.prefixes.ipv4.received = received;
            peer.config.prefixes_max = Some(100);
            assert_eq!(!warnings::of(&peer).is_empty(), warned, "{received}");
        };
        check(79, false);
        check(80, true);
    }
}

//! Peers and routes as messages.

use std::net::IpAddr;
use std::time::Duration;

use twill_bgp::link;
use twill_bgp::policy::{Policy, SessionType, Verdict};
use twill_bgp::view::{Event, PeerState};
use twill_bgp::{Family, PeerConfig, PeerStatus, RouteView};
use twill_proto::api::{BgpRoute, Counter, DetailReply, FamilyCounts, Peer, PeerEvent, PeerType};

use crate::bgp::config::{self, Derived};
use crate::bgp::warnings;

pub(super) fn peer(derived: &Derived, now_secs: u64, status: &PeerStatus) -> Peer {
    let source = derived.sources.get(&status.address);
    let kind = match source.map(|s| s.kind) {
        Some(config::PeerType::Mesh) => PeerType::Mesh,
        Some(config::PeerType::Global) => PeerType::Global,
        Some(config::PeerType::Node) => PeerType::Node,
        None => PeerType::Unspecified,
    };
    let families: Vec<FamilyCounts> = Family::ALL
        .into_iter()
        .filter(|f| status.config.families.has(*f))
        .map(|family| {
            let counts = status.prefixes.at(family);
            FamilyCounts {
                family: family.to_string(),
                received: counts.received,
                accepted: counts.accepted,
                stale: counts.stale,
                advertised: counts.advertised,
            }
        })
        .collect();
    let sum = |of: fn(&FamilyCounts) -> u64| families.iter().map(of).sum();
    let (sent, received) = (&status.last_error_sent, &status.last_error_received);
    let error = received.iter().chain(sent).next().cloned();
    let established = status.state == PeerState::Established;
    let uptime_secs = status.state_age.as_secs();
    Peer {
        address: status.config.name(),
        port: status.config.port.into(),
        r#type: kind.into(),
        remote_as: status.asn.unwrap_or(0),
        local_as: status.config.local_asn(derived.config.asn),
        state: status.state.to_string(),
        since_unix_secs: i64::try_from(now_secs.saturating_sub(uptime_secs)).unwrap_or(i64::MAX),
        info: error.filter(|_| !established).unwrap_or_default(),
        prefixes_received: sum(|f| f.received),
        prefixes_advertised: sum(|f| f.advertised),
        router_id: status
            .negotiated
            .as_ref()
            .map_or_else(String::new, |n| n.router_id.to_string()),
        source: source.map_or_else(String::new, |s| s.name.clone()),
        description: status.description.clone(),
        prefixes_accepted: sum(|f| f.accepted),
        prefixes_stale: sum(|f| f.stale),
        last_error_sent: sent.clone().unwrap_or_default(),
        last_error_received: received.clone().unwrap_or_default(),
        families,
        established_count: status.established_count,
        prefixes_max: status.config.prefixes_max.unwrap_or(0),
        session: match status.session {
            SessionType::Ebgp => "eBGP".to_owned(),
            SessionType::Ibgp => "iBGP".to_owned(),
        },
        bfd_state: status
            .bfd
            .as_ref()
            .map_or_else(String::new, |b| format!("{:?}", b.state)),
        warnings: warnings::of(status),
        uptime_secs,
    }
}

pub(super) fn detail(derived: &Derived, now_secs: u64, status: &PeerStatus, events: &[Event]) -> DetailReply {
    let (config, negotiated) = (&status.config, status.negotiated.as_ref());
    let hold_secs = negotiated.map_or(config.timers.hold_secs, |n| n.hold_secs);
    let hold = Duration::from_secs(hold_secs.into());
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let event = |e: &Event| PeerEvent {
        unix_secs: i64::try_from(now_secs.saturating_sub(e.age.as_secs())).unwrap_or(i64::MAX),
        what: e.what.clone(),
    };
    DetailReply {
        peer: Some(peer(derived, now_secs, status)),
        local_address: negotiated.map_or_else(String::new, |n| n.local_address.to_string()),
        capabilities_sent: negotiated.map_or_else(Vec::new, |n| n.described_sent.clone()),
        capabilities_received: negotiated.map_or_else(Vec::new, |n| n.described_received.clone()),
        hold_time_ms: ms(hold),
        keepalive_ms: ms(config.timers.keepalive_of(hold)),
        connect_retry_ms: ms(config.timers.connect_retry),
        restart_enabled: config.graceful_restart.enabled,
        restart_secs: config.graceful_restart.restart_secs.into(),
        peer_restart_secs: negotiated.map_or(0, |n| n.restart_secs.into()),
        peer_restart_families: negotiated
            .iter()
            .flat_map(|n| n.graceful_restart.iter())
            .map(|f| f.to_string())
            .collect(),
        notification_restart: negotiated.is_some_and(|n| n.notification_restart),
        passive: config.passive,
        route_reflector_client: config.route_reflector_client,
        ttl_security_hops: config.ttl_security_hops.map_or(0, Into::into),
        password: config.password.is_some(),
        counters: counters(status)
            .into_iter()
            .map(|(name, value)| Counter {
                name: name.to_owned(),
                value,
            })
            .collect(),
        events: events.iter().map(event).collect(),
        import_policy: policy(&config.import),
        export_policy: policy(&config.export),
        message_max: negotiated.map_or(0, |n| u32::try_from(n.message_max).unwrap_or(u32::MAX)),
    }
}

/// Counters of a peer by name; the metrics have the same names.
pub(crate) fn counters(status: &PeerStatus) -> [(&'static str, u64); 13] {
    let c = &status.counters;
    [
        ("sessions_established", status.established_count),
        ("updates_in", c.updates_in),
        ("updates_out", c.updates_out),
        ("keepalives_in", c.keepalives_in),
        ("keepalives_out", c.keepalives_out),
        ("notifications_in", c.notifications_in),
        ("notifications_out", c.notifications_out),
        ("refreshes_in", c.refreshes_in),
        ("octets_in", c.octets_in),
        ("octets_out", c.octets_out),
        ("treated_as_withdraw", c.treated_as_withdraw),
        ("attributes_discarded", c.attributes_discarded),
        ("session_panics", c.panics),
    ]
}

fn policy(policy: &Policy) -> Vec<String> {
    let word = |verdict: Verdict| match verdict {
        Verdict::Accept => "accept",
        Verdict::Reject => "reject",
    };
    let terms = policy.terms.iter().map(|t| match t.verdict {
        Some(verdict) => format!("{} {}", word(verdict), t.name),
        None => format!("change {}", t.name),
    });
    terms
        .chain([format!("{} everything else", word(policy.default))])
        .collect()
}

/// What people call a peer: those on links by their interfaces.
pub(super) fn name<'a>(mut peers: impl Iterator<Item = &'a PeerConfig>, address: IpAddr) -> String {
    if link::of(address) == 0 {
        return address.to_string();
    }
    let known = peers.find(|p| p.address == address);
    known.map_or_else(|| address.to_string(), PeerConfig::name)
}

/// A next hop; a link-local one with the index of its interface.
pub(super) fn next_hop(hop: IpAddr) -> String {
    match link::of(hop) {
        0 => hop.to_string(),
        index => format!("{}%{index}", link::plain(hop)),
    }
}

pub(super) fn route(peers: &[PeerStatus], view: &RouteView) -> BgpRoute {
    let community = |c: &u32| format!("{}:{}", c >> 16, c & 0xffff);
    let large = |[a, b, c]: &[u32; 3]| format!("{a}:{b}:{c}");
    BgpRoute {
        prefix: view.prefix.to_string(),
        next_hop: view.next_hop.map_or_else(|| "self".to_owned(), next_hop),
        peer: view
            .peer
            .map_or_else(String::new, |peer| name(peers.iter().map(|p| &*p.config), peer)),
        as_path: view.as_path.clone(),
        origin: view.origin.to_owned(),
        local_pref: view.local_pref,
        med: view.med,
        communities: view.communities.iter().map(community).collect(),
        best: view.best,
        stale: view.stale,
        multipath: view.multipath,
        why: view.why.to_owned(),
        path_id: view.path_id,
        large_communities: view.large_communities.iter().map(large).collect(),
    }
}

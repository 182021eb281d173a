//! The BGP Monitoring Protocol, version 3 (RFC 7854): messages from us to a collector.

use super::{Event, RouteChange, View, Watched, update};
use crate::family::{Family, PerFamily};
use crate::fsm::Cause;
use crate::view::PrefixCounts;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VERSION: u8 = 3;
const ROUTE_MONITORING: u8 = 0;
const STATISTICS_REPORT: u8 = 1;
const PEER_DOWN: u8 = 2;
const PEER_UP: u8 = 3;
const INITIATION: u8 = 4;
const TERMINATION: u8 = 5;

/// The peer's address is an IPv6 one.
const FLAG_V6: u8 = 0x80;
/// After import policy.
const FLAG_POST_POLICY: u8 = 0x40;

/// The longest text in an Initiation; longer ones are cut.
const TEXT_MAX: usize = 255;

fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, kind]);
    body(out);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 1..start + 5) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

fn tlv(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = value.get(..value.len().min(TEXT_MAX)).unwrap_or_default();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(value);
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An address in 16 octets; an IPv4 one in the last four (section 4.2).
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&a.octets());
        }
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
}

/// The Per-Peer Header (section 4.2), of a global instance peer; AS_PATHs are always in four octets.
fn per_peer(out: &mut Vec<u8>, peer: &Watched, view: View, at: SystemTime) {
    let mut flags = 0;
    if peer.address.is_ipv6() {
        flags |= FLAG_V6;
    }
    if view == View::PostPolicy {
        flags |= FLAG_POST_POLICY;
    }
    out.extend_from_slice(&[0, flags]);
    out.extend_from_slice(&[0; 8]);
    address(out, peer.address);
    out.extend_from_slice(&peer.asn.to_be_bytes());
    out.extend_from_slice(&peer.router_id.octets());
    let at = since_epoch(at);
    out.extend_from_slice(&u32::try_from(at.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&at.subsec_micros().to_be_bytes());
}

/// Appends an Initiation (section 4.3): who we are, and what.
pub fn initiation(out: &mut Vec<u8>, name: &str, description: &str) {
    message(out, INITIATION, |out| {
        tlv(out, 1, description.as_bytes());
        tlv(out, 2, name.as_bytes());
    });
}

/// Appends a Termination (section 4.5): we stop on purpose.
pub fn termination(out: &mut Vec<u8>) {
    message(out, TERMINATION, |out| tlv(out, 1, &0_u16.to_be_bytes()));
}

/// Appends what an event says; of routes only those of a view that is wanted.
pub fn event(out: &mut Vec<u8>, event: &Event, wants: impl Fn(View) -> bool, at: SystemTime) {
    match event {
        Event::Up(peer) => peer_up(out, peer),
        Event::Down(peer, cause) => peer_down(out, peer, cause, at),
        Event::Routes(peer, change) if wants(change.view) => routes(out, peer, change, at),
        Event::Routes(..) => {}
        Event::EndOfRib(peer, family) => {
            for view in [View::PrePolicy, View::PostPolicy]
                .into_iter()
                .filter(|v| wants(*v))
            {
                end_of_rib(out, peer, view, *family, at);
            }
        }
    }
}

/// Appends a Peer Up Notification (section 4.10).
pub fn peer_up(out: &mut Vec<u8>, peer: &Watched) {
    message(out, PEER_UP, |out| {
        per_peer(out, peer, View::PrePolicy, peer.since);
        address(out, peer.local_address);
        out.extend_from_slice(&peer.ports.0.to_be_bytes());
        out.extend_from_slice(&peer.ports.1.to_be_bytes());
        out.extend_from_slice(&peer.opens.sent);
        out.extend_from_slice(&peer.opens.received);
    });
}

/// Appends a Peer Down Notification (section 4.9).
pub fn peer_down(out: &mut Vec<u8>, peer: &Watched, cause: &Cause, at: SystemTime) {
    message(out, PEER_DOWN, |out| {
        per_peer(out, peer, View::PrePolicy, at);
        match cause {
            Cause::Sent(notification) => {
                out.push(1);
                notification.encode(out);
            }
            // 2: by ourselves and without a NOTIFICATION; FSM event 2, ManualStop.
            Cause::Stopped => out.extend_from_slice(&[2, 0, 2]),
            Cause::Received(notification) => {
                out.push(3);
                notification.encode(out);
            }
            Cause::Closed(_) | Cause::Replaced => out.push(4),
        }
    });
}

/// Appends Route Monitoring messages (section 4.6).
pub fn routes(out: &mut Vec<u8>, peer: &Watched, change: &RouteChange, at: SystemTime) {
    let path_ids = peer.add_path_in.has(change.family);
    update::messages(
        change.family,
        change.attrs.as_deref(),
        &change.nlri,
        path_ids,
        |update| {
            monitoring(out, peer, change.view, update, at);
        },
    );
}

/// Appends a Route Monitoring message with an End-of-RIB: all that was there has been said (section 5).
pub fn end_of_rib(out: &mut Vec<u8>, peer: &Watched, view: View, family: Family, at: SystemTime) {
    monitoring(out, peer, view, &update::end_of_rib(family), at);
}

fn monitoring(out: &mut Vec<u8>, peer: &Watched, view: View, update: &[u8], at: SystemTime) {
    message(out, ROUTE_MONITORING, |out| {
        per_peer(out, peer, view, at);
        out.extend_from_slice(update);
    });
}

/// Appends a Statistics Report (section 4.8): routes in the Adj-RIB-In, in all (7) and by family (9), after policy by family
/// (10), and UPDATEs treated as withdraw (11).
pub fn statistics(
    out: &mut Vec<u8>,
    peer: &Watched,
    counts: &PerFamily<PrefixCounts>,
    treated_as_withdraw: u64,
    at: SystemTime,
) {
    message(out, STATISTICS_REPORT, |out| {
        per_peer(out, peer, View::PrePolicy, at);
        let all: u64 = Family::ALL.iter().map(|f| counts.at(*f).received).sum();
        let of_family =
            |f: Family, n: u64| [&f.afi().to_be_bytes()[..], &[f.safi()], &n.to_be_bytes()].concat();
        out.extend_from_slice(&6_u32.to_be_bytes());
        tlv(out, 7, &all.to_be_bytes());
        for family in Family::ALL {
            tlv(out, 9, &of_family(family, counts.at(family).received));
            tlv(out, 10, &of_family(family, counts.at(family).accepted));
        }
        let treated = u32::try_from(treated_as_withdraw).unwrap_or(u32::MAX);
        tlv(out, 11, &treated.to_be_bytes());
    });
}

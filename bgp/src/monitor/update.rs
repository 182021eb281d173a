//! UPDATE messages and attribute lists out of attribute sets, for readers outside of any session.

use crate::family::Family;
use crate::prefix::{Prefix, V4, V6};
use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use crate::wire::header::{HEADER_LEN, MESSAGE_MAX, MessageType, message};
use crate::wire::{AttrSet, NextHopValue};
use ipnet::IpNet;
use std::net::Ipv4Addr;

/// Octets of an MP attribute beside its next hop and NLRI: flags, type, length of two octets, AFI, SAFI, and in MP_REACH the
/// length of the next hop and the reserved octet.
const MP_OVERHEAD: usize = 4 + 3 + 2;
/// Octets of an UPDATE beside its lists: the header and both lengths.
const UPDATE_OVERHEAD: usize = HEADER_LEN + 4;

/// The next hop as MP_REACH carries it; our own address, which a table has for routes of ours, as zeros.
pub(super) fn next_hop(value: NextHopValue, family: Family) -> Vec<u8> {
    match value {
        NextHopValue::V4(a) => a.octets().into(),
        NextHopValue::V6(a, None) => a.octets().into(),
        NextHopValue::V6(a, Some(link_local)) => [a.octets(), link_local.octets()].concat(),
        NextHopValue::SelfAddress => match family {
            Family::Ipv4Unicast => Ipv4Addr::UNSPECIFIED.octets().into(),
            Family::Ipv6Unicast => vec![0; 16],
        },
    }
}

/// The set's attributes in the order of their codes, with `extra` among them.
pub(super) fn attributes(set: &AttrSet, extra: &Attr<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(set.octets().len() + extra.value.len() + 4);
    let mut waiting = Some(extra);
    for attr in set.iter() {
        if let Some(extra) = waiting.take_if(|e| e.code < attr.code) {
            extra.encode(&mut out);
        }
        attr.encode(&mut out);
    }
    if let Some(extra) = waiting {
        extra.encode(&mut out);
    }
    out
}

fn nlri(net: IpNet, path_id: u32, path_ids: bool, out: &mut Vec<u8>) {
    if path_ids {
        out.extend_from_slice(&path_id.to_be_bytes());
    }
    if let Some(prefix) = V4::of_net(net) {
        prefix.encode(out);
    } else if let Some(prefix) = V6::of_net(net) {
        prefix.encode(out);
    }
}

/// Whether these routes go into MP_REACH: all but IPv4 with an IPv4 next hop.
fn multiprotocol(family: Family, set: &AttrSet) -> bool {
    family == Family::Ipv6Unicast || matches!(set.next_hop(), NextHopValue::V6(..))
}

/// The fewest UPDATEs of at most 4096 octets that announce (or, without attributes, withdraw) these prefixes. What does not
/// fit even alone is left out: it could not have come in one either, but by RFC 8654.
pub(super) fn messages(
    family: Family,
    set: Option<&AttrSet>,
    prefixes: &[(IpNet, u32)],
    path_ids: bool,
    mut each: impl FnMut(&[u8]),
) {
    let fixed = set.map_or(0, |set| {
        attributes(set, &nothing()).len() + next_hop(set.next_hop(), family).len()
    });
    let room = MESSAGE_MAX.saturating_sub(UPDATE_OVERHEAD + MP_OVERHEAD + fixed);
    let mut list = Vec::new();
    let mut whole = |list: &mut Vec<u8>| {
        if !list.is_empty() {
            each(&update(family, set, list));
            list.clear();
        }
    };
    for (net, path_id) in prefixes {
        let mut one = Vec::with_capacity(21);
        nlri(*net, *path_id, path_ids, &mut one);
        if one.len() > room {
            continue;
        }
        if list.len() + one.len() > room {
            whole(&mut list);
        }
        list.append(&mut one);
    }
    whole(&mut list);
}

/// An attribute that costs its header alone.
const fn nothing() -> Attr<'static> {
    Attr {
        code: code::NEXT_HOP,
        flags: TRANSITIVE,
        value: &[],
    }
}

fn update(family: Family, set: Option<&AttrSet>, list: &[u8]) -> Vec<u8> {
    let identifiers = [&family.afi().to_be_bytes()[..], &[family.safi()]].concat();
    let (mut withdrawn, mut attrs, mut reach) = (&[][..], Vec::new(), &[][..]);
    match set {
        Some(set) if multiprotocol(family, set) => {
            let hop = next_hop(set.next_hop(), family);
            let len = u8::try_from(hop.len()).unwrap_or(0);
            let value = [&identifiers[..], &[len], &hop, &[0], list].concat();
            attrs = attributes(
                set,
                &Attr {
                    code: code::MP_REACH,
                    flags: OPTIONAL,
                    value: &value,
                },
            );
        }
        Some(set) => {
            let value = next_hop(set.next_hop(), family);
            attrs = attributes(
                set,
                &Attr {
                    code: code::NEXT_HOP,
                    flags: TRANSITIVE,
                    value: &value,
                },
            );
            reach = list;
        }
        None if family == Family::Ipv4Unicast => withdrawn = list,
        None => Attr {
            code: code::MP_UNREACH,
            flags: OPTIONAL,
            value: &[&identifiers, list].concat(),
        }
        .encode(&mut attrs),
    }
    let mut out = Vec::new();
    message(&mut out, MessageType::Update, |out| {
        for field in [withdrawn, &attrs[..]] {
            out.extend_from_slice(&u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(field);
        }
        out.extend_from_slice(reach);
    });
    out
}

/// End-of-RIB of a family (RFC 4724 section 2).
pub(super) fn end_of_rib(family: Family) -> Vec<u8> {
    match family {
        Family::Ipv4Unicast => {
            let mut out = Vec::new();
            message(&mut out, MessageType::Update, |out| {
                out.extend_from_slice(&[0; 4])
            });
            out
        }
        Family::Ipv6Unicast => update(family, None, &[]),
    }
}

//! The MRT format (RFC 6396): the table as TABLE_DUMP_V2, sessions as BGP4MP, both with add-path where it is in use (RFC 8050).

use super::{Event, RouteChange, TableEntry, View, Watched, update};
use crate::family::Family;
use crate::prefix::{Prefix, V4, V6};
use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const TABLE_DUMP_V2: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;

const BGP4MP: u16 = 16;
const MESSAGE_AS4: u16 = 4;
const STATE_CHANGE_AS4: u16 = 5;
const MESSAGE_AS4_ADDPATH: u16 = 9;

/// States of the FSM as section 4.4.1 numbers them.
const IDLE: u16 = 1;
const OPEN_CONFIRM: u16 = 5;
const ESTABLISHED: u16 = 6;

/// Peers in one table: the index is of 16 bits, and 0 is ourselves.
pub const PEERS_MAX: usize = 65_535;

fn seconds(at: SystemTime) -> u32 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn record(out: &mut Vec<u8>, at: SystemTime, kind: u16, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&seconds(at).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&subtype.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
}

/// One dump of the table: peers first, then destinations.
#[derive(Debug)]
pub struct TableDump {
    at: SystemTime,
    index: BTreeMap<IpAddr, (u16, u32)>,
    sequence: u32,
}

impl TableDump {
    /// Begins a dump and appends its PEER_INDEX_TABLE (section 4.3.1). The first entry is ourselves; of the peers at most
    /// [`PEERS_MAX`] count.
    #[must_use]
    pub fn begin(
        out: &mut Vec<u8>,
        at: SystemTime,
        router_id: Ipv4Addr,
        asn: u32,
        peers: &[Arc<Watched>],
    ) -> Self {
        let peers = peers.get(..peers.len().min(PEERS_MAX - 1)).unwrap_or_default();
        record(out, at, TABLE_DUMP_V2, PEER_INDEX_TABLE, |out| {
            out.extend_from_slice(&router_id.octets());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&u16::try_from(peers.len() + 1).unwrap_or(u16::MAX).to_be_bytes());
            let mut entry = |id: Ipv4Addr, at: IpAddr, asn: u32| {
                out.push(if at.is_ipv6() { 3 } else { 2 });
                out.extend_from_slice(&id.octets());
                address(out, at);
                out.extend_from_slice(&asn.to_be_bytes());
            };
            entry(router_id, Ipv4Addr::UNSPECIFIED.into(), asn);
            for peer in peers {
                entry(peer.router_id, peer.address, peer.asn);
            }
        });
        let numbered = peers.iter().zip(1..=u16::MAX);
        Self {
            at,
            index: numbered
                .map(|(p, n)| (p.address, (n, seconds(p.since))))
                .collect(),
            sequence: 0,
        }
    }

    /// Appends a destination (section 4.3.2). Paths of peers that were not there at the beginning are left out.
    pub fn entry(&mut self, out: &mut Vec<u8>, entry: &TableEntry) {
        let now = seconds(self.at);
        let paths: Vec<_> = entry
            .paths
            .iter()
            .filter_map(|path| match path.peer {
                None => Some((path, (0, now))),
                Some(peer) => Some((path, *self.index.get(&peer)?)),
            })
            .collect();
        if paths.is_empty() {
            return;
        }
        let family = Family::of_net(&entry.prefix);
        let path_ids = paths.iter().any(|(p, _)| p.path_id != 0);
        let subtype = match (family, path_ids) {
            (Family::Ipv4Unicast, false) => RIB_IPV4_UNICAST,
            (Family::Ipv6Unicast, false) => RIB_IPV6_UNICAST,
            (Family::Ipv4Unicast, true) => RIB_IPV4_UNICAST_ADDPATH,
            (Family::Ipv6Unicast, true) => RIB_IPV6_UNICAST_ADDPATH,
        };
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        record(out, self.at, TABLE_DUMP_V2, subtype, |out| {
            out.extend_from_slice(&sequence.to_be_bytes());
            if let Some(prefix) = V4::of_net(entry.prefix) {
                prefix.encode(out);
            } else if let Some(prefix) = V6::of_net(entry.prefix) {
                prefix.encode(out);
            }
            out.extend_from_slice(&u16::try_from(paths.len()).unwrap_or(u16::MAX).to_be_bytes());
            for (path, (peer, since)) in paths.iter().take(u16::MAX.into()) {
                out.extend_from_slice(&peer.to_be_bytes());
                out.extend_from_slice(&since.to_be_bytes());
                if path_ids {
                    out.extend_from_slice(&path.path_id.to_be_bytes());
                }
                let attrs = attributes(&path.attrs, family);
                out.extend_from_slice(&u16::try_from(attrs.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(&attrs);
            }
        });
    }
}

/// The attributes of a path; MP_REACH shrinks to its next hop (section 4.3.4).
fn attributes(set: &crate::wire::AttrSet, family: Family) -> Vec<u8> {
    let hop = update::next_hop(set.next_hop(), family);
    if hop.len() == 4 {
        let extra = Attr {
            code: code::NEXT_HOP,
            flags: TRANSITIVE,
            value: &hop,
        };
        return update::attributes(set, &extra);
    }
    let value = [&[u8::try_from(hop.len()).unwrap_or(0)], &hop[..]].concat();
    let extra = Attr {
        code: code::MP_REACH,
        flags: OPTIONAL,
        value: &value,
    };
    update::attributes(set, &extra)
}

/// Appends what an event says of a session (section 4.4): its ends as changes of state, routes before policy as messages.
pub fn event(out: &mut Vec<u8>, event: &Event, at: SystemTime) {
    match event {
        Event::Up(peer) => state_change(out, peer, OPEN_CONFIRM, ESTABLISHED, at),
        Event::Down(peer, _) => state_change(out, peer, ESTABLISHED, IDLE, at),
        Event::Routes(peer, change) if change.view == View::PrePolicy => routes(out, peer, change, at),
        Event::Routes(..) => {}
        Event::EndOfRib(peer, family) => {
            message(out, peer, *family, &update::end_of_rib(*family), at);
        }
    }
}

fn header(out: &mut Vec<u8>, peer: &Watched) {
    out.extend_from_slice(&peer.asn.to_be_bytes());
    out.extend_from_slice(&peer.local_asn.to_be_bytes());
    // The interface index, and the family of the addresses.
    out.extend_from_slice(&[0, 0, 0, if peer.address.is_ipv6() { 2 } else { 1 }]);
    address(out, peer.address);
    address(out, peer.local_address);
}

fn state_change(out: &mut Vec<u8>, peer: &Watched, from: u16, to: u16, at: SystemTime) {
    record(out, at, BGP4MP, STATE_CHANGE_AS4, |out| {
        header(out, peer);
        out.extend_from_slice(&from.to_be_bytes());
        out.extend_from_slice(&to.to_be_bytes());
    });
}

fn routes(out: &mut Vec<u8>, peer: &Watched, change: &RouteChange, at: SystemTime) {
    let path_ids = peer.add_path_in.has(change.family);
    update::messages(
        change.family,
        change.attrs.as_deref(),
        &change.nlri,
        path_ids,
        |octets| message(out, peer, change.family, octets, at),
    );
}

fn message(out: &mut Vec<u8>, peer: &Watched, family: Family, octets: &[u8], at: SystemTime) {
    let subtype = if peer.add_path_in.has(family) {
        MESSAGE_AS4_ADDPATH
    } else {
        MESSAGE_AS4
    };
    record(out, at, BGP4MP, subtype, |out| {
        header(out, peer);
        out.extend_from_slice(octets);
    });
}

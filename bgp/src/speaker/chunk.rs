//! Packing: prefixes into as few UPDATEs as hold them, those with the same attributes together, and for each stretch of octets
//! who gets it.

use super::core::Batch;
use super::export::Exported;
use crate::family::Family;
use crate::prefix::Prefix;
use crate::rib::PeerId;
use crate::wire::attr::{Attr, OPTIONAL, code};
use crate::wire::header::{HEADER_LEN, MessageType, message};
use crate::wire::nlri::{Nlri, PathIds};
use bytes::Bytes;
use std::iter::Peekable;
use std::net::IpAddr;

/// Octets of an UPDATE without attributes and NLRI: header and the two length fields.
const UPDATE_FIXED: usize = HEADER_LEN + 4;

/// Who gets a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    All,
    AllBut([PeerId; 2]),
    Only(PeerId),
}

#[derive(Debug)]
struct Span {
    start: usize,
    end: usize,
    audience: Audience,
    messages: u32,
}

/// UPDATEs in the making.
#[derive(Debug)]
pub(super) struct Packer {
    octets: Vec<u8>,
    spans: Vec<Span>,
    message_max: usize,
    ids: PathIds,
}

impl Packer {
    /// For peers that take messages up to this length, with path identifiers or without.
    pub(super) const fn new(message_max: usize, ids: PathIds) -> Self {
        Self {
            octets: Vec::new(),
            spans: Vec::new(),
            message_max,
            ids,
        }
    }

    /// As many of the prefixes as fit.
    fn fill<P: Prefix>(
        &self,
        room: usize,
        prefixes: &mut Peekable<impl Iterator<Item = Nlri<P>>>,
        nlri: &mut Vec<u8>,
    ) {
        nlri.clear();
        let octets = |n: &Nlri<P>| self.ids.octets() + 1 + crate::prefix::octets(n.prefix.bits());
        while let Some(next) = prefixes.next_if(|n| nlri.len() + octets(n) <= room || nlri.is_empty()) {
            next.encode(self.ids, nlri);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    fn update(&mut self, audience: Audience, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        message(&mut self.octets, MessageType::Update, body);
        let end = self.octets.len();
        match self.spans.last_mut() {
            Some(span) if span.audience == audience => {
                span.end = end;
                span.messages += 1;
            }
            _ => self.spans.push(Span {
                start,
                end,
                audience,
                messages: 1,
            }),
        }
    }

    /// UPDATEs that announce all these prefixes. The caller knows that the attributes leave room for one.
    pub(super) fn announce<P: Prefix>(
        &mut self,
        audience: Audience,
        exported: &Exported,
        prefixes: impl Iterator<Item = Nlri<P>>,
    ) {
        let room = room(P::FAMILY, exported, self.message_max);
        let mut prefixes = prefixes.peekable();
        let mut nlri = Vec::with_capacity(256);
        while prefixes.peek().is_some() {
            self.fill(room, &mut prefixes, &mut nlri);
            self.update(audience, |out| reach::<P>(exported, &nlri, out));
        }
    }

    /// UPDATEs that withdraw all these prefixes.
    pub(super) fn withdraw<P: Prefix>(
        &mut self,
        audience: Audience,
        prefixes: impl Iterator<Item = Nlri<P>>,
    ) {
        let room = self.message_max - UPDATE_FIXED - 8;
        let mut prefixes = prefixes.peekable();
        let mut nlri = Vec::with_capacity(256);
        while prefixes.peek().is_some() {
            self.fill(room, &mut prefixes, &mut nlri);
            self.update(audience, |out| unreach(P::FAMILY, &nlri, out));
        }
    }

    /// The octets for each of these members, shared between them.
    pub(super) fn finish(self, members: impl Iterator<Item = PeerId>) -> Vec<(PeerId, Batch)> {
        let octets = Bytes::from(self.octets);
        members
            .filter_map(|member| {
                let batch = slice(&octets, &self.spans, member);
                (batch.messages > 0).then_some((member, batch))
            })
            .collect()
    }
}

/// What one member gets: as few slices of the shared octets as leave out what is not for it.
fn slice(octets: &Bytes, spans: &[Span], member: PeerId) -> Batch {
    let mut batch = Batch::default();
    let mut open: Option<(usize, usize)> = None;
    for span in spans {
        let wanted = match span.audience {
            Audience::All => true,
            Audience::AllBut(peers) => !peers.contains(&member),
            Audience::Only(peer) => peer == member,
        };
        if !wanted {
            continue;
        }
        batch.messages += span.messages;
        open = match open {
            Some((start, end)) if end == span.start => Some((start, span.end)),
            Some((start, end)) => {
                batch.parts.push(octets.slice(start..end));
                Some((span.start, span.end))
            }
            None => Some((span.start, span.end)),
        };
    }
    if let Some((start, end)) = open {
        batch.parts.push(octets.slice(start..end));
    }
    batch
}

/// Octets that an UPDATE with these attributes leaves for NLRI.
pub(super) fn room(family: Family, exported: &Exported, message_max: usize) -> usize {
    let multiprotocol = match (family, exported.next_hop) {
        (Family::Ipv4Unicast, IpAddr::V4(_)) => 0,
        // Attribute header with extended length, AFI, SAFI, next hop and its length, reserved.
        _ => 4 + 3 + 1 + 16 + 1,
    };
    (message_max - UPDATE_FIXED).saturating_sub(exported.attrs.len() + multiprotocol)
}

fn reach<P: Prefix>(exported: &Exported, nlri: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    let multiprotocol = P::FAMILY != Family::Ipv4Unicast || exported.next_hop.is_ipv6();
    if multiprotocol {
        // RFC 7606 section 5.1: MP_REACH first, so that a broken attribute behind it hides no route.
        let mut value = P::FAMILY.afi().to_be_bytes().to_vec();
        value.push(P::FAMILY.safi());
        match exported.next_hop {
            IpAddr::V4(a) => value.extend([&[4][..], &a.octets()].concat()),
            IpAddr::V6(a) => value.extend([&[16][..], &a.octets()].concat()),
        }
        value.push(0);
        value.extend_from_slice(nlri);
        Attr {
            code: code::MP_REACH,
            flags: OPTIONAL,
            value: &value,
        }
        .encode(out);
    }
    out.extend_from_slice(&exported.attrs);
    set_length(out, length_at);
    if !multiprotocol {
        out.extend_from_slice(nlri);
    }
}

fn unreach(family: Family, nlri: &[u8], out: &mut Vec<u8>) {
    if family == Family::Ipv4Unicast {
        out.extend_from_slice(&u16::try_from(nlri.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(nlri);
        out.extend_from_slice(&[0, 0]);
        return;
    }
    out.extend_from_slice(&[0, 0, 0, 0]);
    let length_at = out.len() - 2;
    let [high, low] = family.afi().to_be_bytes();
    let value = [&[high, low, family.safi()], nlri].concat();
    Attr {
        code: code::MP_UNREACH,
        flags: OPTIONAL,
        value: &value,
    }
    .encode(out);
    set_length(out, length_at);
}

fn set_length(out: &mut [u8], at: usize) {
    let len = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// End-of-RIB of a family (RFC 4724 section 2).
pub(super) fn end_of_rib(family: Family) -> Bytes {
    let mut out = Vec::new();
    message(&mut out, MessageType::Update, |out| unreach(family, &[], out));
    out.into()
}

//! The little of BGP-4 the bench needs: message framing, OPEN, packed UPDATEs.

use std::net::Ipv4Addr;

pub(crate) const HEADER_LEN: usize = 19;
pub(crate) const MAX_MSG: usize = 4096;

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

const AS_TRANS: u16 = 23456;

/// An IPv4 prefix; `addr` has no bits set beyond `len`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    pub(crate) addr: u32,
    pub(crate) len: u8,
}

impl Prefix {
    /// Unique number of the prefix: its node in the complete binary tree.
    pub(crate) fn key(self) -> u64 {
        (1u64 << self.len) | (u64::from(self.addr) >> (32 - u32::from(self.len)))
    }

    pub(crate) fn wire_len(self) -> usize {
        1 + usize::from(self.len).div_ceil(8)
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(self.len);
        out.extend_from_slice(&self.addr.to_be_bytes()[..usize::from(self.len).div_ceil(8)]);
    }
}

/// The attributes one UPDATE carries.
#[derive(Clone, Debug)]
pub(crate) struct Attrs {
    pub(crate) as_path: Vec<u32>,
    pub(crate) next_hop: Ipv4Addr,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: Vec<u32>,
}

impl Attrs {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x40, 1, 1, 0]; // ORIGIN IGP
        out.extend_from_slice(&[0x40, 2, (2 + 4 * self.as_path.len()) as u8]);
        out.extend_from_slice(&[2, self.as_path.len() as u8]); // AS_SEQUENCE
        for asn in &self.as_path {
            out.extend_from_slice(&asn.to_be_bytes());
        }
        out.extend_from_slice(&[0x40, 3, 4]);
        out.extend_from_slice(&self.next_hop.octets());
        if let Some(med) = self.med {
            out.extend_from_slice(&[0x80, 4, 4]);
            out.extend_from_slice(&med.to_be_bytes());
        }
        if let Some(pref) = self.local_pref {
            out.extend_from_slice(&[0x40, 5, 4]);
            out.extend_from_slice(&pref.to_be_bytes());
        }
        if !self.communities.is_empty() {
            out.extend_from_slice(&[0xc0, 8, (4 * self.communities.len()) as u8]);
            for c in &self.communities {
                out.extend_from_slice(&c.to_be_bytes());
            }
        }
        out
    }
}

fn start(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind]);
    at
}

fn finish(out: &mut [u8], at: usize) {
    let len = (out.len() - at) as u16;
    out[at + 16..at + 18].copy_from_slice(&len.to_be_bytes());
}

pub(crate) fn open(asn: u32, hold: u16, router_id: Ipv4Addr) -> Vec<u8> {
    let mut out = Vec::new();
    let at = start(&mut out, OPEN);
    out.push(4);
    out.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
    out.extend_from_slice(&hold.to_be_bytes());
    out.extend_from_slice(&router_id.octets());
    let mut caps = vec![1, 4, 0, 1, 0, 1]; // multiprotocol: IPv4 unicast
    caps.extend_from_slice(&[2, 0]); // route refresh
    caps.extend_from_slice(&[65, 4]); // four-octet AS numbers
    caps.extend_from_slice(&asn.to_be_bytes());
    out.push(2 + caps.len() as u8);
    out.extend_from_slice(&[2, caps.len() as u8]);
    out.extend_from_slice(&caps);
    finish(&mut out, at);
    out
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    let at = start(&mut out, KEEPALIVE);
    finish(&mut out, at);
    out
}

/// Cease, administrative shutdown (RFC 4486).
pub(crate) fn cease() -> Vec<u8> {
    let mut out = Vec::new();
    let at = start(&mut out, NOTIFICATION);
    out.extend_from_slice(&[6, 2]);
    finish(&mut out, at);
    out
}

/// Appends the announcements of `prefixes` with one attribute set, filling each message.
pub(crate) fn announce(attrs: &[u8], prefixes: &[Prefix], out: &mut Vec<u8>) {
    let mut rest = prefixes;
    while !rest.is_empty() {
        let at = start(out, UPDATE);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(attrs.len() as u16).to_be_bytes());
        out.extend_from_slice(attrs);
        rest = fill(rest, at, out);
        finish(out, at);
    }
}

/// Appends the withdrawals of `prefixes`, filling each message.
pub(crate) fn withdraw(prefixes: &[Prefix], out: &mut Vec<u8>) {
    let mut rest = prefixes;
    while !rest.is_empty() {
        let at = start(out, UPDATE);
        let len_at = out.len();
        out.extend_from_slice(&[0, 0]);
        // Two octets stay free for the empty path attributes' length.
        let mut body = rest;
        while let [first, tail @ ..] = body {
            if out.len() - at + first.wire_len() + 2 > MAX_MSG {
                break;
            }
            first.encode(out);
            body = tail;
        }
        rest = body;
        let len = (out.len() - len_at - 2) as u16;
        out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        finish(out, at);
    }
}

fn fill<'a>(mut rest: &'a [Prefix], at: usize, out: &mut Vec<u8>) -> &'a [Prefix] {
    while let [first, tail @ ..] = rest {
        if out.len() - at + first.wire_len() > MAX_MSG {
            break;
        }
        first.encode(out);
        rest = tail;
    }
    rest
}

/// Length and type of the message at the start of `buf`, once its header is there.
pub(crate) fn header(buf: &[u8]) -> Option<(usize, u8)> {
    let head = buf.get(..HEADER_LEN)?;
    Some((usize::from(u16::from_be_bytes([head[16], head[17]])), head[18]))
}

/// Walks a run of encoded IPv4 prefixes; stops at the first malformed one.
pub(crate) fn prefixes(mut buf: &[u8], mut each: impl FnMut(Prefix)) {
    while let [len, rest @ ..] = buf {
        let octets = usize::from(*len).div_ceil(8);
        if *len > 32 || rest.len() < octets {
            return;
        }
        let mut addr = [0; 4];
        addr[..octets].copy_from_slice(&rest[..octets]);
        each(Prefix {
            addr: u32::from_be_bytes(addr),
            len: *len,
        });
        buf = &rest[octets..];
    }
}

/// The three parts of an UPDATE body: withdrawn routes, path attributes, NLRI.
pub(crate) fn split_update(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (withdrawn, rest) = take_block(body)?;
    let (attrs, nlri) = take_block(rest)?;
    Some((withdrawn, attrs, nlri))
}

fn take_block(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16::from_be_bytes([*buf.first()?, *buf.get(1)?]));
    let rest = &buf[2..];
    (rest.len() >= len).then(|| rest.split_at(len))
}

/// The first AS number of the AS_PATH that is not `skip`.
pub(crate) fn first_as(mut attrs: &[u8], skip: u32) -> Option<u32> {
    while attrs.len() >= 3 {
        let (len, head) = if attrs[0] & 0x10 != 0 {
            (usize::from(u16::from_be_bytes([attrs[2], *attrs.get(3)?])), 4)
        } else {
            (usize::from(attrs[2]), 3)
        };
        let value = attrs.get(head..head + len)?;
        if attrs[1] == 2 {
            return value
                .get(2..)?
                .chunks_exact(4)
                .map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
                .find(|asn| *asn != skip);
        }
        attrs = &attrs[head + len..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announce_round_trips_and_respects_the_size_limit() {
        let all: Vec<Prefix> = (0..3000u32)
            .map(|i| Prefix {
                addr: 0x0100_0000 + (i << 8),
                len: 24,
            })
            .collect();
        let attrs = Attrs {
            as_path: vec![65000, 7, 8],
            next_hop: Ipv4Addr::new(10, 0, 0, 1),
            med: Some(5),
            local_pref: None,
            communities: vec![1, 2],
        };
        let mut bytes = Vec::new();
        announce(&attrs.encode(), &all, &mut bytes);
        let mut seen = Vec::new();
        let mut rest = &bytes[..];
        while let Some((len, kind)) = header(rest) {
            assert_eq!(kind, UPDATE);
            assert!(len <= MAX_MSG);
            let (withdrawn, a, nlri) = split_update(&rest[HEADER_LEN..len]).unwrap();
            assert!(withdrawn.is_empty());
            assert_eq!(first_as(a, 65000), Some(7));
            prefixes(nlri, |p| seen.push(p));
            rest = &rest[len..];
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn withdraw_round_trips() {
        let all: Vec<Prefix> = (0..2500u32)
            .map(|i| Prefix {
                addr: 0x0200_0000 + (i << 12),
                len: 20,
            })
            .collect();
        let mut bytes = Vec::new();
        withdraw(&all, &mut bytes);
        let mut seen = Vec::new();
        let mut rest = &bytes[..];
        while let Some((len, _)) = header(rest) {
            assert!(len <= MAX_MSG);
            let (withdrawn, a, nlri) = split_update(&rest[HEADER_LEN..len]).unwrap();
            assert!(a.is_empty() && nlri.is_empty());
            prefixes(withdrawn, |p| seen.push(p));
            rest = &rest[len..];
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn keys_are_distinct_across_lengths() {
        let a = Prefix {
            addr: 0x0a00_0000,
            len: 8,
        };
        let b = Prefix {
            addr: 0x0a00_0000,
            len: 9,
        };
        assert_ne!(a.key(), b.key());
        assert_eq!(Prefix { addr: 0, len: 0 }.key(), 1);
    }
}

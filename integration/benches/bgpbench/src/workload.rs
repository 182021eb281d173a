//! Deterministic routes: what every sender announces, pre-encoded.

use crate::wire::{self, Attrs, Prefix};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// SplitMix64: small, fast, good enough for test data.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Maps a prefix to its number. Open addressing, read-only once built.
pub(crate) struct PrefixTable {
    slots: Vec<(u64, u32)>,
    mask: usize,
}

impl PrefixTable {
    fn with_capacity(n: usize) -> Self {
        let size = (2 * n.max(8)).next_power_of_two();
        PrefixTable {
            slots: vec![(0, 0); size],
            mask: size - 1,
        }
    }

    fn slot(&self, key: u64) -> usize {
        let mut at = mix(key) as usize & self.mask;
        while self.slots[at].0 != 0 && self.slots[at].0 != key {
            at = (at + 1) & self.mask;
        }
        at
    }

    /// False when the prefix is there already.
    fn insert(&mut self, prefix: Prefix, id: u32) -> bool {
        let at = self.slot(prefix.key());
        if self.slots[at].0 != 0 {
            return false;
        }
        self.slots[at] = (prefix.key(), id);
        true
    }

    pub(crate) fn id(&self, prefix: Prefix) -> Option<u32> {
        let (key, id) = self.slots[self.slot(prefix.key())];
        (key != 0).then_some(id)
    }
}

/// How the prefixes look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Prefix lengths /16 to /24 in about the Internet's proportions.
    Internet,
    /// /26 blocks out of one pool, as a container fabric allocates them.
    Blocks,
}

/// One sender's identity and its share of the prefixes.
#[derive(Clone, Debug)]
pub(crate) struct SenderSpec {
    pub(crate) tag_as: u32,
    pub(crate) next_hop: Ipv4Addr,
    pub(crate) ibgp: bool,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) attr_sets: usize,
}

/// One sender's messages.
pub(crate) struct SenderLoad {
    pub(crate) announce: Arc<[u8]>,
    pub(crate) withdraw: Arc<[u8]>,
    pub(crate) messages: usize,
}

pub(crate) struct Workload {
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) table: PrefixTable,
    pub(crate) senders: Vec<SenderLoad>,
}

impl Workload {
    pub(crate) fn build(shape: Shape, total: usize, senders: &[SenderSpec], seed: u64) -> Self {
        let (prefixes, table) = make_prefixes(shape, total, &mut Rng::new(seed));
        let senders = senders
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let mut rng = Rng::new(mix(seed ^ ((i as u64 + 1) << 32)));
                encode_sender(s, &prefixes[s.first..s.first + s.count], &mut rng)
            })
            .collect();
        Workload {
            prefixes,
            table,
            senders,
        }
    }
}

/// Length and weight in per mille, after the IPv4 default-free zone.
const LENGTHS: [(u8, u64); 9] = [
    (24, 600),
    (23, 100),
    (22, 120),
    (21, 50),
    (20, 45),
    (19, 30),
    (18, 20),
    (17, 15),
    (16, 20),
];

fn make_prefixes(shape: Shape, total: usize, rng: &mut Rng) -> (Vec<Prefix>, PrefixTable) {
    let mut table = PrefixTable::with_capacity(total);
    let mut out = Vec::with_capacity(total);
    while out.len() < total {
        let prefix = match shape {
            Shape::Internet => random_prefix(rng),
            Shape::Blocks => Prefix {
                addr: 0x6440_0000 + ((out.len() as u32) << 6),
                len: 26,
            },
        };
        if !reserved(prefix, shape) && table.insert(prefix, out.len() as u32) {
            out.push(prefix);
        }
    }
    (out, table)
}

fn random_prefix(rng: &mut Rng) -> Prefix {
    let mut pick = rng.below(LENGTHS.iter().map(|l| l.1).sum());
    let mut len = 24;
    for (l, weight) in LENGTHS {
        if pick < weight {
            len = l;
            break;
        }
        pick -= weight;
    }
    Prefix {
        addr: rng.next() as u32 & (u32::MAX << (32 - u32::from(len))),
        len,
    }
}

/// Ranges some daemons refuse as martians, and the bench's own subnet.
fn reserved(p: Prefix, shape: Shape) -> bool {
    if shape == Shape::Blocks {
        return false;
    }
    let [a, b, ..] = p.addr.to_be_bytes();
    match a {
        0 | 10 | 127 => true,
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => matches!(b, 0 | 88 | 168),
        198 => matches!(b, 18 | 19 | 51),
        203 => b == 0,
        _ => a >= 224,
    }
}

fn encode_sender(spec: &SenderSpec, prefixes: &[Prefix], rng: &mut Rng) -> SenderLoad {
    let sets = spec.attr_sets.clamp(1, prefixes.len().max(1));
    let mut groups: Vec<Vec<Prefix>> = vec![Vec::new(); sets];
    for (i, p) in prefixes.iter().enumerate() {
        // Every set is used once, then a skew: few sets carry many prefixes.
        let set = if i < sets {
            i
        } else {
            let u = rng.below(1 << 20) as f64 / f64::from(1u32 << 20);
            (u * u * sets as f64) as usize
        };
        groups[set].push(*p);
    }
    let (mut announce, mut withdraw, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for group in &groups {
        let attrs = random_attrs(spec, rng).encode();
        wire::announce(&attrs, group, &mut announce);
        order.extend_from_slice(group);
    }
    wire::withdraw(&order, &mut withdraw);
    let messages = count_messages(&announce);
    SenderLoad {
        announce: announce.into(),
        withdraw: withdraw.into(),
        messages,
    }
}

fn count_messages(mut buf: &[u8]) -> usize {
    let mut n = 0;
    while let Some((len, _)) = wire::header(buf) {
        n += 1;
        buf = &buf[len..];
    }
    n
}

fn random_attrs(spec: &SenderSpec, rng: &mut Rng) -> Attrs {
    let hops = 3 + rng.below(4) as usize;
    let mut as_path = vec![spec.tag_as];
    while as_path.len() < hops {
        let asn = if rng.below(3) == 0 {
            131_072 + rng.below(270_000)
        } else {
            1000 + rng.below(22_000)
        };
        as_path.push(asn as u32);
    }
    let communities = (0..rng.below(6))
        .map(|_| ((1000 + rng.below(22_000) as u32) << 16) | rng.below(1000) as u32)
        .collect();
    Attrs {
        as_path,
        next_hop: spec.next_hop,
        med: (rng.below(4) == 0).then(|| rng.below(200) as u32),
        local_pref: spec.ibgp.then_some(100),
        communities,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(first: usize, count: usize) -> SenderSpec {
        SenderSpec {
            tag_as: 4_200_000_000,
            next_hop: Ipv4Addr::new(10, 128, 1, 1),
            ibgp: false,
            first,
            count,
            attr_sets: count / 8,
        }
    }

    #[test]
    fn same_seed_same_bytes() {
        let a = Workload::build(Shape::Internet, 5000, &[spec(0, 5000)], 7);
        let b = Workload::build(Shape::Internet, 5000, &[spec(0, 5000)], 7);
        assert_eq!(a.senders[0].announce, b.senders[0].announce);
        let c = Workload::build(Shape::Internet, 5000, &[spec(0, 5000)], 8);
        assert_ne!(a.senders[0].announce, c.senders[0].announce);
    }

    #[test]
    fn announcements_cover_every_prefix_once() {
        let w = Workload::build(Shape::Internet, 5000, &[spec(0, 2500), spec(2500, 2500)], 1);
        let mut seen = vec![0; 5000];
        for s in &w.senders {
            let mut rest = &s.announce[..];
            while let Some((len, _)) = wire::header(rest) {
                let (_, _, nlri) = wire::split_update(&rest[wire::HEADER_LEN..len]).unwrap();
                wire::prefixes(nlri, |p| seen[w.table.id(p).unwrap() as usize] += 1);
                rest = &rest[len..];
            }
        }
        assert!(seen.iter().all(|n| *n == 1));
    }
}

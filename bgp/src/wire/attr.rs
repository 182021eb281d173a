//! Attribute sets: what a route carries besides its prefix, validated once, kept as canonical octets, compared by them.
//!
//! The canonical form is the list of attributes by ascending code, each once, four-octet AS numbers, without NEXT_HOP and the
//! MP attributes (the next hop stands beside) and without AS4_PATH and AS4_AGGREGATOR (merged).

use super::as_path;
use super::community::{
    Community, GRACEFUL_SHUTDOWN, LLGR_STALE, LargeCommunity, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED,
    NO_LLGR,
};
use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Attribute type codes that the speaker names.
pub mod code {
    #![expect(missing_docs, reason = "the names are the RFCs'")]
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const PMSI_TUNNEL: u8 = 22;
    pub const TUNNEL_ENCAP: u8 = 23;
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub const AIGP: u8 = 26;
    pub const BGP_LS: u8 = 29;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const OTC: u8 = 35;
    pub const PREFIX_SID: u8 = 40;
    pub const ATTR_SET: u8 = 128;
}

/// Flag: not all speakers know it.
pub const OPTIONAL: u8 = 0x80;
/// Flag: passed on even unknown.
pub const TRANSITIVE: u8 = 0x40;
/// Flag: someone passed it on unknown.
pub const PARTIAL: u8 = 0x20;
/// Flag: two octets of length.
pub const EXTENDED: u8 = 0x10;

/// A next hop as carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHopValue {
    /// Our own address on whichever session the route is sent: routes that we originate.
    SelfAddress,
    /// IPv4.
    V4(Ipv4Addr),
    /// IPv6: global (or whatever stood first) and, where sent, link-local (RFC 2545 section 3).
    V6(Ipv6Addr, Option<Ipv6Addr>),
}

impl NextHopValue {
    /// The address to use: the first one.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::SelfAddress => None,
            Self::V4(a) => Some(IpAddr::V4(a)),
            Self::V6(a, _) => Some(IpAddr::V6(a)),
        }
    }
}

impl From<IpAddr> for NextHopValue {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::V4(a),
            IpAddr::V6(a) => Self::V6(a, None),
        }
    }
}

/// What the decision compares, taken from the attributes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// LOCAL_PREF, if present.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if present.
    pub med: Option<u32>,
    /// AS path length, sets as one.
    pub path_len: u32,
    /// The AS next to us; 0 for an empty path or a leading set.
    pub neighbour_as: u32,
    /// ORIGINATOR_ID, if present.
    pub originator_id: Option<Ipv4Addr>,
    /// Number of clusters passed.
    pub cluster_list_len: u16,
    /// Octets of attributes that we do not know.
    pub unknown_octets: u16,
    /// ORIGIN: 0 IGP, 1 EGP, 2 incomplete.
    pub origin: u8,
    /// Which well-known communities bound its spread.
    pub scope: Scope,
    /// What other well-known communities say: [`SHUTTING_DOWN`], [`STALE`], [`NEVER_STALE`].
    pub marks: u8,
}

/// Mark of a route that carries GRACEFUL_SHUTDOWN (RFC 8326).
pub const SHUTTING_DOWN: u8 = 1;
/// Mark of a route that carries LLGR_STALE (RFC 9494): it is the last resort.
pub const STALE: u8 = 2;
/// Mark of a route that carries NO_LLGR (RFC 9494).
pub const NEVER_STALE: u8 = 4;

const fn mark(community: u32) -> u8 {
    match community {
        GRACEFUL_SHUTDOWN => SHUTTING_DOWN,
        LLGR_STALE => STALE,
        NO_LLGR => NEVER_STALE,
        _ => 0,
    }
}

impl Rank {
    /// It carries LLGR_STALE (RFC 9494).
    #[must_use]
    pub const fn is_long_stale(&self) -> bool {
        self.marks & STALE != 0
    }
}

/// The spread that well-known communities (RFC 1997) allow, from wide to narrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Anyone.
    #[default]
    Everywhere,
    /// Not to external peers: NO_EXPORT, NO_EXPORT_SUBCONFED.
    OwnAs,
    /// To nobody: NO_ADVERTISE.
    Nobody,
}

/// One attribute, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Type code.
    pub code: u8,
    /// Optional, Transitive and Partial; the Extended Length bit is the encoder's.
    pub flags: u8,
    /// Value.
    pub value: &'a [u8],
}

impl Attr<'_> {
    /// Appends the attribute; the value is at most 65,535 octets by construction of all callers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.flags & !(EXTENDED | 0x0f);
        match u8::try_from(self.value.len()) {
            Ok(len) => out.extend_from_slice(&[flags, self.code, len]),
            Err(_) => {
                out.extend_from_slice(&[flags | EXTENDED, self.code]);
                out.extend_from_slice(&u16::try_from(self.value.len()).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        out.extend_from_slice(self.value);
    }
}

/// A validated set of attributes with its next hop. Immutable; equal sets have equal octets.
#[derive(Debug)]
pub struct AttrSet {
    hash: u64,
    next_hop: NextHopValue,
    rank: Rank,
    octets: Box<[u8]>,
}

impl PartialEq for AttrSet {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.next_hop == other.next_hop && self.octets == other.octets
    }
}

impl Eq for AttrSet {}

/// One seed a process: peers cannot foresee collisions, and every task computes the same hash.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// The hash that attribute sets and their wire forms are looked up by.
#[must_use]
pub fn hash_octets(octets: &[u8]) -> u64 {
    HASHER.hash_one(octets)
}

impl AttrSet {
    /// A set of these attributes, valid, by ascending code, each code once.
    #[must_use]
    pub fn new(next_hop: NextHopValue, attrs: &[Attr<'_>]) -> Self {
        let mut octets = Vec::with_capacity(attrs.iter().map(|a| a.value.len() + 4).sum());
        let mut rank = Rank::default();
        for attr in attrs {
            attr.encode(&mut octets);
            rank.take(attr);
        }
        let hash = HASHER.hash_one((next_hop, octets.as_slice()));
        Self {
            hash,
            next_hop,
            rank,
            octets: octets.into_boxed_slice(),
        }
    }

    /// The hash of next hop and octets.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The next hop.
    #[must_use]
    pub const fn next_hop(&self) -> NextHopValue {
        self.next_hop
    }

    /// What the decision compares.
    #[must_use]
    pub const fn rank(&self) -> &Rank {
        &self.rank
    }

    /// Octets kept for this set: the canonical form.
    #[must_use]
    pub const fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The attributes by ascending code.
    pub fn iter(&self) -> impl Iterator<Item = Attr<'_>> {
        let mut rest = &*self.octets;
        std::iter::from_fn(move || {
            let (attr, after) = split(rest)?;
            rest = after;
            Some(attr)
        })
    }

    /// The value of one attribute.
    #[must_use]
    pub fn value(&self, code: u8) -> Option<&[u8]> {
        self.iter().find(|a| a.code == code).map(|a| a.value)
    }

    /// The AS path in four-octet form; empty when absent.
    #[must_use]
    pub fn as_path(&self) -> &[u8] {
        self.value(code::AS_PATH).unwrap_or_default()
    }

    /// The large communities (RFC 8092).
    pub fn large_communities(&self) -> impl Iterator<Item = LargeCommunity> + '_ {
        self.communities_of::<LargeCommunity>()
    }

    /// The communities (RFC 1997).
    pub fn communities(&self) -> impl Iterator<Item = u32> + '_ {
        self.communities_of::<u32>()
    }

    /// The communities of one kind.
    pub fn communities_of<C: Community>(&self) -> impl Iterator<Item = C> + '_ {
        let value = self.value(C::CODE).unwrap_or_default();
        value.chunks_exact(C::OCTETS).filter_map(C::read)
    }

    /// The clusters passed (RFC 4456).
    pub fn clusters(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let value = self.value(code::CLUSTER_LIST).unwrap_or_default();
        value.as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c))
    }

    /// The same set with other values: each `(code, value)` replaces, adds, or with `None` removes an attribute.
    #[must_use]
    pub fn with(&self, next_hop: NextHopValue, changes: &[(u8, Option<Vec<u8>>)]) -> Self {
        let changed = |code: u8| changes.iter().any(|(c, _)| *c == code);
        let mut attrs: Vec<Attr<'_>> = self.iter().filter(|a| !changed(a.code)).collect();
        attrs.extend(changes.iter().filter_map(|(code, value)| {
            let value = value.as_deref()?;
            Some(Attr {
                code: *code,
                flags: flags_of(*code),
                value,
            })
        }));
        attrs.sort_by_key(|a| a.code);
        Self::new(next_hop, &attrs)
    }
}

/// The first attribute of a valid list, and the rest.
fn split(octets: &[u8]) -> Option<(Attr<'_>, &[u8])> {
    let (&[flags, code, len], rest) = octets.split_first_chunk::<3>()?;
    let (len, rest) = if flags & EXTENDED == 0 {
        (usize::from(len), rest)
    } else {
        let (low, rest) = rest.split_first()?;
        (usize::from(u16::from_be_bytes([len, *low])), rest)
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((
        Attr {
            code,
            flags: flags & !EXTENDED,
            value,
        },
        rest,
    ))
}

/// Optional and Transitive as the attribute's RFC sets them; unknown ones are optional transitive.
#[must_use]
pub const fn flags_of(code: u8) -> u8 {
    match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            TRANSITIVE
        }
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH
        | code::MP_UNREACH
        | code::AIGP
        | code::BGP_LS => OPTIONAL,
        _ => OPTIONAL | TRANSITIVE,
    }
}

/// Attributes that we understand; others are passed on, if transitive, with the Partial bit (RFC 4271 section 5).
#[must_use]
pub const fn is_recognised(code: u8) -> bool {
    matches!(
        code,
        code::ORIGIN
            ..=code::CLUSTER_LIST
                | code::EXTENDED_COMMUNITIES
                | code::IPV6_EXTENDED_COMMUNITIES
                | code::LARGE_COMMUNITIES
                | code::OTC
    )
}

impl Rank {
    fn take(&mut self, attr: &Attr<'_>) {
        let word = || Some(u32::from_be_bytes(attr.value.try_into().ok()?));
        match attr.code {
            code::ORIGIN => self.origin = attr.value.first().copied().unwrap_or(2),
            code::AS_PATH => {
                self.path_len = as_path::length(attr.value);
                self.neighbour_as = as_path::first(attr.value).unwrap_or(0);
            }
            code::MED => self.med = word(),
            code::LOCAL_PREF => self.local_pref = word(),
            code::ORIGINATOR_ID => self.originator_id = word().map(Ipv4Addr::from),
            code::CLUSTER_LIST => {
                self.cluster_list_len = u16::try_from(attr.value.len() / 4).unwrap_or(u16::MAX)
            }
            code::COMMUNITIES => {
                for community in attr.value.as_chunks::<4>().0 {
                    let scope = match u32::from_be_bytes(*community) {
                        NO_ADVERTISE => Scope::Nobody,
                        NO_EXPORT | NO_EXPORT_SUBCONFED => Scope::OwnAs,
                        other => {
                            self.marks |= mark(other);
                            continue;
                        }
                    };
                    self.scope = self.scope.max(scope);
                }
            }
            other if !is_recognised(other) => {
                let more = u16::try_from(attr.value.len()).unwrap_or(u16::MAX);
                self.unknown_octets = self.unknown_octets.saturating_add(more);
            }
            _ => {}
        }
    }
}

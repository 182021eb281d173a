//! Statements of a rule: what it reads of a packet, how it compares, what it does.
//!
//! Byte order follows nf_tables: what is read from the packet is in network order, marks and conntrack state in
//! the host's own.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Name;
use crate::plan::name::IfName;

/// Data types of registers and set keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Interface name, 16 bytes.
    IfName,
    /// Interface index, 4 bytes, host order.
    IfIndex,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Transport protocol number.
    Proto,
    /// Port.
    Service,
    /// Packet or conntrack mark.
    Mark,
    /// Conntrack state.
    CtState,
    /// `NFPROTO_*`.
    NfProto,
    /// ICMP type.
    IcmpType,
    /// ICMP code.
    IcmpCode,
    /// ICMPv6 type.
    Icmpv6Type,
    /// ICMPv6 code.
    Icmpv6Code,
}

impl Kind {
    /// Bytes of a value, unpadded.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "the width of a type, not of a container"
    )]
    pub fn len(self) -> usize {
        match self {
            Self::IfName | Self::Ipv6 => 16,
            Self::IfIndex | Self::Ipv4 | Self::Mark | Self::CtState => 4,
            Self::Service => 2,
            Self::Proto | Self::NfProto => 1,
            Self::IcmpType | Self::IcmpCode | Self::Icmpv6Type | Self::Icmpv6Code => 1,
        }
    }
}

/// A literal, typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Interface name.
    IfName(IfName),
    /// Interface index; 0 is "none".
    IfIndex(u32),
    /// IPv4 address.
    Ipv4(Ipv4Addr),
    /// IPv6 address.
    Ipv6(Ipv6Addr),
    /// Transport protocol number.
    Proto(u8),
    /// Port.
    Service(u16),
    /// Mark.
    Mark(u32),
    /// Conntrack state.
    CtState(CtState),
    /// Family of the packet.
    NfProto(NfProto),
    /// ICMP type.
    IcmpType(u8),
    /// ICMP code.
    IcmpCode(u8),
    /// ICMPv6 type.
    Icmpv6Type(u8),
    /// ICMPv6 code.
    Icmpv6Code(u8),
}

/// Family of a packet inside an `inet` table (`NFPROTO_*` of linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NfProto {
    /// NFPROTO_IPV4.
    Ipv4 = 2,
    /// NFPROTO_IPV6.
    Ipv6 = 10,
}

/// State of a packet's flow, exactly one of them (`NF_CT_STATE_BIT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    /// Belongs to no valid flow.
    Invalid = 1,
    /// Of a flow that has seen both directions.
    Established = 2,
    /// Starts a flow that belongs to another, or an ICMP error of one.
    Related = 4,
    /// Starts a flow.
    New = 8,
    /// Exempt from tracking.
    Untracked = 64,
}

impl Value {
    /// The kind of the value.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::IfName(_) => Kind::IfName,
            Self::IfIndex(_) => Kind::IfIndex,
            Self::Ipv4(_) => Kind::Ipv4,
            Self::Ipv6(_) => Kind::Ipv6,
            Self::Proto(_) => Kind::Proto,
            Self::Service(_) => Kind::Service,
            Self::Mark(_) => Kind::Mark,
            Self::CtState(_) => Kind::CtState,
            Self::NfProto(_) => Kind::NfProto,
            Self::IcmpType(_) => Kind::IcmpType,
            Self::IcmpCode(_) => Kind::IcmpCode,
            Self::Icmpv6Type(_) => Kind::Icmpv6Type,
            Self::Icmpv6Code(_) => Kind::Icmpv6Code,
        }
    }

    /// The bytes of a register that holds it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::IfName(n) => n.as_register().to_vec(),
            Self::Ipv4(a) => a.octets().to_vec(),
            Self::Ipv6(a) => a.octets().to_vec(),
            Self::Service(p) => p.to_be_bytes().to_vec(),
            Self::IfIndex(v) | Self::Mark(v) => v.to_ne_bytes().to_vec(),
            Self::CtState(s) => (*s as u32).to_ne_bytes().to_vec(),
            Self::NfProto(p) => vec![*p as u8],
            Self::Proto(v) | Self::IcmpType(v) | Self::IcmpCode(v) => vec![*v],
            Self::Icmpv6Type(v) | Self::Icmpv6Code(v) => vec![*v],
        }
    }
}

impl From<IfName> for Value {
    fn from(v: IfName) -> Self {
        Self::IfName(v)
    }
}
impl From<Ipv4Addr> for Value {
    fn from(v: Ipv4Addr) -> Self {
        Self::Ipv4(v)
    }
}
impl From<Ipv6Addr> for Value {
    fn from(v: Ipv6Addr) -> Self {
        Self::Ipv6(v)
    }
}
impl From<std::net::IpAddr> for Value {
    fn from(v: std::net::IpAddr) -> Self {
        match v {
            std::net::IpAddr::V4(a) => Self::Ipv4(a),
            std::net::IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}
impl From<CtState> for Value {
    fn from(v: CtState) -> Self {
        Self::CtState(v)
    }
}
impl From<NfProto> for Value {
    fn from(v: NfProto) -> Self {
        Self::NfProto(v)
    }
}

/// What can be read of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Name of the interface that it came in by; all zero bytes where there is none.
    IifName,
    /// Name of the interface that it leaves by; all zero bytes where there is none (hooks before routing, input).
    OifName,
    /// Index of the outgoing interface; 0 on the input hook.
    Oif,
    /// Family. Needed before any address in an `inet` table.
    NfProto,
    /// Transport protocol, past IPv6 extension headers.
    L4Proto,
    /// IPv4 source.
    Ip4Saddr,
    /// IPv4 destination.
    Ip4Daddr,
    /// IPv6 source.
    Ip6Saddr,
    /// IPv6 destination.
    Ip6Daddr,
    /// Source port of TCP, UDP, SCTP. Needs [`Field::L4Proto`] tested before.
    ThSport,
    /// Destination port of TCP, UDP, SCTP. Needs [`Field::L4Proto`] tested before.
    ThDport,
    /// Type of an ICMP message. Needs [`Field::L4Proto`] tested before.
    IcmpType,
    /// Code of an ICMP message.
    IcmpCode,
    /// Type of an ICMPv6 message.
    Icmpv6Type,
    /// Code of an ICMPv6 message.
    Icmpv6Code,
    /// Conntrack state.
    CtState,
    /// Packet mark.
    Mark,
    /// Conntrack mark.
    CtMark,
}

impl Field {
    /// The kind of what is read.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::IifName | Self::OifName => Kind::IfName,
            Self::Oif => Kind::IfIndex,
            Self::NfProto => Kind::NfProto,
            Self::L4Proto => Kind::Proto,
            Self::Ip4Saddr | Self::Ip4Daddr => Kind::Ipv4,
            Self::Ip6Saddr | Self::Ip6Daddr => Kind::Ipv6,
            Self::ThSport | Self::ThDport => Kind::Service,
            Self::IcmpType => Kind::IcmpType,
            Self::IcmpCode => Kind::IcmpCode,
            Self::Icmpv6Type => Kind::Icmpv6Type,
            Self::Icmpv6Code => Kind::Icmpv6Code,
            Self::CtState => Kind::CtState,
            Self::Mark | Self::CtMark => Kind::Mark,
        }
    }
}

/// How a match compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Goes on when they are equal (inside, a member).
    Eq,
    /// Goes on when they are not.
    Ne,
}

/// What decides a packet's way. Terminal but for `Jump`, which comes back when the other chain ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Passes this hook (chains of later priority still see it).
    Accept,
    /// Dropped, finally.
    Drop,
    /// Back to the chain that jumped here; in a base chain, its policy.
    Return,
    /// On with the next rule: a map's way of saying "no opinion".
    Continue,
    /// To another chain and back.
    Jump(Name),
    /// To another chain, not back here.
    Goto(Name),
}

/// What a rejected sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset; the rule must have tested for TCP.
    TcpReset,
    /// An ICMP or ICMPv6 "port unreachable", whichever fits.
    PortUnreachable,
    /// An ICMP or ICMPv6 "administratively prohibited", whichever fits.
    AdminProhibited,
}

/// Unit of time of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 60,
    /// An hour.
    Hour = 3600,
}

/// Packets per unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many packets.
    pub packets: u32,
    /// In which time.
    pub per: Per,
    /// How many at once beyond the rate.
    pub burst: u32,
}

/// Urgency of a logged packet (syslog's levels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// LOG_ERR.
    Err = 3,
    /// LOG_WARNING.
    Warn = 4,
    /// LOG_NOTICE.
    Notice = 5,
    /// LOG_INFO.
    Info = 6,
    /// LOG_DEBUG.
    Debug = 7,
}

/// One statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stmt {
    /// Compares a field with a literal.
    Cmp(Field, Op, Value),
    /// Compares the beginning of an interface name (`cali*`).
    NamePrefix(Field, Op, IfName),
    /// Compares an address with a network.
    Net(Field, Op, ipnet::IpNet),
    /// Compares with a range, both ends included. For fields in network order (addresses, ports, types).
    Range(Field, Op, Value, Value),
    /// Compares some bits: `field & mask` with a value.
    Bits {
        /// [`Field::Mark`], [`Field::CtMark`] or [`Field::CtState`].
        field: Field,
        /// Which bits.
        mask: u32,
        /// How.
        op: Op,
        /// What they should be.
        value: u32,
    },
    /// Member of a named set, the fields concatenated.
    In(Vec<Field>, Op, Name),
    /// Verdict out of a named verdict map; no entry goes on with the next statement.
    Vmap(Vec<Field>, Name),
    /// A verdict.
    Verdict(Verdict),
    /// Counts packets and bytes from here on. Its values take no part in comparing rules.
    Counter,
    /// Logs, to the kernel's log.
    Log {
        /// Put before each line; at most 127 bytes.
        prefix: String,
        /// Urgency.
        level: LogLevel,
    },
    /// Goes on while the rate is not exceeded.
    Limit(Rate),
    /// Refuses with an answer. Terminal.
    Reject(Reject),
    /// Sets the packet's mark: bits of the mask become those of the value, others stay.
    SetMark {
        /// Which bits to set.
        mask: u32,
        /// To what.
        value: u32,
    },
    /// Exempts the packet from conntrack. Only in chains before priority -200.
    NoTrack,
    /// Source becomes the address of the outgoing interface. Only in `nat` chains of postrouting.
    Masquerade {
        /// Randomises ports fully, which avoids collisions of concurrent flows.
        fully_random: bool,
    },
}

impl Stmt {
    /// `field == value`.
    pub fn is(field: Field, value: impl Into<Value>) -> Self {
        Self::Cmp(field, Op::Eq, value.into())
    }

    /// `field != value`.
    pub fn is_not(field: Field, value: impl Into<Value>) -> Self {
        Self::Cmp(field, Op::Ne, value.into())
    }

    /// The set or map that it looks into.
    #[must_use]
    pub fn set(&self) -> Option<&Name> {
        match self {
            Self::In(_, _, set) | Self::Vmap(_, set) => Some(set),
            _ => None,
        }
    }

    /// Accepts.
    #[must_use]
    pub fn accept() -> Self {
        Self::Verdict(Verdict::Accept)
    }

    /// Drops.
    #[must_use]
    pub fn drop() -> Self {
        Self::Verdict(Verdict::Drop)
    }

    /// Goes to a chain, not back.
    #[must_use]
    pub fn goto(chain: &Name) -> Self {
        Self::Verdict(Verdict::Goto(chain.clone()))
    }

    /// Goes to a chain and back.
    #[must_use]
    pub fn jump(chain: &Name) -> Self {
        Self::Verdict(Verdict::Jump(chain.clone()))
    }
}

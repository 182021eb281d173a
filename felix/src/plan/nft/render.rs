//! The text of a table, close to what `nft list ruleset` prints and accepted by `nft -f`: for snapshots, dumps
//! and explanations. One element a line, everything in order.

use std::fmt::{self, Display, Formatter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expr::{CtState, Field, Kind, LogLevel, NfProto, Op, Per, Reject, Stmt, Value, Verdict};
use super::{Base, Chain, ChainType, Datum, Family, Holds, Hook, Key, Policy, Rule, Set, Table};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        };
        writeln!(f, "table {family} {} {{", self.name)?;
        let mut first = true;
        for (name, set) in &self.sets {
            separate(f, &mut first)?;
            let what = if set.holds == Holds::Keys { "set" } else { "map" };
            writeln!(f, "\t{what} {name} {{\n{set}\t}}")?;
        }
        for (name, chain) in &self.chains {
            separate(f, &mut first)?;
            writeln!(f, "\tchain {name} {{\n{chain}\t}}")?;
        }
        writeln!(f, "}}")
    }
}

fn separate(f: &mut Formatter<'_>, first: &mut bool) -> fmt::Result {
    if std::mem::take(first) {
        Ok(())
    } else {
        writeln!(f)
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.key.iter().map(|k| k.name()).collect();
        write!(f, "\t\ttype {}", kinds.join(" . "))?;
        match self.holds {
            Holds::Keys => writeln!(f)?,
            Holds::Verdicts => writeln!(f, " : verdict")?,
            Holds::Values(kind) => writeln!(f, " : {}", kind.name())?,
        }
        if self.interval {
            writeln!(f, "\t\tflags interval")?;
        }
        let mut lead = "\t\telements = { ";
        for (key, datum) in self.elements.iter() {
            write!(f, "{lead}")?;
            write_key(f, &self.key, key)?;
            match (datum, self.holds) {
                (Datum::Verdict(v), _) => write!(f, " : {v}")?,
                (Datum::Value(bytes), Holds::Values(kind)) => {
                    f.write_str(" : ")?;
                    write_range(f, kind, bytes, bytes)?;
                }
                _ => {}
            }
            lead = ",\n\t\t\t     ";
        }
        if self.elements.is_empty() {
            Ok(())
        } else {
            f.write_str(" }\n")
        }
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(base) = &self.base {
            writeln!(f, "\t\t{base}")?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        write!(f, "type {kind} hook {hook} priority ")?;
        write_priority(f, self.priority)?;
        write!(f, "; policy {policy};")
    }
}

/// Priorities near a well-known one are told from it, as `nft` does.
fn write_priority(f: &mut Formatter<'_>, priority: i32) -> fmt::Result {
    let known = [
        ("raw", -300),
        ("mangle", -150),
        ("dstnat", -100),
        ("filter", 0),
        ("security", 50),
        ("srcnat", 100),
    ];
    for (name, at) in known {
        match priority - at {
            0 => return f.write_str(name),
            more @ 1..=10 => return write!(f, "{name} + {more}"),
            less @ -10..=-1 => return write!(f, "{name} - {}", -less),
            _ => {}
        }
    }
    write!(f, "{priority}")
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, stmt) in self.stmts.iter().enumerate() {
            if i > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{stmt}")?;
        }
        match &self.comment {
            Some(text) => write!(f, " comment \"{text}\""),
            None => Ok(()),
        }
    }
}

impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cmp(field, op, value) => write!(f, "{field} {op}{value}"),
            Self::NamePrefix(field, op, name) => write!(f, "{field} {op}\"{name}*\""),
            Self::Net(field, op, net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{field} {op}{}", net.addr())
            }
            Self::Net(field, op, net) => write!(f, "{field} {op}{}", net.trunc()),
            Self::Range(field, op, from, to) => write!(f, "{field} {op}{from}-{to}"),
            Self::Bits {
                field,
                mask,
                op,
                value,
            } => {
                let sign = if *op == Op::Eq { "==" } else { "!=" };
                write!(f, "{field} & {mask:#010x} {sign} {value:#010x}")
            }
            Self::In(fields, op, set) => {
                write_fields(f, fields)?;
                write!(f, " {op}@{set}")
            }
            Self::Vmap(fields, map) => {
                write_fields(f, fields)?;
                write!(f, " vmap @{map}")
            }
            Self::Verdict(v) => write!(f, "{v}"),
            Self::Counter => f.write_str("counter"),
            Self::Log { prefix, level } => write!(f, "log prefix \"{prefix}\" level {level}"),
            Self::Limit(rate) => {
                let per = match rate.per {
                    Per::Second => "second",
                    Per::Minute => "minute",
                    Per::Hour => "hour",
                };
                write!(f, "limit rate {}/{per}", rate.packets)?;
                // 5 is what `nft` takes and omits by default.
                if rate.burst == 5 {
                    Ok(())
                } else {
                    write!(f, " burst {} packets", rate.burst)
                }
            }
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Reject(Reject::PortUnreachable) => f.write_str("reject"),
            Self::Reject(Reject::AdminProhibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::SetMark {
                mask: u32::MAX,
                value,
            } => write!(f, "meta mark set {value:#010x}"),
            Self::SetMark { mask, value } => {
                write!(f, "meta mark set meta mark & {:#010x} | {value:#010x}", !mask)
            }
            Self::NoTrack => f.write_str("notrack"),
            Self::Masquerade { fully_random: true } => f.write_str("masquerade fully-random"),
            Self::Masquerade { fully_random: false } => f.write_str("masquerade"),
        }
    }
}

fn write_fields(f: &mut Formatter<'_>, fields: &[Field]) -> fmt::Result {
    let names: Vec<_> = fields.iter().map(ToString::to_string).collect();
    f.write_str(&names.join(" . "))
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Eq { "" } else { "!= " })
    }
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Err => "err",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Continue => f.write_str("continue"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::Oif => "oif",
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::Ip4Saddr => "ip saddr",
            Self::Ip4Daddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::ThSport => "th sport",
            Self::ThDport => "th dport",
            Self::IcmpType => "icmp type",
            Self::IcmpCode => "icmp code",
            Self::Icmpv6Type => "icmpv6 type",
            Self::Icmpv6Code => "icmpv6 code",
            Self::CtState => "ct state",
            Self::Mark => "meta mark",
            Self::CtMark => "ct mark",
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_one(f, self.kind(), &self.bytes())
    }
}

impl Kind {
    /// The name of the data type in `nft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IfName => "ifname",
            Self::IfIndex => "iface_index",
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Proto => "inet_proto",
            Self::Service => "inet_service",
            Self::Mark => "mark",
            Self::CtState => "ct_state",
            Self::NfProto => "nf_proto",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::Icmpv6Type => "icmpv6_type",
            Self::Icmpv6Code => "icmpv6_code",
        }
    }
}

/// Writes an element's key, field by field.
fn write_key(f: &mut Formatter<'_>, kinds: &[Kind], key: &Key) -> fmt::Result {
    let (mut from, mut to) = (key.from(), key.to());
    for (i, kind) in kinds.iter().enumerate() {
        if i > 0 {
            f.write_str(" . ")?;
        }
        let width = if kinds.len() > 1 {
            kind.len().next_multiple_of(4)
        } else {
            kind.len()
        };
        let (Some(a), Some(b)) = (from.get(..kind.len()), to.get(..kind.len())) else {
            return f.write_str("?");
        };
        write_range(f, *kind, a, b)?;
        from = from.get(width..).unwrap_or_default();
        to = to.get(width..).unwrap_or_default();
    }
    Ok(())
}

fn write_range(f: &mut Formatter<'_>, kind: Kind, from: &[u8], to: &[u8]) -> fmt::Result {
    if from == to {
        return write_one(f, kind, from);
    }
    write_one(f, kind, from)?;
    match prefix_len(from, to) {
        Some(len) if matches!(kind, Kind::Ipv4 | Kind::Ipv6) => write!(f, "/{len}"),
        _ => {
            f.write_char('-')?;
            write_one(f, kind, to)
        }
    }
}

/// The prefix length, when the range is exactly a network.
fn prefix_len(from: &[u8], to: &[u8]) -> Option<u32> {
    let mut len = 0;
    let mut open = false;
    for (a, b) in from.iter().zip(to) {
        let diff = a ^ b;
        if open {
            if *a != 0 || *b != 0xff {
                return None;
            }
        } else {
            len += diff.leading_zeros();
            open = diff != 0;
            let host = 0xffu8.checked_shr(diff.leading_zeros()).unwrap_or(0);
            if diff != host || a & host != 0 {
                return None;
            }
        }
    }
    Some(len)
}

fn write_one(f: &mut Formatter<'_>, kind: Kind, bytes: &[u8]) -> fmt::Result {
    let host_order = || bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    match (kind, bytes) {
        (Kind::IfName, _) => {
            let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
            write!(f, "\"{}\"", text.escape_ascii())
        }
        (Kind::Ipv4, &[a, b, c, d]) => write!(f, "{}", Ipv4Addr::new(a, b, c, d)),
        (Kind::Ipv6, _) => match <[u8; 16]>::try_from(bytes) {
            Ok(octets) => write!(f, "{}", IpAddr::V6(Ipv6Addr::from(octets))),
            Err(_) => f.write_str("?"),
        },
        (Kind::Service, &[a, b]) => write!(f, "{}", u16::from_be_bytes([a, b])),
        (Kind::IfIndex, _) => write!(f, "{}", host_order()),
        (Kind::Mark, _) => write!(f, "{:#010x}", host_order()),
        (Kind::CtState, _) => match host_order() {
            n if n == CtState::Invalid as u32 => f.write_str("invalid"),
            n if n == CtState::Established as u32 => f.write_str("established"),
            n if n == CtState::Related as u32 => f.write_str("related"),
            n if n == CtState::New as u32 => f.write_str("new"),
            n if n == CtState::Untracked as u32 => f.write_str("untracked"),
            n => write!(f, "{n:#x}"),
        },
        (Kind::NfProto, &[n]) if n == NfProto::Ipv4 as u8 => f.write_str("ipv4"),
        (Kind::NfProto, &[n]) if n == NfProto::Ipv6 as u8 => f.write_str("ipv6"),
        (Kind::Proto, &[n]) => match proto_name(n) {
            Some(name) => f.write_str(name),
            None => write!(f, "{n}"),
        },
        (_, &[n]) => write!(f, "{n}"),
        _ => write!(
            f,
            "0x{}",
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
        ),
    }
}

fn proto_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        4 => "ipencap",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        47 => "gre",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

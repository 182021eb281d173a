//! Ordered policy as chains and sets.
//!
//! Endpoints with the same ordered policy share a group of chains: a first one, which jumps to one for each tier that
//! acts and then holds the rules of the profiles. There are no marks: a verdict is where a rule goes.
//!
//! ```text
//! Allow -> goto egress_ok or ingress_ok                  Deny -> drop
//! Pass  -> return to the first chain, to the next tier   Log  -> log, go on
//! end of a tier: drop, or return (defaultAction Pass); end of the profiles: drop
//! ```
//!
//! The kernel refuses chains that lead through more than 15 others, jumps and gotos alike (NFT_JUMP_STACK_SIZE), so tiers
//! must stand beside each other and not lead from one to the next.
//!
//! Names of the group's chains follow from the names of tiers, policies and profiles, so a policy whose rules change
//! keeps its chains. Members of selector sets live in sets of their own, which chains only name: a label that
//! changes touches elements, never chains. Lists of networks and ports are sets named by their content.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::rule::{Action, IpVersion};

use super::base::{EGRESS_OK, INGRESS_OK};
use super::nft::expr::NfProto;
use super::nft::{
    Atom, Chain, Field, Kind, LogLevel, Name, Op, Rule, Set, Stmt, Value, Verdict, merge_intervals,
};
use crate::calc::digest;
use crate::calc::policies::{Direction, End, Ordered, PolicyId};
use crate::calc::rule::{Icmp, Resolved, Rule as Resolved1, SetId, Side};
use crate::calc::sets::Member;

/// Prefix of the lines that Log rules write (Calico's `logPrefix` default).
const LOG_PREFIX: &str = "calico-packet: ";

/// Where the rules behind the names of an [`Ordered`] are found.
pub trait RuleSource {
    /// The rules of a policy in a direction.
    fn policy(&self, id: &PolicyId, direction: Direction) -> Option<&Resolved>;
    /// The rules of a profile in a direction; `None` denies.
    fn profile(&self, name: &str, direction: Direction) -> Option<&Resolved>;
}

/// Chains, and the sets of literal networks and ports that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Chains by name.
    pub chains: BTreeMap<Name, Arc<Chain>>,
    /// Literal sets by name.
    pub sets: BTreeMap<Name, Arc<Set>>,
}

/// The first chain of the group for an ordered policy.
#[must_use]
pub fn group_name(direction: Direction, ordered: &Ordered) -> Name {
    let prefix = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    generated(prefix, format!("{ordered:?}").as_bytes())
}

/// The two kernel sets of a selector set: IPv4 and IPv6.
#[must_use]
pub fn set_names(id: &SetId) -> [Name; 2] {
    ["s4", "s6"].map(|prefix| generated(prefix, id.as_str().as_bytes()))
}

fn set_name(id: &SetId, family: NfProto) -> Name {
    let [v4, v6] = set_names(id);
    if family == NfProto::Ipv4 { v4 } else { v6 }
}

fn generated(prefix: &str, content: &[u8]) -> Name {
    Name::new(&format!("{prefix}-{}", digest(content))).expect("a digest has only letters and digits")
}

/// The members of a selector set as two kernel sets, in the order of [`set_names`].
#[must_use]
pub fn selector_sets<'a>(members: impl Iterator<Item = &'a Member>, ports: bool) -> [Set; 2] {
    let shape = |addr| match ports {
        true => Set::of(&[addr, Kind::Proto, Kind::Service]),
        false => Set::of(&[addr]),
    };
    let (mut v4, mut v6) = (shape(Kind::Ipv4), shape(Kind::Ipv6));
    for member in members {
        let (addr, rest) = match *member {
            Member::Addr(addr) => (addr, Vec::new()),
            Member::Port(addr, proto, port) => (
                addr,
                vec![Atom::Is(Value::Proto(proto)), Atom::Is(Value::Service(port))],
            ),
        };
        let set = if addr.is_ipv4() { &mut v4 } else { &mut v6 };
        let mut atoms: Vec<Atom> = vec![addr.into()];
        atoms.extend(rest);
        set.insert(&atoms);
    }
    [v4, v6]
}

/// Renders the group of an ordered policy, unless it is there already.
pub fn render(direction: Direction, ordered: &Ordered, source: &impl RuleSource, out: &mut Rendered) {
    let first = group_name(direction, ordered);
    if out.chains.contains_key(&first) {
        return;
    }
    let ok = Name::fixed(match direction {
        Direction::Ingress => INGRESS_OK,
        Direction::Egress => EGRESS_OK,
    });
    let nth = |n: usize| Name::new(&format!("{first}.{n}")).expect("a short number keeps the name a name");
    let mut rules = Vec::new();
    for (n, tier) in ordered.tiers.iter().enumerate() {
        let mut inside = Vec::new();
        for id in &tier.policies {
            let resolved = source.policy(id, direction).into_iter().flat_map(|r| &r.rules);
            let label = format!("{}/{}", tier.name, label(id));
            append(resolved, &label, &ok, Verdict::Return, &mut inside, &mut out.sets);
        }
        inside.push(Rule::new([Stmt::Verdict(match tier.end {
            End::Deny => Verdict::Drop,
            End::Pass => Verdict::Return,
        })]));
        rules.push(Rule::new([Stmt::jump(&nth(n + 1))]));
        let inside = Arc::new(Chain {
            base: None,
            rules: inside,
        });
        out.chains.insert(nth(n + 1), inside);
    }
    for name in &ordered.profiles {
        let Some(resolved) = source.profile(name, direction) else {
            rules.push(Rule::new([Stmt::drop()]).comment(comment(&format!("missing profile {name}"))));
            break;
        };
        let (resolved, label) = (resolved.rules.iter(), format!("profile {name}"));
        // Behind the profiles there is nothing: what they pass, nobody allowed.
        append(resolved, &label, &ok, Verdict::Drop, &mut rules, &mut out.sets);
    }
    rules.push(Rule::new([Stmt::drop()]));
    out.chains.insert(first, Arc::new(Chain { base: None, rules }));
}

fn label(id: &PolicyId) -> String {
    match &id.namespace {
        Some(namespace) => format!("{namespace}/{}", id.name),
        None => id.name.clone(),
    }
}

/// Names come from the datastore: only what a listing shows well goes into a comment, and not more than fits.
fn comment(text: &str) -> String {
    let printable = text.chars().map(|c| {
        if c.is_ascii_graphic() && c != '"' || c == ' ' {
            c
        } else {
            '?'
        }
    });
    printable.take(super::nft::COMMENT_MAX).collect()
}

fn append<'a>(
    resolved: impl Iterator<Item = &'a Resolved1>,
    label: &str,
    ok: &Name,
    pass: Verdict,
    rules: &mut Vec<Rule>,
    sets: &mut BTreeMap<Name, Arc<Set>>,
) {
    for (index, rule) in resolved.enumerate() {
        let last = match rule.action {
            Action::Allow => Stmt::goto(ok),
            Action::Deny => Stmt::drop(),
            Action::Pass => Stmt::Verdict(pass.clone()),
            Action::Log => Stmt::Log {
                prefix: LOG_PREFIX.into(),
                level: LogLevel::Notice,
            },
        };
        for mut stmts in matches(rule, sets) {
            stmts.push(last.clone());
            rules.push(Rule::new(stmts).comment(comment(&format!("{label} {index}"))));
        }
    }
}

/// The statements of a rule's matches: a packet matches the rule if it passes any of the lists.
fn matches(rule: &Resolved1, sets: &mut BTreeMap<Name, Arc<Set>>) -> Vec<Vec<Stmt>> {
    let mut all = Vec::new();
    for family in families(rule) {
        let Some(common) = common(rule, family, sets) else {
            continue;
        };
        let alternatives = [
            ports(&rule.source, family, Field::ThSport, sets),
            ports(&rule.destination, family, Field::ThDport, sets),
            not_icmp(rule),
        ];
        let mut lists = vec![common];
        for choice in alternatives.into_iter().filter(|c| !c.is_empty()) {
            let with = |list: &Vec<Stmt>| {
                choice
                    .iter()
                    .map(|more| [list.as_slice(), more].concat())
                    .collect::<Vec<_>>()
            };
            lists = lists.iter().flat_map(with).collect();
        }
        all.append(&mut lists);
    }
    all
}

/// The families that a rule is written for; `None` is one rule for both, where no address is looked at.
fn families(rule: &Resolved1) -> Vec<Option<NfProto>> {
    let side = |s: &Side| {
        s.set.is_some()
            || s.not_set.is_some()
            || !(s.nets.is_empty()
                && s.not_nets.is_empty()
                && s.named_ports.is_empty()
                && s.not_named_ports.is_empty())
    };
    match rule.version {
        Some(IpVersion::V4) => vec![Some(NfProto::Ipv4)],
        Some(IpVersion::V6) => vec![Some(NfProto::Ipv6)],
        None if side(&rule.source) || side(&rule.destination) => {
            vec![Some(NfProto::Ipv4), Some(NfProto::Ipv6)]
        }
        None => vec![None],
    }
}

/// What every packet of the rule must pass. `None` if no packet of the family can.
fn common(
    rule: &Resolved1,
    family: Option<NfProto>,
    sets: &mut BTreeMap<Name, Arc<Set>>,
) -> Option<Vec<Stmt>> {
    let mut stmts = Vec::new();
    stmts.extend(family.map(|f| Stmt::is(Field::NfProto, f)));
    stmts.extend(rule.protocol.map(|p| Stmt::is(Field::L4Proto, Value::Proto(p))));
    stmts.extend(
        rule.not_protocol
            .map(|p| Stmt::is_not(Field::L4Proto, Value::Proto(p))),
    );
    if let Some(family) = family {
        let (source, destination) = match family {
            NfProto::Ipv4 => (Field::Ip4Saddr, Field::Ip4Daddr),
            NfProto::Ipv6 => (Field::Ip6Saddr, Field::Ip6Daddr),
        };
        addresses(&rule.source, family, source, &mut stmts, sets)?;
        addresses(&rule.destination, family, destination, &mut stmts, sets)?;
    }
    for (side, field) in [
        (&rule.source, Field::ThSport),
        (&rule.destination, Field::ThDport),
    ] {
        if !side.not_ports.is_empty() {
            stmts.push(port_match(&side.not_ports, field, Op::Ne, sets));
        }
        let family = family.unwrap_or(NfProto::Ipv4);
        stmts.extend(
            side.not_named_ports
                .iter()
                .map(|id| named_port(id, family, field, Op::Ne)),
        );
    }
    if let Some(Icmp { icmp_type, code }) = rule.icmp {
        stmts.push(icmp_type_match(rule, Op::Eq, icmp_type));
        stmts.extend(code.map(|code| icmp_code_match(rule, Op::Eq, code)));
    }
    Some(stmts)
}

/// Adds what a side says of its address. `None` if no packet of the family can pass: one of the lists of networks has
/// nothing of this family (Calico skips the rule then), or everything is excluded.
fn addresses(
    side: &Side,
    family: NfProto,
    field: Field,
    stmts: &mut Vec<Stmt>,
    sets: &mut BTreeMap<Name, Arc<Set>>,
) -> Option<()> {
    for (nets, op) in [(&side.nets, Op::Eq), (&side.not_nets, Op::Ne)] {
        if nets.is_empty() {
            continue;
        }
        let mine: BTreeSet<IpNet> = nets.iter().copied().filter(|n| family_of(n) == family).collect();
        if mine.is_empty() || (op == Op::Ne && mine.iter().any(|n| n.prefix_len() == 0)) {
            return None;
        }
        if mine.iter().any(|n| n.prefix_len() == 0) {
            continue;
        }
        stmts.push(net_match(mine, field, op, sets));
    }
    stmts.extend(
        side.set
            .iter()
            .map(|id| Stmt::In(vec![field], Op::Eq, set_name(id, family))),
    );
    stmts.extend(
        side.not_set
            .iter()
            .map(|id| Stmt::In(vec![field], Op::Ne, set_name(id, family))),
    );
    Some(())
}

fn family_of(net: &IpNet) -> NfProto {
    if matches!(net.addr(), IpAddr::V4(_)) {
        NfProto::Ipv4
    } else {
        NfProto::Ipv6
    }
}

fn net_match(nets: BTreeSet<IpNet>, field: Field, op: Op, sets: &mut BTreeMap<Name, Arc<Set>>) -> Stmt {
    if let (Some(net), 1) = (nets.first(), nets.len()) {
        return Stmt::Net(field, op, *net);
    }
    let literal = literal("c", field.kind(), nets.iter().map(|n| Atom::net(*n)), sets);
    Stmt::In(vec![field], op, literal)
}

fn port_match(ports: &[(u16, u16)], field: Field, op: Op, sets: &mut BTreeMap<Name, Arc<Set>>) -> Stmt {
    let range = |(low, high): &(u16, u16)| Atom::Range(Value::Service(*low), Value::Service(*high));
    match ports {
        [(low, high)] if low == high => Stmt::Cmp(field, op, Value::Service(*low)),
        [(low, high)] => Stmt::Range(field, op, Value::Service(*low), Value::Service(*high)),
        several => Stmt::In(
            vec![field],
            op,
            literal("p", Kind::Service, several.iter().map(range), sets),
        ),
    }
}

/// A set of literals, named by its content, so that equal lists share one.
fn literal(
    prefix: &str,
    kind: Kind,
    atoms: impl Iterator<Item = Atom>,
    sets: &mut BTreeMap<Name, Arc<Set>>,
) -> Name {
    let mut set = Set::of(&[kind]).interval();
    for atom in merge_intervals(atoms) {
        set.insert(&[atom]);
    }
    let name = generated(prefix, format!("{kind:?}{:?}", set.elements).as_bytes());
    sets.entry(name.clone()).or_insert_with(|| Arc::new(set));
    name
}

/// What a side says of its port: alternatives, none if it says nothing.
fn ports(
    side: &Side,
    family: Option<NfProto>,
    field: Field,
    sets: &mut BTreeMap<Name, Arc<Set>>,
) -> Vec<Vec<Stmt>> {
    let mut choices = Vec::new();
    if !side.ports.is_empty() {
        choices.push(vec![port_match(&side.ports, field, Op::Eq, sets)]);
    }
    let family = family.unwrap_or(NfProto::Ipv4);
    choices.extend(
        side.named_ports
            .iter()
            .map(|id| vec![named_port(id, family, field, Op::Eq)]),
    );
    choices
}

fn named_port(id: &SetId, family: NfProto, port: Field, op: Op) -> Stmt {
    let addr = match (family, port) {
        (NfProto::Ipv4, Field::ThSport) => Field::Ip4Saddr,
        (NfProto::Ipv4, _) => Field::Ip4Daddr,
        (NfProto::Ipv6, Field::ThSport) => Field::Ip6Saddr,
        (NfProto::Ipv6, _) => Field::Ip6Daddr,
    };
    Stmt::In(vec![addr, Field::L4Proto, port], op, set_name(id, family))
}

/// "Not this type and code" is another type, or this type and another code.
fn not_icmp(rule: &Resolved1) -> Vec<Vec<Stmt>> {
    let Some(Icmp { icmp_type, code }) = rule.not_icmp else {
        return Vec::new();
    };
    let mut choices = vec![vec![icmp_type_match(rule, Op::Ne, icmp_type)]];
    if let Some(code) = code {
        choices.push(vec![
            icmp_type_match(rule, Op::Eq, icmp_type),
            icmp_code_match(rule, Op::Ne, code),
        ]);
    }
    choices
}

const IPPROTO_ICMPV6: u8 = 58;

fn icmp_type_match(rule: &Resolved1, op: Op, value: u8) -> Stmt {
    match rule.protocol {
        Some(IPPROTO_ICMPV6) => Stmt::Cmp(Field::Icmpv6Type, op, Value::Icmpv6Type(value)),
        _ => Stmt::Cmp(Field::IcmpType, op, Value::IcmpType(value)),
    }
}

fn icmp_code_match(rule: &Resolved1, op: Op, value: u8) -> Stmt {
    match rule.protocol {
        Some(IPPROTO_ICMPV6) => Stmt::Cmp(Field::Icmpv6Code, op, Value::Icmpv6Code(value)),
        _ => Stmt::Cmp(Field::IcmpCode, op, Value::IcmpCode(value)),
    }
}

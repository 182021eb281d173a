//! The static part of `table inet twill`: closed at birth.
//!
//! A workload interface passes nothing until it has entries in these maps; the table is made before anything else
//! at start, is never flushed, and outlives the daemon. Policy is added to it as group chains and as elements:
//!
//! ```text
//! prerouting -300  cali*: source must be the endpoint's own (@src4, @src6), no router advertisements, else drop
//! forward       0  to cali* not in @workloads: drop
//!                  from cali*: ct state, @from_wl -> egress policy -> egress_ok -> @to_wl -> ingress policy -> ingress_ok
//!                  to cali*:   ct state, @to_wl -> ingress policy -> ingress_ok
//! input         0  from cali*: ct state, neighbour discovery, @from_wl -> egress policy -> egress_ok -> to_host
//! output        0  to cali* not in @workloads: drop (this host to its own workloads is never policed)
//! ```
//!
//! The contract with policy: an egress chain (value of `from_wl`) ends in `goto egress_ok` or `drop`; an ingress
//! chain (value of `to_wl`) ends in `goto ingress_ok` or `drop`. Both may be shared by endpoints. An established
//! flow never reaches them.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::name::IfName;
use super::nft::expr::NfProto;
use super::nft::{
    Atom, Base, Chain, ChainType, CtState, Field, Hook, Kind, Name, Op, Policy, Rule, Set, Stmt, Table,
    Value, Verdict,
};

/// Verdict map `ifname -> goto <egress policy chain>`.
pub const FROM_WL: &str = "from_wl";
/// Verdict map `ifname -> goto <ingress policy chain>`.
pub const TO_WL: &str = "to_wl";
/// Set of workload interfaces that are programmed.
pub const WORKLOADS: &str = "workloads";
/// Set `ifname . ipv4`: sources that an interface may use.
pub const SRC4: &str = "src4";
/// Set `ifname . ipv6`: sources that an interface may use.
pub const SRC6: &str = "src6";
/// Set `ifname . IPv4 networks`: further sources that an interface may use (`allowedSourcePrefixes`).
pub const SPOOF4: &str = "spoof4";
/// Set `ifname . IPv6 networks`: further sources that an interface may use.
pub const SPOOF6: &str = "spoof6";
/// Chain after an egress policy has allowed: on to the ingress policy of a local workload, to the host, or out.
pub const EGRESS_OK: &str = "egress_ok";
/// Chain after an ingress policy has allowed.
pub const INGRESS_OK: &str = "ingress_ok";
/// Chain for what a workload sends to this host, after its egress policy has allowed it.
pub const TO_HOST: &str = "to_host";

const ANTI_SPOOF: &str = "anti_spoof";
const FORWARD_FROM: &str = "forward_from_wl";
const FORWARD_TO: &str = "forward_to_wl";
const INPUT_FROM: &str = "input_from_wl";
const CT: &str = "ct_state";
const NDP: &str = "ndp_types";
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;
const ROUTER_ADVERT: u8 = 134;
/// ICMPv6 that a workload may always send to its host, ahead of policy: MLD, and neighbour discovery less router
/// advertisement and redirect (the types that Calico exempts).
const NDP_TYPES: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// What becomes of a workload's packets to its own host that its egress policy allowed (`defaultEndpointToHostAction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToHost {
    /// Dropped: Calico's default in code.
    #[default]
    Drop,
    /// Accepted: what Calico's manifests set.
    Accept,
    /// Left to the chains of others on this host, which in nf_tables is the same as accepting.
    Return,
}

/// What the static part depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseConfig {
    /// Names of workload interfaces begin with one of these (`interfacePrefix`). Never empty.
    pub prefixes: Vec<IfName>,
    /// Workload to host.
    pub to_host: ToHost,
    /// A workload's packets that conntrack calls invalid are dropped (`disableConntrackInvalidCheck: false`).
    pub drop_invalid: bool,
    /// New flows of IPIP from workloads are dropped (`allowIPIPPacketsFromWorkloads: false`).
    pub drop_ipip: bool,
    /// New flows from workloads to this UDP port are dropped (`allowVXLANPacketsFromWorkloads: false`, `vxlanPort`).
    pub drop_vxlan_port: Option<u16>,
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            prefixes: vec![IfName::fixed("cali")],
            to_host: ToHost::default(),
            drop_invalid: true,
            drop_ipip: true,
            drop_vxlan_port: Some(4789),
        }
    }
}

/// The static table, with empty maps: workload interfaces pass nothing.
#[must_use]
pub fn table(config: &BaseConfig) -> Table {
    let mut table = Table::default();
    let mut set = |name, set: Set| table.sets.insert(Name::fixed(name), Arc::new(set));
    set(FROM_WL, Set::vmap(&[Kind::IfName]));
    set(TO_WL, Set::vmap(&[Kind::IfName]));
    set(WORKLOADS, Set::of(&[Kind::IfName]));
    set(SRC4, Set::of(&[Kind::IfName, Kind::Ipv4]));
    set(SRC6, Set::of(&[Kind::IfName, Kind::Ipv6]));
    set(SPOOF4, Set::of(&[Kind::IfName, Kind::Ipv4]).interval());
    set(SPOOF6, Set::of(&[Kind::IfName, Kind::Ipv6]).interval());
    set(CT, ct_states(config.drop_invalid));
    set(NDP, ndp_types());
    let mut chain = |name, base, rules| {
        table
            .chains
            .insert(Name::fixed(name), Arc::new(Chain { base, rules }));
    };
    let hooked = |hook, priority| {
        Some(Base {
            kind: ChainType::Filter,
            hook,
            priority,
            policy: Policy::Accept,
        })
    };
    let spoof = per_prefix(config, Field::IifName, &[Stmt::goto(&name(ANTI_SPOOF))]);
    chain("prerouting", hooked(Hook::Prerouting, -300), spoof);
    chain("forward", hooked(Hook::Forward, 0), forward(config));
    chain("input", hooked(Hook::Input, 0), input(config));
    chain("output", hooked(Hook::Output, 0), closed_out(config));
    chain(ANTI_SPOOF, None, anti_spoof());
    chain(FORWARD_FROM, None, forward_from(config));
    chain(FORWARD_TO, None, forward_to());
    chain(INPUT_FROM, None, input_from(config));
    chain(EGRESS_OK, None, egress_ok(config));
    chain(INGRESS_OK, None, vec![Rule::new([Stmt::accept()])]);
    chain(
        TO_HOST,
        None,
        vec![Rule::new([Stmt::Verdict(config.to_host.verdict())])],
    );
    table
}

impl ToHost {
    fn verdict(self) -> Verdict {
        match self {
            Self::Drop => Verdict::Drop,
            // An accept ends this table's chain alone: the chains of others on the hook still see the packet.
            Self::Accept | Self::Return => Verdict::Accept,
        }
    }
}

fn ct_states(drop_invalid: bool) -> Set {
    let mut set = Set::vmap(&[Kind::CtState]);
    set.insert_verdict(&[CtState::Established.into()], Verdict::Accept);
    set.insert_verdict(&[CtState::Related.into()], Verdict::Accept);
    if drop_invalid {
        set.insert_verdict(&[CtState::Invalid.into()], Verdict::Drop);
    }
    set
}

fn ndp_types() -> Set {
    let mut set = Set::of(&[Kind::Icmpv6Type]);
    for kind in NDP_TYPES {
        set.insert(&[Atom::Is(Value::Icmpv6Type(kind))]);
    }
    set
}

fn name(n: &'static str) -> Name {
    Name::fixed(n)
}

fn known(fields: &[Field], op: Op, set: &'static str) -> Stmt {
    Stmt::In(fields.to_vec(), op, name(set))
}

/// One rule for each prefix of workload interfaces: `iifname "cali*" ...`.
fn per_prefix(config: &BaseConfig, field: Field, stmts: &[Stmt]) -> Vec<Rule> {
    let rule = |p: &IfName| {
        let lead = Stmt::NamePrefix(field, Op::Eq, *p);
        Rule::new(
            std::iter::once(lead)
                .chain(stmts.iter().cloned())
                .collect::<Vec<_>>(),
        )
    };
    config.prefixes.iter().map(rule).collect()
}

/// To an interface that looks like a workload's and is not programmed: nothing, not even of an established flow.
fn closed_out(config: &BaseConfig) -> Vec<Rule> {
    per_prefix(
        config,
        Field::OifName,
        &[known(&[Field::OifName], Op::Ne, WORKLOADS), Stmt::drop()],
    )
}

fn forward(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = closed_out(config);
    rules.extend(per_prefix(
        config,
        Field::IifName,
        &[Stmt::goto(&name(FORWARD_FROM))],
    ));
    rules.extend(per_prefix(
        config,
        Field::OifName,
        &[Stmt::goto(&name(FORWARD_TO))],
    ));
    rules
}

fn input(config: &BaseConfig) -> Vec<Rule> {
    per_prefix(config, Field::IifName, &[Stmt::goto(&name(INPUT_FROM))])
}

fn anti_spoof() -> Vec<Rule> {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let v4 = || Stmt::is(Field::NfProto, NfProto::Ipv4);
    let v6 = || Stmt::is(Field::NfProto, NfProto::Ipv6);
    let icmp6 = || Stmt::is(Field::L4Proto, Value::Proto(IPPROTO_ICMPV6));
    let advert = Stmt::is(Field::Icmpv6Type, Value::Icmpv6Type(ROUTER_ADVERT));
    let further = |family, saddr, set| {
        Rule::new([
            family,
            known(&[Field::IifName, saddr], Op::Eq, set),
            Stmt::accept(),
        ])
        .comment("further sources")
    };
    let discovery = |from: Stmt| {
        let (ndp, live) = (
            known(&[Field::Icmpv6Type], Op::Eq, NDP),
            known(&[Field::IifName], Op::Eq, WORKLOADS),
        );
        Rule::new([v6(), from, icmp6(), ndp, live, Stmt::accept()])
    };
    vec![
        Rule::new([
            v4(),
            known(&[Field::IifName, Field::Ip4Saddr], Op::Eq, SRC4),
            Stmt::accept(),
        ]),
        Rule::new([v6(), icmp6(), advert, Stmt::drop()]),
        Rule::new([
            v6(),
            known(&[Field::IifName, Field::Ip6Saddr], Op::Eq, SRC6),
            Stmt::accept(),
        ]),
        discovery(Stmt::Net(Field::Ip6Saddr, Op::Eq, link_local.into())).comment("neighbour discovery"),
        discovery(Stmt::is(Field::Ip6Saddr, Ipv6Addr::UNSPECIFIED)).comment("duplicate address detection"),
        further(v4(), Field::Ip4Saddr, SPOOF4),
        further(v6(), Field::Ip6Saddr, SPOOF6),
        Rule::new([Stmt::drop()]),
    ]
}

/// Tunnels inside which a workload would hide its packets from policy.
fn encapsulated(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = Vec::new();
    if config.drop_ipip {
        rules.push(Rule::new([
            Stmt::is(Field::L4Proto, Value::Proto(IPPROTO_IPIP)),
            Stmt::drop(),
        ]));
    }
    if let Some(port) = config.drop_vxlan_port {
        let udp = Stmt::is(Field::L4Proto, Value::Proto(IPPROTO_UDP));
        rules.push(Rule::new([
            udp,
            Stmt::is(Field::ThDport, Value::Service(port)),
            Stmt::drop(),
        ]));
    }
    rules
}

fn by_state() -> Rule {
    Rule::new([Stmt::Vmap(vec![Field::CtState], name(CT))])
}

fn forward_from(config: &BaseConfig) -> Vec<Rule> {
    let lo = IfName::fixed("lo");
    let mut rules = vec![
        Rule::new([Stmt::is(Field::OifName, lo), Stmt::drop()]).comment("the proxy-ARP gateway is no host"),
        by_state(),
    ];
    rules.extend(encapsulated(config));
    rules.push(Rule::new([Stmt::Vmap(vec![Field::IifName], name(FROM_WL))]));
    rules.push(Rule::new([Stmt::drop()]));
    rules
}

fn forward_to() -> Vec<Rule> {
    vec![
        by_state(),
        Rule::new([Stmt::Vmap(vec![Field::OifName], name(TO_WL))]),
        Rule::new([Stmt::drop()]),
    ]
}

fn input_from(config: &BaseConfig) -> Vec<Rule> {
    let icmp6 = Stmt::is(Field::L4Proto, Value::Proto(IPPROTO_ICMPV6));
    let live = known(&[Field::IifName], Op::Eq, WORKLOADS);
    let ndp = known(&[Field::Icmpv6Type], Op::Eq, NDP);
    let v6 = Stmt::is(Field::NfProto, NfProto::Ipv6);
    let mut rules = vec![by_state(), Rule::new([v6, icmp6, ndp, live, Stmt::accept()])];
    rules.extend(encapsulated(config));
    rules.push(Rule::new([Stmt::Vmap(vec![Field::IifName], name(FROM_WL))]));
    rules.push(Rule::new([Stmt::drop()]));
    rules
}

/// Where an egress policy's "allow" leads. The input hook has no outgoing interface, its index reads as 0.
fn egress_ok(config: &BaseConfig) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new([
            Stmt::is(Field::Oif, Value::IfIndex(0)),
            Stmt::goto(&name(TO_HOST)),
        ]),
        Rule::new([Stmt::Vmap(vec![Field::OifName], name(TO_WL))]),
    ];
    rules.extend(per_prefix(config, Field::OifName, &[Stmt::drop()]));
    rules.push(Rule::new([Stmt::accept()]));
    rules
}

#[cfg(test)]
mod tests;

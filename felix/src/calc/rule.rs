//! Rules with every name resolved: what remains of a policy once its selectors have become sets.
//!
//! Calico's semantics of a rule's ends (`libcalico-go` update processors): a namespaced policy's selector,
//! notSelector or service account match is limited to the policy's own namespace unless a namespaceSelector
//! says otherwise; without any of them the rule is not limited by identity at all. A named port is the set of
//! (address, protocol, port) of the endpoints that the positive selector matches.
//!
//! A rule that cannot be resolved never opens anything: an Allow, Pass or Log is left out, a Deny denies
//! everything in its direction ([`Resolved::problem`] says so).

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::number::{Port, Protocol};
use twill_model::rule::{Action, EntityRule, IpVersion, Rule as ModelRule};
use twill_model::selector::Selector;
use twill_model::selector::scope::{Entity, rule_entity};

/// Name of a set of addresses, or of addresses and ports: the same text for the same members, everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(Arc<str>);

impl SetId {
    /// The id as text, as Calico forms it: `s:` or `n:` and a hash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a set holds.
#[derive(Clone, Debug)]
pub struct SetSpec {
    /// Its name.
    pub id: SetId,
    /// Whose addresses.
    pub selector: Arc<Selector>,
    /// Only these of their ports; `None` is a set of addresses.
    pub port: Option<NamedPort>,
}

/// A named port, as rules refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Of this protocol only, by number.
    pub protocol: Option<u8>,
}

impl SetSpec {
    fn addresses(selector: Arc<Selector>) -> Self {
        Self {
            id: SetId(selector.unique_id().into()),
            selector,
            port: None,
        }
    }

    fn named_port(selector: Arc<Selector>, port: NamedPort) -> Self {
        let text = format!("{}\n{}\n{:?}", selector.canonical(), port.name, port.protocol);
        Self {
            id: SetId(format!("n:{}", super::digest(text.as_bytes())).into()),
            selector,
            port: Some(port),
        }
    }
}

/// A rule without names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of a packet that matches.
    pub action: Action,
    /// Only this IP version.
    pub version: Option<IpVersion>,
    /// Only this protocol, by number.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// Only this ICMP type, and code if named.
    pub icmp: Option<Icmp>,
    /// Any ICMP message but these.
    pub not_icmp: Option<Icmp>,
    /// Where the packet comes from.
    pub source: Side,
    /// Where it goes.
    pub destination: Side,
}

/// An ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub icmp_type: u8,
    /// Code; any if `None`.
    pub code: Option<u8>,
}

/// One end of a packet. Everything that is set must hold; of `ports` and `named_ports` together one must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The address is in one of these networks.
    pub nets: Vec<IpNet>,
    /// The address is in none of these.
    pub not_nets: Vec<IpNet>,
    /// The address is a member.
    pub set: Option<SetId>,
    /// The address is no member.
    pub not_set: Option<SetId>,
    /// The port is in one of these ranges, ends included.
    pub ports: Vec<(u16, u16)>,
    /// Address, protocol and port are a member of one of these.
    pub named_ports: Vec<SetId>,
    /// The port is in none of these.
    pub not_ports: Vec<(u16, u16)>,
    /// Address, protocol and port are a member of none of these.
    pub not_named_ports: Vec<SetId>,
}

/// What became of the rules of one direction.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// The sets that they refer to; the same set may stand here twice.
    pub sets: Vec<SetSpec>,
    /// What could not be resolved: index of the rule and why.
    pub problems: Vec<(usize, String)>,
}

/// Resolves rules of a policy in a namespace, or of a global policy or profile (`None`).
#[must_use]
pub fn resolve(rules: &[ModelRule], namespace: Option<&str>) -> Resolved {
    let mut out = Resolved::default();
    for (index, rule) in rules.iter().enumerate() {
        let mut sets = Vec::new();
        match resolve_one(rule, namespace, &mut sets) {
            Ok(Some(rule)) => {
                out.rules.push(rule);
                out.sets.append(&mut sets);
            }
            Ok(None) => {}
            Err(problem) => {
                out.problems.push((index, problem));
                if rule.action == Action::Deny {
                    out.rules.push(deny_all());
                }
            }
        }
    }
    out
}

/// A rule that denies everything.
fn deny_all() -> Rule {
    let any = Side::default();
    Rule {
        action: Action::Deny,
        version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: any.clone(),
        destination: any,
    }
}

/// `Ok(None)` is a rule that no packet can match.
fn resolve_one(
    rule: &ModelRule,
    namespace: Option<&str>,
    sets: &mut Vec<SetSpec>,
) -> Result<Option<Rule>, String> {
    if rule.source.services.is_some() || rule.destination.services.is_some() {
        // Services do not reach an etcd datastore: no address is known to be one (Calico's etcd mode: an empty set).
        return Ok(None);
    }
    let protocol = rule.protocol.map(Protocol::number);
    let ends = [&rule.source, &rule.destination];
    let ports = ends
        .iter()
        .any(|e| !(e.ports.is_empty() && e.not_ports.is_empty()));
    if ports && !rule.protocol.is_some_and(Protocol::supports_ports) {
        return Err("ports need the protocol TCP, UDP or SCTP".into());
    }
    let icmp = |icmp: &Option<twill_model::rule::Icmp>| {
        icmp.as_ref().and_then(|i| {
            Some(Icmp {
                icmp_type: i.icmp_type?,
                code: i.code,
            })
        })
    };
    Ok(Some(Rule {
        action: rule.action,
        version: rule.ip_version.or(match rule.protocol {
            Some(Protocol::Icmp) => Some(IpVersion::V4),
            Some(Protocol::IcmpV6) => Some(IpVersion::V6),
            _ => None,
        }),
        protocol,
        not_protocol: rule.not_protocol.map(Protocol::number),
        icmp: icmp(&rule.icmp),
        not_icmp: icmp(&rule.not_icmp),
        source: side(&rule.source, namespace, protocol, sets).map_err(|e| format!("source: {e}"))?,
        destination: side(&rule.destination, namespace, protocol, sets)
            .map_err(|e| format!("destination: {e}"))?,
    }))
}

fn side(
    end: &EntityRule,
    namespace: Option<&str>,
    protocol: Option<u8>,
    sets: &mut Vec<SetSpec>,
) -> Result<Side, String> {
    let positive = entity_selector(end, namespace)?.map(Arc::new);
    let mut address_set = |selector: Arc<Selector>| {
        let spec = SetSpec::addresses(selector);
        sets.push(spec.clone());
        spec.id
    };
    let set = positive.clone().map(&mut address_set);
    let not_set = match end.not_selector.as_str() {
        "" => None,
        text => Some(address_set(Arc::new(
            Selector::parse(text).map_err(|e| format!("notSelector: {e}"))?,
        ))),
    };
    let mut named = |ports: &[Port]| -> Vec<SetId> {
        let names = ports.iter().filter_map(|p| {
            if let Port::Named(name) = p {
                Some(name)
            } else {
                None
            }
        });
        let spec = |name: &String| {
            let selector = positive.clone().unwrap_or_else(|| Arc::new(Selector::all()));
            SetSpec::named_port(
                selector,
                NamedPort {
                    name: name.clone(),
                    protocol,
                },
            )
        };
        let specs: Vec<_> = names.map(spec).collect();
        sets.extend(specs.iter().cloned());
        specs.into_iter().map(|s| s.id).collect()
    };
    Ok(Side {
        named_ports: named(&end.ports),
        not_named_ports: named(&end.not_ports),
        nets: end.nets.iter().map(twill_model::net::Net::masked).collect(),
        not_nets: end.not_nets.iter().map(twill_model::net::Net::masked).collect(),
        set,
        not_set,
        ports: ranges(&end.ports),
        not_ports: ranges(&end.not_ports),
    })
}

fn ranges(ports: &[Port]) -> Vec<(u16, u16)> {
    let range = |p: &Port| {
        if let Port::Range(low, high) = p {
            Some((*low, *high))
        } else {
            None
        }
    };
    ports.iter().filter_map(range).collect()
}

/// The one selector that says whom an end of a rule means; `None` when identity does not matter.
fn entity_selector(end: &EntityRule, namespace: Option<&str>) -> Result<Option<Selector>, String> {
    let accounts = end.service_accounts.as_ref();
    let entity = Entity {
        policy_namespace: namespace.unwrap_or_default(),
        selector: &end.selector,
        not_selector: &end.not_selector,
        namespace_selector: &end.namespace_selector,
        service_accounts: accounts.map(|a| a.names.as_slice()).unwrap_or_default(),
        service_account_selector: accounts.map(|a| a.selector.as_str()).unwrap_or_default(),
    };
    rule_entity(entity).map_err(|e| e.to_string())
}

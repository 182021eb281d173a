//! The graph itself: routes each update to the parts it concerns, and puts their results together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::ipam::Block;
use twill_model::{AnyResource, Key, ResourceKey, Update, Value};

use super::endpoint::Endpoint;
use super::policies::{Direction, Policies, Policy, PolicyId, Profile, Tier};
use super::routes::{BlockFacts, Routes};
use super::rule::{Resolved, SetId};
use super::sets::Sets;
use super::settings::Settings;
use crate::plan::links::RpFilter;
use crate::plan::nft::{Atom, Name, Set, Table, Verdict};
use crate::plan::policy::{Rendered, RuleSource, group_name, render, selector_sets, set_names};
use crate::plan::{Desired, IfName, Link, Mac, NodeSettings, base};

/// What the graph makes of the present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What the kernel should hold.
    pub desired: Desired,
    /// What BGP should announce as this node's own.
    pub announce: Arc<BTreeSet<IpNet>>,
}

/// The calculation graph of one node.
#[derive(Debug)]
pub struct Graph {
    node: String,
    settings: Settings,
    sets: Sets<super::endpoint::EndpointId>,
    policies: Policies,
    routes: Routes,
    problems: BTreeMap<Key, String>,
    revision: u64,
    in_sync: bool,
    dirty: bool,
    held: Held,
}

/// Parts of the last output, kept so that what did not change is the same allocation.
#[derive(Debug, Default)]
struct Held {
    base: Table,
    rendered: Rendered,
    selector_sets: BTreeMap<Name, Arc<Set>>,
    dispatch: BTreeMap<Name, Arc<Set>>,
    links: Arc<BTreeMap<IfName, Link>>,
    routes: Arc<crate::plan::routes::Routes>,
    announce: Arc<BTreeSet<IpNet>>,
    /// Whether endpoints' further sources hold.
    spoofing: bool,
}

impl RuleSource for Policies {
    fn policy(&self, id: &PolicyId, direction: Direction) -> Option<&Resolved> {
        Self::policy(self, id)?.rules(direction).map(Arc::as_ref)
    }

    fn profile(&self, name: &str, direction: Direction) -> Option<&Resolved> {
        let profile = Self::profile(self, name)?;
        Some(match direction {
            Direction::Ingress => &profile.ingress,
            Direction::Egress => &profile.egress,
        })
    }
}

impl Graph {
    /// The graph of the node with this name, knowing nothing yet.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let settings = Settings::new(node);
        let held = Held {
            base: base::table(&settings.base()),
            ..Held::default()
        };
        Self {
            node: node.to_owned(),
            settings,
            sets: Sets::default(),
            policies: Policies::default(),
            routes: Routes::default(),
            problems: BTreeMap::new(),
            revision: 0,
            in_sync: false,
            dirty: true,
            held,
        }
    }

    /// Takes one update. Keys that mean nothing to this node's data plane are passed over.
    pub fn update(&mut self, update: &Update) {
        let revision = u64::try_from(update.revision).unwrap_or(0);
        // The revision goes out with the output, so that a waiter finds its own write in it.
        self.dirty |= revision > self.revision;
        self.revision = self.revision.max(revision);
        match &update.key {
            Key::Resource(key) => self.resource(key, update.value.as_ref().and_then(Value::resource)),
            Key::Block(cidr) => self.block(*cidr, update.value.as_ref().and_then(Value::block)),
            _ => {}
        }
    }

    /// The first full pass over the datastore is over: from now on the kernel may be cleaned.
    pub fn in_sync(&mut self) {
        self.dirty |= !self.in_sync;
        self.in_sync = true;
    }

    /// Stored objects that cannot be used, and why; those that cannot be decoded are the syncer's to report.
    pub fn problems(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.problems.iter().map(|(key, why)| (key, why.as_str()))
    }

    /// How many policies select an endpoint of this node.
    #[must_use]
    pub fn active_policies(&self) -> usize {
        self.policies.active()
    }

    /// How many endpoints this node has.
    #[must_use]
    pub fn local_endpoints(&self) -> usize {
        self.routes.links().count()
    }

    /// The state that follows from everything so far, if it may differ from the last one given.
    pub fn flush(&mut self) -> Option<Output> {
        let sets = self.refresh_sets();
        let policy = self.policies.take_dirty();
        let routes = self.routes.take_dirty();
        let settings = self.settings.take_dirty();
        if !(std::mem::take(&mut self.dirty) || sets || policy || routes || settings) {
            return None;
        }
        if settings {
            self.held.base = base::table(&self.settings.base());
        }
        let spoofing = settings && self.settings.spoofing() != self.held.spoofing;
        self.held.spoofing = self.settings.spoofing();
        if policy || routes || spoofing {
            self.refresh_chains();
        }
        if routes || spoofing {
            self.held.links = Arc::new(links(&self.routes, self.held.spoofing));
            self.held.routes = Arc::new(self.routes.plan());
            self.held.announce = Arc::new(self.routes.announce());
        }
        Some(self.output())
    }

    fn output(&self) -> Output {
        let mut table = self.held.base.clone();
        let shared =
            |m: &BTreeMap<Name, Arc<Set>>| m.iter().map(|(n, s)| (n.clone(), s.clone())).collect::<Vec<_>>();
        table.sets.extend(shared(&self.held.rendered.sets));
        table.sets.extend(shared(&self.held.selector_sets));
        table.sets.extend(shared(&self.held.dispatch));
        table.chains.extend(
            self.held
                .rendered
                .chains
                .iter()
                .map(|(n, c)| (n.clone(), c.clone())),
        );
        let desired = Desired {
            revision: self.revision,
            in_sync: self.in_sync,
            table: Arc::new(table),
            links: self.held.links.clone(),
            routes: self.held.routes.clone(),
            node: NodeSettings {
                forward_v4: true,
                forward_v6: self.settings.ipv6(),
            },
        };
        Output {
            desired,
            announce: self.held.announce.clone(),
        }
    }

    fn resource(&mut self, key: &ResourceKey, value: Option<&AnyResource>) {
        let problem = match (key.kind, value) {
            (twill_model::Kind::WorkloadEndpoint, value) => self.endpoint(key, value),
            (twill_model::Kind::Profile, value) => {
                self.profile(&key.name, value);
                Vec::new()
            }
            (twill_model::Kind::Tier, value) => {
                let tier = if let Some(AnyResource::Tier(t)) = value {
                    Some(Tier::read(&t.spec))
                } else {
                    None
                };
                self.policies.set_tier(&key.name, tier);
                Vec::new()
            }
            (twill_model::Kind::NetworkPolicy | twill_model::Kind::GlobalNetworkPolicy, value) => {
                self.policy(key, value)
            }
            (twill_model::Kind::FelixConfiguration, value) => {
                let spec = if let Some(AnyResource::FelixConfiguration(c)) = value {
                    Some(&c.spec)
                } else {
                    None
                };
                self.settings.set(&key.name, spec)
            }
            _ => return,
        };
        let key = Key::Resource(key.clone());
        if problem.is_empty() {
            self.problems.remove(&key)
        } else {
            self.problems.insert(key, problem.join("; "))
        };
    }

    fn endpoint(&mut self, key: &ResourceKey, value: Option<&AnyResource>) -> Vec<String> {
        let stored = if let Some(AnyResource::WorkloadEndpoint(w)) = value {
            Some(w)
        } else {
            None
        };
        let (endpoint, problem) = match stored.map(|w| Endpoint::read(w, &self.node)) {
            None => (None, Vec::new()),
            Some(Ok(endpoint)) => (endpoint, Vec::new()),
            Some(Err(why)) => (None, vec![why]),
        };
        let Some(endpoint) = endpoint else {
            self.routes.set_local(key, None);
            self.policies.remove_local(key, &mut self.sets);
            self.sets.remove_endpoint(key);
            return problem;
        };
        match &endpoint.local {
            Some(_) => self.policies.set_local(key, &endpoint, &mut self.sets),
            None => self.policies.remove_local(key, &mut self.sets),
        }
        self.routes.set_local(key, endpoint.local);
        self.sets
            .set_endpoint(key, endpoint.labels, endpoint.profiles, endpoint.brings);
        problem
    }

    fn profile(&mut self, name: &str, value: Option<&AnyResource>) {
        let spec = if let Some(AnyResource::Profile(p)) = value {
            Some(&p.spec)
        } else {
            None
        };
        let labels = spec.map(|s| s.labels_to_apply.clone()).unwrap_or_default();
        self.sets.set_parent(name, labels.clone());
        self.policies.set_parent(name, labels, &mut self.sets);
        self.policies
            .set_profile(name, spec.map(Profile::read), &mut self.sets);
    }

    fn policy(&mut self, key: &ResourceKey, value: Option<&AnyResource>) -> Vec<String> {
        let read = match value {
            Some(AnyResource::NetworkPolicy(p)) => {
                Policy::namespaced(&p.spec, key.namespace.as_deref().unwrap_or_default()).map(Some)
            }
            Some(AnyResource::GlobalNetworkPolicy(p)) => Policy::global(&p.spec),
            _ => Ok(None),
        };
        let (policy, mut problem) = match read {
            Ok(policy) => (policy, Vec::new()),
            Err(why) => (None, vec![why.to_string()]),
        };
        let directions = policy
            .iter()
            .flat_map(|p| [("ingress", &p.ingress), ("egress", &p.egress)]);
        for (name, rules) in directions.filter_map(|(name, r)| Some((name, r.as_ref()?))) {
            problem.extend(
                rules
                    .problems
                    .iter()
                    .map(|(i, why)| format!("spec.{name}[{i}].{why}")),
            );
        }
        self.policies.set_policy(key, policy, &mut self.sets);
        problem
    }

    fn block(&mut self, cidr: IpNet, block: Option<&Arc<Block>>) {
        self.routes
            .set_block(cidr, block.and_then(|b| BlockFacts::read(b, &self.node)));
    }

    /// Renders the selector sets that changed. Returns whether any did.
    fn refresh_sets(&mut self) -> bool {
        let dirty = self.sets.take_dirty();
        for id in &dirty {
            let names = set_names(id);
            match rendered_set(&self.sets, id) {
                Some(sets) => self
                    .held
                    .selector_sets
                    .extend(names.into_iter().zip(sets.map(Arc::new))),
                None => names.iter().for_each(|name| {
                    self.held.selector_sets.remove(name);
                }),
            }
        }
        !dirty.is_empty()
    }

    /// Renders the chains of all groups, and the maps that lead to them. What comes out equal stays the same
    /// allocation.
    fn refresh_chains(&mut self) {
        let mut rendered = Rendered::default();
        let mut dispatch = Dispatch::default();
        for (id, local) in self.routes.links() {
            let groups = [Direction::Egress, Direction::Ingress].map(|direction| {
                let ordered = self.policies.ordered(id, direction);
                render(direction, &ordered, &self.policies, &mut rendered);
                group_name(direction, &ordered)
            });
            dispatch.add(local, groups);
            if self.held.spoofing {
                dispatch.add_spoofs(local);
            }
        }
        keep(&mut rendered.chains, &self.held.rendered.chains);
        keep(&mut rendered.sets, &self.held.rendered.sets);
        let mut sets = dispatch.sets();
        keep(&mut sets, &self.held.dispatch);
        self.held.rendered = rendered;
        self.held.dispatch = sets;
    }
}

/// Replaces what equals its predecessor by it.
fn keep<T: PartialEq>(new: &mut BTreeMap<Name, Arc<T>>, old: &BTreeMap<Name, Arc<T>>) {
    for (name, value) in new {
        if let Some(same) = old.get(name).filter(|held| *held == value) {
            *value = same.clone();
        }
    }
}

fn rendered_set<I: Ord + Clone>(sets: &Sets<I>, id: &SetId) -> Option<[Set; 2]> {
    Some(selector_sets(sets.members(id)?, sets.holds_ports(id)?))
}

/// The maps from interfaces to policy.
pub(crate) struct Dispatch {
    from_wl: Set,
    to_wl: Set,
    workloads: Set,
    src4: Set,
    src6: Set,
    spoof4: Set,
    spoof6: Set,
}

impl Default for Dispatch {
    fn default() -> Self {
        use crate::plan::nft::Kind;
        Self {
            from_wl: Set::vmap(&[Kind::IfName]),
            to_wl: Set::vmap(&[Kind::IfName]),
            workloads: Set::of(&[Kind::IfName]),
            src4: Set::of(&[Kind::IfName, Kind::Ipv4]),
            src6: Set::of(&[Kind::IfName, Kind::Ipv6]),
            spoof4: Set::of(&[Kind::IfName, Kind::Ipv4]).interval(),
            spoof6: Set::of(&[Kind::IfName, Kind::Ipv6]).interval(),
        }
    }
}

impl Dispatch {
    /// Leads an endpoint's packets to its egress and ingress groups.
    pub(crate) fn add(&mut self, local: &super::endpoint::Local, [egress, ingress]: [Name; 2]) {
        let link = [Atom::from(local.link)];
        self.from_wl.insert_verdict(&link, Verdict::Goto(egress));
        self.to_wl.insert_verdict(&link, Verdict::Goto(ingress));
        self.workloads.insert(&link);
        for addr in &local.addrs {
            let sources = if addr.is_ipv4() {
                &mut self.src4
            } else {
                &mut self.src6
            };
            sources.insert(&[local.link.into(), (*addr).into()]);
        }
    }

    /// Lets an endpoint send from the networks that it names, too.
    pub(crate) fn add_spoofs(&mut self, local: &super::endpoint::Local) {
        for net in &local.spoofs {
            let sources = match net {
                IpNet::V4(_) => &mut self.spoof4,
                IpNet::V6(_) => &mut self.spoof6,
            };
            sources.insert(&[local.link.into(), Atom::net(*net)]);
        }
    }

    pub(crate) fn sets(self) -> BTreeMap<Name, Arc<Set>> {
        [
            (base::FROM_WL, self.from_wl),
            (base::TO_WL, self.to_wl),
            (base::WORKLOADS, self.workloads),
            (base::SRC4, self.src4),
            (base::SRC6, self.src6),
            (base::SPOOF4, self.spoof4),
            (base::SPOOF6, self.spoof6),
        ]
        .map(|(name, set)| (Name::fixed(name), Arc::new(set)))
        .into()
    }
}

/// The host side of every local endpoint's link.
pub(crate) fn links(routes: &Routes, spoofing: bool) -> BTreeMap<IfName, Link> {
    let link = |local: &super::endpoint::Local| {
        let neighbours: BTreeMap<_, Mac> = local.addrs.iter().map(|a| (*a, local.mac)).collect();
        let gateway_v6 = local.addrs.iter().any(std::net::IpAddr::is_ipv6);
        (
            local.link,
            Link {
                neighbours,
                gateway_v6,
                // The kernel's own check would drop what comes from networks that are not routed back.
                rp_filter: (spoofing && !local.spoofs.is_empty()).then_some(RpFilter::Off),
            },
        )
    };
    routes.links().map(|(_, local)| link(local)).collect()
}

//! Everything computed anew from the final state: what [`super::Graph`] must come to by whatever way.
//!
//! Slow and without memory: no index, no counts, no caches. It shares with the graph the readers of single objects
//! and the rendering of one ordered policy, nothing else. The oracle of the property tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twill_model::selector::Labels;
use twill_model::{AnyResource, Key, Value};

use super::endpoint::{Endpoint, EndpointId};
use super::graph::{Dispatch, Output, links};
use super::policies::{Direction, Policy, PolicyId, Profile, Tier, order};
use super::routes::{BlockFacts, Routes};
use super::rule::{Resolved, SetSpec};
use super::settings::Settings;
use crate::plan::policy::{Rendered, RuleSource, group_name, render, selector_sets, set_names};
use crate::plan::{Desired, NodeSettings, base};

/// All that is in the datastore.
pub type State = BTreeMap<Key, Value>;

#[derive(Default)]
struct Read {
    endpoints: BTreeMap<EndpointId, Endpoint>,
    policies: BTreeMap<PolicyId, Policy>,
    tiers: BTreeMap<String, Tier>,
    profiles: BTreeMap<String, Profile>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// The labels of an endpoint, its profiles' included.
struct View<'a>(&'a Endpoint, &'a Read);

impl Labels for View<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let inherited = self
            .0
            .profiles
            .iter()
            .find_map(|p| self.1.labels.get(p)?.get(key));
        self.0.labels.get(key).or(inherited).map(String::as_str)
    }
}

impl RuleSource for Read {
    fn policy(&self, id: &PolicyId, direction: Direction) -> Option<&Resolved> {
        self.policies.get(id)?.rules(direction).map(Arc::as_ref)
    }

    fn profile(&self, name: &str, direction: Direction) -> Option<&Resolved> {
        let profile = self.profiles.get(name)?;
        Some(if direction == Direction::Ingress {
            &profile.ingress
        } else {
            &profile.egress
        })
    }
}

/// The output of the node's graph after it has seen this state, in sync, at this revision.
#[must_use]
pub fn recompute(node: &str, state: &State, revision: u64) -> Output {
    let (mut read, mut routes, mut settings) = (Read::default(), Routes::default(), Settings::new(node));
    for (key, value) in state {
        match (key, value) {
            (Key::Block(cidr), value) => {
                routes.set_block(*cidr, value.block().and_then(|b| BlockFacts::read(b, node)));
            }
            (Key::Resource(key), Value::Resource(resource)) => {
                take(&mut read, &mut settings, node, key, resource)
            }
            _ => {}
        }
    }
    let locals = read
        .endpoints
        .iter()
        .filter_map(|(id, e)| Some((id, e.local.clone()?)));
    locals.for_each(|(id, local)| routes.set_local(id, Some(local)));
    let mut table = base::table(&settings.base());
    let (mut rendered, mut dispatch, mut specs) = (Rendered::default(), Dispatch::default(), Vec::new());
    for (id, local) in routes.links() {
        let endpoint = &read.endpoints[id];
        let selected = || {
            read.policies
                .iter()
                .filter(|(_, p)| p.selector.matches(&View(endpoint, &read)))
        };
        specs.extend(
            selected()
                .flat_map(|(_, p)| p.ingress.iter().chain(&p.egress))
                .flat_map(|r| &r.sets),
        );
        let profiles = endpoint.profiles.iter().filter_map(|p| read.profiles.get(p));
        specs.extend(profiles.flat_map(|p| p.ingress.sets.iter().chain(&p.egress.sets)));
        let groups = [Direction::Egress, Direction::Ingress].map(|direction| {
            let ordered = order(selected(), &read.tiers, direction, endpoint.profiles.clone());
            render(direction, &ordered, &read, &mut rendered);
            group_name(direction, &ordered)
        });
        dispatch.add(local, groups);
        if settings.spoofing() {
            dispatch.add_spoofs(local);
        }
    }
    for spec in specs {
        let members = members(spec, &read);
        let sets = selector_sets(members.iter(), spec.port.is_some());
        table
            .sets
            .extend(set_names(&spec.id).into_iter().zip(sets.map(Arc::new)));
    }
    table.sets.extend(rendered.sets);
    table.sets.extend(dispatch.sets());
    table.chains.extend(rendered.chains);
    let desired = Desired {
        revision,
        in_sync: true,
        table: Arc::new(table),
        links: Arc::new(links(&routes, settings.spoofing())),
        routes: Arc::new(routes.plan()),
        node: NodeSettings {
            forward_v4: true,
            forward_v6: settings.ipv6(),
        },
    };
    Output {
        desired,
        announce: Arc::new(routes.announce()),
    }
}

fn take(read: &mut Read, settings: &mut Settings, node: &str, key: &EndpointId, resource: &AnyResource) {
    match resource {
        AnyResource::WorkloadEndpoint(w) => {
            read.endpoints
                .extend(Endpoint::read(w, node).ok().flatten().map(|e| (key.clone(), e)));
        }
        AnyResource::NetworkPolicy(p) => {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            read.policies.extend(
                Policy::namespaced(&p.spec, namespace)
                    .ok()
                    .map(|p| (key.clone(), p)),
            );
        }
        AnyResource::GlobalNetworkPolicy(p) => {
            read.policies
                .extend(Policy::global(&p.spec).ok().flatten().map(|p| (key.clone(), p)));
        }
        AnyResource::Tier(t) => {
            read.tiers.insert(key.name.clone(), Tier::read(&t.spec));
        }
        AnyResource::Profile(p) => {
            read.profiles.insert(key.name.clone(), Profile::read(&p.spec));
            read.labels
                .insert(key.name.clone(), p.spec.labels_to_apply.clone());
        }
        AnyResource::FelixConfiguration(c) => {
            settings.set(&key.name, Some(&c.spec));
        }
        _ => {}
    }
}

fn members(spec: &SetSpec, read: &Read) -> BTreeSet<super::sets::Member> {
    let inside = read
        .endpoints
        .values()
        .filter(|e| spec.selector.matches(&View(e, read)));
    inside
        .flat_map(|e| e.brings.members(spec.port.as_ref()))
        .collect()
}

//! Which policies govern which local endpoints, in which order, and the rules of those that do.
//!
//! Order is Calico's: tiers by order, those without an order next, those without an object last, ties by name;
//! policies of a tier by order, none last, ties by the text `name/namespace/kind`. A tier acts on an endpoint in
//! a direction only if one of its policies selects the endpoint and has that direction. Profiles come last; one
//! that does not exist denies.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twill_model::number::Order;
use twill_model::resources::{GlobalNetworkPolicySpec, NetworkPolicySpec, ProfileSpec, TierSpec};
use twill_model::rule::{Action, PolicyType, Rule as ModelRule};
use twill_model::selector::scope::{global_network_policy, network_policy};
use twill_model::selector::{Selector, SelectorError};

use super::endpoint::{Endpoint, EndpointId};
use super::labels::LabelIndex;
use super::rule::{Resolved, resolve};
use super::sets::Sets;

/// Names a policy: the key that it is stored under. A global one has no namespace.
pub type PolicyId = twill_model::ResourceKey;

/// The tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";

/// A direction, as the endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// What becomes of a packet at the end of a tier that acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Dropped.
    Deny,
    /// On to the next tier.
    Pass,
}

/// A policy, resolved.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its tier.
    pub tier: String,
    /// Lower first, `None` last.
    pub order: Option<Order>,
    /// Whom it selects.
    pub selector: Arc<Selector>,
    /// Its rules for packets to the endpoint; `None` if it does not govern them.
    pub ingress: Option<Arc<Resolved>>,
    /// Its rules for packets from the endpoint.
    pub egress: Option<Arc<Resolved>>,
}

impl Policy {
    /// Resolves a namespaced policy.
    ///
    /// # Errors
    /// Why its own selectors do not parse: it cannot be known whom it is for, and it is left out.
    pub fn namespaced(spec: &NetworkPolicySpec, namespace: &str) -> Result<Self, SelectorError> {
        let selector = network_policy(namespace, &spec.selector, &spec.service_account_selector)?;
        let rules = (spec.ingress.as_slice(), spec.egress.as_slice());
        Ok(Self::new(
            &spec.tier,
            spec.order,
            selector,
            &spec.types,
            rules,
            Some(namespace),
        ))
    }

    /// Resolves a global policy. `doNotTrack` and `preDNAT` policies are for hosts: `Ok(None)`.
    ///
    /// # Errors
    /// Why its own selectors do not parse.
    pub fn global(spec: &GlobalNetworkPolicySpec) -> Result<Option<Self>, SelectorError> {
        if spec.do_not_track || spec.pre_dnat {
            return Ok(None);
        }
        let selector = global_network_policy(
            &spec.selector,
            &spec.namespace_selector,
            &spec.service_account_selector,
        )?;
        let rules = (spec.ingress.as_slice(), spec.egress.as_slice());
        Ok(Some(Self::new(
            &spec.tier,
            spec.order,
            selector,
            &spec.types,
            rules,
            None,
        )))
    }

    fn new(
        tier: &str,
        order: Option<Order>,
        selector: Selector,
        types: &[PolicyType],
        (ingress, egress): (&[ModelRule], &[ModelRule]),
        namespace: Option<&str>,
    ) -> Self {
        // No types at all is an old stored object: both.
        let governs = |t| types.is_empty() || types.contains(&t);
        let rules = |t, rules| governs(t).then(|| Arc::new(resolve(rules, namespace)));
        Self {
            tier: if tier.is_empty() {
                DEFAULT_TIER.into()
            } else {
                tier.into()
            },
            order,
            selector: Arc::new(selector),
            ingress: rules(PolicyType::Ingress, ingress),
            egress: rules(PolicyType::Egress, egress),
        }
    }

    /// The rules of a direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&Arc<Resolved>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    fn sets(&self) -> impl Iterator<Item = &super::rule::SetSpec> {
        self.ingress.iter().chain(&self.egress).flat_map(|r| &r.sets)
    }
}

/// A tier's own facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Lower first, `None` last.
    pub order: Option<Order>,
    /// What happens at its end.
    pub end: End,
}

impl Tier {
    /// Reads a stored tier.
    #[must_use]
    pub fn read(spec: &TierSpec) -> Self {
        let end = if spec.default_action == Some(Action::Pass) {
            End::Pass
        } else {
            End::Deny
        };
        Self {
            order: spec.order,
            end,
        }
    }
}

/// A profile, resolved.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Rules for packets to the endpoint.
    pub ingress: Arc<Resolved>,
    /// Rules for packets from the endpoint.
    pub egress: Arc<Resolved>,
}

impl Profile {
    /// Resolves a stored profile.
    #[must_use]
    pub fn read(spec: &ProfileSpec) -> Self {
        Self {
            ingress: Arc::new(resolve(&spec.ingress, None)),
            egress: Arc::new(resolve(&spec.egress, None)),
        }
    }

    fn sets(&self) -> impl Iterator<Item = &super::rule::SetSpec> {
        self.ingress.sets.iter().chain(&self.egress.sets)
    }
}

/// The ordered policy of an endpoint in one direction. Endpoints with equal ones share their chains.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordered {
    /// Tiers that act, in order.
    pub tiers: Vec<OrderedTier>,
    /// Profiles, in order.
    pub profiles: Vec<String>,
}

/// One tier of an endpoint's ordered policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderedTier {
    /// Its name.
    pub name: String,
    /// Its policies for this endpoint and direction, in order; never empty.
    pub policies: Vec<PolicyId>,
    /// What happens at its end.
    pub end: End,
}

/// Policies, tiers and profiles, and the local endpoints that they govern.
#[derive(Debug, Default)]
pub struct Policies {
    index: LabelIndex<PolicyId, EndpointId>,
    policies: BTreeMap<PolicyId, Policy>,
    tiers: BTreeMap<String, Tier>,
    profiles: BTreeMap<String, Profile>,
    /// Local endpoints and their profiles.
    local: BTreeMap<EndpointId, Vec<String>>,
    /// Policies whose sets are held: those that select a local endpoint.
    active: BTreeSet<PolicyId>,
    /// Profiles whose sets are held.
    active_profiles: BTreeSet<String>,
    dirty: bool,
}

impl Policies {
    /// Adds, replaces or removes (`None`) a policy.
    pub fn set_policy(&mut self, id: &PolicyId, policy: Option<Policy>, sets: &mut Sets<EndpointId>) {
        let old = self.policies.remove(id);
        let was_active = self.active.contains(id);
        let mut changes = Vec::new();
        if let Some(policy) = policy {
            if old
                .as_ref()
                .is_none_or(|old| old.selector.canonical() != policy.selector.canonical())
            {
                self.index.remove_selector(id);
                self.index.add_selector(id, policy.selector.clone(), &mut changes);
            }
            self.policies.insert(id.clone(), policy);
        } else {
            self.index.remove_selector(id);
        }
        if was_active {
            // Hold the new before letting go of the old, so that a set which stays is not emptied in between.
            self.active.remove(id);
            self.settle(id, sets);
            for set in old.iter().flat_map(Policy::sets) {
                sets.release(&set.id);
            }
            self.dirty = true;
        } else {
            self.settle(id, sets);
        }
    }

    /// Adds, replaces or removes a tier.
    pub fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        let old = match tier {
            Some(tier) => self.tiers.insert(name.to_owned(), tier),
            None => self.tiers.remove(name),
        };
        self.dirty |= old != tier;
    }

    /// Adds, replaces or removes a profile.
    pub fn set_profile(&mut self, name: &str, profile: Option<Profile>, sets: &mut Sets<EndpointId>) {
        let old = self.profiles.remove(name);
        if let Some(profile) = profile {
            self.profiles.insert(name.to_owned(), profile);
        }
        let was_active = self.active_profiles.remove(name);
        self.settle_profile(name, sets);
        if was_active {
            for set in old.iter().flat_map(Profile::sets) {
                sets.release(&set.id);
            }
        }
        self.dirty |= self.local.values().flatten().any(|p| p == name);
    }

    /// Sets the labels that endpoints inherit from a profile.
    pub fn set_parent(&mut self, name: &str, labels: super::labels::LabelMap, sets: &mut Sets<EndpointId>) {
        let mut changes = Vec::new();
        self.index.set_parent(name, labels, &mut changes);
        self.settle_all(changes.into_iter().map(|c| c.selector), sets);
    }

    /// Adds or replaces an endpoint of this node.
    pub fn set_local(&mut self, id: &EndpointId, endpoint: &Endpoint, sets: &mut Sets<EndpointId>) {
        let mut changes = Vec::new();
        self.index.set_item(
            id,
            endpoint.labels.clone(),
            endpoint.profiles.clone(),
            &mut changes,
        );
        let old = self.local.insert(id.clone(), endpoint.profiles.clone());
        for name in old.iter().flatten().chain(&endpoint.profiles) {
            self.settle_profile(name, sets);
        }
        self.settle_all(changes.into_iter().map(|c| c.selector), sets);
        self.dirty = true;
    }

    /// Removes an endpoint of this node.
    pub fn remove_local(&mut self, id: &EndpointId, sets: &mut Sets<EndpointId>) {
        let Some(old) = self.local.remove(id) else { return };
        let mut changes = Vec::new();
        self.index.remove_item(id, &mut changes);
        for name in &old {
            self.settle_profile(name, sets);
        }
        self.settle_all(changes.into_iter().map(|c| c.selector), sets);
        self.dirty = true;
    }

    /// Whether the ordered policy of an endpoint, or the rules in it, changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// A policy by name.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.get(id)
    }

    /// A profile by name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.get(name)
    }

    /// How many policies select an endpoint of this node.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// The ordered policy of a local endpoint.
    #[must_use]
    pub fn ordered(&self, endpoint: &EndpointId, direction: Direction) -> Ordered {
        let selected = self.index.selectors_of(endpoint);
        let profiles = self.local.get(endpoint).cloned().unwrap_or_default();
        order(
            selected.filter_map(|id| Some((id, self.policies.get(id)?))),
            &self.tiers,
            direction,
            profiles,
        )
    }

    fn settle_all(&mut self, ids: impl Iterator<Item = PolicyId>, sets: &mut Sets<EndpointId>) {
        for id in ids.collect::<BTreeSet<_>>() {
            self.settle(&id, sets);
            self.dirty = true;
        }
    }

    /// Holds the sets of a policy that selects a local endpoint, and no others.
    fn settle(&mut self, id: &PolicyId, sets: &mut Sets<EndpointId>) {
        let wanted = self.index.items_of(id).next().is_some();
        let Some(policy) = self.policies.get(id) else {
            self.active.remove(id);
            return;
        };
        if wanted && self.active.insert(id.clone()) {
            policy.sets().for_each(|set| sets.acquire(set));
            self.dirty = true;
        } else if !wanted && self.active.remove(id) {
            policy.sets().for_each(|set| sets.release(&set.id));
            self.dirty = true;
        }
    }

    fn settle_profile(&mut self, name: &str, sets: &mut Sets<EndpointId>) {
        let wanted = self.local.values().flatten().any(|p| p == name);
        let Some(profile) = self.profiles.get(name) else {
            self.active_profiles.remove(name);
            return;
        };
        if wanted && self.active_profiles.insert(name.to_owned()) {
            profile.sets().for_each(|set| sets.acquire(set));
        } else if !wanted && self.active_profiles.remove(name) {
            profile.sets().for_each(|set| sets.release(&set.id));
        }
    }
}

/// Orders the policies that select an endpoint.
pub fn order<'a>(
    selected: impl Iterator<Item = (&'a PolicyId, &'a Policy)>,
    tiers: &BTreeMap<String, Tier>,
    direction: Direction,
    profiles: Vec<String>,
) -> Ordered {
    let mut by_tier: BTreeMap<&str, Vec<(&PolicyId, &Policy)>> = BTreeMap::new();
    for (id, policy) in selected.filter(|(_, p)| p.rules(direction).is_some()) {
        by_tier.entry(&policy.tier).or_default().push((id, policy));
    }
    let mut acting: Vec<_> = by_tier
        .into_iter()
        .map(|(name, policies)| (name, tiers.get(name), policies))
        .collect();
    acting.sort_by(|(a, ta, _), (b, tb, _)| compare_tiers(*ta, *tb).then_with(|| a.cmp(b)));
    let tiers = acting.into_iter().map(|(name, tier, mut policies)| {
        policies.sort_by(|(a, pa), (b, pb)| last(pa.order, pb.order).then_with(|| tie(a).cmp(&tie(b))));
        OrderedTier {
            name: name.to_owned(),
            policies: policies.into_iter().map(|(id, _)| id.clone()).collect(),
            end: tier.map_or(End::Deny, |t| t.end),
        }
    });
    Ordered {
        tiers: tiers.collect(),
        profiles,
    }
}

fn compare_tiers(a: Option<&Tier>, b: Option<&Tier>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => last(a.order, b.order),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Orders by number, none last.
fn last(a: Option<Order>, b: Option<Order>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn tie(id: &PolicyId) -> String {
    format!(
        "{}/{}/{}",
        id.name,
        id.namespace.as_deref().unwrap_or_default(),
        id.kind
    )
}

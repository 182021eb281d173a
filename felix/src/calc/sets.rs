//! Members of the sets that active rules refer to.
//!
//! Two endpoints may hold one address for a while (a pod that moves), so members are counted: an address leaves a
//! set with the last endpoint that brought it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::labels::{Change, LabelIndex, LabelMap, Matches};
use super::rule::{NamedPort, SetId, SetSpec};

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// An address.
    Addr(IpAddr),
    /// An address with protocol number and port.
    Port(IpAddr, u8, u16),
}

/// What an endpoint brings to the sets that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Its named ports: name, protocol number, port.
    pub ports: Vec<(String, u8, u16)>,
}

impl Contribution {
    /// The members that this endpoint brings to a set of the given kind.
    #[must_use]
    pub fn members(&self, port: Option<&NamedPort>) -> BTreeSet<Member> {
        let Some(wanted) = port else {
            return self.addrs.iter().copied().map(Member::Addr).collect();
        };
        let fits = |(name, protocol, _): &&(String, u8, u16)| {
            *name == wanted.name && wanted.protocol.is_none_or(|p| p == *protocol)
        };
        let ports: Vec<_> = self.ports.iter().filter(fits).collect();
        let at = |addr: &IpAddr| {
            ports
                .iter()
                .map(|(_, proto, port)| Member::Port(*addr, *proto, *port))
                .collect::<Vec<_>>()
        };
        self.addrs.iter().flat_map(at).collect()
    }
}

#[derive(Debug)]
struct Set {
    port: Option<NamedPort>,
    members: BTreeMap<Member, usize>,
    /// How many policies and profiles refer to it.
    users: usize,
}

/// All active sets. `I` names endpoints.
#[derive(Debug)]
pub struct Sets<I> {
    index: LabelIndex<SetId, I>,
    endpoints: BTreeMap<I, Contribution>,
    sets: BTreeMap<SetId, Set>,
    dirty: BTreeSet<SetId>,
}

impl<I> Default for Sets<I> {
    fn default() -> Self {
        Self {
            index: LabelIndex::default(),
            endpoints: BTreeMap::new(),
            sets: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }
}

impl<I: Ord + Clone> Sets<I> {
    /// One more policy or profile refers to a set.
    pub fn acquire(&mut self, spec: &SetSpec) {
        if let Some(set) = self.sets.get_mut(&spec.id) {
            set.users += 1;
            return;
        }
        self.sets.insert(
            spec.id.clone(),
            Set {
                port: spec.port.clone(),
                members: BTreeMap::new(),
                users: 1,
            },
        );
        self.dirty.insert(spec.id.clone());
        let mut changes = Vec::new();
        self.index
            .add_selector(&spec.id, spec.selector.clone(), &mut changes);
        self.absorb(changes);
    }

    /// One policy or profile less refers to a set; the last takes it away.
    pub fn release(&mut self, id: &SetId) {
        let Some(set) = self.sets.get_mut(id) else { return };
        set.users = set.users.saturating_sub(1);
        if set.users == 0 {
            self.sets.remove(id);
            self.index.remove_selector(id);
            self.dirty.insert(id.clone());
        }
    }

    /// Adds or replaces an endpoint.
    pub fn set_endpoint(&mut self, id: &I, labels: LabelMap, parents: Vec<String>, brings: Contribution) {
        if self.endpoints.get(id) != Some(&brings) {
            self.contribute(id, Matches::Stopped);
            self.endpoints.insert(id.clone(), brings);
            self.contribute(id, Matches::Started);
        }
        let mut changes = Vec::new();
        self.index.set_item(id, labels, parents, &mut changes);
        self.absorb(changes);
    }

    /// Removes an endpoint.
    pub fn remove_endpoint(&mut self, id: &I) {
        let mut changes = Vec::new();
        self.index.remove_item(id, &mut changes);
        self.absorb(changes);
        self.endpoints.remove(id);
    }

    /// Sets the labels that endpoints inherit from a profile.
    pub fn set_parent(&mut self, name: &str, labels: LabelMap) {
        let mut changes = Vec::new();
        self.index.set_parent(name, labels, &mut changes);
        self.absorb(changes);
    }

    /// The members of a set; `None` if no rule refers to it.
    pub fn members(&self, id: &SetId) -> Option<impl Iterator<Item = &Member>> {
        self.sets.get(id).map(|set| set.members.keys())
    }

    /// Whether a set holds ports, for an active set.
    #[must_use]
    pub fn holds_ports(&self, id: &SetId) -> Option<bool> {
        self.sets.get(id).map(|set| set.port.is_some())
    }

    /// The sets that were made, changed or dropped since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<SetId> {
        std::mem::take(&mut self.dirty)
    }

    /// All active sets.
    pub fn ids(&self) -> impl Iterator<Item = &SetId> {
        self.sets.keys()
    }

    /// Counts an endpoint in or out of all sets that it is in.
    fn contribute(&mut self, id: &I, matches: Matches) {
        let sets: Vec<SetId> = self.index.selectors_of(id).cloned().collect();
        for set in sets {
            self.count(&set, id, matches);
        }
    }

    fn absorb(&mut self, changes: Vec<Change<SetId, I>>) {
        for change in changes {
            self.count(&change.selector, &change.item, change.matches);
        }
    }

    fn count(&mut self, id: &SetId, endpoint: &I, matches: Matches) {
        let (Some(set), Some(brings)) = (self.sets.get_mut(id), self.endpoints.get(endpoint)) else {
            return;
        };
        for member in brings.members(set.port.as_ref()) {
            let count = set.members.entry(member).or_insert(0);
            let before = *count;
            *count = match matches {
                Matches::Started => before + 1,
                Matches::Stopped => before.saturating_sub(1),
            };
            let gone = *count == 0;
            if gone {
                set.members.remove(&member);
            }
            if gone || before == 0 {
                self.dirty.insert(id.clone());
            }
        }
    }
}

//! Actions of a term, and what those of all matching terms add up to.

use super::Origin;
use crate::wire::attr::code;
use crate::wire::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::wire::{AttrSet, NextHopValue, as_path};
use std::net::IpAddr;

/// How often one action prepends at most.
const PREPEND_MAX: u8 = 32;

/// A change to a route that a term makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC, or removes it.
    Med(Option<u32>),
    /// Sets ORIGIN.
    Origin(Origin),
    /// Adds communities; those present stay.
    AddCommunities(Vec<u32>),
    /// Removes communities.
    RemoveCommunities(Vec<u32>),
    /// These communities and no others.
    SetCommunities(Vec<u32>),
    /// Adds extended communities; those present stay.
    AddExtendedCommunities(Vec<ExtendedCommunity>),
    /// Removes extended communities.
    RemoveExtendedCommunities(Vec<ExtendedCommunity>),
    /// These extended communities and no others.
    SetExtendedCommunities(Vec<ExtendedCommunity>),
    /// Adds large communities; those present stay.
    AddLargeCommunities(Vec<LargeCommunity>),
    /// Removes large communities.
    RemoveLargeCommunities(Vec<LargeCommunity>),
    /// These large communities and no others.
    SetLargeCommunities(Vec<LargeCommunity>),
    /// Puts this AS number in front of the path so many times (at most 32 are applied).
    Prepend {
        /// The AS number; zero is never prepended.
        asn: u32,
        /// How often.
        times: u8,
    },
    /// Decides the next hop.
    NextHop(NextHop),
}

/// What becomes of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// It stays as received; our own routes get our address.
    Keep,
    /// It becomes our address on the session.
    SelfAddress,
    /// It stays if it lies in the subnet that we share with the peer, else it becomes our address (RFC 4271 section 5.1.3).
    ThirdParty,
    /// It becomes this address; a route of the other family keeps its own.
    Address(IpAddr),
}

/// The changes that the matching terms add up to; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// LOCAL_PREF to set.
    pub local_pref: Option<u32>,
    /// MED to set, or with `Some(None)` to remove.
    pub med: Option<Option<u32>>,
    /// ORIGIN to set.
    pub origin: Option<Origin>,
    /// The communities become these.
    pub communities: Option<Vec<u32>>,
    /// The extended communities become these.
    pub extended_communities: Option<Vec<ExtendedCommunity>>,
    /// The large communities become these.
    pub large_communities: Option<Vec<LargeCommunity>>,
    /// Prepended to the path, in order.
    pub prepend: Vec<(u32, u8)>,
    /// The next hop.
    pub next_hop: Option<NextHop>,
}

impl Changes {
    pub(super) fn add(&mut self, action: &Action, attrs: &AttrSet) {
        match action {
            Action::LocalPref(value) => self.local_pref = Some(*value),
            Action::Med(value) => self.med = Some(*value),
            Action::Origin(origin) => self.origin = Some(*origin),
            Action::AddCommunities(add) => self.add_communities(add, attrs),
            Action::RemoveCommunities(remove) => drop_from(&mut self.communities, remove, attrs),
            Action::SetCommunities(set) => self.communities = Some(set.clone()),
            Action::AddExtendedCommunities(add) => present(&mut self.extended_communities, attrs).extend(add),
            Action::RemoveExtendedCommunities(remove) => {
                drop_from(&mut self.extended_communities, remove, attrs);
            }
            Action::SetExtendedCommunities(set) => self.extended_communities = Some(set.clone()),
            Action::AddLargeCommunities(add) => present(&mut self.large_communities, attrs).extend(add),
            Action::RemoveLargeCommunities(remove) => drop_from(&mut self.large_communities, remove, attrs),
            Action::SetLargeCommunities(set) => self.large_communities = Some(set.clone()),
            Action::Prepend { asn, times } if *asn != 0 => {
                self.prepend.push((*asn, (*times).min(PREPEND_MAX)));
            }
            Action::Prepend { .. } => {}
            Action::NextHop(next_hop) => self.next_hop = Some(*next_hop),
        }
    }

    /// Adds communities to those that the route has by then.
    pub fn add_communities(&mut self, add: &[u32], attrs: &AttrSet) {
        present(&mut self.communities, attrs).extend(add);
    }

    /// Attributes that become something else, but for AS_PATH, MED and LOCAL_PREF, which depend on the session: code, and
    /// the new value or `None` for none.
    #[must_use]
    pub fn values(&self) -> Vec<(u8, Option<Vec<u8>>)> {
        let mut values = Vec::new();
        if let Some(origin) = self.origin {
            values.push((code::ORIGIN, Some(vec![origin.code()])));
        }
        values.extend(list(self.communities.as_deref()));
        values.extend(list(self.extended_communities.as_deref()));
        values.extend(list(self.large_communities.as_deref()));
        values
    }

    /// The path with everything prepended, if something is.
    #[must_use]
    pub fn prepended(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.prepend.iter().fold(None, |path_so_far, (asn, times)| {
            let mut out = Vec::new();
            as_path::prepend(path_so_far.as_deref().unwrap_or(path), *asn, *times, &mut out);
            Some(out)
        })
    }

    /// The attributes after an import policy.
    #[must_use]
    pub fn apply(&self, attrs: &AttrSet) -> AttrSet {
        let word = |v: u32| v.to_be_bytes().to_vec();
        let mut values = self.values();
        if let Some(value) = self.local_pref {
            values.push((code::LOCAL_PREF, Some(word(value))));
        }
        if let Some(value) = self.med {
            values.push((code::MED, value.map(word)));
        }
        if let Some(path) = self.prepended(attrs.as_path()) {
            values.push((code::AS_PATH, Some(path)));
        }
        let next_hop = match (self.next_hop, attrs.next_hop()) {
            (Some(NextHop::Address(new)), old)
                if old.address().is_some_and(|o| o.is_ipv4() == new.is_ipv4()) =>
            {
                NextHopValue::from(new)
            }
            (_, old) => old,
        };
        attrs.with(next_hop, &values)
    }
}

fn present<'c, C: Community>(list: &'c mut Option<Vec<C>>, attrs: &AttrSet) -> &'c mut Vec<C> {
    list.get_or_insert_with(|| attrs.communities_of::<C>().collect())
}

fn drop_from<C: Community>(list: &mut Option<Vec<C>>, remove: &[C], attrs: &AttrSet) {
    present(list, attrs).retain(|c| !remove.contains(c));
}

/// The attribute of a list that changes: ascending, each once; none at all for an empty list.
fn list<C: Community>(list: Option<&[C]>) -> Option<(u8, Option<Vec<u8>>)> {
    let mut list = list?.to_vec();
    list.sort_unstable();
    list.dedup();
    let mut octets = Vec::with_capacity(list.len() * C::OCTETS);
    list.iter().for_each(|c| c.write(&mut octets));
    Some((C::CODE, (!list.is_empty()).then_some(octets)))
}

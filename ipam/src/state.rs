//! What an allocator knows: its own blocks whole, everyone else's in a line, and the resources that decide.
//!
//! There is one way in, [`State::observe`], for the syncer's events, for what a refused transaction read, and for
//! the allocator's own commits. Observations may come twice and in any order: the newer revision of a key wins.

mod chores;
mod known;

pub use chores::UNFINISHED_GRACE_MS;
pub use known::Observed;
pub(crate) use known::{Cluster, KnownAffinity, KnownBlock, KnownHandle, Owner, Versioned};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_datastore::{Bytes, Revision};
use twill_model::ipam::{AffinityState, Block, BlockAffinity, BlockView, Handle, IpamConfig};
use twill_model::kind::Kind;
use twill_model::{AffinityOwner, Key, ResourceKey};

use crate::block::Cooling;
use crate::keys;
use crate::now::Now;
use crate::pool::{Family, Pool};
use crate::resources;
use known::{insert, replace, set, versioned};

/// Handles remembered, more than the cap of blocks holds. One that was forgotten costs a read.
const HANDLES_MAX: usize = 8192;
/// Blocks of others kept whole after something was borrowed from or looked for in them.
const GUESTS_MAX: usize = 64;
/// What the profile of a namespace is called before its name.
const NAMESPACE_PROFILE: &str = "kns.";

/// What an allocator knows of the cluster. Plain data: it reads no clock and no store.
#[derive(Clone, Debug)]
pub struct State {
    node: String,
    owner: AffinityOwner,
    fence_key: Bytes,
    pub(crate) revision: Revision,
    pub(crate) blocks: BTreeMap<IpNet, KnownBlock>,
    /// Our blocks in the order of their keys as text, which is the order in which Calico tries them.
    own: BTreeMap<String, IpNet>,
    guests: Vec<IpNet>,
    wanted_guests: Vec<IpNet>,
    pub(crate) affinities: BTreeMap<IpNet, KnownAffinity>,
    pub(crate) pools: BTreeMap<String, Versioned<Pool>>,
    reservations: BTreeMap<String, Versioned<Vec<IpNet>>>,
    pub(crate) node_labels: Option<Versioned<BTreeMap<String, String>>>,
    pub(crate) config: Versioned<IpamConfig>,
    pub(crate) cluster: Option<Versioned<Cluster>>,
    /// Labels of namespaces, from the profiles that Calico makes of them.
    namespaces: BTreeMap<String, Versioned<BTreeMap<String, String>>>,
    /// Revisions of other owners' affinities that were read to take their blocks over, 0 if absent.
    foreign: BTreeMap<Bytes, Revision>,
    pub(crate) handles: BTreeMap<String, KnownHandle>,
    /// Revision of our fence, 0 if there is none.
    pub(crate) fence: Revision,
    unreadable: BTreeMap<String, String>,
    cooling: BTreeMap<IpAddr, u64>,
}

impl State {
    /// The state of an allocator on `node` that has seen nothing.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self::of(AffinityOwner::Host(node.to_owned()))
    }

    /// The state of an allocator whose blocks are `owner`'s: a node's, or `virtual:load-balancer`'s.
    #[must_use]
    pub fn of(owner: AffinityOwner) -> Self {
        Self {
            node: owner.name().to_owned(),
            fence_key: keys::fence_of(&owner),
            owner,
            revision: 0,
            blocks: BTreeMap::new(),
            own: BTreeMap::new(),
            guests: Vec::new(),
            wanted_guests: Vec::new(),
            affinities: BTreeMap::new(),
            pools: BTreeMap::new(),
            reservations: BTreeMap::new(),
            node_labels: None,
            config: Versioned {
                revision: 0,
                value: IpamConfig::default(),
            },
            cluster: None,
            namespaces: BTreeMap::new(),
            foreign: BTreeMap::new(),
            handles: BTreeMap::new(),
            fence: 0,
            unreadable: BTreeMap::new(),
            cooling: BTreeMap::new(),
        }
    }

    /// The key of the fence: see [`keys::fence_of`].
    pub(crate) fn fence_key(&self) -> &Bytes {
        &self.fence_key
    }

    /// This node's name, or the virtual owner's.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// This node as the owner of a block: `host:<node>`.
    #[must_use]
    pub fn owner(&self) -> &AffinityOwner {
        &self.owner
    }

    /// Newest revision seen.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Keys whose values cannot be used, with the reason. They are left alone until they change.
    #[must_use]
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// This node's own blocks, in the order in which they are tried.
    pub fn own_blocks(&self) -> impl Iterator<Item = &Block> {
        self.own
            .values()
            .filter_map(|cidr| self.blocks.get(cidr)?.whole.as_deref())
    }

    pub(crate) fn own_cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.own.values().copied()
    }

    /// Takes in one key. Keys that do not matter are ignored, older revisions than the one known too.
    pub fn observe(&mut self, seen: &Observed, now: Now) {
        self.revision = self.revision.max(seen.revision());
        if *seen.key() == self.fence_key {
            // Nobody deletes it; should it be gone, comparing its last revision refuses and shows that it is.
            self.fence = match seen {
                Observed::Put { revision, .. } => self.fence.max(*revision),
                Observed::Absent { at, .. } if *at >= self.fence => 0,
                Observed::Absent { .. } => self.fence,
            };
            return;
        }
        let Some(key) = keys::parse(seen.key()) else {
            return;
        };
        let result = match &key {
            Key::Block(cidr) => self.observe_block(*cidr, seen),
            Key::BlockAffinity(key) if key.owner == self.owner => self.observe_affinity(key.block, seen, now),
            Key::Handle(id) => self.observe_handle(id, seen),
            Key::IpamConfig => versioned(seen, IpamConfig::decode)
                .map(|new| replace(&mut self.config, new, IpamConfig::default)),
            Key::Resource(key) => self.observe_resource(key, seen),
            Key::BlockAffinity(_) => {
                self.observe_foreign(seen);
                return;
            }
            Key::Other(_) => return,
        };
        match result {
            Ok(()) if self.unreadable.is_empty() => {}
            Ok(()) => drop(self.unreadable.remove(&key.path())),
            Err(reason) => drop(self.unreadable.insert(key.path(), reason)),
        }
    }

    fn observe_resource(&mut self, key: &ResourceKey, seen: &Observed) -> Result<(), String> {
        let name = &key.name;
        match key.kind {
            Kind::IpPool => versioned(seen, |bytes| resources::pool(name, bytes))
                .map(|new| insert(&mut self.pools, name, new)),
            Kind::IpReservation => {
                versioned(seen, resources::reservation).map(|new| insert(&mut self.reservations, name, new))
            }
            Kind::Profile => match name.strip_prefix(NAMESPACE_PROFILE) {
                Some(namespace) => versioned(seen, resources::namespace_labels)
                    .map(|new| insert(&mut self.namespaces, namespace, new)),
                None => Ok(()),
            },
            Kind::Node if self.owner.host() == Some(name) => {
                versioned(seen, resources::node_labels).map(|new| set(&mut self.node_labels, new))
            }
            Kind::ClusterInformation if name == "default" => {
                versioned(seen, resources::cluster).map(|new| set(&mut self.cluster, new))
            }
            _ => Ok(()),
        }
    }

    fn observe_block(&mut self, cidr: IpNet, seen: &Observed) -> Result<(), String> {
        let known = self.blocks.get(&cidr).map(|b| (b.revision, b.whole.is_some()));
        if known.is_some_and(|(revision, _)| revision > seen.revision()) {
            return Ok(());
        }
        let Observed::Put { value, revision, .. } = seen else {
            self.forget_block(cidr);
            return Ok(());
        };
        // A guest stays whole when it changes: whoever had it read may not have planned with it yet.
        let wanted = self.wanted_guests.contains(&cidr) || self.guests.contains(&cidr);
        if known.is_some_and(|(known, whole)| known == *revision && (whole || !wanted)) {
            return Ok(());
        }
        self.forget_block(cidr);
        // Others' blocks are many, and a line of each is kept: only ours and guests are decoded whole.
        let decoded = BlockView::decode(cidr, value).and_then(|view| {
            let owner = self.owner_of(&view);
            let whole = (owner == Owner::Mine || wanted).then(|| Block::decode(cidr, value));
            let mut known = KnownBlock::of(&view, owner, *revision);
            known.whole = whole.transpose()?.map(Arc::new);
            Ok(known)
        });
        let known = match decoded {
            Ok(known) => known,
            Err(e) => {
                let known = KnownBlock::unreadable(e.to_string(), *revision);
                self.blocks.insert(cidr, known);
                return Err(e.to_string());
            }
        };
        if known.owner == Owner::Mine {
            self.own.insert(Key::block(cidr).path(), cidr);
        } else if known.whole.is_some() {
            self.wanted_guests.retain(|w| *w != cidr);
            self.guests.push(cidr);
        }
        self.blocks.insert(cidr, known);
        if self.guests.len() > GUESTS_MAX {
            let oldest = self.guests.remove(0);
            if let Some(known) = self.blocks.get_mut(&oldest) {
                known.whole = None;
            }
        }
        Ok(())
    }

    fn owner_of(&self, block: &BlockView<'_>) -> Owner {
        match block.affinity() {
            Some(a) if self.is_us(a) => Owner::Mine,
            _ if block.host().is_some() && block.host() == self.owner.host() => Owner::Mine,
            Some(a) => Owner::Other(a.to_owned()),
            None => Owner::None,
        }
    }

    /// Whether `affinity`, such as `host:n1`, names the owner that we assign for.
    fn is_us(&self, affinity: &str) -> bool {
        affinity.split_once(':').is_some_and(|(kind, name)| {
            let is_host = self.owner.host().is_some();
            name == self.owner.name() && kind == if is_host { "host" } else { "virtual" }
        })
    }

    fn forget_block(&mut self, cidr: IpNet) {
        self.blocks.remove(&cidr);
        self.guests.retain(|guest| *guest != cidr);
        self.own.retain(|_, own| *own != cidr);
    }

    /// Asks that the block under `key`, somebody else's, be kept whole when it is observed next: call it with each key that a
    /// plan wants read, before the read is observed.
    pub fn want_whole(&mut self, key: &[u8]) {
        if let Some(Key::Block(cidr)) = keys::parse(key) {
            if !self.wanted_guests.contains(&cidr) {
                self.wanted_guests.push(cidr);
            }
            if self.wanted_guests.len() > GUESTS_MAX {
                self.wanted_guests.remove(0);
            }
        }
    }

    /// Somebody else's affinity: known only while it was read for a request, as it is not watched.
    fn observe_foreign(&mut self, seen: &Observed) {
        let revision = match seen {
            Observed::Put { revision, .. } => *revision,
            Observed::Absent { .. } => 0,
        };
        if self.foreign.len() >= GUESTS_MAX {
            self.foreign.pop_first();
        }
        self.foreign.insert(seen.key().clone(), revision);
    }

    /// The revision of another owner's affinity (0: there is none), if it was read.
    pub(crate) fn foreign(&self, key: &Bytes) -> Option<Revision> {
        self.foreign.get(key).copied()
    }

    fn observe_affinity(&mut self, cidr: IpNet, seen: &Observed, now: Now) -> Result<(), String> {
        let known = self.affinities.get(&cidr);
        if known.is_some_and(|a| a.revision > seen.revision()) {
            return Ok(());
        }
        match seen {
            Observed::Absent { .. } => {
                self.affinities.remove(&cidr);
            }
            Observed::Put { value, revision, .. } => {
                let value = BlockAffinity::decode(value).map_err(|e| e.to_string())?;
                let since_ms = known
                    .filter(|k| k.value.state == value.state)
                    .map_or(now.mono_ms, |k| k.since_ms);
                self.affinities.insert(
                    cidr,
                    KnownAffinity {
                        revision: *revision,
                        value,
                        since_ms,
                    },
                );
            }
        }
        Ok(())
    }

    fn observe_handle(&mut self, id: &str, seen: &Observed) -> Result<(), String> {
        if self.handles.get(id).is_some_and(|h| h.revision > seen.revision()) {
            return Ok(());
        }
        let known = match seen {
            Observed::Absent { at, .. } => KnownHandle {
                revision: *at,
                created: 0,
                handle: None,
            },
            Observed::Put {
                value,
                revision,
                created,
                ..
            } => match Handle::decode(value) {
                Ok(handle) => KnownHandle {
                    revision: *revision,
                    created: *created,
                    handle: Some(handle),
                },
                Err(e) => {
                    self.handles.remove(id);
                    return Err(e.to_string());
                }
            },
        };
        if self.handles.len() >= HANDLES_MAX {
            self.handles.pop_first();
        }
        self.handles.insert(id.to_owned(), known);
        Ok(())
    }

    /// When the handle under `key` was made, if it is known to be there.
    pub(crate) fn created(&self, key: &[u8]) -> Option<Revision> {
        let Some(Key::Handle(id)) = keys::parse(key) else {
            return None;
        };
        self.handles
            .get(&id)
            .filter(|known| known.handle.is_some())
            .map(|known| known.created)
    }

    /// Our affinity of `cidr` as it must be: confirmed, with whatever else stands in it.
    pub(crate) fn confirmed(&self, cidr: &IpNet) -> BlockAffinity {
        let known = self.affinities.get(cidr).map(|known| known.value.clone());
        BlockAffinity {
            state: AffinityState::Confirmed,
            ..known.unwrap_or_else(|| BlockAffinity::new(AffinityState::Confirmed))
        }
    }

    /// Forgets handles known to be absent: they were only worth knowing while a request waited.
    pub fn trim(&mut self) {
        self.handles.retain(|_, known| known.handle.is_some());
        self.foreign.clear();
    }

    /// Whether automatic assignment must pass over `address`: it is reserved, or was given back too recently.
    pub(crate) fn is_withheld(&self, address: IpAddr, now: Now) -> bool {
        self.cooling
            .get(&address)
            .is_some_and(|until| *until > now.mono_ms)
            || self
                .reservations
                .values()
                .any(|r| r.value.iter().any(|net| net.contains(&address)))
    }

    /// The labels of a namespace; none if it has no profile.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace).map(|known| &known.value)
    }

    /// The reservation that holds all of `cidr`, if one does.
    pub(crate) fn reservation_of(&self, cidr: &IpNet) -> Option<IpNet> {
        let mut all = self.reservations.values().flat_map(|r| &r.value);
        all.find(|net| net.contains(cidr)).copied()
    }

    /// What becomes of addresses that are given back.
    pub(crate) fn cooling(&self) -> Cooling {
        Cooling {
            secs: self.config.value.ip_cooldown_seconds,
            is_stored: self.cluster.as_ref().is_some_and(|c| c.value.stores_released_at),
        }
    }

    /// Keeps `addresses` from automatic assignment for the configured cool-down. In memory only: `releasedAt` may be
    /// written only where every Calico component is 3.33 or later (it would leak addresses for older ones).
    pub(crate) fn cool(&mut self, addresses: &[IpAddr], now: Now) {
        self.cooling.retain(|_, until| *until > now.mono_ms);
        let Ok(secs @ 1..) = u64::try_from(self.config.value.ip_cooldown_seconds) else {
            return;
        };
        let until = now.mono_ms.saturating_add(secs.saturating_mul(1000));
        self.cooling.extend(addresses.iter().map(|a| (*a, until)));
    }

    /// The pool, enabled or not, that holds `cidr`.
    pub(crate) fn pool_of(&self, cidr: &IpNet) -> Option<&Versioned<Pool>> {
        self.pools.values().find(|p| p.value.cidr.contains(cidr))
    }

    /// The known block, of whatever size, that holds `address`.
    pub(crate) fn block_holding(&self, address: IpAddr) -> Option<IpNet> {
        let widest = address_bits(address).saturating_sub(12);
        (widest..=address_bits(address))
            .rev()
            .filter_map(|len| IpNet::new(address, len).ok())
            .map(|net| net.trunc())
            .find(|net| self.blocks.contains_key(net))
    }

    /// Whether any known block shares an address with `cidr`.
    pub(crate) fn is_taken(&self, cidr: &IpNet) -> bool {
        if self.blocks.contains_key(cidr) || self.block_holding(cidr.network()).is_some() {
            return true;
        }
        let inside = self.blocks.range(keys::first_in(cidr)..).map(|(net, _)| net);
        inside
            .take_while(|net| net.network() <= cidr.broadcast())
            .any(|net| cidr.contains(net))
    }

    /// Blocks and claims of `family` that count against the cap.
    pub(crate) fn owned(&self, family: Family) -> impl Iterator<Item = IpNet> {
        let claims = self
            .affinities
            .keys()
            .filter(|cidr| !self.blocks.contains_key(*cidr))
            .copied();
        self.own_cidrs()
            .chain(claims)
            .filter(move |cidr| Family::of(cidr.addr()) == family)
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

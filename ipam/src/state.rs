//! What an allocator knows: its own blocks whole, everyone else's in a line, and the resources that decide.
//!
//! There is one way in, [`State::observe`], for the syncer's events, for what a refused transaction read, and for
//! the allocator's own commits. Observations may come twice and in any order: the newer revision of a key wins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_datastore::{Bytes, KeyValue, Revision, WatchEvent};
use twill_model::ipam::{AffinityState, Block, BlockAffinity, Handle, IpamConfig};
use twill_model::kind::Kind;
use twill_model::{AffinityOwner, Key, ResourceKey};

use crate::block;
use crate::keys;
use crate::now::Now;
use crate::pool::{Family, Pool};
use crate::request::Chore;
use crate::resources;

/// How long an affinity without a block, or an unconfirmed affinity of an empty block, is left to whoever may be
/// at work on it. Calico's own steps are milliseconds apart.
pub const UNFINISHED_GRACE_MS: u64 = 10_000;

/// Handles remembered, more than the cap of blocks holds. One that was forgotten costs a read.
const HANDLES_MAX: usize = 8192;
/// Blocks of others kept whole after something was borrowed from or looked for in them.
const GUESTS_MAX: usize = 64;

/// A key as it is, or is not, at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It was written.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The revision that wrote it.
        revision: Revision,
        /// The revision that made it.
        created: Revision,
    },
    /// It is not there.
    Absent {
        /// The key.
        key: Bytes,
        /// The revision that deleted it, or at which it was found missing.
        at: Revision,
    },
}

impl Observed {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Absent { key, .. } => key,
        }
    }

    /// The revision at which it was so.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { revision, .. } => *revision,
            Self::Absent { at, .. } => *at,
        }
    }

    /// What a read of `key` at revision `at` found.
    #[must_use]
    pub fn read(key: Bytes, found: Option<&KeyValue>, at: Revision) -> Self {
        found.cloned().map_or(Self::Absent { key, at }, Self::from)
    }
}

impl From<KeyValue> for Observed {
    fn from(kv: KeyValue) -> Self {
        Self::Put {
            key: kv.key,
            value: kv.value,
            revision: kv.mod_revision,
            created: kv.create_revision,
        }
    }
}

impl From<WatchEvent> for Observed {
    fn from(event: WatchEvent) -> Self {
        match event {
            WatchEvent::Put(kv) => kv.into(),
            WatchEvent::Delete { key, mod_revision } => Self::Absent {
                key,
                at: mod_revision,
            },
        }
    }
}

/// Whose a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Mine,
    Other(String),
    None,
    /// The value cannot be used, nor the CIDR be claimed.
    Unreadable(String),
}

#[derive(Clone, Debug)]
pub(crate) struct KnownBlock {
    pub(crate) revision: Revision,
    pub(crate) owner: Owner,
    pub(crate) free: usize,
    /// Kept whole if it is ours or a guest.
    pub(crate) whole: Option<Arc<Block>>,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownAffinity {
    pub(crate) revision: Revision,
    pub(crate) value: BlockAffinity,
    /// Since when it has been in this state, by [`Now::mono_ms`].
    pub(crate) since_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownHandle {
    pub(crate) revision: Revision,
    pub(crate) created: Revision,
    /// `None`: known to be absent.
    pub(crate) handle: Option<Handle>,
}

/// Something with the revision that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) revision: Revision,
    pub(crate) value: T,
}

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
    pub(crate) cluster: Option<Versioned<bool>>,
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
        Self {
            node: node.to_owned(),
            owner: AffinityOwner::Host(node.to_owned()),
            fence_key: keys::fence(node),
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
            handles: BTreeMap::new(),
            fence: 0,
            unreadable: BTreeMap::new(),
            cooling: BTreeMap::new(),
        }
    }

    /// This node's name.
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
            Key::BlockAffinity(_) | Key::Other(_) => return,
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
            Kind::Node if *name == self.node => {
                versioned(seen, resources::node_labels).map(|new| set(&mut self.node_labels, new))
            }
            Kind::ClusterInformation if name == "default" => {
                versioned(seen, resources::datastore_ready).map(|new| set(&mut self.cluster, new))
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
        let block = match Block::decode(cidr, value) {
            Ok(block) => block,
            Err(e) => {
                let owner = Owner::Unreadable(e.to_string());
                self.blocks.insert(
                    cidr,
                    KnownBlock {
                        revision: *revision,
                        owner,
                        free: 0,
                        whole: None,
                    },
                );
                return Err(e.to_string());
            }
        };
        let owner = match &block.affinity {
            Some(a) if *a == self.owner.to_string() => Owner::Mine,
            _ if block.host() == Some(self.node.as_str()) => Owner::Mine,
            Some(a) => Owner::Other(a.clone()),
            None => Owner::None,
        };
        let free = block.unallocated.len();
        let mut whole = None;
        if owner == Owner::Mine {
            self.own.insert(Key::block(cidr).path(), cidr);
            whole = Some(Arc::new(block));
        } else if wanted {
            self.wanted_guests.retain(|w| *w != cidr);
            self.guests.push(cidr);
            whole = Some(Arc::new(block));
        }
        self.blocks.insert(
            cidr,
            KnownBlock {
                revision: *revision,
                owner,
                free,
                whole,
            },
        );
        if self.guests.len() > GUESTS_MAX {
            let oldest = self.guests.remove(0);
            if let Some(known) = self.blocks.get_mut(&oldest) {
                known.whole = None;
            }
        }
        Ok(())
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

    /// What should be tidied up now.
    #[must_use]
    pub fn chores(&self, now: Now) -> Vec<Chore> {
        let stale = |since: u64| now.mono_ms.saturating_sub(since) >= UNFINISHED_GRACE_MS;
        let mut chores = Vec::new();
        for block in self.own_blocks() {
            let affinity = self.affinities.get(&block.cidr);
            // An empty block may be on its way out of the cluster: do not fight for it at once.
            let hurry = !block::is_empty(block);
            match affinity {
                Some(a) if a.value.state.is_confirmed() && (hurry || !self.is_deselected(&block.cidr)) => {}
                Some(a) if a.value.state.is_confirmed() => chores.push(Chore::GiveUp(block.cidr)),
                Some(a) if hurry || stale(a.since_ms) => chores.push(Chore::Confirm(block.cidr)),
                None if hurry => chores.push(Chore::Confirm(block.cidr)),
                _ => {}
            }
        }
        for (cidr, affinity) in &self.affinities {
            let ours = self
                .blocks
                .get(cidr)
                .is_some_and(|b| matches!(b.owner, Owner::Mine | Owner::Unreadable(_)));
            if !ours && stale(affinity.since_ms) {
                chores.push(Chore::DropAffinity(*cidr));
            }
        }
        chores
    }

    /// Whether the block's pool is there, enabled, and selects other nodes than this one.
    pub(crate) fn is_deselected(&self, cidr: &IpNet) -> bool {
        let (Some(pool), Some(labels)) = (self.pool_of(cidr), &self.node_labels) else {
            return false;
        };
        let selector = pool.value.node_selector.trim();
        !pool.value.disabled
            && !selector.is_empty()
            && resources::selects(selector, &labels.value).is_ok_and(|selects| !selects)
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Decodes what was seen; absent gives `None`.
fn versioned<T, E: ToString>(
    seen: &Observed,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<(Revision, Option<T>), String> {
    match seen {
        Observed::Absent { at, .. } => Ok((*at, None)),
        Observed::Put { value, revision, .. } => decode(value)
            .map(|value| (*revision, Some(value)))
            .map_err(|e| e.to_string()),
    }
}

type New<T> = (Revision, Option<T>);

fn replace<T>(slot: &mut Versioned<T>, (revision, value): New<T>, default: impl FnOnce() -> T) {
    if revision >= slot.revision {
        *slot = Versioned {
            revision: if value.is_some() { revision } else { 0 },
            value: value.unwrap_or_else(default),
        };
    }
}

fn set<T>(slot: &mut Option<Versioned<T>>, (revision, value): New<T>) {
    if slot.as_ref().is_none_or(|known| revision >= known.revision) {
        *slot = value.map(|value| Versioned { revision, value });
    }
}

fn insert<T>(map: &mut BTreeMap<String, Versioned<T>>, name: &str, (revision, value): New<T>) {
    if map.get(name).is_some_and(|known| known.revision > revision) {
        return;
    }
    match value {
        Some(value) => map.insert(name.to_owned(), Versioned { revision, value }),
        None => map.remove(name),
    };
}

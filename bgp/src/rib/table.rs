//! The prefixes of one family with their paths: the Adj-RIBs-In of all peers and the Loc-RIB in one table. The first path of
//! a destination is its best one, if that one is eligible.

use super::attr_table::{AttrId, AttrTable};
use super::decision::{self, Sources};
use crate::prefix::Prefix;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// A prefix of a table by number. Numbers of departed prefixes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestId(u32);

impl DestId {
    /// As an index of vectors kept beside the table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The id at this place of the walk.
    #[must_use]
    pub const fn at(index: u32) -> Self {
        Self(index)
    }
}

/// A peer by number; 0 is ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u16);

impl PeerId {
    /// Ourselves: the source of what we originate.
    pub const LOCAL: Self = Self(0);

    /// As an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Import policy turned the path down.
pub const FILTERED: u8 = 1;
/// Our AS, our router id or our cluster stands in it.
pub const LOOPED: u8 = 2;
/// Its next hop cannot be reached (RFC 4271 section 9.1.2.1).
pub const UNREACHABLE: u8 = 4;

/// One path to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its attributes, after import policy.
    pub attr: AttrId,
    /// Path identifier, 0 without add-path.
    pub path_id: u32,
    /// Whose it is.
    pub peer: PeerId,
    /// The peer's session generation in which it came; an older one makes it stale.
    pub generation: u8,
    /// [`FILTERED`], [`LOOPED`], [`UNREACHABLE`]: any of them keeps it out of the decision.
    pub flags: u8,
}

impl Path {
    /// Whether it takes part in the decision.
    #[must_use]
    pub const fn eligible(&self) -> bool {
        self.flags == 0
    }
}

#[derive(Debug)]
enum Paths {
    None,
    One(Path),
    Many(Vec<Path>),
}

#[derive(Debug)]
struct Dest<P> {
    prefix: P,
    paths: Paths,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The destination.
    pub dest: DestId,
    /// The best path is another one, or has other attributes.
    pub best: bool,
    /// The path that the change replaced or removed.
    pub before: Option<Path>,
}

/// A prefix that has just got its number. Prefixes stand here by what they hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The number.
    pub dest: DestId,
    /// Whose it is now.
    pub now: u64,
    /// Whose it was, if it was another's.
    pub before: Option<u64>,
}

/// The prefixes of one family.
#[derive(Debug)]
pub struct Table<P> {
    dests: Vec<Dest<P>>,
    free: Vec<u32>,
    numbered: Option<Numbered>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self {
            dests: Vec::new(),
            free: Vec::new(),
            numbered: None,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<P: Prefix> Table<P> {
    /// The destination of a prefix, if there is one.
    #[must_use]
    pub fn find(&self, prefix: P) -> Option<DestId> {
        let same = |id: &u32| self.dests.get(*id as usize).is_some_and(|d| d.prefix == prefix);
        self.index
            .find(self.hasher.hash_one(prefix), same)
            .copied()
            .map(DestId)
    }

    fn find_or_insert(&mut self, prefix: P) -> DestId {
        let hash = self.hasher.hash_one(prefix);
        let dests = &self.dests;
        let same = |id: &u32| dests.get(*id as usize).is_some_and(|d| d.prefix == prefix);
        if let Some(&id) = self.index.find(hash, same) {
            return DestId(id);
        }
        let dest = Dest {
            prefix,
            paths: Paths::None,
        };
        let mut before = None;
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.dests.get_mut(id as usize) {
                    let was = std::mem::replace(place, dest).prefix;
                    before = (was != prefix).then(|| self.hasher.hash_one(was));
                }
                id
            }
            None => {
                self.dests.push(dest);
                u32::try_from(self.dests.len() - 1)
                    .expect("there are fewer prefixes in memory than u32 counts")
            }
        };
        self.numbered = Some(Numbered {
            dest: DestId(id),
            now: hash,
            before,
        });
        let (dests, hasher) = (&self.dests, &self.hasher);
        self.index.insert_unique(hash, id, |id| {
            dests.get(*id as usize).map_or(0, |d| hasher.hash_one(d.prefix))
        });
        DestId(id)
    }

    /// The prefix that has got its number last, if it was since the last call.
    pub(crate) fn take_numbered(&mut self) -> Option<Numbered> {
        self.numbered.take()
    }

    /// Numbers in use lie below this.
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::try_from(self.dests.len()).unwrap_or(u32::MAX)
    }

    /// Prefixes in the table, with or without paths.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The prefix of a destination.
    #[must_use]
    pub fn prefix(&self, id: DestId) -> Option<P> {
        self.dests.get(id.index()).map(|d| d.prefix)
    }

    /// All paths of a destination, the best first.
    #[must_use]
    pub fn paths(&self, id: DestId) -> &[Path] {
        match self.dests.get(id.index()).map(|d| &d.paths) {
            Some(Paths::One(path)) => std::slice::from_ref(path),
            Some(Paths::Many(paths)) => paths,
            Some(Paths::None) | None => &[],
        }
    }

    /// The best path.
    #[must_use]
    pub fn best(&self, id: DestId) -> Option<Path> {
        self.paths(id).first().copied().filter(Path::eligible)
    }

    /// Puts a path in; it replaces the one of the same peer and path identifier. The caller has taken the reference that
    /// the path holds on its attributes; the reference of the path replaced goes back to the caller in `before`.
    pub fn insert(&mut self, prefix: P, path: Path, attrs: &AttrTable, sources: &Sources) -> Change {
        let dest = self.find_or_insert(prefix);
        let old = self.best(dest);
        let before = self
            .dests
            .get_mut(dest.index())
            .and_then(|d| d.paths.insert(path));
        Change {
            dest,
            best: self.select(dest, old, attrs, sources),
            before,
        }
    }

    /// Takes the path of this peer and identifier out; `None` if there is none.
    pub fn remove(
        &mut self,
        dest: DestId,
        peer: PeerId,
        path_id: u32,
        attrs: &AttrTable,
        sources: &Sources,
    ) -> Option<Change> {
        let old = self.best(dest);
        let before = self.dests.get_mut(dest.index())?.paths.remove(peer, path_id)?;
        Some(Change {
            dest,
            best: self.select(dest, old, attrs, sources),
            before: Some(before),
        })
    }

    /// Brings the best path to the front; whether it is another one than `old`.
    fn select(&mut self, dest: DestId, old: Option<Path>, attrs: &AttrTable, sources: &Sources) -> bool {
        if let Some(Paths::Many(paths)) = self.dests.get_mut(dest.index()).map(|d| &mut d.paths)
            && let Some(best) = decision::best(paths, attrs, sources)
        {
            paths.swap(0, best);
        }
        let new = self.best(dest);
        let said = |p: Option<Path>| p.map(|p| (p.attr, p.peer, p.path_id));
        said(old) != said(new)
    }

    /// Decides anew about a destination whose paths did not change but their peers' ranks; whether the best is another.
    pub fn reselect(&mut self, dest: DestId, attrs: &AttrTable, sources: &Sources) -> bool {
        let old = self.best(dest);
        self.select(dest, old, attrs, sources)
    }

    /// Frees a destination that has no path; its number may then come to stand for another prefix.
    pub fn free(&mut self, id: DestId) {
        let Some(dest) = self.dests.get(id.index()) else {
            return;
        };
        if !matches!(dest.paths, Paths::None) {
            return;
        }
        let hash = self.hasher.hash_one(dest.prefix);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id.0) {
            entry.remove();
            self.free.push(id.0);
        }
    }

    /// Destinations in use, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (DestId, P)> + '_ {
        let ids = (0..self.end()).map(DestId);
        ids.zip(&self.dests)
            .filter(|(_, d)| !matches!(d.paths, Paths::None))
            .map(|(id, d)| (id, d.prefix))
    }
}

impl Paths {
    fn insert(&mut self, path: Path) -> Option<Path> {
        let same = |p: &Path| p.peer == path.peer && p.path_id == path.path_id;
        match self {
            Self::None => *self = Self::One(path),
            Self::One(one) if same(one) => return Some(std::mem::replace(one, path)),
            Self::One(one) => *self = Self::Many(vec![*one, path]),
            Self::Many(many) => match many.iter_mut().find(|p| same(p)) {
                Some(place) => return Some(std::mem::replace(place, path)),
                None => many.push(path),
            },
        }
        None
    }

    fn remove(&mut self, peer: PeerId, path_id: u32) -> Option<Path> {
        let same = |p: &Path| p.peer == peer && p.path_id == path_id;
        match self {
            Self::None => None,
            Self::One(one) => {
                let path = Some(*one).filter(same)?;
                *self = Self::None;
                Some(path)
            }
            Self::Many(many) => {
                let path = many.swap_remove(many.iter().position(same)?);
                if let [last] = many[..] {
                    *self = Self::One(last);
                }
                Some(path)
            }
        }
    }
}

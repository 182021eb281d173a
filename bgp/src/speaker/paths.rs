//! Several paths for a destination (RFC 7911): what a group with add-path was sent and should be sent, and the identifiers.
//!
//! An identifier stands for the peer that a path came from and the identifier that it came with, so that it is the same
//! whoever is told of the path, in whatever order paths come and go: equal groups can become one.

use super::core::Shared;
use super::group::{Group, SentPath};
use super::plane::Chunk;
use crate::prefix::Prefix;
use crate::rib::{DestId, Path, PeerId, Table, decision};
use crate::wire::Nlri;
use crate::wire::attr::hash_octets;
use crate::wire::nlri::PathIds;
use hashbrown::HashMap;

/// Numbers for the identifiers that a peer sends: sixteen bits, 0 for a path without one.
#[derive(Debug, Default)]
pub(super) struct PathNumbers(HashMap<u32, u16>);

impl PathNumbers {
    /// Gives an identifier a number, where there is one left; a path without is not passed on with others.
    pub(super) fn learn(&mut self, path_id: u32) {
        if path_id != 0
            && !self.0.contains_key(&path_id)
            && let Ok(number @ 1..) = u16::try_from(self.0.len() + 1)
        {
            self.0.insert(path_id, number);
        }
    }

    fn number(&self, path_id: u32) -> Option<u16> {
        if path_id == 0 {
            Some(0)
        } else {
            self.0.get(&path_id).copied()
        }
    }
}

impl Shared {
    /// The identifier that a path is sent with; never 0.
    pub(super) fn path_id_out(&self, path: &Path) -> Option<u32> {
        let number = match self.peer(path.peer) {
            Some(slot) => slot.path_numbers.number(path.path_id)?,
            None if path.path_id == 0 => 0,
            None => return None,
        };
        Some((u32::from(path.peer.0) + 1) << 16 | u32::from(number))
    }

    /// Stands for all that decides what is said of a path under one export key.
    fn said(&self, path: &Path) -> u64 {
        let source = self.sources.at(path.peer);
        let mut octets = [0; 13];
        let [hash @ .., a, b, c, d, client] = &mut octets;
        *hash = self.attrs.at(path.attr).hash().to_be_bytes();
        [*a, *b, *c, *d] = source.router_id.octets();
        *client = u8::from(source.client);
        hash_octets(&octets) | 1
    }
}

impl Group {
    pub(super) const fn path_ids(&self) -> PathIds {
        if self.paths_max > 0 {
            PathIds::Present
        } else {
            PathIds::Absent
        }
    }
}

impl<P: Prefix> Chunk<P> {
    /// As [`Chunk::look`], for a group that is sent several paths: the best ones, as many as it may have.
    pub(super) fn look_at_paths(
        &mut self,
        group: &mut Group,
        table: &Table<P>,
        shared: &Shared,
        id: DestId,
    ) -> bool {
        let Some(prefix) = table.prefix(id) else {
            return false;
        };
        let paths = table.paths(id);
        let wanted = self.several(group, shared, prefix, paths);
        let before = group.set_paths(id, wanted.iter().map(|(sent, _)| *sent).collect());
        let still = |b: &SentPath| wanted.iter().any(|(w, _)| (w.id, w.only) == (b.id, b.only));
        for gone in before.iter().filter(|b| !still(b)) {
            let path_id = gone.id;
            let nlri = Nlri { prefix, path_id };
            match gone.only {
                // Who is to keep it alone is sent it again, behind this.
                None => {
                    let source = Some(gone.source).filter(|s| group.has(*s));
                    self.withdrawn.push((source, nlri));
                }
                Some(member) => {
                    let replaced = wanted.iter().any(|(w, _)| w.id == path_id && w.only.is_none());
                    if group.has(member) && !replaced {
                        self.withdrawn_only.push((member, nlri));
                    }
                }
            }
        }
        for (sent, bucket) in wanted.iter().filter(|(w, _)| !before.contains(w)) {
            let path_id = sent.id;
            let nlri = Nlri { prefix, path_id };
            let owner = self.buckets.get(*bucket as usize).and_then(|b| b.owner);
            let nobody = |only: PeerId| only == sent.source || Some(only) == owner;
            let heard = match (sent.only, &group.members[..]) {
                (Some(member), _) => group.has(member) && !nobody(member),
                (None, [only]) => !nobody(only.peer),
                (None, _) => true,
            };
            if heard {
                self.push(*bucket, nlri);
            }
            // It may have been sent this path with another next hop.
            let meant = |o: &PeerId| sent.only.is_none_or(|member| member == *o);
            let told = before.iter().any(|b| b.id == path_id);
            if let Some(owner) = owner.filter(|o| told && meant(o)) {
                self.withdrawn_only.push((owner, nlri));
            }
        }
        paths.is_empty()
    }

    /// The paths for a group, the best first: as many as it may have, and for each peer that sent some of these as many more
    /// for it alone. Whether that peer is in the group does not count: groups that become one have been sent the same.
    fn several(&mut self, group: &Group, shared: &Shared, prefix: P, paths: &[Path]) -> Vec<(SentPath, u32)> {
        let mut wanted: Vec<(SentPath, u32)> = Vec::new();
        let mut missing: Vec<(PeerId, usize)> = Vec::new();
        let (mut common, max) = (0, usize::from(group.paths_max));
        for path in decision::ranked(paths, &shared.attrs, &shared.sources) {
            if common >= max && missing.is_empty() {
                break;
            }
            let Some(path_id) = shared.path_id_out(&path) else {
                continue;
            };
            let sent = SentPath {
                id: path_id,
                source: path.peer,
                said: shared.said(&path),
                only: None,
            };
            if common < max {
                let Some(bucket) = self.bucket(group, shared, prefix, &path, None) else {
                    continue;
                };
                wanted.push((sent, bucket));
                common += 1;
                match missing.iter_mut().find(|(peer, _)| *peer == path.peer) {
                    Some((_, count)) => *count += 1,
                    None if path.peer == PeerId::LOCAL => {}
                    None => missing.push((path.peer, 1)),
                }
                continue;
            }
            for (peer, count) in missing.iter_mut().filter(|(peer, _)| *peer != path.peer) {
                let only = Some(*peer);
                if let Some(bucket) = self.bucket(group, shared, prefix, &path, only) {
                    wanted.push((SentPath { only, ..sent }, bucket));
                    *count -= 1;
                }
            }
            missing.retain(|(_, count)| *count > 0);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_run_out() {
        let mut numbers = PathNumbers::default();
        for path_id in [0, 7, 7, 9] {
            numbers.learn(path_id);
        }
        assert_eq!(
            [0, 7, 9, 1].map(|i| numbers.number(i)),
            [Some(0), Some(1), Some(2), None]
        );
        (0..70_000).for_each(|i| numbers.learn(i));
        assert_eq!(
            (numbers.0.len(), numbers.number(7)),
            (usize::from(u16::MAX), Some(1))
        );
        assert_eq!(numbers.number(69_999), None);
    }
}

//! What is remembered between requests; all of it may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use twill_model::resources::IpPool;

use super::mtu::Uplink;

/// Notes about configurations that are remembered, so that each is logged once.
const NOTED_MAX: usize = 256;
/// How long STATUS repeats that there was no address: pods that end meanwhile may free one without our hearing of it.
const EXHAUSTED_REMEMBERED: Duration = Duration::from_secs(30);

/// The pools by name; a changed one is another `Arc`.
type Pools = BTreeMap<String, Arc<IpPool>>;

/// An ADD that found no address.
#[derive(Clone, Debug)]
struct Exhausted {
    at: Instant,
    why: String,
    pools: Pools,
}

/// Shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(super) uplink: Uplink,
    noted: Mutex<BTreeSet<String>>,
    exhausted: Mutex<Option<Exhausted>>,
    /// Handles of ADDs under way, which a garbage collection must not touch.
    adding: Mutex<BTreeSet<String>>,
}

impl Memory {
    /// Logs keys of a configuration that are not honoured, each once in the daemon's life.
    pub(super) fn note(&self, network: &str, ignored: &[String]) {
        for note in ignored {
            let mut noted = lock(&self.noted);
            if noted.len() < NOTED_MAX && noted.insert(format!("{network} {note}")) {
                tracing::info!(network, note, "key of the network configuration is not used");
            }
        }
    }

    /// An ADD found no address.
    pub(super) fn exhausted(&self, why: &str, pools: Pools) {
        *lock(&self.exhausted) = Some(Exhausted {
            at: Instant::now(),
            why: why.to_owned(),
            pools,
        });
    }

    /// An address was given or freed.
    pub(super) fn has_room(&self) {
        *lock(&self.exhausted) = None;
    }

    /// Why the last ADD found no address, if that is recent and the pools still are those of then.
    pub(super) fn is_exhausted(&self, pools: &Pools) -> Option<String> {
        let last = lock(&self.exhausted).clone()?;
        let same = |((a, one), (b, other)): ((&String, &Arc<IpPool>), _)| a == b && Arc::ptr_eq(one, other);
        let unchanged = last.pools.len() == pools.len() && last.pools.iter().zip(pools).all(same);
        (unchanged && last.at.elapsed() < EXHAUSTED_REMEMBERED).then_some(last.why)
    }

    /// Keeps a handle from garbage collection until the guard goes.
    pub(super) fn adding(&self, handle: &str) -> Adding<'_> {
        lock(&self.adding).insert(handle.to_owned());
        Adding {
            memory: self,
            handle: handle.to_owned(),
        }
    }

    pub(super) fn is_adding(&self, handle: &str) -> bool {
        lock(&self.adding).contains(handle)
    }
}

/// An ADD under way.
#[derive(Debug)]
pub(super) struct Adding<'a> {
    memory: &'a Memory,
    handle: String,
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        lock(&self.memory.adding).remove(&self.handle);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can be half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_guarded_exactly_while_its_add_is_under_way() {
        let memory = Memory::default();
        let guard = memory.adding("net.c1");
        assert!(memory.is_adding("net.c1") && !memory.is_adding("net.c2"));
        drop(guard);
        assert!(!memory.is_adding("net.c1"));
    }

    #[test]
    fn want_of_addresses_is_remembered_until_there_is_room_or_another_pool() {
        let memory = Memory::default();
        let text = br#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/24"}}"#;
        let pools = || Pools::from([("p".to_owned(), Arc::new(IpPool::decode(text).unwrap()))]);
        let then = pools();
        assert_eq!(memory.is_exhausted(&then), None);
        memory.exhausted("full", then.clone());
        assert_eq!(memory.is_exhausted(&then).as_deref(), Some("full"));
        assert_eq!(memory.is_exhausted(&pools()), None, "a pool was changed");
        assert_eq!(memory.is_exhausted(&Pools::new()), None);
        memory.has_room();
        assert_eq!(memory.is_exhausted(&then), None);
    }

    #[test]
    fn notes_are_kept_within_their_bound() {
        let memory = Memory::default();
        let many: Vec<String> = (0..2 * NOTED_MAX).map(|n| n.to_string()).collect();
        memory.note("n", &many);
        assert_eq!(lock(&memory.noted).len(), NOTED_MAX);
    }
}

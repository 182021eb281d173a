//! Connections that hosts have opened and that carry no session yet, counted by the address that they come from. A peer's task
//! keeps few of them, but several peers may be at one address of a link, and what waits for a task is nobody's yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one host has.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    connections: u32,
    /// Somebody was told that it has too many.
    told: bool,
}

/// The hosts that have such connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Arc<Mutex<BTreeMap<IpAddr, Pending>>>);

/// One connection's place among its host's; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    hosts: Hosts,
    host: IpAddr,
}

/// A host has as many as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// It is the first that is turned away since the host had none.
    pub(super) first: bool,
}

impl Hosts {
    /// A place for one more connection, of at most `max`.
    pub(super) fn take(&self, host: IpAddr, max: u32) -> Result<Place, Full> {
        let mut hosts = self.lock();
        let pending = hosts.entry(host).or_default();
        if pending.connections >= max {
            let first = !std::mem::replace(&mut pending.told, true);
            if pending.connections == 0 {
                hosts.remove(&host);
            }
            return Err(Full { first });
        }
        pending.connections += 1;
        drop(hosts);
        Ok(Place {
            hosts: self.clone(),
            host,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Pending>> {
        // A count is changed in one step: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock();
        if let Some(pending) = hosts.get_mut(&self.host) {
            pending.connections -= 1;
            if pending.connections == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_so_many_places_and_others_have_theirs() {
        let hosts = Hosts::default();
        let [a, b] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let held: Vec<Place> = (0..3).map(|_| hosts.take(a, 3).unwrap()).collect();
        assert_eq!(hosts.take(a, 3).unwrap_err(), Full { first: true });
        assert_eq!(hosts.take(a, 3).unwrap_err(), Full { first: false }, "told once");
        let other = hosts.take(b, 3).unwrap();
        drop(held);
        assert_eq!(hosts.lock().len(), 1, "nothing is kept of who has none");
        let again: Vec<Place> = (0..3).map(|_| hosts.take(a, 3).unwrap()).collect();
        assert_eq!(hosts.take(a, 3).unwrap_err(), Full { first: true });
        drop((other, again));
        assert!(hosts.lock().is_empty());
    }
}

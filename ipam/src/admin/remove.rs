//! Removing a node: everything that it and its pods hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use twill_datastore::{Store, StoreError};

use crate::allocator::Clock;
use crate::collect::{Guards, Leak, Mode, Pass, Why, pass, scan};

/// Frees all that `node` holds: its pods' and tunnels' addresses with their endpoints, its blocks (those in which pods of other
/// nodes borrow stay, without owner) and its affinities. The node's own resource is the caller's to delete, before this; a
/// daemon that still runs there would otherwise claim blocks anew.
///
/// # Errors
/// If the store fails; what was freed until then is freed, and calling again frees the rest.
pub async fn remove_node<S: Store>(
    store: &S,
    node: &str,
    mode: Mode,
    clock: &Arc<Clock>,
) -> Result<Pass, StoreError> {
    let removed = BTreeSet::from([node.to_owned()]);
    let found = scan(store, clock(), removed.clone()).await?;
    let is_its = |leak: &&Leak| match leak {
        Leak::Address {
            why: Why::NodeGone,
            node: Some(of),
            ..
        } => of == node,
        Leak::Ownership { owner, .. } => owner.host() == Some(node),
        _ => false,
    };
    let leaks: Vec<Leak> = found.leaks.iter().filter(is_its).cloned().collect();
    match mode {
        Mode::DryRun => Ok(Pass::of(&found, &leaks)),
        Mode::Collect => {
            let guards = Guards {
                removed,
                ..Guards::default()
            };
            pass(store, &found, &leaks, &guards, clock).await
        }
    }
}

//! What a handle holds, as far as the cache and the reads made for a request tell.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::Revision;
use twill_model::ipam::Handle;

use super::Stop;
use super::draft::{Base, Draft};
use crate::block;
use crate::error::Error;
use crate::keys;
use crate::request::Request;
use crate::state::{Owner, State};

/// What a handle is known to hold.
pub(super) struct Held {
    pub(super) base: Base,
    pub(super) handle: Handle,
    pub(super) created: Revision,
    pub(super) revision: Revision,
    /// Block and ordinals.
    pub(super) ordinals: Vec<(IpNet, Vec<u32>)>,
}

impl Held {
    pub(super) fn addresses(&self, draft: &Draft<'_>) -> Vec<IpAddr> {
        let of = |(cidr, ordinals): &(IpNet, Vec<u32>)| {
            let block = draft.view(cidr);
            ordinals
                .iter()
                .filter_map(|o| block?.address(*o))
                .collect::<Vec<_>>()
        };
        self.ordinals.iter().flat_map(of).collect()
    }
}

/// Finds what `id` holds, in our own blocks and in those that its handle names.
pub(super) fn held(
    state: &State,
    draft: &Draft<'_>,
    request: &Request,
    id: &str,
    strict: bool,
) -> Result<Held, Stop> {
    let key = keys::handle(id);
    let in_own = |cidr: &IpNet| {
        draft
            .view(cidr)
            .is_some_and(|b| !block::ordinals_of(b, id).is_empty())
    };
    let own: Vec<IpNet> = state.own_cidrs().filter(in_own).collect();
    let mut held = Held {
        base: Base::Absent,
        handle: Handle::default(),
        created: 0,
        revision: 0,
        ordinals: Vec::new(),
    };
    let mut blocks = own;
    match state.handles.get(id) {
        // The normal case: never seen, so presumably new; the transaction compares that it is.
        None if blocks.is_empty() && !strict && request.unsettled_since.is_none() => return Ok(held),
        None if request.looked.contains(&key) => {
            let reason = state.unreadable().get(&keys::text(&key)).cloned();
            // If it can be read it was only forgotten again before it was used.
            let Some(reason) = reason else {
                return Err(Stop::Read(vec![key]));
            };
            return Err(Error::Unreadable {
                key: keys::text(&key),
                reason,
            }
            .into());
        }
        None => return Err(Stop::Read(vec![key])),
        Some(known) => {
            held.revision = known.revision;
            if let Some(handle) = &known.handle {
                held.base = Base::At(known.revision);
                held.created = known.created;
                held.handle = handle.clone();
                let more: Vec<IpNet> = handle.blocks().filter(|cidr| !blocks.contains(cidr)).collect();
                blocks.extend(more);
            }
        }
    }
    see(state, draft, request, &blocks)?;
    for cidr in blocks {
        let ordinals = draft
            .view(&cidr)
            .map(|b| block::ordinals_of(b, id))
            .unwrap_or_default();
        if !ordinals.is_empty() {
            held.ordinals.push((cidr, ordinals));
        }
    }
    Ok(held)
}

/// Makes sure that each of `blocks` is known whole or known not to be there.
fn see(state: &State, draft: &Draft<'_>, request: &Request, blocks: &[IpNet]) -> Result<(), Stop> {
    let mut unseen = Vec::new();
    for cidr in blocks
        .iter()
        .filter(|cidr| draft.view(cidr).is_none() && !draft.touches(cidr))
    {
        let key = keys::block(cidr);
        match state.blocks.get(cidr).map(|b| &b.owner) {
            // A block that is there must be seen before anyone says that the handle holds nothing in it.
            Some(Owner::Unreadable(reason)) => {
                return Err(Error::Unreadable {
                    key: keys::text(&key),
                    reason: reason.clone(),
                }
                .into());
            }
            Some(_) => unseen.push(key),
            None if !request.looked.contains(&key) => unseen.push(key),
            None => {}
        }
    }
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(Stop::Read(unseen))
    }
}

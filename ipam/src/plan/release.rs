//! Taking addresses back, by handle or one by one. What Calico left half done is repaired on the way.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Compare, Op};
use twill_model::ipam::{Block, Handle};

use super::draft::{Base, Draft, Part};
use super::held::{Held, held};
use super::{Stop, look};
use crate::block;
use crate::error::Error;
use crate::keys;
use crate::request::{Release, ReleaseTarget, Released, Reply, Request, Riders, Undo};
use crate::state::{KnownHandle, Owner, State};

pub(super) fn join(
    state: &State,
    draft: &mut Draft<'_>,
    request: &Request,
    release: &Release,
) -> Result<(), Stop> {
    match &release.target {
        ReleaseTarget::Handle(handle) => by_handle(state, draft, request, release, handle),
        ReleaseTarget::Address {
            address,
            handle,
            sequence,
        } => by_address(state, draft, request, *address, (handle.as_deref(), *sequence)),
    }
}

fn nothing() -> Reply {
    Reply::Released(Released {
        addresses: Vec::new(),
        revision: 0,
    })
}

fn by_handle(
    state: &State,
    draft: &mut Draft<'_>,
    request: &Request,
    release: &Release,
    id: &str,
) -> Result<(), Stop> {
    let held: Held = held(state, draft, request, id, true)?;
    if held.base == Base::Absent && held.ordinals.is_empty() && release.riders.is_empty() {
        return Err(Stop::Done(nothing()));
    }
    let blocks_new = held
        .ordinals
        .iter()
        .filter(|(cidr, _)| !draft.touches(cidr))
        .count();
    let part = Part {
        handle: Some((id.to_owned(), held.base, None)),
        addresses: held.addresses(draft),
        blocks_new,
        ..Part::default()
    };
    draft.admit(request, part, nothing())?;
    for (cidr, ordinals) in &held.ordinals {
        draft.release(cidr, ordinals);
    }
    Ok(())
}

/// Takes back what the handle got after `since`, if anything, together with what the riders put.
pub(super) fn undo(state: &State, draft: &mut Draft<'_>, request: &Request, undo: &Undo) -> Result<(), Stop> {
    let held: Held = held(state, draft, request, &undo.handle, true)?;
    let (Base::At(_), true) = (held.base, held.created > undo.since) else {
        return Err(Stop::Done(nothing()));
    };
    let compares = undo
        .keys
        .iter()
        .map(|key| Compare::mod_revision(key.clone(), held.created))
        .collect();
    let ops = undo.keys.iter().map(|key| Op::delete(key.clone())).collect();
    let part = Part {
        handle: Some((undo.handle.clone(), held.base, None)),
        addresses: held.addresses(draft),
        extra: Riders::fixed(compares, ops),
        blocks_new: held
            .ordinals
            .iter()
            .filter(|(cidr, _)| !draft.touches(cidr))
            .count(),
        ..Part::default()
    };
    draft.admit(request, part, nothing())?;
    for (cidr, ordinals) in &held.ordinals {
        draft.release(cidr, ordinals);
    }
    Ok(())
}

fn by_address(
    state: &State,
    draft: &mut Draft<'_>,
    request: &Request,
    address: IpAddr,
    expected: (Option<&str>, Option<u64>),
) -> Result<(), Stop> {
    let Some(cidr) = state.block_holding(address) else {
        return Err(Stop::Done(nothing()));
    };
    if let Some(Owner::Unreadable(reason)) = state.blocks.get(&cidr).map(|b| &b.owner) {
        let (key, reason) = (keys::text(&keys::block(&cidr)), reason.clone());
        return Err(Error::Unreadable { key, reason }.into());
    }
    let Some(block) = draft.view(&cidr) else {
        let key = keys::block(&cidr);
        return Err(if draft.touches(&cidr) {
            Stop::Later
        } else {
            look(request, vec![key])
        });
    };
    let ordinal = block.ordinal(address).ok_or(Error::OutsidePools { address })?;
    let Some(attribute) = block.attribute(ordinal).filter(|a| a.released_at.is_none()) else {
        return Err(Stop::Done(nothing()));
    };
    let holder = attribute.handle();
    check_expected(block, ordinal, holder, expected).map_err(|reason| Error::Stale { address, reason })?;
    let handle = match holder {
        None => None,
        Some(id) if draft.holds(id) => return Err(Stop::Later),
        Some(id) => {
            let Some(known) = state.handles.get(id) else {
                return Err(look(request, vec![keys::handle(id)]));
            };
            let left = block::ordinals_of(block, id).len().saturating_sub(1);
            Some(without(id, known, &cidr, left))
        }
    };
    let blocks_new = usize::from(!draft.touches(&cidr));
    let part = Part {
        handle,
        addresses: vec![address],
        blocks_new,
        ..Part::default()
    };
    draft.admit(request, part, nothing())?;
    draft.release(&cidr, &[ordinal]);
    Ok(())
}

/// Says what differs from the handle and the sequence number that the request names.
fn check_expected(
    block: &Block,
    ordinal: u32,
    holder: Option<&str>,
    (handle, sequence): (Option<&str>, Option<u64>),
) -> Result<(), String> {
    if handle.is_some() && handle != holder {
        return Err(format!(
            "it is held by {}",
            holder.unwrap_or("something without a handle")
        ));
    }
    let numbers = block.sequence_number_for_allocation.as_ref();
    let number = numbers.and_then(|n| n.get(&ordinal.to_string())).copied();
    if sequence.is_some() && sequence != number {
        return Err(format!(
            "it was assigned at sequence number {}",
            number.unwrap_or(0)
        ));
    }
    Ok(())
}

/// The handle once only `left` addresses of block `cidr` are its own: gone if that was all.
fn without(id: &str, known: &KnownHandle, cidr: &IpNet, left: usize) -> (String, Base, Option<Handle>) {
    let Some(now) = &known.handle else {
        return (id.to_owned(), Base::Absent, None);
    };
    let mut after = now.clone();
    after.set(cidr, i64::try_from(left).unwrap_or(i64::MAX));
    let after = (!after.block.is_empty()).then_some(after);
    (id.to_owned(), Base::At(known.revision), after)
}

//! Giving addresses: from own blocks first, then from a block claimed by the way, then borrowed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::Bytes;
use twill_model::ipam::Attribute;

use super::draft::{Draft, Part};
use super::held::{Held, held};
use super::search::{Pick, Search, Source};
use super::{Stop, specific};
use crate::block;
use crate::error::Error;
use crate::keys;
use crate::pool::{self, Choice, Family, Pool};
use crate::request::{Assign, Assigned, Reply, Request, Want};
use crate::state::State;

pub(super) fn join(
    state: &State,
    draft: &mut Draft<'_>,
    request: &Request,
    assign: &Assign,
) -> Result<(), Stop> {
    let held = held(state, draft, request, &assign.handle, false)?;
    let before = held.addresses(draft);
    let missing = unmet(&assign.wants, &before);
    if missing.is_empty() {
        // A handle is not watched: what is remembered of it may be out of date, and a retry is rare enough to look.
        let mut keys: Vec<Bytes> = held.ordinals.iter().map(|(cidr, _)| keys::block(cidr)).collect();
        keys.push(keys::handle(&assign.handle));
        keys.retain(|key| !request.looked.contains(key));
        if request.unsettled_since.is_none() && !keys.is_empty() {
            return Err(Stop::Read(keys));
        }
        // After a lost reply: the handle was made after the commit was sent, hence by it, riders and all.
        let fresh = request.unsettled_since.is_some_and(|since| held.created > since);
        let addresses = in_order(&assign.wants, before, fresh);
        return Err(Stop::Done(Reply::Assigned(Assigned {
            addresses,
            revision: held.revision,
            fresh,
        })));
    }
    let mut picks: Vec<Pick> = Vec::with_capacity(missing.len());
    for want in missing {
        let pick = match want {
            Want::Address(address) => specific::pick(state, draft, request, assign, *address)?,
            Want::Any { family, pools } => pick_any(state, draft, request, assign, (*family, pools), &picks)?,
        };
        picks.push(pick);
    }
    settle(draft, request, assign, held, before, picks)
}

/// The wants that the addresses held do not meet, each address counted once.
fn unmet<'w>(wants: &'w [Want], held: &[IpAddr]) -> Vec<&'w Want> {
    let mut left = held.to_vec();
    let mut missing = Vec::new();
    // Those that want a certain address come first: any other address may serve the rest.
    let is_exact = |want: &&Want| matches!(want, Want::Address(_));
    for want in wants
        .iter()
        .filter(is_exact)
        .chain(wants.iter().filter(|w| !is_exact(w)))
    {
        match left
            .iter()
            .position(|address| is_met(want, std::slice::from_ref(address)))
        {
            Some(at) => drop(left.remove(at)),
            None => missing.push(want),
        }
    }
    missing
}

fn is_met(want: &Want, held: &[IpAddr]) -> bool {
    match want {
        Want::Address(address) => held.contains(address),
        Want::Any { family, .. } => held.iter().any(|a| Family::of(*a) == *family),
    }
}

/// A settled retry answers as the first attempt would have: in the order of the wants.
fn in_order(wants: &[Want], mut held: Vec<IpAddr>, fresh: bool) -> Vec<IpAddr> {
    if !fresh {
        return held;
    }
    let mut ordered = Vec::with_capacity(held.len());
    for want in wants {
        if let Some(at) = held.iter().position(|a| is_met(want, std::slice::from_ref(a))) {
            ordered.push(held.remove(at));
        }
    }
    ordered.append(&mut held);
    ordered
}

/// Puts the picks into the draft.
fn settle(
    draft: &mut Draft<'_>,
    request: &Request,
    assign: &Assign,
    held: Held,
    mut addresses: Vec<IpAddr>,
    picks: Vec<Pick>,
) -> Result<(), Stop> {
    let mut handle = held.handle;
    let wrong: Vec<IpNet> = handle
        .blocks()
        .filter(|cidr| !held.ordinals.iter().any(|(known, _)| known == cidr))
        .collect();
    for cidr in wrong {
        handle.set(&cidr, 0);
    }
    for (cidr, ordinals) in &held.ordinals {
        handle.set(cidr, i64::try_from(ordinals.len()).unwrap_or(i64::MAX));
    }
    let mut blocks_new: Vec<IpNet> = Vec::new();
    for pick in &picks {
        handle.set(&pick.cidr, handle.count(&pick.cidr).saturating_add(1));
        addresses.push(pick.address);
        if !draft.touches(&pick.cidr) && !blocks_new.contains(&pick.cidr) {
            blocks_new.push(pick.cidr);
        }
    }
    let part = Part {
        handle: Some((assign.handle.clone(), held.base, Some(handle))),
        addresses: addresses.clone(),
        pools: picks.iter().map(|p| p.pool.clone()).collect(),
        blocks_new: blocks_new.len(),
        ..Part::default()
    };
    let reply = Reply::Assigned(Assigned {
        addresses,
        revision: 0,
        fresh: true,
    });
    draft.admit(request, part, reply)?;
    let attribute = Attribute {
        handle_id: Some(assign.handle.clone()),
        secondary: assign.attributes.clone(),
        ..Attribute::default()
    };
    for pick in picks {
        if !draft.touches(&pick.cidr) && pick.source.is_new() {
            let (owner, now) = (draft.state.owner().to_string(), draft.now);
            if let Some(block) = block::new(pick.cidr, &owner, now) {
                match &pick.source {
                    Source::TakeOver(from) => draft.take_over(block, from.as_ref()),
                    _ => draft.claim(block),
                }
            }
        } else if pick.source == Source::Own {
            draft.rely_on_affinity(&pick.cidr);
        }
        draft.assign(&pick.cidr, pick.ordinal, &attribute);
    }
    Ok(())
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// The labels that came with the request, else those of the namespace that its attributes name.
fn namespace_labels<'a>(state: &'a State, assign: &'a Assign) -> &'a BTreeMap<String, String> {
    if !assign.namespace_labels.is_empty() {
        return &assign.namespace_labels;
    }
    let namespace = assign.attributes.get("namespace");
    let known = namespace.and_then(|namespace| state.namespace_labels(namespace));
    known.unwrap_or(&NO_LABELS)
}

fn pick_any(
    state: &State,
    draft: &Draft<'_>,
    request: &Request,
    assign: &Assign,
    (family, requested): (Family, &[String]),
    taken: &[Pick],
) -> Result<Pick, Stop> {
    let all: Vec<&Pool> = state.pools.values().map(|p| &p.value).collect();
    let choice = Choice {
        family,
        requested,
        purpose: assign.purpose,
        node_labels: match state.owner().host() {
            Some(_) => state.node_labels.as_ref().map(|l| &l.value),
            // A virtual owner has no labels, as in Calico.
            None => Some(&NO_LABELS),
        },
        namespace_labels: namespace_labels(state, assign),
    };
    let pools = pool::select(&all, &choice)?;
    let usable = |cidr: &IpNet, ordinal: u32, address: IpAddr| {
        !state.is_withheld(address, draft.now)
            && !draft.is_freed(address)
            && !taken.iter().any(|p| p.cidr == *cidr && p.ordinal == ordinal)
    };
    let search = Search {
        state,
        draft,
        pools: &pools,
        usable: &usable,
    };
    if let Some(pick) = search.own(taken) {
        return Ok(pick);
    }
    check_cap(state, draft, &search, family, taken)?;
    if !state.config.value.auto_allocate_blocks {
        return Err(Error::AutoAllocateOff.into());
    }
    if let Some(pick) = search.claim(family) {
        return Ok(pick);
    }
    if let Some(pick) = search.take_over(request)? {
        return Ok(pick);
    }
    let strict = state.config.value.strict_affinity;
    if !strict && let Some(pick) = search.borrow(request)? {
        return Ok(pick);
    }
    let pools = pools.iter().map(|p| format!("{} ({})", p.name, p.cidr)).collect();
    Err(Error::Exhausted {
        family,
        pools,
        strict,
    }
    .into())
}

/// Whether the node may claim one more block: the cap counts blocks and begun claims of the family in the pools that
/// may serve the request.
fn check_cap(
    state: &State,
    draft: &Draft<'_>,
    search: &Search<'_, '_>,
    family: Family,
    taken: &[Pick],
) -> Result<(), Error> {
    let claimed = taken.iter().filter(|p| p.source.is_new()).map(|p| p.cidr);
    let mut owned: Vec<IpNet> = state.owned(family).chain(draft.claims()).chain(claimed).collect();
    owned.retain(|cidr| search.pools.iter().any(|p| p.cidr.contains(cidr)));
    owned.sort_unstable();
    owned.dedup();
    let limit = state.config.value.blocks_per_host();
    // An affinity without a block has its place already: only a block beyond all of these would exceed the cap.
    let is_begun = |cidr: &IpNet| search.is_claimable(cidr) && state.affinities.contains_key(cidr);
    if owned.len() >= limit && !owned.iter().any(is_begun) {
        return Err(Error::BlockLimit { limit });
    }
    Ok(())
}

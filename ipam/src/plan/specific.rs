//! The very address that a request asks for (`AssignIP` in Calico): selectors, reservations and the cap do not apply.

use std::net::IpAddr;

use ipnet::IpNet;

use super::draft::Draft;
use super::search::{Pick, Source};
use super::{Stop, look};
use crate::block;
use crate::error::Error;
use crate::keys;
use crate::pool::Pool;
use crate::request::{Assign, Request};
use crate::state::{Owner, State, Versioned};

/// Finds `address` free in a block of ours, of someone else, or in one that nobody has yet.
pub(super) fn pick(
    state: &State,
    draft: &Draft<'_>,
    request: &Request,
    assign: &Assign,
    address: IpAddr,
) -> Result<Pick, Stop> {
    let pool = pool_for(state, assign, address)?;
    let named = (pool.value.name.clone(), pool.revision);
    let drafted = || draft.claims().find(|cidr| cidr.contains(&address));
    let by_size = || pool.value.block_of(address);
    let found = state.block_holding(address).or_else(drafted).or_else(by_size);
    let cidr = found.ok_or(Error::OutsidePools { address })?;
    let source = source(state, draft, &cidr, address)?;
    if source == Source::Claim {
        let ordinal = block::new(cidr, "", draft.now).and_then(|b| b.ordinal(address));
        let ordinal = ordinal.ok_or(Error::OutsidePools { address })?;
        return Ok(Pick {
            cidr,
            ordinal,
            address,
            source,
            pool: named,
        });
    }
    let Some(block) = draft.view(&cidr) else {
        return Err(if draft.touches(&cidr) {
            Stop::Later
        } else {
            look(request, vec![keys::block(&cidr)])
        });
    };
    let ordinal = block.ordinal(address).ok_or(Error::OutsidePools { address })?;
    if !block.unallocated.contains(&ordinal) {
        let holder = block.attribute(ordinal).and_then(|a| a.handle());
        let holder = holder.unwrap_or("something without a handle").to_owned();
        return Err(Error::AddressInUse { address, holder }.into());
    }
    if draft.is_freed(address) {
        return Err(Stop::Later);
    }
    Ok(Pick {
        cidr,
        ordinal,
        address,
        source,
        pool: named,
    })
}

fn pool_for<'s>(state: &'s State, assign: &Assign, address: IpAddr) -> Result<&'s Versioned<Pool>, Error> {
    let holds = |p: &&Versioned<Pool>| !p.value.disabled && p.value.cidr.contains(&address);
    let pool = state
        .pools
        .values()
        .find(holds)
        .ok_or(Error::OutsidePools { address })?;
    if pool.value.allows(assign.purpose) {
        return Ok(pool);
    }
    let (pool, purpose) = (pool.value.name.clone(), assign.purpose);
    Err(Error::UseNotAllowed {
        address,
        pool,
        purpose,
    })
}

fn source(state: &State, draft: &Draft<'_>, cidr: &IpNet, address: IpAddr) -> Result<Source, Error> {
    let unreadable = |reason: &str| Error::Unreadable {
        key: keys::text(&keys::block(cidr)),
        reason: reason.to_owned(),
    };
    match state.blocks.get(cidr).map(|b| &b.owner) {
        None if draft.touches(cidr) => Ok(Source::Own),
        None if state.is_taken(cidr) => Err(unreadable("blocks of another size lie inside this one")),
        None => Ok(Source::Claim),
        Some(Owner::Mine) => Ok(Source::Own),
        Some(Owner::Unreadable(reason)) => Err(unreadable(reason)),
        Some(owner) if state.config.value.strict_affinity => {
            let owner = if let Owner::Other(o) = owner {
                o.clone()
            } else {
                "nobody".to_owned()
            };
            Err(Error::StrictAffinity {
                address,
                block: *cidr,
                owner,
            })
        }
        Some(_) => Ok(Source::Borrow),
    }
}

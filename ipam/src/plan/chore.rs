//! Housekeeping on this node's own blocks, each an end state that Calico's steps would reach too.

use super::Stop;
use super::draft::{AffinityStep, Draft, Part};
use crate::request::{Chore, Reply, Request};
use crate::state::{Owner, State};

pub(super) fn join(
    state: &State,
    draft: &mut Draft<'_>,
    request: &Request,
    chore: Chore,
) -> Result<(), Stop> {
    let cidr = chore.block();
    if draft.touches(&cidr) {
        return Err(Stop::Later);
    }
    // Others may have done it since: what matters is how things are now.
    let mine = state
        .blocks
        .get(&cidr)
        .is_some_and(|b| b.owner == Owner::Mine && b.whole.is_some());
    let affinity = state.affinities.get(&cidr);
    let confirmed = affinity.is_some_and(|a| a.value.state.is_confirmed());
    let needed = match chore {
        Chore::Confirm(_) => mine && !confirmed,
        Chore::DropAffinity(_) => !mine && affinity.is_some(),
        Chore::GiveUp(_) => {
            mine && affinity.is_some()
                && draft
                    .view(&cidr)
                    .is_some_and(|b| state.is_to_give_up(b, draft.now))
        }
    };
    if !needed {
        return Err(Stop::Done(Reply::Done));
    }
    draft.admit(
        request,
        Part {
            blocks_new: 1,
            ..Part::default()
        },
        Reply::Done,
    )?;
    match chore {
        Chore::Confirm(_) => {
            // The block is rewritten, so that a releaser that read it before cannot delete it any more.
            draft.block_mut(&cidr);
            draft.step_affinity(&cidr, AffinityStep::Confirm);
        }
        Chore::DropAffinity(_) => {
            draft.rely_on_block(&cidr);
            draft.step_affinity(&cidr, AffinityStep::Delete);
        }
        Chore::GiveUp(_) => {
            draft.block_mut(&cidr);
            draft.delete_block(&cidr);
            draft.step_affinity(&cidr, AffinityStep::Delete);
        }
    }
    Ok(())
}

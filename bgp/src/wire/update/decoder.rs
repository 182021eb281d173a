//! The decoder of one session: from the body of an UPDATE to operations and verdicts.

use super::attributes::{Parsed, Reach};
use super::next_hop;
use super::{Action, Op, Routes, UpdateContext, UpdateError, Verdict};
use crate::family::Family;
use crate::wire::attr::{AttrSet, NextHopValue, code, hash_octets};
use std::sync::Arc;

/// Attribute lists that a decoder remembers: a peer that sends the same set again is not parsed again.
const CACHE_SLOTS: usize = 256;
/// Longer lists are rare, and remembering them would cost a session megabytes.
const REMEMBERED_OCTETS_MAX: usize = 1024;

/// Decodes the UPDATEs of one session.
#[derive(Debug)]
pub struct Decoder {
    context: UpdateContext,
    cache: Vec<Option<Remembered>>,
}

/// An attribute list as it was received, and the set it stands for.
#[derive(Clone, Debug)]
struct Remembered {
    list: Box<[u8]>,
    set: Arc<AttrSet>,
}

impl Decoder {
    /// A decoder for a session that agreed on this.
    #[must_use]
    pub fn new(context: UpdateContext) -> Self {
        Self {
            context,
            cache: vec![None; CACHE_SLOTS],
        }
    }

    /// Reads the body of an UPDATE and appends what it says to `routes`.
    ///
    /// # Errors
    /// [`UpdateError`] resets the session; `routes` then holds nothing of this UPDATE in its operations.
    pub fn decode(&mut self, body: &[u8], routes: &mut Routes) -> Result<Vec<Verdict>, UpdateError> {
        let (withdrawn, rest) = field(body).ok_or(UpdateError::MalformedAttributeList)?;
        let (list, nlri) = field(rest).ok_or(UpdateError::MalformedAttributeList)?;
        if withdrawn.is_empty() && list.is_empty() && nlri.is_empty() {
            if self.context.families.ipv4 {
                routes.ops.push(Op::EndOfRib(Family::Ipv4Unicast));
            }
            return Ok(Vec::new());
        }
        let ops = routes.ops.len();
        let result = self.routes(withdrawn, list, nlri, routes);
        if result.is_err() {
            routes.ops.truncate(ops);
        }
        result
    }

    fn routes(
        &mut self,
        withdrawn: &[u8],
        list: &[u8],
        nlri: &[u8],
        routes: &mut Routes,
    ) -> Result<Vec<Verdict>, UpdateError> {
        let mut verdicts = Vec::new();
        self.withdraw(Family::Ipv4Unicast, withdrawn, routes, &mut verdicts)?;
        if !nlri.is_empty()
            && let Some(set) = self.cached(list)
        {
            self.announce(Family::Ipv4Unicast, nlri, Some(set), routes, &mut verdicts)?;
            return Ok(verdicts);
        }
        let mut parsed = Parsed::read(list, &self.context)?;
        parsed.check_mandatory(nlri);
        verdicts.append(&mut parsed.verdicts);
        let multiprotocol = parsed.reach.is_some() || parsed.unreach.is_some();
        if let Some((family, field)) = parsed.unreach {
            self.unreach(family, field, routes, &mut verdicts)?;
        }
        let reach = parsed.reach.take();
        let reachable = !nlri.is_empty() || reach.as_ref().is_some_and(|r| !r.nlri.is_empty());
        if let Some(fault) = parsed.withdraw
            && !reachable
        {
            return Err(UpdateError::NothingToWithdraw(fault.reason, fault.subcode));
        }
        if let Some(reach) = reach {
            self.reach(&reach, &mut parsed, routes, &mut verdicts)?;
        }
        if !nlri.is_empty() {
            let set = match (parsed.withdraw, parsed.next_hop) {
                (None, Some(next_hop)) => Some(parsed.set(NextHopValue::V4(next_hop))),
                _ => None,
            };
            if let Some(set) = &set
                && verdicts.is_empty()
                && !multiprotocol
            {
                self.remember(list, set);
            }
            self.announce(Family::Ipv4Unicast, nlri, set, routes, &mut verdicts)?;
        }
        Ok(verdicts)
    }

    fn unreach(
        &self,
        family: Option<Family>,
        field: &[u8],
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        let Some(family) = family else { return Ok(()) };
        if field.is_empty() {
            routes.ops.push(Op::EndOfRib(family));
            return Ok(());
        }
        self.withdraw(family, field, routes, verdicts)
    }

    fn reach(
        &mut self,
        reach: &Reach<'_>,
        parsed: &mut Parsed<'_>,
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        let Some(family) = reach.family else { return Ok(()) };
        let next_hop = next_hop::read(family, reach.next_hop, &self.context)?;
        if parsed.withdraw.is_none() && !next_hop::is_lawful(next_hop, &self.context) {
            let reason = "next hop of MP_REACH_NLRI cannot be one";
            verdicts.push(Verdict {
                attribute: Some(code::MP_REACH),
                action: Action::TreatAsWithdraw,
                reason,
            });
            return self.announce(family, reach.nlri, None, routes, verdicts);
        }
        let set = if parsed.withdraw.is_none() {
            Some(parsed.set(next_hop))
        } else {
            None
        };
        self.announce(family, reach.nlri, set, routes, verdicts)
    }

    /// Announces the prefixes of a field, or, without attributes, treats them as withdrawn.
    fn announce(
        &self,
        family: Family,
        field: &[u8],
        set: Option<Arc<AttrSet>>,
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        if !self.context.families.has(family) {
            return Ok(());
        }
        let (range, martians) = routes.read(family, field, *self.context.path_ids.at(family))?;
        say_martians(martians, verdicts);
        if !range.is_empty() {
            routes.ops.push(match set {
                Some(set) => Op::Announce(family, set, range),
                None => Op::Withdraw(family, range),
            });
        }
        Ok(())
    }

    fn withdraw(
        &self,
        family: Family,
        field: &[u8],
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        if field.is_empty() {
            Ok(())
        } else {
            self.announce(family, field, None, routes, verdicts)
        }
    }

    fn slot(list: &[u8]) -> usize {
        usize::try_from(hash_octets(list) % CACHE_SLOTS as u64).unwrap_or(0)
    }

    fn cached(&self, list: &[u8]) -> Option<Arc<AttrSet>> {
        let known = self.cache.get(Self::slot(list))?.as_ref()?;
        (*known.list == *list).then(|| Arc::clone(&known.set))
    }

    /// Only lists whose parsing had nothing to say may be remembered: verdicts are counted each time.
    fn remember(&mut self, list: &[u8], set: &Arc<AttrSet>) {
        if list.len() <= REMEMBERED_OCTETS_MAX
            && let Some(slot) = self.cache.get_mut(Self::slot(list))
        {
            *slot = Some(Remembered {
                list: list.into(),
                set: Arc::clone(set),
            });
        }
    }
}

fn say_martians(martians: u32, verdicts: &mut Vec<Verdict>) {
    if martians > 0 {
        verdicts.push(Verdict {
            attribute: None,
            action: Action::Ignore,
            reason: "prefix is a martian",
        });
    }
}

/// A field of two octets of length and what they cover, and the rest.
fn field(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

//! What an operator should look at before it becomes an error.

use twill_bgp::view::PeerState;
use twill_bgp::{Family, PeerStatus};

/// Part of a limit, in percent, from which on it is warned of.
const NEAR_PERCENT: u64 = 80;
/// A session that was established so often is said to flap.
const FLAPS: u64 = 10;

/// One sentence each.
pub(crate) fn of(status: &PeerStatus) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(max) = status.config.prefixes_max.map(u64::from).filter(|max| *max > 0) {
        for family in Family::ALL {
            let count = status.prefixes.at(family).received;
            if count * 100 >= max * NEAR_PERCENT {
                out.push(format!("{count} of at most {max} {family} prefixes"));
            }
        }
    }
    let stale = Family::ALL
        .map(|f| status.prefixes.at(f).stale)
        .iter()
        .sum::<u64>();
    if stale > 0 {
        out.push(format!("{stale} prefixes are kept from before its restart"));
    }
    if status.established_count >= FLAPS {
        out.push(format!("established {} times", status.established_count));
    }
    if status.state == PeerState::Established {
        let wanted = status.config.families;
        let missing = status
            .negotiated
            .iter()
            .flat_map(|n| wanted.iter().filter(|f| !n.families.has(*f)));
        out.extend(missing.map(|family| format!("the peer does not offer {family}")));
    }
    let panics = status.counters.panics;
    if panics > 0 {
        out.push(format!("its session panicked {panics} times and was held down"));
    }
    let bad = status.counters.treated_as_withdraw;
    if bad > 0 {
        out.push(format!("{bad} malformed UPDATEs were treated as withdrawals"));
    }
    out
}

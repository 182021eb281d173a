//! Cases that are not put to another daemon, and why: what is asked there is our own rule or one of its makers', no RFC's, or the
//! feature has no knob or does not exist. Of our own daemon everything is asked.

use crate::case::Case;
use crate::dut::Kind;

/// Cases by the beginning of their names, the daemons, and the reason.
type Line = (&'static str, &'static [Kind], &'static str);

const OTHERS: &[Kind] = &[Kind::Bird, Kind::Frr];
const BIRD: &[Kind] = &[Kind::Bird];
const FRR: &[Kind] = &[Kind::Frr];

const LINES: &[Line] = &[
    (
        "OPEN: octets behind the length",
        OTHERS,
        "no RFC says what becomes of octets behind the optional parameters",
    ),
    (
        "OPEN: FQDN longer than it is",
        OTHERS,
        "only a draft defines the capability; who knows it may call it malformed (4271 6.2: 2/0)",
    ),
    (
        "communities: IPv6 extended communities",
        BIRD,
        "RFC 5701 is not known there: the attribute is passed on as any unknown one",
    ),
    (
        "refresh: ORF",
        BIRD,
        "no RFC says what becomes of ORF entries without their capability; it ends the session with 7/1",
    ),
    (
        "restart: our NOTIFICATION with the N bit",
        BIRD,
        "RFC 8538 does not exist there",
    ),
    (
        "limit: 40,001 prefixes",
        OTHERS,
        "to be back within a second is our own rule",
    ),
    ("return:", OTHERS, "to be back within a second is our own rule"),
    (
        "load: a peer that does not read is ended",
        OTHERS,
        "RFC 9687 is younger than these versions",
    ),
    (
        "add-path: two paths of one peer",
        FRR,
        "receiving is not offered to such peers",
    ),
    (
        "add-path: an identifier cut short",
        FRR,
        "receiving is not offered to such peers",
    ),
];

/// Why a case is not put to a daemon; `None` if it is.
pub(crate) fn spared(case: &Case, dut: Kind) -> Option<&'static str> {
    let fits = |(name, kinds, _): &&Line| kinds.contains(&dut) && case.name.starts_with(name);
    LINES.iter().find(fits).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn each_line_spares_something_and_ours_is_spared_nothing() {
        let all = cases::all();
        for (name, kinds, why) in LINES {
            assert!(all.iter().any(|c| c.name.starts_with(name)), "{name}");
            assert!(!kinds.contains(&Kind::Twill) && !why.is_empty(), "{name}");
        }
        assert!(all.iter().all(|c| spared(c, Kind::Twill).is_none()));
    }
}

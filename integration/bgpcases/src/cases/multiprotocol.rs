//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760, RFC 7606 sections 5.3 and 7.11).

use crate::case::Fate::{Lives, Passed, Reset, ResetOrWithdrawn, Stays, Withdrawn, Withdrawn6};
use crate::case::Over::{Both, External, Four};
use crate::case::{Case, Row, row};
use crate::roles::{DUT_V6, Role};
use crate::wire::{Update, mp_reach};

pub(super) fn cases() -> Vec<Case> {
    [("MP_REACH", reach()), ("MP_UNREACH", unreach())]
        .into_iter()
        .flat_map(|(name, rows)| crate::case::cases(name, rows))
        .collect()
}

/// The peers that misbehave all have this as a next hop that could be.
const HOP: [u8; 16] = Role::External.v6().octets();
const NLRI: &[u8] = &[64, 0x20, 1, 0x0d, 0xb9, 0, 1, 0, 2];

/// Another next hop in front of the routes that the UPDATE has.
fn hop(update: &mut Update, next_hop: &[u8]) {
    let nlri = update.attributes.iter().find(|(c, _)| *c == 14);
    // flags, code, length; family, length and 16 octets of next hop, reserved
    let nlri = nlri
        .and_then(|(_, a)| a.get(3 + 4 + 16 + 1..))
        .unwrap_or_default()
        .to_vec();
    update.set(0x80, 14, &mp_reach(2, 1, next_hop, &nlri));
}

const UNREADABLE: &[u8] = &[0, 1, 5, 9, 10];

fn reach() -> Vec<Row> {
    let length = |name, octets: usize| {
        row(
            name,
            "7606 7.11",
            Both,
            move |u| hop(u, &HOP.repeat(17)[..octets]),
            Reset(3, UNREADABLE),
        )
    };
    let unlawful = |name, address: &str| {
        let octets = address.parse::<std::net::Ipv6Addr>().unwrap_or(DUT_V6).octets();
        row(
            name,
            "4760 3, 7606 3(e)",
            Both,
            move |u| {
                hop(u, &octets);
                u.nlri.clear();
                u.remove(3);
            },
            Withdrawn6,
        )
    };
    let foreign = |name, afi, safi| {
        row(
            name,
            "4760 7",
            Both,
            move |u| u.set(0x80, 14, &mp_reach(afi, safi, &HOP, NLRI)),
            Stays,
        )
    };
    let mut rows = vec![
        length("next hop of no octets", 0),
        length("next hop of three octets", 3),
        length("next hop of four octets for IPv6", 4),
        length("next hop of 15 octets", 15),
        length("next hop of 17 octets", 17),
        length("next hop of 33 octets", 33),
        length("next hop of 255 octets", 255),
        row(
            "next hop overruns",
            "7606 7.11",
            Four,
            |u| u.set(0x80, 14, &[0, 2, 1, 200, 1, 2]),
            Reset(3, UNREADABLE),
        ),
        row(
            "no octets",
            "7606 5.3",
            Both,
            |u| u.set(0x80, 14, &[]),
            Reset(3, UNREADABLE),
        ),
        row(
            "two octets",
            "7606 5.3",
            Both,
            |u| u.set(0x80, 14, &[0, 2]),
            Reset(3, UNREADABLE),
        ),
        row(
            "four octets",
            "7606 5.3",
            Both,
            |u| u.set(0x80, 14, &[0, 2, 1, 16]),
            Reset(3, UNREADABLE),
        ),
        row(
            "cut behind the next hop",
            "7606 5.3",
            Both,
            |u| u.set(0x80, 14, &[&[0, 2, 1, 16][..], &HOP].concat()),
            Reset(3, UNREADABLE),
        ),
        row(
            "twice",
            "7606 3(g)",
            Four,
            |u| u.add(0x80, 14, &mp_reach(2, 1, &HOP, NLRI)),
            Reset(3, &[1]),
        ),
        row(
            "prefix length 129",
            "7606 5.3",
            Four,
            |u| u.set(0x80, 14, &mp_reach(2, 1, &HOP, &[129; 18])),
            Reset(3, UNREADABLE),
        ),
        row(
            "prefix length 255",
            "7606 5.3",
            Both,
            |u| u.set(0x80, 14, &mp_reach(2, 1, &HOP, &[255, 1])),
            Reset(3, UNREADABLE),
        ),
        row(
            "prefix octets run out",
            "7606 5.3",
            Four,
            |u| u.set(0x80, 14, &mp_reach(2, 1, &HOP, &[64, 1])),
            Reset(3, UNREADABLE),
        ),
        row(
            "no routes in it",
            "4760 3",
            Both,
            |u| u.set(0x80, 14, &mp_reach(2, 1, &HOP, &[])),
            Stays,
        ),
        row(
            "reserved octet set",
            "4760 3",
            Both,
            |u| {
                if let Some((_, a)) = u.attributes.iter_mut().find(|(c, _)| *c == 14)
                    && let Some(reserved) = a.get_mut(3 + 4 + 16)
                {
                    *reserved = 77
                }
            },
            Stays,
        ),
        row(
            "global and link-local next hop",
            "2545 3",
            Both,
            |u| {
                hop(
                    u,
                    &[
                        HOP,
                        [&[0xfe, 0x80][..], &[0; 13], &[1]]
                            .concat()
                            .try_into()
                            .unwrap_or(HOP),
                    ]
                    .concat(),
                )
            },
            Passed,
        ),
        row(
            "marked well-known",
            "7606 3(c)",
            Both,
            |u| u.flags(14, 0x40),
            ResetOrWithdrawn(3, &[4, 9]),
        ),
        row(
            "marked transitive",
            "7606 3(c)",
            Both,
            |u| u.flags(14, 0xc0),
            ResetOrWithdrawn(3, &[4, 9]),
        ),
        row(
            "without ORIGIN",
            "7606 3(d)",
            Both,
            |u| {
                u.nlri.clear();
                u.remove(3);
                u.remove(1);
            },
            Withdrawn,
        ),
        row(
            "without AS_PATH",
            "7606 3(d)",
            Both,
            |u| {
                u.nlri.clear();
                u.remove(3);
                u.remove(2);
            },
            Withdrawn,
        ),
        row(
            "without NEXT_HOP",
            "4760 3",
            Both,
            |u| {
                u.nlri.clear();
                u.remove(3);
            },
            Passed,
        ),
        row(
            "with a broken NEXT_HOP beside it",
            "7606 3, 4760 3",
            Both,
            |u| {
                u.nlri.clear();
                u.value(3, &[1]);
            },
            Lives,
        ),
        row(
            "IPv4 unicast in it",
            "4760 3",
            Both,
            |u| {
                u.set(
                    0x80,
                    14,
                    &mp_reach(1, 1, &Role::External.id().octets(), &[24, 198, 51, 100]),
                );
            },
            Stays,
        ),
        row(
            "IPv4 unicast with an IPv6 next hop, not agreed on",
            "8950 4",
            External,
            |u| u.set(0x80, 14, &mp_reach(1, 1, &HOP, &[24, 198, 51, 100])),
            Lives,
        ),
    ];
    rows.extend([
        unlawful("next hop ::", "::"),
        unlawful("next hop ::1", "::1"),
        unlawful("next hop multicast", "ff02::1"),
        unlawful("next hop is the daemon's", "fd00:99::1"),
        foreign("multicast SAFI, not agreed on", 2, 2),
        foreign("labelled, not agreed on", 2, 4),
        foreign("IPv4 flow specification, not agreed on", 1, 133),
        foreign("EVPN, not agreed on", 25, 70),
        foreign("BGP-LS, not agreed on", 16_388, 71),
        foreign("no such family", 65_535, 255),
    ]);
    rows
}

fn unreach() -> Vec<Row> {
    let of = |name, basis, value: &'static [u8], fate| {
        row(name, basis, Both, move |u| u.set(0x80, 15, value), fate)
    };
    vec![
        of("no octets", "7606 5.3", &[], Reset(3, UNREADABLE)),
        of("two octets", "7606 5.3", &[0, 2], Reset(3, UNREADABLE)),
        of(
            "prefix length 129",
            "7606 5.3",
            &[0, 2, 1, 129, 1],
            Reset(3, UNREADABLE),
        ),
        of(
            "prefix octets run out",
            "7606 5.3",
            &[0, 2, 1, 64, 1],
            Reset(3, UNREADABLE),
        ),
        of("a family not agreed on", "4760 7", &[0, 25, 70, 1, 2, 3], Stays),
        of("never announced", "4271 9", &[0, 2, 1, 16, 0x20, 2], Passed),
        row(
            "twice",
            "7606 3(g)",
            Both,
            |u| {
                u.add(0x80, 15, &[0, 2, 1]);
                u.add(0x80, 15, &[0, 2, 1]);
            },
            Reset(3, &[1]),
        ),
        row(
            "alone: End-of-RIB",
            "4724 2",
            Four,
            |u| {
                u.attributes.clear();
                u.nlri.clear();
                u.set(0x80, 15, &[0, 2, 1]);
            },
            Stays,
        ),
        row(
            "alone, of a family not agreed on",
            "4760 7",
            Both,
            |u| {
                u.attributes.clear();
                u.nlri.clear();
                u.set(0x80, 15, &[0, 25, 70]);
            },
            Stays,
        ),
        row(
            "empty UPDATE: End-of-RIB",
            "4724 2",
            Four,
            |u| {
                u.attributes.clear();
                u.nlri.clear();
            },
            Stays,
        ),
    ]
}

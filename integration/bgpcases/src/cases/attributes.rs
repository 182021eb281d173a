//! RFC 7606 section 7 for the attributes of RFC 4271, and their own sections there.

use crate::case::At::{Client, Observer};
use crate::case::Fate::{Lives, Passed, Path, Stays, With, Withdrawn, Without};
use crate::case::Over::{Both, External, Four, Internal};
use crate::case::{Case, MARK_AS, Row, row};
use crate::roles::DUT;
use crate::wire::{segment, sequence};

const PEER: u32 = 65_001;

pub(super) fn cases() -> Vec<Case> {
    let groups = [
        ("ORIGIN", origin()),
        ("AS_PATH", as_path()),
        ("AS_PATH, long", long_paths()),
        ("NEXT_HOP", next_hop()),
        ("MED and LOCAL_PREF", preference()),
        ("aggregation", aggregation()),
    ];
    groups
        .into_iter()
        .flat_map(|(name, rows)| crate::case::cases(name, rows))
        .collect()
}

fn origin() -> Vec<Row> {
    vec![
        row("no octets", "7606 7.1", Four, |u| u.value(1, &[]), Withdrawn),
        row("two octets", "7606 7.1", Both, |u| u.value(1, &[0, 0]), Withdrawn),
        row("value 3", "7606 7.1", Four, |u| u.value(1, &[3]), Withdrawn),
        row("value 255", "7606 7.1", Both, |u| u.value(1, &[255]), Withdrawn),
        row("missing", "7606 3(d)", Four, |u| u.remove(1), Withdrawn),
        row(
            "marked optional",
            "7606 3(c)",
            Both,
            |u| u.flags(1, 0xc0),
            Withdrawn,
        ),
        row(
            "not transitive",
            "7606 3(c)",
            Both,
            |u| u.flags(1, 0x00),
            Withdrawn,
        ),
        row(
            "EGP",
            "4271 5.1.1",
            Both,
            |u| u.value(1, &[1]),
            With(Observer, 0x40, 1, vec![1]),
        ),
        row(
            "incomplete",
            "4271 5.1.1",
            Both,
            |u| u.value(1, &[2]),
            With(Observer, 0x40, 1, vec![2]),
        ),
        row(
            "two octets of length",
            "4271 4.3",
            Both,
            |u| u.set(0x50, 1, &[0]),
            Passed,
        ),
        row(
            "unused flags set",
            "4271 4.3",
            Both,
            |u| u.flags(1, 0x4f),
            With(Observer, 0x40, 1, vec![0]),
        ),
        row(
            "twice: the first counts",
            "7606 3(g)",
            Both,
            |u| u.add(0x40, 1, &[3]),
            With(Observer, 0x40, 1, vec![0]),
        ),
    ]
}

fn as_path() -> Vec<Row> {
    vec![
        row("missing", "7606 3(d)", Four, |u| u.remove(2), Withdrawn),
        row(
            "segment type 0",
            "7606 7.2",
            Both,
            |u| u.value(2, &segment(0, 1, &[PEER])),
            Withdrawn,
        ),
        row(
            "segment type 5",
            "7606 7.2",
            Both,
            |u| u.value(2, &segment(5, 1, &[PEER])),
            Withdrawn,
        ),
        row(
            "segment overruns",
            "7606 7.2",
            Four,
            |u| u.value(2, &segment(2, 3, &[PEER, 7])),
            Withdrawn,
        ),
        row(
            "segment of 255, none there",
            "7606 7.2",
            Both,
            |u| u.value(2, &[2, 255]),
            Withdrawn,
        ),
        row(
            "one octet left",
            "7606 7.2",
            Both,
            |u| u.value(2, &[&sequence(&[PEER])[..], &[2]].concat()),
            Withdrawn,
        ),
        row(
            "segment of no numbers",
            "7606 7.2",
            Both,
            |u| u.value(2, &[&sequence(&[PEER])[..], &[2, 0]].concat()),
            Withdrawn,
        ),
        row(
            "numbers of two octets",
            "7606 7.2",
            Both,
            |u| u.value(2, &[2, 1, 0xfd, 0xe9]),
            Withdrawn,
        ),
        row(
            "AS 0",
            "7607 2",
            Four,
            |u| u.value(2, &sequence(&[PEER, 0])),
            Withdrawn,
        ),
        row(
            "AS 0 in a set",
            "7607 2",
            Both,
            |u| u.value(2, &[sequence(&[PEER]), segment(1, 2, &[7, 0])].concat()),
            Withdrawn,
        ),
        row(
            "marked optional",
            "7606 3(c)",
            Both,
            |u| u.flags(2, 0xc0),
            Withdrawn,
        ),
        row(
            "confederation sequence",
            "5065 5",
            Both,
            |u| u.value(2, &segment(3, 1, &[PEER])),
            Withdrawn,
        ),
        row(
            "confederation set behind",
            "5065 5",
            Both,
            |u| u.value(2, &[sequence(&[PEER]), segment(4, 1, &[7])].concat()),
            Withdrawn,
        ),
        row(
            "first AS is another",
            "4271 6.3",
            External,
            |u| u.value(2, &sequence(&[64_999, PEER])),
            Withdrawn,
        ),
        row(
            "empty from outside",
            "4271 6.3",
            External,
            |u| u.value(2, &[]),
            Withdrawn,
        ),
        row(
            "empty from inside",
            "4271 5.1.2",
            Internal,
            |u| u.value(2, &[]),
            Stays,
        ),
        row(
            "our own AS in it",
            "4271 9.1.2",
            Four,
            |u| u.value(2, &sequence(&[PEER, 65_000])),
            Withdrawn,
        ),
        row(
            "our own AS in a set",
            "4271 9.1.2",
            Both,
            |u| u.value(2, &[sequence(&[PEER]), segment(1, 2, &[7, 65_000])].concat()),
            Withdrawn,
        ),
        row(
            "another AS of the same range",
            "4271 9.1.2",
            Both,
            |u| u.value(2, &sequence(&[PEER, 65_003, MARK_AS])),
            Passed,
        ),
        row(
            "a set",
            "4271 4.3",
            Both,
            |u| u.value(2, &[sequence(&[PEER, MARK_AS]), segment(1, 2, &[7, 8])].concat()),
            Path(vec![PEER, MARK_AS, 7, 8]),
        ),
        row(
            "AS_TRANS",
            "6793 4.2.2",
            Both,
            |u| u.value(2, &sequence(&[PEER, MARK_AS, 23_456])),
            Path(vec![PEER, MARK_AS, 23_456]),
        ),
        row(
            "numbers of four octets",
            "6793 4",
            Both,
            |u| u.value(2, &sequence(&[PEER, MARK_AS, 4_200_000_000])),
            Path(vec![PEER, MARK_AS, 4_200_000_000]),
        ),
        row(
            "many segments",
            "4271 4.3",
            Both,
            |u| {
                u.value(
                    2,
                    &[sequence(&[PEER]), sequence(&[MARK_AS]), sequence(&[9])].concat(),
                )
            },
            Path(vec![PEER, MARK_AS, 9]),
        ),
        row(
            "twice: the first counts",
            "7606 3(g)",
            Both,
            |u| u.add(0x40, 2, &[9]),
            Passed,
        ),
    ]
}

fn long(numbers: usize) -> Vec<u32> {
    [&[PEER, MARK_AS][..], &vec![64_999; numbers - 2]].concat()
}

fn long_paths() -> Vec<Row> {
    vec![
        row(
            "254 numbers",
            "4271 4.3",
            Both,
            |u| u.value(2, &sequence(&long(254))),
            Path(long(254)),
        ),
        row(
            "255 numbers",
            "4271 5.1.2",
            Four,
            |u| u.value(2, &sequence(&long(255))),
            Path(long(255)),
        ),
        row(
            "256 numbers",
            "4271 5.1.2",
            Both,
            |u| u.value(2, &sequence(&long(256))),
            Path(long(256)),
        ),
        row(
            "600 numbers",
            "4271 4.3",
            Both,
            |u| u.value(2, &sequence(&long(600))),
            Path(long(600)),
        ),
        row(
            "900 numbers",
            "4271 4.3",
            Both,
            |u| u.value(2, &sequence(&long(900))),
            Path(long(900)),
        ),
        row(
            "1,000 numbers: no message is too long",
            "4271 4.1",
            Both,
            |u| u.value(2, &sequence(&long(1000))),
            Stays,
        ),
    ]
}

fn next_hop() -> Vec<Row> {
    let hop = |name, address: [u8; 4], fate| {
        row(
            name,
            "4271 6.3, 7606 3(e)",
            Both,
            move |u| u.value(3, &address),
            fate,
        )
    };
    let without_v6 = |name, length: usize| {
        row(
            name,
            "7606 7.3",
            Both,
            move |u| {
                u.remove(14);
                u.value(3, &vec![10; length]);
            },
            Withdrawn,
        )
    };
    let mut rows = vec![
        row(
            "missing, with MP_REACH",
            "7606 3(d)",
            Both,
            |u| u.remove(3),
            Withdrawn,
        ),
        row(
            "missing",
            "7606 3(d)",
            Both,
            |u| {
                u.remove(14);
                u.remove(3);
            },
            Withdrawn,
        ),
        row("no octets", "7606 7.3", Both, |u| u.value(3, &[]), Withdrawn),
        row(
            "marked optional",
            "7606 3(c)",
            Both,
            |u| u.flags(3, 0xc0),
            Withdrawn,
        ),
        row(
            "twice: the first counts",
            "7606 3(g)",
            Both,
            |u| u.add(0x40, 3, &[1, 2]),
            Passed,
        ),
    ];
    rows.extend(
        [("three octets", 3), ("five octets", 5), ("sixteen octets", 16)].map(|(n, l)| without_v6(n, l)),
    );
    rows.push(hop("of the peer's subnet", [10, 99, 0, 200], Passed));
    for (name, address) in [
        ("0.0.0.0", [0, 0, 0, 0]),
        ("loopback", [127, 0, 0, 1]),
        ("multicast", [224, 0, 0, 1]),
        ("class E", [240, 0, 0, 1]),
        ("broadcast", [255, 255, 255, 255]),
        ("the daemon's own address", DUT.octets()),
    ] {
        rows.push(row(
            name,
            "4271 6.3, 7606 3(e)",
            Both,
            move |u| {
                u.remove(14);
                u.value(3, &address);
            },
            Withdrawn,
        ));
    }
    rows
}

fn preference() -> Vec<Row> {
    let hundred = 100_u32.to_be_bytes();
    let large = 999_u32.to_be_bytes();
    let mut rows = Vec::new();
    for (name, value) in [
        ("MED of no octets", vec![]),
        ("MED of three octets", vec![0; 3]),
        ("MED of five octets", vec![0; 5]),
    ] {
        rows.push(row(
            name,
            "7606 7.4",
            Both,
            move |u| u.set(0x80, 4, &value),
            Withdrawn,
        ));
    }
    for (name, flags) in [
        ("MED marked transitive", 0xc0),
        ("MED marked well-known", 0x40),
        ("MED without flags", 0),
    ] {
        rows.push(row(
            name,
            "7606 3(c)",
            Both,
            move |u| u.set(flags, 4, &[0, 0, 0, 1]),
            Withdrawn,
        ));
    }
    rows.push(row(
        "MED goes inside",
        "4271 5.1.4",
        Both,
        |u| u.set(0x80, 4, &[0, 0, 0, 9]),
        With(Client, 0x80, 4, vec![0, 0, 0, 9]),
    ));
    rows.push(row(
        "MED twice: the first counts",
        "7606 3(g)",
        Both,
        |u| {
            u.set(0x80, 4, &[0, 0, 0, 9]);
            u.add(0x80, 4, &[1]);
        },
        With(Client, 0x80, 4, vec![0, 0, 0, 9]),
    ));
    for (name, value) in [
        ("LOCAL_PREF of four octets", large.to_vec()),
        ("LOCAL_PREF of no octets", vec![]),
        ("LOCAL_PREF of five octets", vec![9; 5]),
    ] {
        rows.push(row(
            name,
            "7606 7.5",
            External,
            move |u| u.set(0x40, 5, &value),
            With(Client, 0x40, 5, hundred.to_vec()),
        ));
    }
    rows.push(row(
        "LOCAL_PREF marked optional, from outside",
        "7606 7.5",
        External,
        move |u| u.set(0xc0, 5, &large),
        Lives,
    ));
    for (name, value) in [
        ("LOCAL_PREF of no octets, from inside", vec![]),
        ("LOCAL_PREF of three octets, from inside", vec![9; 3]),
        ("LOCAL_PREF of five octets, from inside", vec![9; 5]),
    ] {
        rows.push(row(
            name,
            "7606 7.5",
            Internal,
            move |u| u.value(5, &value),
            Withdrawn,
        ));
    }
    rows.push(row(
        "LOCAL_PREF marked optional, from inside",
        "7606 3(c)",
        Internal,
        |u| u.flags(5, 0xc0),
        Withdrawn,
    ));
    rows.push(row(
        "LOCAL_PREF from inside",
        "4271 5.1.5",
        Internal,
        move |u| u.value(5, &large),
        With(Client, 0x40, 5, large.to_vec()),
    ));
    rows
}

fn aggregation() -> Vec<Row> {
    let good = [&PEER.to_be_bytes()[..], &[10, 0, 0, 9]].concat();
    let (sent, seen) = (good.clone(), good.clone());
    let mut rows = vec![
        row(
            "ATOMIC_AGGREGATE",
            "4271 5.1.6",
            Both,
            |u| u.set(0x40, 6, &[]),
            With(Observer, 0x40, 6, vec![]),
        ),
        row(
            "ATOMIC_AGGREGATE of one octet",
            "7606 7.6",
            Both,
            |u| u.set(0x40, 6, &[1]),
            Without(6),
        ),
        row(
            "ATOMIC_AGGREGATE of 300 octets",
            "7606 7.6",
            Both,
            |u| u.set(0x40, 6, &[1; 300]),
            Without(6),
        ),
        row(
            "ATOMIC_AGGREGATE marked optional",
            "7606 3(c)",
            Both,
            |u| u.set(0xc0, 6, &[]),
            Withdrawn,
        ),
        row(
            "AGGREGATOR",
            "4271 5.1.7",
            Both,
            move |u| u.set(0xc0, 7, &sent),
            With(Observer, 0xc0, 7, seen),
        ),
        row(
            "AGGREGATOR with AS 0",
            "7607 2",
            Both,
            |u| u.set(0xc0, 7, &[0, 0, 0, 0, 10, 0, 0, 9]),
            Without(7),
        ),
        row(
            "AGGREGATOR marked well-known",
            "7606 3(c)",
            Both,
            move |u| u.set(0x40, 7, &good),
            Withdrawn,
        ),
    ];
    for (name, length) in [
        ("AGGREGATOR of no octets", 0),
        ("AGGREGATOR of six octets", 6),
        ("AGGREGATOR of seven octets", 7),
        ("AGGREGATOR of nine octets", 9),
    ] {
        rows.push(row(
            name,
            "7606 7.7",
            Both,
            move |u| u.set(0xc0, 7, &vec![9; length]),
            Without(7),
        ));
    }
    rows
}

//! RFC 7606 section 7 for the attributes of later RFCs, and for those that nobody knows.

use crate::case::At::{Client, Observer};
use crate::case::Fate::{Lives, Passed, Reset, ResetOrWithdrawn, With, Withdrawn, Without};
use crate::case::Over::{Both, External, Four, Internal};
use crate::case::{Case, Row, row};
use crate::roles::DUT;
use crate::wire::sequence;

const PEER: u32 = 65_001;

pub(super) fn cases() -> Vec<Case> {
    let groups = [
        ("communities", communities()),
        ("reflection attributes", reflection()),
        ("other attributes", others()),
        ("unknown attributes", unknown()),
    ];
    groups
        .into_iter()
        .flat_map(|(name, rows)| crate::case::cases(name, rows))
        .collect()
}

fn communities() -> Vec<Row> {
    use crate::case::Fate::Inside;
    let one = vec![0xfd, 0xe9, 0, 7];
    let wide = vec![0, 2, 0xfd, 0xe9, 0, 0, 0, 7];
    let large: Vec<u8> = [65_001_u32, 1, 2].iter().flat_map(|n| n.to_be_bytes()).collect();
    let six: Vec<u8> = [&[0, 2][..], &[0x20; 16], &[0, 7]].concat();
    let mut rows = Vec::new();
    for (name, code, good) in [
        ("communities", 8_u8, one),
        ("extended communities", 16, wide),
        ("IPv6 extended communities", 25, six),
        ("large communities", 32, large),
    ] {
        let (sent, seen) = (good.clone(), good.clone());
        rows.push(row(
            leak(name, "pass"),
            "1997, 4360, 5701, 8092",
            Both,
            move |u| u.set(0xc0, code, &sent),
            With(Observer, 0xc0, code, seen),
        ));
        rows.push(row(
            leak(name, "of no octets"),
            "7606 7.8, 7.14, 7.15",
            Four,
            move |u| u.set(0xc0, code, &[]),
            Withdrawn,
        ));
        let short = good.get(1..).unwrap_or_default().to_vec();
        rows.push(row(
            leak(name, "one octet short"),
            "7606 7.8, 7.14, 7.15",
            Both,
            move |u| u.set(0xc0, code, &short),
            Withdrawn,
        ));
        let over = [&good[..], &[1]].concat();
        rows.push(row(
            leak(name, "one octet over"),
            "7606 7.8, 7.14, 7.15",
            Both,
            move |u| u.set(0xc0, code, &over),
            Withdrawn,
        ));
        let flagged = good.clone();
        rows.push(row(
            leak(name, "not transitive"),
            "7606 3(c)",
            Both,
            move |u| u.set(0x80, code, &flagged),
            Withdrawn,
        ));
        let first = good.clone();
        rows.push(row(
            leak(name, "twice: the first counts"),
            "7606 3(g)",
            Both,
            move |u| {
                u.set(0xc0, code, &good);
                u.add(0xc0, code, &[9; 60]);
            },
            With(Observer, 0xc0, code, first),
        ));
    }
    rows.extend([
        row(
            "NO_EXPORT",
            "1997",
            Both,
            |u| u.set(0xc0, 8, &0xffff_ff01_u32.to_be_bytes()),
            Inside,
        ),
        row(
            "NO_EXPORT_SUBCONFED",
            "1997",
            Both,
            |u| u.set(0xc0, 8, &0xffff_ff03_u32.to_be_bytes()),
            Inside,
        ),
        row(
            "NO_ADVERTISE",
            "1997",
            Both,
            |u| u.set(0xc0, 8, &0xffff_ff02_u32.to_be_bytes()),
            Withdrawn,
        ),
        row(
            "200 communities",
            "1997",
            Both,
            |u| u.set(0xc0, 8, &[1, 2, 3, 4].repeat(200)),
            Passed,
        ),
        row(
            "an extended community of unknown type",
            "7606 7.14",
            Both,
            |u| u.set(0xc0, 16, &[0x3f, 9, 1, 2, 3, 4, 5, 6]),
            With(Observer, 0xc0, 16, vec![0x3f, 9, 1, 2, 3, 4, 5, 6]),
        ),
        row(
            "a non-transitive extended community stays inside",
            "4360 6",
            Both,
            |u| {
                u.set(
                    0xc0,
                    16,
                    &[&[0x40, 9, 1, 2, 3, 4, 5, 6][..], &[0, 2, 0xfd, 0xe9, 0, 0, 0, 7]].concat(),
                )
            },
            With(Observer, 0xc0, 16, vec![0, 2, 0xfd, 0xe9, 0, 0, 0, 7]),
        ),
    ]);
    rows
}

/// Two words; the few dozen names live as long as the process.
fn leak(what: &str, how: &str) -> &'static str {
    Box::leak(format!("{what}, {how}").into_boxed_str())
}

fn reflection() -> Vec<Row> {
    let id = vec![10, 0, 0, 9];
    let us = DUT.octets();
    let mut rows = Vec::new();
    for (code, name) in [(9_u8, "ORIGINATOR_ID"), (10, "CLUSTER_LIST")] {
        for (how, value) in [
            ("sound", id.clone()),
            ("of no octets", vec![]),
            ("of five octets", vec![9; 5]),
        ] {
            rows.push(row(
                leak(name, &format!("{how}, from outside")),
                "7606 7.9, 7.10",
                External,
                move |u| u.set(0x80, code, &value),
                Without(code),
            ));
        }
        for (how, value) in [
            ("of no octets", vec![]),
            ("of three octets", vec![9; 3]),
            ("of five octets", vec![9; 5]),
        ] {
            rows.push(row(
                leak(name, &format!("{how}, from inside")),
                "7606 7.9, 7.10",
                Internal,
                move |u| u.set(0x80, code, &value),
                Withdrawn,
            ));
        }
        rows.push(row(
            leak(name, "ours, from outside"),
            "7606 7.9, 7.10",
            External,
            move |u| u.set(0x80, code, &us),
            Without(code),
        ));
        rows.push(row(
            leak(name, "ours, from inside"),
            "4456 8",
            Internal,
            move |u| u.set(0x80, code, &us),
            Withdrawn,
        ));
        rows.push(row(
            leak(name, "transitive, from inside"),
            "7606 3(c)",
            Internal,
            move |u| u.set(0xc0, code, &[9; 4]),
            Withdrawn,
        ));
    }
    let (one, list) = (id.clone(), [&us[..], &id].concat());
    let (first, second) = (id.clone(), id.clone());
    rows.extend([
        row(
            "ORIGINATOR_ID goes on",
            "4456 8",
            Internal,
            move |u| u.set(0x80, 9, &first),
            With(Client, 0x80, 9, id.clone()),
        ),
        row(
            "CLUSTER_LIST gets ours in front",
            "4456 8",
            Internal,
            move |u| u.set(0x80, 10, &one),
            With(Client, 0x80, 10, list),
        ),
        row(
            "CLUSTER_LIST of 250",
            "4456 8",
            Internal,
            |u| u.set(0x80, 10, &[7; 1000]),
            Passed,
        ),
        row(
            "neither leaves the AS",
            "4456 7",
            Internal,
            move |u| {
                u.set(0x80, 9, &second);
                u.set(0x80, 10, &second);
            },
            Passed,
        ),
    ]);
    rows
}

fn others() -> Vec<Row> {
    let wide = sequence(&[70_000, 70_001]);
    let as4 = [&70_000_u32.to_be_bytes()[..], &[10, 0, 0, 9]].concat();
    let inner = [&PEER.to_be_bytes()[..], &[0x40, 1, 1, 0]].concat();
    let broken = [&PEER.to_be_bytes()[..], &[0x40, 1, 1, 9]].concat();
    vec![
        row(
            "AS4_PATH from a four-octet speaker",
            "6793 6",
            Both,
            move |u| u.set(0xc0, 17, &wide),
            Without(17),
        ),
        row(
            "AS4_PATH broken",
            "6793 6",
            Both,
            |u| u.set(0xc0, 17, &[2, 9, 0]),
            Without(17),
        ),
        row(
            "AS4_AGGREGATOR from a four-octet speaker",
            "6793 6",
            Both,
            move |u| u.set(0xc0, 18, &as4),
            Without(18),
        ),
        row(
            "AS4_AGGREGATOR of seven octets",
            "6793 6",
            Both,
            |u| u.set(0xc0, 18, &[9; 7]),
            Without(18),
        ),
        row(
            "AIGP outside of any AIGP session",
            "7311 3.3",
            Both,
            |u| u.set(0x80, 26, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9]),
            Without(26),
        ),
        row(
            "AIGP that overruns",
            "7311 3.2",
            Both,
            |u| u.set(0x80, 26, &[1, 0, 200, 0]),
            Without(26),
        ),
        row(
            "AIGP of length 0 inside",
            "7311 3.2",
            Both,
            |u| u.set(0x80, 26, &[1, 0, 0]),
            Without(26),
        ),
        row(
            "ATTR_SET",
            "6368 5",
            Both,
            move |u| u.set(0xc0, 128, &inner),
            Passed,
        ),
        row(
            "ATTR_SET with a broken ORIGIN inside",
            "7606 7.16",
            Both,
            move |u| u.set(0xc0, 128, &broken),
            Lives,
        ),
        row(
            "OTC",
            "9234 5",
            Both,
            |u| u.set(0xc0, 35, &PEER.to_be_bytes()),
            Passed,
        ),
        row(
            "OTC of three octets",
            "9234 5",
            Both,
            |u| u.set(0xc0, 35, &[0; 3]),
            Withdrawn,
        ),
        row(
            "OTC of 1,024 octets",
            "9234 5",
            Both,
            |u| u.set(0xc0, 35, &[0; 1024]),
            Withdrawn,
        ),
    ]
}

fn unknown() -> Vec<Row> {
    let far = vec![0xa5; 3000];
    let mut rows = vec![
        row(
            "transitive: passed on, partial",
            "4271 5",
            Four,
            |u| u.set(0xc0, 99, &[1, 2, 3]),
            With(Observer, 0xe0, 99, vec![1, 2, 3]),
        ),
        row(
            "transitive and partial already",
            "4271 5",
            Both,
            |u| u.set(0xe0, 99, &[1]),
            With(Observer, 0xe0, 99, vec![1]),
        ),
        row(
            "transitive of 3,000 octets",
            "4271 5",
            Both,
            {
                let far = far.clone();
                move |u| u.set(0xc0, 99, &far)
            },
            With(Observer, 0xe0, 99, far),
        ),
        row(
            "transitive of no octets",
            "4271 5",
            Both,
            |u| u.set(0xc0, 99, &[]),
            Passed,
        ),
        row(
            "transitive, unused flags set",
            "4271 4.3",
            Both,
            |u| u.set(0xcf, 99, &[1]),
            With(Observer, 0xe0, 99, vec![1]),
        ),
        row(
            "not transitive: dropped",
            "4271 5",
            Four,
            |u| u.set(0x80, 99, &[1, 2, 3]),
            Without(99),
        ),
        row(
            "twice: the first counts",
            "7606 3(g)",
            Both,
            |u| {
                u.set(0xc0, 99, &[1]);
                u.add(0xc0, 99, &[2]);
            },
            With(Observer, 0xe0, 99, vec![1]),
        ),
        row(
            "well-known",
            "4271 6.3",
            Both,
            |u| u.set(0x40, 99, &[1]),
            ResetOrWithdrawn(3, &[2]),
        ),
        row("code 0", "4271 5", Both, |u| u.set(0xc0, 0, &[1]), Lives),
        row(
            "60 of them",
            "4271 5",
            Both,
            |u| (130..190).for_each(|code| u.set(0xc0, code, &[1])),
            Passed,
        ),
        row(
            "a well-known attribute without NLRI",
            "7606 5.2",
            Both,
            |u| {
                u.remove(14);
                u.nlri.clear();
                u.value(1, &[9]);
            },
            Reset(3, &[1, 2, 3, 4, 5, 6]),
        ),
    ];
    for (code, name) in [
        (11_u8, "DPA, deprecated"),
        (20, "connector"),
        (22, "PMSI tunnel, one octet"),
        (23, "tunnel encapsulation, one octet"),
        (28, "entropy label"),
        (29, "BGP-LS"),
        (33, "BGPsec path"),
        (34, "community container"),
        (36, "D-PATH"),
        (38, "BFD discriminator"),
        (39, "next hop capabilities"),
        (40, "prefix SID, garbage"),
        (129, "deprecated"),
        (241, "deprecated"),
        (255, "development"),
    ] {
        rows.push(row(
            leak(name, &format!("code {code}")),
            "4271 5, the field's incidents",
            Both,
            move |u| u.set(0xc0, code, &[0xff]),
            Passed,
        ));
        if matches!(code, 23 | 28 | 40) {
            rows.push(row(
                leak(name, &format!("code {code}, all zero")),
                "the field's incidents",
                Both,
                move |u| u.set(0xc0, code, &[0; 60]),
                Passed,
            ));
        }
    }
    rows
}

//! The OPENs: what is said, and what becomes of it.

use super::Fate::{self, Ended, Lives, Refused, RefusedWith};
use super::Line;
use crate::roles::DUT;
use crate::roles::Role::{External, Internal};
use crate::wire::{Open, classic, extended, triples};
use std::net::Ipv4Addr;

pub(super) fn fields() -> Vec<Line> {
    vec![
        (
            "version 0",
            "4271 6.2",
            External,
            |o| o.version = 0,
            RefusedWith(1, &[0, 4]),
        ),
        (
            "version 3",
            "4271 6.2",
            External,
            |o| o.version = 3,
            RefusedWith(1, &[0, 4]),
        ),
        (
            "version 5",
            "4271 6.2",
            Internal,
            |o| o.version = 5,
            RefusedWith(1, &[0, 4]),
        ),
        (
            "another AS",
            "4271 6.2",
            External,
            |o| other_as(o, 65_009),
            Refused(&[2]),
        ),
        (
            "another AS, internal",
            "4271 6.2",
            Internal,
            |o| other_as(o, 65_009),
            Refused(&[2]),
        ),
        (
            "another AS in the field only",
            "6793 4.1",
            External,
            |o| o.asn = 23_456,
            Fate::Session,
        ),
        (
            "another AS in the capability only",
            "6793 4.1",
            External,
            |o| o.set(65, &[0, 1, 0, 0]),
            Refused(&[2]),
        ),
        ("AS 0", "7607 2", External, |o| other_as(o, 0), Refused(&[2])),
        (
            "AS 0 in the capability",
            "7607 2",
            External,
            |o| o.set(65, &[0; 4]),
            Refused(&[2]),
        ),
        (
            "identifier 0.0.0.0",
            "6286 2.2",
            External,
            |o| o.id = Ipv4Addr::UNSPECIFIED,
            Refused(&[3]),
        ),
        (
            "identifier 0.0.0.0, internal",
            "6286 2.2",
            Internal,
            |o| o.id = Ipv4Addr::UNSPECIFIED,
            Refused(&[3]),
        ),
        (
            "the daemon's identifier, internal",
            "6286 2.2",
            Internal,
            |o| o.id = DUT,
            Refused(&[3]),
        ),
        (
            "the daemon's identifier, external",
            "6286 2.1",
            External,
            |o| o.id = DUT,
            Fate::Session,
        ),
        (
            "identifier 240.0.0.9",
            "6286 2.1",
            External,
            |o| o.id = Ipv4Addr::new(240, 0, 0, 9),
            Lives,
        ),
        (
            "hold time 0",
            "4271 4.2",
            External,
            |o| o.hold_secs = 0,
            Fate::Session,
        ),
        (
            "hold time 1",
            "4271 6.2",
            External,
            |o| o.hold_secs = 1,
            Refused(&[6]),
        ),
        (
            "hold time 2",
            "4271 6.2",
            Internal,
            |o| o.hold_secs = 2,
            Refused(&[6]),
        ),
        (
            "hold time 3",
            "4271 4.2",
            External,
            |o| o.hold_secs = 3,
            Fate::Session,
        ),
        (
            "hold time 65,535",
            "4271 4.2",
            External,
            |o| o.hold_secs = 65_535,
            Fate::Session,
        ),
    ]
}

fn other_as(open: &mut Open, asn: u16) {
    open.asn = asn;
    open.set(65, &u32::from(asn).to_be_bytes());
}

fn put(open: &mut Open, parameters: Vec<u8>) {
    open.parameters = Some(parameters);
}

pub(super) fn parameters() -> Vec<Line> {
    vec![
        (
            "no parameters at all",
            "4271 4.2",
            External,
            |o| put(o, vec![0]),
            Fate::Session,
        ),
        ("no length octet", "4271 6.1", External, |o| put(o, vec![]), Ended),
        (
            "length beyond the message",
            "4271 6.2",
            External,
            |o| put(o, vec![9]),
            Ended,
        ),
        (
            "octets behind the length",
            "4271 6.2",
            External,
            |o| put(o, vec![0, 1, 2, 3]),
            Ended,
        ),
        (
            "parameter overruns",
            "4271 6.2",
            External,
            |o| put(o, vec![2, 2, 200]),
            Ended,
        ),
        (
            "parameter cut to one octet",
            "4271 6.2",
            External,
            |o| put(o, vec![1, 2]),
            Ended,
        ),
        (
            "authentication parameter",
            "4271 6.2",
            External,
            |o| put(o, vec![3, 1, 1, 0]),
            Refused(&[4, 5]),
        ),
        (
            "unknown parameter 77",
            "4271 6.2",
            External,
            |o| put(o, vec![4, 77, 2, 1, 2]),
            Refused(&[4]),
        ),
        (
            "unknown parameter 254",
            "4271 6.2",
            Internal,
            |o| put(o, vec![2, 254, 0]),
            Refused(&[4]),
        ),
        (
            "extended form",
            "9072 2",
            External,
            |o| put(o, extended(&triples(&o.capabilities))),
            Fate::Session,
        ),
        (
            "extended form of 400 octets",
            "9072 2",
            Internal,
            |o| {
                let many: Vec<_> = (0..10).map(|n| (200 + n, vec![n; 40])).collect();
                put(o, extended(&[triples(&o.capabilities), triples(&many)].concat()));
            },
            Fate::Session,
        ),
        (
            "extended form cut behind 255",
            "9072 2",
            External,
            |o| put(o, vec![255]),
            Ended,
        ),
        (
            "extended form cut behind 255, 255",
            "9072 2",
            External,
            |o| put(o, vec![255, 255]),
            Ended,
        ),
        (
            "extended form cut in its length",
            "9072 2",
            External,
            |o| put(o, vec![255, 255, 0]),
            Ended,
        ),
        (
            "extended form, parameter header cut",
            "9072 2",
            External,
            |o| put(o, vec![255, 255, 0, 2, 2, 0]),
            Ended,
        ),
        (
            "extended form, parameter overruns",
            "9072 2",
            External,
            |o| put(o, vec![255, 255, 0, 3, 2, 0, 9]),
            Ended,
        ),
        (
            "extended form beyond the message",
            "9072 2",
            External,
            |o| put(o, vec![255, 255, 0xff, 0xff, 2, 0, 0]),
            Ended,
        ),
        (
            "extended form, nothing in it",
            "9072 2",
            External,
            |o| put(o, vec![255, 255, 0, 0]),
            Lives,
        ),
        (
            "a parameter for each capability",
            "5492 4",
            External,
            |o| {
                let each: Vec<u8> = o
                    .capabilities
                    .iter()
                    .flat_map(|c| {
                        let one = triples(std::slice::from_ref(c));
                        [&[2, u8::try_from(one.len()).unwrap_or(0)], &one[..]].concat()
                    })
                    .collect();
                put(o, [&[u8::try_from(each.len()).unwrap_or(0)], &each[..]].concat());
            },
            Fate::Session,
        ),
        (
            "an empty capability parameter",
            "5492 4",
            External,
            |o| put(o, [&[2, 2, 0][..]].concat()),
            Lives,
        ),
    ]
}

pub(super) fn capabilities() -> Vec<Line> {
    vec![
        (
            "every capability twice",
            "5492 4",
            External,
            |o| {
                let again = o.capabilities.clone();
                o.capabilities.extend(again);
            },
            Fate::Session,
        ),
        (
            "unknown capability",
            "5492 3",
            External,
            |o| o.set(200, &[9; 50]),
            Fate::Session,
        ),
        (
            "unknown capability of no octets",
            "5492 3",
            Internal,
            |o| o.set(201, &[]),
            Fate::Session,
        ),
        (
            "vendor's capability",
            "5492 5",
            External,
            |o| o.set(128, &[]),
            Fate::Session,
        ),
        (
            "reserved capability 0",
            "5492 5",
            External,
            |o| o.set(0, &[1]),
            Lives,
        ),
        (
            "multiprotocol of no octets",
            "5492, CVE-2018-5381",
            External,
            |o| o.capabilities.push((1, vec![])),
            Lives,
        ),
        (
            "multiprotocol of five octets",
            "4760 8",
            External,
            |o| o.capabilities.push((1, vec![0, 1, 0, 1, 9])),
            Lives,
        ),
        (
            "multiprotocol, reserved octet set",
            "4760 8",
            External,
            |o| o.capabilities.push((1, vec![0, 1, 77, 1])),
            Fate::Session,
        ),
        (
            "families that nobody knows",
            "4760 8",
            External,
            |o| (0..20).for_each(|n| o.capabilities.push((1, vec![n, 99, 0, 99]))),
            Fate::Session,
        ),
        (
            "route refresh with octets",
            "2918 2",
            External,
            |o| o.set(2, &[1, 2]),
            Lives,
        ),
        (
            "four-octet AS of two octets",
            "6793, CVE-2022-36440",
            External,
            |o| o.set(65, &[0xfd, 0xe9]),
            Lives,
        ),
        (
            "graceful restart of one octet",
            "4724, CVE-2022-37032",
            External,
            |o| o.set(64, &[0x80]),
            Lives,
        ),
        (
            "graceful restart of five octets",
            "4724",
            External,
            |o| o.set(64, &[0, 9, 0, 1, 1]),
            Lives,
        ),
        (
            "long-lived restart cut short",
            "9494, CVE-2023-31489",
            External,
            |o| o.set(71, &[0, 1, 1]),
            Lives,
        ),
        (
            "software version longer than it is",
            "CVE-2023-41361",
            External,
            |o| o.set(75, &[200, b'a']),
            Fate::Session,
        ),
        (
            "software version of length 0",
            "CVE-2025-43970",
            External,
            |o| o.set(75, &[0]),
            Fate::Session,
        ),
        (
            "ORF cut short",
            "5291, CVE-2012-1820",
            External,
            |o| o.set(3, &[0, 1, 0, 1, 9]),
            Lives,
        ),
        (
            "add-path of three octets",
            "7911 4",
            External,
            |o| o.set(69, &[0, 1, 1]),
            Lives,
        ),
        (
            "add-path mode 4",
            "7911 4",
            External,
            |o| o.set(69, &[0, 1, 1, 4]),
            Fate::Session,
        ),
        (
            "role of no octets",
            "9234 4.1",
            External,
            |o| o.set(9, &[]),
            Lives,
        ),
        (
            "FQDN longer than it is",
            "the field",
            External,
            |o| o.set(73, &[200, b'a']),
            Fate::Session,
        ),
        (
            "capability overruns its parameter",
            "5492 4",
            External,
            |o| put(o, classic(&[65, 200, 1, 2])),
            Ended,
        ),
        (
            "capability of one octet",
            "5492 4",
            External,
            |o| put(o, classic(&[2])),
            Ended,
        ),
        (
            "no family of ours",
            "5492 3",
            External,
            |o| {
                o.without(1);
                o.set(1, &[0, 25, 0, 70]);
            },
            Lives,
        ),
    ]
}

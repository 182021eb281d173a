//! The attribute list, the withdrawn routes and the NLRI of an UPDATE (RFC 4271 section 4.3, RFC 7606 sections 3 to 5).

use crate::case::Fate::{Passed, Reset, ResetOrWithdrawn, Stays, Withdrawn};
use crate::case::Over::{Both, Four};
use crate::case::{Case, Row, row};
use crate::wire::mp_unreach;

pub(super) fn cases() -> Vec<Case> {
    [("attribute list", list()), ("NLRI", nlri())]
        .into_iter()
        .flat_map(|(name, rows)| crate::case::cases(name, rows))
        .collect()
}

fn list() -> Vec<Row> {
    vec![
        row(
            "one octet left",
            "7606 4",
            Four,
            |u| u.add_raw(&[0x40]),
            Withdrawn,
        ),
        row(
            "two octets left",
            "7606 4",
            Both,
            |u| u.add_raw(&[0xc0, 99]),
            Withdrawn,
        ),
        row(
            "three octets left of four",
            "7606 4",
            Both,
            |u| u.add_raw(&[0xd0, 99, 0]),
            Withdrawn,
        ),
        row(
            "last attribute overruns",
            "7606 4",
            Four,
            |u| u.add_raw(&[0xc0, 99, 9, 1]),
            Withdrawn,
        ),
        row(
            "last attribute overruns far",
            "7606 4",
            Both,
            |u| u.add_raw(&[0xd0, 99, 0xff, 0xff, 1]),
            Withdrawn,
        ),
        row(
            "ORIGIN overruns",
            "7606 4",
            Both,
            |u| u.add_raw(&[0x40, 1, 200]),
            Withdrawn,
        ),
        row(
            "total length beyond the message",
            "7606 3(b)",
            Four,
            |u| u.attributes_length = Some(4000),
            Reset(3, &[1]),
        ),
        row(
            "total length 65,535",
            "7606 3(b)",
            Both,
            |u| u.attributes_length = Some(0xffff),
            Reset(3, &[1]),
        ),
        row(
            "withdrawn length beyond the message",
            "7606 3(b)",
            Four,
            |u| u.withdrawn_length = Some(4000),
            Reset(3, &[1]),
        ),
        row(
            "withdrawn length 65,535",
            "7606 3(b)",
            Both,
            |u| u.withdrawn_length = Some(0xffff),
            Reset(3, &[1]),
        ),
        row(
            "reversed order",
            "4271 5",
            Four,
            |u| u.attributes.reverse(),
            Passed,
        ),
        row(
            "MP_REACH behind all others",
            "7606 5.1",
            Both,
            |u| {
                if let Some(at) = u.attributes.iter().position(|(c, _)| *c == 14) {
                    let mp = u.attributes.remove(at);
                    u.attributes.push(mp);
                }
            },
            Passed,
        ),
        row(
            "no attributes at all",
            "7606 3(d)",
            Both,
            |u| u.attributes.clear(),
            Withdrawn,
        ),
        row(
            "two octets of length everywhere",
            "4271 4.3",
            Both,
            |u| {
                for (_, octets) in &mut u.attributes {
                    if let [flags, code, len, value @ ..] = &octets[..]
                        && flags & 0x10 == 0
                    {
                        *octets = [&[flags | 0x10, *code, 0, *len], value].concat();
                    }
                }
            },
            Passed,
        ),
        row(
            "attributes without any route",
            "4271 4.3",
            Both,
            |u| {
                u.remove(14);
                u.nlri.clear();
            },
            Stays,
        ),
        row(
            "a list that overruns, no NLRI",
            "7606 5.2",
            Both,
            |u| {
                u.remove(14);
                u.nlri.clear();
                u.add_raw(&[0xc0, 99, 9]);
            },
            Reset(3, &[1, 5]),
        ),
        row(
            "bad ORIGIN and bad MED: withdrawn, once",
            "7606 3(h)",
            Both,
            |u| {
                u.value(1, &[9]);
                u.set(0x80, 4, &[1]);
            },
            Withdrawn,
        ),
        row(
            "bad MED and a bad prefix: the strongest wins",
            "7606 3(h)",
            Both,
            |u| {
                u.set(0x80, 4, &[1]);
                u.nlri = vec![77, 1];
            },
            Reset(3, &[1, 10]),
        ),
        row(
            "bad ATOMIC_AGGREGATE and bad ORIGIN: the strongest wins",
            "7606 3(h)",
            Both,
            |u| {
                u.set(0x40, 6, &[1]);
                u.value(1, &[9]);
            },
            Withdrawn,
        ),
    ]
}

fn nlri() -> Vec<Row> {
    vec![
        row(
            "length 33",
            "7606 5.3",
            Four,
            |u| u.nlri = vec![33, 1, 2, 3, 4, 5],
            Reset(3, &[1, 10]),
        ),
        row(
            "length 255",
            "7606 5.3",
            Both,
            |u| u.nlri = vec![255, 1],
            Reset(3, &[1, 10]),
        ),
        row(
            "octets run out",
            "7606 5.3",
            Four,
            |u| u.nlri = vec![24, 198, 51],
            Reset(3, &[1, 10]),
        ),
        row(
            "one octet too many",
            "7606 5.3",
            Both,
            |u| u.nlri.push(24),
            Reset(3, &[1, 10]),
        ),
        row(
            "withdrawn length 33",
            "7606 5.3",
            Both,
            |u| u.withdrawn = vec![33, 1, 2, 3, 4, 5],
            Reset(3, &[1, 10]),
        ),
        row(
            "withdrawn octets run out",
            "7606 5.3",
            Both,
            |u| u.withdrawn = vec![24, 198, 51],
            Reset(3, &[1, 10]),
        ),
        row(
            "withdrawn, never announced",
            "4271 9",
            Both,
            |u| u.withdrawn = vec![24, 198, 51, 100],
            Passed,
        ),
        row(
            "withdrawn and announced: announced",
            "4271 4.3",
            Four,
            |u| u.withdrawn = u.nlri.clone(),
            Passed,
        ),
        row(
            "the same prefix three times",
            "4271 4.3",
            Both,
            |u| u.nlri = u.nlri.repeat(3),
            Stays,
        ),
        row(
            "loopback prefix beside",
            "4271 6.3",
            Both,
            |u| u.nlri.extend([8, 127]),
            Stays,
        ),
        row(
            "multicast prefix beside",
            "4271 6.3",
            Both,
            |u| u.nlri.extend([8, 224]),
            Stays,
        ),
        row(
            "class E prefix beside",
            "4271 6.3",
            Both,
            |u| u.nlri.extend([8, 240]),
            Stays,
        ),
        row(
            "default route beside",
            "4271 4.3",
            Both,
            |u| u.nlri.push(0),
            Stays,
        ),
        row(
            "bits behind the prefix",
            "4271 4.3",
            Four,
            |u| {
                if let Some(last) = u.nlri.last_mut() {
                    *last |= 0x0f
                }
            },
            Stays,
        ),
        row(
            "withdrawal with attributes",
            "4271 4.3",
            Both,
            |u| {
                u.remove(14);
                u.withdrawn = std::mem::take(&mut u.nlri);
            },
            Stays,
        ),
        row(
            "withdrawal with a broken attribute",
            "7606 5.2",
            Both,
            |u| {
                u.remove(14);
                u.withdrawn = std::mem::take(&mut u.nlri);
                u.value(1, &[9]);
            },
            ResetOrWithdrawn(3, &[1, 5, 6]),
        ),
        row(
            "MP_UNREACH beside MP_REACH",
            "4760 4",
            Both,
            |u| u.set(0x80, 15, &mp_unreach(&[32, 0x20, 1, 0x0d, 0xb9])),
            Passed,
        ),
    ]
}

//! The incidents, by who suffered them.

use super::octets::{
    NLRI, along, attr, capabilities, list, mandatory, message, open_body, path, refresh, two_octets, update,
    with,
};
use super::{Case, Fate, Message, PASSED, THEIR, Trigger, WITHHELD};
use twill_bgp::wire::header::MessageType;

pub(super) fn cases() -> Vec<Case> {
    [
        early(),
        quagga(),
        frr_opens(),
        frr_attributes(),
        frr_multiprotocol(),
        others(),
        gobgp(),
        ours(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn early() -> Vec<Case> {
    let long_as4 = [&[2, 250][..], &70_000_u32.to_be_bytes().repeat(250)].concat();
    vec![
        (
            "2009-01: AS4_PATH with AS_CONFED_SEQUENCE",
            two_octets(&attr(0xc0, 17, &[3, 1, 0, 1, 0, 0])),
            PASSED,
        ),
        (
            "CVE-2009-1572: a long AS4_PATH",
            two_octets(&attr(0xc0, 17, &long_as4)),
            PASSED,
        ),
        ("2009-02 SuproNet: a path of 252 ASNs", along(&path(252)), PASSED),
        (
            "2010-08, CVE-2010-3035: attribute 99 of 3,000 octets",
            with(0xf0, 99, &[0xa5; 3000]),
            PASSED,
        ),
    ]
}

fn quagga() -> Vec<Case> {
    let unknown_segment = attr(0x40, 2, &[9, 1, 0, 0, 0xfd, 0xe9]);
    let twice = [
        &mandatory(&path(1))[..],
        &attr(0xc0, 99, &[1]),
        &attr(0xc0, 99, &[2]),
        &attr(0x80, 10, &[1; 4]),
    ]
    .concat();
    vec![
        (
            "CVE-2010-2948: ORF in a ROUTE-REFRESH",
            refresh(&[0, 1, 1, 1, 1, 64, 0, 200, 0x80]),
            WITHHELD,
        ),
        (
            "CVE-2010-2949: an AS_PATH segment of unknown type",
            along(&unknown_segment),
            WITHHELD,
        ),
        (
            "CVE-2011-3327: extended communities, length not x8",
            with(0xc0, 16, &[0; 9]),
            WITHHELD,
        ),
        (
            "CVE-2012-1820: ORF capability cut short",
            capabilities(&[3, 5, 0, 1, 0, 1, 9]),
            WITHHELD,
        ),
        ("CVE-2017-16227: a path of 600 ASNs", along(&path(600)), PASSED),
        (
            "CVE-2018-5378: NOTIFICATION with invalid data",
            Message(message(MessageType::Notification, &[2, 2, 0, 1])),
            Fate::Ended,
        ),
        (
            "CVE-2018-5379: attributes twice, cluster list from outside",
            list(&twice),
            PASSED,
        ),
        (
            "CVE-2018-5380: NOTIFICATION of unknown code",
            Message(message(MessageType::Notification, &[255, 255])),
            Fate::Ended,
        ),
        (
            "CVE-2018-5381: a multiprotocol capability of no length",
            capabilities(&[1, 0, 1, 0]),
            WITHHELD,
        ),
    ]
}

fn frr_opens() -> Vec<Case> {
    vec![
        (
            "CVE-2022-36440: four-octet AS capability of length 2",
            capabilities(&[65, 2, 0xfd, 0xe9]),
            WITHHELD,
        ),
        (
            "CVE-2022-37032: graceful restart capability of length 1",
            capabilities(&[64, 1, 0x80]),
            WITHHELD,
        ),
        (
            "CVE-2022-40302: option 255, one octet behind it",
            Trigger::Open(vec![255, 255]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2022-40318: option 255, its length cut",
            Trigger::Open(vec![255, 0, 9, 2]),
            Fate::Reset(2, 4),
        ),
        (
            "CVE-2022-43681: a parameter longer than the OPEN",
            Trigger::Open(vec![2, 200]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2023-31489: long-lived restart capability cut short",
            capabilities(&[71, 3, 0, 1, 1]),
            WITHHELD,
        ),
        (
            "CVE-2023-41361: software version longer than it is",
            capabilities(&[75, 3, 200, b'a', b'b']),
            WITHHELD,
        ),
        (
            "CVE-2025-43970: software version of length 0",
            capabilities(&[75, 1, 0, 75, 0]),
            WITHHELD,
        ),
    ]
}

fn frr_attributes() -> Vec<Case> {
    vec![
        ("CVE-2019-5892: attribute 255", with(0xc0, 255, &[0; 12]), PASSED),
        (
            "CVE-2023-31490: Prefix-SID sub-TLV",
            with(0xc0, 40, &[5, 0, 3, 0, 1, 200]),
            PASSED,
        ),
        (
            "CVE-2023-38802, CVE-2024-44070: attribute 23 cut short",
            with(0xc0, 23, &[0]),
            PASSED,
        ),
        (
            "CVE-2023-41359: AIGP TLV longer than the attribute",
            with(0x80, 26, &[1, 0, 200, 0]),
            PASSED,
        ),
        (
            "CVE-2023-41360: ORF header at the very end",
            refresh(&[0, 1, 0, 1, 1]),
            WITHHELD,
        ),
        (
            "CVE-2024-31948: Prefix-SID TLV longer than the attribute",
            with(0xc0, 40, &[1, 0, 7, 0, 0]),
            PASSED,
        ),
        (
            "CVE-2026-37459: attribute 39, TLV length without its header",
            with(0xc0, 39, &[0, 1, 0, 0]),
            PASSED,
        ),
        (
            "CVE-2026-37460: attribute 255 as RFAPI reads it",
            with(0xc0, 255, &[1, 255, 1]),
            PASSED,
        ),
    ]
}

fn frr_multiprotocol() -> Vec<Case> {
    let flowspec = |nlri: &[u8]| attr(0x80, 14, &[&[0, 1, 133, 0, 0], nlri].concat());
    let lone = |attrs: &[u8]| Message(update(&[], attrs, &[]));
    vec![
        (
            "CVE-2023-38406: FlowSpec, length 0",
            lone(&flowspec(&[0])),
            WITHHELD,
        ),
        (
            "CVE-2023-41909: FlowSpec without attributes",
            lone(&flowspec(&[3, 1, 24, 10])),
            WITHHELD,
        ),
        (
            "CVE-2026-37457: FlowSpec, one operator too many",
            lone(&flowspec(&[4, 3, 0x01, 6, 0x01])),
            WITHHELD,
        ),
        (
            "CVE-2023-41358: NLRI with attribute length 0",
            Message(update(&[], &[], NLRI)),
            WITHHELD,
        ),
        (
            "CVE-2023-46752: MP_REACH cut in its next hop",
            lone(&attr(0x80, 14, &[0, 2, 1, 32, 0xfd])),
            Fate::Reset(3, 9),
        ),
        (
            "CVE-2023-46753: an unknown transitive attribute alone",
            lone(&attr(0xc0, 99, &[1])),
            WITHHELD,
        ),
        (
            "CVE-2023-47234: MP_UNREACH, and NLRI without mandatory attributes",
            list(&attr(0x80, 15, &[0, 2, 1])),
            WITHHELD,
        ),
        (
            "CVE-2023-47235: a malformed End-of-RIB",
            lone(&attr(0x80, 15, &[0, 2])),
            Fate::Reset(3, 9),
        ),
    ]
}

fn others() -> Vec<Case> {
    let confed = [&[3, 255][..], &u32::from(THEIR).to_be_bytes().repeat(255)].concat();
    let no_length = [&[0x50, 1, 0, 0][..], &path(1), &attr(0x40, 3, &[10, 0, 0, 2])].concat();
    vec![
        (
            "CVE-2023-38283: ORIGIN of extended length 0",
            list(&no_length),
            WITHHELD,
        ),
        (
            "CVE-2023-4481: attribute 28 corrupted",
            with(0xe0, 28, &[0xff; 3]),
            PASSED,
        ),
        (
            "CVE-2023-40457: an unknown attribute, reserved flags set",
            with(0xcf, 200, &[0xff; 64]),
            PASSED,
        ),
        (
            "CVE-2025-20115: AS_CONFED_SEQUENCE of 255 ASNs",
            along(&attr(0x40, 2, &confed)),
            WITHHELD,
        ),
        (
            "2025-05-20: attribute 40, all zero",
            with(0xc0, 40, &[0; 60]),
            PASSED,
        ),
        (
            "2025-10-24: OTC of 1,024 octets",
            with(0xc0, 35, &[0; 1024]),
            WITHHELD,
        ),
        (
            "CVE-2026-49943: a path of 2,049 ASNs in an extended message",
            along(&path(2049)),
            WITHHELD,
        ),
    ]
}

fn gobgp() -> Vec<Case> {
    let short_extended = [&mandatory(&path(1))[..], &[0xd0, 16, 0]].concat();
    let hop = |hop: &[u8]| list(&[&attr(0x40, 1, &[0])[..], &path(1), &attr(0x40, 3, hop)].concat());
    vec![
        (
            "CVE-2023-46565, CVE-2025-43971: an attribute header cut short",
            list(&short_extended),
            WITHHELD,
        ),
        (
            "CVE-2025-43972: an extended community of 7 octets",
            with(0xc0, 16, &[0; 7]),
            WITHHELD,
        ),
        (
            "CVE-2025-43973: an OPEN of no parameters but a length",
            Trigger::Open(vec![2]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2026-41643: a broken AS4_PATH in front of AS_PATH",
            two_octets(&attr(0xc0, 17, &[2, 9, 0])),
            PASSED,
        ),
        (
            "CVE-2026-37461: an IPv6 extended community of 3 octets",
            with(0xc0, 25, &[0; 3]),
            WITHHELD,
        ),
        (
            "CVE-2026-37462: withdrawn length beyond the message",
            Message(message(MessageType::Update, &[0xff, 0xff, 0, 0])),
            Fate::Reset(3, 1),
        ),
        ("CVE-2026-30405: NEXT_HOP of no length", hop(&[]), WITHHELD),
        ("CVE-2026-30405: NEXT_HOP of 16 octets", hop(&[1; 16]), WITHHELD),
    ]
}

fn ours() -> Vec<Case> {
    let mut unknown = message(MessageType::Keepalive, &[]);
    unknown[18] = 77;
    let text = [&[6, 2, 200][..], b"bye"].concat();
    vec![
        (
            "CVE-2019-16159: a shutdown text shorter than it says",
            Message(message(MessageType::Notification, &text)),
            Fate::Ended,
        ),
        ("an unknown message type", Message(unknown), Fate::Reset(1, 3)),
        (
            "an OPEN in Established",
            Message(message(MessageType::Open, &open_body(&[]))),
            Fate::Reset(5, 3),
        ),
        ("a path of 3,000 ASNs", along(&path(3000)), WITHHELD),
        (
            "FRR's empty path: 999 ASNs go on with all their loops",
            along(&path(999)),
            PASSED,
        ),
    ]
}

//! The RFC 7606 table row by row, the incidents, and the way there and back.

use super::*;
use crate::prefix::Prefix;
use crate::wire::{NextHopValue, as_path};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn context(session: SessionType) -> UpdateContext {
    UpdateContext {
        session,
        peer_asn: 65001,
        four_octet_as: true,
        families: Families::BOTH,
        path_ids: PerFamily {
            ipv4: PathIds::Absent,
            ipv6: PathIds::Absent,
        },
        extended_next_hop: false,
        enforce_first_as: true,
        own_addresses: vec![Ipv4Addr::new(192, 0, 2, 9).into()],
    }
}

fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match u8::try_from(value.len()) {
        Ok(len) if flags & 0x10 == 0 => out.extend([flags, code, len]),
        _ => {
            out.extend([flags | 0x10, code]);
            out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        }
    }
    out.extend(value);
    out
}

fn origin() -> Vec<u8> {
    attr(0x40, 1, &[0])
}

fn path() -> Vec<u8> {
    attr(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9])
}

fn hop() -> Vec<u8> {
    attr(0x40, 3, &[192, 0, 2, 1])
}

const NLRI: &[u8] = &[24, 198, 18, 5];

fn update(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = |x: &[u8]| u16::try_from(x.len()).unwrap().to_be_bytes();
    [&len(withdrawn)[..], withdrawn, &len(attrs), attrs, nlri].concat()
}

/// What became of an UPDATE.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Announced; codes of the attributes that are left.
    Announced(Vec<u8>),
    Withdrawn,
    Nothing,
    Reset(u8),
}

fn fate_in(context: UpdateContext, body: &[u8]) -> (Fate, Vec<Action>) {
    let mut routes = Routes::default();
    match Decoder::new(context).decode(body, &mut routes) {
        Err(error) => {
            assert!(routes.is_empty(), "a reset leaves no operation behind");
            (Fate::Reset(error.notification().subcode), vec![])
        }
        Ok(verdicts) => {
            let actions = verdicts.iter().map(|v| v.action).collect();
            let fate = match routes.ops.last() {
                Some(Op::Announce(_, set, _)) => Fate::Announced(set.iter().map(|a| a.code).collect()),
                Some(Op::Withdraw(..)) => Fate::Withdrawn,
                Some(Op::EndOfRib(_)) | None => Fate::Nothing,
            };
            (fate, actions)
        }
    }
}

/// The mandatory attributes with one more.
fn with(extra: &[u8]) -> Vec<u8> {
    update(&[], &[&origin()[..], &path(), &hop(), extra].concat(), NLRI)
}

fn external(body: &[u8]) -> Fate {
    fate_in(context(SessionType::Ebgp), body).0
}

fn internal(body: &[u8]) -> Fate {
    fate_in(context(SessionType::Ibgp), body).0
}

fn kept(extra: &[u8]) -> Fate {
    Fate::Announced([&[1, 2][..], extra].concat())
}

#[test]
fn a_sound_update_is_announced_without_a_word() {
    assert_eq!(
        fate_in(context(SessionType::Ebgp), &with(&[])),
        (kept(&[]), vec![])
    );
}

#[test]
fn lengths_beyond_the_message_reset() {
    assert_eq!(external(&[0, 9, 0, 0]), Fate::Reset(1));
    assert_eq!(external(&[0, 0, 0, 9, 0]), Fate::Reset(1));
    assert_eq!(external(&[0]), Fate::Reset(1));
}

#[test]
fn an_attribute_list_that_overruns_is_treated_as_withdraw() {
    let list = [&origin()[..], &path(), &hop(), &[0xc0, 99, 200, 1]].concat();
    assert_eq!(external(&update(&[], &list, NLRI)), Fate::Withdrawn);
    let list = [&origin()[..], &path(), &hop(), &[0xd0, 99, 1]].concat();
    assert_eq!(external(&update(&[], &list, NLRI)), Fate::Withdrawn);
    // Without a route there is nothing to withdraw.
    assert_eq!(external(&update(&[], &list, &[])), Fate::Reset(1));
}

#[test]
fn flags_that_contradict_the_type_are_treated_as_withdraw_and_low_bits_are_ignored() {
    for (flags, code, value) in [
        (0x80, 1, &[0][..]),
        (0xc0, 3, &[192, 0, 2, 1]),
        (0x40, 4, &[0; 4]),
        (0x40, 8, &[0; 4]),
        (0x80, 7, &[1; 8]),
    ] {
        let list: Vec<u8> = [origin(), path(), hop()]
            .into_iter()
            .filter(|a| a[1] != code)
            .chain([attr(flags, code, value)])
            .flatten()
            .collect();
        assert_eq!(
            external(&update(&[], &list, NLRI)),
            Fate::Withdrawn,
            "attribute {code}"
        );
    }
    assert_eq!(external(&with(&attr(0x8f, 4, &[0; 4]))), kept(&[4]));
}

#[test]
fn twice_the_first_counts_but_mp_attributes_reset() {
    let twice = [&attr(0x80, 4, &[0, 0, 0, 1])[..], &attr(0x80, 4, &[0; 3])].concat();
    assert_eq!(
        fate_in(context(SessionType::Ebgp), &with(&twice)),
        (kept(&[4]), vec![Action::AttributeDiscard])
    );
    let mp = attr(0x80, 15, &[0, 2, 1, 0]);
    assert_eq!(external(&with(&[&mp[..], &mp].concat())), Fate::Reset(1));
}

#[test]
fn a_missing_mandatory_attribute_is_treated_as_withdraw() {
    for lacking in 0..3 {
        let list: Vec<u8> = [origin(), path(), hop()]
            .into_iter()
            .enumerate()
            .filter(|(i, _)| *i != lacking)
            .flat_map(|(_, a)| a)
            .collect();
        assert_eq!(external(&update(&[], &list, NLRI)), Fate::Withdrawn);
    }
    assert_eq!(external(&update(&[], &[], NLRI)), Fate::Withdrawn);
}

#[test]
fn prefixes_that_cannot_be_read_reset_and_martians_are_passed_over() {
    let list = [origin(), path(), hop()].concat();
    assert_eq!(
        external(&update(&[], &list, &[33, 1, 2, 3, 4, 5])),
        Fate::Reset(10)
    );
    assert_eq!(external(&update(&[], &list, &[24, 1])), Fate::Reset(10));
    assert_eq!(external(&update(&[40, 1, 2, 3, 4, 5], &[], &[])), Fate::Reset(10));
    assert_eq!(external(&update(&[], &list, &[4, 224])), Fate::Nothing);
}

/// One row: the attribute's code, flags and value, and its fate from an external and from an internal peer.
fn check(code: u8, flags: u8, value: &[u8], outside: Fate, inside: Fate) {
    let mandatory: Vec<u8> = [origin(), path(), hop()]
        .into_iter()
        .filter(|a| a[1] != code)
        .flatten()
        .collect();
    let body = update(&[], &[mandatory, attr(flags, code, value)].concat(), NLRI);
    assert_eq!(external(&body), outside, "external, attribute {code} {value:?}");
    assert_eq!(internal(&body), inside, "internal, attribute {code} {value:?}");
}

#[test]
fn well_known_attributes_row_by_row() {
    let withdrawn = |code, flags, value: &[u8]| check(code, flags, value, Fate::Withdrawn, Fate::Withdrawn);
    withdrawn(1, 0x40, &[]);
    withdrawn(1, 0x40, &[3]);
    withdrawn(1, 0x40, &[0, 0]);
    // AS_PATH: segment type, overrun, one octet left, empty segment, AS 0, confederation, too long.
    for value in [
        &[5, 1, 0, 0, 0xfd, 0xe9][..],
        &[2, 9, 0, 0, 0xfd, 0xe9],
        &[2],
        &[2, 0],
        &[2, 1, 0, 0, 0, 0],
    ] {
        withdrawn(2, 0x40, value);
    }
    withdrawn(2, 0x40, &[3, 1, 0, 0, 0xfd, 0xe9]);
    withdrawn(
        2,
        0x40,
        &[&[2, 251][..], &[0, 0, 0xfd, 0xe9].repeat(251)]
            .concat()
            .repeat(4),
    );
    check(2, 0x40, &[2, 1, 0, 0, 0, 7], Fate::Withdrawn, kept(&[]));
    check(2, 0x40, &[], Fate::Withdrawn, kept(&[]));
    for value in [
        &[192, 0, 2][..],
        &[0; 4],
        &[224, 0, 0, 1],
        &[240, 0, 0, 1],
        &[127, 0, 0, 1],
        &[192, 0, 2, 9],
    ] {
        withdrawn(3, 0x40, value);
    }
    check(5, 0x40, &[0; 3], kept(&[]), Fate::Withdrawn);
    check(5, 0x40, &[0, 0, 0, 9], kept(&[]), kept(&[5]));
    check(6, 0x40, &[], kept(&[6]), kept(&[6]));
    check(6, 0x40, &[1], kept(&[]), kept(&[]));
}

#[test]
fn a_loopback_next_hop_is_one_where_the_session_runs_over_the_loopback() {
    let by = |own: [u8; 4], next_hop: [u8; 4]| {
        let context = UpdateContext {
            own_addresses: vec![Ipv4Addr::from(own).into()],
            ..context(SessionType::Ebgp)
        };
        let attributes = [&origin()[..], &path(), &attr(0x40, 3, &next_hop)].concat();
        fate_in(context, &update(&[], &attributes, NLRI)).0
    };
    assert_eq!(by([127, 0, 0, 9], [127, 0, 0, 10]), kept(&[]));
    assert_eq!(by([127, 0, 0, 9], [127, 0, 0, 9]), Fate::Withdrawn, "ourselves");
    assert_eq!(by([192, 0, 2, 9], [127, 0, 0, 10]), Fate::Withdrawn);
}

#[test]
fn optional_attributes_row_by_row() {
    let withdrawn = |code, flags, value: &[u8]| check(code, flags, value, Fate::Withdrawn, Fate::Withdrawn);
    let discarded = |code, flags, value: &[u8]| check(code, flags, value, kept(&[]), kept(&[]));
    let stays = |code, flags, value: &[u8]| check(code, flags, value, kept(&[code]), kept(&[code]));
    withdrawn(4, 0x80, &[0; 5]);
    discarded(7, 0xc0, &[1; 6]);
    discarded(7, 0xc0, &[0, 0, 0, 0, 1, 1, 1, 1]);
    stays(7, 0xc0, &[1; 8]);
    for (code, unit) in [(8, 4), (16, 8), (25, 20), (32, 12)] {
        withdrawn(code, 0xc0, &[]);
        withdrawn(code, 0xc0, &vec![1; unit + 1]);
        stays(code, 0xc0, &vec![1; unit * 2]);
    }
    check(9, 0x80, &[1; 3], kept(&[]), Fate::Withdrawn);
    check(9, 0x80, &[1; 4], kept(&[]), kept(&[9]));
    check(10, 0x80, &[], kept(&[]), Fate::Withdrawn);
    check(10, 0x80, &[1; 6], kept(&[]), Fate::Withdrawn);
    check(10, 0x80, &[1; 8], kept(&[]), kept(&[10]));
    // From a four-octet speaker, whatever they hold.
    discarded(17, 0xc0, &[2, 1, 0, 0, 0, 5]);
    discarded(18, 0xc0, &[1; 8]);
    discarded(26, 0x80, &[1, 0, 2]);
    discarded(26, 0x80, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1]);
    withdrawn(35, 0xc0, &[1; 3]);
    stays(35, 0xc0, &[1; 4]);
    withdrawn(128, 0xc0, &[0, 0, 0]);
    withdrawn(128, 0xc0, &[&[0, 0, 0, 1][..], &attr(0x40, 1, &[7])].concat());
    stays(128, 0xc0, &[&[0, 0, 0, 1][..], &attr(0x40, 1, &[0])].concat());
}

#[test]
fn unknown_attributes_go_by_their_flags() {
    check(99, 0xc0, &[1, 2, 3], kept(&[99]), kept(&[99]));
    check(99, 0x80, &[1, 2, 3], kept(&[]), kept(&[]));
    check(99, 0x40, &[1], Fate::Withdrawn, Fate::Withdrawn);
    check(255, 0xc0, &[0], kept(&[255]), kept(&[255]));
    // What means something only inside a domain is not taken from outside.
    for code in [22, 23, 29, 40] {
        check(code, 0xc0, &[0; 2], kept(&[]), kept(&[code]));
    }
    let mut routes = Routes::default();
    Decoder::new(context(SessionType::Ebgp))
        .decode(&with(&attr(0xc0, 99, &[1])), &mut routes)
        .unwrap();
    let Some(Op::Announce(_, set, _)) = routes.ops.first() else {
        panic!("it is announced")
    };
    assert_eq!(
        set.iter().last().map(|a| a.flags),
        Some(0xe0),
        "Partial is set on the way"
    );
}

fn reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = u8::try_from(next_hop.len()).unwrap();
    attr(0x80, 14, &[&[0, 2, 1, len], next_hop, &[0], nlri].concat())
}

fn v6(next_hop: &[u8], nlri: &[u8]) -> Fate {
    external(&update(
        &[],
        &[&origin()[..], &path(), &reach(next_hop, nlri)].concat(),
        &[],
    ))
}

#[test]
fn mp_reach_and_mp_unreach_row_by_row() {
    let global = [&[0xfd, 9][..], &[0; 13], &[1]].concat();
    let both = [&global[..], &[0xfe, 0x80], &[0; 13], &[1]].concat();
    let nlri = &[64, 0xfd, 0x18, 0, 0, 0, 0, 0, 0];
    assert_eq!(v6(&global, nlri), kept(&[]));
    assert_eq!(v6(&both, nlri), kept(&[]));
    for length in [0, 4, 15, 17, 24, 33, 48] {
        assert_eq!(
            v6(&vec![0xfd; length], nlri),
            Fate::Reset(9),
            "next hop of {length} octets"
        );
    }
    assert_eq!(v6(&[0; 16], nlri), Fate::Withdrawn, "an unspecified next hop");
    assert_eq!(v6(&global, &[129, 1]), Fate::Reset(10));
    assert_eq!(external(&with(&attr(0x80, 14, &[0, 2, 1]))), Fate::Reset(9));
    assert_eq!(
        external(&with(&attr(0x80, 14, &[0, 2, 1, 16, 1]))),
        Fate::Reset(9)
    );
    assert_eq!(external(&with(&attr(0x80, 15, &[0, 2]))), Fate::Reset(9));
    assert_eq!(external(&with(&attr(0x80, 15, &[0, 2, 1, 129]))), Fate::Reset(10));
    // Another family is ignored, and what stands beside it is not.
    assert_eq!(
        external(&with(&attr(0x80, 14, &[0, 25, 70, 4, 1, 2, 3, 4, 0, 1, 2]))),
        kept(&[])
    );
    assert_eq!(external(&with(&attr(0x80, 15, &[0, 25, 70, 1, 2]))), kept(&[]));
    let only_v4 = UpdateContext {
        families: Families::IPV4,
        ..context(SessionType::Ebgp)
    };
    let body = update(
        &[],
        &[&origin()[..], &path(), &reach(&global, nlri)].concat(),
        &[],
    );
    assert_eq!(fate_in(only_v4, &body).0, Fate::Nothing);
}

#[test]
fn treat_as_withdraw_takes_both_families() {
    let nlri = &[64, 0xfd, 0x18, 0, 0, 0, 0, 0, 0];
    let global = [&[0xfd, 9][..], &[0; 13], &[1]].concat();
    let list = [&attr(0x40, 1, &[9])[..], &path(), &hop(), &reach(&global, nlri)].concat();
    let mut routes = Routes::default();
    Decoder::new(context(SessionType::Ebgp))
        .decode(&update(&[], &list, NLRI), &mut routes)
        .unwrap();
    assert!(matches!(
        routes.ops[..],
        [
            Op::Withdraw(Family::Ipv6Unicast, _),
            Op::Withdraw(Family::Ipv4Unicast, _)
        ]
    ));
}

#[test]
fn incidents_are_harmless() {
    let session = |attrs: &[u8]| external(&with(attrs));
    // CVE-2010-3035: attribute 99 of 3,000 octets; CVE-2019-5892: attribute 255; 2025-05-20: attribute 40, all zero.
    assert_eq!(session(&attr(0xe0, 99, &[0xff; 3000])), kept(&[99]));
    assert_eq!(session(&attr(0xc0, 40, &[0; 60])), kept(&[]));
    // CVE-2023-38802 and 4481: attributes 23 and 28, corrupted; CVE-2026-37459: attribute 39.
    assert_eq!(session(&attr(0xc0, 23, &[0xff])), kept(&[]));
    assert_eq!(session(&attr(0xc0, 28, &[0xff; 3])), kept(&[28]));
    assert_eq!(session(&attr(0xc0, 39, &[0, 1, 0, 200])), kept(&[39]));
    // 2025-10-24: OTC of 1,024 octets.
    assert_eq!(session(&attr(0xc0, 35, &[0; 1024])), Fate::Withdrawn);
    // CVE-2025-43972, CVE-2026-37461: short extended communities.
    assert_eq!(session(&attr(0xc0, 16, &[1; 7])), Fate::Withdrawn);
    assert_eq!(session(&attr(0xc0, 25, &[1; 3])), Fate::Withdrawn);
    // CVE-2023-46753: an unknown transitive attribute alone; CVE-2023-47234: MP_UNREACH and NLRI without mandatory ones.
    assert_eq!(external(&update(&[], &attr(0xc0, 99, &[1]), &[])), Fate::Nothing);
    assert_eq!(
        external(&update(&[], &attr(0x80, 15, &[0, 2, 1]), NLRI)),
        Fate::Withdrawn
    );
    // CVE-2023-47235: a malformed End-of-RIB; CVE-2023-41358: NLRI with attribute length 0.
    assert_eq!(
        external(&update(&[], &attr(0x80, 15, &[0, 2, 1, 200]), &[])),
        Fate::Reset(10)
    );
    assert_eq!(external(&update(&[], &[], NLRI)), Fate::Withdrawn);
    // 2009: a path of 255 and more ASNs is lawful, and keeps its length.
    let long = [
        &[2, 255][..],
        &[0, 0, 0xfd, 0xe9].repeat(255),
        &[2, 5],
        &[0, 0, 0xfd, 0xe9].repeat(5),
    ]
    .concat();
    let list = [&origin()[..], &attr(0x40, 2, &long), &hop()].concat();
    let mut routes = Routes::default();
    Decoder::new(context(SessionType::Ebgp))
        .decode(&update(&[], &list, NLRI), &mut routes)
        .unwrap();
    let Some(Op::Announce(_, set, _)) = routes.ops.first() else {
        panic!("it is announced")
    };
    assert_eq!(set.rank().path_len, 260);
}

fn two_octet() -> UpdateContext {
    UpdateContext {
        four_octet_as: false,
        ..context(SessionType::Ebgp)
    }
}

#[test]
fn two_octet_speakers_broken_as4_attributes_are_discarded() {
    // 2009-01 and CVE-2026-41643: AS4_PATH with a confederation segment, broken, in front of AS_PATH.
    let path2 = attr(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    for as4 in [&[3, 1, 0, 0, 0, 1][..], &[2, 9, 0], &[2, 1, 0, 0, 0, 0], &[]] {
        let list = [&attr(0xc0, 17, as4)[..], &origin(), &path2, &hop()].concat();
        let (fate, actions) = fate_in(two_octet(), &update(&[], &list, NLRI));
        assert_eq!(
            (fate, actions),
            (kept(&[]), vec![Action::AttributeDiscard]),
            "{as4:?}"
        );
    }
    let list = [
        &origin()[..],
        &path2,
        &hop(),
        &attr(0xc0, 17, &[2, 1, 0, 1, 0x11, 0x70]),
    ]
    .concat();
    let mut routes = Routes::default();
    Decoder::new(two_octet())
        .decode(&update(&[], &list, NLRI), &mut routes)
        .unwrap();
    let Some(Op::Announce(_, set, _)) = routes.ops.first() else {
        panic!("it is announced")
    };
    assert_eq!(as_path::text(set.as_path()), "65001 70000");
}

#[test]
fn end_of_rib_of_either_family_is_told() {
    let mut routes = Routes::default();
    let mut decoder = Decoder::new(context(SessionType::Ibgp));
    decoder.decode(&[0, 0, 0, 0], &mut routes).unwrap();
    decoder
        .decode(&update(&[], &attr(0x80, 15, &[0, 2, 1]), &[]), &mut routes)
        .unwrap();
    assert!(matches!(
        routes.ops[..],
        [
            Op::EndOfRib(Family::Ipv4Unicast),
            Op::EndOfRib(Family::Ipv6Unicast)
        ]
    ));
}

#[test]
fn a_repeated_attribute_list_is_the_same_set() {
    let (mut routes, mut decoder) = (Routes::default(), Decoder::new(context(SessionType::Ebgp)));
    decoder.decode(&with(&[]), &mut routes).unwrap();
    decoder.decode(&with(&[]), &mut routes).unwrap();
    let [Op::Announce(_, a, _), Op::Announce(_, b, _)] = &routes.ops[..] else {
        panic!("two announcements")
    };
    assert!(Arc::ptr_eq(a, b));
    // A list whose verdicts must be counted each time is not remembered.
    let odd = with(&attr(0x40, 6, &[1]));
    assert_eq!(decoder.decode(&odd, &mut routes).unwrap().len(), 1);
    assert_eq!(decoder.decode(&odd, &mut routes).unwrap().len(), 1);
}

proptest! {
    /// Whatever comes, decoding ends, and what it gives lies within the batch.
    #[test]
    fn any_octets_are_decoded_without_harm(body in proptest::collection::vec(any::<u8>(), 0..400), two in any::<bool>()) {
        let context = UpdateContext { four_octet_as: !two, ..context(SessionType::Ibgp) };
        let mut routes = Routes::default();
        let _ = Decoder::new(context).decode(&body, &mut routes);
        for op in &routes.ops {
            match op {
                Op::Announce(Family::Ipv4Unicast, _, r) | Op::Withdraw(Family::Ipv4Unicast, r) => {
                    prop_assert!(routes.v4.get(r.clone()).is_some());
                }
                Op::Announce(_, _, r) | Op::Withdraw(_, r) => prop_assert!(routes.v6.get(r.clone()).is_some()),
                Op::EndOfRib(_) => {}
            }
        }
    }

    /// Corrupting one octet of a sound UPDATE never panics, and a lawful set encodes to what it was read from.
    #[test]
    fn one_wrong_octet_is_survived(at in 0usize..60, octet in any::<u8>()) {
        let mut body = with(&attr(0xc0, 8, &[1, 2, 3, 4]));
        let at = at % body.len();
        body[at] = octet;
        let mut routes = Routes::default();
        let _ = Decoder::new(context(SessionType::Ebgp)).decode(&body, &mut routes);
        for op in &routes.ops {
            if let Op::Announce(_, set, _) = op {
                let again = AttrSet::new(set.next_hop(), &set.iter().collect::<Vec<_>>());
                prop_assert_eq!(&again, &**set);
            }
        }
    }

    #[test]
    fn prefixes_round_trip(addr in any::<u32>(), len in 0u8..=32, high in any::<u128>(), len6 in 0u8..=128) {
        let v4 = V4::from_octets(&addr.to_be_bytes(), len).unwrap();
        let v6 = V6::from_octets(&high.to_be_bytes(), len6).unwrap();
        prop_assert_eq!(V4::of_net(v4.net()), Some(v4));
        let (mut out, mut back) = (Vec::new(), Vec::new());
        v6.encode(&mut out);
        nlri::read::<V6>(&out, PathIds::Absent, &mut back).unwrap();
        prop_assert!(v6.is_martian() || back[0].prefix == v6);
    }
}

/// The next hop that is read of MP_REACH with these octets for one, on a session whose own address is this.
fn hop_on(own: &str, next_hop: &[&str]) -> Option<NextHopValue> {
    let octets: Vec<u8> = next_hop
        .iter()
        .flat_map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets())
        .collect();
    let mut decoder = Decoder::new(UpdateContext {
        own_addresses: vec![own.parse().unwrap()],
        ..context(SessionType::Ebgp)
    });
    let attrs = [
        &origin()[..],
        &path(),
        &reach(&octets, &[64, 0xfd, 0x18, 0, 0, 0, 0, 0, 0]),
    ]
    .concat();
    let mut routes = Routes::default();
    decoder.decode(&update(&[], &attrs, &[]), &mut routes).unwrap();
    routes.ops.iter().find_map(|op| match op {
        Op::Announce(_, set, _) => Some(set.next_hop()),
        _ => None,
    })
}

#[test]
fn a_link_local_next_hop_is_on_the_link_of_the_session_and_of_no_other() {
    let v6 = |a: &str| -> std::net::Ipv6Addr { a.parse().unwrap() };
    let on_seven = "fe80:0:0:7::9";
    let there = Some(NextHopValue::V6(v6("fe80:0:0:7::1"), None));
    assert_eq!(hop_on(on_seven, &["fe80::1"]), there);
    assert_eq!(hop_on(on_seven, &["2001:db8::1", "fe80::1"]), there);
    assert_eq!(hop_on(on_seven, &["::", "fe80::1"]), there);
    // What the peer writes where the link stands with us means nothing.
    assert_eq!(hop_on(on_seven, &["fe80:0:0:8::1"]), there);
    let nowhere = Some(NextHopValue::V6(v6("fe80::1"), None));
    assert_eq!(hop_on("2001:db8::9", &["fe80:0:0:8::1"]), nowhere);
    let both = NextHopValue::V6(v6("2001:db8::1"), Some(v6("fe80::1")));
    assert_eq!(hop_on("2001:db8::9", &["2001:db8::1", "fe80::1"]), Some(both));
    // Nor are we our own next hop, however it is written.
    assert_eq!(hop_on("2001:db8::9", &["2001:db8::9"]), None);
}

#[test]
fn one_route_carries_so_many_octets_of_unknown_attributes() {
    let mut attrs = [origin(), path(), hop()].concat();
    for code in 90..94 {
        attrs.extend(attr(0xc0, code, &[code; 1500]));
    }
    let mut routes = Routes::default();
    let mut decoder = Decoder::new(context(SessionType::Ebgp));
    let verdicts = decoder.decode(&update(&[], &attrs, NLRI), &mut routes).unwrap();
    let discarded: Vec<Option<u8>> = verdicts.iter().map(|v| v.attribute).collect();
    assert_eq!(discarded, [Some(92), Some(93)]);
    let Some(Op::Announce(_, set, _)) = routes.ops.first() else {
        panic!("{:?}", routes.ops)
    };
    assert_eq!(set.rank().unknown_octets, 3000);
    assert!(set.value(91).is_some() && set.value(92).is_none());
}

//! Encoders against readers of the tests' own, and octets that the RFCs draw.

use super::*;
use crate::wire::Routes;
use crate::wire::attr::{Attr, code};
use crate::wire::header::{self, HEADER_LEN};
use crate::wire::nlri::PathIds;
use crate::wire::update::{Decoder, Op, UpdateContext};
use crate::wire::{NextHopValue, Notification};
use crate::{PerFamily, policy::SessionType};
use std::time::{Duration, UNIX_EPOCH};

fn set(next_hop: NextHopValue) -> Arc<AttrSet> {
    let attr = |code, value| Attr {
        code,
        flags: crate::wire::attr::flags_of(code),
        value,
    };
    Arc::new(AttrSet::new(
        next_hop,
        &[
            attr(code::ORIGIN, &[0]),
            attr(code::AS_PATH, &[2, 1, 0, 0, 0xfd, 0xe9]),
            attr(code::COMMUNITIES, &[0xfd, 0xe9, 0, 1]),
        ],
    ))
}

fn v4() -> NextHopValue {
    NextHopValue::V4([192, 0, 2, 1].into())
}

fn v6() -> NextHopValue {
    NextHopValue::V6("2001:db8::1".parse().unwrap(), None)
}

fn watched(add_path_in: Families) -> Arc<Watched> {
    let open = |id: u8| {
        let mut out = Vec::new();
        let body = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, id, 0];
        header::message(&mut out, header::MessageType::Open, |out| {
            out.extend_from_slice(&body)
        });
        out
    };
    Arc::new(Watched {
        address: [192, 0, 2, 1].into(),
        asn: 65001,
        router_id: [192, 0, 2, 1].into(),
        local_address: [192, 0, 2, 2].into(),
        local_asn: 65000,
        ports: (179, 40000),
        opens: Arc::new(Opens {
            sent: open(2),
            received: open(1),
        }),
        add_path_in,
        since: UNIX_EPOCH + Duration::from_secs(1000),
    })
}

/// The messages that these octets hold, split by a length field of four octets at `at`, with `fixed` octets not counted in it.
fn split(mut octets: &[u8], at: usize, fixed: usize) -> Vec<&[u8]> {
    let mut out = Vec::new();
    while !octets.is_empty() {
        let len = u32::from_be_bytes(octets[at..at + 4].try_into().unwrap()) as usize + fixed;
        let (one, rest) = octets.split_at(len);
        out.push(one);
        octets = rest;
    }
    out
}

type Prefixes = Vec<(IpNet, u32)>;

/// Announced and withdrawn prefixes of UPDATEs, as a session's own decoder reads them.
fn read(updates: &[Vec<u8>], path_ids: bool) -> (Prefixes, Prefixes) {
    let ids = if path_ids {
        PathIds::Present
    } else {
        PathIds::Absent
    };
    let mut decoder = Decoder::new(UpdateContext {
        session: SessionType::Ebgp,
        peer_asn: 65001,
        four_octet_as: true,
        families: Families::BOTH,
        path_ids: PerFamily { ipv4: ids, ipv6: ids },
        extended_next_hop: true,
        enforce_first_as: true,
        own_addresses: Vec::new(),
    });
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for update in updates {
        let (_, len) = header::peek(update, header::MESSAGE_MAX).unwrap().unwrap();
        assert_eq!(len, update.len());
        let mut routes = Routes::default();
        assert_eq!(decoder.decode(&update[HEADER_LEN..], &mut routes), Ok(vec![]));
        for op in &routes.ops {
            let (to, family, range) = match op {
                Op::Announce(family, set, range) => {
                    assert!(set.value(code::COMMUNITIES).is_some());
                    (&mut up, family, range)
                }
                Op::Withdraw(family, range) => (&mut down, family, range),
                Op::EndOfRib(_) => continue,
            };
            use crate::prefix::Prefix;
            match family {
                Family::Ipv4Unicast => to.extend(
                    routes.v4[range.clone()]
                        .iter()
                        .map(|n| (n.prefix.net(), n.path_id)),
                ),
                Family::Ipv6Unicast => to.extend(
                    routes.v6[range.clone()]
                        .iter()
                        .map(|n| (n.prefix.net(), n.path_id)),
                ),
            }
        }
    }
    (up, down)
}

fn nets(family: Family, count: u32) -> Prefixes {
    let net = |n: u32| match family {
        Family::Ipv4Unicast => format!("10.{}.{}.0/24", n / 256, n % 256),
        Family::Ipv6Unicast => format!("2001:db8:{n:x}::/48"),
    };
    (0..count).map(|n| (net(n).parse().unwrap(), n + 1)).collect()
}

#[test]
fn updates_carry_every_prefix_once_and_fit_a_message() {
    for (family, hop) in [
        (Family::Ipv4Unicast, v4()),
        (Family::Ipv4Unicast, v6()),
        (Family::Ipv6Unicast, v6()),
    ] {
        for path_ids in [false, true] {
            let prefixes = nets(family, 3000);
            let plain = |(net, id): &(IpNet, u32)| (*net, if path_ids { *id } else { 0 });
            let expected: Vec<_> = prefixes.iter().map(plain).collect();
            for attrs in [Some(set(hop)), None] {
                let mut updates = Vec::new();
                update::messages(family, attrs.as_deref(), &prefixes, path_ids, |u| {
                    updates.push(u.to_vec())
                });
                assert!(updates.len() > 2);
                let (up, down) = read(&updates, path_ids);
                if attrs.is_some() {
                    assert_eq!((&up, down.len()), (&expected, 0));
                } else {
                    assert_eq!((up.len(), &down), (0, &expected));
                }
            }
        }
    }
}

#[test]
fn bmp_messages_are_as_the_rfc_draws_them() {
    let peer = watched(Families::NONE);
    let at = UNIX_EPOCH + Duration::from_micros(5_000_007);
    let mut out = Vec::new();
    bmp::initiation(&mut out, "name", "what");
    bmp::peer_up(&mut out, &peer);
    let change = |view| RouteChange {
        family: Family::Ipv4Unicast,
        view,
        attrs: Some(set(v4())),
        nlri: nets(Family::Ipv4Unicast, 2),
    };
    let routes = |view| Event::Routes(Arc::clone(&peer), change(view));
    bmp::event(&mut out, &routes(View::PrePolicy), |_| true, at);
    bmp::event(&mut out, &routes(View::PostPolicy), |_| true, at);
    bmp::event(&mut out, &routes(View::PostPolicy), |v| v == View::PrePolicy, at);
    bmp::peer_down(&mut out, &peer, &Cause::Sent(Notification::HOLD_TIMER), at);
    bmp::termination(&mut out);
    let messages = split(&out, 1, 0);
    let kinds: Vec<u8> = messages.iter().map(|m| m[5]).collect();
    assert_eq!(kinds, [4, 3, 0, 0, 2, 5]);
    assert!(messages.iter().all(|m| m[0] == 3));
    assert_eq!(
        messages[0][6..],
        [
            0, 1, 0, 4, b'w', b'h', b'a', b't', 0, 2, 0, 4, b'n', b'a', b'm', b'e'
        ]
    );
    // The Per-Peer Header: type, flags, distinguisher, address, AS, id, time.
    let header = |m: &[u8]| m[6..48].to_vec();
    let mut expected = vec![0; 10 + 12];
    expected.extend([192, 0, 2, 1, 0, 0, 0xfd, 0xe9, 192, 0, 2, 1]);
    assert_eq!(header(messages[1])[..34], expected);
    assert_eq!(header(messages[2])[34..], [0, 0, 0, 5, 0, 0, 0, 7]);
    assert_eq!((messages[2][7], messages[3][7]), (0, 0x40));
    // Peer Up: address, ports, both OPENs.
    assert_eq!(messages[1][60..64], [192, 0, 2, 2]);
    assert_eq!(messages[1][64..68], [0, 179, 0x9c, 0x40]);
    assert_eq!(
        messages[1][68..],
        [&peer.opens.sent[..], &peer.opens.received].concat()
    );
    assert_eq!(
        read(&[messages[2][48..].to_vec()], false).0.len(),
        2,
        "the UPDATE inside"
    );
    // Peer Down: reason 1 and the NOTIFICATION that we sent.
    assert_eq!((messages[4][48], messages[4][67], messages[4][68]), (1, 3, 4));
}

#[test]
fn mrt_records_are_as_the_rfc_draws_them() {
    let peer = watched(Families::NONE);
    let at = UNIX_EPOCH + Duration::from_secs(5);
    let mut out = Vec::new();
    mrt::event(&mut out, &Event::Up(Arc::clone(&peer)), at);
    let change = RouteChange {
        family: Family::Ipv4Unicast,
        view: View::PrePolicy,
        attrs: None,
        nlri: nets(Family::Ipv4Unicast, 1),
    };
    mrt::event(&mut out, &Event::Routes(Arc::clone(&peer), change), at);
    let mut dump = mrt::TableDump::begin(&mut out, at, [192, 0, 2, 2].into(), 65000, &[Arc::clone(&peer)]);
    let path = |peer, path_id| TablePath {
        peer,
        path_id,
        accepted: true,
        rewritten: false,
        attrs: set(v6()),
    };
    let entry = |peer, path_id| TableEntry {
        prefix: "2001:db8::/32".parse().unwrap(),
        paths: vec![path(peer, path_id)],
    };
    dump.entry(&mut out, &entry(Some(peer.address), 0));
    dump.entry(&mut out, &entry(Some(peer.address), 7));
    dump.entry(&mut out, &entry(None, 0));
    // Of a peer that was not there when the dump began.
    dump.entry(&mut out, &entry(Some([203, 0, 113, 1].into()), 0));
    let records = split(&out, 8, 12);
    let kinds: Vec<[u8; 4]> = records.iter().map(|r| r[4..8].try_into().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            [0, 16, 0, 5],
            [0, 16, 0, 4],
            [0, 13, 0, 1],
            [0, 13, 0, 4],
            [0, 13, 0, 10],
            [0, 13, 0, 4]
        ]
    );
    // OpenConfirm to Established, at the very end.
    assert_eq!(records[0][records[0].len() - 4..], [0, 5, 0, 6]);
    // Sequence, prefix, one entry of peer 1, since 1000; MP_REACH is next hop and its length alone.
    assert_eq!(
        records[3][12..31],
        [
            0, 0, 0, 0, 32, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 1, 0, 0, 3, 0xe8, 0, 40
        ]
    );
    assert_eq!(records[3][51..55], [0x80, 14, 17, 16], "{:02x?}", records[3]);
    assert_eq!(records[4][29..33], [0, 0, 0, 7], "the path identifier");
    assert_eq!(records[5][23..25], [0, 0], "our own");
}

//! The FSM alone and in pairs, in virtual time.

mod ending;

use super::*;
use crate::config::{LocalAs, PeerAs, PeerConfig};
use crate::family::{Families, PerFamily};
use crate::view::PeerState;
use crate::wire::header::{self, HEADER_LEN, MESSAGE_MAX, MessageType};
use crate::wire::{Capabilities, HoldTime, Notification, Open, RestartCapability};
use bytes::BytesMut;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const US: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);

fn own(asn: u32, router_id: Ipv4Addr) -> Own {
    Own {
        asn,
        router_id,
        restarting: false,
        forwarding: Families::NONE,
    }
}

fn passive() -> PeerConfig {
    PeerConfig {
        passive: true,
        ..PeerConfig::new(THEM.into(), 65001)
    }
}

/// What the peer says first; `change` makes it differ.
fn open(change: impl FnOnce(&mut Open)) -> Vec<u8> {
    let restart = RestartCapability {
        restart_secs: 90,
        families: PerFamily {
            ipv4: Some(true),
            ipv6: None,
        },
        ..RestartCapability::default()
    };
    let capabilities = Capabilities {
        families: Some(Families::IPV4),
        route_refresh: true,
        four_octet_as: Some(65001),
        restart: Some(restart),
        ..Capabilities::default()
    };
    let hold_time = HoldTime::try_from(90).unwrap();
    let mut open = Open {
        asn: 65001,
        hold_time,
        router_id: THEM,
        capabilities,
    };
    change(&mut open);
    let mut out = Vec::new();
    open.encode(&mut out);
    out
}

fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    header::keepalive(&mut out);
    out
}

fn notification(n: &Notification) -> Vec<u8> {
    let mut out = Vec::new();
    n.encode(&mut out);
    out
}

/// One peer of ours with the other side played by the test.
struct Bench {
    peer: Peer,
    now: Instant,
}

impl Bench {
    fn new(config: PeerConfig) -> Self {
        let mut peer = Peer::new(config, own(65000, US), 7);
        let now = Instant::now();
        peer.handle(now, Input::Start);
        Self { peer, now }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.peer.poll()).collect()
    }

    /// A connection of the peer, with everything that it says.
    fn accept(&mut self, said: &[&[u8]]) -> (ConnId, Vec<Output>) {
        let id = self.peer.conn_id();
        self.peer.handle(self.now, Input::Accepted(id, US.into()));
        (id, self.say(id, said))
    }

    fn say(&mut self, id: ConnId, said: &[&[u8]]) -> Vec<Output> {
        let mut buf = BytesMut::from(&said.concat()[..]);
        self.peer.handle(self.now, Input::Bytes(id, &mut buf));
        self.outputs()
    }

    fn established() -> (Self, ConnId) {
        Self::established_with(passive(), |_| ())
    }

    fn established_with(config: PeerConfig, change: impl FnOnce(&mut Open)) -> (Self, ConnId) {
        let mut bench = Self::new(config);
        let (id, out) = bench.accept(&[&open(change), &keepalive()]);
        assert!(
            out.iter()
                .any(|o| matches!(o, Output::Up(conn, _) if *conn == id)),
            "{out:?}"
        );
        (bench, id)
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.peer.handle(self.now, Input::Tick);
        self.outputs()
    }
}

/// The NOTIFICATION among the outputs.
fn sent(outputs: &[Output]) -> Option<(u8, u8)> {
    outputs.iter().find_map(|o| match o {
        Output::Send(_, bytes) => match header::peek(bytes, MESSAGE_MAX) {
            Ok(Some((MessageType::Notification, _))) => Some((bytes[HEADER_LEN], bytes[HEADER_LEN + 1])),
            _ => None,
        },
        _ => None,
    })
}

fn down(outputs: &[Output]) -> Option<&Down> {
    outputs.iter().find_map(|o| match o {
        Output::Down(down) => Some(down),
        _ => None,
    })
}

#[test]
fn open_and_keepalive_establish_a_session() {
    let (bench, _) = Bench::established();
    let session = bench.peer.session().unwrap();
    assert_eq!(
        (session.families, session.hold_secs, session.router_id),
        (Families::IPV4, 90, THEM)
    );
    assert_eq!(bench.peer.state(), PeerState::Established);
}

#[test]
fn unlawful_opens_are_answered_with_the_rfcs_subcodes() {
    let check = |change: fn(&mut Open), code| {
        let (_, out) = Bench::new(passive()).accept(&[&open(change)]);
        assert_eq!(sent(&out), Some(code));
    };
    check(
        |o| (o.asn, o.capabilities.four_octet_as) = (65002, Some(65002)),
        (2, 2),
    );
    // 2/7 would cost us BIRD's capabilities.
    check(|o| o.capabilities.families = Some(Families::IPV6), (6, 5));
    let internal = PeerConfig {
        passive: true,
        ..PeerConfig::new(THEM.into(), 65000)
    };
    let (_, out) = Bench::new(internal).accept(&[&open(|o| {
        (o.asn, o.capabilities.four_octet_as, o.router_id) = (65000, Some(65000), US);
    })]);
    assert_eq!(sent(&out), Some((2, 3)));
}

#[test]
fn external_is_whoever_has_no_number_of_ours_and_internal_whoever_has_it() {
    let check = |change: fn(&mut PeerConfig), asn: u32, code| {
        let mut config = passive();
        change(&mut config);
        let said = open(|o| (o.asn, o.capabilities.four_octet_as) = (asn, Some(asn)));
        let mut bench = Bench::new(config);
        let (id, out) = bench.accept(&[&said]);
        assert_eq!(sent(&out), code, "{asn}");
        if code.is_none() {
            bench.say(id, &[&keepalive()]);
            assert_eq!(bench.peer.session().map(|s| s.peer_asn), Some(asn));
        }
    };
    let external: fn(&mut PeerConfig) = |c| c.asn = PeerAs::External;
    let internal: fn(&mut PeerConfig) = |c| c.asn = PeerAs::Internal;
    let local: fn(&mut PeerConfig) = |c| {
        c.asn = PeerAs::External;
        c.local_as = Some(LocalAs {
            asn: 64999,
            prepend_received: false,
            replace: false,
        });
    };
    for asn in [1, 64999, 65001, 4_200_000_000] {
        check(external, asn, None);
        check(internal, asn, Some((2, 2)));
    }
    for reserved in [0, 23456, 65000] {
        check(external, reserved, Some((2, 2)));
    }
    check(internal, 65000, None);
    check(local, 64999, Some((2, 2)));
    check(local, 65000, Some((2, 2)));
    check(local, 65001, None);
}

#[test]
fn messages_out_of_place_are_fsm_errors_by_state() {
    let update = [&[0xff; 16][..], &[0, 23, 2, 0, 0, 0, 0]].concat();
    let (_, out) = Bench::new(passive()).accept(&[&keepalive()]);
    assert_eq!(sent(&out), Some((5, 1)));
    // The data is the type that was not expected (RFC 6608 section 4).
    let said = |o: &Output| matches!(o, Output::Send(_, b) if b.ends_with(&[3, 5, 1, 4]));
    assert!(out.iter().any(said), "{out:?}");
    let (_, out) = Bench::new(passive()).accept(&[&open(|_| ()), &update]);
    assert_eq!(sent(&out), Some((5, 2)));
    let (mut bench, id) = Bench::established();
    assert_eq!(sent(&bench.say(id, &[&open(|_| ())])), Some((5, 3)));
}

#[test]
fn keepalives_go_out_every_third_and_silence_ends_with_4_0() {
    let (mut bench, id) = Bench::established();
    let out = bench.after(Duration::from_secs(30));
    assert!(
        matches!(&out[..], [Output::Send(conn, bytes)] if *conn == id && *bytes == keepalive()),
        "{out:?}"
    );
    bench.say(id, &[&keepalive()]);
    bench.after(Duration::from_secs(89));
    assert_eq!(bench.peer.state(), PeerState::Established);
    let out = bench.after(Duration::from_secs(1));
    assert_eq!(sent(&out), Some((4, 0)));
    assert_eq!(
        down(&out).map(|d| d.retain),
        Some(Families::NONE),
        "without the N bit a NOTIFICATION takes the routes"
    );
}

#[test]
fn half_a_message_does_not_feed_the_hold_timer() {
    let (mut bench, id) = Bench::established();
    bench.now += Duration::from_secs(80);
    bench.say(id, &[&keepalive()[..18]]);
    assert_eq!(sent(&bench.after(Duration::from_secs(10))), Some((4, 0)));
}

#[test]
fn a_delayed_open_waits_for_the_peers_and_goes_out_when_its_time_is_up() {
    let mut config = passive();
    config.timers.delay_open = Some(Duration::from_secs(5));
    let is_open = |out: &[Output]| {
        out.iter().any(|o| {
            matches!(o, Output::Send(_, bytes) if matches!(header::peek(bytes, MESSAGE_MAX), Ok(Some((MessageType::Open, _)))))
        })
    };
    let mut bench = Bench::new(config.clone());
    let (id, out) = bench.accept(&[]);
    assert!(!is_open(&out), "{out:?}");
    assert_eq!(bench.peer.state(), PeerState::Active);
    // The peer speaks first: both messages at once.
    let out = bench.say(id, &[&open(|_| ()), &keepalive()]);
    assert!(
        is_open(&out) && out.iter().any(|o| matches!(o, Output::Up(..))),
        "{out:?}"
    );
    let mut bench = Bench::new(config.clone());
    let (id, _) = bench.accept(&[]);
    assert!(!is_open(&bench.after(Duration::from_millis(4999))));
    assert!(is_open(&bench.after(Duration::from_millis(1))));
    let out = bench.say(id, &[&open(|_| ()), &keepalive()]);
    assert!(out.iter().any(|o| matches!(o, Output::Up(..))), "{out:?}");
    // Anything but an OPEN ends the connection, and a silent one ends as any other.
    let mut bench = Bench::new(config.clone());
    let (_, out) = bench.accept(&[&keepalive()]);
    assert!(out.iter().any(|o| matches!(o, Output::Close(_))), "{out:?}");
    let mut bench = Bench::new(config);
    bench.accept(&[]);
    bench.after(Duration::from_secs(5));
    assert!(
        bench
            .after(Duration::from_secs(15))
            .iter()
            .any(|o| matches!(o, Output::Close(_)))
    );
}

#[test]
fn a_peer_that_is_shut_down_is_told_why_and_stays_down_until_it_is_not() {
    let (mut bench, _) = Bench::established();
    let configure = |bench: &mut Bench, shutdown: Option<&str>| {
        let config = PeerConfig {
            shutdown: shutdown.map(Into::into),
            ..passive()
        };
        bench
            .peer
            .handle(bench.now, Input::Configure(Box::new(config), own(65000, US)));
        bench.outputs()
    };
    let out = configure(&mut bench, Some("back at noon"));
    let said = down(&out).map(|d| d.cause.to_string());
    assert_eq!(
        said.as_deref(),
        Some("sent 6/2 administrative shutdown: back at noon")
    );
    assert_eq!(bench.peer.state(), PeerState::Idle);
    let (refused, out) = bench.accept(&[&open(|_| ())]);
    assert!(
        matches!(&out[..], [Output::Close(id)] if *id == refused),
        "{out:?}"
    );
    configure(&mut bench, None);
    let (_, out) = bench.accept(&[&open(|_| ()), &keepalive()]);
    assert!(out.iter().any(|o| matches!(o, Output::Up(..))), "{out:?}");
}

#[test]
fn the_text_of_a_shutdown_is_shown_as_received() {
    let (mut bench, id) = Bench::established();
    bench.say(id, &[&notification(&Notification::shutdown("moving house"))]);
    let (_, received) = bench.peer.last_errors();
    assert_eq!(received, Some("6/2 administrative shutdown: moving house"));
}

#[test]
fn identifiers_need_be_unique_within_an_as_only() {
    let same = |asn: u32| {
        let config = PeerConfig {
            passive: true,
            ..PeerConfig::new(THEM.into(), asn)
        };
        let (_, out) = Bench::new(config).accept(&[&open(|o| {
            (o.asn, o.capabilities.four_octet_as, o.router_id) = (asn, Some(asn), US);
        })]);
        sent(&out)
    };
    assert_eq!((same(65000), same(65001)), (Some((2, 3)), None));
}

#[test]
fn long_messages_are_taken_only_where_both_agreed() {
    let extended = |config: PeerConfig, offered| {
        let (mut bench, id) = Bench::established_with(config, |o| o.capabilities.extended_message = offered);
        let mut long = [&[0xff; 16][..], &5000u16.to_be_bytes(), &[2]].concat();
        long.extend([0, 0, 0, 0]);
        sent(&bench.say(id, &[&long]))
    };
    let deaf = PeerConfig {
        extended_messages: false,
        ..passive()
    };
    assert_eq!(extended(passive(), true), None, "it waits for the rest");
    assert_eq!(extended(passive(), false), Some((1, 2)));
    assert_eq!(extended(deaf, true), Some((1, 2)));
}

/// Both connections have come to OpenConfirm or short of it; the one that the higher identifier opened stays.
#[test]
fn a_collision_keeps_the_connection_of_the_higher_identifier() {
    let collide = |them: Ipv4Addr| {
        let mut bench = Bench::new(PeerConfig::new(THEM.into(), 65001));
        let out = bench.outputs();
        let Some(Output::Dial(dialled)) = out.first() else {
            panic!("it dials: {out:?}")
        };
        let dialled = *dialled;
        bench.peer.handle(bench.now, Input::Connected(dialled, US.into()));
        let hello = open(|o| o.router_id = them);
        let (accepted, _) = bench.accept(&[&hello]);
        let mut out = bench.say(dialled, &[&hello]);
        for id in [dialled, accepted] {
            out.extend(bench.say(id, &[&keepalive()]));
        }
        let up: Vec<ConnId> = out
            .iter()
            .filter_map(|o| {
                if let Output::Up(id, _) = o {
                    Some(*id)
                } else {
                    None
                }
            })
            .collect();
        (up == [dialled], up == [accepted])
    };
    assert_eq!(collide(Ipv4Addr::new(10, 9, 0, 9)), (false, true));
    assert_eq!(collide(Ipv4Addr::new(10, 9, 0, 1)), (true, false));
}

#[test]
fn a_changed_configuration_ends_the_session_only_if_it_must() {
    let (mut bench, _) = Bench::established();
    let live = PeerConfig {
        description: "tor".into(),
        ..passive()
    };
    bench
        .peer
        .handle(bench.now, Input::Configure(Box::new(live), own(65000, US)));
    assert!(bench.outputs().is_empty());
    let mut other = passive();
    other.timers.hold_secs = 30;
    bench
        .peer
        .handle(bench.now, Input::Configure(Box::new(other), own(65000, US)));
    assert_eq!(sent(&bench.outputs()), Some((6, 6)));
}

#[test]
fn forwarding_is_said_to_be_preserved_once_there_was_a_session() {
    let said = |out: &[Output]| {
        let Some(Output::Send(_, bytes)) = out.iter().find(|o| matches!(o, Output::Send(..))) else {
            panic!("{out:?}")
        };
        Open::decode(&bytes[HEADER_LEN..])
            .unwrap()
            .capabilities
            .restart
            .unwrap()
            .families
            .ipv4
    };
    let mut bench = Bench::new(passive());
    let (id, out) = bench.accept(&[]);
    assert_eq!(said(&out), Some(false));
    bench.say(id, &[&open(|_| ()), &keepalive()]);
    bench.peer.handle(bench.now, Input::Closed(id, "reset".into()));
    bench.outputs();
    assert_eq!(said(&bench.accept(&[]).1), Some(true));
}

proptest! {
    /// Whatever OPEN comes, the answer is never one after which BIRD drops its capabilities.
    #[test]
    fn no_open_is_answered_with_2_4_or_2_7(body in proptest::collection::vec(any::<u8>(), 10..80), version in 3u8..6) {
        let mut bytes = Vec::new();
        header::message(&mut bytes, MessageType::Open, |out| { out.push(version); out.extend(&body); });
        let (_, out) = Bench::new(passive()).accept(&[&bytes]);
        prop_assert!(!matches!(sent(&out), Some((2, 4 | 7))));
    }

    /// No octets in any state make it panic or leave two sessions.
    #[test]
    fn any_octets_in_any_state_are_survived(
        script in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..60)), 1..20),
    ) {
        let mut bench = Bench::new(PeerConfig { idle_hold: false, ..PeerConfig::new(THEM.into(), 65001) });
        let mut conns: Vec<ConnId> = Vec::new();
        for (what, noise) in script {
            let last = conns.last().copied().unwrap_or(ConnId(1));
            let out = match what {
                0 => { let (id, out) = bench.accept(&[]); conns.push(id); out }
                1 => bench.say(last, &[&open(|_| ())]),
                2 => bench.say(last, &[&keepalive()]),
                3 => bench.say(last, &[&noise]),
                4 => {
                    let mut bytes = Vec::new();
                    header::message(&mut bytes, MessageType::Update, |out| out.extend(&noise));
                    bench.say(last, &[&bytes])
                }
                _ => bench.after(Duration::from_secs(noise.len() as u64)),
            };
            drop(out);
            prop_assert!(bench.peer.conns.iter().filter(|c| c.is_established()).count() <= 1);
            prop_assert!(bench.peer.conns.len() <= 3);
        }
    }
}

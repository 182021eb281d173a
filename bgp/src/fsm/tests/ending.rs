//! How sessions end, what is kept of them, and how long the peer then stays away.

use super::*;

#[test]
fn a_peer_that_takes_nothing_is_ended_with_8_0() {
    let mut config = passive();
    config.timers.send_hold = Some(Duration::from_secs(20));
    let (mut bench, id) = Bench::established_with(config, |_| ());
    bench.peer.handle(
        bench.now,
        Input::Written {
            conn: id,
            drained: true,
        },
    );
    bench.after(Duration::from_secs(25));
    assert_eq!(
        bench.peer.state(),
        PeerState::Established,
        "nothing waits to be taken"
    );
    bench.peer.handle(bench.now, Input::Queued(id));
    bench.say(id, &[&keepalive()]);
    assert_eq!(sent(&bench.after(Duration::from_secs(20))), Some((8, 0)));
}

#[test]
fn a_lost_connection_keeps_the_routes_and_notifications_only_under_the_n_bit() {
    let gone = |n_bit: bool, said: Option<Notification>| {
        let (mut bench, id) = Bench::established_with(passive(), |o| {
            o.capabilities.restart.as_mut().unwrap().notification = n_bit;
        });
        let out = match said {
            Some(n) => bench.say(id, &[&notification(&n)]),
            None => {
                bench.peer.handle(bench.now, Input::Closed(id, "reset".into()));
                bench.outputs()
            }
        };
        down(&out).unwrap().retain
    };
    assert_eq!(gone(false, None), Families::IPV4);
    assert_eq!(gone(false, Some(Notification::RESET)), Families::NONE);
    assert_eq!(gone(true, Some(Notification::RESET)), Families::IPV4);
    assert_eq!(
        gone(true, Some(Notification::hard_reset(&Notification::RESET))),
        Families::NONE
    );
}

#[test]
fn a_stop_for_a_restart_says_nothing_except_under_the_n_bit() {
    let stopped = |n_bit: bool, stop| {
        let (mut bench, _) = Bench::established_with(passive(), |o| {
            o.capabilities.restart.as_mut().unwrap().notification = n_bit;
        });
        bench.peer.handle(bench.now, Input::Stop(stop));
        let out = bench.outputs();
        assert!(out.iter().any(|o| matches!(o, Output::Close(_))));
        sent(&out)
    };
    assert_eq!(stopped(false, Stop::Restart), None);
    assert_eq!(stopped(true, Stop::Restart), Some((6, 4)));
    assert_eq!(
        stopped(false, Stop::Notify(Notification::shutdown(""))),
        Some((6, 2))
    );
    assert_eq!(
        stopped(true, Stop::Notify(Notification::shutdown(""))),
        Some((6, 9))
    );
}

#[test]
fn a_new_connection_of_a_restarted_peer_replaces_the_session() {
    let (mut bench, old) = Bench::established();
    let (new, out) = bench.accept(&[&open(|_| ()), &keepalive()]);
    assert_eq!(
        down(&out).map(|d| (&d.cause, d.retain)),
        Some((&Cause::Replaced, Families::IPV4))
    );
    assert_eq!(
        sent(&out),
        None,
        "the peer is not told on the old connection, it is not there any more"
    );
    assert!(out.iter().any(|o| matches!(o, Output::Close(id) if *id == old)));
    assert!(out.iter().any(|o| matches!(o, Output::Up(id, _) if *id == new)));
    // Without graceful restart the session stays and the newcomer is refused.
    let (mut bench, _) = Bench::established_with(passive(), |o| o.capabilities.restart = None);
    let (_, out) = bench.accept(&[&open(|_| ())]);
    assert_eq!((sent(&out), down(&out)), (Some((6, 7)), None));
}

#[test]
fn a_silent_connection_blocks_nobody_and_ends_after_fifteen_seconds() {
    let mut bench = Bench::new(passive());
    let (silent, _) = bench.accept(&[]);
    let out = bench.after(Duration::from_secs(15));
    assert!(
        out.iter()
            .any(|o| matches!(o, Output::Close(id) if *id == silent))
    );
    assert_eq!(sent(&out), Some((4, 0)));
    let (_, out) = bench.accept(&[&open(|_| ()), &keepalive()]);
    assert!(
        out.iter().any(|o| matches!(o, Output::Up(..))),
        "there is no penalty: {out:?}"
    );
}

#[test]
fn errors_hold_the_peer_down_ever_longer_and_cease_does_not() {
    let mut bench = Bench::new(passive());
    for hold in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench.accept(&[&keepalive()]);
        let (refused, out) = bench.accept(&[]);
        assert!(
            matches!(&out[..], [Output::Close(id)] if *id == refused),
            "{out:?}"
        );
        bench.after(Duration::from_millis(hold * 1000 - 1));
        assert_eq!(bench.peer.state(), PeerState::Idle);
        bench.after(Duration::from_millis(1));
        assert_eq!(bench.peer.state(), PeerState::Active);
    }
    let (mut bench, id) = Bench::established();
    bench.say(id, &[&notification(&Notification::RESET)]);
    assert_eq!(bench.peer.state(), PeerState::Active);
}

fn too_many() -> Notification {
    Notification::max_prefixes(crate::Family::Ipv4Unicast, 10)
}

#[test]
fn too_many_prefixes_hold_the_peer_down_for_a_minute() {
    let (mut bench, _) = Bench::established();
    bench.peer.handle(bench.now, Input::Stop(Stop::Reset(too_many())));
    assert_eq!(sent(&bench.outputs()), Some((6, 1)));
    bench.after(Duration::from_secs(59));
    assert_eq!(bench.peer.state(), PeerState::Idle);
    bench.after(Duration::from_secs(1));
    assert_eq!(bench.peer.state(), PeerState::Active);
}

#[test]
fn too_many_prefixes_hold_the_peer_down_as_long_as_was_said() {
    let held = |idle_hold, prefixes_restart: Option<u64>| {
        let config = PeerConfig {
            idle_hold,
            prefixes_restart: prefixes_restart.map(Duration::from_secs),
            ..passive()
        };
        let (mut bench, _) = Bench::established_with(config, |_| ());
        bench.peer.handle(bench.now, Input::Stop(Stop::Reset(too_many())));
        let mut secs = 0;
        while bench.peer.state() == PeerState::Idle {
            secs += 1;
            bench.after(Duration::from_secs(1));
        }
        secs
    };
    assert_eq!(held(true, None), 60);
    assert_eq!(held(true, Some(5)), 5);
    assert_eq!(held(false, None), 0);
    assert_eq!(held(false, Some(300)), 300);
    // A peer that keeps routes over a NOTIFICATION must not keep these.
    let (mut bench, _) = Bench::established_with(passive(), |o| {
        o.capabilities.restart.as_mut().unwrap().notification = true;
    });
    bench.peer.handle(bench.now, Input::Stop(Stop::Reset(too_many())));
    let out = bench.outputs();
    assert_eq!(
        (sent(&out), down(&out).map(|d| d.retain)),
        (Some((6, 9)), Some(Families::NONE))
    );
}

#[test]
fn a_peer_that_took_too_much_stays_away_for_a_minute_whatever_the_owner_thinks_of_penalties() {
    for (notification, held) in [
        (Notification::OUT_OF_RESOURCES, true),
        (Notification::RESET, false),
    ] {
        let config = PeerConfig {
            idle_hold: false,
            ..passive()
        };
        let (mut bench, _) = Bench::established_with(config, |_| ());
        let stop = Stop::Reset(notification.clone());
        bench.peer.handle(bench.now, Input::Stop(stop));
        let out = bench.outputs();
        assert_eq!(sent(&out), Some((6, notification.subcode)));
        assert_eq!(down(&out).unwrap().retain, Families::NONE);
        let refused = |bench: &mut Bench| {
            let (id, out) = bench.accept(&[]);
            out.iter()
                .any(|o| matches!(o, Output::Close(closed) if *closed == id))
        };
        assert_eq!(refused(&mut bench), held, "{notification}");
        bench.after(Duration::from_secs(61));
        assert!(!refused(&mut bench), "{notification}");
    }
}

#[test]
fn what_was_too_much_is_not_kept_under_the_n_bit_either() {
    let (mut bench, _) = Bench::established_with(passive(), |o| {
        o.capabilities.restart.as_mut().unwrap().notification = true;
    });
    let stop = Stop::Reset(Notification::OUT_OF_RESOURCES);
    bench.peer.handle(bench.now, Input::Stop(stop));
    let out = bench.outputs();
    assert_eq!(sent(&out), Some((6, 9)), "a Hard Reset");
    assert_eq!(down(&out).unwrap().retain, Families::NONE);
}

#[test]
fn after_a_panic_counters_and_session_numbers_go_on() {
    let (mut bench, _) = Bench::established();
    let before = *bench.peer.counters();
    bench.peer = bench.peer.after_panic(own(65000, US), 7);
    assert_eq!(bench.peer.state(), PeerState::Idle, "it waits to be started");
    let after = *bench.peer.counters();
    assert_eq!((after.panics, after.octets_in), (1, before.octets_in));
    bench.peer.handle(bench.now, Input::Start);
    bench.accept(&[&open(|_| ()), &keepalive()]);
    assert_eq!(bench.peer.session().unwrap().id, 2);
}

//! What is kept of a peer that is away or repeats itself, and for how long; how many routes it may have.

use crate::config::PeerConfig;
use crate::family::Family;
use crate::speaker::bench::{Bench, OWN_ASN, Route, ip};
use crate::wire::community::{LLGR_STALE, NO_LLGR};
use crate::wire::{Notification, RouteRefresh};

const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const C: &str = "10.0.0.4";
const V4: Family = Family::Ipv4Unicast;

fn peer(address: &str, asn: u32, long_lived_secs: Option<u32>) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(address), asn);
    peer.graceful_restart.long_lived_secs = long_lived_secs;
    peer
}

const ONE: &str = "198.18.1.0/24";
const TWO: &str = "198.18.2.0/24";

/// A (AS 65002) keeps routes for an hour beyond its restart, B knows of that, C does not.
fn away() -> Bench {
    let mut bench = Bench::new(vec![
        peer(A, 65002, Some(3600)),
        peer(B, OWN_ASN, Some(0)),
        peer(C, OWN_ASN, None),
    ]);
    bench.announce(A, ONE, &Route::of(&[65002]));
    bench.announce(A, TWO, &Route::of(&[65002]).communities(&[NO_LLGR]));
    bench.settle();
    bench.lose(A);
    bench.settle();
    bench
}

fn stale(bench: &Bench, of: &str, prefix: &str) -> Option<bool> {
    bench
        .held(of, prefix)
        .map(|h| h.set.communities().any(|c| c == LLGR_STALE))
}

#[test]
fn a_long_absence_makes_a_last_resort_of_routes_and_a_longer_one_ends_them() {
    let mut bench = away();
    for of in [B, C] {
        assert_eq!(
            stale(&bench, of, ONE),
            Some(false),
            "a restart is no long absence"
        );
    }
    bench.after(90);
    assert_eq!(stale(&bench, B, ONE), Some(true));
    assert_eq!(
        stale(&bench, C, ONE),
        None,
        "who does not know stale routes is not sent any"
    );
    assert_eq!(stale(&bench, B, TWO), None, "NO_LLGR");
    bench.announce(C, ONE, &Route::of(&[1, 2, 3, 4]));
    bench.settle();
    assert_eq!(bench.best(ONE), Some((ip(C), None)), "any other path is better");
    bench.withdraw(C, ONE, 0);
    bench.after(3599);
    assert_eq!(bench.best(ONE), Some((ip(A), None)));
    bench.after(1);
    assert_eq!((bench.best(ONE), stale(&bench, B, ONE)), (None, None));
}

/// Whether B holds the routes as long stale.
fn both_stale(bench: &Bench) -> [Option<bool>; 2] {
    [ONE, TWO].map(|prefix| stale(bench, B, prefix))
}

/// A is back, and has repeated the second of its routes.
fn comes_back(bench: &mut Bench) {
    bench.up_with(ip(A), |_| ());
    bench.announce(A, TWO, &Route::of(&[65002]));
}

#[test]
fn a_peer_that_is_back_makes_its_routes_good_again() {
    let mut bench = away();
    bench.after(90);
    comes_back(&mut bench);
    bench.settle();
    assert_eq!(
        stale(&bench, B, ONE),
        Some(true),
        "until it says that this is all"
    );
    bench.end_of_rib(A, V4);
    bench.settle();
    assert_eq!(both_stale(&bench), [None, Some(false)]);
}

#[test]
fn a_second_loss_before_the_end_of_rib_keeps_long_stale_routes_and_nothing_else() {
    let mut bench = away();
    bench.after(90);
    comes_back(&mut bench);
    bench.lose(A);
    bench.settle();
    assert_eq!(both_stale(&bench), [Some(true), Some(false)]);
    // Without the long-lived kind, what waited in vain for the first restart goes with the second.
    let mut bench = away();
    comes_back(&mut bench);
    bench.lose(A);
    bench.settle();
    assert_eq!(both_stale(&bench), [None, Some(false)]);
}

#[test]
fn a_return_without_forwarding_ends_long_stale_routes_at_once() {
    let mut bench = away();
    bench.after(90);
    bench.up_with(ip(A), |s| {
        s.restart.as_mut().unwrap().families.ipv4 = Some(false);
        s.long_lived
            .as_mut()
            .unwrap()
            .families
            .ipv4
            .as_mut()
            .unwrap()
            .preserved = false;
    });
    bench.settle();
    assert_eq!(bench.best(ONE), None);
}

#[test]
fn what_a_peer_does_not_repeat_goes_when_it_has_ended() {
    let mut bench = Bench::new(vec![peer(A, 65002, None), peer(B, OWN_ASN, None)]);
    let announce = |bench: &mut Bench, prefix| bench.announce(A, prefix, &Route::of(&[65002]));
    announce(&mut bench, ONE);
    announce(&mut bench, TWO);
    bench.refresh(A, RouteRefresh::Begin(V4));
    announce(&mut bench, TWO);
    bench.settle();
    assert!(bench.held(B, ONE).is_some(), "it may still come");
    bench.refresh(A, RouteRefresh::End(V4));
    bench.settle();
    assert!(bench.held(B, ONE).is_none() && bench.held(B, TWO).is_some());
    // An end without a beginning ends nothing, nor does the beginning of another family.
    bench.refresh(A, RouteRefresh::End(V4));
    bench.refresh(A, RouteRefresh::Begin(Family::Ipv6Unicast));
    bench.refresh(A, RouteRefresh::End(Family::Ipv6Unicast));
    bench.settle();
    assert!(bench.held(B, TWO).is_some());
}

#[test]
fn a_repetition_that_never_ends_or_begins_a_thousand_times_does_no_harm() {
    let mut bench = Bench::new(vec![peer(A, 65002, None), peer(B, OWN_ASN, None)]);
    bench.announce(A, ONE, &Route::of(&[65002]));
    for _ in 0..1000 {
        bench.refresh(A, RouteRefresh::Begin(V4));
        bench.settle();
        assert!(bench.held(B, ONE).is_some());
    }
    bench.announce(A, TWO, &Route::of(&[65002]));
    bench.after(3600);
    assert!(bench.held(B, ONE).is_none() && bench.held(B, TWO).is_some());
}

#[test]
fn a_peer_that_asks_is_sent_everything_between_the_marks() {
    let mut bench = Bench::new(vec![peer(A, 65002, None), peer(B, OWN_ASN, None)]);
    bench.announce(A, ONE, &Route::of(&[65002]));
    bench.settle();
    bench.peers.get_mut(&ip(B)).unwrap().held.clear();
    bench.refresh(B, RouteRefresh::Request(V4));
    bench.settle();
    assert!(bench.held(B, ONE).is_some());
    assert_eq!(
        bench.peers[&ip(B)].asked,
        [RouteRefresh::Begin(V4), RouteRefresh::End(V4)]
    );
}

#[test]
fn nearly_too_many_prefixes_are_told_once_and_too_many_end_the_session() {
    let mut limited = peer(A, 65002, None);
    limited.prefixes_max = Some(10);
    let mut bench = Bench::new(vec![limited]);
    let prefix = |i: usize| format!("198.18.{i}.0/24");
    let mut told = Vec::new();
    for i in 0..10 {
        bench.announce(A, &prefix(i), &Route::of(&[65002]));
        bench.settle();
        told.push(bench.warnings.len());
    }
    assert_eq!(told, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
    assert!(
        bench.warnings[0].contains("8 ipv4-unicast prefixes"),
        "{:?}",
        bench.warnings
    );
    assert_eq!(bench.resets, [], "the bound itself may be reached");
    bench.announce(A, &prefix(10), &Route::of(&[65002]));
    bench.announce(A, &prefix(11), &Route::of(&[65002]));
    bench.settle();
    assert_eq!(bench.resets, [(ip(A), Notification::max_prefixes(V4, 10))]);
}

#[test]
fn the_fib_hears_that_a_route_is_kept_and_that_it_is_good_again() {
    let mut bench = Bench::new(vec![peer(A, 65002, None), peer(B, OWN_ASN, None)]);
    bench.speaker.subscribe();
    bench.announce(A, ONE, &Route::of(&[65002]));
    bench.announce(B, TWO, &Route::of(&[]));
    bench.settle();
    let news = |bench: &mut Bench| -> Vec<(String, bool)> {
        bench.settle();
        let changes = bench.speaker.best_changes().into_iter();
        changes
            .map(|(net, best)| (net.to_string(), best.unwrap().stale))
            .collect()
    };
    assert_eq!(
        news(&mut bench),
        [(ONE.to_owned(), false), (TWO.to_owned(), false)]
    );
    bench.lose(A);
    assert_eq!(news(&mut bench), [(ONE.to_owned(), true)]);
    bench.up_with(ip(A), |_| ());
    bench.announce(A, ONE, &Route::of(&[65002]));
    assert_eq!(news(&mut bench), [(ONE.to_owned(), false)]);
}

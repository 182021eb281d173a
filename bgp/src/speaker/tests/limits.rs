//! Bounds over all peers, and what import policy makes of routes that cannot be asked for again.

use crate::config::{Config, Limits, PeerConfig, RangeConfig};
use crate::policy::{Action, Condition, Policy, PrefixSet, Term, Verdict};
use crate::speaker::bench::{Bench, OWN_ASN, Route, ip, net};
use crate::wire::Notification;
use std::net::Ipv4Addr;
use std::sync::Arc;

const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const UNKNOWN: u8 = 99;

fn config(limits: Limits) -> Config {
    Config {
        peers: vec![PeerConfig::new(ip(A), 65002), PeerConfig::new(ip(B), 65003)],
        limits,
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    }
}

fn announce(bench: &mut Bench, from: &str, nets: std::ops::Range<u32>, route: &Route) {
    for n in nets {
        bench.announce(from, &format!("198.18.{n}.0/24"), route);
        bench.settle();
    }
}

#[test]
fn who_sent_the_most_goes_when_there_are_too_many_routes() {
    let limits = Limits {
        routes: 20,
        ..Limits::default()
    };
    let mut bench = Bench::with(config(limits));
    announce(&mut bench, A, 0..15, &Route::of(&[65002]));
    assert_eq!(bench.alarms, [] as [&str; 0]);
    announce(&mut bench, B, 100..102, &Route::of(&[65003]));
    assert!(
        bench.alarms[0].starts_with("16 routes of all peers are 80 %"),
        "{:?}",
        bench.alarms
    );
    announce(&mut bench, B, 102..105, &Route::of(&[65003]));
    assert_eq!(bench.resets, [], "the bound itself may be reached");
    // It is B that goes beyond, and A that fills the table.
    announce(&mut bench, B, 105..106, &Route::of(&[65003]));
    assert_eq!(bench.resets, [(ip(A), Notification::OUT_OF_RESOURCES)]);
    // Until A is gone, its place counts as free, but only so far.
    announce(&mut bench, A, 15..40, &Route::of(&[65002]));
    announce(&mut bench, B, 106..107, &Route::of(&[65003]));
    assert_eq!((bench.resets.len(), bench.speaker.totals().routes), (1, 22));
    announce(&mut bench, B, 107..108, &Route::of(&[65003]));
    assert_eq!(bench.resets.len(), 2, "{:?}", bench.resets);
    bench.lose_for_good(A);
    bench.settle();
    let totals = bench.speaker.totals();
    assert_eq!((totals.routes, totals.sessions_exhausted), (8, 2));
    assert_eq!(totals.alarms, [] as [&str; 0], "it has passed");
}

#[test]
fn without_a_bound_met_nobody_goes() {
    let mut bench = Bench::with(config(Limits::default()));
    announce(&mut bench, A, 0..30, &Route::of(&[65002]));
    assert_eq!((bench.resets.len(), bench.alarms.len()), (0, 0));
    assert_eq!(bench.speaker.totals().routes, 30);
    bench.lose_for_good(A);
    bench.settle();
    assert_eq!(bench.speaker.totals().routes, 0);
}

#[test]
fn who_holds_the_most_attribute_octets_goes() {
    let limits = Limits {
        attribute_octets: 3000,
        ..Limits::default()
    };
    let mut bench = Bench::with(config(limits));
    announce(&mut bench, A, 0..30, &Route::of(&[65002]));
    for n in 0..5_u32 {
        let communities: Vec<u32> = (0..200).map(|c| n << 16 | c).collect();
        let route = Route::of(&[65003]).communities(&communities);
        announce(&mut bench, B, 100 + n..101 + n, &route);
    }
    assert_eq!(bench.resets[0], (ip(B), Notification::OUT_OF_RESOURCES));
    assert!(
        bench.resets.iter().all(|(peer, _)| *peer == ip(B)),
        "{:?}",
        bench.resets
    );
}

#[test]
fn unknown_attributes_beyond_the_bound_are_left_out_and_known_ones_stay() {
    let limits = Limits {
        unknown_octets: 250,
        ..Limits::default()
    };
    let mut bench = Bench::with(config(limits));
    let with = |n: u8| Route::of(&[65002]).attr(UNKNOWN, &[n; 100]).communities(&[7]);
    for n in 0..4_u8 {
        announce(&mut bench, A, n.into()..u32::from(n) + 1, &with(n));
    }
    let carried = |bench: &Bench, n: u8| {
        let held = bench.held(B, &format!("198.18.{n}.0/24")).unwrap();
        assert_eq!(held.set.communities().collect::<Vec<_>>(), [7]);
        held.set.value(UNKNOWN).is_some()
    };
    assert_eq!(
        [0, 1, 2, 3].map(|n| carried(&bench, n)),
        [true, true, false, false]
    );
    // An equal set costs nothing more.
    announce(&mut bench, A, 9..10, &with(1));
    assert!(carried(&bench, 9));
    let totals = bench.speaker.totals();
    assert_eq!((totals.unknown_octets, totals.unknown_stripped), (200, 2));
    assert!(
        bench.alarms.iter().any(|a| a.contains("without them")),
        "{:?}",
        bench.alarms
    );
    assert_eq!(bench.resets, []);
}

#[test]
fn dynamic_neighbours_are_warned_of_before_they_are_turned_away() {
    let range = RangeConfig {
        peers_max: 5,
        ..RangeConfig::new(net("10.7.0.0/16"), 65007)
    };
    let mut bench = Bench::down(Config {
        ranges: vec![range],
        ..config(Limits::default())
    });
    let mut told = Vec::new();
    let mut welcome = |bench: &mut Bench, n: u8| {
        let place = bench.speaker.welcome(ip(&format!("10.7.0.{n}"))).is_some();
        bench.settle();
        told.push(bench.alarms.len());
        place
    };
    let places: Vec<bool> = (1..=7).map(|n| welcome(&mut bench, n)).collect();
    assert_eq!(places, [true, true, true, true, true, false, false]);
    assert_eq!(told, [0, 0, 0, 1, 1, 2, 2]);
}

fn inward(then: Vec<Action>) -> Arc<Policy> {
    let within = Condition::Prefix(PrefixSet::within([net("198.18.0.0/24")]));
    Arc::new(Policy {
        terms: vec![Term::accept("one", vec![within], then)],
        default: Verdict::Reject,
    })
}

/// What B holds of A's two routes when A, which knows no route refresh, is judged by `before` and then by `after`.
fn judged(before: Arc<Policy>, after: Arc<Policy>) -> (Vec<bool>, Bench) {
    let with = |import: Arc<Policy>| {
        let mut config = config(Limits::default());
        config.peers[0].import = import;
        config
    };
    let mut bench = Bench::down(with(before));
    bench.up_with(ip(A), |s| (s.route_refresh, s.enhanced_refresh) = (false, false));
    bench.up_with(ip(B), |_| ());
    announce(&mut bench, A, 0..2, &Route::of(&[65002]));
    bench.configure(with(after));
    bench.settle();
    let held = |n: u32| bench.held(B, &format!("198.18.{n}.0/24")).is_some();
    ((0..2).map(held).collect(), bench)
}

#[test]
fn a_policy_that_rewrote_nothing_is_replaced_without_a_reset() {
    let (held, bench) = judged(Policy::accept_all(), inward(vec![]));
    assert_eq!((held, bench.resets.len()), (vec![true, false], 0));
    let (held, bench) = judged(inward(vec![]), Policy::accept_all());
    assert_eq!((held, bench.resets.len()), (vec![true, true], 0));
    assert!(bench.warnings[0].contains("judged again"), "{:?}", bench.warnings);
    // What the new one rewrites is rewritten.
    let (held, bench) = judged(
        Policy::accept_all(),
        inward(vec![Action::AddCommunities(vec![7])]),
    );
    assert_eq!((held, bench.resets.len()), (vec![true, false], 0));
    let set = &bench.held(B, "198.18.0.0/24").unwrap().set;
    assert_eq!(set.communities().collect::<Vec<_>>(), [7]);
}

#[test]
fn a_policy_that_rewrote_routes_is_replaced_by_a_reset_that_says_why() {
    let (_, bench) = judged(inward(vec![Action::LocalPref(7)]), Policy::accept_all());
    assert_eq!(bench.resets, [(ip(A), Notification::CONFIG_CHANGE)]);
    assert!(
        bench.warnings[0].contains("route refresh"),
        "{:?}",
        bench.warnings
    );
}

#[test]
fn routes_on_their_way_out_are_judged_again_as_they_came() {
    let with = |honour| {
        let mut config = config(Limits::default());
        config.peers[0].honour_graceful_shutdown = honour;
        config
    };
    let mut bench = Bench::down(with(true));
    bench.up_with(ip(A), |s| (s.route_refresh, s.enhanced_refresh) = (false, false));
    let shutting_down = Route::of(&[65002]).communities(&[crate::wire::community::GRACEFUL_SHUTDOWN]);
    bench.announce(A, "198.18.0.0/24", &shutting_down);
    assert_eq!(bench.best("198.18.0.0/24"), Some((ip(A), Some(0))));
    bench.configure(with(false));
    assert_eq!(bench.best("198.18.0.0/24"), Some((ip(A), None)));
    bench.configure(with(true));
    assert_eq!(bench.best("198.18.0.0/24"), Some((ip(A), Some(0))));
}

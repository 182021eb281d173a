//! Several paths for a prefix (RFC 7911), in and out.

use crate::config::{AddPath, PeerConfig};
use crate::family::Families;
use crate::speaker::bench::{Bench, OWN_ASN, Route, ip, net};
use std::collections::BTreeSet;

const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const MANY: &str = "10.0.0.4";
const ONE: &str = "10.0.0.5";
const NET: &str = "198.18.0.0/24";

fn several(address: &str, asn: u32, send_max: u8) -> PeerConfig {
    PeerConfig {
        add_path: AddPath {
            receive: Families::IPV4,
            send: Families::IPV4,
            send_max,
        },
        ..PeerConfig::new(ip(address), asn)
    }
}

fn bench(send_max: u8) -> Bench {
    Bench::new(vec![
        several(A, 65002, send_max),
        PeerConfig::new(ip(B), 65003),
        several(MANY, OWN_ASN, send_max),
        PeerConfig::new(ip(ONE), OWN_ASN),
    ])
}

/// The AS paths that a peer holds for the prefix, each with its identifier.
fn held(bench: &Bench, of: &str) -> Vec<(u32, String)> {
    let of_net = bench.peers[&ip(of)]
        .held
        .iter()
        .filter(|((n, _), _)| *n == net(NET));
    of_net.map(|((_, id), h)| (*id, h.path.clone())).collect()
}

fn paths(bench: &Bench, of: &str) -> BTreeSet<String> {
    held(bench, of).into_iter().map(|(_, path)| path).collect()
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|p| (*p).to_owned()).collect()
}

#[test]
fn all_paths_go_to_who_takes_them_and_the_best_to_others() {
    let mut bench = bench(4);
    bench.announce(A, NET, &Route::of(&[65002, 7]).id(1));
    bench.announce(A, NET, &Route::of(&[65002]).id(2));
    bench.announce(B, NET, &Route::of(&[65003]));
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002", "65002 7", "65003"]));
    assert_eq!(paths(&bench, ONE), set(&["65002"]));
    let ids: BTreeSet<u32> = held(&bench, MANY).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 3, "each has an identifier of its own");
    // A is sent what did not come from it.
    assert_eq!(paths(&bench, A), set(&["64512 65003"]));
    let before = held(&bench, MANY);
    bench.withdraw(A, NET, 2);
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002 7", "65003"]));
    assert_eq!(paths(&bench, ONE), set(&["65003"]));
    let after = held(&bench, MANY);
    assert!(
        after.iter().all(|p| before.contains(p)),
        "identifiers stay: {after:?}"
    );
    bench.withdraw(A, NET, 1);
    bench.withdraw(B, NET, 0);
    bench.settle();
    assert_eq!((held(&bench, MANY), held(&bench, ONE)), (vec![], vec![]));
}

#[test]
fn no_more_than_the_best_few_are_sent() {
    let mut bench = bench(2);
    for id in 1..=5u32 {
        let path: Vec<u32> = std::iter::once(65002).chain(0..id).map(|a| a.max(7)).collect();
        bench.announce(A, NET, &Route::of(&path[..id as usize]).id(id));
    }
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002", "65002 7"]));
    bench.withdraw(A, NET, 1);
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002 7", "65002 7 7"]));
}

#[test]
fn a_path_that_did_not_change_is_not_sent_again() {
    let mut bench = bench(4);
    bench.announce(A, NET, &Route::of(&[65002]).id(1));
    bench.announce(A, NET, &Route::of(&[65002, 7]).id(2));
    bench.settle();
    let before = bench.peers[&ip(MANY)].messages;
    bench.announce(A, NET, &Route::of(&[65002, 8]).id(2));
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002", "65002 8"]));
    assert_eq!(bench.peers[&ip(MANY)].messages, before + 1);
    // Asked for, everything comes again.
    bench.peers.get_mut(&ip(MANY)).unwrap().held.clear();
    bench.refresh(
        MANY,
        crate::wire::RouteRefresh::Request(crate::Family::Ipv4Unicast),
    );
    bench.settle();
    assert_eq!(paths(&bench, MANY), set(&["65002", "65002 8"]));
}

#[test]
fn several_next_hops_of_one_peer_forward_together() {
    let mut bench = bench(4);
    bench.speaker.subscribe();
    for (id, hop) in [(1, "10.0.0.21"), (2, "10.0.0.22")] {
        let route = Route {
            hop: Some(ip(hop)),
            ..Route::of(&[65002])
        };
        bench.announce(A, NET, &route.id(id));
    }
    bench.settle();
    let best = bench.speaker.best_changes().remove(&net(NET)).flatten().unwrap();
    assert_eq!(best.next_hops, [ip("10.0.0.21"), ip("10.0.0.22")]);
}

#[test]
fn without_the_relaxation_only_equal_as_paths_forward_together() {
    for (relaxed, hops) in [(true, 2), (false, 1)] {
        let mut bench = Bench::with(crate::Config {
            peers: vec![PeerConfig::new(ip(A), 65002), PeerConfig::new(ip(B), 65003)],
            multipath_relaxed: relaxed,
            ..crate::Config::new(OWN_ASN, std::net::Ipv4Addr::new(10, 0, 0, 1))
        });
        bench.speaker.subscribe();
        bench.announce(A, NET, &Route::of(&[65002]));
        bench.announce(B, NET, &Route::of(&[65003]));
        bench.settle();
        let best = bench.speaker.best_changes().remove(&net(NET)).flatten().unwrap();
        assert_eq!(best.next_hops.len(), hops);
    }
}

#[test]
fn a_peers_own_paths_do_not_count_among_those_it_is_sent() {
    const C: &str = "10.0.0.6";
    let mut bench = Bench::new(vec![
        several(A, 65002, 2),
        several(B, 65003, 2),
        several(C, 65004, 2),
        several(MANY, 65005, 2),
    ]);
    bench.announce(A, NET, &Route::of(&[65002]).id(1));
    bench.announce(B, NET, &Route::of(&[65003, 7]).id(1));
    bench.announce(C, NET, &Route::of(&[65004, 7, 7]).id(1));
    bench.settle();
    let ours = |paths: &[&str]| -> BTreeSet<String> { paths.iter().map(|p| format!("64512 {p}")).collect() };
    assert_eq!(paths(&bench, MANY), ours(&["65002", "65003 7"]));
    assert_eq!(paths(&bench, C), ours(&["65002", "65003 7"]));
    assert_eq!(paths(&bench, A), ours(&["65003 7", "65004 7 7"]));
    assert_eq!(paths(&bench, B), ours(&["65002", "65004 7 7"]));
    let sent = |bench: &Bench, of: &str| {
        let id = bench.peers[&ip(of)].id;
        bench.speaker.prefix_counts()[&id].ipv4.advertised
    };
    assert_eq!([A, B, C, MANY].map(|p| sent(&bench, p)), [2, 2, 2, 2]);
    // The third becomes one of the first two for all, and A has what it had.
    bench.withdraw(B, NET, 1);
    bench.settle();
    assert_eq!(paths(&bench, MANY), ours(&["65002", "65004 7 7"]));
    assert_eq!(paths(&bench, A), ours(&["65004 7 7"]));
    assert_eq!(paths(&bench, B), ours(&["65002", "65004 7 7"]));
    assert_eq!(paths(&bench, C), ours(&["65002"]));
    // And the other way round.
    bench.announce(B, NET, &Route::of(&[65003]).id(1));
    bench.settle();
    assert_eq!(paths(&bench, A), ours(&["65003", "65004 7 7"]));
    assert_eq!(paths(&bench, C), ours(&["65002", "65003"]));
    bench.withdraw(A, NET, 1);
    bench.withdraw(C, NET, 1);
    bench.settle();
    assert_eq!(paths(&bench, B), set(&[]));
    assert_eq!(paths(&bench, A), ours(&["65003"]));
}

//! Route reflection (RFC 4456): who is told of whose routes, and how loops between reflectors are found.

use crate::config::{Config, PeerConfig};
use crate::speaker::bench::{Bench, OWN_ASN, Route, ip};
use std::net::Ipv4Addr;

const CLIENT: &str = "10.0.0.2";
const OTHER_CLIENT: &str = "10.0.0.3";
const PLAIN: &str = "10.0.0.4";
const OTHER_PLAIN: &str = "10.0.0.5";
const OUTSIDE: &str = "10.0.0.6";
const NET: &str = "198.18.0.0/24";
const CLUSTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn reflector() -> Bench {
    let peer = |address, client| PeerConfig {
        route_reflector_client: client,
        ..PeerConfig::new(ip(address), OWN_ASN)
    };
    Bench::with(Config {
        peers: vec![
            peer(CLIENT, true),
            peer(OTHER_CLIENT, true),
            peer(PLAIN, false),
            peer(OTHER_PLAIN, false),
            PeerConfig::new(ip(OUTSIDE), 65002),
        ],
        cluster_id: Some(CLUSTER),
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    })
}

fn told(bench: &Bench) -> Vec<&'static str> {
    let all = [CLIENT, OTHER_CLIENT, PLAIN, OTHER_PLAIN, OUTSIDE];
    all.into_iter().filter(|p| bench.held(p, NET).is_some()).collect()
}

#[test]
fn clients_routes_go_to_all_and_others_to_clients_and_outside() {
    let from = |source| {
        let mut bench = reflector();
        let path: &[u32] = if source == OUTSIDE { &[65002] } else { &[] };
        bench.announce(source, NET, &Route::of(path));
        bench.settle();
        told(&bench)
    };
    assert_eq!(from(CLIENT), [OTHER_CLIENT, PLAIN, OTHER_PLAIN, OUTSIDE]);
    assert_eq!(from(PLAIN), [CLIENT, OTHER_CLIENT, OUTSIDE]);
    assert_eq!(from(OUTSIDE), [CLIENT, OTHER_CLIENT, PLAIN, OTHER_PLAIN]);
}

#[test]
fn a_reflected_route_names_its_originator_and_the_clusters_it_passed() {
    let mut bench = reflector();
    bench.announce(CLIENT, NET, &Route::default());
    bench.settle();
    let seen = |of: &str, bench: &Bench| {
        let set = &bench.held(of, NET).unwrap().set;
        let clusters: Vec<Ipv4Addr> = set.clusters().collect();
        (
            set.rank().originator_id,
            clusters,
            bench.held(of, NET).unwrap().hop,
        )
    };
    let originator = Ipv4Addr::new(10, 0, 0, 2);
    assert_eq!(
        seen(OTHER_CLIENT, &bench),
        (Some(originator), vec![CLUSTER], Some(ip(CLIENT))),
        "the next hop is not the reflector's business"
    );
    // What comes from another reflector keeps its originator, and our cluster goes in front.
    let far = Ipv4Addr::new(10, 88, 0, 1);
    let route = Route::default().attr(9, &[10, 0, 9, 9]).attr(10, &far.octets());
    bench.announce(PLAIN, NET, &route);
    bench.withdraw(CLIENT, NET, 0);
    bench.settle();
    assert_eq!(
        seen(CLIENT, &bench),
        (
            Some(Ipv4Addr::new(10, 0, 9, 9)),
            vec![CLUSTER, far],
            Some(ip(PLAIN))
        )
    );
    assert_eq!(bench.held(OUTSIDE, NET).unwrap().set.clusters().count(), 0);
}

#[test]
fn a_route_that_has_been_here_takes_no_part_and_replaces_the_one_before() {
    let mut bench = reflector();
    let ours = |route: Route, bench: &mut Bench| {
        bench.announce(PLAIN, NET, &Route::default());
        bench.settle();
        assert_eq!(told(bench), [CLIENT, OTHER_CLIENT, OUTSIDE]);
        bench.announce(PLAIN, NET, &route);
        bench.settle();
        told(bench)
    };
    let none: [&str; 0] = [];
    let through_us = Route::default()
        .attr(9, &[10, 0, 9, 9])
        .attr(10, &[[10, 88, 0, 1], CLUSTER.octets()].concat());
    assert_eq!(ours(through_us, &mut bench), none, "our cluster is in the list");
    let of_us = Route::default().attr(9, &[10, 0, 0, 1]).attr(10, &[10, 88, 0, 1]);
    assert_eq!(ours(of_us, &mut bench), none, "we are the originator");
    let by_other = Route::default().attr(9, &[10, 0, 0, 9]).attr(10, &[10, 88, 0, 1]);
    assert_eq!(ours(by_other, &mut bench), [CLIENT, OTHER_CLIENT, OUTSIDE]);
}

#[test]
fn the_shorter_cluster_list_wins_between_equal_originators() {
    let mut bench = reflector();
    let via = |clusters: &[[u8; 4]]| {
        Route::default()
            .attr(9, &[10, 0, 9, 9])
            .attr(10, &clusters.concat())
    };
    bench.announce(PLAIN, NET, &via(&[[10, 88, 0, 1], [10, 88, 0, 2]]));
    bench.announce(OTHER_PLAIN, NET, &via(&[[10, 88, 0, 1]]));
    bench.settle();
    assert_eq!(bench.best(NET).map(|b| b.0), Some(ip(OTHER_PLAIN)));
}

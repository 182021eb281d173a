//! AS numbers, communities and next hops on the way through.

use crate::config::{Config, LocalAs, Origination, PeerAs, PeerConfig, RemovePrivate};
use crate::family::Families;
use crate::policy::{Action, Policy, Term, Verdict};
use crate::speaker::bench::{Bench, EXTERNAL_ASN, OWN_ASN, Route, ip};
use crate::wire::RouteRefresh;
use crate::wire::community::{GRACEFUL_SHUTDOWN, LLGR_STALE, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED};
use std::net::Ipv4Addr;
use std::sync::Arc;

const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const C: &str = "10.0.0.4";
const NET: &str = "198.18.0.0/24";

fn peer(address: &str, asn: u32, change: impl FnOnce(&mut PeerConfig)) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(address), asn);
    change(&mut peer);
    peer
}

fn plain(address: &str, asn: u32) -> PeerConfig {
    peer(address, asn, |_| ())
}

/// The path that B (AS 65003) holds of what A (AS 65002) announces with `path`.
fn through(path: &[u32], a: impl FnOnce(&mut PeerConfig), b: impl FnOnce(&mut PeerConfig)) -> Option<String> {
    let mut bench = Bench::new(vec![peer(A, 65002, a), peer(B, 65003, b)]);
    bench.announce(A, NET, &Route::of(path));
    bench.settle();
    bench.path(B, NET).map(str::to_owned)
}

#[test]
fn our_number_stands_first_and_loops_go_no_farther() {
    assert_eq!(
        through(&[65002, 7], |_| (), |_| ()).as_deref(),
        Some("64512 65002 7")
    );
    assert_eq!(through(&[65002, OWN_ASN], |_| (), |_| ()), None);
    let allowed = through(&[65002, OWN_ASN], |a| a.own_as_allowed = 1, |_| ());
    assert_eq!(allowed.as_deref(), Some("64512 65002 64512"));
    assert_eq!(
        through(&[65002, OWN_ASN, OWN_ASN], |a| a.own_as_allowed = 1, |_| ()),
        None
    );
}

#[test]
fn another_local_number_stands_before_or_instead_of_ours() {
    let local = |prepend_received, replace| {
        Some(LocalAs {
            asn: 64999,
            prepend_received,
            replace,
        })
    };
    let out = |l| through(&[65002], |_| (), |b| b.local_as = l);
    assert_eq!(out(local(false, false)).as_deref(), Some("64999 64512 65002"));
    assert_eq!(out(local(false, true)).as_deref(), Some("64999 65002"));
    let inward = |l| through(&[65002], |a| a.local_as = l, |_| ());
    assert_eq!(inward(local(true, false)).as_deref(), Some("64512 64999 65002"));
    assert_eq!(inward(local(false, false)).as_deref(), Some("64512 65002"));
    // A path that went through us under that number is a loop, too.
    let looped = through(&[65002, 64999], |a| a.local_as = local(false, false), |_| ());
    assert_eq!(looped, None);
}

#[test]
fn a_peer_with_our_local_number_is_internal() {
    let mut inside = plain(B, 64999);
    inside.local_as = Some(LocalAs {
        asn: 64999,
        prepend_received: false,
        replace: true,
    });
    let mut bench = Bench::new(vec![plain(A, 65002), inside]);
    bench.announce(A, NET, &Route::of(&[65002]));
    bench.settle();
    assert_eq!(bench.path(B, NET), Some("65002"));
}

#[test]
fn sites_that_share_a_number_hear_of_each_other_by_as_override() {
    let path = &[65002, 65003, 65003];
    assert_eq!(
        through(path, |_| (), |b| b.as_override = true).as_deref(),
        Some("64512 65002 64512 64512")
    );
    assert_eq!(
        through(path, |_| (), |_| ()).as_deref(),
        Some("64512 65002 65003 65003")
    );
}

#[test]
fn a_peer_whose_number_is_not_configured_has_the_one_that_it_said() {
    let any = |b: &mut PeerConfig| (b.asn, b.as_override) = (PeerAs::External, true);
    let path = &[65002, EXTERNAL_ASN, 7];
    assert_eq!(through(path, |_| (), any).as_deref(), Some("64512 65002 64512 7"));
    let inside = |b: &mut PeerConfig| b.asn = PeerAs::Internal;
    assert_eq!(through(path, |_| (), inside).as_deref(), Some("65002 65003 7"));
}

#[test]
fn private_numbers_are_removed_or_replaced_but_never_the_peers() {
    let path = &[65002, 7, 65100, 65003];
    let removed = |mode| through(path, |_| (), |b| b.remove_private = mode);
    assert_eq!(removed(RemovePrivate::All).as_deref(), Some("64512 7 65003"));
    assert_eq!(
        removed(RemovePrivate::Replace).as_deref(),
        Some("64512 64512 7 64512 65003")
    );
    assert_eq!(
        removed(RemovePrivate::Never).as_deref(),
        Some("64512 65002 7 65100 65003")
    );
}

/// Which of an external (A), an external (B) and an internal (C) peer hold a route of B's with these communities.
fn spread(communities: &[u32]) -> [bool; 3] {
    let mut bench = Bench::new(vec![plain(A, 65002), plain(B, 65003), plain(C, OWN_ASN)]);
    bench.announce(B, NET, &Route::of(&[65003]).communities(communities));
    bench.settle();
    [A, B, C].map(|p| bench.held(p, NET).is_some())
}

#[test]
fn well_known_communities_bound_the_spread_and_others_do_not() {
    assert_eq!(spread(&[]), [true, false, true]);
    assert_eq!(spread(&[NO_EXPORT]), [false, false, true]);
    assert_eq!(spread(&[NO_EXPORT_SUBCONFED]), [false, false, true]);
    assert_eq!(spread(&[NO_ADVERTISE]), [false, false, false]);
    assert_eq!(spread(&[NO_EXPORT, NO_ADVERTISE]), [false, false, false]);
    // Stale routes go to those who know what they are.
    assert_eq!(spread(&[LLGR_STALE]), [false, false, false]);
    // ACCEPT_OWN, BLACKHOLE, NOPEER and private ones are passed on like any other.
    for other in [0xffff_0001, 0xffff_029a, 0xffff_ff04, 0xfde8_0001] {
        assert_eq!(spread(&[other]), [true, false, true], "{other:#x}");
    }
}

#[test]
fn a_route_of_a_peer_that_shuts_down_comes_last() {
    let mut bench = Bench::new(vec![plain(A, 65002), plain(B, 65003)]);
    bench.announce(A, NET, &Route::of(&[65002]).communities(&[GRACEFUL_SHUTDOWN]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(A), Some(0))), "alone it is still used");
    bench.announce(B, NET, &Route::of(&[65003, 1, 2, 3]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(B), None)));
    let deaf = peer(A, 65002, |a| a.honour_graceful_shutdown = false);
    let mut bench = Bench::new(vec![deaf, plain(B, 65003)]);
    bench.announce(A, NET, &Route::of(&[65002]).communities(&[GRACEFUL_SHUTDOWN]));
    bench.announce(B, NET, &Route::of(&[65003, 1, 2, 3]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(A), None)));
}

#[test]
fn shutting_down_beats_what_import_policy_prefers() {
    let prefer = Policy {
        terms: vec![Term::change("prefer", vec![], vec![Action::LocalPref(500)])],
        default: Verdict::Accept,
    };
    let mut bench = Bench::new(vec![peer(A, 65002, |a| a.import = Arc::new(prefer))]);
    bench.announce(A, NET, &Route::of(&[65002]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(A), Some(500))));
    bench.announce(A, NET, &Route::of(&[65002]).communities(&[GRACEFUL_SHUTDOWN]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(A), Some(0))));
}

#[test]
fn a_drain_tells_every_peer_and_its_end_takes_it_back() {
    let config = |graceful_shutdown| Config {
        peers: vec![plain(A, 65002), plain(B, OWN_ASN)],
        graceful_shutdown,
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    };
    let mut bench = Bench::with(config(false));
    let local_pref = Some(2_147_482_623);
    bench.originate(&[(
        NET,
        Origination {
            local_pref,
            ..Origination::default()
        },
    )]);
    bench.settle();
    let told = |bench: &Bench, of| {
        let set = &bench.held(of, NET).unwrap().set;
        (
            set.communities().any(|c| c == GRACEFUL_SHUTDOWN),
            set.rank().local_pref,
        )
    };
    assert_eq!(
        (told(&bench, A), told(&bench, B)),
        ((false, None), (false, local_pref))
    );
    bench.configure(config(true));
    bench.settle();
    assert_eq!(
        (told(&bench, A), told(&bench, B)),
        ((true, None), (true, Some(0)))
    );
    bench.configure(config(false));
    bench.settle();
    assert_eq!(
        (told(&bench, A), told(&bench, B)),
        ((false, None), (false, local_pref))
    );
}

#[test]
fn ipv4_goes_over_ipv6_next_hops_where_that_was_agreed_on() {
    let over_v6 = |agreed| {
        peer("fd00::2", 65002, |p| {
            (p.families, p.extended_next_hop) = (Families::BOTH, agreed);
        })
    };
    for agreed in [true, false] {
        let mut bench = Bench::new(vec![over_v6(agreed), plain(A, 65003)]);
        bench.originate(&[
            (NET, Origination::default()),
            ("fd18::/64", Origination::default()),
        ]);
        bench.settle();
        let hop = |prefix| bench.held("fd00::2", prefix).and_then(|h| h.hop);
        assert_eq!(hop("fd18::/64"), Some(ip("fd00::1")));
        assert_eq!(hop(NET), agreed.then(|| ip("fd00::1")), "no next hop, no route");
        if agreed {
            // And the other way, on to a peer that takes IPv4 next hops only.
            bench.announce("fd00::2", "198.18.7.0/24", &Route::of(&[65002]));
            bench.settle();
            let hop = bench.held(A, "198.18.7.0/24").and_then(|h| h.hop);
            assert_eq!(hop, Some(ip("10.0.0.1")));
        }
    }
}

#[test]
fn long_messages_go_to_those_who_take_them_and_nobody_else() {
    // 900 large communities are 10,800 octets.
    let large: Vec<u8> = (0..900u32)
        .flat_map(|c| {
            [[0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0]]
                .concat()
                .into_iter()
                .take(8)
                .chain(c.to_be_bytes())
        })
        .collect();
    let mut bench = Bench::down(Config {
        peers: vec![plain(A, 65002), plain(B, 65003), plain(C, 65004)],
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    });
    bench.up_with(ip(A), |_| ());
    bench.up_with(ip(B), |s| s.message_max = 65_535);
    bench.up_with(ip(C), |_| ());
    bench.announce(A, NET, &Route::of(&[65002]));
    bench.settle();
    assert!(bench.held(B, NET).is_some() && bench.held(C, NET).is_some());
    bench.announce(A, NET, &Route::of(&[65002]).attr(32, &large));
    bench.settle();
    let len = |of| {
        bench
            .held(of, NET)
            .map(|h| h.set.value(32).map_or(0, <[u8]>::len))
    };
    assert_eq!(len(B), Some(10_800));
    assert_eq!(len(C), None, "what does not fit is withdrawn");
    assert!(bench.peers[&ip(B)].longest > 4096);
}

#[test]
fn a_changed_import_policy_asks_for_the_routes_again_and_a_changed_export_policy_sends_ours() {
    let prefer = |pref| {
        Arc::new(Policy {
            terms: vec![Term::change("prefer", vec![], vec![Action::LocalPref(pref)])],
            default: Verdict::Accept,
        })
    };
    let config = |import, export| Config {
        peers: vec![
            peer(A, 65002, |a| a.import = import),
            peer(B, OWN_ASN, |b| b.export = export),
        ],
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    };
    let mut bench = Bench::with(config(Policy::accept_all(), Policy::accept_all()));
    bench.announce(A, NET, &Route::of(&[65002]));
    bench.settle();
    bench.configure(config(prefer(7), prefer(9)));
    bench.settle();
    assert_eq!(
        bench.peers[&ip(A)].asked,
        [RouteRefresh::Request(crate::Family::Ipv4Unicast)]
    );
    assert_eq!(bench.held(B, NET).and_then(|h| h.set.rank().local_pref), Some(9));
    assert_eq!(
        bench.best(NET),
        Some((ip(A), None)),
        "until the peer has answered"
    );
    bench.announce(A, NET, &Route::of(&[65002]));
    bench.settle();
    assert_eq!(bench.best(NET), Some((ip(A), Some(7))));
    assert_eq!(bench.resets, []);
}

#[test]
fn over_a_link_without_addresses_both_families_go_by_our_link_local_address() {
    let b = PeerConfig::on_link("eth0", None, 65003);
    let address = b.address.to_string();
    let mut bench = Bench::down(Config {
        peers: vec![plain(A, 65002), b],
        ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
    });
    bench.up_with(ip(A), |_| ());
    bench.up_with(ip(&address), |s| s.local_address = ip("fe80:0:0:7::9"));
    bench.announce(A, NET, &Route::of(&[65002]));
    let six = "fd18::/64";
    bench.originate(&[(six, Origination::default())]);
    bench.settle();
    for prefix in [NET, six] {
        let held = bench.held(&address, prefix).unwrap();
        assert_eq!(held.hop.map(crate::link::plain), Some(ip("fe80::9")), "{prefix}");
    }
    // What is learned there is passed on with our own address.
    let over = Route {
        hop: Some(ip("fe80:0:0:7::1")),
        ..Route::of(&[65003])
    };
    bench.announce(&address, "198.18.9.0/24", &over);
    bench.settle();
    assert_eq!(bench.held(A, "198.18.9.0/24").unwrap().hop, Some(ip("10.0.0.1")));
}

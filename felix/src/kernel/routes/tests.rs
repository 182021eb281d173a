//! The delta as a pure function, and the writer against the kernel in a namespace.

use proptest::prelude::*;

use super::*;
use crate::kernel::netns::Netns;
use crate::kernel::testing::{eventually, run};

const ALL: Sweep = Sweep { own: true, bgp: true };

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn bgp(hops: &[&str]) -> Route {
    Route::bgp(hops.iter().map(|h| NextHop::via(h.parse().unwrap()))).unwrap()
}

fn arb_route() -> impl Strategy<Value = Route> {
    prop_oneof![
        Just(Route::Blackhole),
        Just(Route::Workload {
            link: IfName::fixed("cali1")
        }),
        Just(Route::Workload {
            link: IfName::fixed("cali2")
        }),
        Just(bgp(&["172.31.0.1"])),
        Just(bgp(&["172.31.0.1", "172.31.0.2"])),
    ]
}

fn arb_dst() -> impl Strategy<Value = IpNet> {
    (0..6_u8).prop_map(|i| format!("10.0.{i}.0/24").parse().unwrap())
}

fn arb_held() -> impl Strategy<Value = Held> {
    let route = (arb_route(), prop_oneof![Just(METRIC), Just(7)], any::<bool>());
    let route = route.prop_map(|(route, metric, known)| HeldRoute {
        protocol: route.protocol(),
        metric,
        route: known.then_some(route),
    });
    // The kernel holds one route for a destination and metric.
    let routes = proptest::collection::vec(route, 1..3).prop_map(|mut all| {
        all.sort_by_key(|h| h.metric);
        all.dedup_by_key(|h| h.metric);
        all
    });
    proptest::collection::btree_map(arb_dst(), routes, 0..6)
}

/// A kernel with one route for a destination and metric.
fn run_changes(mut held: Held, changes: &[Change]) -> Held {
    for change in changes {
        let slot = held.entry(change.dst()).or_default();
        match change {
            Change::Add(_, route) | Change::Replace(_, route) => {
                let had = slot.iter().any(|h| h.metric == METRIC);
                assert_eq!(had, matches!(change, Change::Replace(..)));
                slot.retain(|h| h.metric != METRIC);
                slot.push(HeldRoute {
                    protocol: route.protocol(),
                    metric: METRIC,
                    route: Some(route.clone()),
                });
            }
            Change::Delete(_, metric, protocol) => {
                let before = slot.len();
                slot.retain(|h| (h.metric, h.protocol) != (*metric, *protocol));
                assert_eq!(slot.len() + 1, before);
            }
        }
        held.retain(|_, slot| !slot.is_empty());
    }
    held
}

proptest! {
    #[test]
    fn delta_makes_what_is_held_what_is_desired(
        held in arb_held(),
        desired in proptest::collection::btree_map(arb_dst(), arb_route(), 0..6),
    ) {
        let now = run_changes(held.clone(), &delta(&desired, &held, ALL));
        prop_assert_eq!(now.len(), desired.len());
        for (dst, route) in &desired {
            prop_assert!(now[dst].len() == 1 && now[dst][0].holds(route));
        }
        prop_assert_eq!(delta(&desired, &now, ALL), vec![]);
    }

    #[test]
    fn nothing_is_deleted_before_it_may(
        held in arb_held(),
        desired in proptest::collection::btree_map(arb_dst(), arb_route(), 0..6),
    ) {
        let none = Sweep { own: false, bgp: false };
        let deletes = |sweep| delta(&desired, &held, sweep).into_iter().filter_map(|c| match c {
            Change::Delete(_, _, protocol) => Some(protocol),
            _ => None,
        }).collect::<Vec<_>>();
        prop_assert_eq!(deletes(none), Vec::<u8>::new());
        let (own, bgp) = (deletes(Sweep { own: true, ..none }), deletes(Sweep { bgp: true, ..none }));
        prop_assert!(own.iter().all(|p| *p == PROTOCOL_LOCAL));
        prop_assert!(bgp.iter().all(|p| *p == PROTOCOL_BGP));
    }
}

/// A namespace with a segment 172.31.0.0/24 on `up0` and a workload link.
fn node(test: impl FnOnce(&mut RouteWriter, &LinkTable) + Send) {
    Netns::new().unwrap().run(|| {
        for command in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip link add cali1 type veth peer name pod1",
            "ip address add 172.31.0.9/24 dev up0",
            "ip address add fd31::9/64 dev up0 nodad",
        ] {
            run(command);
        }
        for link in ["up0", "up1", "cali1", "pod1"] {
            run(&format!("ip link set {link} up"));
        }
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let all_up = |t: &LinkTable| t.iter().all(|(_, l)| l.running || l.index == 1);
        eventually("links have carrier", || {
            all_up(&LinkTable::read(&mut socket).unwrap())
        });
        let links = LinkTable::read(&mut socket).unwrap();
        test(&mut RouteWriter::open().unwrap(), &links);
    });
}

fn all_forms() -> Routes {
    let onlink = NextHop {
        dev: Some(IfName::fixed("up0")),
        onlink: true,
        ..NextHop::via("192.0.2.7".parse().unwrap())
    };
    let heavy = NextHop {
        weight: Weight::saturating(5),
        ..NextHop::via("172.31.0.3".parse().unwrap())
    };
    let link_local = NextHop {
        dev: Some(IfName::fixed("up0")),
        ..NextHop::via("fe80::1".parse().unwrap())
    };
    Routes::from([
        (
            net("10.0.0.1/32"),
            Route::Workload {
                link: IfName::fixed("cali1"),
            },
        ),
        (net("10.0.0.0/26"), Route::Blackhole),
        (net("169.254.1.1/32"), Route::ProxyArpGateway),
        (net("10.0.1.0/26"), bgp(&["172.31.0.2"])),
        // RFC 8950.
        (net("10.0.4.0/26"), bgp(&["fd31::1"])),
        (net("10.0.5.0/26"), bgp(&["fd31::1", "172.31.0.2"])),
        (net("10.0.6.0/26"), Route::bgp([link_local.clone()]).unwrap()),
        (net("10.0.2.0/26"), Route::bgp([onlink]).unwrap()),
        (
            net("10.0.3.0/26"),
            Route::bgp([heavy, NextHop::via("172.31.0.2".parse().unwrap())]).unwrap(),
        ),
        (
            net("fd00::1/128"),
            Route::Workload {
                link: IfName::fixed("cali1"),
            },
        ),
        (net("fd00::/122"), Route::Blackhole),
        (net("fd01::/64"), bgp(&["fd31::1"])),
        (net("fd02::/64"), bgp(&["fd31::1", "fd31::2"])),
        (net("fd03::/64"), Route::bgp([link_local]).unwrap()),
    ])
}

#[test]
fn every_form_of_route_is_written_read_back_and_removed() {
    node(|writer, links| {
        let before = run("ip -4 route show table main") + &run("ip -6 route show table main");
        let applied = writer.apply(&all_forms(), links, ALL).unwrap();
        assert_eq!((applied.written, applied.failed.len()), (14, 0), "{applied:?}");
        assert!(!writer.resync(links).unwrap(), "{:#?}", writer.held());
        let again = writer.apply(&all_forms(), links, ALL).unwrap();
        assert_eq!((again.written, again.deleted), (0, 0));
        let listed = run("ip -4 route show");
        for line in [
            "10.0.0.1 dev cali1 proto 80 scope link metric 1024",
            "blackhole 10.0.0.0/26 proto 80 metric 1024",
            "10.0.1.0/26 via 172.31.0.2 dev up0 proto 81 metric 1024",
            "10.0.2.0/26 via 192.0.2.7 dev up0 proto 81 metric 1024 onlink",
            "nexthop via 172.31.0.3 dev up0 weight 5",
            "10.0.4.0/26 via inet6 fd31::1 dev up0 proto 81 metric 1024",
            "nexthop via inet6 fd31::1 dev up0 weight 1",
            "10.0.6.0/26 via inet6 fe80::1 dev up0 proto 81 metric 1024",
        ] {
            assert!(listed.contains(line), "{line}\n{listed}");
        }
        assert_eq!(writer.apply(&Routes::new(), links, ALL).unwrap().deleted, 14);
        assert_eq!(
            run("ip -4 route show table main") + &run("ip -6 route show table main"),
            before
        );
    });
}

#[test]
fn a_route_changes_class_in_place() {
    node(|writer, links| {
        let forms = [
            Route::Blackhole,
            bgp(&["172.31.0.2"]),
            bgp(&["172.31.0.2", "172.31.0.3"]),
            Route::Blackhole,
        ];
        for route in forms {
            let desired = Routes::from([(net("10.0.0.0/26"), route)]);
            let applied = writer.apply(&desired, links, ALL).unwrap();
            assert_eq!(
                (applied.written, applied.deleted, applied.failed.len()),
                (1, 0, 0),
                "{applied:?}"
            );
            assert!(!writer.resync(links).unwrap());
            assert_eq!(run("ip route show 10.0.0.0/26").matches("10.0.0.0/26").count(), 1);
        }
    });
}

#[test]
fn foreign_routes_are_untouched_and_a_conflict_is_told() {
    node(|writer, links| {
        run("ip route add 10.9.0.0/24 via 172.31.0.5 proto static metric 1024");
        run("ip route add 10.8.0.0/24 via 172.31.0.5 proto bird");
        let before = run("ip route show");
        let desired = Routes::from([(net("10.9.0.0/24"), bgp(&["172.31.0.2"]))]);
        let applied = writer.apply(&desired, links, ALL).unwrap();
        assert!(
            applied.failed[&net("10.9.0.0/24")].contains("somebody else"),
            "{applied:?}"
        );
        writer.apply(&Routes::new(), links, ALL).unwrap();
        assert_eq!(run("ip route show"), before);
        run("ip route del 10.9.0.0/24");
        assert_eq!(writer.apply(&desired, links, ALL).unwrap().written, 1);
    });
}

#[test]
fn stale_routes_of_a_former_life_stay_until_told() {
    node(|writer, links| {
        writer.apply(&all_forms(), links, ALL).unwrap();
        let mut heir = RouteWriter::open().unwrap();
        let before = run("ip route show");
        let waiting = Sweep {
            own: false,
            bgp: false,
        };
        assert_eq!(heir.apply(&Routes::new(), links, waiting).unwrap().deleted, 0);
        assert_eq!(run("ip route show"), before);
        assert_eq!(
            heir.apply(
                &Routes::new(),
                links,
                Sweep {
                    own: true,
                    bgp: false
                }
            )
            .unwrap()
            .deleted,
            5
        );
        assert!(run("ip route show").contains("proto 81"));
        assert_eq!(heir.apply(&Routes::new(), links, ALL).unwrap().deleted, 9);
    });
}

#[test]
fn what_others_delete_or_change_is_noticed_and_repaired() {
    node(|writer, links| {
        writer.apply(&all_forms(), links, ALL).unwrap();
        for stranger in [
            "ip route del 10.0.1.0/26",
            "ip route replace 10.0.1.0/26 via 172.31.0.7 proto 81 metric 1024",
            "ip route add 10.77.0.0/24 via 172.31.0.7 proto 81",
            "ip -6 route del fd02::/64",
        ] {
            run(stranger);
            assert!(writer.resync(links).unwrap(), "{stranger}");
            assert_eq!(
                writer.apply(&all_forms(), links, ALL).unwrap().failed.len(),
                0,
                "{stranger}"
            );
            assert!(!writer.resync(links).unwrap(), "{stranger}");
            assert_eq!(
                writer.apply(&all_forms(), links, ALL).unwrap(),
                RoutesApplied::default(),
                "{stranger}"
            );
        }
    });
}

#[test]
fn a_route_without_its_link_or_gateway_is_tried_again() {
    node(|writer, links| {
        let desired = Routes::from([
            (
                net("10.0.0.7/32"),
                Route::Workload {
                    link: IfName::fixed("cali7"),
                },
            ),
            (net("10.0.9.0/24"), bgp(&["198.51.100.1"])),
            (net("10.0.1.0/24"), bgp(&["172.31.0.2"])),
            (net("fd09::/64"), bgp(&["172.31.0.2"])),
        ]);
        let applied = writer.apply(&desired, links, ALL).unwrap();
        assert_eq!(applied.written, 1);
        assert!(applied.failed[&net("10.0.0.7/32")].contains("cali7"));
        assert!(
            applied.failed[&net("10.0.9.0/24")].contains("invalid gateway"),
            "{applied:?}"
        );
        assert!(
            applied.failed[&net("fd09::/64")].contains("no IPv4 gateway"),
            "{applied:?}"
        );
        run("ip address add 198.51.100.9/24 dev up0");
        run("ip link add cali7 type veth peer name pod7");
        run("ip link set cali7 up");
        let links = LinkTable::read(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
        let applied = writer.apply(&desired, &links, ALL).unwrap();
        assert_eq!((applied.written, applied.failed.len()), (2, 1), "{applied:?}");
    });
}

#[test]
fn ten_thousand_routes_are_written_and_removed() {
    node(|writer, links| {
        let many: Routes = (0..10_000_u32)
            .map(|i| {
                (
                    IpNet::from(IpAddr::from(std::net::Ipv4Addr::from(0x0b00_0000 + i))),
                    bgp(&["172.31.0.2"]),
                )
            })
            .collect();
        assert_eq!(writer.apply(&many, links, ALL).unwrap().written, 10_000);
        assert!(!writer.resync(links).unwrap());
        assert_eq!(writer.apply(&Routes::new(), links, ALL).unwrap().deleted, 10_000);
    });
}

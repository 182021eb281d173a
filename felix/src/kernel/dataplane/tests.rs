//! The owner against the kernel, in namespaces.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::kernel::netns::Netns;
use crate::kernel::pod::detach;
use crate::kernel::testing::{DEADLINE, Pod, desired, eventually, run, try_run};
use crate::kernel::{Protocol, Socket};
use crate::plan::base::{self, BaseConfig};
use crate::plan::nft::{Chain, Name, Rule, Stmt};
use crate::plan::routes::NextHop;

/// A node's namespace with a running dataplane and an uplink.
fn node(test: impl FnOnce(&Handle) + Send) {
    Netns::new().unwrap().run(|| {
        for command in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip address add 172.31.0.9/24 dev up0",
        ] {
            run(command);
        }
        run("ip link set up0 up");
        run("ip link set up1 up");
        let (dataplane, handle) = Dataplane::start(Some(&base::table(&BaseConfig::default()))).unwrap();
        test(&handle);
        dataplane.stop();
    });
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

#[track_caller]
fn programmed(handle: &Handle, pod: &Pod, revision: u64) {
    wait(handle.programmed(pod.link.host, revision, DEADLINE)).unwrap();
}

fn bgp(via: &str) -> Option<Route> {
    Route::bgp([NextHop::via(via.parse().unwrap())])
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

#[test]
fn a_node_is_closed_before_anything_else() {
    node(|handle| {
        assert!(run("nft list table inet twill").contains("iifname \"cali*\" goto anti_spoof"));
        assert_eq!(handle.status().revision, 0);
    });
}

#[test]
fn a_pod_works_once_it_is_reported_as_programmed() {
    node(|handle| {
        let (a, b) = (
            Pod::attach(1, &["10.65.0.1", "fd65::1"]),
            Pod::attach(2, &["10.65.0.2", "fd65::2"]),
        );
        handle.set(desired(7, &[&a.link, &b.link]));
        programmed(handle, &a, 7);
        programmed(handle, &b, 7);
        a.reaches("10.65.0.2");
        b.reaches("fd65::1");
        assert!(handle.status().healthy(), "{:?}", handle.status());
    });
}

#[test]
fn a_link_that_comes_late_is_programmed_when_it_comes() {
    node(|handle| {
        let link = Pod::link(1, &["10.65.0.1"]);
        handle.set(desired(3, &[&link]));
        eventually("revision 3 is in the kernel", || handle.status().revision == 3);
        let error = wait(handle.programmed(link.host, 3, Duration::from_millis(1))).unwrap_err();
        assert!(
            error.to_string().contains("the interface is not there"),
            "{error}"
        );
        let a = Pod::attach(1, &["10.65.0.1"]);
        programmed(handle, &a, 3);
        eventually("ping -n -c 1 -W 1 -I 172.31.0.9 10.65.0.1", || {
            try_run("ping -n -c 1 -W 1 -I 172.31.0.9 10.65.0.1").0
        });
    });
}

#[test]
fn an_endpoint_that_goes_takes_its_route_and_policy_along() {
    node(|handle| {
        let (a, b) = (Pod::attach(1, &["10.65.0.1"]), Pod::attach(2, &["10.65.0.2"]));
        handle.set(desired(1, &[&a.link, &b.link]));
        programmed(handle, &a, 1);
        handle.set(desired(2, &[&b.link]));
        wait(handle.removed(a.link.host, 2, DEADLINE)).unwrap();
        detach(&mut Socket::open(Protocol::Route).unwrap(), a.link.host).unwrap();
        assert!(!run("ip route").contains("10.65.0.1 "));
        let ruleset = run("nft list ruleset");
        assert!(!ruleset.contains("calipod1") && ruleset.contains("calipod2"));
        eventually("ping -n -c 1 -W 1 10.65.0.2", || {
            try_run("ping -n -c 1 -W 1 10.65.0.2").0
        });
    });
}

#[test]
fn whatever_a_stranger_changes_is_repaired() {
    node(|handle| {
        let a = Pod::attach(1, &["10.65.0.1", "fd65::1"]);
        handle.set(desired(1, &[&a.link]));
        handle.bgp_routes([(net("10.66.0.0/26"), bgp("172.31.0.2"))]);
        programmed(handle, &a, 1);
        eventually("the BGP route is there", || {
            run("ip route").contains("10.66.0.0/26")
        });
        let picture = || {
            let sysctl = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
            let (_, table) = try_run("nft list table inet twill");
            let mut table: Vec<_> = table.lines().collect();
            table.sort_unstable();
            [
                table.join("\n"),
                run("ip route"),
                run("ip neigh show dev calipod1 nud permanent"),
                run("ip -6 address show dev calipod1 scope link"),
                sysctl("ipv4/conf/calipod1/proxy_arp"),
                sysctl("ipv4/conf/calipod1/forwarding"),
                run("ip -br link show dev calipod1"),
            ]
        };
        let before = picture();
        for stranger in [
            "nft flush ruleset",
            "nft insert rule inet twill forward accept",
            "nft delete element inet twill src4 { \"calipod1\" . 10.65.0.1 }",
            "ip route del 10.65.0.1",
            "ip route replace blackhole 10.66.0.0/26 proto 81 metric 1024",
            "ip neigh del 10.65.0.1 dev calipod1",
            "ip neigh replace 10.65.0.1 lladdr 02:00:00:00:00:99 nud permanent dev calipod1",
            "ip address del fe80::1/64 dev calipod1",
            "sysctl -qw net.ipv4.conf.calipod1.proxy_arp=0",
            "sysctl -qw net.ipv4.conf.calipod1.forwarding=0",
            "ip link set calipod1 down",
        ] {
            run(stranger);
            eventually(stranger, || picture() == before);
        }
        assert!(handle.status().counters.repairs >= 3);
        eventually("ping -n -c 1 -W 1 10.65.0.1", || {
            try_run("ping -n -c 1 -W 1 10.65.0.1").0
        });
    });
}

#[test]
fn a_life_after_another_keeps_everything_until_it_is_in_sync() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        run("ip link add up0 type veth peer name up1");
        run("ip address add 172.31.0.9/24 dev up0");
        run("ip link set up0 up");
        let base = base::table(&BaseConfig::default());
        let a = Pod::attach(1, &["10.65.0.1"]);
        let picture = || run("nft list ruleset") + &run("ip route");

        let (first, handle) = Dataplane::start(Some(&base)).unwrap();
        handle.set(desired(5, &[&a.link]));
        handle.bgp_routes([
            (net("10.66.0.0/26"), bgp("172.31.0.2")),
            (net("10.67.0.0/26"), bgp("172.31.0.3")),
        ]);
        programmed(&handle, &a, 5);
        eventually("both BGP routes are there", || {
            handle.status().counters.routes_written == 4
        });
        first.stop();
        let before = picture();
        eventually("ping -n -c 1 -W 1 10.65.0.1", || {
            try_run("ping -n -c 1 -W 1 10.65.0.1").0
        });

        let (second, handle) = Dataplane::start(Some(&base)).unwrap();
        handle.set(Desired {
            in_sync: false,
            table: Arc::new(base.clone()),
            ..Desired::default()
        });
        handle.resync();
        eventually("a turn is over", || handle.status().counters.turns >= 2);
        assert_eq!(picture(), before, "nothing goes before in-sync");

        // The datastore is in sync, with the pod gone; BGP is not.
        handle.set(desired(6, &[]));
        eventually("the pod's route goes", || !run("ip route").contains("10.65.0.1 "));
        assert!(run("ip route").contains("10.66.0.0/26"));
        handle.bgp_routes([(net("10.66.0.0/26"), bgp("172.31.0.2"))]);
        handle.bgp_synced();
        eventually("the stale BGP route goes", || {
            !run("ip route").contains("10.67.0.0/26")
        });
        assert!(run("ip route").contains("10.66.0.0/26"));
        second.stop();

        crate::kernel::handover::hand_back(&base).unwrap();
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(
            run("ip route").trim(),
            "172.31.0.0/24 dev up0 proto kernel scope link src 172.31.0.9 linkdown"
        );
    });
}

#[test]
fn without_its_policy_a_new_pod_gets_no_route() {
    node(|handle| {
        let (a, b) = (Pod::attach(1, &["10.65.0.1"]), Pod::attach(2, &["10.65.0.2"]));
        handle.set(desired(1, &[&a.link]));
        programmed(handle, &a, 1);
        let mut wrong = desired(2, &[&a.link, &b.link]);
        let rules = vec![Rule::new([Stmt::jump(&Name::fixed("forward"))])];
        let chain = Arc::new(Chain { base: None, rules });
        Arc::make_mut(&mut wrong.table)
            .chains
            .insert(Name::fixed("wrong"), chain);
        handle.set(wrong);
        eventually("the failure is told", || handle.status().table_error.is_some());
        let error = wait(handle.programmed(b.link.host, 2, Duration::from_millis(1)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("chain wrong"), "{error}");
        assert!(!run("ip route").contains("10.65.0.2"));
        eventually("ping -n -c 1 -W 1 10.65.0.1", || {
            try_run("ping -n -c 1 -W 1 10.65.0.1").0
        });
        handle.set(desired(3, &[&a.link, &b.link]));
        programmed(handle, &b, 3);
        a.reaches("10.65.0.2");
    });
}

#[test]
fn a_bgp_route_waits_for_its_gateway_and_follows_changes() {
    node(|handle| {
        handle.bgp_routes([(net("10.66.0.0/26"), bgp("192.0.2.1"))]);
        eventually("it is told", || handle.status().withheld.routes == 1);
        let status = handle.status();
        let reason = &status.withheld.next_hops[&"192.0.2.1".parse().unwrap()];
        assert!(reason.contains("no route"), "{reason}");
        // Kept back is not failed: nothing is tried again before the kernel says something.
        assert!(status.failed_routes.is_empty() && status.healthy());
        run("ip address add 192.0.2.9/24 dev up0");
        eventually("the route is there", || {
            run("ip route").contains("10.66.0.0/26 via 192.0.2.1")
        });
        assert_eq!(handle.status().withheld, Withheld::default());
        handle.bgp_routes([(net("10.66.0.0/26"), bgp("172.31.0.3"))]);
        eventually("the route is replaced", || {
            run("ip route").contains("10.66.0.0/26 via 172.31.0.3")
        });
        handle.bgp_synced();
        handle.bgp_routes([(net("10.66.0.0/26"), None)]);
        eventually("the route goes", || !run("ip route").contains("10.66.0.0/26"));
    });
}

#[test]
fn a_next_hop_beyond_the_subnet_is_resolved_by_the_routes_of_others_alone() {
    node(|handle| {
        let block = "10.66.0.0/26";
        let has = |what: &str| run("ip route").contains(&format!("{block} {what}"));
        handle.bgp_synced();
        handle.bgp_routes([
            (net(block), bgp("172.31.1.1")),
            // A route that BGP taught covers the next hop: it carries nothing.
            (net("172.31.1.0/24"), bgp("172.31.0.253")),
        ]);
        eventually("the taught route is there", || {
            run("ip route").contains("172.31.1.0/24 via 172.31.0.253")
        });
        eventually("it is kept back", || handle.status().withheld.routes == 1);
        assert!(!has("via"));
        run("ip route add default via 172.31.0.254");
        eventually("the default route carries it", || has("via 172.31.0.254 dev up0"));
        run("ip route add 172.31.1.0/25 via 172.31.0.252");
        eventually("the longer prefix carries it", || has("via 172.31.0.252 dev up0"));
        run("ip route replace unreachable 172.31.1.1/32");
        eventually("it is refused", || {
            handle.status().withheld.routes == 1 && !has("via")
        });
        run("ip route del unreachable 172.31.1.1/32");
        run("ip route del 172.31.1.0/25 via 172.31.0.252");
        eventually("and back", || has("via 172.31.0.254 dev up0"));
        run("ip route replace default nexthop via 172.31.0.254 weight 2 nexthop via 172.31.0.251");
        eventually("by both", || {
            let shown = run("ip route show 10.66.0.0/26");
            shown.contains("nexthop via 172.31.0.254 dev up0 weight 2")
                && shown.contains("nexthop via 172.31.0.251")
        });
        // The link goes, and with it, without a word, every route.
        run("ip link set up0 down");
        eventually("it is kept back again", || handle.status().withheld.routes == 2);
    });
}

#[test]
fn how_addresses_are_reached_is_told_and_told_again() {
    node(|handle| {
        let reach = |address: &str| {
            handle
                .status()
                .reach
                .get(&address.parse::<IpAddr>().unwrap())
                .cloned()
        };
        let all = ["172.31.0.2", "172.31.1.1", "172.31.0.9", "fe80::1"];
        handle.track(Arc::new(all.iter().map(|a| a.parse().unwrap()).collect()));
        eventually("the neighbour is on the link", || {
            matches!(reach("172.31.0.2"), Some(Reach::OnLink(_)))
        });
        let Some(Reach::OnLink(link)) = reach("172.31.0.2") else {
            panic!("just seen")
        };
        for (address, why) in [
            ("172.31.1.1", "no route"),
            ("172.31.0.9", "address of this node"),
            ("fe80::1", "link-local"),
        ] {
            let Some(Reach::Unreached(reason)) = reach(address) else {
                panic!("{address} is reached")
            };
            assert!(reason.contains(why), "{reason}");
        }
        run("ip route add default via 172.31.0.254");
        eventually("by the gateway", || {
            reach("172.31.1.1") == Some(Reach::Via(vec![link]))
        });
        handle.track(Arc::default());
        eventually("forgotten", || handle.status().reach.is_empty());
    });
}

#[test]
fn a_hand_made_link_passes_nothing_when_the_daemon_is_gone() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let (dataplane, _) = Dataplane::start(Some(&base::table(&BaseConfig::default()))).unwrap();
        dataplane.stop();
        let a = Pod::attach(1, &["10.65.0.1"]);
        run("ip link set calipod1 up");
        run("ip route add 10.65.0.1 dev calipod1");
        run("ip address add 192.0.2.1/32 dev lo");
        assert!(!a.pings("192.0.2.1"));
        assert!(!try_run("ping -n -c 1 -W 1 10.65.0.1").0);
        run("nft delete table inet twill");
        assert!(try_run("ping -n -c 1 -W 1 10.65.0.1").0);
    });
}

//! Pods in namespaces, with the tools that a user would try them by.

use std::sync::Arc;

use super::*;
use crate::kernel::links::{LinkTable, LinkWriter, node_settings};
use crate::kernel::netlink::Protocol;
use crate::kernel::netns::Netns;
use crate::kernel::nft::{Mode, Writer};
use crate::kernel::routes::{RouteWriter, Sweep};
use crate::kernel::testing::{Pod, desired, eventually, run, try_run};
use crate::plan::nft::{Atom, Kind, Name, Set};
use crate::plan::{Desired, base};

/// Applies everything, in the order of the dataplane.
fn program(desired: &Desired) {
    Writer::open()
        .unwrap()
        .apply(&desired.table, Mode::Exact)
        .unwrap();
    node_settings(desired.node).unwrap();
    let mut links = LinkWriter::open().unwrap();
    let table = links.table().unwrap();
    assert_eq!(
        links.apply(&desired.links, &table).unwrap().failed,
        Default::default()
    );
    let running = |t: &LinkTable| desired.links.keys().all(|n| t.link(n).is_some_and(|l| l.running));
    eventually("the links have carrier", || running(&links.table().unwrap()));
    let sweep = Sweep { own: true, bgp: true };
    let applied = RouteWriter::open()
        .unwrap()
        .apply(&desired.routes, &table, sweep)
        .unwrap();
    assert_eq!(applied.failed, Default::default());
}

#[test]
fn two_pods_reach_each_other_over_both_families() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod::attach(1, &["10.65.0.1", "fd65::1"]);
        let b = Pod::attach(2, &["10.65.0.2", "fd65::2"]);
        assert!(!a.pings("10.65.0.2"), "closed before it is programmed");
        program(&desired(1, &[&a.link, &b.link]));
        a.reaches("10.65.0.2");
        b.reaches("10.65.0.1");
        a.reaches("fd65::2");
        assert!(a.netns.run(|| run("ip address show eth0")).contains("mtu 1450"));
    });
}

#[test]
fn the_host_reaches_its_pod_and_the_pod_not_the_host() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        run("ip address add 192.0.2.1/32 dev lo");
        let a = Pod::attach(1, &["10.65.0.1", "fd65::1"]);
        program(&desired(1, &[&a.link]));
        eventually("ping -n -c 1 -W 1 -I 192.0.2.1 10.65.0.1", || {
            try_run("ping -n -c 1 -W 1 -I 192.0.2.1 10.65.0.1").0
        });
        assert!(!a.pings("192.0.2.1"), "defaultEndpointToHostAction is Drop");
    });
}

#[test]
fn arping_for_the_gateway_is_answered_at_once_without_a_default_route() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod::attach(1, &["10.65.0.1"]);
        program(&desired(1, &[&a.link]));
        assert_eq!(run("ip route show default"), "");
        a.netns.run(|| {
            run("ip neigh del 169.254.1.1 dev eth0");
            // A busy machine may hold the tool itself up for longer, so one quick answer of several is asked for; the kernel's
            // own delay would be 400 ms on average.
            eventually("answered within 10 ms", || {
                let said = run("arping -c 1 -w 1 -I eth0 169.254.1.1").to_lowercase();
                assert!(said.contains("ee:ee:ee:ee:ee:ee"), "{said}");
                answered_within_10_ms(&said)
            });
            // The pod works without its permanent neighbour as well.
            assert!(!run("ip neigh show 169.254.1.1").contains("PERMANENT"));
        });
    });
}

/// Both arping tools of Debian tell the round trip: `1.234ms` and `time=123.456 usec`.
fn answered_within_10_ms(said: &str) -> bool {
    let number = |unit: &str| {
        let head = said.split_once(unit)?.0;
        let at = head.rfind(|c: char| !c.is_ascii_digit() && c != '.' && c != ' ')?;
        head[at + 1..].trim().parse::<f64>().ok()
    };
    number("usec")
        .map(|us| us / 1000.0)
        .or_else(|| number("msec"))
        .or_else(|| number("ms"))
        .is_some_and(|ms| ms < 10.0)
}

#[test]
fn the_gateway_route_is_what_makes_arping_work() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod::attach(1, &["10.65.0.1"]);
        program(&desired(1, &[&a.link]));
        run("ip route del 169.254.1.1/32");
        a.netns.run(|| {
            run("ip neigh del 169.254.1.1 dev eth0");
            assert!(!try_run("arping -c 1 -w 1 -I eth0 169.254.1.1").0);
        });
    });
}

#[test]
fn attach_twice_is_one_link_and_detach_twice_is_none() {
    Netns::new().unwrap().run(|| {
        let a = Pod::attach(1, &["10.65.0.1"]);
        let mut host = Socket::open(Protocol::Route).unwrap();
        // The carrier comes by itself, at any time.
        let indexes = |host: &mut Socket| {
            let links = LinkTable::read(host).unwrap();
            links
                .iter()
                .map(|(name, l)| (*name, l.index, l.peer))
                .collect::<Vec<_>>()
        };
        let first = indexes(&mut host);
        let again = attach(&mut host, &mut a.socket(), &a.netns, &a.link).unwrap();
        assert_eq!(again.made, Made::Before);
        assert_eq!(indexes(&mut host), first);
        detach(&mut host, a.link.host).unwrap();
        detach(&mut host, a.link.host).unwrap();
        assert_eq!(LinkTable::read(&mut host).unwrap().index(&a.link.host), None);
    });
}

#[test]
fn a_prepared_pair_is_up_and_closed_and_attach_completes_it() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod {
            netns: Netns::new().unwrap(),
            link: Pod::link(1, &["10.65.0.1", "fd65::1"]),
        };
        let mut host = Socket::open(Protocol::Route).unwrap();
        let bare = PodLink {
            addresses: Vec::new(),
            ..a.link.clone()
        };
        let prepared = prepare(&mut host, &mut a.socket(), &a.netns, &bare, true).unwrap();
        assert_eq!(prepared.made, Made::Now);
        let addresses = || a.netns.run(|| run("ip -o address show dev eth0"));
        assert_eq!(addresses(), "", "no address of its own accord either");
        let attached = attach(&mut host, &mut a.socket(), &a.netns, &a.link).unwrap();
        assert_eq!(
            (attached.made, attached.host_index, attached.pod_index),
            (Made::Before, prepared.host_index, prepared.pod_index)
        );
        assert!(addresses().contains("10.65.0.1/32") && addresses().contains("fd65::1/128"));
        program(&desired(1, &[&a.link]));
        eventually("the gateway answers", || {
            a.netns.run(|| try_run("arping -c 1 -w 1 -I eth0 169.254.1.1").0)
        });
    });
}

#[test]
fn a_link_of_a_gone_sandbox_gives_way() {
    Netns::new().unwrap().run(|| {
        let old = Pod::attach(1, &["10.65.0.1"]);
        let new = Pod {
            netns: Netns::new().unwrap(),
            link: Pod::link(1, &["10.65.0.9"]),
        };
        let mut host = Socket::open(Protocol::Route).unwrap();
        let attached = attach(&mut host, &mut new.socket(), &new.netns, &new.link).unwrap();
        assert_eq!(attached.made, Made::Now);
        assert_eq!(
            LinkTable::read(&mut old.socket()).unwrap().index(&old.link.pod),
            None
        );
    });
}

#[test]
fn an_interface_of_the_pods_own_is_not_taken() {
    Netns::new().unwrap().run(|| {
        let pod = Pod {
            netns: Netns::new().unwrap(),
            link: Pod::link(1, &["10.65.0.1"]),
        };
        pod.netns
            .run(|| run("ip link add eth0 type veth peer name other"));
        let mut host = Socket::open(Protocol::Route).unwrap();
        let error = attach(&mut host, &mut pod.socket(), &pod.netns, &pod.link).unwrap_err();
        assert!(matches!(error, PodError::NameTaken(..)), "{error}");
        assert_eq!(LinkTable::read(&mut host).unwrap().index(&pod.link.host), None);
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    Netns::new().unwrap().run(|| {
        let mut pod = Pod {
            netns: Netns::new().unwrap(),
            link: Pod::link(1, &["10.65.0.1"]),
        };
        pod.link.addresses.push("224.0.0.1".parse().unwrap());
        pod.link.addresses.push("255.255.255.255".parse().unwrap());
        pod.link.mtu = 1;
        let mut host = Socket::open(Protocol::Route).unwrap();
        let error = attach(&mut host, &mut pod.socket(), &pod.netns, &pod.link).unwrap_err();
        assert!(matches!(error, PodError::Step { .. }), "{error}");
        assert_eq!(LinkTable::read(&mut host).unwrap().index(&pod.link.host), None);
    });
}

#[test]
fn a_spoofed_source_is_dropped() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod::attach(1, &["10.65.0.1"]);
        let b = Pod::attach(2, &["10.65.0.2"]);
        program(&desired(1, &[&a.link, &b.link]));
        a.netns.run(|| {
            run("ip address add 10.65.0.7/32 dev eth0");
            assert!(try_run("ping -n -c 1 -W 1 -I 10.65.0.1 10.65.0.2").0);
            assert!(!try_run("ping -n -c 1 -W 1 -I 10.65.0.7 10.65.0.2").0);
        });
        // With the way back known, only the table can have dropped it.
        run("ip route add 10.65.0.7 dev calipod1");
        a.netns
            .run(|| assert!(!try_run("ping -n -c 1 -W 1 -I 10.65.0.7 10.65.0.2").0));
        // Until the endpoint may use the network; others still may not.
        let mut allowed = desired(2, &[&a.link, &b.link]);
        let sets = &mut Arc::make_mut(&mut allowed.table).sets;
        let further = sets
            .entry(Name::fixed(base::SPOOF4))
            .or_insert_with(|| Arc::new(Set::of(&[Kind::IfName, Kind::Ipv4]).interval()));
        let net = Atom::net("10.65.0.4/30".parse().unwrap());
        Arc::make_mut(further).insert(&[a.link.host.into(), net]);
        program(&allowed);
        a.netns.run(|| {
            assert!(try_run("ping -n -c 1 -W 1 -I 10.65.0.7 10.65.0.2").0);
            run("ip address add 10.65.0.9/32 dev eth0");
        });
        run("ip route add 10.65.0.9 dev calipod1");
        a.netns
            .run(|| assert!(!try_run("ping -n -c 1 -W 1 -I 10.65.0.9 10.65.0.2").0));
    });
}

#[test]
fn a_hand_made_workload_link_passes_nothing_with_the_table_present() {
    let hand_made = |closed: bool| {
        Netns::new().unwrap().run(|| {
            run("ip link set lo up");
            let a = Pod::attach(1, &["10.65.0.1"]);
            program(&desired(1, &[&a.link]));
            let stranger = Netns::new().unwrap();
            run("ip link add calihand type veth peer name peer0");
            let mut host = Socket::open(Protocol::Route).unwrap();
            let index = LinkTable::read(&mut host)
                .unwrap()
                .index(&IfName::fixed("peer0"))
                .unwrap();
            let fd = stranger.as_fd().as_raw_fd().to_ne_bytes();
            let body = r::ifinfomsg(index, 0, 0);
            host.request(r::RTM_NEWLINK, 0, &body, |w| w.attr(r::IFLA_NET_NS_FD, &fd))
                .unwrap();
            run("ip link set calihand up");
            run("ip route add 10.65.9.9 dev calihand");
            run("sysctl -qw net.ipv4.conf.calihand.proxy_arp=1");
            stranger.run(|| {
                run("ip address add 10.65.9.9/32 dev peer0");
                run("ip link set peer0 up");
                run("ip route add default dev peer0");
            });
            if !closed {
                run("nft delete table inet twill");
            }
            let out = stranger.run(|| try_run("ping -n -c 1 -W 1 10.65.0.1").0);
            let back = a.pings("10.65.9.9");
            run("ip address add 192.0.2.1/32 dev lo");
            let host = try_run("ping -n -c 1 -W 1 -I 192.0.2.1 10.65.9.9").0;
            let to_host = stranger.run(|| try_run("ping -n -c 1 -W 1 192.0.2.1").0);
            [out, back, host, to_host]
        })
    };
    assert_eq!(hand_made(true), [false; 4]);
    assert_eq!(
        hand_made(false),
        [true; 4],
        "without the table the same link passes everything"
    );
}

#[test]
fn a_second_interface_leaves_the_first_ones_default_route_and_both_addresses_are_reached() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        run("ip address add 192.0.2.1/32 dev lo");
        run("ip address add 2001:db8::1/128 dev lo nodad");
        let a = Pod::attach(1, &["10.65.0.1", "fd65::1"]);
        let mut second = Pod::link(2, &["10.66.0.1", "fd66::1"]);
        second.pod = IfName::fixed("net1");
        let mut host = Socket::open(Protocol::Route).unwrap();
        for made in [Made::Now, Made::Before] {
            let attached = attach(&mut host, &mut a.socket(), &a.netns, &second).unwrap();
            assert_eq!(attached.made, made);
            assert_eq!(
                attached.routing,
                Routing::Own(OWN_TABLE_BASE + attached.pod_index)
            );
        }
        let again = attach(&mut host, &mut a.socket(), &a.netns, &a.link).unwrap();
        assert_eq!(again.routing, Routing::Main);
        let default = a.netns.run(|| run("ip route show default"));
        assert_eq!(default.trim(), "default via 169.254.1.1 dev eth0 proto static");
        program(&desired(1, &[&a.link, &second]));
        for (from, to) in [
            ("192.0.2.1", "10.65.0.1"),
            ("192.0.2.1", "10.66.0.1"),
            ("2001:db8::1", "fd65::1"),
            ("2001:db8::1", "fd66::1"),
        ] {
            let ping = format!("ping -n -c 1 -W 1 -I {from} {to}");
            eventually(&ping, || try_run(&ping).0);
        }
        // Without the rule the answer leaves by the first interface, where its source is a foreign one.
        a.netns.run(|| run("ip rule del from 10.66.0.1 priority 10000"));
        assert!(!try_run("ping -n -c 1 -W 1 -I 192.0.2.1 10.66.0.1").0);
    });
}

#[test]
fn inspection_names_each_thing_that_is_no_longer_as_it_was_made() {
    Netns::new().unwrap().run(|| {
        run("ip link set lo up");
        let a = Pod::attach(1, &["10.65.0.1", "fd65::1"]);
        program(&desired(1, &[&a.link]));
        let want = Expected {
            link: a.link.clone(),
            routes: vec![
                ("0.0.0.0/0".parse().unwrap(), GATEWAY_V4.into()),
                ("::/0".parse().unwrap(), GATEWAY_V6.into()),
            ],
        };
        let look = |want: &Expected| {
            let mut host = Socket::open(Protocol::Route).unwrap();
            inspect(&mut host, &mut a.socket(), want).unwrap()
        };
        assert_eq!(look(&want), Vec::<String>::new());
        let other = Expected {
            link: PodLink {
                mtu: 9000,
                mac: Mac([2, 0, 0, 0, 0, 9]),
                ..a.link.clone()
            },
            routes: vec![("10.9.0.0/16".parse().unwrap(), GATEWAY_V4.into())],
        };
        let said = look(&other).join("; ");
        for part in [
            "MTU 1450, not 9000",
            "not 02:00:00:00:00:09",
            "no route to 10.9.0.0/16",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let breakages = [
            ("ip neigh del 169.254.1.1 dev eth0", "gateway 169.254.1.1"),
            ("ip route del default", "no route to 0.0.0.0/0"),
            ("ip address del 10.65.0.1/32 dev eth0", "address 10.65.0.1"),
            ("ip link set eth0 down", "eth0 is down"),
        ];
        for (breakage, named) in breakages {
            a.netns.run(|| run(breakage));
            let said = look(&want);
            assert!(said.iter().any(|s| s.contains(named)), "{breakage}: {said:?}");
        }
        run("ip route del 10.65.0.1");
        assert!(look(&want).iter().any(|s| s.contains("route to 10.65.0.1")));
        run("ip link del calipod1");
        let said = look(&want);
        assert!(said.iter().any(|s| s.contains("gone from the host")), "{said:?}");
        assert!(said.iter().any(|s| s.contains("gone from the pod")), "{said:?}");
    });
}

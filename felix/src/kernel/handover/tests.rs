//! In a network namespace of their own, with the routes that a Calico node has.

use super::*;
use crate::kernel::netns::Netns;
use crate::kernel::testing::run;
use crate::plan::base::{self, BaseConfig};

/// A node with an uplink and a pod's link.
fn node(test: impl FnOnce() + Send) {
    Netns::new().unwrap().run(|| {
        for line in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip link set up1 up",
            "ip link set up0 up",
            "ip address add 172.31.0.9/24 dev up0",
            "ip link add cali1234 type veth peer name pod0",
            "ip link set pod0 up",
            "ip link set cali1234 up",
        ] {
            run(line);
        }
        test();
    });
}

fn routes_of(protocol: &str) -> Vec<String> {
    let text = run(&format!("ip route show proto {protocol}"));
    let mut lines: Vec<_> = text
        .lines()
        .map(|l| {
            l.split_whitespace()
                .filter(|w| *w != "linkdown")
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    lines.sort();
    lines
}

const POOL: &str = "10.65.0.0/16";

#[test]
fn routes_of_a_calico_node_become_ours_and_those_outside_the_pools_stay() {
    node(|| {
        for line in [
            "ip route add 10.65.1.0/26 via 172.31.0.2 dev up0 proto bird metric 1024",
            "ip route add 10.65.1.7/32 via 172.31.0.3 dev up0 proto bird metric 512",
            "ip route add blackhole 10.65.0.0/26 proto bird",
            "ip route add 10.65.0.1/32 dev cali1234 scope link proto boot",
            // An operator's own.
            "ip route add 192.0.2.0/24 via 172.31.0.2 proto bird",
            "ip route add 10.65.9.0/24 via 172.31.0.2 proto boot",
        ] {
            run(line);
        }
        let adopted = adopt_routes(&[POOL.parse().unwrap()]).unwrap();
        assert_eq!((adopted.routes, adopted.left), (4, Vec::new()));
        assert_eq!(
            routes_of("80"),
            [
                "10.65.0.1 dev cali1234 scope link metric 1024",
                "blackhole 10.65.0.0/26 metric 1024"
            ]
        );
        assert_eq!(
            routes_of("81"),
            [
                "10.65.1.0/26 via 172.31.0.2 dev up0 metric 1024",
                "10.65.1.7 via 172.31.0.3 dev up0 metric 1024"
            ]
        );
        assert_eq!(routes_of("bird"), ["192.0.2.0/24 via 172.31.0.2 dev up0"]);
        assert_eq!(routes_of("boot"), ["10.65.9.0/24 via 172.31.0.2 dev up0"]);
        assert_eq!(
            adopt_routes(&[POOL.parse().unwrap()]).unwrap(),
            Adopted::default()
        );
    });
}

#[test]
fn calicos_tables_go_and_other_tables_stay() {
    node(|| {
        for table in ["ip calico", "ip6 calico", "ip other", "inet calico"] {
            run(&format!("nft add table {table}"));
        }
        run("nft add chain ip calico filter-cali-FORWARD { type filter hook forward priority 0 ; }");
        run("nft add rule ip calico filter-cali-FORWARD ip saddr 10.0.0.1 counter drop");
        run("nft add set ip calico every { type ipv4_addr ; flags interval ; }");
        remove_tables().unwrap();
        let left = run("nft list tables");
        assert_eq!(
            left.lines().collect::<Vec<_>>(),
            ["table ip other", "table inet calico"]
        );
        remove_tables().unwrap();
    });
}

#[test]
fn handing_back_leaves_routes_to_pods_as_felix_writes_them_and_nothing_else() {
    node(|| {
        for line in [
            "ip route add 10.65.0.1/32 dev cali1234 scope link proto 80 metric 1024",
            "ip route add blackhole 10.65.0.0/26 proto 80 metric 1024",
            "ip route add 10.65.1.0/26 via 172.31.0.2 dev up0 proto 81 metric 1024",
        ] {
            run(line);
        }
        run("ip -6 route add fd00:65::1/128 dev cali1234 proto 80 metric 1024");
        hand_back(&base::table(&BaseConfig::default())).unwrap();
        let pod = run("ip -d -6 route show fd00:65::1");
        assert!(pod.contains("proto boot"), "{pod}");
        assert_eq!(run("ip -6 route show proto 80"), "");
        assert_eq!((routes_of("80"), routes_of("81")), (Vec::new(), Vec::new()));
        assert_eq!(
            routes_of("boot"),
            ["10.65.0.1 dev cali1234 scope link metric 1024"]
        );
    });
}

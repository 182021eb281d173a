//! Fields of BGPPeer and BGPFilter, one after the other, on n1's session; n2's and n3's stay as they are.

use std::path::Path;

use serde_json::Value;
use twill_lab::child::{Child, Life};

use super::{Rack, TOR, address};

/// Where BIRD's words for n1's session go.
const N1: &str = "protocol bgp n1 {";
/// What BIRD announces to n1.
const TO_N1: &str = "export where net != 172.31.0.0/24";
/// The network behind the router.
const BEHIND: &str = "192.0.2.0/24";

#[test]
fn fields_of_a_bgp_peer_hold_against_a_real_router() {
    let rack = Rack::new();
    rack.up("n1");
    password(&rack);
    ttl_security(&rack);
    local_as_number_and_restart_time(&rack);
    source_address(&rack);
    gateway_and_next_hop(&rack);
    own_as_in_paths(&rack);
    filters(&rack);
    // All the while nobody else was disturbed.
    for node in ["n2", "n3"] {
        let ctl = rack.lab().ctl(node).unwrap();
        let peer = ctl.json(&["bgp", "peer", TOR]).unwrap();
        assert_eq!(peer["state"], "Established", "{peer}");
    }
    workload(&rack);
}

fn password(rack: &Rack) {
    let dir = rack.lab().secrets_dir("n1").join("tor");
    std::fs::create_dir_all(&dir).unwrap();
    let key = |text: &str| std::fs::write(dir.join("key"), text).unwrap();
    rack.peer("n1", "  password: {secretKeyRef: {name: tor, key: absent}}\n");
    let log = rack.lab().daemon("n1").unwrap().log;
    let says = || std::fs::read_to_string(&log).unwrap();
    let why = |text: &String| text.lines().any(|l| l.contains("tor-n1") && l.contains("absent"));
    rack.until("the log says why", says, why);
    rack.until("no key, no session", || rack.told(TOR), Value::is_null);

    key("another key");
    rack.router(&[(N1, "protocol bgp n1 {\n  password \"the rack's\";")]);
    rack.peer("n1", "  password: {secretKeyRef: {name: tor, key: key}}\n");
    rack.refused("n1", &["TCPMD5Failure", "TCPMD5NotFound", "TCPMD5Unexpected"]);
    key("the rack's\n");
    rack.up("n1");
    assert_eq!(rack.told(TOR)["password"], true);
}

fn ttl_security(rack: &Rack) {
    rack.router(&[]);
    rack.peer("n1", "  ttlSecurity: 1\n");
    // What BIRD sends to a neighbour without it has TTL 1.
    rack.refused("n1", &["TCPMinTTLDrop"]);
    rack.router(&[(N1, "protocol bgp n1 {\n  ttl security on;")]);
    rack.up("n1");
    assert_eq!(rack.told(TOR)["ttlSecurityHops"], 1);
}

fn local_as_number_and_restart_time(rack: &Rack) {
    rack.router(&[("neighbor 172.31.0.1 as 64512", "neighbor 172.31.0.1 as 64513")]);
    rack.peer("n1", "");
    let last = || rack.told(TOR)["lastErrorReceived"].to_string();
    rack.until("the router refuses our AS", last, |e| e.contains("AS"));
    rack.peer("n1", "  localASNumber: 64513\n  maxRestartTime: 77s\n");
    rack.up("n1");
    let said = rack.birdc(&["show", "protocols", "all", "n1"]);
    assert!(said.contains("Restart time: 77"), "{said}");
    let block = rack.block("n1").to_string();
    let route = ["show", "route", "all", &block, "protocol", "n1"];
    rack.shows(&route, "BGP.as_path: 64513\n", true);
    rack.router(&[]);
    rack.peer("n1", "");
    rack.up("n1");
    let said = rack.birdc(&["show", "protocols", "all", "n1"]);
    assert!(!said.contains("Restart time: 77"), "{said}");
    rack.shows(&route, "BGP.as_path: 64512\n", true);
}

fn source_address(rack: &Rack) {
    rack.ip("n1", &["addr", "add", "172.31.0.77/32", "dev", "eth0"]);
    rack.ip("n1", &["route", "add", TOR, "dev", "eth0", "src", "172.31.0.77"]);
    rack.router(&[(
        "neighbor 172.31.0.1 as 64512",
        "passive on;\n  neighbor 172.31.0.77 as 64512",
    )]);
    // From the node's address, to which the router now says no.
    rack.peer("n1", "  sourceAddress: UseNodeIP\n");
    let log = || std::fs::read_to_string(rack.lab().state.member_dir("tor").join("bird.log")).unwrap();
    rack.until("n1 is refused", log, |l| l.contains("unknown address 172.31.0.1"));
    assert_ne!(rack.session("n1"), "Established");
    rack.peer("n1", "  sourceAddress: None\n");
    rack.up("n1");
    let local = rack.told(TOR)["localAddress"].to_string();
    assert!(local.contains("172.31.0.77"), "{local}");
    rack.ip("n1", &["route", "del", TOR]);
    rack.ip("n1", &["addr", "del", "172.31.0.77/32", "dev", "eth0"]);
}

/// The router's session is at an address that n1 has no way to.
fn gateway_and_next_hop(rack: &Rack) {
    const FAR: &str = "10.55.0.1";
    rack.ip("tor", &["addr", "add", "10.55.0.1/32", "dev", "lo"]);
    rack.router(&[(
        "local 172.31.0.254 as 64999;\n  neighbor 172.31.0.1 as 64512;",
        "local 10.55.0.1 as 64999;\n  neighbor 172.31.0.1 as 64512;\n  multihop 4;",
    )]);
    rack.peer_at("n1", FAR, "");
    rack.until("the far peer", || rack.told(FAR), |p| !p.is_null());
    assert_eq!(rack.ip("n1", &["route", "show", FAR]), "");
    assert_ne!(rack.told(FAR)["state"], "Established");
    rack.peer_at("n1", FAR, &format!("  reachableBy: {TOR}\n"));
    rack.up("n1");
    let way = rack.ip("n1", &["route", "show", FAR]);
    assert!(
        way.contains(&format!("via {TOR}")) && way.contains("proto 81"),
        "{way}"
    );
    // Nobody else's block by us, unless its next hop may be kept: the router is on no subnet of ours.
    let other = rack.block("n2").to_string();
    let route = ["show", "route", "all", &other, "protocol", "n1"];
    rack.peer_at("n1", FAR, &format!("  reachableBy: {TOR}\n  nextHopMode: Self\n"));
    rack.shows(&route, "BGP.next_hop: 172.31.0.1\n", true);
    rack.peer_at(
        "n1",
        FAR,
        &format!("  reachableBy: {TOR}\n  keepOriginalNextHop: true\n"),
    );
    rack.shows(&route, "BGP.next_hop: 172.31.0.2\n", true);
    rack.router(&[]);
    rack.peer("n1", "");
    rack.up("n1");
    // The router announces its addresses, too.
    rack.ip("tor", &["addr", "del", "10.55.0.1/32", "dev", "lo"]);
    let way = || rack.ip("n1", &["route", "show", FAR]);
    rack.until("the way to it goes with the peer", way, String::is_empty);
}

fn own_as_in_paths(rack: &Rack) {
    let looped = "198.18.5.0/24";
    rack.router(&[
        (N1, "protocol static looped { ipv4; route 198.18.5.0/24 blackhole; }\nprotocol bgp n1 {"),
        (
            TO_N1,
            "export filter { if net = 172.31.0.0/24 then reject; if net = 198.18.5.0/24 then bgp_path.prepend(64512); accept; }",
        ),
    ]);
    let count = |table: &str| rack.routes(&["--peer", TOR, table, looped]).len() as u64;
    rack.until("it is received", || count("--received"), |n| *n == 1);
    assert_eq!(count("--accepted"), 0, "our AS stands in its path");
    rack.peer("n1", "  numAllowedLocalASNumbers: 1\n");
    rack.until("the looped route", || count("--accepted"), |n| *n == 1);
    rack.router(&[]);
    rack.until("no looped route", || count("--received"), |n| *n == 0);
    rack.peer("n1", "");
}

fn filters(rack: &Rack) {
    rack.up("n1");
    let (own, other) = (rack.block("n1"), rack.block("n2"));
    rack.apply(&format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: hide}}\nspec:\n  exportV4:\n  \
         - {{action: Reject, cidr: {own}, matchOperator: Equal}}\n  importV4:\n  \
         - {{action: Reject, cidr: {BEHIND}, matchOperator: In}}\n"
    ));
    rack.apply(&format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: mark}}\nspec:\n  exportV4:\n  \
         - {{action: Accept, cidr: {other}, matchOperator: In, operations: [{{addCommunity: {{value: '64512:42'}}}}]}}\n"
    ));
    let at_router = |prefix: &str| ["show", "route", "all", prefix, "protocol", "n1"].map(str::to_owned);
    let shows = |prefix: &str, what: &str, is: bool| {
        let words = at_router(prefix);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        rack.shows(&words, what, is);
    };
    let best_from = || {
        let routes = rack.routes(&[BEHIND]);
        let best = routes.iter().find(|r| r["best"] == true);
        best.map_or_else(String::new, |r| r["peer"].to_string())
    };
    let count = |table: &str| rack.routes(&["--peer", TOR, table, BEHIND]).len();
    shows(&own.to_string(), &own.to_string(), true);
    rack.until("the network behind", best_from, |p| p.contains(TOR));
    rack.peer("n1", "  filters: [hide, mark]\n");
    shows(&own.to_string(), &own.to_string(), false);
    rack.until("it is not taken from the router", best_from, |p| !p.contains(TOR));
    assert_eq!((count("--received"), count("--accepted")), (1, 0));
    shows(&other.to_string(), "(64512,42)", true);
    rack.peer("n1", "");
    shows(&own.to_string(), &own.to_string(), true);
    rack.until("it is taken again", best_from, |p| p.contains(TOR));
    assert_eq!((count("--received"), count("--accepted")), (1, 1));
}

/// A pod that speaks BGP with its node.
fn workload(rack: &Rack) {
    let lab = rack.lab();
    let pod = lab.state.pod(&"bgp/on-n1".parse().unwrap()).unwrap();
    let address = address(&pod.address.unwrap().to_string());
    let dir = lab.state.member_dir("tor");
    let (config, ctl, log) = (dir.join("pod.conf"), dir.join("pod.ctl"), dir.join("pod.log"));
    std::fs::write(
        &config,
        format!(
            "router id {address};\nprotocol device {{}}\nprotocol static {{ ipv4; route 198.18.6.0/24 blackhole; }}\n\
             protocol bgp node {{ local {address} as 64777; neighbor 172.31.0.1 as 64512; multihop 2; connect delay time 1; \
             connect retry time 1; error wait time 1,2; ipv4 {{ import all; export all; }}; }}\n"
        ),
    )
    .unwrap();
    let words = [
        "-f",
        "-c",
        &config.to_string_lossy(),
        "-s",
        &ctl.to_string_lossy(),
    ]
    .map(str::to_owned);
    let bird = Child::start(
        "bird pod",
        &pod.netns,
        Path::new("bird"),
        &words,
        &log,
        Life::EndsWithUs,
    )
    .unwrap();
    // Else a workload may not speak to its host at all.
    let open = r#"{"spec":{"defaultEndpointToHostAction":"Accept"}}"#;
    let patch = ["patch", "felixconfiguration", "default", "-p", open];
    rack.ctl.output(&patch).unwrap();
    let here = || rack.routes(&["198.18.6.0/24"]).len() as u64;
    assert_eq!(here(), 0);
    let yaml = |selector: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: pods}}\nspec:\n  \
             localWorkloadSelector: {selector}\n  asNumber: 64777\n"
        )
    };
    rack.apply(&yaml("has(nobody)"));
    rack.apply(&yaml("all()"));
    rack.until("the pod's route", here, |n| *n == 1);
    rack.apply(&yaml("has(nobody)"));
    rack.until("no route of the pod", here, |n| *n == 0);
    bird.process.end().unwrap();
}

//! Interop with BIRD 2: sessions of both families, routes both ways, graceful restart of either side.

use crate::lab::{Lab, Ours, at, eventually};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use twill_bgp::config::{Origination, Restart};
use twill_bgp::view::{Best, PeerState, RouteQuery, RouteTable, RouteView};
use twill_bgp::{Config, Families, PeerConfig};

const BIRD_EBGP: &str = "
protocol static s4 { ipv4; route 198.18.0.0/24 blackhole; route 198.18.1.0/24 blackhole; }
protocol static s6 { ipv6; route fd18::/64 blackhole; }
protocol bgp twill {
  local 10.9.0.2 as 64999; neighbor 10.9.0.1 as 64512; direct; graceful restart on; graceful restart time 60;
  ipv4 { import all; export where source = RTS_STATIC; };
  ipv6 { import all; export where source = RTS_STATIC; next hop address fd09::2; };
}
";

const BIRD_IBGP: &str = "
protocol static s4 { ipv4; route 198.18.0.0/24 blackhole; }
protocol static s6 { ipv6; route fd18::/64 blackhole; }
template bgp twill { local as 64512; direct; graceful restart on; hold time 240; connect retry time 1; error wait time 1,2; connect delay time 1; }
protocol bgp t4 from twill { local 10.9.0.2 as 64512; neighbor 10.9.0.1 as 64512; ipv4 { import all; export where source = RTS_STATIC; }; }
protocol bgp t6 from twill { local fd09::2 as 64512; neighbor fd09::1 as 64512; ipv6 { import all; export where source = RTS_STATIC; }; }
";

fn config(peers: Vec<PeerConfig>, restart: Restart) -> Config {
    let listen = vec![
        SocketAddr::new(at("10.9.0.1"), 179),
        SocketAddr::new(at("fd09::1"), 179),
    ];
    Config {
        listen,
        peers,
        restart,
        ..Config::new(64512, "10.9.0.1".parse().unwrap())
    }
}

fn external() -> PeerConfig {
    let mut peer = PeerConfig::new(at("10.9.0.2"), 64999);
    peer.families = Families::BOTH;
    peer.next_hop_v6 = Some("fd09::1".parse().unwrap());
    peer.timers.connect_retry = Duration::from_secs(1);
    peer
}

fn internal() -> Vec<PeerConfig> {
    [at("10.9.0.2"), at("fd09::2")]
        .map(|address| {
            let mut peer = PeerConfig::new(address, 64512);
            peer.timers.connect_retry = Duration::from_secs(1);
            peer
        })
        .into()
}

fn restarted() -> Restart {
    Restart {
        restarting: true,
        forwarding_preserved: Families::BOTH,
        deferral: Duration::from_secs(30),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

async fn originate(ours: &Ours, nets: &[&str]) {
    let local_pref = Some(2_147_482_623);
    let routes = nets
        .iter()
        .map(|n| {
            (
                net(n),
                Origination {
                    local_pref,
                    ..Origination::default()
                },
            )
        })
        .collect();
    ours.handle.originate(routes).await.unwrap();
    ours.handle.own_routes_known().await.unwrap();
}

async fn routes(ours: &Ours) -> Vec<RouteView> {
    let query = RouteQuery {
        table: RouteTable::Best,
        peer: None,
        prefix: None,
        limit: 1000,
    };
    ours.handle.routes(query).await.unwrap()
}

async fn learned(ours: &Ours, count: usize) -> Vec<RouteView> {
    let of_peers = |r: &[RouteView]| r.iter().filter(|r| r.peer.is_some() && !r.stale).count();
    eventually(
        "routes from BIRD",
        async || routes(ours).await,
        |r| of_peers(r) == count,
    )
    .await
}

async fn bird_has(lab: &Lab, prefix: &str, has: bool) -> String {
    let command = format!("show route all {prefix}");
    let holds = |out: &String| (out.contains(prefix) && out.contains("BGP.as_path")) == has;
    eventually(
        &format!("{prefix} in BIRD: {has}"),
        async || lab.birdc(&command),
        holds,
    )
    .await
}

async fn established(ours: &Ours, count: usize) {
    let up = |p: &Vec<_>| {
        p.iter()
            .filter(|p: &&twill_bgp::PeerStatus| p.state == PeerState::Established)
            .count()
            == count
    };
    eventually("sessions", async || ours.handle.peers().await.unwrap(), up).await;
}

#[tokio::test]
async fn external_session_carries_both_families_both_ways() {
    let mut lab = Lab::new();
    lab.bird(BIRD_EBGP);
    let ours = lab.ours(config(vec![external()], Restart::default()));
    originate(&ours, &["10.244.0.0/26", "fd44::/122"]).await;
    let seen = bird_has(&lab, "10.244.0.0/26", true).await;
    assert!(
        seen.contains("BGP.as_path: 64512\n") && seen.contains("BGP.next_hop: 10.9.0.1\n"),
        "{seen}"
    );
    assert!(!seen.contains("local_pref: 2147482623"), "{seen}");
    let seen = bird_has(&lab, "fd44::/122", true).await;
    assert!(seen.contains("BGP.next_hop: fd09::1"), "{seen}");
    let got = learned(&ours, 3).await;
    let hop = |prefix| {
        got.iter()
            .find(|r| r.prefix == net(prefix))
            .and_then(|r| r.next_hop)
    };
    assert_eq!(hop("198.18.0.0/24"), Some(at("10.9.0.2")));
    assert_eq!(hop("fd18::/64"), Some(at("fd09::2")));
    originate(&ours, &["fd44::/122"]).await;
    bird_has(&lab, "10.244.0.0/26", false).await;
    bird_has(&lab, "fd44::/122", true).await;
}

#[tokio::test]
async fn internal_sessions_run_over_each_family_and_carry_local_pref() {
    let mut lab = Lab::new();
    lab.bird(BIRD_IBGP);
    let ours = lab.ours(config(internal(), Restart::default()));
    originate(&ours, &["10.244.0.0/26", "fd44::/122"]).await;
    for prefix in ["10.244.0.0/26", "fd44::/122"] {
        let seen = bird_has(&lab, prefix, true).await;
        assert!(
            seen.contains("BGP.local_pref: 2147482623") && seen.contains("BGP.as_path: \n"),
            "{seen}"
        );
    }
    learned(&ours, 2).await;
    established(&ours, 2).await;
    let mut changes = ours.handle.best_changes().await.unwrap();
    let mut fib: BTreeMap<IpNet, Option<Best>> = BTreeMap::new();
    while fib.len() < 2 {
        fib.append(&mut changes.next().await.unwrap());
    }
    let best = fib[&net("fd18::/64")].clone().unwrap();
    assert_eq!(
        (best.next_hops, best.source, best.stale),
        (vec![at("fd09::2")], at("fd09::2"), false)
    );
    assert!(
        !fib.contains_key(&net("10.244.0.0/26")),
        "what we originate is not for the FIB"
    );
}

#[tokio::test]
async fn bird_keeps_our_routes_over_our_restart_and_drops_what_we_no_longer_have() {
    let mut lab = Lab::new();
    lab.bird(BIRD_EBGP);
    let ours = lab.ours(config(vec![external()], Restart::default()));
    originate(&ours, &["10.244.0.0/26", "10.244.0.64/26", "fd44::/122"]).await;
    bird_has(&lab, "10.244.0.64/26", true).await;
    bird_has(&lab, "fd44::/122", true).await;
    ours.kill();
    let down = |o: &String| !o.contains("Established");
    eventually(
        "BIRD sees us gone",
        async || lab.birdc("show protocols twill"),
        down,
    )
    .await;
    bird_has(&lab, "10.244.0.0/26", true).await;

    let ours = lab.ours(config(vec![external()], restarted()));
    established(&ours, 1).await;
    // Nothing is known yet: no End-of-RIB, so BIRD must keep everything.
    learned(&ours, 3).await;
    for prefix in ["10.244.0.0/26", "10.244.0.64/26", "fd44::/122"] {
        assert!(bird_has(&lab, prefix, true).await.contains("BGP.as_path"));
    }
    originate(&ours, &["10.244.0.0/26", "fd44::/122"]).await;
    bird_has(&lab, "10.244.0.64/26", false).await;
    bird_has(&lab, "10.244.0.0/26", true).await;
    bird_has(&lab, "fd44::/122", true).await;
    assert_eq!(*ours.handle.converged().borrow(), Families::BOTH);
}

#[tokio::test]
async fn we_keep_birds_routes_over_its_restart() {
    let mut lab = Lab::new();
    lab.bird(BIRD_EBGP);
    let ours = lab.ours(config(vec![external()], Restart::default()));
    originate(&ours, &["10.244.0.0/26"]).await;
    learned(&ours, 3).await;
    lab.kill_bird();
    let stale = |r: &Vec<RouteView>| r.iter().filter(|r| r.peer.is_some() && r.stale).count() == 3;
    eventually("stale routes", async || routes(&ours).await, stale).await;
    lab.start_bird();
    learned(&ours, 3).await;
    bird_has(&lab, "10.244.0.0/26", true).await;
}

#[tokio::test]
async fn shutdown_takes_our_routes_out_of_bird_at_once_and_stop_does_not() {
    let mut lab = Lab::new();
    lab.bird(BIRD_EBGP);
    let ours = lab.ours(config(vec![external()], Restart::default()));
    originate(&ours, &["10.244.0.0/26"]).await;
    bird_has(&lab, "10.244.0.0/26", true).await;
    ours.handle.stop().await.unwrap();
    let down = |o: &String| !o.contains("Established");
    eventually(
        "BIRD sees us gone",
        async || lab.birdc("show protocols twill"),
        down,
    )
    .await;
    assert!(lab.birdc("show route all 10.244.0.0/26").contains("BGP.as_path"));
    drop(ours);

    let ours = lab.ours(config(vec![external()], restarted()));
    originate(&ours, &["10.244.0.0/26"]).await;
    established(&ours, 1).await;
    ours.handle.shutdown("node is drained").await.unwrap();
    bird_has(&lab, "10.244.0.0/26", false).await;
    let why = lab.birdc("show protocols all twill");
    assert!(
        why.contains("Administrative shutdown") || why.contains("node is drained"),
        "{why}"
    );
}

#[tokio::test]
async fn md5_key_must_match_and_changes_without_a_reset() {
    let secret = |key: &str| Some(twill_bgp::config::Secret(key.into()));
    let bird = |key: &str| {
        BIRD_EBGP.replace(
            "graceful restart on;",
            &format!("password \"{key}\"; graceful restart on;"),
        )
    };
    let mut lab = Lab::new();
    lab.bird(&bird("first"));
    let wrong = PeerConfig {
        password: secret("wrong"),
        ..external()
    };
    let ours = lab.ours(config(vec![wrong], Restart::default()));
    eventually(
        "refused segments",
        async || lab.tcp_counter("TCPMD5Failure"),
        |n| *n > 0,
    )
    .await;
    assert_ne!(
        ours.handle.peers().await.unwrap()[0].state,
        PeerState::Established
    );
    let right = PeerConfig {
        password: secret("first"),
        ..external()
    };
    ours.handle
        .configure(config(vec![right], Restart::default()))
        .await
        .unwrap();
    established(&ours, 1).await;
    // Both ends take the second key; the session lives on.
    lab.reconfigure(&bird("second"));
    let right = PeerConfig {
        password: secret("second"),
        ..external()
    };
    ours.handle
        .configure(config(vec![right], Restart::default()))
        .await
        .unwrap();
    originate(&ours, &["10.244.0.0/26"]).await;
    bird_has(&lab, "10.244.0.0/26", true).await;
    assert_eq!(
        ours.handle.peers().await.unwrap()[0].state,
        PeerState::Established
    );
}

#[tokio::test]
async fn ttl_security_agrees_with_birds_and_refuses_a_peer_without() {
    let mut lab = Lab::new();
    lab.bird(&BIRD_EBGP.replace("graceful restart on;", "ttl security on; graceful restart on;"));
    let near = PeerConfig {
        ttl_security_hops: Some(1),
        ..external()
    };
    let ours = lab.ours(config(vec![near.clone()], Restart::default()));
    established(&ours, 1).await;
    drop(ours);
    lab.bird(BIRD_EBGP.replace("direct;", "multihop 64;").as_str());
    let ours = lab.ours(config(vec![near], Restart::default()));
    eventually(
        "refused segments",
        async || lab.tcp_counter("TCPMinTTLDrop"),
        |n| *n > 0,
    )
    .await;
    assert_ne!(
        ours.handle.peers().await.unwrap()[0].state,
        PeerState::Established
    );
}

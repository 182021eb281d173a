//! The cases, for any daemon.

use super::theirs::{Kind, SETUP, Setup, Theirs};
use crate::lab::{Lab, Ours, at, eventually};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use twill_bgp::config::{Origination, Restart, Secret};
use twill_bgp::policy::{Action, Policy, Term, Verdict};
use twill_bgp::view::{Best, PeerState, RouteQuery, RouteTable, RouteView};
use twill_bgp::{Config, Families, PeerConfig, PeerStatus};

pub(super) const THEIR_V4: &str = "198.18.0.0/24";
const THEIR_V6: &str = "fd18::/64";
pub(super) const OUR_V4: &str = "10.244.0.0/26";
pub(super) const OUR_V6: &str = "fd44::/122";

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn announcing(setup: Setup) -> Setup {
    Setup {
        networks: vec![THEIR_V4, THEIR_V6],
        ..setup
    }
}

/// Our two sessions with a daemon of this AS, changed so.
pub(super) fn peers(asn: u32, change: impl Fn(&mut PeerConfig)) -> Vec<PeerConfig> {
    let peer = |address| {
        let mut peer = PeerConfig::new(at(address), asn);
        peer.timers.connect_retry = Duration::from_secs(1);
        change(&mut peer);
        peer
    };
    ["10.9.0.2", "fd09::2"].map(peer).into()
}

pub(super) fn config(peers: Vec<PeerConfig>) -> Config {
    Config {
        listen: vec![
            SocketAddr::new(at("10.9.0.1"), 179),
            SocketAddr::new(at("fd09::1"), 179),
        ],
        peers,
        ..Config::new(64512, "10.9.0.1".parse().unwrap())
    }
}

/// Another speaker of ours on the same link, at 10.9.0.3, with these peers.
pub(super) fn second(lab: &Lab, asn: u32, peers: &[(&str, u32)]) -> Ours {
    lab.add_address("10.9.0.3/24");
    let peer = |(address, asn): &(&str, u32)| {
        let mut peer = PeerConfig::new(at(address), *asn);
        peer.timers.connect_retry = Duration::from_secs(1);
        peer.local_address = Some(at("10.9.0.3"));
        peer
    };
    lab.ours(Config {
        listen: vec![SocketAddr::new(at("10.9.0.3"), 179)],
        peers: peers.iter().map(peer).collect(),
        ..Config::new(asn, "10.9.0.3".parse().unwrap())
    })
}

pub(super) async fn originate(ours: &Ours, nets: &[&str]) {
    let origination = Origination {
        local_pref: Some(2_147_482_623),
        communities: vec![64512 << 16 | 7],
        ..Origination::default()
    };
    let routes = nets.iter().map(|n| (net(n), origination.clone())).collect();
    ours.handle.originate(routes).await.unwrap();
    ours.handle.own_routes_known().await.unwrap();
}

pub(super) async fn status(ours: &Ours) -> Vec<PeerStatus> {
    ours.handle.peers().await.unwrap()
}

pub(super) async fn established(ours: &Ours, count: usize) {
    let up = |p: &Vec<PeerStatus>| p.iter().filter(|p| p.state == PeerState::Established).count() == count;
    eventually("sessions", async || status(ours).await, up).await;
}

pub(super) async fn routes(ours: &Ours) -> Vec<RouteView> {
    let query = RouteQuery {
        table: RouteTable::Best,
        peer: None,
        prefix: None,
        limit: 1000,
    };
    let mut routes = ours.handle.routes(query).await.unwrap();
    routes.retain(|r| r.peer.is_some());
    routes
}

/// Waits for exactly so many routes of peers, all fresh or all stale.
pub(super) async fn learned(ours: &Ours, count: usize, stale: bool) -> Vec<RouteView> {
    let right = |r: &Vec<RouteView>| r.len() == count && r.iter().all(|r| r.stale == stale);
    eventually("routes of peers", async || routes(ours).await, right).await
}

async fn learned_now(ours: &Ours) -> usize {
    routes(ours).await.iter().filter(|r| !r.stale).count()
}

fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

pub(super) async fn external_sessions_carry_routes_and_communities_both_ways(kind: Kind) {
    let lab = Lab::new();
    let theirs = Theirs::start(&lab, kind, announcing(SETUP)).await;
    let mark = Term::change(
        "mark",
        vec![],
        vec![Action::AddLargeCommunities(vec![[64512, 1, 2]])],
    );
    let export = Arc::new(Policy {
        terms: vec![mark],
        default: Verdict::Accept,
    });
    let ours = lab.ours(config(peers(SETUP.asn, |p| p.export = Arc::clone(&export))));
    originate(&ours, &[OUR_V4, OUR_V6]).await;
    let seen = theirs.has(OUR_V4, true).await;
    contains(&seen, &["64512", "10.9.0.1", "64512:7", "64512:1:2"]);
    contains(&theirs.has(OUR_V6, true).await, &["64512", "fd09::1", "64512:7"]);
    let got = learned(&ours, 2, false).await;
    for (prefix, hop) in [(THEIR_V4, "10.9.0.2"), (THEIR_V6, "fd09::2")] {
        let route = got.iter().find(|r| r.prefix == net(prefix)).unwrap();
        assert_eq!(route.next_hop, Some(at(hop)), "{route:?}");
        assert_eq!(route.as_path, "64999", "{route:?}");
        assert_eq!(route.communities, [64999 << 16 | 7], "{route:?}");
    }
    originate(&ours, &[OUR_V6]).await;
    theirs.has(OUR_V4, false).await;
    theirs.has(OUR_V6, true).await;
}

pub(super) async fn internal_sessions_carry_local_pref(kind: Kind) {
    let lab = Lab::new();
    let setup = Setup { asn: 64512, ..SETUP };
    let theirs = Theirs::start(&lab, kind, announcing(setup)).await;
    let ours = lab.ours(config(peers(64512, |_| ())));
    originate(&ours, &[OUR_V4, OUR_V6]).await;
    contains(&theirs.has(OUR_V4, true).await, &["2147482623", "10.9.0.1"]);
    contains(&theirs.has(OUR_V6, true).await, &["2147482623", "fd09::1"]);
    let got = learned(&ours, 2, false).await;
    assert!(
        got.iter()
            .all(|r| r.local_pref == Some(100) && r.as_path.is_empty()),
        "{got:?}"
    );
}

pub(super) async fn a_key_must_be_the_same_at_both_ends(kind: Kind) {
    let lab = Lab::new();
    let setup = Setup {
        password: Some("interop-key"),
        ..SETUP
    };
    let _theirs = Theirs::start(&lab, kind, setup).await;
    let with = |key: &str| {
        let key = Some(Secret(key.into()));
        config(peers(SETUP.asn, |p| p.password.clone_from(&key)))
    };
    let ours = lab.ours(with("another-key"));
    let refused = async || {
        let counters = ["TCPMD5Failure", "TCPMD5NotFound", "TCPMD5Unexpected"];
        counters.map(|name| lab.tcp_counter(name)).iter().sum::<u64>()
    };
    eventually("refused segments", refused, |n| *n > 0).await;
    assert!(
        status(&ours)
            .await
            .iter()
            .all(|p| p.state != PeerState::Established)
    );
    ours.handle.configure(with("interop-key")).await.unwrap();
    established(&ours, 2).await;
}

pub(super) async fn it_keeps_our_routes_over_our_restart(kind: Kind) {
    let lab = Lab::new();
    let theirs = Theirs::start(&lab, kind, announcing(SETUP)).await;
    let ours = lab.ours(config(peers(SETUP.asn, |_| ())));
    let all = [OUR_V4, "10.244.0.64/26", OUR_V6];
    originate(&ours, &all).await;
    learned(&ours, 2, false).await;
    for prefix in all {
        theirs.has(prefix, true).await;
    }
    // Whoever forwards by its table misses nothing, at no time.
    let kept = || {
        all.iter()
            .for_each(|p| assert!(!theirs.route(p).is_empty(), "{p} is gone in between"))
    };
    ours.kill();
    kept();
    let restarted = Config {
        restart: Restart {
            restarting: true,
            forwarding_preserved: Families::BOTH,
            deferral: Duration::from_secs(30),
        },
        ..config(peers(SETUP.asn, |_| ()))
    };
    let ours = lab.ours(restarted);
    let back = async || {
        kept();
        learned_now(&ours).await
    };
    eventually("its routes again", back, |n| *n == 2).await;
    established(&ours, 2).await;
    // We have said nothing yet: what it has it kept.
    kept();
    originate(&ours, &[OUR_V4, OUR_V6]).await;
    theirs.has("10.244.0.64/26", false).await;
    theirs.has(OUR_V4, true).await;
    theirs.has(OUR_V6, true).await;
    // The twin: without the capability nothing is kept. GoBGP waits for its timer all the same.
    if kind == Kind::GoBgp {
        return;
    }
    ours.kill();
    let ours = lab.ours(config(peers(SETUP.asn, |p| p.graceful_restart.enabled = false)));
    established(&ours, 2).await;
    theirs.has(OUR_V4, false).await;
}

pub(super) async fn we_keep_its_routes_over_its_restart(kind: Kind) {
    let lab = Lab::new();
    let mut theirs = Theirs::start(&lab, kind, announcing(SETUP)).await;
    let ours = lab.ours(config(peers(SETUP.asn, |_| ())));
    originate(&ours, &[OUR_V4]).await;
    learned(&ours, 2, false).await;
    let restarts = status(&ours).await.iter().all(|p| {
        p.negotiated
            .as_ref()
            .is_some_and(|n| n.graceful_restart != Families::NONE)
    });
    theirs.kill();
    if kind == Kind::OpenBgpd {
        // It helps others over their restart and offers none of its own.
        assert!(!restarts);
        learned(&ours, 0, false).await;
    } else {
        assert!(restarts);
        learned(&ours, 2, true).await;
    }
    theirs.restart().await;
    learned(&ours, 2, false).await;
    theirs.has(OUR_V4, true).await;
}

pub(super) async fn too_many_prefixes_end_the_session(kind: Kind) {
    let lab = Lab::new();
    let setup = Setup {
        networks: vec![THEIR_V4, "198.18.1.0/24", THEIR_V6],
        ..SETUP
    };
    let _theirs = Theirs::start(&lab, kind, setup).await;
    let ours = lab.ours(config(peers(SETUP.asn, |p| p.prefixes_max = Some(1))));
    let ended = |p: &Vec<PeerStatus>| {
        let sent = |p: &PeerStatus| p.last_error_sent.clone().unwrap_or_default();
        sent(&p[0]).contains("aximum")
            && p[0].state != PeerState::Established
            && p[1].state == PeerState::Established
    };
    eventually("6/1", async || status(&ours).await, ended).await;
    let enough = config(peers(SETUP.asn, |p| p.prefixes_max = Some(2)));
    ours.handle.configure(enough).await.unwrap();
    ours.handle
        .reset(
            at("10.9.0.2"),
            twill_bgp::net::Reset::Hard { text: String::new() },
        )
        .await
        .unwrap();
}

pub(super) async fn we_reflect_for_it_and_it_for_us(kind: Kind) {
    // It is a client of ours, and so is our second speaker.
    let lab = Lab::new();
    let setup = Setup { asn: 64512, ..SETUP };
    let theirs = Theirs::start(&lab, kind, announcing(setup.clone())).await;
    let mut clients = peers(64512, |p| p.route_reflector_client = true);
    let mut other = clients[0].clone();
    other.address = at("10.9.0.3");
    other.passive = true;
    clients.push(other);
    let reflector = lab.ours(config(clients));
    reflector.handle.own_routes_known().await.unwrap();
    let client = second(&lab, 64512, &[("10.9.0.1", 64512)]);
    originate(&client, &[OUR_V4]).await;
    let seen = theirs.has(OUR_V4, true).await;
    assert!(theirs.shows_originator(&seen, "10.9.0.3"), "{seen}");
    let got = learned(&client, 1, false).await;
    assert_eq!(got[0].next_hop, Some(at("10.9.0.2")), "{got:?}");
    drop((theirs, reflector, client));

    // The other way round.
    let lab = Lab::new();
    let setup = Setup {
        reflects: true,
        ..setup
    };
    let _theirs = Theirs::start(&lab, kind, setup).await;
    let ours = lab.ours(config(peers(64512, |_| ())));
    // FRR selects nothing before the End-of-RIB of everybody.
    ours.handle.own_routes_known().await.unwrap();
    let client = second(&lab, 64512, &[("10.9.0.2", 64512)]);
    originate(&client, &[OUR_V4]).await;
    let got = learned(&ours, 1, false).await;
    assert_eq!(
        (got[0].prefix, got[0].next_hop),
        (net(OUR_V4), Some(at("10.9.0.3"))),
        "{got:?}"
    );
}

pub(super) async fn equal_paths_are_used_together(kind: Kind) {
    let lab = Lab::new();
    let setup = Setup {
        networks: vec![THEIR_V4],
        ..SETUP
    };
    let _theirs = Theirs::start(&lab, kind, setup).await;
    let mut both = peers(SETUP.asn, |_| ());
    let mut other = both[0].clone();
    other.address = at("10.9.0.3");
    other.passive = true;
    both.push(other);
    let ours = lab.ours(config(both));
    ours.handle.own_routes_known().await.unwrap();
    let twin = second(&lab, SETUP.asn, &[("10.9.0.1", 64512)]);
    originate(&twin, &[THEIR_V4]).await;
    let mut changes = ours.handle.best_changes().await.unwrap();
    let mut fib: BTreeMap<IpNet, Option<Best>> = BTreeMap::new();
    let two = async {
        loop {
            fib.append(&mut changes.next().await.unwrap());
            let best = fib.get(&net(THEIR_V4)).cloned().flatten();
            if best.is_some_and(|b| b.next_hops == [at("10.9.0.2"), at("10.9.0.3")]) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), two).await.unwrap();
}

//! The cases of what both ends must have switched on.

use super::cases::{
    OUR_V4, OUR_V6, THEIR_V4, announcing, config, established, learned, net, originate, peers, second, status,
};
use super::theirs::{Feature, Kind, SETUP, Setup, Theirs};
use crate::lab::{Lab, Ours, at, eventually};
use std::time::Duration;
use twill_bgp::config::AddPath;
use twill_bgp::net::Reset;
use twill_bgp::view::{PeerState, RouteQuery, RouteTable, RouteView};
use twill_bgp::wire::community::LLGR_STALE;
use twill_bgp::{Families, PeerConfig, PeerStatus};

fn with(feature: Feature) -> Setup {
    Setup {
        feature: Some(feature),
        ..SETUP
    }
}

async fn received(ours: &Ours) -> Vec<RouteView> {
    let query = RouteQuery {
        table: RouteTable::Received,
        peer: Some(at("10.9.0.2")),
        prefix: None,
        limit: 1000,
    };
    ours.handle.routes(query).await.unwrap()
}

pub(in super::super) async fn near_peers_agree_on_ttl_security_and_far_ones_are_refused(kind: Kind) {
    let near = |p: &mut PeerConfig| p.ttl_security_hops = Some(1);
    let lab = Lab::new();
    let setup = Setup {
        ttl_security: true,
        ..SETUP
    };
    let theirs = Theirs::start(&lab, kind, announcing(setup)).await;
    let ours = lab.ours(config(peers(SETUP.asn, near)));
    // FRR's and OpenBGPD's listeners answer a SYN with the system's TTL, so that only the connection that they dial comes up.
    learned(&ours, 2, false).await;
    drop((theirs, ours));

    // What it sends without has TTL 64.
    let lab = Lab::new();
    let _theirs = Theirs::start(&lab, kind, SETUP).await;
    let ours = lab.ours(config(peers(SETUP.asn, near)));
    eventually(
        "refused segments",
        async || lab.tcp_counter("TCPMinTTLDrop"),
        |n| *n > 0,
    )
    .await;
    let up = |p: &PeerStatus| p.state == PeerState::Established;
    assert!(!status(&ours).await.iter().any(up));
}

pub(in super::super) async fn several_paths_a_prefix_go_both_ways(kind: Kind) {
    let several = |p: &mut PeerConfig| {
        p.route_reflector_client = true;
        p.add_path = AddPath {
            receive: Families::IPV4,
            send: Families::IPV4,
            send_max: 4,
        };
    };
    // It has a route of its own and one of our second speaker's, and reflects.
    let lab = Lab::new();
    let setup = Setup {
        asn: 64512,
        reflects: true,
        networks: vec![THEIR_V4],
        ..with(Feature::AddPath)
    };
    let theirs = Theirs::start(&lab, kind, setup).await;
    let mut all = peers(64512, several);
    let mut twin = all[0].clone();
    twin.address = at("10.9.0.3");
    twin.passive = true;
    all.push(twin);
    let ours = lab.ours(config(all));
    let twin = second(&lab, 64512, &[("10.9.0.1", 64512), ("10.9.0.2", 64512)]);
    originate(&twin, &[THEIR_V4, OUR_V4]).await;
    originate(&ours, &[OUR_V4]).await;
    let two = |routes: &Vec<RouteView>| {
        let mut paths: Vec<_> = routes.iter().filter(|r| r.prefix == net(THEIR_V4)).collect();
        paths.sort_by_key(|r| r.path_id);
        paths.dedup_by_key(|r| r.path_id);
        let mut hops: Vec<_> = paths.iter().filter_map(|r| r.next_hop).collect();
        hops.sort();
        hops == [at("10.9.0.2"), at("10.9.0.3")]
    };
    eventually("two paths of it", async || received(&ours).await, two).await;
    // The other way: ours and the second speaker's, both by us.
    let both = |text: &String| text.contains("10.9.0.1") && text.contains("10.9.0.3");
    drop(twin);
    let negotiated = status(&ours).await[0].negotiated.clone().unwrap();
    assert!(
        negotiated.add_path_in.ipv4 && negotiated.add_path_out.ipv4,
        "{negotiated:?}"
    );
    let twin = second_of_ours(&lab);
    originate(&twin, &[OUR_V4]).await;
    eventually("two paths of ours", async || theirs.route(OUR_V4), both).await;
}

/// The second speaker again, now as a peer of ours alone.
fn second_of_ours(lab: &Lab) -> Ours {
    lab.remove_address("10.9.0.3/24");
    second(lab, 64512, &[("10.9.0.1", 64512)])
}

pub(in super::super) async fn stale_routes_outlive_the_restart_time_both_ways(kind: Kind) {
    let long = |p: &mut PeerConfig| {
        p.graceful_restart.restart_secs = 1;
        p.graceful_restart.long_lived_secs = Some(60);
    };
    let lab = Lab::new();
    let mut theirs = Theirs::start(&lab, kind, announcing(with(Feature::LongLived))).await;
    let ours = lab.ours(config(peers(SETUP.asn, long)));
    originate(&ours, &[OUR_V4, OUR_V6]).await;
    learned(&ours, 2, false).await;
    theirs.has(OUR_V4, true).await;
    theirs.kill();
    let stale = |r: &Vec<RouteView>| r.len() == 1 && r.iter().all(|r| r.communities.contains(&LLGR_STALE));
    let of_v4 = async || {
        super::cases::routes(&ours)
            .await
            .into_iter()
            .filter(|r| r.prefix == net(THEIR_V4))
            .collect()
    };
    eventually("LLGR_STALE here", of_v4, stale).await;
    theirs.restart().await;
    learned(&ours, 2, false).await;
    theirs.has(OUR_V4, true).await;
    ours.kill();
    let marked = |text: &String| {
        ["65535,6", "65535:6", "llgr-stale", "LLGR"]
            .iter()
            .any(|m| text.contains(m))
    };
    eventually("LLGR_STALE there", async || theirs.route(OUR_V4), marked).await;
}

pub(in super::super) async fn a_soft_reset_is_an_enhanced_refresh_both_ways(kind: Kind) {
    let lab = Lab::new();
    let theirs = Theirs::start(&lab, kind, announcing(SETUP)).await;
    let ours = lab.ours(config(peers(SETUP.asn, |_| ())));
    originate(&ours, &[OUR_V4, OUR_V6]).await;
    learned(&ours, 2, false).await;
    let before = status(&ours).await;
    assert!(
        before
            .iter()
            .all(|p| p.negotiated.as_ref().is_some_and(|n| n.enhanced_refresh)),
        "{before:?}"
    );
    let [ours_before, theirs_before] = [0, 1].map(|n| before[n].counters.refreshes_in);
    // What it answers begins and ends with a ROUTE-REFRESH of its own.
    ours.handle.reset(at("10.9.0.2"), Reset::Soft).await.unwrap();
    let two_more = |p: &Vec<PeerStatus>| p[0].counters.refreshes_in >= ours_before + 2;
    eventually("begin and end", async || status(&ours).await, two_more).await;
    // And it asks us.
    theirs.refresh();
    let asked = |p: &Vec<PeerStatus>| p[1].counters.refreshes_in > theirs_before;
    eventually("its request", async || status(&ours).await, asked).await;
    learned(&ours, 2, false).await;
    theirs.has(OUR_V4, true).await;
    theirs.has(OUR_V6, true).await;
    established(&ours, 2).await;
}

pub(in super::super) async fn ipv4_goes_over_ipv6_next_hops(kind: Kind) {
    let lab = Lab::new();
    let setup = Setup {
        networks: vec![THEIR_V4],
        ..with(Feature::ExtendedNextHop)
    };
    let theirs = Theirs::start(&lab, kind, setup).await;
    let both = |p: &mut PeerConfig| {
        p.families = Families::BOTH;
        p.next_hop_v4 = None;
    };
    let mut v6 = config(peers(SETUP.asn, both));
    v6.peers.remove(0);
    v6.listen.remove(0);
    let ours = lab.ours(v6);
    originate(&ours, &[OUR_V4]).await;
    let got = learned(&ours, 1, false).await;
    assert_eq!(
        (got[0].prefix, got[0].next_hop),
        (net(THEIR_V4), Some(at("fd09::2"))),
        "{got:?}"
    );
    let seen = theirs.has(OUR_V4, true).await;
    assert!(seen.contains("fd09::1"), "{seen}");
    let negotiated = status(&ours).await[0].negotiated.clone().unwrap();
    assert!(negotiated.extended_next_hop, "{negotiated:?}");
    tokio::time::timeout(Duration::from_secs(5), ours.handle.shutdown("done"))
        .await
        .unwrap()
        .unwrap();
    theirs.has(OUR_V4, false).await;
}

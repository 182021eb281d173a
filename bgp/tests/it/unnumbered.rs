//! A peer that is an interface and nothing else, with FRR at the other end: each side finds the other by its Router
//! Advertisements (RFC 4861), and IPv4 goes by link-local IPv6 next hops (RFC 8950).

use crate::lab::{Daemon, Lab, Ours, at, eventually};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use twill_bgp::bfd::{Params, State};
use twill_bgp::config::{Origination, PeerAs};
use twill_bgp::link;
use twill_bgp::view::{PeerState, RouteQuery, RouteTable};
use twill_bgp::{Config, PeerConfig, PeerStatus};

const THEIR_V4: &str = "198.18.0.0/24";
const THEIR_V6: &str = "fd18::/64";
const OUR_V4: &str = "10.244.0.0/26";
const OUR_V6: &str = "fd44::/122";

/// What the issue asks for.
const FAILOVER: Duration = Duration::from_secs(1);

/// zebra, which knows of neighbours, bgpd and bfdd.
struct Frr<'a> {
    lab: &'a Lab,
    _daemons: [Daemon; 3],
}

impl<'a> Frr<'a> {
    async fn start(lab: &'a Lab, neighbour: &str) -> Self {
        let dir = lab.dir().display().to_string();
        // zebra gives up its rights at once and makes its sockets as another user.
        std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let config = format!(
            "frr defaults datacenter\ninterface cable\n no ipv6 nd suppress-ra\nrouter bgp 64999\n bgp router-id 10.9.0.2\n \
             no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n coalesce-time 0\n \
             neighbor cable interface remote-as external\n neighbor cable timers connect 1\n \
             neighbor cable advertisement-interval 0\n{neighbour} address-family ipv4 unicast\n  network {THEIR_V4}\n  \
             neighbor cable activate\n exit-address-family\n address-family ipv6 unicast\n  network {THEIR_V6}\n  \
             neighbor cable activate\n exit-address-family\n"
        );
        let start = |name: &str, text: &str, more: &[&str]| {
            let (file, pid) = (format!("{dir}/{name}.conf"), format!("{dir}/{name}.pid"));
            let (binary, zserv) = (format!("/usr/lib/frr/{name}"), format!("{dir}/zserv"));
            std::fs::write(&file, text).unwrap();
            let common = [&*binary, "-z", &zserv, "-f", &file, "-i", &pid];
            lab.daemon(&[&common[..], &["--vty_socket", &dir, "-P", "0"], more].concat())
        };
        let zebra = start(
            "zebra",
            "frr defaults datacenter\ninterface cable\n no ipv6 nd suppress-ra\n",
            &[],
        );
        let socket = lab.dir().join("zserv");
        eventually("zebra", async || socket.exists(), |there| *there).await;
        let bgpd = start("bgpd", &config, &["-S", "-p", "179"]);
        let control = format!("{dir}/bfdd.sock");
        let bfdd = start("bfdd", "", &["--bfdctl", &control]);
        Self {
            lab,
            _daemons: [zebra, bgpd, bfdd],
        }
    }

    fn ask(&self, what: &str) -> String {
        let dir = self.lab.dir().display().to_string();
        let command = ["vtysh", "--vty_socket", &dir, "-d", "bgpd", "-c", what];
        self.lab.try_inside(&command).unwrap_or_default()
    }

    async fn has(&self, family: &str, prefix: &str) -> String {
        let what = format!("show bgp {family} unicast {prefix}");
        let seen = async || self.ask(&what);
        let there = |text: &String| text.contains("64512");
        eventually(&format!("{prefix} in FRR"), seen, there).await
    }
}

fn neighbour(asn: PeerAs, change: impl FnOnce(&mut PeerConfig)) -> PeerConfig {
    let mut peer = PeerConfig::on_link("cable", None, asn);
    peer.timers.connect_retry = Duration::from_secs(1);
    change(&mut peer);
    peer
}

fn speaker(asn: u32, id: &str, peer: PeerConfig) -> Config {
    Config {
        listen: vec![SocketAddr::new(at("::"), 179)],
        peers: vec![peer],
        ..Config::new(asn, id.parse().unwrap())
    }
}

fn ours(lab: &Lab, asn: PeerAs, passive: bool) -> Ours {
    lab.ours(speaker(
        64512,
        "10.9.0.1",
        neighbour(asn, |p| p.passive = passive),
    ))
}

/// Every 100 ms, dead after 300.
fn protected(peer: &mut PeerConfig) {
    peer.timers.hold_secs = 240;
    peer.bfd = Some(Params {
        min_tx: Duration::from_millis(100),
        min_rx: Duration::from_millis(100),
        multiplier: 3,
        multihop: false,
    });
}

async fn status(ours: &Ours) -> PeerStatus {
    ours.handle.peers().await.unwrap().remove(0)
}

async fn bfd_is_up(ours: &Ours) {
    let up =
        |p: &PeerStatus| p.state == PeerState::Established && p.bfd.is_some_and(|b| b.state == State::Up);
    eventually("a session with BFD up", async || status(ours).await, up).await;
}

/// How long after a cut the session is over, and what was said of it.
async fn ends_with(ours: &Ours, cut: Instant) -> (Duration, Option<String>) {
    let over = |p: &PeerStatus| p.state != PeerState::Established;
    let status = eventually("the session ends", async || status(ours).await, over).await;
    (cut.elapsed(), status.last_error_sent)
}

async fn routes_flow_both_ways(lab: &Lab, frr: &Frr<'_>, ours: &Ours) {
    let up = |p: &Vec<PeerStatus>| p[0].state == PeerState::Established;
    let status = async || ours.handle.peers().await.unwrap();
    let peers = eventually("the session", status, up).await;
    assert_eq!((&*peers[0].config.name(), peers[0].asn), ("cable", Some(64999)));
    let agreed = peers[0].negotiated.as_ref().unwrap();
    assert!(agreed.extended_next_hop, "{agreed:?}");
    let routes = [OUR_V4, OUR_V6].map(|n| (n.parse().unwrap(), Origination::default()));
    ours.handle.originate(BTreeMap::from(routes)).await.unwrap();
    ours.handle.own_routes_known().await.unwrap();
    for (family, prefix) in [("ipv4", OUR_V4), ("ipv6", OUR_V6)] {
        let seen = frr.has(family, prefix).await;
        assert!(seen.contains("fe80::") && seen.contains("valid"), "{seen}");
    }
    let query = RouteQuery {
        // FRR sends ours back, too; they are loops.
        table: RouteTable::Accepted,
        peer: None,
        prefix: None,
        limit: 10,
    };
    let learned = async || {
        let mut routes = ours.handle.routes(query.clone()).await.unwrap();
        routes.retain(|r| r.peer.is_some());
        routes
    };
    let learned = eventually("both routes", learned, |r| r.len() == 2).await;
    let index = lab.link_index("cable");
    for route in learned {
        let hop = route.next_hop.unwrap();
        assert!(
            hop.to_string().starts_with("fe80:") && link::of(hop) == index,
            "{route:?}"
        );
        assert!(
            [THEIR_V4, THEIR_V6].contains(&&*route.prefix.to_string()),
            "{route:?}"
        );
    }
}

#[tokio::test]
async fn we_find_the_neighbour_by_its_advertisements_and_dial() {
    let lab = Lab::new();
    let frr = Frr::start(&lab, " neighbor cable passive\n").await;
    let ours = ours(&lab, PeerAs::External, false);
    routes_flow_both_ways(&lab, &frr, &ours).await;
}

#[tokio::test]
async fn the_neighbour_finds_us_by_ours_and_dials() {
    let lab = Lab::new();
    let frr = Frr::start(&lab, "").await;
    let ours = ours(&lab, PeerAs::Number(64999), true);
    routes_flow_both_ways(&lab, &frr, &ours).await;
}

#[tokio::test]
async fn bfd_between_link_local_addresses_ends_a_dead_session_in_time() {
    let lab = Lab::new();
    let near = lab.ours(speaker(64512, "10.9.0.1", neighbour(PeerAs::External, protected)));
    let far = lab.theirs(speaker(64999, "10.9.0.2", neighbour(PeerAs::External, protected)));
    bfd_is_up(&near).await;
    bfd_is_up(&far).await;
    assert_eq!(status(&far).await.asn, Some(64512));
    let cut = Instant::now();
    lab.cut();
    for speaker in [&near, &far] {
        let (took, said) = ends_with(speaker, cut).await;
        assert_eq!(said.as_deref(), Some("6/10 BFD down"));
        assert!(took < FAILOVER, "{took:?}");
    }
    lab.heal();
    bfd_is_up(&near).await;
}

#[tokio::test]
async fn frr_protects_its_interface_peer_with_bfd() {
    let lab = Lab::new();
    let fast = " neighbor cable bfd 3 100 100\n";
    let frr = Frr::start(&lab, fast).await;
    let ours = lab.ours(speaker(64512, "10.9.0.1", neighbour(PeerAs::External, protected)));
    bfd_is_up(&ours).await;
    let seen = async || frr.ask("show bgp neighbors cable json").replace(' ', "");
    let up = |text: &String| text.contains("\"status\":\"Up\"");
    eventually("FRR's BFD session", seen, up).await;
    let cut = Instant::now();
    lab.cut();
    let (took, said) = ends_with(&ours, cut).await;
    assert_eq!(said.as_deref(), Some("6/10 BFD down"));
    assert!(took < FAILOVER, "{took:?}");
}

#[tokio::test]
async fn an_external_neighbour_is_none_where_an_internal_one_is_meant() {
    let lab = Lab::new();
    let _frr = Frr::start(&lab, "").await;
    let ours = ours(&lab, PeerAs::Internal, false);
    let told = async || ours.handle.peers().await.unwrap().remove(0);
    let refused = |p: &PeerStatus| p.last_error_sent.as_deref().is_some_and(|e| e.starts_with("2/2"));
    let status = eventually("a refusal", told, refused).await;
    assert_ne!(status.state, PeerState::Established);
    assert_eq!(status.asn, Some(64512), "ours is what it should have");
}

#[tokio::test]
async fn nobody_on_another_link_is_taken_for_the_neighbour() {
    let lab = Lab::new();
    let _frr = Frr::start(&lab, "").await;
    let mut peer = PeerConfig::on_link("lo", None, 64999);
    peer.timers.connect_retry = Duration::from_millis(200);
    let ours = lab.ours(Config {
        listen: vec![SocketAddr::new(at("::"), 179)],
        peers: vec![peer],
        ..Config::new(64512, "10.9.0.1".parse().unwrap())
    });
    let told = async || {
        let status = ours.handle.peers().await.unwrap().remove(0);
        (status.state, status.last_error_received.unwrap_or_default())
    };
    let waits = |(_, error): &(PeerState, String)| error.contains("advertises himself on lo");
    let (state, _) = eventually("a reason", told, waits).await;
    assert_ne!(state, PeerState::Established);
}

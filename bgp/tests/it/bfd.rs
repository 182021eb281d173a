//! BFD against BIRD's and FRR's: it comes up, a dead path ends the BGP session in less than a second at both ends, and
//! nothing else does.

use crate::lab::{Daemon, Lab, Ours, at, eventually};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use twill_bgp::bfd::{Params, State};
use twill_bgp::config::Origination;
use twill_bgp::view::{PeerState, RouteQuery, RouteTable};
use twill_bgp::{Config, Families, PeerConfig, PeerStatus};

/// What the issue asks for.
const FAILOVER: Duration = Duration::from_secs(1);

const BIRD: &str = r#"
protocol static s4 { ipv4; route 198.18.0.0/24 blackhole; }
protocol bfd {
  interface "cable" { min rx interval 100 ms; min tx interval 100 ms; idle tx interval 1 s; multiplier 3; };
  multihop { min rx interval 100 ms; min tx interval 100 ms; idle tx interval 1 s; multiplier 3; };
}
template bgp twill { graceful restart on; hold time 240; connect retry time 1; error wait time 1,2; connect delay time 1; }
protocol bgp t4 from twill { local 10.9.0.2 as 64999; neighbor 10.9.0.1 as 64512; direct; bfd on; ipv4 { import all; export where source = RTS_STATIC; }; }
protocol bgp t6 from twill { local fd09::2 as 64999; neighbor fd09::1 as 64512; direct; bfd off; ipv6 { import all; export none; }; }
"#;

const FRR_BGPD: &str = "
router bgp 64999
 bgp router-id 10.9.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 60 240
 neighbor 10.9.0.1 remote-as 64512
 neighbor 10.9.0.1 timers connect 1
 neighbor 10.9.0.1 bfd
 neighbor 10.9.0.1 bfd profile fast
 address-family ipv4 unicast
  network 198.18.0.0/24
 exit-address-family
";

const FRR_BFDD: &str = "
bfd
 profile fast
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
";

fn params() -> Params {
    Params {
        min_tx: Duration::from_millis(100),
        min_rx: Duration::from_millis(100),
        multiplier: 3,
        multihop: false,
    }
}

fn peer(address: &str, bfd: Option<Params>) -> PeerConfig {
    let mut peer = PeerConfig::new(at(address), 64999);
    peer.timers.connect_retry = Duration::from_secs(1);
    peer.timers.hold_secs = 240;
    peer.bfd = bfd;
    peer
}

fn config(peers: Vec<PeerConfig>) -> Config {
    Config {
        listen: vec![
            SocketAddr::new(at("10.9.0.1"), 179),
            SocketAddr::new(at("fd09::1"), 179),
        ],
        peers,
        ..Config::new(64512, "10.9.0.1".parse().unwrap())
    }
}

/// The peer with BFD, the first by address.
async fn status(ours: &Ours) -> PeerStatus {
    ours.handle.peers().await.unwrap().remove(0)
}

async fn protected(ours: &Ours) {
    let up =
        |p: &PeerStatus| p.state == PeerState::Established && p.bfd.is_some_and(|b| b.state == State::Up);
    eventually("a session with BFD up", async || status(ours).await, up).await;
}

async fn learned(ours: &Ours) -> usize {
    let query = RouteQuery {
        table: RouteTable::Best,
        peer: Some(at("10.9.0.2")),
        prefix: None,
        limit: 10,
    };
    ours.handle.routes(query).await.unwrap().len()
}

/// Cuts the cable and says how long it takes until the peer's routes are gone here, and until it knows there.
async fn failover(lab: &Lab, ours: &Ours, there: &impl AsyncFn() -> bool) -> [Duration; 2] {
    eventually("a route", async || learned(ours).await, |n| *n == 1).await;
    lab.cut();
    let start = Instant::now();
    let (mut here_after, mut there_after) = (None, None);
    while here_after.is_none() || there_after.is_none() {
        if here_after.is_none() && learned(ours).await == 0 {
            here_after = Some(start.elapsed());
        }
        if there_after.is_none() && there().await {
            there_after = Some(start.elapsed());
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{here_after:?} {there_after:?}"
        );
    }
    [here_after, there_after].map(|d| d.unwrap_or(Duration::MAX))
}

/// Whether it is in time, at best of three: a machine that is busy may be late at both ends. Leaves the cable cut.
async fn fails_over_in_time(lab: &Lab, ours: &Ours, there: impl AsyncFn() -> bool) {
    let mut all = Vec::new();
    for _ in 0..3 {
        let took = failover(lab, ours, &there).await;
        if took.iter().all(|t| *t < FAILOVER) {
            return;
        }
        all.push(took);
        lab.heal();
        protected(ours).await;
    }
    panic!("here and there, after the cut: {all:?}");
}

#[tokio::test]
async fn a_dead_path_to_bird_ends_the_session_in_time_and_only_where_bfd_is_on() {
    let mut lab = Lab::new();
    lab.bird(BIRD);
    let ours = lab.ours(config(vec![
        peer("10.9.0.2", Some(params())),
        peer("fd09::2", None),
    ]));
    protected(&ours).await;
    let without = |p: &Vec<PeerStatus>| p[1].state == PeerState::Established;
    eventually(
        "the session without BFD",
        async || ours.handle.peers().await.unwrap(),
        without,
    )
    .await;
    assert!(lab.birdc("show bfd sessions").contains("Up"));
    let gone = async || !lab.birdc("show protocols t4").contains("Established");
    fails_over_in_time(&lab, &ours, gone).await;
    let peers = ours.handle.peers().await.unwrap();
    assert_eq!(peers[0].last_error_sent.as_deref(), Some("6/10 BFD down"));
    // The negative twin: the same cut, no BFD, nothing noticed.
    assert_eq!(peers[1].state, PeerState::Established);
    assert!(lab.birdc("show protocols t6").contains("Established"));
    lab.heal();
    protected(&ours).await;
}

#[tokio::test]
async fn a_dead_path_to_frr_ends_the_session_in_time() {
    let lab = Lab::new();
    let _frr = frr(&lab);
    let ours = lab.ours(config(vec![peer("10.9.0.2", Some(params()))]));
    protected(&ours).await;
    let up = |o: &String| o.contains("\"status\":\"up\"");
    let show = |what: &str| lab.inside(&["vtysh", "--vty_socket", lab.dir().to_str().unwrap(), "-c", what]);
    eventually(
        "FRR's BFD session",
        async || show("show bfd peers json").replace(' ', ""),
        up,
    )
    .await;
    let gone = async || !show("show bgp neighbors 10.9.0.1 json").contains("\"bgpState\":\"Established\"");
    fails_over_in_time(&lab, &ours, gone).await;
    assert_eq!(
        status(&ours).await.last_error_sent.as_deref(),
        Some("6/10 BFD down")
    );
}

/// zebra, bfdd and bgpd, with all their files in the lab's directory.
fn frr(lab: &Lab) -> Vec<Daemon> {
    // The daemons drop root and make their sockets there.
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let dir = lab.dir().to_str().unwrap().to_owned();
    for (name, config) in [("zebra", ""), ("bfdd", FRR_BFDD), ("bgpd", FRR_BGPD)] {
        std::fs::write(format!("{dir}/{name}.conf"), config).unwrap();
    }
    let (api, control) = (format!("{dir}/zserv.api"), format!("{dir}/bfdd.sock"));
    let start = |name: &str, more: &[&str]| {
        let (bin, file, pid) = (
            format!("/usr/lib/frr/{name}"),
            format!("{dir}/{name}.conf"),
            format!("{dir}/{name}.pid"),
        );
        let mut command = vec![&*bin, "-f", &file, "-i", &pid, "-z", &api, "--vty_socket", &dir];
        command.extend(more);
        lab.daemon(&command)
    };
    let zebra = start("zebra", &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::path::Path::new(&api).exists() {
        assert!(Instant::now() < deadline, "zebra did not start");
        std::thread::yield_now();
    }
    vec![
        start("bgpd", &["-p", "179", "-n"]),
        start("bfdd", &["--bfdctl", &control]),
        zebra,
    ]
}

#[tokio::test]
async fn it_works_over_several_hops_too() {
    let mut lab = Lab::new();
    lab.bird(&BIRD.replace(
        "neighbor 10.9.0.1 as 64512; direct;",
        "neighbor 10.9.0.1 as 64512; multihop 8;",
    ));
    let far = Params {
        multihop: true,
        ..params()
    };
    let ours = lab.ours(config(vec![peer("10.9.0.2", Some(far))]));
    protected(&ours).await;
    let gone = async || !lab.birdc("show protocols t4").contains("Established");
    fails_over_in_time(&lab, &ours, gone).await;
}

#[tokio::test]
async fn a_peer_without_bfd_keeps_its_session() {
    let mut lab = Lab::new();
    let (before, after) = (BIRD.find("protocol bfd").unwrap(), BIRD.find("template").unwrap());
    let deaf = [&BIRD[..before], &BIRD[after..]].concat();
    lab.bird(&deaf.replace("bfd on;", "").replace("bfd off;", ""));
    let ours = lab.ours(config(vec![peer("10.9.0.2", Some(params()))]));
    // Three of our packets found no port there: far more than a detection time has passed.
    let unheard = |n: &u64| *n >= 3;
    let no_ports = async || {
        let text = lab.inside(&["cat", "/proc/net/snmp"]);
        let numbers = text.lines().filter(|l| l.starts_with("Udp:")).nth(1).unwrap();
        numbers.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
    };
    eventually("BFD packets that nobody wants", no_ports, unheard).await;
    let now = status(&ours).await;
    assert_eq!((now.state, now.established_count), (PeerState::Established, 1));
    assert_eq!(now.bfd.map(|b| b.state), Some(State::Down));
}

/// BIRD takes every end of a BFD session for a failure, and keeps routes over it only when told so.
#[tokio::test]
async fn our_planned_restart_keeps_routes_in_a_bird_with_graceful_bfd() {
    let mut lab = Lab::new();
    lab.bird(&BIRD.replace("bfd on;", "bfd graceful;"));
    let mut careful = peer("10.9.0.2", Some(params()));
    careful.families = Families::IPV4;
    let ours = lab.ours(config(vec![careful]));
    let net = "10.244.0.0/26".parse().unwrap();
    ours.handle
        .originate([(net, Origination::default())].into())
        .await
        .unwrap();
    ours.handle.own_routes_known().await.unwrap();
    protected(&ours).await;
    let route = async || lab.birdc("show route all 10.244.0.0/26");
    eventually("our route", route, |o| o.contains("BGP.as_path")).await;
    ours.handle.stop().await.unwrap();
    let down = |o: &String| !o.contains("Established");
    eventually("BIRD sees us gone", async || lab.birdc("show protocols t4"), down).await;
    let bfd = |o: &String| !o.contains("10.9.0.1") || o.contains("Down");
    eventually(
        "BIRD's BFD session ends",
        async || lab.birdc("show bfd sessions"),
        bfd,
    )
    .await;
    assert!(route().await.contains("BGP.as_path"));
}

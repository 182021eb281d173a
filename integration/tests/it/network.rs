//! What the lab is without Twill: namespaces, etcd, BIRD, probes.

use crate::common::{Name, bare, bin};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use twill_lab::child::Life;
use twill_lab::cni;
use twill_lab::lab::{self, Lab};
use twill_lab::pods::{self, PodSpec};
use twill_lab::probe::{self, Endpoint, Flow, Kind, Server, Stream};
use twill_lab::routes::{self, Root, Watch};
use twill_lab::topology::{TWO_RACKS, Topology};
use twill_lab::{bird, netns, run, state};

fn endpoint(lab: &Lab, member: &str, address: [u8; 4]) -> Endpoint {
    Endpoint {
        name: member.to_owned(),
        netns: lab.ns(member),
        address: Ipv4Addr::from(address),
    }
}

#[test]
fn a_lab_comes_up_with_etcd_and_bird_and_leaves_nothing_behind() {
    let name = Name::new();
    let lab = bare(&name);
    assert_eq!(name.namespaces().len(), 7);
    lab.etcdctl(&["put", "/lab/test", "1"]).unwrap();
    assert_eq!(
        lab.etcdctl(&["get", "/lab/test", "--print-value-only"])
            .unwrap()
            .trim(),
        "1"
    );
    let sessions = bird::sessions(&lab.state, "tor").unwrap();
    assert_eq!(
        sessions.iter().map(|s| s.peer.as_str()).collect::<Vec<_>>(),
        ["n1", "n2", "n3"]
    );
    let children = lab.state.children.clone();
    lab.down().unwrap();
    assert!(name.namespaces().is_empty());
    assert!(children.iter().all(|c| !c.process.is_alive()));
    assert!(!state::dir(&name.0).exists());
}

#[test]
fn two_labs_run_side_by_side() {
    let (one, two) = (Name::new(), Name::new());
    let (first, second) = (bare(&one), bare(&two));
    first.etcdctl(&["put", "/lab/test", "first"]).unwrap();
    second.etcdctl(&["put", "/lab/test", "second"]).unwrap();
    assert_eq!(
        first
            .etcdctl(&["get", "/lab/test", "--print-value-only"])
            .unwrap()
            .trim(),
        "first"
    );
    first.down().unwrap();
    assert_eq!(
        second
            .etcdctl(&["get", "/lab/test", "--print-value-only"])
            .unwrap()
            .trim(),
        "second"
    );
}

#[test]
fn a_dead_lab_is_swept_and_a_living_one_is_refused() {
    let name = Name::new();
    let lab = bare(&name);
    // In one process the lock says it first; the state says it to a command that comes later.
    let again = || Lab::up(&name.0, Topology::one_rack().unwrap(), &bin(), Life::EndsWithUs);
    assert!(again().is_err_and(|e| e.to_string().contains("another twill-lab command")));
    let mut dead = lab.state.clone();
    drop(lab);
    assert!(again().is_err_and(|e| e.to_string().contains("is up already")));
    for child in &dead.children {
        child.process.kill().unwrap();
    }
    dead.owner = None;
    dead.save().unwrap();
    let lab = again().unwrap();
    assert!(lab.state.is_alive());
    lab.etcdctl(&["get", "x"]).unwrap();
}

#[test]
fn two_racks_are_a_matter_of_the_topology_file() {
    let name = Name::new();
    let lab = Lab::up(
        &name.0,
        Topology::parse(TWO_RACKS).unwrap(),
        &bin(),
        Life::EndsWithUs,
    )
    .unwrap();
    let spine = |router, peer: &str| {
        let sessions = bird::sessions(&lab.state, router)?;
        let session = sessions.iter().find(|s| s.peer == peer);
        anyhow::ensure!(session.is_some_and(|s| s.info == "Established"), "{session:?}");
        Ok(())
    };
    run::wait_for("the spine session", std::time::Duration::from_secs(30), || {
        spine("tor", "tor2")
    })
    .unwrap();
    let hosts = [
        endpoint(&lab, "host", [192, 0, 2, 10]),
        endpoint(&lab, "host2", [198, 51, 100, 10]),
    ];
    let nodes = [
        endpoint(&lab, "n1", [172, 31, 0, 1]),
        endpoint(&lab, "n4", [172, 31, 1, 2]),
    ];
    let ends: Vec<_> = hosts.into_iter().chain(nodes).collect();
    run::wait_for(
        "everybody across the spine",
        std::time::Duration::from_secs(20),
        || twill_lab::demo::reach::all_echo(probe::run(&probe::full_mesh(&ends, &[Kind::Icmp]))?),
    )
    .unwrap();
}

#[test]
fn probes_tell_an_open_door_from_a_closed_one() {
    let name = Name::new();
    let lab = bare(&name);
    let ends = [
        endpoint(&lab, "host", [192, 0, 2, 10]),
        endpoint(&lab, "tor", [192, 0, 2, 254]),
    ];
    let servers: Vec<_> = ends.iter().map(|e| Server::start(e).unwrap()).collect();
    let probes = probe::full_mesh(&ends, &[Kind::Icmp, Kind::Tcp, Kind::Udp]);
    assert_eq!(probes.len(), 6);
    let seen = probe::run(&probes).unwrap();
    assert!(seen.iter().all(|s| s.echo.is_ok()), "{seen:?}");
    // The negative twin: a dropping rule for new flows stops all kinds, and lets the open flow go on. Connections are tracked
    // from the first rule on that asks for their state.
    let nft = |rules: &str| run::output(netns::command(&lab.ns("tor"), "nft").arg(rules), b"").unwrap();
    nft(
        "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in ct state established accept",
    );
    let mut flow = Flow::open(&ends[0], &ends[1]).unwrap();
    nft("add rule ip t in drop");
    let seen = probe::run(&probes).unwrap();
    let closed = |s: &&probe::Seen| s.probe.to.name == "tor";
    assert!(seen.iter().filter(closed).all(|s| s.echo.is_err()), "{seen:?}");
    assert!(
        seen.iter().filter(|s| !closed(s)).all(|s| s.echo.is_ok()),
        "{seen:?}"
    );
    flow.exchange().unwrap();
    drop(servers);
    assert!(Flow::open(&ends[1], &ends[0]).is_err());
}

#[test]
fn a_stream_counts_every_lost_ping() {
    let name = Name::new();
    let lab = bare(&name);
    let (host, tor) = (
        endpoint(&lab, "host", [192, 0, 2, 10]),
        endpoint(&lab, "tor", [192, 0, 2, 254]),
    );
    let stream = Stream::start(&host, &tor, 100).unwrap();
    run::pass(std::time::Duration::from_millis(500)).unwrap();
    let count = stream.finish().unwrap();
    assert!(count.sent >= 10 && count.lost.is_empty(), "{count:?}");
    let stream = Stream::start(&host, &tor, 100).unwrap();
    let rule =
        "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in drop";
    run::output(netns::command(&lab.ns("tor"), "nft").arg(rule), b"").unwrap();
    run::pass(std::time::Duration::from_millis(300)).unwrap();
    assert!(!stream.finish().unwrap().lost.is_empty());
}

#[test]
fn a_deleted_pool_route_is_told_and_one_elsewhere_is_not() {
    let name = Name::new();
    let lab = bare(&name);
    let pool: Ipv4Net = "10.244.0.0/16".parse().unwrap();
    let act = |lines: &str| netns::ip(&lab.ns("n1"), lines).unwrap();
    let watch = Watch::start(&lab.ns("n1")).unwrap();
    act(
        "route add blackhole 10.245.0.0/26\nroute del blackhole 10.245.0.0/26\nroute add blackhole 10.244.0.0/26 proto 80\n",
    );
    assert!(watch.finish(pool).unwrap().is_empty());
    let watch = Watch::start(&lab.ns("n1")).unwrap();
    act("route del blackhole 10.244.0.0/26\n");
    assert_eq!(watch.finish(pool).unwrap().len(), 1);
}

#[test]
fn a_route_to_the_pool_that_is_neither_ours_nor_birds_is_found_wherever_it_is() {
    let name = Name::new();
    let lab = bare(&name);
    assert_eq!(routes::check_makers(&lab.state).unwrap(), 0);
    netns::ip(&lab.ns("n2"), "route add blackhole 10.244.0.0/26 proto 80\n").unwrap();
    assert_eq!(routes::check_makers(&lab.state).unwrap(), 1);
    for (member, route) in [
        ("n1", "10.244.9.0/26 via 172.31.0.3"),
        ("n3", "blackhole 10.244.0.0/26 table 77"),
        ("tor", "10.244.0.0/16 via 172.31.0.1 proto 80"),
        ("host", "10.0.0.0/8 via 192.0.2.254"),
        ("etcd", "10.244.0.1 via 172.31.0.1"),
    ] {
        netns::ip(&lab.ns(member), &format!("route add {route}\n")).unwrap();
        let error = routes::check_makers(&lab.state).unwrap_err().to_string();
        assert!(error.contains(&lab.ns(member)), "{error}");
        netns::ip(&lab.ns(member), &format!("route del {route}\n")).unwrap();
    }
    routes::check_makers(&lab.state).unwrap();
}

#[test]
fn a_change_of_the_root_namespace_would_be_seen() {
    lab::check_tools().unwrap();
    let before = Root::look().unwrap();
    before.check_unchanged(&before).unwrap();
    // The same look in a namespace of its own stands for "something changed": the real root is never touched.
    let name = Name::new();
    let lab = bare(&name);
    let inside = netns::within(&lab.ns("host"), Root::look).unwrap().unwrap();
    assert!(inside.check_unchanged(&before).is_err());
}

#[test]
fn a_plugin_is_run_as_a_runtime_runs_it() {
    let name = Name::new();
    let mut lab = bare(&name);
    // The reference plugin stands for ours: what is tested is the way it is called.
    let pod = lab
        .make_pod(&PodSpec::new("demo/web".parse().unwrap(), "n1"))
        .unwrap();
    let data = lab.state.member_dir("n1").join("host-local");
    let config = serde_json::json!({
        "cniVersion": "1.0.0", "name": "ptp", "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": data},
    });
    let plugin = cni::Plugin {
        program: "/usr/lib/cni/ptp".into(),
        config,
    };
    let exec = |verb: &str| plugin.exec(verb, &lab.ns("n1"), &pod, &pods::path(&pod)).unwrap();
    let result = exec("ADD").outcome.unwrap();
    let addresses = cni::addresses(&result).unwrap();
    let links = run::output(
        netns::command(&pod.netns, "ip").args(["-4", "addr", "show", cni::IFNAME]),
        b"",
    )
    .unwrap();
    assert!(links.contains(&addresses[0].to_string()), "{links}");
    // It is there already: an error of the spec, not a failed run.
    assert!(exec("ADD").outcome.is_err());
    assert!(exec("DEL").outcome.is_ok());
    assert!(exec("DEL").outcome.is_ok());
}

#[test]
fn a_lock_given_up_is_free_at_once_while_other_threads_start_processes() {
    let name = Name::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starts = || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                run::output(&mut std::process::Command::new("true"), b"").unwrap();
            }
        };
        scope.spawn(starts);
        scope.spawn(starts);
        let busy = (0..2000).find(|_| state::lock(&name.0).is_err());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(busy, None, "still locked after it was given up");
    });
    std::fs::remove_dir_all(state::dir(&name.0)).unwrap();
}

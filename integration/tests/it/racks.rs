//! Two racks with a router each: pods reach each other through both, by next hops that no node has on a subnet of its own.

use std::time::Duration;

use anyhow::ensure;
use twill_lab::bird;
use twill_lab::demo::{self, Options, Scene, reach};
use twill_lab::probe::{self, Kind, Seen};
use twill_lab::run::wait_for;
use twill_lab::topology::{TWO_RACKS, Topology};

use crate::common::{Name, bin};

/// Blocks come, routes are resolved, routers tell each other. A pass of probes alone takes 1.5 s, and one lost is a pass lost.
const LIMIT: Duration = Duration::from_secs(60);

/// Two racks with all pods attached.
fn racks(name: &Name) -> Scene {
    let mut scene = Scene::new(Options {
        name: name.0.clone(),
        topology: Topology::parse(TWO_RACKS).unwrap(),
        bin: bin(),
        keep: false,
        sabotage: false,
    });
    demo::raise(&mut scene).unwrap();
    demo::fabric::peer(&mut scene).unwrap();
    demo::attach::attach(&mut scene).unwrap();
    scene
}

/// The rack of an endpoint, by its node or router.
fn rack(scene: &Scene, endpoint: &str) -> String {
    let state = &scene.lab().unwrap().state;
    match state.pods.iter().find(|pod| pod.name == endpoint) {
        Some(pod) => state.topology.node(&pod.node).unwrap().segment.clone(),
        None => endpoint.to_owned(),
    }
}

fn look(scene: &Scene) -> anyhow::Result<Vec<Seen>> {
    probe::run(&probe::full_mesh(&scene.endpoints, &[Kind::Icmp, Kind::Tcp]))
}

/// Has a router say everything again to everybody, and returns what its log has more afterwards.
fn said_again(scene: &Scene, router: &str) -> String {
    let state = &scene.lab().unwrap().state;
    let file = state.member_dir(router).join("bird.log");
    let exported = || -> anyhow::Result<u64> {
        let said = bird::birdc(state, router, &["show", "protocols", "all"])?;
        let lines = said.lines().filter(|l| l.contains("Export updates:"));
        let counts = lines.filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok());
        Ok(counts.sum())
    };
    let (before, log) = (exported().unwrap(), std::fs::read_to_string(&file).unwrap().len());
    bird::birdc(state, router, &["reload", "out", "all"]).unwrap();
    wait_for("everything is said again", LIMIT, || {
        ensure!(exported()? > before, "nothing was");
        Ok(())
    })
    .unwrap();
    std::fs::read_to_string(&file).unwrap().split_off(log)
}

#[test]
fn pods_of_two_racks_reach_each_other_and_no_longer_when_nodes_announce_what_they_send_back() {
    let name = Name::new();
    let mut scene = racks(&name);
    // Tables, probes of all kinds between all pods and both hosts, proxy-ARP, nobody else's routes.
    reach::prove(&mut scene).unwrap();
    let lab = scene.lab().unwrap();
    // Of the other rack's blocks a router knows the way by the spine alone: no node of its rack offers itself.
    let blocks = reach::own_blocks(lab).unwrap();
    let spine: std::net::Ipv4Addr = "172.31.255.2".parse().unwrap();
    let far = blocks
        .iter()
        .filter(|(_, (owner, _))| matches!(owner.as_str(), "n3" | "n4"));
    let far: Vec<_> = far.collect();
    wait_for("the spine alone leads to the other rack", LIMIT, || {
        let paths = bird::paths(&lab.state, "tor")?;
        for (block, (owner, _)) in &far {
            ensure!(
                paths.get(*block).is_some_and(|hops| *hops == [spine]),
                "{block} of {owner} at tor: {paths:?}"
            );
        }
        Ok(())
    })
    .unwrap();
    // No router would send an owner its own block: it prefers what the owner says. While blocks come up, a neighbour's word
    // may be the first.
    for router in ["tor", "tor2"] {
        let said = said_again(&scene, router);
        assert!(!said.contains("Invalid NEXT_HOP"), "{said}");
    }
    // The twin: told to announce itself whatever it knows, a node draws the other rack's traffic and sends it back.
    let peers: String = ["tor-n1 n1", "tor-n2 n2"]
        .iter()
        .map(|both| {
            let (peer, node) = both.split_once(' ').unwrap();
            format!(
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: {peer}\nspec:\n  node: {node}\n  \
                 peerIP: 172.31.0.254\n  asNumber: 64999\n  nextHopMode: Self\n---\n"
            )
        })
        .collect();
    let file = twill_lab::state::dir(&name.0).join("self.yaml");
    lab.ctl("n1")
        .unwrap()
        .file("apply", &file, peers.trim_end_matches("---\n"))
        .unwrap();
    wait_for("traffic from one rack to the other is lost", LIMIT, || {
        let across =
            |s: &Seen| rack(&scene, &s.probe.from.name) == "seg" && rack(&scene, &s.probe.to.name) == "seg2";
        let seen = look(&scene)?;
        ensure!(
            seen.iter().filter(|s| across(s)).all(|s| s.echo.is_err()),
            "some still get through"
        );
        let inside = |s: &&Seen| rack(&scene, &s.probe.from.name) == rack(&scene, &s.probe.to.name);
        reach::all_echo(seen.iter().filter(inside).cloned().collect())?;
        Ok(())
    })
    .unwrap();
}

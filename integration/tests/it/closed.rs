//! Closed at birth: a workload interface that nobody gave a policy passes nothing, whatever the daemon is doing.

use crate::common::{Name, bare};
use std::net::Ipv4Addr;
use std::time::Duration;
use twill_lab::demo::fabric::sessions_up;
use twill_lab::lab::Lab;
use twill_lab::probe::{self, Endpoint, Kind, Probe, Server};
use twill_lab::{netns, run};

/// An address that only this link has.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Joins a namespace to n1 by a veth with a workload's name, routed both ways, and nothing else done for it.
fn hand_made_link(lab: &mut Lab) -> Endpoint {
    let netns = lab.ns("pod-hand.made");
    lab.state.namespaces.insert(netns.clone());
    lab.state.save().unwrap();
    netns::create(&netns).unwrap();
    let lines = format!(
        "link add calihandmade01 type veth peer name eth0 netns {netns}\nlink set calihandmade01 up\n\
         addr add 169.254.77.1/32 dev calihandmade01\nroute add {ADDRESS}/32 dev calihandmade01\n"
    );
    netns::ip(&lab.ns("n1"), &lines).unwrap();
    let lines = format!(
        "addr add {ADDRESS}/32 dev eth0\nlink set eth0 up\nroute add 169.254.77.1/32 dev eth0\n\
         route add default via 169.254.77.1 dev eth0\n"
    );
    netns::ip(&netns, &lines).unwrap();
    Endpoint {
        name: "hand-made".to_owned(),
        netns,
        address: ADDRESS,
    }
}

fn node(lab: &Lab, name: &str, last: u8) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        netns: lab.ns(name),
        address: Ipv4Addr::new(172, 31, 0, last),
    }
}

/// From the link to the node and through it, and from another node through it to the link.
fn passed(lab: &Lab, link: &Endpoint) -> Vec<String> {
    let (n1, n2) = (node(lab, "n1", 1), node(lab, "n2", 2));
    let mut probes = Vec::new();
    for kind in [Kind::Icmp, Kind::Tcp, Kind::Udp] {
        for (from, to) in [(link, &n1), (link, &n2), (&n2, link)] {
            probes.push(Probe {
                from: from.clone(),
                to: to.clone(),
                kind,
            });
        }
    }
    let seen = probe::run(&probes).unwrap();
    seen.iter()
        .filter(|s| s.echo.is_ok())
        .map(ToString::to_string)
        .collect()
}

/// The twin: without rules each of the nine probes passes. One that is lost on a busy machine may be asked again.
fn everything_passes(lab: &Lab, link: &Endpoint) {
    run::wait_for("all nine probes pass", Duration::from_secs(30), || {
        let passed = passed(lab, link);
        anyhow::ensure!(passed.len() == 9, "only these pass: {passed:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_hand_made_link_passes_nothing_with_the_daemon_up_killed_or_not_yet_in_sync() {
    let name = Name::new();
    let mut lab = bare(&name);
    let link = hand_made_link(&mut lab);
    netns::sysctl(&lab.ns("n1"), "ipv4/ip_forward", "1").unwrap();
    netns::ip(&lab.ns("n2"), &format!("route add {ADDRESS}/32 via 172.31.0.1\n")).unwrap();
    let serves = [node(&lab, "n1", 1), node(&lab, "n2", 2), link.clone()];
    let _servers: Vec<_> = serves.iter().map(|e| Server::start(e).unwrap()).collect();
    // The twin: without Twill every one of these nine passes.
    everything_passes(&lab, &link);

    lab.start_nodes().unwrap();
    lab.configure().unwrap();
    sessions_up(&lab).unwrap();
    assert_eq!(passed(&lab, &link), Vec::<String>::new(), "with the daemon up");

    lab.kill_node("n1").unwrap();
    assert_eq!(
        passed(&lab, &link),
        Vec::<String>::new(),
        "with the daemon killed"
    );

    // As after a boot: no rules, and a store that does not answer.
    lab.stop_etcd().unwrap();
    let nft = |words: &[&str]| run::output(netns::command(&lab.ns("n1"), "nft").args(words), b"").unwrap();
    nft(&["flush", "ruleset"]);
    everything_passes(&lab, &link);
    let node = lab.state.topology.node("n1").unwrap().clone();
    lab.start_node(&node).unwrap();
    run::wait_for("rules of n1 without a store", Duration::from_secs(20), || {
        let rules = run::output(
            netns::command(&lab.ns("n1"), "nft").args(["list", "ruleset"]),
            b"",
        )?;
        anyhow::ensure!(
            rules.contains("cali*"),
            "no rule on workload interfaces yet: {}",
            lab.daemon("n1")?.tail()
        );
        Ok(())
    })
    .unwrap();
    assert!(lab.ready_now("n1").is_err(), "in sync without a store");
    assert_eq!(passed(&lab, &link), Vec::<String>::new(), "not yet in sync");
}

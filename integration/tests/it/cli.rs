//! A lab that is left running, used by one command after the other.

use crate::common::Name;
use serde_json::Value;
use std::time::Duration;
use twill_lab::probe::{self, Endpoint, Kind};
use twill_lab::{demo, run, state};

/// Runs a command that must succeed; its words are parted by spaces.
fn ok(name: &Name, words: &str) -> String {
    let finished = name.run(&words.split(' ').collect::<Vec<_>>());
    assert!(finished.status.success(), "{words}: {}", finished.said());
    finished.stdout
}

#[test]
fn a_lab_left_running_is_used_and_ended_by_other_commands() {
    let name = Name::new();
    ok(&name, "up");
    let again = name.run(&["up"]);
    assert!(
        !again.status.success() && again.stderr.contains("is up already"),
        "{}",
        again.said()
    );

    let added: Value = serde_json::from_str(&ok(&name, "pod add n1 shop/web --label app=web")).unwrap();
    let address = added["ips"][0]["address"]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    ok(&name, "pod add n2 other");
    ok(&name, &format!("pod exec other -- ping -c 1 -W 5 {address}"));
    ok(&name, &format!("exec host -- ping -c 1 -W 5 {address}"));
    let endpoint = ok(&name, "ctl --node n3 -- get workloadendpoints -n shop -o json");
    assert!(
        endpoint.contains(&address) && endpoint.contains("\"app\": \"web\""),
        "{endpoint}"
    );
    let keys = ok(
        &name,
        "exec etcd -- etcdctl get --prefix --keys-only /calico/ipam/v2/handle/",
    );
    assert_eq!(keys.lines().filter(|k| !k.is_empty()).count(), 2, "{keys}");

    let status: Value = serde_json::from_str(&ok(&name, "status --json")).unwrap();
    assert_eq!(status["alive"], true);
    assert!(
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|n| n["ready"] == true),
        "{status}"
    );
    assert_eq!(status["pods"].as_array().unwrap().len(), 2);
    ok(&name, "status");

    ok(&name, "pod del shop/web");
    let gone = name.run(&["pod", "exec", "shop/web", "--", "true"]);
    assert!(
        !gone.status.success() && gone.stderr.contains("has no pod shop/web"),
        "{}",
        gone.said()
    );
    ok(&name, "down");
    assert!(name.namespaces().is_empty());
    assert!(!state::dir(&name.0).exists());
}

#[test]
fn pods_of_two_racks_reach_each_other_and_the_hosts_of_both() {
    let name = Name::new();
    let file = format!("{}/topologies/two-racks.yaml", env!("CARGO_MANIFEST_DIR"));
    ok(&name, &format!("up --topology {file}"));
    for (node, pod) in [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "d")] {
        ok(&name, &format!("pod add {node} {pod}"));
    }
    let state = state::load(&name.0).unwrap().unwrap();
    let pods = state.pods.iter().map(|p| Endpoint {
        name: p.name.clone(),
        netns: p.netns.clone(),
        address: p.address.unwrap().to_string().parse().unwrap(),
    });
    let hosts = state.topology.hosts().map(|h| Endpoint {
        name: h.name.clone(),
        netns: state.namespace(&h.name),
        address: h.address.addr(),
    });
    let mesh = probe::full_mesh(&pods.chain(hosts).collect::<Vec<_>>(), &[Kind::Icmp]);
    run::wait_for("everybody across two racks", Duration::from_secs(30), || {
        demo::reach::all_echo(probe::run(&mesh)?)
    })
    .unwrap();
    ok(&name, "down");
}

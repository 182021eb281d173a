//! A lab that is left running, used by one command after the other.

use crate::common::Name;
use serde_json::Value;
use twill_lab::state;

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
    ok(&name, &format!("pod exec other -- ping -c 5 -W 2 {address}"));
    ok(&name, &format!("exec host -- ping -c 5 -W 2 {address}"));
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

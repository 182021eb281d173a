//! A node that runs is in the datastore: whoever deletes its resource sees it come back.

use crate::common::{Name, nodes, pod};
use std::time::Duration;
use twill_lab::lab::Lab;
use twill_lab::probe::{self, Endpoint, Kind, Probe};
use twill_lab::run::wait_for;

const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/n1";
const SOON: Duration = Duration::from_secs(20);

fn value(lab: &Lab, key: &str) -> serde_json::Value {
    let text = lab.etcdctl(&["get", key, "--print-value-only"]).unwrap();
    serde_json::from_str(&text).unwrap_or_default()
}

fn reaches(from: &Endpoint, to: &Endpoint) -> anyhow::Result<()> {
    let ask = Probe {
        from: from.clone(),
        to: to.clone(),
        kind: Kind::Icmp,
    };
    for seen in probe::run(&[ask])? {
        anyhow::ensure!(seen.echo.is_ok(), "{seen}");
    }
    Ok(())
}

#[test]
fn a_deleted_node_comes_back_while_its_daemon_runs_with_its_pods_and_only_then() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let (near, far) = (pod(lab, "shop/near", "n1"), pod(lab, "shop/far", "n2"));
    wait_for("reachable", SOON, || reaches(&far, &near)).unwrap();
    let before = value(lab, NODE);
    lab.etcdctl(&["del", NODE]).unwrap();
    wait_for("the node is back", SOON, || {
        let now = value(lab, NODE);
        anyhow::ensure!(now["metadata"]["uid"].is_string(), "{now}");
        anyhow::ensure!(now["spec"]["bgp"] == before["spec"]["bgp"], "{now}");
        Ok(())
    })
    .unwrap();
    let now = value(lab, NODE);
    assert_ne!(
        now["metadata"]["uid"], before["metadata"]["uid"],
        "it is a new object"
    );
    // Sessions and routes are as before, its pod kept its address, and it takes new ones.
    wait_for("reachable again", SOON, || reaches(&far, &near)).unwrap();
    let later = pod(lab, "shop/later", "n1");
    assert_ne!(later.address, near.address);
    wait_for("the new pod is reachable", SOON, || reaches(&far, &later)).unwrap();
    let checked = lab.ctl("n2").unwrap().run(&["ipam", "check"]).unwrap();
    assert!(checked.status.success(), "{}", checked.said());

    // Without its daemon nothing brings it back.
    lab.kill_node("n1").unwrap();
    lab.etcdctl(&["del", NODE]).unwrap();
    pod(lab, "shop/other", "n2");
    assert_eq!(value(lab, NODE), serde_json::Value::Null);
    let n1 = lab.state.topology.node("n1").unwrap().clone();
    lab.start_node(&n1).unwrap();
    wait_for("the daemon registers it", SOON, || {
        anyhow::ensure!(value(lab, NODE)["metadata"]["uid"].is_string(), "not there");
        Ok(())
    })
    .unwrap();
    wait_for("its pod is reachable", SOON, || reaches(&far, &near)).unwrap();
}

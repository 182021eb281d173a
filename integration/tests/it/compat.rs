//! What Calico's tools write, Twill obeys at once; what nobody should have written, it names and survives. The bytes are those
//! that an unmodified calicoctl v3.32.1 stores.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use twill_lab::cni::CniError;
use twill_lab::demo::Scene;
use twill_lab::pods::PodSpec;
use twill_lab::run::wait_for;

use crate::common::{Name, nodes};

const LIMIT: Duration = Duration::from_secs(30);
const CLUSTER: &str = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
const CONFIG: &str = "/calico/ipam/v2/config";
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

fn spec(name: &str, node: &str) -> PodSpec {
    PodSpec::new(format!("demo/{name}").parse().unwrap(), node)
}

fn put(scene: &Scene, key: &str, value: &str) {
    scene.lab().unwrap().etcdctl(&["put", key, value]).unwrap();
}

fn value(scene: &Scene, key: &str) -> String {
    let text = scene.lab().unwrap().etcdctl(&["get", "--print-value-only", key]);
    text.unwrap().trim_end().to_owned()
}

/// Until an ADD on the node ends with this code; what is left of it is taken away.
fn refused_with(scene: &mut Scene, name: &str, node: &str, code: u32) {
    let made = scene.lab_mut().unwrap().make_pod(&spec(name, node)).unwrap();
    wait_for("an ADD is refused", LIMIT, || {
        let Err(error) = scene.lab()?.attach_pod(&made) else {
            scene.lab()?.detach_pod(&made, true)?;
            anyhow::bail!("it was served");
        };
        let error = error.downcast::<CniError>()?;
        ensure!(error.code == u64::from(code), "{error}");
        Ok(())
    })
    .unwrap();
    scene.lab_mut().unwrap().forget_pod(&made).unwrap();
}

fn address(added: &Value) -> String {
    let address = added["ips"][0]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

#[test]
fn a_lock_stops_attaching_and_detaching_while_packets_go_on_and_settings_hold_at_once() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let web = address(&scene.lab_mut().unwrap().add_pod(&spec("web", "n1")).unwrap());
    let open = value(&scene, CLUSTER);
    let locked = open.replace(r#""datastoreReady":true"#, r#""datastoreReady":false"#);
    assert_ne!(open, locked);
    put(&scene, CLUSTER, &locked);
    refused_with(&mut scene, "late", "n1", 11);
    let lab = scene.lab_mut().unwrap();
    let detached = lab.delete_pod(&"demo/web".parse().unwrap());
    assert!(
        detached.is_err(),
        "DEL was served although the datastore is locked"
    );
    let ping = ["exec", "host", "--", "ping", "-c", "3", "-W", "2", &web];
    let pinged = name.run(&ping);
    assert!(pinged.status.success(), "{}", pinged.said());
    put(&scene, CLUSTER, &open);
    wait_for("DEL is served again", LIMIT, || {
        scene.lab_mut()?.delete_pod(&"demo/web".parse()?)
    })
    .unwrap();

    // What allocators obey: `auto_allocate_blocks` absent means that nobody claims a block. n2 has none yet.
    put(&scene, CONFIG, r#"{"strict_affinity":true}"#);
    refused_with(&mut scene, "none", "n2", 100);
    let initial = r#"{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}"#;
    put(&scene, CONFIG, initial);
    // What people see, and nobody obeys.
    let seen = value(&scene, &format!("{RESOURCES}/ipamconfigurations/default"));
    let other = seen
        .replace(r#""strictAffinity":false"#, r#""strictAffinity":true"#)
        .replace(r#""autoAllocateBlocks":true"#, r#""autoAllocateBlocks":false"#);
    assert_ne!(seen, other);
    put(&scene, &format!("{RESOURCES}/ipamconfigurations/default"), &other);
    let some = scene.lab_mut().unwrap().make_pod(&spec("some", "n2")).unwrap();
    wait_for("n2 claims a block", LIMIT, || {
        scene.lab()?.attach_pod(&some).map(drop)
    })
    .unwrap();
}

/// Keys with values that nobody should have written.
fn unreadable() -> Vec<(String, &'static str)> {
    let mut bad: Vec<(String, &'static str)> = Vec::new();
    for plural in [
        "ippools",
        "nodes",
        "networkpolicies/demo",
        "globalnetworkpolicies",
        "workloadendpoints/demo",
        "profiles",
        "tiers",
        "bgppeers",
        "bgpfilters",
        "bgpconfigurations",
        "felixconfigurations",
        "ipreservations",
        "hostendpoints",
        "stagednetworkpolicies/demo",
    ] {
        bad.push((format!("{RESOURCES}/{plural}/bad"), "{}"));
        bad.push((
            format!("{RESOURCES}/{plural}/cut"),
            r#"{"kind":"IPPool","apiVersion":"projec"#,
        ));
    }
    bad.push(("/calico/ipam/v2/host/n1/ipv4/block/10.244.3.0-26".to_owned(), "{"));
    bad.push(("/calico/ipam/v2/handle/bad".to_owned(), "null"));
    bad.push((
        "/calico/ipam/v2/assignment/ipv4/block/10.244.3.0-26".to_owned(),
        r#"{"cidr":"10.244.3.0/26","affinity":"host:n1","allocations":[null],"unallocated":[0,1],"attributes":[],"sequenceNumber":1,"sequenceNumberForAllocation":{},"deleted":false}"#,
    ));
    bad
}

#[test]
fn values_that_nobody_can_read_are_named_left_alone_and_stop_nothing() {
    let name = Name::new();
    let mut scene = nodes(&name);
    scene.lab_mut().unwrap().add_pod(&spec("before", "n1")).unwrap();
    let bad = unreadable();
    for (key, value) in &bad {
        put(&scene, key, value);
    }
    let said = wait_for("the node says so", LIMIT, || {
        let lab = scene.lab()?;
        let log = std::fs::read_to_string(lab.state.member_dir("n1").join("twilld.log"))?;
        let unnamed = bad
            .iter()
            .filter(|(key, _)| key.starts_with(RESOURCES) && !key.contains("bgpf"))
            .take(10)
            .find(|(key, _)| {
                !log.lines()
                    .any(|line| line.contains("WARN") && line.contains(key.as_str()))
            });
        ensure!(unnamed.is_none(), "{unnamed:?} is not named");
        let status = lab.ctl("n1")?.output(&["node", "status"])?;
        ensure!(status.contains("cannot be read"), "{status}");
        Ok(())
    });
    said.unwrap();
    for node in ["n1", "n2", "n3"] {
        let lab = scene.lab_mut().unwrap();
        lab.add_pod(&spec(&format!("after-{node}"), node)).unwrap();
        twill_lab::lab::readiness(&lab.state, node).unwrap();
    }
    let checked = scene
        .lab()
        .unwrap()
        .ctl("n1")
        .unwrap()
        .run(&["ipam", "check"])
        .unwrap();
    assert!(
        !checked.status.success() && checked.stdout.contains("10.244.3.0"),
        "{}",
        checked.said()
    );
    for (key, written) in &bad {
        assert_eq!(&value(&scene, key), written, "{key} was left alone");
    }
}

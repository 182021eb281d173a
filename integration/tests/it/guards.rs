//! What a node refuses, keeps and says: settings that would close it, labels that are none, a store that hangs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use twill_lab::cni::CniError;
use twill_lab::demo::Scene;
use twill_lab::demo::fabric::sessions_up;
use twill_lab::pods::PodSpec;
use twill_lab::run::wait_for;

use crate::common::{Name, nodes};

const LIMIT: Duration = Duration::from_secs(30);

fn pod(name: &str) -> PodSpec {
    PodSpec::new(format!("demo/{name}").parse().unwrap(), "n1")
}

fn says(scene: &Scene, words: &[&str]) -> anyhow::Result<()> {
    let log = std::fs::read_to_string(scene.lab()?.state.member_dir("n1").join("twilld.log"))?;
    let line = log
        .lines()
        .find(|line| words.iter().all(|word| line.contains(word)));
    ensure!(line.is_some(), "no line with {words:?} in\n{log}");
    Ok(())
}

fn refused(scene: &mut Scene, spec: &PodSpec) -> CniError {
    let error = scene.lab_mut().unwrap().add_pod(spec).unwrap_err();
    error.downcast::<CniError>().unwrap()
}

#[test]
fn a_prefix_that_covers_the_uplink_is_not_used_and_the_node_goes_on() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab().unwrap();
    let yaml = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata:\n  name: default\nspec:\n  interfacePrefix: eth\n";
    let file = lab.state.member_dir("n1").join("felix.yaml");
    lab.ctl("n1").unwrap().file("apply", &file, yaml).unwrap();
    wait_for("it is told", LIMIT, || {
        says(&scene, &["WARN", "\"eth\" is not used", "eth0"])
    })
    .unwrap();
    // etcd and the sessions go through that interface.
    scene.lab_mut().unwrap().add_pod(&pod("web")).unwrap();
    sessions_up(scene.lab().unwrap()).unwrap();
    says(&scene, &["INFO", "pod attached", "demo/web", "10.244."]).unwrap();
    twill_lab::lab::readiness(&scene.lab().unwrap().state, "n1").unwrap();
}

#[test]
fn labels_that_are_none_and_a_store_that_hangs_end_an_add_in_time_and_leave_nothing() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let wrong = refused(&mut scene, &pod("wrong").label("app", "two words"));
    assert_eq!(wrong.code, 7, "{wrong}");
    assert!(wrong.message.contains("two words"), "{wrong}");

    let made = scene.lab_mut().unwrap().make_pod(&pod("late")).unwrap();
    scene.lab().unwrap().freeze_etcd(true).unwrap();
    let begun = Instant::now();
    let answer = scene.lab().unwrap().attach_pod(&made);
    let took = begun.elapsed();
    scene.lab().unwrap().freeze_etcd(false).unwrap();
    let error = answer.unwrap_err().downcast::<CniError>().unwrap();
    assert_eq!(error.code, 11, "{error}");
    // It gives up after 5 s; the rest is what a crowded machine adds.
    assert!(took < Duration::from_secs(15), "ADD took {took:?}");
    wait_for("nothing is left", LIMIT, || {
        let lab = scene.lab()?;
        let keys = lab.etcdctl(&["get", "--prefix", "/calico/", "--keys-only"])?;
        ensure!(!keys.contains(&made.container_id), "{keys}");
        lab.ctl("n1")?.output(&["ipam", "check"]).map(drop)
    })
    .unwrap();
    scene.lab_mut().unwrap().add_pod(&pod("after")).unwrap();
}

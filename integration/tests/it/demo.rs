//! The demo as a user runs it, and that it can fail.

use crate::common::{Name, pods};
use serde_json::Value;
use std::time::Duration;
use twill_lab::demo::reach;
use twill_lab::{netns, run, state};

fn report(finished: &run::Finished, file: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(file);
    let text = text.unwrap_or_else(|e| panic!("no report ({e}): {}\n{}", finished.stdout, finished.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_demo_proves_the_fabric_and_cleans_up() {
    let name = Name::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let finished = name.run(&["demo", "--json", &file.to_string_lossy()]);
    let report = report(&finished, &file);
    assert!(
        finished.status.success() && report["ok"] == true,
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
    let ids: Vec<_> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["id"].as_u64())
        .collect();
    assert_eq!(ids, STEPS);
    assert!(name.namespaces().is_empty());
    assert!(!state::dir(&name.0).exists());
}

const STEPS: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

#[test]
fn an_interrupted_demo_cleans_up_and_fails() {
    let name = Name::new();
    let mut child = name
        .command(&["demo"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = run::wait_for("a daemon of the demo", Duration::from_secs(60), || {
        let state = state::load(&name.0)?.filter(|s| s.children.iter().any(|c| c.role == "twilld n1"));
        state.ok_or_else(|| anyhow::anyhow!("not yet"))
    });
    let state = started.unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(name.namespaces().is_empty());
    assert!(state.children.iter().all(|c| !c.process.is_alive()));
}

#[test]
fn a_killed_demo_takes_its_daemons_with_it_and_the_next_command_sweeps() {
    let name = Name::new();
    let mut child = name
        .command(&["demo"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = run::wait_for("a daemon of the demo", Duration::from_secs(60), || {
        let state = state::load(&name.0)?.filter(|s| s.children.iter().any(|c| c.role == "twilld n3"));
        // The parent-death signal is set just before a daemon becomes itself.
        state
            .filter(|s| s.children.iter().all(runs_itself))
            .ok_or_else(|| anyhow::anyhow!("not yet"))
    });
    let state = started.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    run::wait_for("its daemons dead", Duration::from_secs(20), || {
        anyhow::ensure!(state.children.iter().all(|c| !c.process.is_alive()), "not yet");
        Ok(())
    })
    .unwrap();
    assert!(name.run(&["down"]).status.success());
    assert!(name.namespaces().is_empty());
}

/// Whether the process is the daemon of its role, and no longer the command that leads into its namespace.
fn runs_itself(child: &twill_lab::child::Child) -> bool {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", child.process.pid));
    comm.is_ok_and(|comm| child.role.split(' ').next() == Some(comm.trim()))
}

#[test]
fn a_wrong_route_fails_step_5() {
    let name = Name::new();
    let mut scene = pods(&name);
    reach::prove(&mut scene).unwrap();
    let ns = |scene: &twill_lab::demo::Scene, member: &str| scene.lab().unwrap().ns(member);
    for (member, route) in [
        ("n2", "10.244.200.0/24 via 172.31.0.3"),
        ("host", "10.244.0.0/16 via 192.0.2.254"),
    ] {
        let namespace = ns(&scene, member);
        netns::ip(&namespace, &format!("route add {route}\n")).unwrap();
        let error = format!("{:#}", reach::prove(&mut scene).unwrap_err());
        assert!(
            error.contains("wrong route") && error.contains(&namespace),
            "{error}"
        );
        netns::ip(&namespace, &format!("route del {route}\n")).unwrap();
    }
    reach::prove(&mut scene).unwrap();
}

#[test]
fn a_sabotaged_demo_fails_at_the_policy() {
    let name = Name::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let finished = name.run(&["demo", "--sabotage", "--json", &file.to_string_lossy()]);
    let report = report(&finished, &file);
    assert!(
        !finished.status.success() && report["ok"] == false,
        "{}",
        finished.stdout
    );
    let failed = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["ok"] == false)
        .unwrap();
    assert_eq!(failed["id"], 6, "{failed}");
    assert!(name.namespaces().is_empty());
}

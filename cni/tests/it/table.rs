//! One table per command.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use twill_proto::cni::{Attached, Done, Error, Interface, Ip, Reply, Route, reply::Outcome, request::Op};

use crate::daemon::{answer_once, plugin};

/// Our own namespace: opening it needs no set-up, entering it needs the privilege that a runtime has.
pub(crate) const NETNS: &str = "/proc/self/ns/net";
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;K8S_POD_UID=u1";

pub(crate) fn conf(run_dir: &Path, version: &str, more: serde_json::Value) -> Vec<u8> {
    let mut conf = json!({"cniVersion": version, "name": "k8s-pod-network", "type": "twill", "run_dir": run_dir,
        "policy": {"type": "k8s"}});
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf.to_string().into_bytes()
}

pub(crate) fn env<'a>(command: &'a str, netns: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", netns),
        ("CNI_ARGS", ARGS),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
}

pub(crate) fn attached() -> Option<Reply> {
    let pod = Interface {
        name: "eth0".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        sandbox: NETNS.into(),
    };
    let ip = Ip {
        address: "10.244.0.1/32".into(),
        gateway: "169.254.1.1".into(),
        interface: 0,
    };
    Some(Reply {
        outcome: Some(Outcome::Attached(Attached {
            interfaces: vec![pod],
            ips: vec![ip],
            routes: vec![Route {
                dst: "0.0.0.0/0".into(),
                gw: "169.254.1.1".into(),
                table: 0,
            }],
        })),
    })
}

pub(crate) fn done() -> Option<Reply> {
    Some(Reply {
        outcome: Some(Outcome::Done(Done {})),
    })
}

fn refusal(code: u32) -> Option<Reply> {
    Some(Reply {
        outcome: Some(Outcome::Error(Error {
            code,
            msg: "no".into(),
            details: "because".into(),
        })),
    })
}

#[test]
fn add_hands_over_the_pod_and_prints_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = answer_once(dir.path(), attached());
    let more = json!({"args": {"twill": {"labels": {"app": "web"}, "annotations": {"k": "v"}}}, "mtu": 1400});
    let run = plugin(&env("ADD", NETNS), &conf(dir.path(), "1.0.0", more));
    assert!(run.success, "{run:?}");
    assert_eq!(run.json()["ips"][0]["address"], "10.244.0.1/32");
    let received = daemon.join().unwrap();
    assert_eq!(received.fds.len(), 2);
    let Some(Op::Add(add)) = received.request.op else {
        panic!("not ADD")
    };
    let attachment = add.attachment.unwrap();
    assert_eq!(
        (attachment.k8s_namespace.as_str(), attachment.k8s_pod.as_str()),
        ("prod", "web-0")
    );
    assert_eq!(
        (attachment.network.as_str(), attachment.container_id.as_str()),
        ("k8s-pod-network", "c1")
    );
    assert_eq!(
        (add.labels["app"].as_str(), add.annotations["k"].as_str(), add.mtu),
        ("web", "v", 1400)
    );
    assert!(add.assign_ipv4 && !add.assign_ipv6);
}

#[test]
fn the_daemons_error_is_the_plugins_error() {
    for (command, version, code) in [
        ("ADD", "0.3.1", 11),
        ("DEL", "1.0.0", 120),
        ("STATUS", "1.1.0", 50),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let daemon = answer_once(dir.path(), refusal(code));
        let run = plugin(&env(command, NETNS), &conf(dir.path(), version, json!({})));
        assert_eq!(run.code(), i64::from(code), "{command}");
        assert_eq!(run.json()["details"], "because");
        assert_eq!(run.json()["cniVersion"], version);
        daemon.join().unwrap();
    }
}

#[test]
fn add_without_a_daemon_ends_with_code_11_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert_eq!(
        plugin(&env("ADD", NETNS), &conf(dir.path(), "1.0.0", json!({}))).code(),
        11
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn add_with_a_daemon_that_hangs_up_ends_with_code_11() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = answer_once(dir.path(), None);
    assert_eq!(
        plugin(&env("ADD", NETNS), &conf(dir.path(), "1.0.0", json!({}))).code(),
        11
    );
    daemon.join().unwrap();
}

#[test]
fn del_without_a_daemon_succeeds_and_leaves_one_note_however_often() {
    let dir = tempfile::tempdir().unwrap();
    for netns in [NETNS, "", "/gone"] {
        let run = plugin(
            &env("DEL", netns),
            &conf(
                dir.path(),
                "1.0.0",
                json!({"prevResult": {"cniVersion": "1.0.0"}}),
            ),
        );
        assert!(run.success && run.stdout.is_empty(), "{run:?}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("cni-spool")).unwrap().count(),
        1
    );
}

#[test]
fn del_with_a_daemon_leaves_no_note() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = answer_once(dir.path(), done());
    assert!(plugin(&env("DEL", ""), &conf(dir.path(), "1.0.0", json!({}))).success);
    let received = daemon.join().unwrap();
    assert!(matches!(received.request.op, Some(Op::Del(del)) if !del.replayed) && received.fds.is_empty());
    assert!(!dir.path().join("cni-spool").exists());
}

#[test]
fn bad_calls_have_the_specs_codes() {
    let dir = tempfile::tempdir().unwrap();
    let good = conf(dir.path(), "1.0.0", json!({}));
    let with = |key: &'static str, value: &'static str| {
        let mut vars = env("ADD", NETNS);
        vars.retain(|(k, _)| *k != key);
        vars.push((key, value));
        vars
    };
    let old = conf(dir.path(), "0.3.1", json!({}));
    let long = vec![b' '; (1 << 20) + 1];
    let made = json!({"prevResult": {"interfaces": [{"name": "eth0", "sandbox": NETNS}]}});
    let chained = conf(dir.path(), "1.0.0", made);
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a [u8], i64);
    let cases: [Case<'_>; 14] = [
        ("no command", with("CNI_COMMAND", ""), &good, 4),
        ("unknown command", with("CNI_COMMAND", "MEND"), &good, 4),
        ("no container id", with("CNI_CONTAINERID", ""), &good, 4),
        ("path in container id", with("CNI_CONTAINERID", "../x"), &good, 4),
        (
            "interface name of 16 bytes",
            with("CNI_IFNAME", "abcdefghijklmnop"),
            &good,
            4,
        ),
        ("no netns", with("CNI_NETNS", ""), &good, 4),
        ("netns that is not there", with("CNI_NETNS", "/gone"), &good, 4),
        ("netns that is a file", with("CNI_NETNS", "/dev/null"), &good, 4),
        (
            "argument without a value",
            with("CNI_ARGS", "K8S_POD_NAME"),
            &good,
            4,
        ),
        ("empty configuration", env("ADD", NETNS), b"", 6),
        ("too long a configuration", env("ADD", NETNS), &long, 6),
        ("chained behind another", env("ADD", NETNS), &chained, 7),
        ("CHECK before 0.4.0", with("CNI_COMMAND", "CHECK"), &old, 1),
        ("GC before 1.1.0", with("CNI_COMMAND", "GC"), &good, 1),
    ];
    for (what, vars, stdin, code) in cases {
        assert_eq!(plugin(&vars, stdin).code(), code, "{what}");
    }
}

#[test]
fn version_needs_no_daemon() {
    let run = plugin(&[("CNI_COMMAND", "VERSION")], br#"{"cniVersion":"0.4.0"}"#);
    assert!(run.success);
    assert_eq!(
        run.json(),
        json!({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
}

//! The spec's own words, for each version that is spoken: what each operation takes, prints and refuses.
//! Sections are of CNI spec 1.1.0 unless said otherwise.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use twill_proto::cni::{Reply, request::Op};

use crate::daemon::{Received, Run, answer_once, plugin};
use crate::table::{NETNS, attached, conf, done, env};

/// What one version of the spec has.
struct Version {
    name: &'static str,
    /// An address carries `version` (up to 0.4.0).
    ip_has_version: bool,
    /// CHECK came with 0.4.0.
    check: bool,
    /// STATUS, GC and an interface's `mtu` came with 1.1.0.
    status_and_gc: bool,
}

const VERSIONS: [Version; 4] = [
    Version {
        name: "0.3.1",
        ip_has_version: true,
        check: false,
        status_and_gc: false,
    },
    Version {
        name: "0.4.0",
        ip_has_version: true,
        check: true,
        status_and_gc: false,
    },
    Version {
        name: "1.0.0",
        ip_has_version: false,
        check: true,
        status_and_gc: false,
    },
    Version {
        name: "1.1.0",
        ip_has_version: false,
        check: true,
        status_and_gc: true,
    },
];

/// Versions that are known and not spoken, and some that never were.
const OTHERS: [&str; 8] = ["", "0.1.0", "0.2.0", "0.3.0", "1.0", "1.2.0", "2.0.0", "latest"];

/// One call with a daemon that answers `reply`.
fn call(command: &str, version: &str, more: Value, reply: Option<Reply>) -> (Run, Received) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = answer_once(dir.path(), reply);
    let run = plugin(&env(command, NETNS), &conf(dir.path(), version, more));
    assert!(run.success, "{command} {version}: {run:?}");
    (run, daemon.join().unwrap())
}

/// One call that must be refused before any daemon is asked.
fn refused(vars: &[(&str, &str)], version: &str, more: Value) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let run = plugin(vars, &conf(dir.path(), version, more));
    assert!(!run.success, "{vars:?} {version}: {run:?}");
    run
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn previous(version: &str) -> Value {
    json!({"prevResult": {"cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": NETNS}],
        "ips": [{"address": "10.244.0.1/32", "gateway": "169.254.1.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}]}})
}

#[test]
fn add_prints_the_result_of_its_version_and_nothing_that_the_version_lacks() {
    for version in &VERSIONS {
        let (run, _) = call("ADD", version.name, json!({}), attached());
        let result = run.json();
        assert_eq!(result["cniVersion"], version.name);
        let top = ["cniVersion", "interfaces", "ips", "routes", "dns"];
        assert_eq!(keys(&result), BTreeSet::from(top), "{}", version.name);
        let mut of_ip = BTreeSet::from(["address", "gateway", "interface"]);
        let mut of_interface = BTreeSet::from(["name", "mac", "sandbox"]);
        if version.ip_has_version {
            of_ip.insert("version");
        }
        if version.status_and_gc {
            of_interface.insert("mtu");
        }
        assert_eq!(keys(&result["ips"][0]), of_ip, "{}", version.name);
        assert_eq!(keys(&result["interfaces"][0]), of_interface, "{}", version.name);
        assert_eq!(keys(&result["routes"][0]), BTreeSet::from(["dst", "gw"]));
        // "For interfaces created inside the container, this should be the value passed via CNI_NETNS."
        assert_eq!(result["interfaces"][0]["sandbox"], NETNS);
        assert!(result["ips"][0]["interface"].is_u64() && result["dns"].is_object());
    }
}

#[test]
fn add_passes_a_previous_result_through_with_its_own_behind() {
    let before = json!({"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": NETNS}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}], "dns": {"domain": "x"}}});
    let (run, _) = call("ADD", "1.0.0", before, attached());
    let result = run.json();
    assert_eq!(
        (&result["interfaces"][0]["name"], &result["interfaces"][1]["name"]),
        (&json!("lo"), &json!("eth0"))
    );
    assert_eq!(result["ips"][1]["interface"], 1);
    assert_eq!(result["dns"], json!({"domain": "x"}));
}

#[test]
fn del_prints_nothing_and_needs_neither_netns_nor_previous_result() {
    for version in &VERSIONS {
        for more in [json!({}), previous(version.name)] {
            for netns in ["", "/var/run/netns/gone"] {
                let dir = tempfile::tempdir().unwrap();
                let daemon = answer_once(dir.path(), done());
                let run = plugin(&env("DEL", netns), &conf(dir.path(), version.name, more.clone()));
                assert!(run.success && run.stdout.is_empty(), "{} {run:?}", version.name);
                assert!(matches!(daemon.join().unwrap().request.op, Some(Op::Del(_))));
            }
        }
    }
}

#[test]
fn check_hands_the_previous_result_over_from_0_4_0_on() {
    for version in &VERSIONS {
        if !version.check {
            assert_eq!(
                refused(&env("CHECK", NETNS), version.name, previous(version.name)).code(),
                1
            );
            continue;
        }
        let (run, received) = call("CHECK", version.name, previous(version.name), done());
        assert!(run.stdout.is_empty(), "{run:?}");
        assert_eq!(received.fds.len(), 2, "the pod's namespace goes with it");
        let Some(Op::Check(check)) = received.request.op else {
            panic!("not CHECK")
        };
        assert_eq!(check.ips, ["10.244.0.1/32"]);
        assert_eq!(check.interfaces[0].mac, "02:00:00:00:00:01");
        assert_eq!(
            (check.routes[0].dst.as_str(), check.routes[0].gw.as_str()),
            ("0.0.0.0/0", "169.254.1.1")
        );
        // "A runtime must include a prevResult"; CNI_NETNS is required.
        assert_eq!(refused(&env("CHECK", NETNS), version.name, json!({})).code(), 7);
        assert_eq!(
            refused(&env("CHECK", ""), version.name, previous(version.name)).code(),
            4
        );
        let garbled = json!({"prevResult": {"ips": "none"}});
        assert_eq!(refused(&env("CHECK", NETNS), version.name, garbled).code(), 6);
    }
}

#[test]
fn status_and_gc_came_with_1_1_0_and_need_no_container() {
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]});
    for version in &VERSIONS {
        for command in ["STATUS", "GC"] {
            if !version.status_and_gc {
                assert_eq!(refused(&env(command, ""), version.name, valid.clone()).code(), 1);
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let daemon = answer_once(dir.path(), done());
            let bare = [("CNI_COMMAND", command), ("CNI_PATH", "/opt/cni/bin")];
            let run = plugin(&bare, &conf(dir.path(), version.name, valid.clone()));
            assert!(run.success && run.stdout.is_empty(), "{command} {run:?}");
            match daemon.join().unwrap().request.op {
                Some(Op::Status(status)) => assert_eq!(status.network, "k8s-pod-network"),
                Some(Op::Gc(gc)) => assert_eq!(gc.valid[0].container_id, "c1"),
                other => panic!("{other:?}"),
            }
        }
    }
    // Without a list nobody is asked to free anything: no daemon answers here.
    let dir = tempfile::tempdir().unwrap();
    let run = plugin(&[("CNI_COMMAND", "GC")], &conf(dir.path(), "1.1.0", json!({})));
    assert!(run.success && run.stdout.is_empty(), "{run:?}");
    // As the spec misspelt the key once, which libcni still writes; null is an empty list.
    for (list, length) in [
        (json!([{"containerID": "c1", "ifname": "eth0"}]), 1),
        (Value::Null, 0),
    ] {
        let (_, received) = call("GC", "1.1.0", json!({"cni.dev/attachments": list}), done());
        assert!(matches!(received.request.op, Some(Op::Gc(gc)) if gc.valid.len() == length));
    }
    // A daemon that is away cannot serve ADD: 50, not 11.
    assert_eq!(
        refused(&[("CNI_COMMAND", "STATUS")], "1.1.0", json!({})).code(),
        50
    );
}

#[test]
fn version_repeats_what_it_was_asked_in_and_lists_all() {
    let asked = VERSIONS.iter().map(|v| v.name).chain(["0.2.0", "9.9.9"]);
    for version in asked {
        let run = plugin(
            &[("CNI_COMMAND", "VERSION")],
            json!({"cniVersion": version}).to_string().as_bytes(),
        );
        assert!(run.success, "{run:?}");
        let names: Vec<_> = VERSIONS.iter().map(|v| v.name).collect();
        assert_eq!(
            run.json(),
            json!({"cniVersion": version, "supportedVersions": names})
        );
    }
}

#[test]
fn every_other_version_is_code_1_whatever_the_command() {
    for version in OTHERS {
        for command in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
            let run = refused(&env(command, NETNS), version, json!({}));
            assert_eq!(run.code(), 1, "{command} {version}");
            assert!(run.json()["details"].as_str().unwrap().contains("1.1.0"));
        }
    }
}

#[test]
fn an_error_is_the_specs_structure_in_the_callers_version() {
    for version in &VERSIONS {
        let mut vars = env("ADD", NETNS);
        vars.retain(|(key, _)| *key != "CNI_CONTAINERID");
        let run = refused(&vars, version.name, json!({}));
        let error = run.json();
        let allowed = BTreeSet::from(["cniVersion", "code", "msg", "details"]);
        assert!(keys(&error).is_subset(&allowed), "{error}");
        assert_eq!(
            (&error["cniVersion"], &error["code"]),
            (&json!(version.name), &json!(4))
        );
        // "The error message must contain the names of invalid variables."
        assert!(
            error["msg"].as_str().unwrap().contains("CNI_CONTAINERID"),
            "{error}"
        );
        // "The error message must contain the key and value of the unsupported field."
        let run = refused(
            &env("ADD", NETNS),
            version.name,
            json!({"ipam": {"type": "host-local"}}),
        );
        assert_eq!(run.code(), 2);
        let msg = run.json()["msg"].as_str().unwrap().to_owned();
        assert!(msg.contains("ipam.type") && msg.contains("host-local"), "{msg}");
    }
}

#[test]
fn what_a_calico_user_has_is_taken_and_reaches_the_daemon() {
    let more = json!({"type": "calico", "log_level": "info", "log_file_path": "/var/log/calico/cni/cni.log",
        "datastore_type": "etcdv3", "etcd_endpoints": "https://192.0.2.1:2379", "nodename": "n1", "mtu": 1440,
        "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true", "ipv4_pools": ["10.244.0.0/16"]},
        "policy_setup_timeout_seconds": 7, "feature_control": {"ip_addrs_no_ipam": true},
        "container_settings": {"allow_ip_forwarding": false}, "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        "runtimeConfig": {"ips": ["10.244.0.7/32"], "mac": "02:00:00:00:00:07",
            "io.kubernetes.cri.pod-annotations": {"cni.projectcalico.org/ipv4pools": "[\"p\"]"}}});
    let (_, received) = call("ADD", "1.0.0", more, attached());
    let Some(Op::Add(add)) = received.request.op else {
        panic!("not ADD")
    };
    assert_eq!(
        (add.nodename.as_str(), add.mtu, add.policy_timeout_secs),
        ("n1", 1440, 7)
    );
    assert_eq!(
        (&add.requested_ips[..], add.requested_mac.as_str()),
        (&["10.244.0.7".to_owned()][..], "02:00:00:00:00:07")
    );
    assert!(add.assign_ipv6 && add.ip_addrs_no_ipam && !add.floating_ips);
    assert_eq!(add.ipv4_pools, ["10.244.0.0/16"]);
    assert_eq!(add.annotations["cni.projectcalico.org/ipv4pools"], "[\"p\"]");
    let named: Vec<_> = add.ignored.iter().filter_map(|n| n.split(':').next()).collect();
    assert_eq!(
        named,
        ["log_file_path", "datastore_type", "etcd_endpoints", "kubernetes"]
    );
}

#[test]
fn a_pod_that_may_forward_does_so_and_another_does_not() {
    for (allowed, expected) in [(true, "1"), (false, "0")] {
        let ns = Netns::new();
        let dir = tempfile::tempdir().unwrap();
        let daemon = answer_once(dir.path(), attached());
        let more = json!({"container_settings": {"allow_ip_forwarding": allowed}});
        let run = plugin(&env("ADD", &ns.path()), &conf(dir.path(), "1.0.0", more));
        assert!(run.success, "{run:?}");
        daemon.join().unwrap();
        assert_eq!(ns.read("net/ipv4/ip_forward"), expected);
        assert_eq!(ns.read("net/ipv6/conf/default/forwarding"), expected);
    }
}

/// A network namespace that lives as long as a process sleeps in it.
struct Netns(std::process::Child);

impl Netns {
    fn new() -> Self {
        let mut child = std::process::Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "echo 0 > /proc/sys/net/ipv4/ip_forward; echo; exec sleep 60",
            ])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A line comes once the process is inside.
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn read(&self, key: &str) -> String {
        let output = std::process::Command::new("nsenter")
            .args([
                &format!("--net={}", self.path()),
                "cat",
                &format!("/proc/sys/{key}"),
            ])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Whether it had ended already does not matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! The plugin's operations against a daemon, beyond a pod's plain coming and going.

use crate::common::{Name, keys_of, nodes};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;
use twill_lab::cni::{self, CniError, Plugin};
use twill_lab::demo::detach;
use twill_lab::lab::Lab;
use twill_lab::netns;
use twill_lab::pods::{PodSpec, path};
use twill_lab::run::{self, wait_for};
use twill_lab::state::Pod;

const SOON: Duration = Duration::from_secs(30);

/// One call for an interface of a pod on n1, with keys set in the configuration.
struct Call<'a> {
    lab: &'a Lab,
    pod: &'a Pod,
    ifname: &'a str,
    keys: Value,
}

impl<'a> Call<'a> {
    fn new(lab: &'a Lab, pod: &'a Pod) -> Self {
        Self {
            lab,
            pod,
            ifname: cni::IFNAME,
            keys: json!({}),
        }
    }

    fn ifname(mut self, ifname: &'a str) -> Self {
        self.ifname = ifname;
        self
    }

    fn with(mut self, keys: Value) -> Self {
        for (key, value) in keys.as_object().unwrap() {
            self.keys[key] = value.clone();
        }
        self
    }

    fn network(self, name: &str) -> Self {
        self.with(json!({"name": name}))
    }

    fn run(&self, verb: &str) -> Result<Value, CniError> {
        let mut plugin: Plugin = self.lab.plugin("n1").unwrap();
        for (key, value) in self.keys.as_object().unwrap() {
            plugin.config[key] = value.clone();
        }
        let gone = !netns::exists(&self.pod.netns) || verb == "STATUS" || verb == "GC";
        let netns = if gone { String::new() } else { path(self.pod) };
        let node = self.lab.ns("n1");
        plugin
            .exec_as(verb, &node, self.pod, &netns, self.ifname)
            .unwrap()
            .outcome
    }

    /// ADD, with the address that came of it.
    fn add(&self) -> (Value, IpAddr) {
        let result = self.run("ADD").unwrap();
        let address = cni::addresses(&result).unwrap()[0];
        (result, address)
    }

    fn refused(&self, verb: &str, code: u64, named: &str) {
        let error = self.run(verb).unwrap_err();
        assert!(
            error.code == code && error.message.contains(named),
            "{verb}: {error}"
        );
    }
}

fn pod(lab: &mut Lab, name: &str) -> Pod {
    lab.make_pod(&PodSpec::new(name.parse().unwrap(), "n1")).unwrap()
}

/// In the pod or on the node, with `ip`.
fn ip(namespace: &str, words: &str) -> String {
    let mut command = netns::command(namespace, "ip");
    run::output(command.args(words.split_whitespace()), b"").unwrap()
}

/// Whether packets from a namespace are answered from an address.
fn pings(namespace: &str, address: IpAddr) -> bool {
    let ping = ["-n", "-c", "1", "-W", "1", &address.to_string()].map(str::to_owned);
    let mut command = netns::command(namespace, "ping");
    run::run(command.args(ping), b"", SOON).unwrap().status.success()
}

/// The same from the node.
fn reaches(lab: &Lab, address: IpAddr) -> bool {
    pings(&lab.ns("n1"), address)
}

fn apply(lab: &Lab, yaml: &str) {
    let file = lab.state.member_dir("n1").join("plugin-test.yaml");
    lab.ctl("n1").unwrap().file("apply", &file, yaml).unwrap();
}

fn pool(name: &str, cidr: &str, disabled: bool) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: {name}\nspec:\n  cidr: {cidr}\n  \
         blockSize: 26\n  disabled: {disabled}\n  assignmentMode: {}\n",
        if name == "pool" { "Automatic" } else { "Manual" }
    )
}

#[test]
fn check_finds_what_is_no_longer_as_add_left_it_and_status_whether_add_would_work() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let web = pod(lab, "demo/web");
    let other = pod(lab, "demo/other");
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let plain = Call::new(lab, &web).with(json!({"cniVersion": version, "mtu": 1400}));
        let (result, address) = plain.add();
        let check = plain.with(json!({"prevResult": result}));
        assert_eq!(check.run("CHECK"), Ok(Value::Null), "{version}");
        ip(&web.netns, "route del default");
        check.refused("CHECK", 101, "no route to 0.0.0.0/0");
        ip(&web.netns, "route add default via 169.254.1.1 dev eth0");
        ip(&web.netns, &format!("address del {address}/32 dev eth0"));
        check.refused("CHECK", 101, &format!("does not have the address {address}"));
        ip(&web.netns, &format!("address add {address}/32 dev eth0"));
        // The host keeps the address that ADD chose as its neighbour: one that changes it is cut off, whoever did it.
        ip(&web.netns, "link set eth0 address 02:00:00:00:00:99");
        check.refused("CHECK", 101, "02:00:00:00:00:99");
        check.run("DEL").unwrap();
        check.refused("CHECK", 3, "no endpoint");
        wait_for("its link is gone", SOON, || {
            anyhow_ensure(!ip(&web.netns, "-brief link").contains("eth0"))
        })
        .unwrap();
    }
    let status = |expected: Result<(), &str>| {
        let call = Call::new(lab, &other).with(json!({"cniVersion": "1.1.0"}));
        wait_for("STATUS", SOON, || match (call.run("STATUS"), expected) {
            (Ok(_), Ok(())) => Ok(()),
            (Err(error), Err(named)) if error.code == 50 && error.message.contains(named) => Ok(()),
            (found, _) => Err(anyhow::anyhow!("{found:?}, not {expected:?}")),
        })
        .unwrap();
    };
    status(Ok(()));
    let cidr = lab.state.topology.pool.cidr.to_string();
    apply(lab, &pool("pool", &cidr, true));
    status(Err("no enabled IPPool"));
    Call::new(lab, &other).refused("ADD", 100, "pool");
    apply(lab, &pool("pool", &cidr, false));
    status(Ok(()));
}

fn anyhow_ensure(holds: bool) -> anyhow::Result<()> {
    anyhow::ensure!(holds, "not yet");
    Ok(())
}

#[test]
fn two_networks_and_one_network_twice_are_interfaces_of_their_own_and_go_one_by_one() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    lab.apply_profiles("n1", "demo").unwrap();
    apply(lab, &pool("storage", "10.245.0.0/24", false));
    let db = pod(lab, "demo/db");
    let client = pod(lab, "demo/client");
    let main = || Call::new(lab, &db);
    let second = || {
        Call::new(lab, &db)
            .ifname("net1")
            .network("storage-net")
            .with(json!({"cniVersion": "1.1.0", "ipam": {"type": "calico-ipam", "ipv4_pools": ["storage"]}}))
    };
    let third = || Call::new(lab, &db).ifname("net2");
    let (_, a) = main().add();
    let (result, b) = second().add();
    let (_, c) = third().add();
    Call::new(lab, &client).add();
    assert!(b.to_string().starts_with("10.245.0."), "{b}");
    assert!(result["routes"][0]["table"].as_u64().unwrap() > 255, "{result}");
    for address in [a, b, c] {
        wait_for("the pod answers", SOON, || anyhow_ensure(reaches(lab, address)))
            .unwrap_or_else(|e| panic!("{address}: {e:#}\n{}", ip(&db.netns, "rule")));
    }
    assert_eq!(keys_of(lab, "/workloadendpoints/demo/n1-k8s-db-").len(), 3);
    assert_eq!(
        keys_of(lab, &format!("/handle/k8s-pod-network.{}", db.container_id)).len(),
        2
    );
    assert_eq!(
        keys_of(lab, &format!("/handle/storage-net.{}", db.container_id)).len(),
        1
    );
    let checked = second().with(json!({"prevResult": result}));
    assert_eq!(checked.run("CHECK"), Ok(Value::Null));
    // Policy is each interface's own: closing the one leaves the others open.
    apply(
        lab,
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: closed\n  namespace: demo\nspec:\n  \
         selector: projectcalico.org/network == 'storage-net'\n  types: [Ingress]\n",
    );
    wait_for("policy of one interface", SOON, || {
        anyhow_ensure(!pings(&client.netns, b) && pings(&client.netns, a) && pings(&client.netns, c))
    })
    .unwrap();
    Call::new(lab, &client).run("DEL").unwrap();
    second().run("DEL").unwrap();
    second().run("DEL").unwrap();
    assert!(reaches(lab, a) && reaches(lab, c));
    assert!(keys_of(lab, "storage-net.").is_empty());
    main().run("DEL").unwrap();
    assert!(
        reaches(lab, c),
        "the same network's other interface has its own address"
    );
    assert_eq!(
        keys_of(lab, &format!("/handle/k8s-pod-network.{}", db.container_id)).len(),
        1
    );
    for _ in 0..3 {
        third().run("DEL").unwrap();
    }
    let traced = Pod {
        address: Some(c),
        ..db.clone()
    };
    wait_for("no trace", SOON, || detach::no_trace(lab, "n1", &[&traced])).unwrap();
}

#[test]
fn collection_frees_what_is_stale_of_its_own_network_and_nothing_else() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let pods: Vec<Pod> = ["demo/a", "demo/b", "demo/c"]
        .iter()
        .map(|n| pod(lab, n))
        .collect();
    let [kept, stale, foreign] = &pods[..] else {
        panic!()
    };
    Call::new(lab, kept).add();
    let (_, lost) = Call::new(lab, stale).add();
    Call::new(lab, foreign).network("other-net").add();
    // An endpoint that somebody deleted leaves its address behind.
    let leaked = "k8s-pod-network.leaked";
    let forgotten = pod_with_id(lab, "demo/d", "leaked");
    Call::new(lab, &forgotten).add();
    let endpoint = keys_of(lab, "/workloadendpoints/demo/n1-k8s-d-eth0");
    lab.etcdctl(&["del", &endpoint[0]]).unwrap();
    let gc = |network: &str, valid: &[&Pod]| {
        let list: Vec<_> = valid
            .iter()
            .map(|p| json!({"containerID": p.container_id, "ifname": "eth0"}))
            .collect();
        Call::new(lab, kept)
            .network(network)
            .with(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": list}))
            .run("GC")
            .unwrap();
    };
    gc("no-such-net", &[]);
    assert!(!keys_of(lab, &stale.container_id).is_empty());
    gc(cni::NETWORK, &[kept, stale]);
    assert!(!keys_of(lab, &stale.container_id).is_empty() && keys_of(lab, leaked).is_empty());
    gc(cni::NETWORK, &[kept]);
    assert!(keys_of(lab, &stale.container_id).is_empty());
    wait_for("its route is gone", SOON, || {
        anyhow_ensure(!ip(&lab.ns("n1"), "route").contains(&format!("{lost} ")))
    })
    .unwrap();
    for there in [kept, foreign] {
        assert!(!keys_of(lab, &there.container_id).is_empty(), "{}", there.name);
    }
    gc("other-net", &[]);
    assert!(keys_of(lab, &foreign.container_id).is_empty() && !keys_of(lab, &kept.container_id).is_empty());
}

fn pod_with_id(lab: &mut Lab, name: &str, id: &str) -> Pod {
    let made = pod(lab, name);
    Pod {
        container_id: id.to_owned(),
        ..made
    }
}

#[test]
fn what_a_pod_asks_for_by_annotation_and_capability_it_gets_or_is_told_why_not() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let one = pod(lab, "demo/one");
    let anew = pod_with_id(lab, "demo/one-again", "anew");
    let annotated = |pod, annotations: Value| {
        Call::new(lab, pod).with(json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}}))
    };
    let ask = |key: &str, value: &str| json!({format!("cni.projectcalico.org/{key}"): value});
    for (key, value, named) in [
        ("floatingIPs", r#"["203.0.113.9"]"#, "floatingIPs"),
        ("ipAddrsNoIpam", r#"["203.0.113.9"]"#, "ip_addrs_no_ipam"),
        (
            "allowedSourcePrefixes",
            r#"["203.0.113.0/33"]"#,
            "allowedSourcePrefixes",
        ),
        ("ipAddrs", r#"["203.0.113.9"]"#, "203.0.113.9"),
        ("ipv4pools", r#"["nowhere"]"#, "nowhere"),
        ("hwAddr", "01:00:5e:00:00:01", "01:00:5e:00:00:01"),
    ] {
        annotated(&one, ask(key, value)).refused("ADD", 7, named);
    }
    Call::new(lab, &one)
        .with(json!({"nodename": "n9"}))
        .refused("ADD", 7, "n9");
    assert!(
        keys_of(lab, &one.container_id).is_empty(),
        "a refused ADD leaves nothing"
    );

    let mut fixed = ask("ipAddrs", r#"["10.244.0.77"]"#);
    fixed["cni.projectcalico.org/hwAddr"] = "02:00:00:00:00:77".into();
    let (result, address) = annotated(&one, fixed.clone())
        .with(json!({"nodename": "n1", "mtu": 1400}))
        .add();
    assert_eq!(address.to_string(), "10.244.0.77");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:77");
    let link = ip(&one.netns, "link show eth0");
    assert!(
        link.contains("mtu 1400") && link.contains("02:00:00:00:00:77"),
        "{link}"
    );
    // The same pod in a new sandbox, before anybody deleted the old one.
    let same_pod = Pod {
        name: one.name.clone(),
        ..anew.clone()
    };
    let (_, again) = annotated(&same_pod, fixed).add();
    assert_eq!(again, address);
    Call::new(lab, &one).run("DEL").unwrap();
    wait_for("the old sandbox's DEL leaves the new one alone", SOON, || {
        anyhow_ensure(reaches(lab, again))
    })
    .unwrap();
    Call::new(lab, &same_pod).run("DEL").unwrap();

    let free = ask("ipAddrsNoIpam", r#"["203.0.113.9"]"#);
    let unmanaged = annotated(&one, free).with(json!({"feature_control": {"ip_addrs_no_ipam": true}}));
    let (result, address) = unmanaged.add();
    assert_eq!(address.to_string(), "203.0.113.9");
    assert!(
        keys_of(lab, "/ipam/v2/handle/").is_empty(),
        "nobody keeps account of it"
    );
    assert_eq!(
        unmanaged.with(json!({"prevResult": result})).run("CHECK"),
        Ok(Value::Null)
    );
    Call::new(lab, &one).run("DEL").unwrap();
    assert!(keys_of(lab, &one.container_id).is_empty());
}

#[test]
fn status_says_51_while_policy_does_not_reach_the_kernel() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let web = pod(lab, "demo/web");
    let status = |code: Option<u64>| {
        let call = Call::new(lab, &web).with(json!({"cniVersion": "1.1.0"}));
        wait_for("STATUS", SOON, || {
            let found = call.run("STATUS");
            anyhow::ensure!(found.as_ref().err().map(|e| e.code) == code, "{found:?}");
            Ok(())
        })
        .unwrap();
    };
    status(None);
    // A table of our name that belongs to somebody else: the kernel lets nobody but its owner write to it.
    let daemon = lab.daemon("n1").unwrap().process;
    daemon.signal(Signal::STOP).unwrap();
    let mut nft = netns::command(&lab.ns("n1"), "nft");
    run::output(nft.args(["delete", "table", "inet", "twill"]), b"").unwrap();
    let mut owner = netns::command(&lab.ns("n1"), "nft");
    let mut owner = owner
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut words = owner.stdin.take().unwrap();
    words
        .write_all(b"add table inet twill { flags owner; }\n")
        .unwrap();
    let listed = wait_for("the owner's table is there", SOON, || {
        let mut nft = netns::command(&lab.ns("n1"), "nft");
        let tables = run::output(nft.args(["list", "tables"]), b"")?;
        anyhow::ensure!(tables.contains("inet twill"), "{tables}");
        Ok(())
    });
    daemon.signal(Signal::CONT).unwrap();
    listed.unwrap();
    status(Some(51));
    // With its owner the table goes, and ours is written again.
    drop(words);
    owner.wait().unwrap();
    status(None);
    Call::new(lab, &web).add();
}

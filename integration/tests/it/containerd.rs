//! Real runtimes: Debian's containerd through CRI, as a kubelet would call it, and `ctr run --cni`, with Debian's `portmap`
//! and `bandwidth` behind our plugin.

mod cri;
mod daemon;
mod image;

use crate::common::{Name, keys_of, nodes};
use cri::{LinuxSandboxConfig, PortMapping, SandboxConfig, SandboxMetadata};
use daemon::Containerd;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;
use twill_lab::lab::Lab;
use twill_lab::netns;
use twill_lab::run::{self, wait_for};

const SOON: Duration = Duration::from_secs(40);
const PORT: u16 = 8080;
const HOST_PORT: u16 = 18_080;

fn sandbox(containerd: &Containerd, name: &str) -> SandboxConfig {
    SandboxConfig {
        metadata: Some(SandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "demo".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        linux: Some(LinuxSandboxConfig {
            cgroup_parent: containerd.cgroup(),
        }),
        ..SandboxConfig::default()
    }
}

/// HTTP from a member's namespace, again and again until it is answered.
fn fetches(lab: &Lab, member: &str, to: Ipv4Addr, port: u16) {
    let to = SocketAddr::from((to, port));
    let asked = wait_for("the pod answers", SOON, || {
        let (status, body) = netns::http_get(&lab.ns(member), to, "/", Duration::from_secs(2))?;
        anyhow::ensure!(status == 200 && body == "from a pod", "{status} {body}");
        Ok(())
    });
    asked.unwrap_or_else(|e| panic!("{member} to {to}: {e:#}"));
}

fn no_keys_of(lab: &Lab, what: &str) {
    wait_for("nothing of the pod is in the store", SOON, || {
        let left = keys_of(lab, what);
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .unwrap();
}

fn on_node(lab: &Lab, node: &str, program: &str, words: &[&str]) -> String {
    run::output(netns::command(&lab.ns(node), program).args(words), b"").unwrap()
}

/// A runtime without a network gets one by the installer.
fn installed(lab: &Lab, containerd: &Containerd, node: &str) {
    assert!(containerd.cri().network_ready().is_err(), "no configuration yet");
    let installed = containerd.install(lab, node, &["--wait", "20"]);
    assert!(installed.status.success(), "{}", installed.said());
    wait_for("the runtime's network is ready", SOON, || {
        containerd.cri().network_ready()
    })
    .unwrap();
}

/// A pod of n2 that goes while n2's daemon is away.
fn deleted_while_away(lab: &mut Lab, two: &Containerd) {
    let other = two.cri();
    let db = sandbox(two, "db");
    let db_id = other
        .run_sandbox(&db)
        .unwrap_or_else(|e| panic!("{e:#}{}", two.tail()));
    other
        .start(&db_id, &db, image::NAME, &["/pod", "serve", &PORT.to_string()])
        .unwrap();
    fetches(lab, "n1", other.address(&db_id).unwrap(), PORT);
    lab.kill_node("n2").unwrap();
    other.stop(&db_id).unwrap();
    assert!(!keys_of(lab, &db_id).is_empty(), "noted, and not done yet");
    let n2 = lab.state.topology.node("n2").unwrap().clone();
    lab.start_node(&n2).unwrap();
    no_keys_of(lab, &db_id);
    other.stop(&db_id).unwrap();
    other.remove(&db_id).unwrap();
}

#[test]
fn a_kubelets_pods_come_and_go_through_cri_on_two_nodes_with_host_ports_and_bandwidth() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    lab.apply_profiles("n1", "demo").unwrap();
    let (one, two) = (Containerd::start(lab, "n1"), Containerd::start(lab, "n2"));
    installed(lab, &one, "n1");
    installed(lab, &two, "n2");

    let kubelet = one.cri();
    let mut web = sandbox(&one, "web");
    web.port_mappings = vec![PortMapping {
        protocol: 0,
        container_port: i32::from(PORT),
        host_port: i32::from(HOST_PORT),
    }];
    web.annotations = [
        ("cni.projectcalico.org/ipAddrs", "[\"10.244.0.77\"]"),
        ("kubernetes.io/ingress-bandwidth", "10M"),
        ("kubernetes.io/egress-bandwidth", "10M"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let web_id = kubelet
        .run_sandbox(&web)
        .unwrap_or_else(|e| panic!("{e:#}{}", one.tail()));
    let address = kubelet.address(&web_id).unwrap();
    assert_eq!(
        address,
        Ipv4Addr::new(10, 244, 0, 77),
        "the annotation came by its capability"
    );
    kubelet
        .start(&web_id, &web, image::NAME, &["/pod", "serve", &PORT.to_string()])
        .unwrap_or_else(|e| panic!("{e:#}{}", one.tail()));
    for member in ["n1", "n2"] {
        fetches(lab, member, address, PORT);
    }
    let node = lab.state.topology.node("n1").unwrap().address;
    fetches(lab, "n2", node, HOST_PORT);
    let shaped = on_node(lab, "n1", "tc", &["qdisc", "show"]);
    assert!(
        shaped
            .lines()
            .any(|l| l.contains("tbf") && l.contains("dev cali")),
        "{shaped}"
    );

    deleted_while_away(lab, &two);

    kubelet.stop(&web_id).unwrap();
    kubelet.stop(&web_id).unwrap();
    kubelet.remove(&web_id).unwrap();
    no_keys_of(lab, &web_id);
    let left = on_node(lab, "n1", "ip", &["-brief", "link"]);
    assert!(!left.contains("cali"), "{left}");

    let removed = one.install(lab, "n1", &["--uninstall"]);
    assert!(removed.status.success(), "{}", removed.said());
    assert!(!one.conf_dir().join("10-twill.conflist").exists());
    wait_for("the runtime has no network", SOON, || {
        anyhow::ensure!(one.cri().network_ready().is_err(), "still ready");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_container_run_by_ctr_with_cni_serves_and_leaves_nothing() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let containerd = Containerd::start(lab, "n1");
    let installed = containerd.install(lab, "n1", &["--chain", "none", "--wait", "20"]);
    assert!(installed.status.success(), "{}", installed.said());
    let cgroup = format!("{}/plain", containerd.cgroup());
    let port = PORT.to_string();
    let mut ctr = containerd.ctr_inside(&[
        "run",
        "--rm",
        "--cni",
        "--snapshotter",
        "native",
        "--cgroup",
        &cgroup,
    ]);
    ctr.args([image::NAME, "plain", "/pod", "serve", &port]);
    let mut running = ctr
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = wait_for("its endpoint", SOON, || {
        let listed = lab.ctl("n1")?.json(&["get", "workloadendpoints", "-A"])?;
        let text = listed["items"][0]["spec"]["ipNetworks"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(text.split('/').next().unwrap_or_default().parse::<Ipv4Addr>()?)
    })
    .unwrap();
    assert_eq!(
        keys_of(lab, "/workloadendpoints/default/n1-cni-k8s.io--plain-eth0").len(),
        1
    );
    fetches(lab, "n1", address, PORT);
    let kill = ["task", "kill", "-s", "SIGKILL", "plain"];
    run::output(&mut containerd.ctr(&kill), b"").unwrap();
    let ended = wait_for("ctr ends", SOON, || {
        running.try_wait()?.ok_or_else(|| anyhow::anyhow!("still there"))
    });
    ended.unwrap();
    no_keys_of(lab, "plain");
}

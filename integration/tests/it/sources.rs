//! What a pod may send from: its own address, and the networks of `cni.projectcalico.org/allowedSourcePrefixes` where
//! FelixConfiguration says so. Real packets, each numbered: what arrives after a refused one shows that it was dropped, not late.

use crate::common::{Name, nodes};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use twill_lab::lab::Lab;
use twill_lab::netns;
use twill_lab::pods::PodSpec;
use twill_lab::run::{self, wait_for};
use twill_lab::state::{Pod, PodName};

const ANNOTATION: &str = "cni.projectcalico.org/allowedSourcePrefixes";
const ALLOWED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 7);
const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 9999;

fn pod(lab: &mut Lab, name: &str, node: &str, prefixes: Option<&str>) -> Pod {
    let name: PodName = name.parse().unwrap();
    let mut spec = PodSpec::new(name.clone(), node);
    if let Some(prefixes) = prefixes {
        spec.annotations
            .insert(ANNOTATION.to_owned(), prefixes.to_owned());
    }
    lab.add_pod(&spec).unwrap();
    lab.state.pod(&name).unwrap().clone()
}

/// Gives a pod the addresses that it will send from.
fn lend(pod: &Pod) {
    for source in [ALLOWED, OTHER] {
        let mut ip = netns::command(&pod.netns, "ip");
        run::output(
            ip.args(["address", "add", &format!("{source}/32"), "dev", "lo"]),
            b"",
        )
        .unwrap();
    }
}

fn spoofing(lab: &Lab, word: &str) {
    let yaml = format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata:\n  name: default\nspec:\n  workloadSourceSpoofing: {word}\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    lab.ctl("n1").unwrap().file("apply", file.path(), &yaml).unwrap();
}

struct Receiver(UdpSocket);

impl Receiver {
    fn new(pod: &Pod) -> Self {
        let socket = netns::within(&pod.netns, || UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self(socket)
    }

    /// Sends one datagram from each source, in order, and says from which of them one arrived.
    fn arrived(&self, from: &Pod, to: &Pod, sources: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let Some(to) = to.address else {
            panic!("no address")
        };
        let mark: u64 = rand::random();
        for source in sources {
            netns::within(&from.netns, || {
                let socket = UdpSocket::bind((*source, 0)).unwrap();
                socket
                    .send_to(&mark.to_be_bytes(), SocketAddr::from((to, PORT)))
                    .unwrap();
            })
            .unwrap();
        }
        let mut found = Vec::new();
        let mut bytes = [0; 16];
        // Until nothing has come for a while, or the last has.
        while let Ok((length, sender)) = self.0.recv_from(&mut bytes) {
            let IpAddr::V4(sender) = sender.ip() else {
                continue;
            };
            if bytes[..length] == mark.to_be_bytes() {
                found.push(sender);
                if Some(&sender) == sources.last() {
                    break;
                }
            }
        }
        found
    }
}

#[test]
fn a_pod_sends_from_the_networks_that_it_was_allowed_and_from_no_other() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    spoofing(lab, "Any");
    let sender = pod(lab, "shop/sender", "n1", Some(r#"["198.51.100.0/24"]"#));
    let plain = pod(lab, "shop/plain", "n1", None);
    let target = pod(lab, "shop/target", "n1", None);
    [&sender, &plain].into_iter().for_each(lend);
    let receiver = Receiver::new(&target);
    let own = |pod: &Pod| match pod.address {
        Some(IpAddr::V4(own)) => own,
        other => panic!("{other:?}"),
    };
    wait_for("own address and network, and no other", SOON, || {
        let found = receiver.arrived(&sender, &target, &[OTHER, ALLOWED, own(&sender)]);
        anyhow::ensure!(found == [ALLOWED, own(&sender)], "{found:?}");
        Ok(())
    })
    .unwrap();
    // Another pod of the same node may not: the allowance is the endpoint's.
    let found = receiver.arrived(&plain, &target, &[ALLOWED, OTHER, own(&plain)]);
    assert_eq!(found, [own(&plain)]);
    // Switched off, live: the annotation alone allows nothing.
    spoofing(lab, "Disabled");
    wait_for("only the own address", SOON, || {
        let found = receiver.arrived(&sender, &target, &[OTHER, ALLOWED, own(&sender)]);
        anyhow::ensure!(found == [own(&sender)], "{found:?}");
        Ok(())
    })
    .unwrap();
}

//! BGP resources on a live fabric, held against a real BIRD as top-of-rack router: what each field does there, what it does not
//! do without, and what `twillctl bgp` says of it.

mod asking;
mod fields;
mod reflecting;

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use ipnet::Ipv4Net;
use serde_json::Value;
use twill_lab::bird;
use twill_lab::ctl::Ctl;
use twill_lab::demo::{Scene, attach, reach};
use twill_lab::lab::Lab;
use twill_lab::netns;
use twill_lab::pods::PodSpec;
use twill_lab::run::{self, wait_for};

use crate::common::{Name, nodes};

/// A change of a resource reaches the router within this time, or never. A session that was refused waits some seconds
/// before it tries again, at either end.
const CHANGED: Duration = Duration::from_secs(40);
/// The router.
const TOR: &str = "172.31.0.254";

/// Three nodes with a pod, and so a block, each; every node peers with the router by a BGPPeer of its own, `tor-NODE`.
struct Rack {
    scene: Scene,
    ctl: Ctl,
    /// BIRD's configuration as it was.
    bird: String,
    _name: Name,
}

impl Rack {
    fn new() -> Self {
        let name = Name::new();
        let mut scene = nodes(&name);
        for node in ["n1", "n2", "n3"] {
            let pod = format!("bgp/on-{node}").parse().unwrap();
            attach::add(&mut scene, &PodSpec::new(pod, node)).unwrap();
        }
        let lab = scene.lab().unwrap();
        let (ctl, topology) = (lab.ctl("n1").unwrap(), &lab.state.topology);
        let bird = bird::config(topology, &topology.routers[0]).unwrap();
        let rack = Self {
            ctl,
            bird,
            scene,
            _name: name,
        };
        for node in ["n1", "n2", "n3"] {
            rack.peer(node, "");
        }
        rack.ctl.output(&["delete", "bgppeer", "tor"]).unwrap();
        rack
    }

    fn lab(&self) -> &Lab {
        self.scene.lab().unwrap()
    }

    fn apply(&self, yaml: &str) {
        let file = twill_lab::state::dir(&self.lab().state.lab).join("applied.yaml");
        self.ctl.file("apply", &file, yaml).unwrap();
    }

    /// A node's BGPPeer for the router, with these lines more in its `spec`.
    fn peer(&self, node: &str, more: &str) {
        self.peer_at(node, TOR, more);
    }

    fn peer_at(&self, node: &str, address: &str, more: &str) {
        self.apply(&format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: tor-{node}}}\nspec:\n  node: {node}\n  \
             peerIP: {address}\n  asNumber: 64999\n{more}"
        ));
    }

    /// Gives the router another configuration: as it was, but for these words.
    fn router(&self, changes: &[(&str, &str)]) {
        let mut text = self.bird.clone();
        for (from, to) in changes {
            assert!(text.contains(from), "{from:?} is not in {text}");
            text = text.replacen(from, to, 1);
        }
        let file = self.lab().state.member_dir("tor").join("bird.conf");
        std::fs::write(file, text).unwrap();
        let said = self.birdc(&["configure"]);
        assert!(said.contains("econfigur"), "{said}");
    }

    fn birdc(&self, words: &[&str]) -> String {
        bird::birdc(&self.lab().state, "tor", words).unwrap()
    }

    /// Waits until what is looked at is as it should be; shows it when it does not come to that.
    fn until<T: std::fmt::Display>(&self, what: &str, look: impl Fn() -> T, holds: impl Fn(&T) -> bool) -> T {
        let seen = wait_for(what, CHANGED, || {
            let seen = look();
            ensure!(holds(&seen), "{seen}");
            Ok(seen)
        });
        seen.unwrap_or_else(|error| {
            let peers = self.ctl.output(&["bgp", "peers", "-o", "wide"]);
            let log = self.lab().daemon("n1").unwrap().tail();
            panic!(
                "{error:#}\n{peers:?}\n{}{log}",
                self.birdc(&["show", "protocols"])
            )
        })
    }

    /// What the router says of a protocol or a route.
    fn shows(&self, words: &[&str], what: &str, is: bool) -> String {
        let about = format!("{what:?} in {words:?} at the router: {is}");
        self.until(&about, || self.birdc(words), |text| text.contains(what) == is)
    }

    /// Waits until the router's session with a node is established.
    fn up(&self, node: &str) {
        let session = || self.session(node);
        self.until(&format!("{node} at the router"), session, |info| {
            info == "Established"
        });
    }

    fn session(&self, node: &str) -> String {
        let all = bird::sessions(&self.lab().state, "tor").unwrap();
        let found = all.into_iter().find(|s| s.peer == node);
        found.map_or_else(String::new, |s| s.info)
    }

    /// What n1 says of a peer.
    fn told(&self, peer: &str) -> Value {
        self.ctl.json(&["bgp", "peer", peer]).unwrap_or(Value::Null)
    }

    /// The routes that `twillctl bgp routes` prints on n1.
    fn routes(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = ["bgp", "routes"].iter().chain(words).copied().collect();
        let all = self.ctl.json(&words).unwrap();
        all.as_array().unwrap().clone()
    }

    /// The block of a node.
    fn block(&self, node: &str) -> Ipv4Net {
        let blocks = reach::own_blocks(self.lab()).unwrap();
        let mut own = blocks.iter().filter(|(_, (owner, _))| owner == node);
        *own.next().unwrap().0
    }

    /// A counter of the kernel's TCP, in a node and in the router together.
    fn tcp_counter(&self, node: &str, name: &str) -> u64 {
        let of = |member: &str| {
            let mut cat = netns::command(&self.lab().ns(member), "cat");
            let text = run::output(cat.arg("/proc/net/netstat"), b"").unwrap();
            let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let pairs = names.split_whitespace().zip(values.split_whitespace());
            let found = pairs.into_iter().find(|(n, _)| *n == name);
            found.unwrap().1.parse::<u64>().unwrap()
        };
        of(node) + of("tor")
    }

    /// Waits until the kernel has refused segments between a node and the router, for one of these reasons.
    fn refused(&self, node: &str, names: &[&str]) {
        let count = || names.iter().map(|n| self.tcp_counter(node, n)).sum::<u64>();
        let before = count();
        self.until(&format!("more {names:?}"), count, |now| *now > before);
        assert_ne!(self.session(node), "Established");
    }

    fn ip(&self, member: &str, words: &[&str]) -> String {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.lab().ns(member)]).args(words);
        run::output(&mut ip, b"").unwrap()
    }
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

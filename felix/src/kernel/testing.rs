//! What the tests of this module share: tools run in a namespace, pods, waiting for a condition.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::netlink::{Protocol, Socket};
use super::netns::Netns;
use super::pod::{PodLink, attach};
use crate::plan::base::{self, BaseConfig};
use crate::plan::nft::{Atom, Name, Rule, Stmt, Table, Verdict};
use crate::plan::routes::{GATEWAY_V4, Route};
use crate::plan::{Desired, IfName, Link, Mac};

/// Bound on every wait of a test.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a tool in the current namespace. Returns whether it succeeded, and what it said.
pub(super) fn try_run(command: &str) -> (bool, String) {
    let mut words = command.split_whitespace();
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs a tool that must succeed.
#[track_caller]
pub(super) fn run(command: &str) -> String {
    let (ok, said) = try_run(command);
    assert!(ok, "{command}: {said}");
    said
}

/// Waits for a condition, at most [`DEADLINE`].
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

/// A pod of a test: its namespace and its link, made by `attach` from the node's namespace.
pub(super) struct Pod {
    pub(super) netns: Netns,
    pub(super) link: PodLink,
}

impl Pod {
    pub(super) fn link(number: u8, addresses: &[&str]) -> PodLink {
        PodLink {
            host: IfName::new(&format!("calipod{number}")).unwrap(),
            pod: IfName::fixed("eth0"),
            mac: Mac([2, 0, 0, 0, 0, number]),
            mtu: 1450,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    /// Must be called inside the node's namespace.
    pub(super) fn attach(number: u8, addresses: &[&str]) -> Self {
        let pod = Self {
            netns: Netns::new().unwrap(),
            link: Self::link(number, addresses),
        };
        let mut host = Socket::open(Protocol::Route).unwrap();
        attach(&mut host, &mut pod.socket(), &pod.netns, &pod.link).unwrap();
        pod
    }

    pub(super) fn socket(&self) -> Socket {
        self.netns.run(|| Socket::open(Protocol::Route).unwrap())
    }

    /// Pings until it is answered: the pod's own side of a link that was just set up may lag behind ours.
    #[track_caller]
    pub(super) fn reaches(&self, to: &str) {
        eventually(to, || self.pings(to));
    }

    pub(super) fn pings(&self, to: &str) -> bool {
        let ping = if to.contains(':') { "ping -6" } else { "ping" };
        self.netns.run(|| try_run(&format!("{ping} -n -c 1 -W 1 {to}")).0)
    }
}

/// The base table with pods that may do anything: an egress and an ingress policy that allow all.
pub(super) fn open_table(pods: &[&PodLink]) -> Table {
    let mut table = base::table(&BaseConfig::default());
    for (chain, next) in [("allow_out", base::EGRESS_OK), ("allow_in", base::INGRESS_OK)] {
        let rules = vec![Rule::new([Stmt::goto(&Name::fixed(next))])];
        let chain = (
            Name::fixed(chain),
            Arc::new(crate::plan::nft::Chain { base: None, rules }),
        );
        table.chains.extend([chain]);
    }
    for pod in pods {
        let iface = Atom::from(pod.host);
        let goto = |chain| Verdict::Goto(Name::fixed(chain));
        let set = |name: &str| Arc::clone(&table.sets[name]);
        let (mut from, mut to, mut live) = (set(base::FROM_WL), set(base::TO_WL), set(base::WORKLOADS));
        let (mut src4, mut src6) = (set(base::SRC4), set(base::SRC6));
        Arc::make_mut(&mut from).insert_verdict(&[iface], goto("allow_out"));
        Arc::make_mut(&mut to).insert_verdict(&[iface], goto("allow_in"));
        Arc::make_mut(&mut live).insert(&[iface]);
        for ip in &pod.addresses {
            let src = if ip.is_ipv4() { &mut src4 } else { &mut src6 };
            Arc::make_mut(src).insert(&[iface, Atom::Is((*ip).into())]);
        }
        for (name, new) in [
            (base::FROM_WL, from),
            (base::TO_WL, to),
            (base::WORKLOADS, live),
            (base::SRC4, src4),
            (base::SRC6, src6),
        ] {
            table.sets.insert(Name::fixed(name), new);
        }
    }
    table
}

/// The whole desired state of a node with these pods, all open.
pub(super) fn desired(revision: u64, pods: &[&PodLink]) -> Desired {
    let mut links = std::collections::BTreeMap::new();
    let mut routes = crate::plan::routes::Routes::new();
    routes.insert(IpAddr::from(GATEWAY_V4).into(), Route::ProxyArpGateway);
    for pod in pods {
        let neighbours = pod.addresses.iter().map(|ip| (*ip, pod.mac)).collect();
        let gateway_v6 = pod.addresses.iter().any(IpAddr::is_ipv6);
        links.insert(
            pod.host,
            Link {
                neighbours,
                gateway_v6,
                rp_filter: None,
            },
        );
        routes.extend(
            pod.addresses
                .iter()
                .map(|ip| ((*ip).into(), Route::Workload { link: pod.host })),
        );
    }
    Desired {
        revision,
        in_sync: true,
        table: Arc::new(open_table(pods)),
        links: Arc::new(links),
        routes: Arc::new(routes),
        node: crate::plan::NodeSettings {
            forward_v4: true,
            forward_v6: true,
        },
    }
}

//! A node of the lab that changes hands: Twill's, then Calico's, then Twill's again, while its pods run.
//!
//! Calico's side is a BIRD with what calico-node would have it do, and the routes to pods that Felix would write. The BIRD is
//! Debian's with a configuration of the same meaning, or Calico's own fork with one that its confd has rendered.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;

use crate::demo::attach::PODS;
use crate::demo::{self, Options, Scene, reach};
use crate::lab::Lab;
use crate::netns;
use crate::probe::{self, Endpoint, Kind, Stream};
use crate::routes::{self, Route};
use crate::run::{self, wait_for};
use crate::topology::{Node, Topology};

/// The node that changes hands: it has a peer with a smaller and one with a greater address, so BIRD dials one and waits for the other.
const NODE: &str = "n2";
/// BIRD holds back 5 s after a connection that failed, up to 30 s after an error.
const LIMIT: Duration = Duration::from_secs(60);
/// How soon a BIRD that restarted has its End-of-RIB from everybody; without it, it would wait for 240 s.
const SETTLED: Duration = Duration::from_secs(20);
/// Pings a second.
const RATE: u32 = 50;
/// The metric of a route to a pod that is to win over its block: Felix's at a live migration.
const ELEVATED: &str = "512";

/// Which BIRD.
#[derive(Clone, Debug)]
pub enum Bird {
    /// Debian's.
    Debian,
    /// Calico's fork.
    Calico {
        /// The program.
        program: PathBuf,
        /// The directory of a rendered configuration of a mesh: bird.cfg, bird_aggr.cfg, bird_ipam.cfg, made for the nodes
        /// 10.192.0.2 (itself), .3 and .4, the block 192.168.221.64/26 and the pool 192.168.0.0/16.
        rendered: PathBuf,
    },
}

/// The addresses and the block that confd's tests render.
const RENDERED: (&str, [&str; 2], &str, &str) = (
    "10.192.0.2",
    ["10.192.0.3", "10.192.0.4"],
    "192.168.221.64/26",
    "192.168.0.0/16",
);

struct Change<'a> {
    scene: &'a mut Scene,
    bird: &'a Bird,
    node: Node,
    peers: Vec<Node>,
    /// Its block, while it is known by the route that Twill has for it.
    block: Ipv4Net,
}

/// The same with Calico's own BIRD, in a lab of its own.
///
/// # Errors
/// The first thing that is not so.
pub fn run(name: &str, bin: &Path, program: PathBuf, rendered: PathBuf) -> Result<()> {
    let mut scene = Scene::new(Options {
        name: name.to_owned(),
        topology: Topology::one_rack()?,
        bin: bin.to_owned(),
        keep: false,
        sabotage: false,
    });
    let changed = demo::raise(&mut scene)
        .and_then(|_| demo::fabric::peer(&mut scene))
        .and_then(|_| demo::attach::attach(&mut scene))
        .and_then(|_| change_hands(&mut scene, &Bird::Calico { program, rendered }));
    let down = scene.lab.take().map_or(Ok(()), Lab::down).context("cleaning up");
    for line in changed? {
        println!("ok  node {line}");
    }
    down
}

/// Hands [`NODE`] of a lab with pods to Calico and takes it back. Says what was seen.
///
/// # Errors
/// The first thing that is not so.
pub fn change_hands(scene: &mut Scene, bird: &Bird) -> Result<Vec<String>> {
    let lab = scene.lab()?;
    let topology = lab.state.topology.clone();
    let node = topology.node(NODE)?.clone();
    let blocks = reach::own_blocks(lab)?;
    let own: Vec<_> = blocks.iter().filter(|(_, (owner, _))| owner == NODE).collect();
    let [(block, _)] = own.as_slice() else {
        bail!("{NODE} has {} blocks, not one", own.len());
    };
    let mut change = Change {
        block: **block,
        peers: topology
            .nodes
            .iter()
            .filter(|n| n.name != NODE)
            .cloned()
            .collect(),
        node,
        bird,
        scene,
    };
    type Act = fn(&mut Change<'_>) -> Result<String>;
    let steps: [(&str, Act); 6] = [
        ("handed back", handed_back),
        ("a mesh peer", meshed),
        ("an elevated pod", elevated),
        ("BIRD restarts", bird_restarts),
        ("a peer's daemon restarts", peer_restarts),
        ("taken over", taken_over),
    ];
    let mut said = Vec::new();
    for (what, act) in steps {
        let seen = act(&mut change).with_context(|| what.to_owned())?;
        said.push(format!("{what}: {seen}"));
    }
    Ok(said)
}

impl Change<'_> {
    fn lab(&self) -> Result<&Lab> {
        self.scene.lab()
    }

    fn netns(&self) -> Result<String> {
        Ok(self.lab()?.ns(NODE))
    }

    fn routes(&self, member: &str) -> Result<Vec<Route>> {
        routes::all(&self.lab()?.ns(member))
    }

    /// Pings between a pod of the node and one of another, both ways.
    fn streams(&self) -> Result<Vec<Stream>> {
        let ends = [("web-2", "client-1"), ("client-3", "other-2")];
        ends.iter()
            .map(|(from, to)| Stream::start(self.scene.endpoint(from)?, self.scene.endpoint(to)?, RATE))
            .collect()
    }

    /// Runs something under pings, none of which may be lost.
    fn without_loss(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<String> {
        let streams = self.streams()?;
        act(self)?;
        let mut sent = 0;
        for stream in streams {
            sent += stream.finish_whole()?;
        }
        Ok(format!("{sent} pings, 0 lost"))
    }

    fn dir(&self) -> Result<PathBuf> {
        let dir = self.lab()?.state.member_dir(NODE).join("calico");
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }

    /// Writes BIRD's configuration and starts it; `recover` is its graceful restart (`-R`).
    fn start_bird(&mut self, recover: bool) -> Result<()> {
        let dir = self.dir()?;
        let program = match self.bird {
            Bird::Debian => {
                std::fs::write(dir.join("bird.cfg"), self.config()?)?;
                PathBuf::from("bird")
            }
            Bird::Calico { program, rendered } => {
                for name in ["bird.cfg", "bird_aggr.cfg", "bird_ipam.cfg"] {
                    let path = rendered.join(name);
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("reading {}", path.display()))?;
                    std::fs::write(dir.join(name), self.rendered(name, &text))?;
                }
                program.clone()
            }
        };
        let mut args = vec!["-c".to_owned(), dir.join("bird.cfg").display().to_string()];
        // Calico's is told to log to the standard error; so is its own way of staying in the foreground.
        args.extend(["-s".to_owned(), dir.join("bird.ctl").display().to_string()]);
        args.push(
            if matches!(self.bird, Bird::Debian) {
                "-f"
            } else {
                "-d"
            }
            .to_owned(),
        );
        if recover {
            args.push("-R".to_owned());
        }
        self.scene
            .lab_mut()?
            .start_in(NODE, "calico-bird", &program, &args)
    }

    /// What confd rendered, for this lab.
    fn rendered(&self, name: &str, text: &str) -> String {
        let (own, peers, block, pool) = RENDERED;
        let mut text = text.to_owned();
        for (theirs, ours) in peers.iter().zip(&self.peers) {
            text = text.replace(theirs, &ours.address.to_string());
        }
        text = text.replace(own, &self.node.address.to_string());
        text = text.replace(block, &self.block.to_string());
        if let Ok(lab) = self.lab() {
            text = text.replace(pool, &lab.state.topology.pool.cidr.to_string());
        }
        if name != "bird.cfg" {
            return text;
        }
        // Rendered for the smallest address of three, so every session waits; here one peer's is smaller.
        let as_number = self.lab().map_or(64512, |l| l.state.topology.as_number);
        let mut out = String::new();
        let mut dials = false;
        for line in text.replace("64512", &as_number.to_string()).lines() {
            if let Some(peer) = line.trim().strip_prefix("neighbor ") {
                let peer = peer.split_whitespace().next().unwrap_or_default();
                dials = self.node.address.to_string().as_str() > peer;
            }
            if !(dials && line.contains("passive on")) {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }

    /// The same in words of BIRD 2.
    fn config(&self) -> Result<String> {
        let topology = &self.lab()?.state.topology;
        let (own, pool, block, number) = (
            self.node.address,
            topology.pool.cidr,
            self.block,
            topology.as_number,
        );
        let mut text = format!(
            "log stderr all;\nrouter id {own};\nprotocol device {{ scan time 2; }}\n\
             protocol direct {{ ipv4; interface -\"cali*\", \"*\"; }}\n\
             filter to_kernel {{ if source = RTS_BGP then {{ krt_metric = 1024; accept; }} if net ~ {pool} then accept; reject; }}\n\
             protocol kernel {{ metric 0; learn; persist; scan time 2; merge paths on; graceful restart on; ipv4 {{ import all; export filter to_kernel; }}; }}\n\
             protocol static {{ ipv4; route {block} blackhole; }}\n\
             filter to_peers {{\n  if source = RTS_BGP then reject;\n  if !defined(krt_metric) then krt_metric = 1024;\n  \
             bgp_local_pref = 2147483647 - krt_metric;\n  if net = {block} then accept;\n  \
             if net ~ {block} && krt_metric < 1024 then accept;\n  reject;\n}}\n"
        );
        for peer in &self.peers {
            let passive = own.to_string() < peer.address.to_string();
            writeln!(
                text,
                "protocol bgp mesh_{} {{\n  local {own} as {number};\n  neighbor {} as {number};\n  multihop;\n  passive {};\n  \
                 graceful restart on;\n  connect delay time 2;\n  connect retry time 5;\n  error wait time 5, 30;\n  \
                 ipv4 {{ import all; export filter to_peers; add paths on; gateway recursive; }};\n}}",
                peer.name,
                peer.address,
                if passive { "on" } else { "off" }
            )?;
        }
        Ok(text)
    }

    /// Waits until packets go both ways and each peer has the block by the node.
    fn reached(&self) -> Result<()> {
        for peer in &self.peers {
            wait_for(&format!("{} has the block of {NODE}", peer.name), LIMIT, || {
                let routes = self.routes(&peer.name)?;
                let has = routes
                    .iter()
                    .any(|r| r.to == self.block && r.via == Some(self.node.address));
                ensure!(has, "no route to {} via {}", self.block, self.node.address);
                Ok(())
            })?;
        }
        wait_for("pods reach each other", LIMIT, || {
            // Hosts behind the router are its business: the mesh alone is looked at.
            let is_pod = |e: &&Endpoint| PODS.iter().any(|(pod, ..)| *pod == e.name);
            let pods: Vec<_> = self.scene.endpoints.iter().filter(is_pod).cloned().collect();
            reach::all_echo(probe::run(&probe::full_mesh(&pods, &[Kind::Icmp]))?).map(drop)
        })
    }

    /// No peer may have a block by the node that is not the node's.
    fn nothing_foreign(&self) -> Result<()> {
        let pool = self.lab()?.state.topology.pool.cidr;
        for peer in &self.peers {
            for route in self.routes(&peer.name)? {
                ensure!(
                    !routes::overlaps(pool, route.to)
                        || route.via != Some(self.node.address)
                        || self.block.contains(&route.to),
                    "{}: {route}: {NODE} announced what is not its own",
                    peer.name
                );
            }
        }
        Ok(())
    }
}

fn handed_back(change: &mut Change<'_>) -> Result<String> {
    let daemon = change.lab()?.daemon(NODE)?;
    let (netns, program) = (change.netns()?, change.lab()?.bin("twilld")?);
    let hand_back = |run_dir: &Path| {
        let mut command = netns::command(&netns, &program);
        command.arg("hand-back").arg("--run-dir").arg(run_dir);
        run::run(&mut command, b"", run::COMMAND_TIMEOUT)
    };
    let run_dir = change.lab()?.run_dir(NODE);
    let refused = hand_back(&run_dir)?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("stop it first"),
        "a node whose daemon runs was handed back: {}",
        refused.said()
    );
    daemon.process.end()?;
    let done = hand_back(&run_dir)?;
    ensure!(done.status.success(), "{}", done.said());
    let pool = change.lab()?.state.topology.pool.cidr;
    let pods: BTreeSet<Ipv4Net> = change
        .lab()?
        .state
        .pods
        .iter()
        .filter(|p| p.node == NODE)
        .filter_map(|p| match p.address {
            Some(std::net::IpAddr::V4(a)) => Some(Ipv4Net::from(a)),
            _ => None,
        })
        .collect();
    let left = change.routes(NODE)?;
    let left = left
        .iter()
        .filter(|r| routes::overlaps(pool, r.to) && r.kind == "unicast");
    for route in left.clone() {
        ensure!(
            route.protocol == "boot" && pods.contains(&route.to),
            "{route} is left"
        );
    }
    ensure!(left.count() == pods.len(), "a pod of {NODE} has no route");
    let tables = run::output(netns::command(&netns, "nft").args(["list", "tables"]), b"")?;
    ensure!(!tables.contains("twill"), "tables are left: {tables}");
    Ok(format!(
        "routes to {} pods left, nothing else of Twill's",
        pods.len()
    ))
}

fn meshed(change: &mut Change<'_>) -> Result<String> {
    change.start_bird(false)?;
    change.reached()?;
    change.nothing_foreign()?;
    let pool = change.lab()?.state.topology.pool.cidr;
    let mut command = Command::new("ip");
    let netns = change.netns()?;
    let theirs = run::output(
        command.args(["-n", &netns, "route", "show", "proto", "bird"]),
        b"",
    )?;
    for line in theirs.lines().filter(|l| !l.starts_with("blackhole")) {
        let to: Option<Ipv4Net> = line.split_whitespace().next().and_then(|w| w.parse().ok());
        ensure!(
            !to.is_some_and(|to| routes::overlaps(pool, to)) || line.contains("metric 1024"),
            "LOCAL_PREF of an announced block is not Calico's normal priority: {line}"
        );
    }
    let seen = change.without_loss(|_| run::pass(Duration::from_secs(2)))?;
    Ok(format!(
        "sessions both ways of dialling, blocks with metric 1024; {seen}"
    ))
}

/// The pod of the node whose route is made to win.
fn pod(change: &Change<'_>) -> Result<Ipv4Addr> {
    Ok(change.scene.endpoint("web-2")?.address)
}

fn elevated(change: &mut Change<'_>) -> Result<String> {
    let (netns, pod) = (change.netns()?, pod(change)?);
    let host = Ipv4Net::from(pod);
    let device = change
        .routes(NODE)?
        .into_iter()
        .find(|r| r.to == host)
        .and_then(|r| r.dev)
        .context("the pod has no route")?;
    let line =
        |verb: &str| format!("route {verb} {pod}/32 dev {device} scope link proto boot metric {ELEVATED}\n");
    let peer = change.peers.first().context("a peer")?.name.clone();
    let has = |change: &Change<'_>, there: bool| {
        wait_for(&format!("the /32 at {peer}: {there}"), LIMIT, || {
            let routes = change.routes(&peer)?;
            ensure!(routes.iter().any(|r| r.to == host) == there, "not so");
            Ok(())
        })
    };
    has(change, false)?;
    netns::ip(&netns, &line("add"))?;
    has(change, true)?;
    netns::ip(&netns, &line("del"))?;
    has(change, false)?;
    Ok(format!("{host} came to {peer} and went"))
}

fn bird_restarts(change: &mut Change<'_>) -> Result<String> {
    change.without_loss(|change| {
        change
            .lab()?
            .child(&format!("calico-bird {NODE}"))?
            .process
            .kill()?;
        change.start_bird(true)?;
        let socket = change.dir()?.join("bird.ctl");
        wait_for("BIRD has every End-of-RIB", SETTLED, || {
            let said = run::output(
                Command::new("birdc")
                    .arg("-s")
                    .arg(&socket)
                    .args(["show", "protocols", "all"]),
                b"",
            )?;
            let up = said.matches("Established").count();
            ensure!(up >= change.peers.len(), "{up} sessions");
            let status = run::output(
                Command::new("birdc")
                    .arg("-s")
                    .arg(&socket)
                    .args(["show", "status"]),
                b"",
            )?;
            ensure!(!status.contains("recovery in progress"), "{status}");
            Ok(())
        })?;
        change.reached()
    })
}

fn peer_restarts(change: &mut Change<'_>) -> Result<String> {
    change.without_loss(|change| {
        let peer = change.peers.first().context("a peer")?.clone();
        let lab = change.scene.lab_mut()?;
        lab.kill_node(&peer.name)?;
        lab.start_node(&peer)?;
        lab.node_ready(&peer.name)?;
        change.reached()
    })
}

fn taken_over(change: &mut Change<'_>) -> Result<String> {
    let netns = change.netns()?;
    let calicos = [
        "add table ip calico",
        "add chain ip calico filter { type filter hook forward priority 0 ; }",
    ];
    for line in calicos {
        run::output(netns::command(&netns, "nft").args(line.split(' ')), b"")?;
    }
    ensure!(
        nothing_left(change).is_err(),
        "the check sees nothing of Calico's while all is there"
    );
    let seen = change.without_loss(|change| {
        change
            .lab()?
            .child(&format!("calico-bird {NODE}"))?
            .process
            .kill()?;
        let node = change.node.clone();
        let lab = change.scene.lab_mut()?;
        lab.start_node_with(&node, &["--take-over"])?;
        lab.node_ready(NODE)?;
        change.reached()?;
        wait_for("nothing of Calico's is left", LIMIT, || nothing_left(change))
    })?;
    change.nothing_foreign()?;
    // Makers of all routes, tables, probes: as on a node that was never Calico's.
    reach::prove(change.scene)?;
    Ok(format!("{seen}; nothing of Calico's left"))
}

fn nothing_left(change: &Change<'_>) -> Result<()> {
    let pool = change.lab()?.state.topology.pool.cidr;
    for route in change.routes(NODE)? {
        ensure!(
            !routes::overlaps(pool, route.to)
                || [routes::LOCAL, routes::BGP].contains(&route.protocol.as_str()),
            "{route} is left"
        );
    }
    let tables = run::output(
        netns::command(&change.netns()?, "nft").args(["list", "tables"]),
        b"",
    )?;
    ensure!(!tables.contains("calico"), "tables are left: {tables}");
    Ok(())
}

//! A lab from the outside: up, down, found again, and its daemons started and stopped one by one.

use crate::child::{self, Child, Life};
use crate::ctl::Ctl;
use crate::run::{self, Hopeless, wait_for};
use crate::state::{self, Lock, State};
use crate::topology::{Node, Topology};
use crate::{bird, netns};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The daemons' health port inside their namespaces.
const HEALTH_PORT: u16 = 9099;
/// A daemon answers within this, also on a machine that is busy building.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// One HTTP request to a health endpoint.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// A lab that this command is in charge of.
#[derive(Debug)]
pub struct Lab {
    /// What it is and what runs in it.
    pub state: State,
    life: Life,
    _lock: Lock,
}

impl Lab {
    /// Brings a lab up as far as its network, etcd and routers; nodes are started by [`Lab::start_nodes`].
    ///
    /// What a dead lab of the same name left is swept first. When this fails, whatever it made is removed again.
    ///
    /// # Errors
    /// When a lab of that name is up, a tool is missing or the kernel refuses.
    pub fn up(name: &str, topology: Topology, bin: &Path, life: Life) -> Result<Self> {
        let lock = state::lock(name)?;
        if let Some(old) = state::load(name)? {
            ensure!(
                !old.is_alive(),
                "lab {name} is up already; stop it with: twill-lab down --name {name}"
            );
            sweep(&old)?;
        }
        let state = State::new(name, topology, bin)?;
        for namespace in &state.namespaces {
            ensure!(
                !netns::exists(namespace),
                "the namespace {namespace} exists and no lab remembers it; remove it with: ip netns del {namespace}"
            );
        }
        let mut lab = Self {
            state,
            life,
            _lock: lock,
        };
        lab.state.save()?;
        match lab
            .wire()
            .and_then(|()| lab.start_etcd())
            .and_then(|()| lab.start_routers())
        {
            Ok(()) => Ok(lab),
            Err(error) => {
                let swept = sweep(&lab.state).context("and cleaning up failed");
                Err(match swept {
                    Ok(()) => error,
                    Err(also) => error.context(format!("{also:#}")),
                })
            }
        }
    }

    /// Takes charge of a lab that is up.
    ///
    /// # Errors
    /// When there is none of that name, or another command is at work on it.
    pub fn open(name: &str) -> Result<Self> {
        find(name)?;
        let lock = state::lock(name)?;
        let state = find(name)?;
        Ok(Self {
            state,
            life: Life::Stays,
            _lock: lock,
        })
    }

    /// Gives up being in charge; the lab runs on.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn leave_running(&mut self) -> Result<()> {
        self.state.owner = None;
        self.state.save()
    }

    /// Ends every process and removes every namespace and file of the lab.
    ///
    /// # Errors
    /// When something does not go; the state file then stays, and `down` can be tried again.
    pub fn down(self) -> Result<()> {
        sweep(&self.state)
    }

    fn wire(&self) -> Result<()> {
        let topology = &self.state.topology;
        for namespace in &self.state.namespaces {
            run::check_interrupt()?;
            netns::create(namespace)?;
        }
        for segment in &topology.segments {
            netns::ip(
                &self.ns(&segment.name),
                "link add br0 type bridge\nlink set br0 up\n",
            )?;
        }
        let etcd = &topology.etcd;
        self.attach("etcd", "eth0", &etcd.segment, etcd.address, etcd.gateway)?;
        for node in &topology.nodes {
            self.attach(&node.name, "eth0", &node.segment, node.address, node.gateway)?;
        }
        for router in &topology.routers {
            for (i, link) in router.links.iter().enumerate() {
                self.attach(
                    &router.name,
                    &format!("eth{i}"),
                    &link.segment,
                    link.address,
                    link.gateway,
                )?;
            }
            for host in &router.hosts {
                let (name, far) = (&host.name, self.ns(&host.name));
                netns::ip(
                    &self.ns(&router.name),
                    &format!(
                        "link add {name} type veth peer name eth0 netns {far}\nlink set {name} up\n\
                         addr add {}/{} dev {name}\n",
                        host.gateway,
                        host.address.prefix_len()
                    ),
                )?;
                let lines = format!(
                    "addr add {} dev eth0\nlink set eth0 up\nroute add default via {}\n",
                    host.address, host.gateway
                );
                netns::ip(&far, &lines)?;
            }
            netns::sysctl(&self.ns(&router.name), "ipv4/ip_forward", "1")?;
        }
        Ok(())
    }

    /// A veth between a member and a segment's bridge, made from inside: the root namespace never sees it.
    fn attach(
        &self,
        member: &str,
        device: &str,
        segment: &str,
        address: Ipv4Addr,
        gateway: Option<Ipv4Addr>,
    ) -> Result<()> {
        let length = self.state.topology.subnet(segment)?.prefix_len();
        let lines = format!(
            "link add {member} type veth peer name {device} netns {}\nlink set {member} master br0\nlink set {member} up\n",
            self.ns(member)
        );
        netns::ip(&self.ns(segment), &lines)?;
        let mut lines = format!("addr add {address}/{length} dev {device}\nlink set {device} up\n");
        if let Some(gateway) = gateway {
            lines += &format!("route add default via {gateway}\n");
        }
        netns::ip(&self.ns(member), &lines)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let dir = self.state.member_dir("etcd");
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let address = self.state.topology.etcd.address;
        let client = format!("http://{address}:2379");
        let data = dir.join("data").to_string_lossy().into_owned();
        let args = [
            ("--name", self.state.lab.as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", "http://127.0.0.1:2380"),
            ("--initial-advertise-peer-urls", "http://127.0.0.1:2380"),
            (
                "--initial-cluster",
                &format!("{}=http://127.0.0.1:2380", self.state.lab),
            ),
        ];
        let args: Vec<_> = args
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
            .collect();
        let log = dir.join("etcd.log");
        let child = Child::start(
            "etcd",
            &self.ns("etcd"),
            Path::new("etcd"),
            &args,
            &log,
            self.life,
        )?;
        self.remember(child.clone())?;
        let namespace = self.ns("etcd");
        wait_for("etcd healthy", START_TIMEOUT, || {
            child.check()?;
            let address = SocketAddr::from((address, 2379));
            let (status, body) = netns::http_get(&namespace, address, "/health", HEALTH_TIMEOUT)?;
            ensure!(status == 200, "etcd says {status} {body}");
            Ok(())
        })
    }

    fn start_routers(&mut self) -> Result<()> {
        for router in self.state.topology.routers.clone() {
            let child = bird::start(&self.state, &router, self.life)?;
            self.remember(child.clone())?;
            wait_for("BIRD answers", START_TIMEOUT, || {
                child.check()?;
                bird::sessions(&self.state, &router.name)
            })?;
        }
        Ok(())
    }

    /// Starts every node's daemon and waits until each is ready.
    ///
    /// # Errors
    /// When one ends or is not ready in time; the error holds the end of its log.
    pub fn start_nodes(&mut self) -> Result<()> {
        let nodes = self.state.topology.nodes.clone();
        for node in &nodes {
            self.start_node(node)?;
        }
        nodes.iter().try_for_each(|node| self.node_ready(&node.name))
    }

    /// Starts one node's daemon, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&mut self, node: &Node) -> Result<()> {
        self.start_node_with(node, &[])
    }

    /// Starts one node's daemon with more flags, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node_with(&mut self, node: &Node, flags: &[&str]) -> Result<()> {
        let dir = self.run_dir(&node.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let length = self.state.topology.subnet(&node.segment)?.prefix_len();
        let secrets = self.secrets_dir(&node.name);
        let args = [
            "run",
            "--node-name",
            &node.name,
            "--etcd-endpoints",
            &self.state.topology.etcd_endpoint(),
            "--run-dir",
            &dir.to_string_lossy(),
            "--node-ip",
            &format!("{}/{length}", node.address),
            "--bgp-secrets-dir",
            &secrets.to_string_lossy(),
        ];
        let args: Vec<_> = args.iter().chain(flags).map(|&a| a.to_owned()).collect();
        self.start_in(&node.name, "twilld", &self.bin("twilld")?, &args)
    }

    /// Starts a program in a member's namespace; its role is `<what> <member>`, its log `<what>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in(&mut self, member: &str, what: &str, program: &Path, args: &[String]) -> Result<()> {
        let log = self.state.member_dir(member).join(format!("{what}.log"));
        let role = format!("{what} {member}");
        let child = Child::start(&role, &self.ns(member), program, args, &log, self.life)?;
        self.remember(child)
    }

    /// Waits until a node's daemon says that it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the error holds the end of its log.
    pub fn node_ready(&self, node: &str) -> Result<()> {
        let child = self.daemon(node)?;
        wait_for(&format!("{node} ready"), START_TIMEOUT, || {
            child.check()?;
            self.ready_now(node)
        })
        .map_err(|e| {
            if e.is::<Hopeless>() {
                e
            } else {
                anyhow!("{e:#}{}", child.tail())
            }
        })
    }

    /// # Errors
    /// Says why a node's daemon is not ready at this moment.
    pub fn ready_now(&self, node: &str) -> Result<()> {
        readiness(&self.state, node)
    }

    /// The daemon of a node, running or not.
    ///
    /// # Errors
    /// When it was never started.
    pub fn daemon(&self, node: &str) -> Result<Child> {
        self.child(&format!("twilld {node}"))
    }

    /// A child by role.
    ///
    /// # Errors
    /// When it was never started.
    pub fn child(&self, role: &str) -> Result<Child> {
        let found = self.state.children.iter().rev().find(|c| c.role == role);
        found
            .cloned()
            .with_context(|| format!("{role} was never started"))
    }

    /// Kills a node's daemon without a chance to say goodbye.
    ///
    /// # Errors
    /// When it was not running or does not die.
    pub fn kill_node(&mut self, node: &str) -> Result<()> {
        self.daemon(node)?.process.kill()
    }

    /// Stops etcd in place (SIGSTOP) or lets it go on: clients see a server that does not answer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze_etcd(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        self.child("etcd")?.process.signal(signal)
    }

    /// Ends etcd: clients see refused connections.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_etcd(&self) -> Result<()> {
        self.child("etcd")?.process.end()
    }

    /// Starts etcd again on the data that it left.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub fn restart_etcd(&mut self) -> Result<()> {
        self.start_etcd()
    }

    /// `twillctl` towards a node's daemon.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn ctl(&self, node: &str) -> Result<Ctl> {
        Ok(Ctl::new(self.bin("twillctl")?, self.socket(node)))
    }

    /// The node's gRPC socket.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.run_dir(node).join("twill.sock")
    }

    /// The node's `--run-dir`.
    #[must_use]
    pub fn run_dir(&self, node: &str) -> PathBuf {
        self.state.member_dir(node).join("run")
    }

    /// The node's `--bgp-secrets-dir`; made by whoever puts a key there.
    #[must_use]
    pub fn secrets_dir(&self, node: &str) -> PathBuf {
        self.state.member_dir(node).join("secrets")
    }

    /// The namespace of a member.
    #[must_use]
    pub fn ns(&self, member: &str) -> String {
        self.state.namespace(member)
    }

    /// `etcdctl` inside the lab.
    ///
    /// # Errors
    /// When it fails.
    pub fn etcdctl(&self, words: &[&str]) -> Result<String> {
        let mut command = netns::command(&self.ns("etcd"), "etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.state.topology.etcd_endpoint()));
        run::output(command.args(words), b"")
    }

    /// A binary of the workspace.
    ///
    /// # Errors
    /// When it was not built.
    pub fn bin(&self, name: &str) -> Result<PathBuf> {
        binary(&self.state.bin, name)
    }

    fn remember(&mut self, child: Child) -> Result<()> {
        self.state.children.retain(|c| c.role != child.role);
        self.state.children.push(child);
        self.state.save()
    }
}

/// Reads the state of a lab that is up.
///
/// # Errors
/// When there is none of that name.
pub fn find(name: &str) -> Result<State> {
    match state::load(name)? {
        Some(state) => Ok(state),
        None => bail!("there is no lab {name}; bring it up with: twill-lab up --name {name}"),
    }
}

/// # Errors
/// Says why a node's daemon is not ready.
pub fn readiness(state: &State, node: &str) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT));
    let (status, body) = netns::http_get(&state.namespace(node), address, "/readiness", HEALTH_TIMEOUT)?;
    ensure!(
        (200..300).contains(&status),
        "readiness says {status} {}",
        body.trim()
    );
    Ok(())
}

/// Removes what a lab of this name left, dead or alive. Nothing to do when there is none.
///
/// # Errors
/// When something does not go.
pub fn down(name: &str) -> Result<bool> {
    if state::load(name)?.is_none() {
        return Ok(false);
    }
    let _lock = state::lock(name)?;
    let Some(state) = state::load(name)? else {
        return Ok(false);
    };
    sweep(&state)?;
    Ok(true)
}

fn sweep(state: &State) -> Result<()> {
    let mut failed = Vec::new();
    let mut note = |result: Result<()>| failed.extend(result.err().map(|e| format!("{e:#}")));
    // Nodes before etcd: a daemon that loses its store would only fill its log.
    for child in state.children.iter().rev() {
        note(child.process.kill());
    }
    for namespace in &state.namespaces {
        note(child::clear(namespace));
        note(netns::remove(namespace));
    }
    ensure!(
        failed.is_empty(),
        "lab {} is not gone: {}",
        state.lab,
        failed.join("; ")
    );
    let dir = state::dir(&state.lab);
    std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
}

/// A binary beside the others of the workspace.
///
/// # Errors
/// When it was not built.
pub fn binary(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: build the workspace first (make build, or cargo build --workspace)",
        path.display()
    );
    Ok(path)
}

/// # Errors
/// Names everything that the lab needs and the machine lacks.
pub fn check_tools() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &&&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let tools = [
        "ip", "nsenter", "setpriv", "etcd", "etcdctl", "bird", "birdc", "arping", "nft", "ss",
    ];
    let missing: Vec<_> = tools.iter().filter(|tool| !found(tool)).copied().collect();
    ensure!(
        missing.is_empty(),
        "missing tools: {}; install them with: sudo scripts/setup",
        missing.join(", ")
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab makes network namespaces and must run as root; try: sudo {}",
        std::env::args().next().unwrap_or_default()
    );
    Ok(())
}

/// The version line of a program, for people.
///
/// # Errors
/// When it cannot be run.
pub fn version(program: &Path, flag: &str) -> Result<String> {
    let finished = run::run(Command::new(program).arg(flag), b"", run::COMMAND_TIMEOUT)?;
    Ok(finished.said().lines().next().unwrap_or_default().to_owned())
}

//! `twill-lab`: a lab of network namespaces from the command line.

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use twill_lab::child::Life;
use twill_lab::demo::{self, Report, Step};
use twill_lab::lab::{self, Lab};
use twill_lab::pods::PodSpec;
use twill_lab::state::PodName;
use twill_lab::topology::Topology;
use twill_lab::{bench, netns, run};

/// A lab of network namespaces: etcd, Twill nodes, BIRD routers, hosts and pods.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The lab's name; several run side by side.
    #[arg(long, global = true, default_value = "twill", value_name = "LAB")]
    name: String,
    /// Where twilld, twillctl and twill are; beside this binary unless given.
    #[arg(long, global = true, value_name = "DIR")]
    bin: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Bring a lab up and leave it running
    Up {
        /// A topology as YAML; one rack with three nodes unless given
        #[arg(long, value_name = "FILE")]
        topology: Option<PathBuf>,
    },
    /// End a lab and remove everything that it made
    Down,
    /// Say what runs
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a lab up, prove what it promises, remove it
    Demo {
        /// A topology as YAML with nodes n1, n2 and n3 at least; one rack with three nodes unless given
        #[arg(long, value_name = "FILE")]
        topology: Option<PathBuf>,
        /// Also write the report as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Leave the lab running afterwards
        #[arg(long)]
        keep: bool,
        /// Leave out the policy that the demo then looks for: the run must fail
        #[arg(long)]
        sabotage: bool,
    },
    /// Run a command in a member's namespace
    Exec {
        /// n1, n2, n3, tor, host, etcd, seg, ...
        #[arg(value_name = "WHERE")]
        member: String,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        words: Vec<String>,
    },
    /// Run twillctl towards a node's daemon
    Ctl {
        /// The node
        #[arg(long, default_value = "n1", value_name = "NODE")]
        node: String,
        /// Arguments of twillctl
        #[arg(last = true, value_name = "ARGS")]
        words: Vec<String>,
    },
    /// Attach, detach and enter pods
    #[command(subcommand)]
    Pod(Pod),
    /// Run an unmodified calicoctl beside Twill in a lab of its own
    TestCalico {
        /// The tool, v3.32.1
        #[arg(long, value_name = "PATH")]
        calicoctl: PathBuf,
        /// Calico's fork of BIRD: a node goes to it and comes back
        #[arg(long, value_name = "PATH", requires = "rendered")]
        bird: Option<PathBuf>,
        /// The directory of a mesh that confd has rendered: confd/tests/compiled_templates/mesh/ipip-off in Calico's sources
        #[arg(long, value_name = "DIR", requires = "bird")]
        rendered: Option<PathBuf>,
    },
    /// Take numbers in a lab of its own
    #[command(subcommand)]
    Bench(bench::Bench),
}

#[derive(Subcommand)]
enum Pod {
    /// Attach a pod by CNI ADD; prints the result
    Add(Add),
    /// Detach a pod by CNI DEL
    Del {
        /// [NAMESPACE/]NAME
        pod: PodName,
    },
    /// Run a command in a pod
    Exec {
        /// [NAMESPACE/]NAME
        pod: PodName,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        words: Vec<String>,
    },
}

#[derive(Args)]
struct Add {
    /// The node
    node: String,
    /// [NAMESPACE/]NAME
    pod: PodName,
    /// A label, KEY=VALUE
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// An annotation, KEY=VALUE
    #[arg(long = "annotation", value_name = "K=V", value_parser = pair)]
    annotations: Vec<(String, String)>,
    /// Ask for this address
    #[arg(long, value_name = "A")]
    ip: Option<IpAddr>,
}

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("twill-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<ExitCode> {
    let name = cli.name.as_str();
    let bin = match cli.bin {
        Some(dir) => dir,
        None => beside_us()?,
    };
    match cli.what {
        What::Up { topology } => up(name, topology.as_deref(), &bin)?,
        What::Down => {
            lab::check_tools()?;
            let was = lab::down(name)?;
            println!("lab {name}: {}", if was { "gone" } else { "there was none" });
        }
        What::Status { json } => status(name, json)?,
        What::Demo {
            topology,
            json,
            keep,
            sabotage,
        } => {
            return show(
                demo::Options {
                    topology: read_topology(topology.as_deref())?,
                    name: name.to_owned(),
                    bin,
                    keep,
                    sabotage,
                },
                json.as_deref(),
            );
        }
        What::Exec { member, words } => {
            let state = lab::find(name)?;
            ensure!(
                state.topology.members().contains(&member),
                "lab {name} has no {member:?}; it has {}",
                state.topology.members().join(", ")
            );
            let mut command = enter(&state.namespace(&member), &words)?;
            command
                .env("ETCDCTL_API", "3")
                .env("ETCDCTL_ENDPOINTS", state.topology.etcd_endpoint());
            return Err(command.exec()).context("running nsenter");
        }
        What::Ctl { node, words } => {
            let state = lab::find(name)?;
            state.topology.node(&node)?;
            let socket = state.member_dir(&node).join("run/twill.sock");
            let mut command = Command::new(lab::binary(&state.bin, "twillctl")?);
            return Err(command.env("TWILL_SOCKET", socket).args(words).exec()).context("running twillctl");
        }
        What::Pod(pod) => return act_on_pod(name, pod),
        What::TestCalico {
            calicoctl,
            bird,
            rendered,
        } => {
            lab::check_tools()?;
            run::catch_signals()?;
            twill_lab::calico::run(name, &bin, &calicoctl)?;
            if let Some((program, rendered)) = bird.zip(rendered) {
                twill_lab::calico::node::run(name, &bin, program, rendered)?;
            }
        }
        What::Bench(bench) => bench::run(name, &bin, &bench)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn act_on_pod(name: &str, pod: Pod) -> Result<ExitCode> {
    match pod {
        Pod::Add(add) => {
            let mut spec = PodSpec::new(add.pod, &add.node);
            spec.labels = add.labels.into_iter().collect();
            spec.annotations = add.annotations.into_iter().collect();
            if let Some(address) = add.ip {
                spec = spec.ip(address);
            }
            let result = Lab::open(name)?.add_pod(&spec)?;
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        Pod::Del { pod } => Lab::open(name)?.delete_pod(&pod)?,
        Pod::Exec { pod, words } => {
            let netns = lab::find(name)?.pod(&pod)?.netns.clone();
            return Err(enter(&netns, &words)?.exec()).context("running nsenter");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, topology: Option<&Path>, bin: &Path) -> Result<()> {
    lab::check_tools()?;
    run::catch_signals()?;
    let topology = read_topology(topology)?;
    let mut lab = Lab::up(name, topology, bin, Life::Stays)?;
    let done = lab.start_nodes().and_then(|()| {
        lab.configure()?;
        demo::fabric::sessions_up(&lab)?;
        lab.leave_running()
    });
    if let Err(error) = done {
        lab.down().context("cleaning up")?;
        return Err(error);
    }
    println!("lab {name} is up: {}", lab.state.topology.members().join(", "));
    Ok(())
}

fn read_topology(path: Option<&Path>) -> Result<Topology> {
    let Some(path) = path else {
        return Topology::one_rack();
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Topology::parse(&text).with_context(|| path.display().to_string())
}

fn status(name: &str, as_json: bool) -> Result<()> {
    let state = lab::find(name)?;
    let nodes = state.topology.nodes.iter().map(|node| {
        let ready = lab::readiness(&state, &node.name);
        json!({
            "name": node.name, "address": node.address, "netns": state.namespace(&node.name),
            "socket": state.member_dir(&node.name).join("run/twill.sock"),
            "ready": ready.is_ok(), "why": ready.err().map(|e| format!("{e:#}")),
        })
    });
    let nodes: Vec<_> = nodes.collect();
    let daemons = state
        .children
        .iter()
        .map(|c| json!({"role": c.role, "pid": c.process.pid, "alive": c.process.is_alive(), "log": c.log}));
    let daemons: Vec<_> = daemons.collect();
    if as_json {
        let all = json!({
            "lab": state.lab, "alive": state.is_alive(), "etcd": state.topology.etcd_endpoint(),
            "namespaces": state.namespaces, "nodes": nodes, "daemons": daemons, "pods": state.pods,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!(
        "lab {name}: {}",
        if state.is_alive() {
            "up"
        } else {
            "dead; twill-lab down removes what is left"
        }
    );
    for child in &state.children {
        let life = if child.process.is_alive() {
            "runs"
        } else {
            "has ended"
        };
        println!(
            "  {:<12} {life}, pid {}, log {}",
            child.role,
            child.process.pid,
            child.log.display()
        );
    }
    for node in &nodes {
        let why = node["why"].as_str().map(|w| format!(": {w}")).unwrap_or_default();
        println!(
            "  node {} {}{why}",
            node["name"].as_str().unwrap_or_default(),
            if node["ready"] == true {
                "ready"
            } else {
                "not ready"
            }
        );
    }
    for pod in &state.pods {
        let address = pod.address.map_or_else(|| "-".to_owned(), |a| a.to_string());
        println!("  pod {} on {} {address}", pod.full_name(), pod.node);
    }
    Ok(())
}

fn show(options: demo::Options, json: Option<&Path>) -> Result<ExitCode> {
    run::catch_signals()?;
    if let Some(path) = json {
        // Now rather than after a minute. What an earlier run wrote stays until there is something new.
        let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
        open.with_context(|| format!("writing {}", path.display()))?;
    }
    let report = demo::run(options, &mut |step: &Step| println!("{}", Report::row(step)));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let total: u64 = report.steps.iter().map(|s| s.ms).sum();
    println!(
        "{} after {:.1} s",
        if report.ok { "all of it is so" } else { "NOT so" },
        total as f64 / 1e3
    );
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn enter(netns: &str, words: &[String]) -> Result<Command> {
    let (program, args) = words.split_first().context("no command given")?;
    let mut command = netns::command(netns, program);
    command.args(args);
    Ok(command)
}

fn beside_us() -> Result<PathBuf> {
    let us = std::env::current_exe().context("finding this binary")?;
    Ok(us.parent().context("this binary is in a directory")?.to_owned())
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .with_context(|| format!("{text:?} is not KEY=VALUE"))?;
    ensure!(!key.is_empty(), "{text:?} has no key");
    Ok((key.to_owned(), value.to_owned()))
}

//! `twill-lab bench`: the numbers that the docs quote, taken in a lab of its own by the same commands everywhere.

use crate::child::Life;
use crate::cni::Plugin;
use crate::demo::fabric::sessions_up;
use crate::lab::{self, Lab};
use crate::pods::{self, PodSpec};
use crate::probe::{self, Endpoint, Kind, Probe, Server};
use crate::run;
use crate::state::{Pod, PodName};
use crate::topology::Topology;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Subcommand;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Where Debian puts the reference plugins.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
/// Something that should take milliseconds and has not happened after this is an error, not a number.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pods one run attaches at most: a node holds some blocks of 64, the reference subnet 254.
const PODS_MAX: usize = 200;

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// CNI ADD and DEL against ptp + host-local in the same run; size and CPU of the plugin
    Cni {
        /// Pods that each plugin attaches
        #[arg(long, default_value_t = 100)]
        pods: usize,
    },
    /// From the start of ADD on one node to the first echo from another
    Reach {
        /// Pods
        #[arg(long, default_value_t = 20)]
        pods: usize,
    },
    /// From `twillctl apply` of a deny policy to the first new flow that is stopped
    Policy {
        /// Rounds
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
}

/// Brings a lab up, measures, prints, and removes the lab.
///
/// # Errors
/// When the lab does not come up or something that is to be measured fails.
pub fn run(name: &str, bin: &Path, bench: &Bench) -> Result<()> {
    lab::check_tools()?;
    run::catch_signals()?;
    let mut lab = Lab::up(name, Topology::one_rack()?, bin, Life::EndsWithUs)?;
    let measured = lab.start_nodes().and_then(|()| lab.configure()).and_then(|()| {
        sessions_up(&lab)?;
        match bench {
            Bench::Cni { pods } => cni(&mut lab, *pods),
            Bench::Reach { pods } => reach(&mut lab, *pods),
            Bench::Policy { rounds } => policy(&mut lab, *rounds),
        }
    });
    lab.down().context("cleaning up")?;
    measured
}

fn cni(lab: &mut Lab, count: usize) -> Result<()> {
    ensure!((1..=PODS_MAX).contains(&count), "between 1 and {PODS_MAX} pods");
    let twill = lab.plugin("n1")?;
    let reference = ptp(lab)?;
    // The first pod applies the profiles and claims the block.
    let first = spec("warm", 0);
    lab.add_pod(&first)?;
    let made = (0..count)
        .map(|i| lab.make_pod(&spec("twill", i)))
        .collect::<Result<Vec<_>>>()?;
    let theirs = (0..count)
        .map(|i| lab.make_pod(&spec("ptp", i)))
        .collect::<Result<Vec<_>>>()?;
    for verb in ["ADD", "DEL"] {
        let (mut ours, mut others) = (Sample::default(), Sample::default());
        // Turn about, so that both see the same machine.
        for (our, their) in made.iter().zip(&theirs) {
            run::check_interrupt()?;
            ours.take(lab, &twill, verb, our)?;
            others.take(lab, &reference, verb, their)?;
        }
        ours.print(&format!("twill {verb}"));
        others.print(&format!("ptp + host-local {verb}"));
    }
    let size = std::fs::metadata(&twill.program)?.len();
    println!(
        "plugin {}: {size} bytes ({:.2} MB)",
        twill.program.display(),
        size as f64 / 1e6
    );
    Ok(())
}

/// Runs of one plugin.
#[derive(Default)]
struct Sample {
    times: Vec<Duration>,
    cpu: Duration,
}

impl Sample {
    fn take(&mut self, lab: &Lab, plugin: &Plugin, verb: &str, pod: &Pod) -> Result<()> {
        let before = children_cpu()?;
        let answer = plugin.exec(verb, &lab.ns("n1"), pod, &pods::path(pod))?;
        self.cpu += children_cpu()?.saturating_sub(before);
        answer
            .outcome
            .with_context(|| format!("{verb} by {}", plugin.program.display()))?;
        self.times.push(answer.finished.elapsed);
        Ok(())
    }

    fn print(&mut self, what: &str) {
        print(what, &mut self.times);
        let runs = u32::try_from(self.times.len()).unwrap_or(u32::MAX).max(1);
        println!(
            "{what}: {:.2} ms of CPU per exec, its own children included",
            (self.cpu / runs).as_secs_f64() * 1e3
        );
    }
}

/// CPU time of all children that have ended, theirs included.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

fn ptp(lab: &Lab) -> Result<Plugin> {
    let program = PathBuf::from(REFERENCE_PLUGINS).join("ptp");
    ensure!(
        program.is_file(),
        "{} is missing: apt-get install containernetworking-plugins",
        program.display()
    );
    let data = lab.state.member_dir("n1").join("host-local");
    let config = json!({
        "cniVersion": "1.0.0", "name": "ptp", "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": data},
    });
    Ok(Plugin { program, config })
}

fn reach(lab: &mut Lab, count: usize) -> Result<()> {
    ensure!((1..=PODS_MAX).contains(&count), "between 1 and {PODS_MAX} pods");
    lab.add_pod(&PodSpec::new(name("asker", 0), "n2"))?;
    let asker = endpoint(lab, &name("asker", 0))?;
    let mut times = Vec::new();
    for i in 0..count {
        run::check_interrupt()?;
        let begun = Instant::now();
        lab.add_pod(&PodSpec::new(name("new", i), "n1"))?;
        let to = endpoint(lab, &name("new", i))?;
        echo(&asker, &to, Kind::Icmp)?;
        times.push(begun.elapsed());
    }
    print("ADD on n1 to the first echo at a pod of n2", &mut times);
    Ok(())
}

fn policy(lab: &mut Lab, rounds: usize) -> Result<()> {
    lab.add_pod(&PodSpec::new(name("asker", 0), "n2"))?;
    lab.add_pod(&PodSpec::new(name("asked", 0), "n1").label("app", "asked"))?;
    let (asker, asked) = (
        endpoint(lab, &name("asker", 0))?,
        endpoint(lab, &name("asked", 0))?,
    );
    let _server = Server::start(&asked)?;
    let yaml = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: deny-asked\nspec:\n  \
                selector: app == 'asked'\n  types:\n  - Ingress\n";
    let file = crate::state::dir(&lab.state.lab).join("deny.yaml");
    let ctl = lab.ctl("n2")?;
    let (mut closed, mut returned) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        run::check_interrupt()?;
        echo(&asker, &asked, Kind::Udp)?;
        let begun = Instant::now();
        thread::scope(|scope| -> Result<()> {
            let prober = scope.spawn(|| until_closed(&asker, &asked, begun));
            ctl.file("apply", &file, yaml)?;
            returned.push(begun.elapsed());
            closed.push(prober.join().map_err(|_| anyhow!("the prober panicked"))??);
            Ok(())
        })?;
        ctl.file("delete", &file, yaml)?;
        run::wait_for("open again", PATIENCE, || echo(&asker, &asked, Kind::Udp))?;
    }
    print(
        "start of twillctl apply to the first new flow that is stopped",
        &mut closed,
    );
    print("twillctl apply itself, exec included", &mut returned);
    Ok(())
}

/// Tries new flows one after the other; returns when the first that is stopped was sent, counted from `begun`.
fn until_closed(from: &Endpoint, to: &Endpoint, begun: Instant) -> Result<Duration> {
    while begun.elapsed() < PATIENCE {
        let sent = begun.elapsed();
        if echo(from, to, Kind::Udp).is_err() {
            return Ok(sent);
        }
    }
    bail!("new flows still get through {PATIENCE:?} after twillctl apply");
}

fn echo(from: &Endpoint, to: &Endpoint, kind: Kind) -> Result<()> {
    let seen = probe::run(&[Probe {
        from: from.clone(),
        to: to.clone(),
        kind,
    }])?;
    crate::demo::reach::all_echo(seen).map(drop)
}

fn endpoint(lab: &Lab, name: &PodName) -> Result<Endpoint> {
    let pod = lab.state.pod(name)?;
    match pod.address {
        Some(IpAddr::V4(address)) => Ok(Endpoint {
            name: name.name.clone(),
            netns: pod.netns.clone(),
            address,
        }),
        other => bail!("{} has no IPv4 address but {other:?}", name.name),
    }
}

fn spec(kind: &str, i: usize) -> PodSpec {
    PodSpec::new(name(kind, i), "n1")
}

fn name(kind: &str, i: usize) -> PodName {
    PodName {
        namespace: "bench".to_owned(),
        name: format!("{kind}-{i}"),
    }
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    // Nearest rank: the smallest time that at least this percentage does not exceed.
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    println!(
        "{what}: n={} p50 {:.2} ms, p95 {:.2} ms, max {:.2} ms",
        times.len(),
        at(50),
        at(95),
        at(100)
    );
}

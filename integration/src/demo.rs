//! `twill-lab demo`: nine steps that prove the walking fabric, in order, ending at the first that is not so.

use crate::child::Life;
use crate::lab::{self, Lab};
use crate::probe::{Endpoint, Server};
use crate::routes::Root;
use crate::run;
use crate::topology::Topology;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod attach;
pub mod detach;
pub mod fabric;
pub mod policy;
pub mod reach;
pub mod restart;

/// The whole run after the build may take this long.
pub const BUDGET: Duration = Duration::from_secs(60);

/// What the command line asks of a demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The lab's name.
    pub name: String,
    /// What the lab is made of: one rack, or something else that has [`attach::PODS`]' nodes.
    pub topology: Topology,
    /// Where the binaries are.
    pub bin: PathBuf,
    /// Leave the lab running.
    pub keep: bool,
    /// Leave the policy of step 6 out: the run must fail.
    pub sabotage: bool,
}

/// What the steps hand on.
#[derive(Debug)]
pub struct Scene {
    /// What was asked.
    pub options: Options,
    /// The lab, once it is up.
    pub lab: Option<Lab>,
    /// Pods and hosts that can be probed.
    pub endpoints: Vec<Endpoint>,
    /// Their echo servers.
    pub servers: Vec<Server>,
    root: Option<Root>,
}

impl Scene {
    /// A scene before its first step.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            lab: None,
            endpoints: Vec::new(),
            servers: Vec::new(),
            root: None,
        }
    }

    /// The lab of the steps after the second.
    ///
    /// # Errors
    /// When the lab is not up.
    pub fn lab(&self) -> Result<&Lab> {
        self.lab.as_ref().context("the lab is not up")
    }

    /// The lab, to change it.
    ///
    /// # Errors
    /// When the lab is not up.
    pub fn lab_mut(&mut self) -> Result<&mut Lab> {
        self.lab.as_mut().context("the lab is not up")
    }

    /// An endpoint by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn endpoint(&self, name: &str) -> Result<&Endpoint> {
        self.endpoints
            .iter()
            .find(|e| e.name == name)
            .with_context(|| format!("no endpoint {name}"))
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Number in the list that every run goes through.
    pub id: u8,
    /// What it is about.
    pub name: &'static str,
    /// Whether all of it was so.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// How long it took.
    pub ms: u64,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every step was so.
    pub ok: bool,
    /// The steps that ran.
    pub steps: Vec<Step>,
}

type Act = fn(&mut Scene) -> Result<String>;

const STEPS: &[(u8, &str, Act)] = &[
    (1, "tools and binaries", tools),
    (2, "namespaces, etcd, BIRD", raise),
    (3, "nodes, pool, BGP sessions", fabric::peer),
    (4, "pods by CNI ADD", attach::attach),
    (5, "reachability and routes", reach::prove),
    (6, "policy on new flows", policy::enforce),
    (7, "daemon killed and restarted", restart::survive),
    (8, "pods by CNI DEL, IPAM clean", detach::detach),
];

/// Runs the demo; whatever happens, the lab is removed again, unless it is to be kept.
#[must_use]
pub fn run(options: Options, tell: &mut dyn FnMut(&Step)) -> Report {
    let started = Instant::now();
    let keep = options.keep;
    let mut scene = Scene::new(options);
    let mut report = Report {
        ok: true,
        steps: Vec::new(),
    };
    let mut record = |report: &mut Report, id, name, begun: Instant, result: Result<String>| {
        let ok = result.is_ok();
        let detail = result.unwrap_or_else(|error| format!("{error:#}"));
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let step = Step {
            id,
            name,
            ok,
            detail,
            ms,
        };
        tell(&step);
        report.ok &= ok;
        report.steps.push(step);
    };
    for (id, name, act) in STEPS {
        let begun = Instant::now();
        let result = run::check_interrupt().and_then(|()| act(&mut scene));
        record(&mut report, *id, name, begun, result);
        if !report.ok {
            break;
        }
    }
    let begun = Instant::now();
    let ended = if keep && !run::interrupted() {
        leave(&mut scene)
    } else {
        clean(&mut scene)
    };
    record(&mut report, 9, "clean-up", begun, ended);
    let took = started.elapsed();
    if report.ok && took > BUDGET {
        let late = Err(anyhow::anyhow!(
            "took {:.1} s, more than {} s",
            took.as_secs_f64(),
            BUDGET.as_secs()
        ));
        record(&mut report, 9, "time", begun, late);
    }
    report
}

/// Step 1: everything that the other steps run is there.
///
/// # Errors
/// Names what is missing.
pub fn tools(scene: &mut Scene) -> Result<String> {
    lab::check_tools()?;
    for (_, node, _) in attach::PODS {
        scene.options.topology.node(node)?;
    }
    let bin = &scene.options.bin;
    for name in ["twilld", "twillctl", "twill"] {
        lab::binary(bin, name)?;
    }
    scene.root = Some(Root::look()?);
    Ok(format!(
        "twilld, twillctl, twill in {}; {}; {}",
        bin.display(),
        lab::version(Path::new("etcd"), "--version")?,
        lab::version(Path::new("bird"), "--version")?
    ))
}

/// Step 2: namespaces, etcd and BIRD.
///
/// # Errors
/// When the lab does not come up.
pub fn raise(scene: &mut Scene) -> Result<String> {
    let life = if scene.options.keep {
        Life::Stays
    } else {
        Life::EndsWithUs
    };
    let lab = Lab::up(
        &scene.options.name,
        scene.options.topology.clone(),
        &scene.options.bin,
        life,
    )?;
    let namespaces = lab.state.namespaces.len();
    scene.lab = Some(lab);
    Ok(format!("{namespaces} namespaces, etcd healthy, BIRD answers"))
}

fn leave(scene: &mut Scene) -> Result<String> {
    scene.servers.clear();
    let Some(lab) = &mut scene.lab else {
        return Ok("nothing was made".to_owned());
    };
    lab.leave_running()?;
    Ok(format!(
        "left running, as asked; end it with: twill-lab down --name {}",
        lab.state.lab
    ))
}

fn clean(scene: &mut Scene) -> Result<String> {
    scene.servers.clear();
    let Some(lab) = scene.lab.take() else {
        return Ok("nothing was made".to_owned());
    };
    let state = lab.state.clone();
    lab.down()?;
    for namespace in &state.namespaces {
        ensure!(
            !crate::netns::exists(namespace),
            "the namespace {namespace} is still there"
        );
    }
    for child in &state.children {
        ensure!(!child.process.is_alive(), "{} is still running", child.role);
    }
    if let Some(before) = &scene.root {
        Root::look()?.check_unchanged(before)?;
    }
    Ok(format!(
        "{} namespaces and {} daemons gone, the root namespace as it was",
        state.namespaces.len(),
        state.children.len()
    ))
}

impl Report {
    /// The table for people.
    #[must_use]
    pub fn row(step: &Step) -> String {
        let mark = if step.ok { "ok  " } else { "FAIL" };
        format!(
            "{mark} {} {:<28} {:>6} ms  {}",
            step.id,
            step.name,
            step.ms,
            step.detail.replace('\n', "\n       ")
        )
    }
}

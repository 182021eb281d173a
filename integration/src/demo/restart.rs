//! Step 7: a daemon is killed, stays dead and comes back; nobody who forwards packets notices.

use super::Scene;
use super::attach::NAMESPACE;
use super::fabric::sessions_up;
use crate::cni::CniError;
use crate::pods::PodSpec;
use crate::probe::Stream;
use crate::routes::Watch;
use crate::run;
use crate::state::PodName;
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// Pings a second of each stream.
const RATE: u32 = 100;
/// How long the daemon stays dead, at least.
const DEAD: Duration = Duration::from_secs(5);
/// How long the streams run on after everything is up again: stale routes would go in this time.
const AFTER: Duration = Duration::from_secs(3);
/// ADD must not hang on a dead daemon.
const ADD_BOUND: Duration = Duration::from_secs(10);
/// CNI code "try again later".
const TRY_AGAIN: u64 = 11;
/// The node that is killed.
const NODE: &str = "n1";

/// # Errors
/// When a ping is lost, a pool route is deleted anywhere, ADD answers otherwise, or the node does not come back.
pub fn survive(scene: &mut Scene) -> Result<String> {
    let pairs = [("web-1", "web-2"), ("other-2", "client-1"), ("host", "web-1")];
    let mut streams = Vec::new();
    for (from, to) in pairs {
        streams.push(Stream::start(scene.endpoint(from)?, scene.endpoint(to)?, RATE)?);
    }
    let lab = scene.lab_mut()?;
    let topology = lab.state.topology.clone();
    let watched = topology
        .nodes
        .iter()
        .map(|n| &n.name)
        .chain(topology.routers.iter().map(|r| &r.name));
    let watches = watched
        .map(|name| Ok((name.clone(), Watch::start(&lab.ns(name))?)))
        .collect::<Result<Vec<_>>>()?;
    lab.kill_node(NODE)?;
    let died = Instant::now();
    let refused = refused_add(scene)?;
    run::pass(DEAD.saturating_sub(died.elapsed()))?;
    let lab = scene.lab_mut()?;
    let dead = died.elapsed();
    lab.start_node(topology.node(NODE)?)?;
    lab.node_ready(NODE)?;
    let back = died.elapsed().saturating_sub(dead);
    sessions_up(lab)?;
    run::pass(AFTER)?;
    let mut sent = 0;
    for stream in streams {
        sent += stream.finish_whole()?;
    }
    for (name, watch) in watches {
        let deleted = watch.finish(topology.pool.cidr)?;
        ensure!(
            deleted.is_empty(),
            "{name} deleted pool routes: {}",
            deleted.join("; ")
        );
    }
    Ok(format!(
        "{NODE} dead for {:.1} s, ready {:.1} s after its start; {sent} pings, 0 lost; no pool route deleted on {}; ADD meanwhile: \
         {refused}",
        dead.as_secs_f64(),
        back.as_secs_f64(),
        topology
            .nodes
            .iter()
            .map(|n| n.name.as_str())
            .chain(topology.routers.iter().map(|r| r.name.as_str()))
            .collect::<Vec<_>>()
            .join(", ")
    ))
}

/// Tries an ADD on the dead node, and cleans up after it as a runtime does.
fn refused_add(scene: &mut Scene) -> Result<String> {
    let name = PodName {
        namespace: NAMESPACE.to_owned(),
        name: "late".to_owned(),
    };
    let begun = Instant::now();
    let answer = scene.lab_mut()?.add_pod(&PodSpec::new(name, NODE));
    let took = begun.elapsed();
    let Err(error) = answer else {
        bail!("ADD on {NODE} succeeded while its daemon was dead")
    };
    let code = error
        .downcast_ref::<CniError>()
        .with_context(|| format!("ADD failed otherwise: {error:#}"))?
        .code;
    ensure!(
        code == TRY_AGAIN,
        "ADD on a dead node ended with {code}, not {TRY_AGAIN}: {error:#}"
    );
    ensure!(took < ADD_BOUND, "ADD on a dead node took {took:?}");
    Ok(format!("code {code}"))
}

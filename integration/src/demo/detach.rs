//! Step 8: the pods go by CNI DEL, twice, and nothing of them is left in the kernels or the store.

use super::Scene;
use crate::lab::Lab;
use crate::netns;
use crate::routes;
use crate::run::{self, wait_for};
use crate::state::Pod;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

/// The kernel unregisters a veth after DEL has answered.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);

/// `cali` and 11 hex digits.
const IFNAME_LEN: usize = 15;

/// # Errors
/// Names the first thing that is left.
pub fn detach(scene: &mut Scene) -> Result<String> {
    scene.servers.clear();
    let lab = scene.lab_mut()?;
    let pods = lab.state.pods.clone();
    for pod in &pods {
        lab.detach_pod(pod, true)?;
        // A runtime repeats itself, later without the namespace.
        lab.detach_pod(pod, false).context("the second DEL")?;
    }
    for node in lab.state.topology.nodes.clone() {
        let gone = pods.iter().filter(|p| p.node == node.name).collect::<Vec<_>>();
        wait_for(
            &format!("no trace of pods on {}", node.name),
            GONE_TIMEOUT,
            || no_trace(lab, &node.name, &gone),
        )?;
    }
    for pod in &pods {
        lab.forget_pod(pod)?;
    }
    let first = &lab.state.topology.nodes.first().context("a lab has a node")?.name;
    let said = lab
        .ctl(first)?
        .output(&["ipam", "check"])
        .context("after all pods are gone")?;
    Ok(format!(
        "{} pods deleted twice; no veth, route, rule, handle or endpoint left; ipam check: {}",
        pods.len(),
        said.lines().last().unwrap_or("clean").trim()
    ))
}

/// # Errors
/// Names what is left of these pods on a node or in the store.
pub fn no_trace(lab: &Lab, node: &str, pods: &[&Pod]) -> Result<()> {
    let namespace = lab.ns(node);
    let links = run::output(
        std::process::Command::new("ip").args(["-n", &namespace, "-brief", "link"]),
        b"",
    )?;
    let left: BTreeSet<_> = links.lines().filter(|line| line.starts_with("cali")).collect();
    ensure!(left.is_empty(), "links left: {left:?}");
    let table = routes::all(&namespace)?;
    let rules = run::output(netns::command(&namespace, "nft").args(["list", "ruleset"]), b"")?;
    for pod in pods {
        let address = pod
            .address
            .with_context(|| format!("{} had no address", pod.name))?
            .to_string();
        let route = table
            .iter()
            .find(|r| r.to.prefix_len() == 32 && r.to.addr().to_string() == address);
        ensure!(
            route.is_none(),
            "route left: {}",
            route.map(ToString::to_string).unwrap_or_default()
        );
        let mention = rules.lines().find(|line| {
            line.split(|c: char| !c.is_ascii_digit() && c != '.')
                .any(|word| word == address)
        });
        ensure!(
            mention.is_none(),
            "rule left: {}",
            mention.unwrap_or_default().trim()
        );
        let keys = lab.etcdctl(&["get", "--prefix", "/calico/", "--keys-only"])?;
        let key = keys.lines().find(|key| key.contains(&pod.container_id));
        ensure!(key.is_none(), "key left: {}", key.unwrap_or_default());
        let endpoint = format!("/workloadendpoints/{}/", pod.namespace);
        let escaped = format!("-{}-", pod.name.replace('-', "--"));
        let key = keys
            .lines()
            .find(|key| key.contains(&endpoint) && key.contains(&escaped));
        ensure!(key.is_none(), "key left: {}", key.unwrap_or_default());
    }
    // "cali*" is a standing rule; a whole interface name belongs to a pod.
    let name = rules
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|w| w.starts_with("cali") && w.len() == IFNAME_LEN);
    ensure!(name.is_none(), "rule left for {}", name.unwrap_or_default());
    Ok(())
}

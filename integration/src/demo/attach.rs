//! Step 4: two pods a node, by the real plugin.

use super::Scene;
use crate::pods::PodSpec;
use crate::probe::{Endpoint, Server};
use crate::state::PodName;
use anyhow::{Context, Result, bail, ensure};
use std::net::IpAddr;

/// The pods of the demo: name, node, label `app`. A node that is not among them gets one pod `other-NODE`.
pub const PODS: [(&str, &str, &str); 6] = [
    ("web-1", "n1", "web"),
    ("client-1", "n1", "client"),
    ("web-2", "n2", "web"),
    ("other-2", "n2", "other"),
    ("client-3", "n3", "client"),
    ("other-3", "n3", "other"),
];
/// Their Kubernetes namespace.
pub const NAMESPACE: &str = "demo";

/// # Errors
/// When an ADD fails or its result is not what the pool allows.
pub fn attach(scene: &mut Scene) -> Result<String> {
    let mut seen = Vec::new();
    let pods = PODS.map(|(name, node, app)| (name.to_owned(), node.to_owned(), app));
    let without = scene.options.topology.nodes.iter().map(|n| &n.name);
    let without = without.filter(|name| PODS.iter().all(|(_, node, _)| node != name));
    let more = without.map(|node| (format!("other-{node}"), node.clone(), "other"));
    for (name, node, app) in pods.into_iter().chain(more.collect::<Vec<_>>()) {
        let name = PodName {
            namespace: NAMESPACE.to_owned(),
            name,
        };
        let endpoint = add(scene, &PodSpec::new(name, &node).label("app", app))?;
        seen.push(format!("{} {}", endpoint.name, endpoint.address));
        scene.endpoints.push(endpoint);
    }
    let lab = scene.lab()?;
    let hosts = lab.state.topology.hosts().map(|h| Endpoint {
        name: h.name.clone(),
        netns: lab.ns(&h.name),
        address: h.address.addr(),
    });
    let hosts: Vec<_> = hosts.collect();
    scene.endpoints.extend(hosts);
    scene.servers = scene.endpoints.iter().map(Server::start).collect::<Result<_>>()?;
    Ok(seen.join(", "))
}

/// Attaches one pod and checks its result.
///
/// # Errors
/// When ADD fails or the address is outside the pool or taken.
pub fn add(scene: &mut Scene, spec: &PodSpec) -> Result<Endpoint> {
    let result = scene.lab_mut()?.add_pod(spec)?;
    let lab = scene.lab()?;
    let pod = lab.state.pod(&spec.name)?;
    let address = pod.address.with_context(|| format!("no address in {result}"))?;
    let IpAddr::V4(address) = address else {
        bail!("{address} is not IPv4")
    };
    ensure!(
        lab.state.topology.pool.cidr.contains(&address),
        "{address} is outside the pool"
    );
    let taken = scene.endpoints.iter().find(|e| e.address == address);
    ensure!(taken.is_none(), "{address} was given out twice");
    Ok(Endpoint {
        name: spec.name.name.clone(),
        netns: pod.netns.clone(),
        address,
    })
}

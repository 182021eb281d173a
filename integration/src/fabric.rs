//! What the lab configures in the fabric, as any user would: YAML through `twillctl apply`.

use crate::lab::Lab;
use crate::topology::Topology;
use anyhow::{Context, Result};
use std::fmt::Write;

/// The pool, the mesh and a peer for each router, as projectcalico.org/v3 YAML.
#[must_use]
pub fn resources(topology: &Topology) -> String {
    let mut text = format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata:\n  name: default\nspec:\n  asNumber: {}\n  \
         nodeToNodeMeshEnabled: true\n---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pool\nspec:\n  \
         cidr: {}\n  blockSize: {}\n  natOutgoing: false\n",
        topology.as_number, topology.pool.cidr, topology.pool.block_size
    );
    for router in &topology.routers {
        for link in &router.links {
            let nodes: Vec<_> = topology
                .nodes
                .iter()
                .filter(|n| n.segment == link.segment)
                .collect();
            let mut peer = |name: &str, node: Option<&str>| {
                let node = node.map(|n| format!("  node: {n}\n")).unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: {name}\nspec:\n{node}  peerIP: {}\n  \
                     asNumber: {}\n",
                    link.address, router.as_number
                );
            };
            if nodes.len() == topology.nodes.len() {
                peer(&router.name, None);
            } else {
                nodes
                    .iter()
                    .for_each(|n| peer(&format!("{}-{}", router.name, n.name), Some(&n.name)));
            }
        }
    }
    text
}

impl Lab {
    /// Applies the pool, the BGP configuration and the routers as peers.
    ///
    /// # Errors
    /// When `twillctl` refuses.
    pub fn configure(&self) -> Result<()> {
        let topology = &self.state.topology;
        let node = &topology.nodes.first().context("a lab has a node")?.name;
        let file = crate::state::dir(&self.state.lab).join("fabric.yaml");
        self.ctl(node)?
            .file("apply", &file, &resources(topology))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::TWO_RACKS;

    #[test]
    fn one_rack_has_a_global_peer_and_two_racks_have_one_for_each_node() {
        let one = resources(&Topology::one_rack().unwrap());
        assert_eq!(one.matches("kind: BGPPeer").count(), 1);
        assert!(one.contains("peerIP: 172.31.0.254\n  asNumber: 64999"), "{one}");
        assert!(!one.contains("node: n1"), "{one}");
        let two = resources(&Topology::parse(TWO_RACKS).unwrap());
        assert_eq!(two.matches("kind: BGPPeer").count(), 4);
        assert!(
            two.contains("node: n3\n  peerIP: 172.31.1.254\n  asNumber: 64998"),
            "{two}"
        );
    }
}

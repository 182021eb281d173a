//! What a lab is made of: segments, nodes, routers and hosts, read from YAML.
//!
//! The built-in default is `topologies/one-rack.yaml`; `two-racks.yaml` shows how far the same words go. Every error names the
//! field, and a syntax error its line and column.

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::Ipv4Net;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The default topology: one rack, three nodes.
pub const ONE_RACK: &str = include_str!("../topologies/one-rack.yaml");
/// Two racks with a router each, joined by a spine.
pub const TWO_RACKS: &str = include_str!("../topologies/two-racks.yaml");

/// Members of a lab, all kinds together: keeps a typing error from filling the machine.
const MEMBERS_MAX: usize = 64;
/// A member's name is also its port's name on the bridge, and Linux allows 15 characters.
const NAME_MAX: usize = 15;

/// A whole lab, as its file says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// AS number that all nodes share.
    pub as_number: u32,
    /// The pool that pods get their addresses from.
    pub pool: Pool,
    /// L2 segments, a namespace with a bridge each.
    pub segments: Vec<Segment>,
    /// Where etcd listens.
    pub etcd: Attached,
    /// Nodes, a `twilld` each.
    pub nodes: Vec<Node>,
    /// Routers, a BIRD each.
    pub routers: Vec<Router>,
}

/// The address pool of the pods.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// The pool's prefix.
    pub cidr: Ipv4Net,
    /// Prefix length of a node's block.
    pub block_size: u8,
}

/// An L2 segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Its name; the namespace is `<lab>-<name>`.
    pub name: String,
    /// The subnet on it.
    pub subnet: Ipv4Net,
}

/// An address on a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attached {
    /// The segment's name.
    pub segment: String,
    /// The address; its length is the segment's.
    pub address: Ipv4Addr,
    /// Where the default route goes; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// A node of the fabric.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, also towards the fabric.
    pub name: String,
    /// The segment's name.
    pub segment: String,
    /// The node's address on it.
    pub address: Ipv4Addr,
    /// Where the default route goes; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// A router outside the fabric.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its AS number.
    pub as_number: u32,
    /// Its addresses; the first is its router id.
    pub links: Vec<Attached>,
    /// Hosts behind it, a network each.
    #[serde(default)]
    pub hosts: Vec<Host>,
}

/// A host in a network of its own behind a router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its address and the network's length.
    pub address: Ipv4Net,
    /// The router's address in that network, and the host's default route.
    pub gateway: Ipv4Addr,
}

impl Topology {
    /// Reads a topology from YAML.
    ///
    /// # Errors
    /// When the text is not YAML (line and column), a field is missing, unknown or of the wrong type (its path), or names and
    /// addresses do not fit together.
    pub fn parse(text: &str) -> Result<Self> {
        let documents = Yaml::load_from_str(text).map_err(|e| anyhow!("the topology is not YAML: {e}"))?;
        let [document] = documents.as_slice() else {
            bail!(
                "the topology must be one YAML document, this has {}",
                documents.len()
            );
        };
        let topology: Self = serde_path_to_error::deserialize(json(document)?)
            .map_err(|e| anyhow!("topology field {}: {}", e.path(), e.inner()))?;
        topology.checked()
    }

    /// The built-in topology of one rack.
    ///
    /// # Errors
    /// None but for a broken build: the text is part of the binary and tested.
    pub fn one_rack() -> Result<Self> {
        Self::parse(ONE_RACK)
    }

    fn checked(self) -> Result<Self> {
        let names = self.members();
        ensure!(
            names.len() <= MEMBERS_MAX,
            "a lab has at most {MEMBERS_MAX} members, this has {}",
            names.len()
        );
        let mut seen = BTreeSet::new();
        for name in &names {
            let plain = !name.is_empty()
                && name.len() <= NAME_MAX
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            ensure!(
                plain,
                "{name:?}: a name is 1 to {NAME_MAX} lower case letters and digits"
            );
            ensure!(
                !matches!(name.as_str(), "lo" | "br0" | "pod"),
                "{name:?} is taken"
            );
            ensure!(seen.insert(name), "{name:?} stands twice");
        }
        ensure!(!self.nodes.is_empty(), "nodes: at least one");
        ensure!(
            (self.pool.cidr.prefix_len()..=32).contains(&self.pool.block_size),
            "pool.blockSize {} does not fit {}",
            self.pool.block_size,
            self.pool.cidr
        );
        let links = self
            .routers
            .iter()
            .flat_map(|r| r.links.iter().map(|l| (&l.segment, l.address)));
        let nodes = self.nodes.iter().map(|n| (&n.segment, n.address));
        let mut addresses = BTreeSet::new();
        for (segment, address) in links
            .chain(nodes)
            .chain([(&self.etcd.segment, self.etcd.address)])
        {
            let subnet = self.subnet(segment)?;
            ensure!(
                subnet.contains(&address),
                "{address} is not in segment {segment} ({subnet})"
            );
            ensure!(addresses.insert(address), "{address} stands twice");
        }
        for router in &self.routers {
            ensure!(!router.links.is_empty(), "router {} has no link", router.name);
            for host in &router.hosts {
                ensure!(
                    host.address.contains(&host.gateway),
                    "host {}: gateway {} is not in {}",
                    host.name,
                    host.gateway,
                    host.address
                );
            }
        }
        Ok(self)
    }

    /// Names of all members; the namespaces are these behind the lab's name.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        let mut names = vec!["etcd".to_owned()];
        names.extend(self.segments.iter().map(|s| s.name.clone()));
        names.extend(self.nodes.iter().map(|n| n.name.clone()));
        for router in &self.routers {
            names.push(router.name.clone());
            names.extend(router.hosts.iter().map(|h| h.name.clone()));
        }
        names
    }

    /// The subnet of a segment.
    ///
    /// # Errors
    /// When there is no such segment.
    pub fn subnet(&self, segment: &str) -> Result<Ipv4Net> {
        let found = self.segments.iter().find(|s| s.name == segment);
        Ok(found
            .with_context(|| format!("there is no segment {segment:?}"))?
            .subnet)
    }

    /// A node by name.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|n| n.name == name).with_context(|| {
            let names: Vec<_> = self.nodes.iter().map(|n| n.name.as_str()).collect();
            format!("there is no node {name:?}; the nodes are {}", names.join(", "))
        })
    }

    /// The hosts behind all routers.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.routers.iter().flat_map(|r| &r.hosts)
    }

    /// Where clients find etcd.
    #[must_use]
    pub fn etcd_endpoint(&self) -> String {
        format!("http://{}:2379", self.etcd.address)
    }
}

/// YAML as JSON, so that serde can read it and name the path of what it refuses.
fn json(node: &Yaml<'_>) -> Result<Value> {
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(b)) => Value::Bool(*b),
        Yaml::Value(Scalar::Integer(i)) => Value::from(*i),
        Yaml::Value(Scalar::String(s)) => Value::String(s.to_string()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(json).collect::<Result<_>>()?),
        Yaml::Mapping(pairs) => {
            let mut map = serde_json::Map::new();
            for (key, value) in pairs {
                let key = key.as_str().context("a key of the topology is not a string")?;
                map.insert(key.to_owned(), json(value)?);
            }
            Value::Object(map)
        }
        other => {
            bail!("the topology holds something other than maps, lists, strings and integers: {other:?}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_topologies_that_come_with_the_lab_parse() {
        let one = Topology::one_rack().unwrap();
        assert_eq!(one.members(), ["etcd", "seg", "n1", "n2", "n3", "tor", "host"]);
        assert_eq!(one.etcd_endpoint(), "http://172.31.0.250:2379");
        let two = Topology::parse(TWO_RACKS).unwrap();
        assert_eq!(two.routers.len(), 2);
        assert_eq!(two.hosts().count(), 2);
    }

    #[test]
    fn a_bad_topology_is_refused_with_the_field_that_is_wrong() {
        let check = |from: &str, to: &str, says: &str| {
            assert!(ONE_RACK.contains(from), "{from}");
            let error = Topology::parse(&ONE_RACK.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error:?} should contain {says:?}");
        };
        check("asNumber: 64512", "asNumber: many", "asNumber");
        check(
            "address: 172.31.0.1}",
            "address: 172.31.0.1, colour: red}",
            "nodes[0]",
        );
        check("address: 172.31.0.2}", "address: 172.31.0.1}", "stands twice");
        check("address: 172.31.0.3}", "address: 172.32.0.3}", "not in segment");
        check("{name: n2", "{name: n1", "stands twice");
        check("{name: n2", "{name: 'n/2'", "lower case");
        check(
            "{name: n2, segment: seg",
            "{name: n2, segment: gone",
            "no segment",
        );
        check("blockSize: 26", "blockSize: 12", "blockSize");
        check("nodes:", "nodes: [", "not YAML");
    }
}

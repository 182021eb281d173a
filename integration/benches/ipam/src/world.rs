//! What a cluster holds before its first pod, and the objects that a rig needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use twill_datastore::{Compare, KeyRange, Op, Store, Txn};
use twill_ipam::{Assign, Client, Family, Observed, Release, ReleaseTarget, Riders, Want};
use twill_model::resources::ippool::AllowedUse;

/// `ClusterInformation`.
pub const CLUSTER: &str = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

/// The IP versions of a run's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stack {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
    /// An address of each.
    Dual,
}

impl Stack {
    /// The families, as many as a pod gets addresses.
    #[must_use]
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }
}

/// What a family is called in keys.
#[must_use]
pub fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// The address `ordinal` places behind the first of `cidr`.
#[must_use]
pub fn address_at(cidr: &IpNet, ordinal: u32) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + ordinal).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(ordinal)).into(),
    }
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Its addresses.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Addresses in it that must not be given.
    pub reserved: Vec<IpNet>,
}

/// Writes cluster, pools (`pool-ipv4`, `pool-ipv6`), a disabled pool beside them, reservations and nodes.
///
/// # Errors
/// If the store fails.
pub async fn lay_out(store: &impl Store, pools: &[PoolSpec], nodes: &[String]) -> Result<()> {
    store
        .put(
            CLUSTER,
            object(
                "ClusterInformation",
                "default",
                "\"clusterGUID\":\"0\",\"datastoreReady\":true",
            ),
        )
        .await?;
    let spec = |cidr: &IpNet, size: u8, more: &str| {
        format!("\"cidr\":\"{cidr}\",\"blockSize\":{size},\"nodeSelector\":\"all()\"{more}")
    };
    let mut reserved: Vec<String> = Vec::new();
    for pool in pools {
        let name = format!("pool-{}", version(Family::of(pool.cidr.addr())));
        let value = object("IPPool", &name, &spec(&pool.cidr, pool.block_size, ""));
        store.put(format!("{RESOURCES}/ippools/{name}"), value).await?;
        reserved.extend(pool.reserved.iter().map(|net| format!("\"{net}\"")));
    }
    let off: IpNet = "192.168.0.0/16".parse()?;
    let off = object("IPPool", "disabled", &spec(&off, 26, ",\"disabled\":true"));
    store.put(format!("{RESOURCES}/ippools/disabled"), off).await?;
    if !reserved.is_empty() {
        let spec = format!("\"reservedCIDRs\":[{}]", reserved.join(","));
        store
            .put(
                format!("{RESOURCES}/ipreservations/rig"),
                object("IPReservation", "rig", &spec),
            )
            .await?;
    }
    for node in nodes {
        store.put(node_key(node), object("Node", node, "")).await?;
    }
    Ok(())
}

/// The key of a node.
#[must_use]
pub fn node_key(node: &str) -> String {
    format!("{RESOURCES}/nodes/{node}")
}

/// A stored object.
#[must_use]
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{{spec}}},"status":{{}}}}"#
    )
}

/// The key of the endpoint of a handle on a node.
#[must_use]
pub fn endpoint_key(node: &str, handle: &str) -> String {
    let container = handle.split_once('.').map_or(handle, |(_, id)| id);
    format!(
        "{RESOURCES}/workloadendpoints/default/{node}-cni-{}-eth0",
        container.replace('-', "--")
    )
}

/// An endpoint, of the size that a pod's has.
#[must_use]
pub fn endpoint_json(node: &str, handle: &str, addresses: &[IpAddr]) -> String {
    let container = handle.split_once('.').map_or(handle, |(_, id)| id);
    let name = format!("{node}-cni-{}-eth0", container.replace('-', "--"));
    let nets: Vec<String> = addresses
        .iter()
        .map(|a| format!("\"{}\"", IpNet::from(*a)))
        .collect();
    format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"default","uid":"0b0e6c2a-6f4e-4a35-9d3a-2c3b8e3f0a11","creationTimestamp":"2026-08-22T13:33:20Z","labels":{{"app":"web","projectcalico.org/namespace":"default","projectcalico.org/orchestrator":"cni","projectcalico.org/serviceaccount":"default"}}}},"spec":{{"orchestrator":"cni","node":"{node}","containerID":"{container}","endpoint":"eth0","ipNetworks":[{}],"profiles":["kns.default","ksa.default.default"],"interfaceName":"cali0d7763386da","mac":"0a:58:0a:f4:00:05"}}}}"#,
        nets.join(",")
    )
}

/// The handle of a container: as long as a real one's.
#[must_use]
pub fn handle(node: &str, number: u64) -> String {
    format!("k8s-pod-network.{node}{number:0>52}")
}

/// A pod's request, with its endpoint as rider.
#[must_use]
pub fn pod(stack: Stack, node: &str, handle: &str) -> Assign {
    let key = endpoint_key(node, handle);
    let compares = vec![Compare::absent(key.clone())];
    let (of, id) = (node.to_owned(), handle.to_owned());
    Assign {
        handle: handle.to_owned(),
        attributes: BTreeMap::from([
            ("node".to_owned(), node.to_owned()),
            (
                "timestamp".to_owned(),
                "2026-08-22 13:33:21.123456789 +0000 UTC".to_owned(),
            ),
        ]),
        wants: stack.families().iter().map(|family| Want::any(*family)).collect(),
        purpose: AllowedUse::Workload,
        namespace_labels: BTreeMap::new(),
        riders: Riders::new(compares, 1, move |addresses| {
            vec![Op::put(key.clone(), endpoint_json(&of, &id, addresses))]
        }),
    }
}

/// A pod's release, with its endpoint.
#[must_use]
pub fn gone(node: &str, handle: &str) -> Release {
    Release {
        target: ReleaseTarget::Handle(handle.to_owned()),
        riders: Riders::fixed(Vec::new(), vec![Op::delete(endpoint_key(node, handle))]),
    }
}

/// The ranges that a node's allocator is shown.
#[must_use]
pub fn ranges(node: &str) -> Vec<KeyRange> {
    twill_ipam::keys::watched(node)
        .into_iter()
        .map(KeyRange::prefix)
        .collect()
}

/// Hands the changes that a syncer brings to an allocator, until the syncer is gone.
pub async fn feed(mut changes: twill_datastore::syncer::Receiver, client: Client) {
    while let Some(batch) = changes.recv().await {
        client.update(batch.changes.into_iter().map(|change| match change.value {
            Some(kv) => kv.into(),
            None => Observed::Absent {
                key: change.key,
                at: change.revision,
            },
        }));
        if batch.in_sync {
            client.in_sync();
        }
    }
}

/// Writes values as they are, in transactions of at most 100.
///
/// # Errors
/// If the store fails.
pub async fn put_all(store: &impl Store, pairs: Vec<(String, String)>) -> Result<()> {
    let mut pairs = pairs.into_iter().peekable();
    while pairs.peek().is_some() {
        let mut ops = Vec::new();
        let mut bytes = 0;
        while ops.len() < 100
            && let Some((key, value)) =
                pairs.next_if(|(k, v)| bytes + k.len() + v.len() < 1_200_000 || bytes == 0)
        {
            bytes += key.len() + value.len();
            ops.push(Op::put(key, value));
        }
        store.txn(Txn::default().then(ops)).await?;
    }
    Ok(())
}

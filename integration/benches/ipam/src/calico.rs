//! The same steps done Calico's way: what libcalico-go's allocator and CNI plugin send for one pod, call by call, with the same
//! client on the same etcd. Values are made beforehand, so that only calls are compared; processes, TLS and connections that
//! Calico makes anew for each pod are left out, which favours it.

mod churn;

use std::net::IpAddr;

use anyhow::{Result, bail};
use ipnet::IpNet;
use serde_json::{Value, json};
use twill_datastore::{Compare, Consistency, KeyRange, Op, Store, Txn};
use twill_ipam::Family;

use crate::world::{self, Stack};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";
/// Calico's bound on retries.
const RETRIES: usize = 100;
/// Blocks of a pool that are looked at: an IPv6 pool may have more than anybody can count.
const BLOCKS_MAX: usize = 1 << 16;

/// A node that assigns as Calico does. One pod at a time: Calico holds a lock of the host meanwhile.
pub struct CalicoNode<S> {
    store: S,
    node: String,
    stack: Stack,
    /// Calls made.
    pub calls: u64,
    /// Of these, transactions that write.
    pub writes: u64,
}

impl<S: Store> CalicoNode<S> {
    /// A node, whose resource exists.
    pub fn new(store: S, node: &str, stack: Stack) -> Self {
        Self {
            store,
            node: node.to_owned(),
            stack,
            calls: 0,
            writes: 0,
        }
    }

    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<(u64, Value)>> {
        self.calls += 1;
        let Some(kv) = self.store.get(key.to_owned()).await? else {
            return Ok(None);
        };
        Ok(Some((kv.mod_revision, serde_json::from_slice(&kv.value)?)))
    }

    pub(crate) async fn list(&mut self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.calls += 1;
        let range = KeyRange::prefix(prefix.to_owned());
        let found = self.store.range_all(range, Consistency::Linearised).await?;
        let pair = |kv: twill_datastore::KeyValue| {
            (String::from_utf8_lossy(&kv.key).into_owned(), kv.value.to_vec())
        };
        Ok(found.kvs.into_iter().map(pair).collect())
    }

    async fn swap(&mut self, key: &str, at: u64, value: String) -> Result<bool> {
        Ok(self.put(key, at, value).await?.is_some())
    }

    /// Writes a key that is as it was at a revision (0: absent), and says the new one; `None` if it is not.
    pub(crate) async fn put(&mut self, key: &str, at: u64, value: String) -> Result<Option<u64>> {
        self.when(key, at, Op::put(key.to_owned(), value)).await
    }

    /// Deletes a key that is as it was at a revision.
    pub(crate) async fn delete(&mut self, key: &str, at: u64) -> Result<Option<u64>> {
        self.when(key, at, Op::delete(key.to_owned())).await
    }

    async fn when(&mut self, key: &str, at: u64, op: Op) -> Result<Option<u64>> {
        self.calls += 1;
        self.writes += 1;
        let txn = Txn::when(vec![Compare::mod_revision(key.to_owned(), at)]).then(vec![op]);
        let reply = self.store.txn(txn).await?;
        Ok(reply.succeeded.then_some(reply.revision))
    }

    /// Assigns a pod's addresses and writes its endpoint: 10 calls for each address, 2 for the endpoint.
    ///
    /// # Errors
    /// If the store fails, or there is no room.
    pub async fn assign(&mut self, handle: &str) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for family in self.stack.families() {
            addresses.push(self.assign_one(handle, *family).await?);
        }
        self.list(&format!("{RESOURCES}/workloadendpoints/default/{}-", self.node))
            .await?;
        let endpoint = world::endpoint_json(&self.node, handle, &addresses);
        let key = world::endpoint_key(&self.node, handle);
        if !self.swap(&key, 0, endpoint).await? {
            bail!("the endpoint of {handle} exists");
        }
        Ok(addresses)
    }

    async fn assign_one(&mut self, handle: &str, family: Family) -> Result<IpAddr> {
        self.get("/calico/ipam/v2/config").await?;
        self.list(&format!("{RESOURCES}/ipreservations/")).await?;
        self.get(&world::node_key(&self.node.clone())).await?;
        self.list(&format!("{RESOURCES}/ippools/")).await?;
        let prefix = format!(
            "/calico/ipam/v2/host/{}/{}/block/",
            self.node,
            world::version(family)
        );
        let affinities = self.list(&prefix).await?;
        for (key, _) in &affinities {
            let name = key.strip_prefix(&prefix).unwrap_or_default();
            if let Some(address) = self.take_from(key, name, handle, family).await? {
                return Ok(address);
            }
        }
        let name = self.claim(family).await?;
        match self
            .take_from(&format!("{prefix}{name}"), &name, handle, family)
            .await?
        {
            Some(address) => Ok(address),
            None => bail!("no room in a block just claimed"),
        }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Affinity, block, handle, handle written, block written.
    pub(crate) async fn take_from(
        &mut self,
        affinity: &str,
        name: &str,
        handle: &str,
        family: Family,
    ) -> Result<Option<IpAddr>> {
        for _ in 0..RETRIES {
            if let Some((at, state)) = self.get(affinity).await?
                && state["state"] != "confirmed"
            {
                self.confirm(affinity, at, name, family).await?;
                continue;
            }
            let key = block_key(name, family);
            let Some((at, mut block)) = self.get(&key).await? else {
                return Ok(None);
            };
            let Some(ordinal) = block["unallocated"]
                .as_array()
                .and_then(|free| free.first()?.as_u64())
            else {
                return Ok(None);
            };
            let handle_key = format!("/calico/ipam/v2/handle/{handle}");
            let known = self.get(&handle_key).await?;
            let mut counts = known
                .as_ref()
                .map_or(json!({"block": {}, "deleted": false}), |(_, v)| v.clone());
            counts["block"][name.replacen('-', "/", 1)] = json!(1);
            let before = known.map_or(0, |(at, _)| at);
            self.swap(&handle_key, before, counts.to_string()).await?;
            if let Some(free) = block["unallocated"].as_array_mut() {
                free.remove(0);
            }
            if block["attributes"].is_null() {
                block["attributes"] = json!([]);
            }
            let index = block["attributes"].as_array().map_or(0, Vec::len);
            if let Some(attributes) = block["attributes"].as_array_mut() {
                attributes.push(json!({"handle_id": handle, "secondary": {
                    "namespace": "default", "node": self.node, "pod": handle,
                    "timestamp": "2026-08-22 13:33:21.123456789 +0000 UTC"}}));
            }
            block["allocations"][usize::try_from(ordinal)?] = json!(index);
            let number = block["sequenceNumber"].as_u64().unwrap_or(0);
            block["sequenceNumberForAllocation"][ordinal.to_string()] = json!(number);
            block["sequenceNumber"] = json!(number + 1);
            if self.swap(&key, at, block.to_string()).await? {
                let cidr: IpNet = name.replacen('-', "/", 1).parse()?;
                return Ok(Some(world::address_at(&cidr, u32::try_from(ordinal)?)));
            }
            // Its compensation: the handle is taken back.
            self.calls += 1;
            self.writes += 1;
            self.store
                .txn(Txn::default().then(vec![Op::delete(handle_key)]))
                .await?;
        }
        bail!("gave up after {RETRIES} attempts");
    }

    /// Lists all blocks, then pending affinity, block, confirmed affinity. Says the block's name in keys.
    ///
    /// # Errors
    /// If the store fails or every block is taken.
    pub async fn claim(&mut self, family: Family) -> Result<String> {
        let version = world::version(family);
        for _ in 0..RETRIES {
            let all = self
                .list(&format!("/calico/ipam/v2/assignment/{version}/block/"))
                .await?;
            let mut taken = std::collections::BTreeSet::new();
            for (key, value) in &all {
                // Calico decodes each of them.
                let block: Value = serde_json::from_slice(value)?;
                taken.insert(block["cidr"].as_str().unwrap_or_default().to_owned());
                let _ = key;
            }
            let pools = self.list(&format!("{RESOURCES}/ippools/pool-{version}")).await?;
            let pool: Value = match pools.first() {
                Some((_, value)) => serde_json::from_slice(value)?,
                None => bail!("no pool"),
            };
            let cidr: IpNet = pool["spec"]["cidr"].as_str().unwrap_or_default().parse()?;
            let size = u8::try_from(pool["spec"]["blockSize"].as_u64().unwrap_or(26))?;
            let mut free: Vec<IpNet> = cidr
                .subnets(size)?
                .take(BLOCKS_MAX)
                .filter(|c| !taken.contains(&c.to_string()))
                .collect();
            if free.is_empty() {
                bail!("no free block");
            }
            let start = self
                .node
                .bytes()
                .fold(7usize, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
            let block = free.swap_remove(start % free.len());
            let name = block.to_string().replacen('/', "-", 1);
            let affinity = format!("/calico/ipam/v2/host/{}/{version}/block/{name}", self.node);
            let state = |state: &str| format!("{{\"state\":\"{state}\",\"deleted\":false}}");
            self.swap(&affinity, 0, state("pending")).await?;
            let key = block_key(&name, family);
            self.get(&key).await?;
            let at = self.get(&affinity).await?.map_or(0, |(at, _)| at);
            let Some(pending) = self.put(&affinity, at, state("pending")).await? else {
                continue;
            };
            self.get("/calico/ipam/v2/config").await?;
            if !self
                .swap(&key, 0, empty_block(&block, &self.node.clone()))
                .await?
            {
                self.calls += 1;
                self.store
                    .txn(Txn::default().then(vec![Op::delete(affinity)]))
                    .await?;
                continue;
            }
            self.get(&affinity).await?;
            // Refused if somebody began to take the block away meanwhile: then the next use confirms it, or finds it gone.
            self.swap(&affinity, pending, state("confirmed")).await?;
            return Ok(name);
        }
        bail!("gave up after {RETRIES} attempts");
    }
}

/// A block's key, from its name in keys.
pub(crate) fn block_key(name: &str, family: Family) -> String {
    format!(
        "/calico/ipam/v2/assignment/{}/block/{name}",
        world::version(family)
    )
}

/// A block as a claim makes it.
#[must_use]
pub fn empty_block(cidr: &IpNet, node: &str) -> String {
    let size = 1usize << (cidr.max_prefix_len() - cidr.prefix_len());
    let nulls = vec!["null"; size].join(",");
    let free: Vec<String> = (0..size).map(|i| i.to_string()).collect();
    format!(
        r#"{{"cidr":"{cidr}","affinity":"host:{node}","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[{nulls}],"unallocated":[{}],"attributes":null,"sequenceNumber":1787405600000000000,"sequenceNumberForAllocation":{{}},"deleted":false}}"#,
        free.join(",")
    )
}

/// A full block, each address with its own handle `<network>.<node><n>`.
#[must_use]
pub fn full_block(cidr: &IpNet, node: &str, handle: impl Fn(usize) -> String) -> String {
    let size = 1usize << (cidr.max_prefix_len() - cidr.prefix_len());
    let indexes: Vec<String> = (0..size).map(|i| i.to_string()).collect();
    let attributes: Vec<String> = (0..size)
        .map(|i| {
            format!(
                r#"{{"handle_id":"{}","secondary":{{"namespace":"default","node":"{node}","pod":"pod-{i}","timestamp":"2026-08-22 13:33:21.123456789 +0000 UTC"}}}}"#,
                handle(i)
            )
        })
        .collect();
    let numbers: Vec<String> = (0..size)
        .map(|i| format!("\"{i}\":{}", 1_787_405_600_000_000_000_u64 + i as u64))
        .collect();
    format!(
        r#"{{"cidr":"{cidr}","affinity":"host:{node}","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[{}],"unallocated":[],"attributes":[{}],"sequenceNumber":1787405600000000100,"sequenceNumberForAllocation":{{{}}},"deleted":false}}"#,
        indexes.join(","),
        attributes.join(","),
        numbers.join(",")
    )
}

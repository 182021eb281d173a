//! A cluster in memory: pools, nodes and allocators that are fed by a watch, as the daemon feeds them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::mem::MemStore;
use twill_datastore::{Consistency, KeyRange, KeyValue, Store, Watch, WatchItem, WatchRequest};
use twill_ipam::{
    Allocator, Assign, Client, Family, Observed, Release, ReleaseTarget, Riders, Want, system_clock,
};
use twill_model::Key;
use twill_model::ipam::{Block, BlockAffinity, Handle};
use twill_model::resources::ippool::AllowedUse;

/// No wait in these tests may take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const CLUSTER: &str = "/calico/resources/v3/projectcalico.org/clusterinformations/default";

pub(crate) struct Cluster {
    pub(crate) store: MemStore,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) stop: CancellationToken,
}

impl Cluster {
    /// A store with one pool of /26 blocks.
    pub(crate) async fn new(pool: &str) -> Self {
        Self::with_block_size(pool, 26).await
    }

    pub(crate) async fn with_block_size(pool: &str, block_size: u8) -> Self {
        let store = MemStore::new();
        store.put(CLUSTER, cluster(true)).await.unwrap();
        put_pool(&store, "default", pool, &format!("\"blockSize\":{block_size}")).await;
        Self {
            store,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// An allocator of `node` that watches the store.
    pub(crate) async fn node(&mut self, node: &str) -> Client {
        self.node_at(node, system_clock()).await
    }

    /// As [`Cluster::node`], by another clock.
    pub(crate) async fn node_at(&mut self, node: &str, clock: twill_ipam::Clock) -> Client {
        self.store.put(node_key(node), node_json(node)).await.unwrap();
        let (allocator, client) = Allocator::new(self.store.clone(), node, clock);
        self.tasks.spawn(allocator.run(self.stop.clone()));
        self.tasks.spawn(feed(
            self.store.clone(),
            node.to_owned(),
            client.clone(),
            self.stop.clone(),
        ));
        client
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    pub(crate) async fn contents(&self) -> Contents {
        Contents::read(&self.store).await
    }
}

pub(crate) async fn put_pool(store: &MemStore, name: &str, cidr: &str, more: &str) {
    store
        .put(pool_key(name), pool_json(name, cidr, more))
        .await
        .unwrap();
}

pub(crate) fn pool_json(name: &str, cidr: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}","nodeSelector":"all()","allowedUses":["Workload","Tunnel"],{more}}}}}"#
    )
}

pub(crate) fn pool_key(name: &str) -> String {
    format!("/calico/resources/v3/projectcalico.org/ippools/{name}")
}

pub(crate) fn node_key(node: &str) -> String {
    format!("/calico/resources/v3/projectcalico.org/nodes/{node}")
}

pub(crate) fn node_json(node: &str) -> String {
    format!(
        r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{node}","labels":{{"host":"{node}"}}}},"spec":{{}},"status":{{}}}}"#
    )
}

pub(crate) fn cluster(is_ready: bool) -> String {
    format!(
        r#"{{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{{"clusterGUID":"0","datastoreReady":{is_ready}}}}}"#
    )
}

/// Lists and watches what an allocator must be shown, and lists again whenever the watch ends.
pub(crate) async fn feed(store: MemStore, node: String, client: Client, stop: CancellationToken) {
    let ranges: Vec<KeyRange> = twill_ipam::keys::watched(&node)
        .into_iter()
        .map(KeyRange::prefix)
        .collect();
    let mut known: BTreeMap<twill_datastore::Bytes, ()> = BTreeMap::new();
    'list: while !stop.is_cancelled() {
        let mut watched = Vec::new();
        let mut found = BTreeMap::new();
        let mut oldest = u64::MAX;
        for range in &ranges {
            let Ok(listing) = store.range_all(range.clone(), Consistency::Linearised).await else {
                tokio::task::yield_now().await;
                continue 'list;
            };
            oldest = oldest.min(listing.revision);
            watched.push((range.clone(), listing.revision + 1));
            found.extend(listing.kvs.iter().map(|kv| (kv.key.clone(), ())));
            client.update(listing.kvs.into_iter().map(Observed::from));
        }
        let gone = known.keys().filter(|key| !found.contains_key(*key));
        client.update(
            gone.map(|key| Observed::Absent {
                key: key.clone(),
                at: oldest,
            })
            .collect::<Vec<_>>(),
        );
        known = found;
        client.in_sync();
        let Ok(mut watch) = store.watch(WatchRequest { ranges: watched }).await else {
            continue;
        };
        loop {
            let item = tokio::select! {
                () = stop.cancelled() => return,
                item = watch.next() => item,
            };
            match item {
                WatchItem::Events(batch) => {
                    known.extend(batch.events.iter().map(|e| (e.key().clone(), ())));
                    client.update(batch.events.into_iter().map(Observed::from));
                }
                WatchItem::Progress { .. } | WatchItem::Alive => {}
                WatchItem::Compacted { .. } | WatchItem::Disconnected(_) => continue 'list,
            }
        }
    }
}

pub(crate) fn endpoint_key(handle: &str) -> String {
    format!("/calico/resources/v3/projectcalico.org/workloadendpoints/default/{handle}")
}

pub(crate) fn endpoint_json(name: &str, addresses: &[IpAddr]) -> String {
    let nets: Vec<String> = addresses
        .iter()
        .map(|a| format!("\"{}\"", IpNet::from(*a)))
        .collect();
    format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"default"}},"spec":{{"orchestrator":"cni","ipNetworks":[{}]}}}}"#,
        nets.join(",")
    )
}

/// A pod's request, with an endpoint as rider.
pub(crate) fn pod(node: &str, handle: &str) -> Assign {
    let (key, name) = (endpoint_key(handle), handle.to_owned());
    let compares = vec![twill_datastore::Compare::absent(key.clone())];
    Assign {
        handle: handle.to_owned(),
        attributes: BTreeMap::from([
            ("namespace".to_owned(), "default".to_owned()),
            ("node".to_owned(), node.to_owned()),
            ("pod".to_owned(), handle.to_owned()),
        ]),
        wants: vec![Want::any(Family::V4)],
        purpose: AllowedUse::Workload,
        namespace_labels: BTreeMap::new(),
        riders: Riders::new(compares, 1, move |addresses| {
            vec![twill_datastore::Op::put(
                key.clone(),
                endpoint_json(&name, addresses),
            )]
        }),
    }
}

pub(crate) fn bare(node: &str, handle: &str, want: Want) -> Assign {
    Assign {
        wants: vec![want],
        riders: Riders::default(),
        ..pod(node, handle)
    }
}

pub(crate) fn release(handle: &str) -> Release {
    let ops = vec![twill_datastore::Op::delete(endpoint_key(handle))];
    Release {
        target: ReleaseTarget::Handle(handle.to_owned()),
        riders: Riders::fixed(Vec::new(), ops),
    }
}

/// A release without riders.
pub(crate) fn bare_release(handle: &str) -> Release {
    Release {
        riders: Riders::default(),
        ..release(handle)
    }
}

/// Everything about addresses in a store, decoded.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) blocks: BTreeMap<IpNet, Block>,
    pub(crate) affinities: BTreeMap<(String, IpNet), BlockAffinity>,
    pub(crate) handles: BTreeMap<String, Handle>,
    pub(crate) endpoints: Vec<String>,
}

impl Contents {
    pub(crate) async fn read(store: &MemStore) -> Self {
        let listing = store
            .range_all(KeyRange::prefix("/calico/"), Consistency::Linearised)
            .await
            .unwrap();
        Self::of(&listing.kvs)
    }

    pub(crate) fn of<'a>(kvs: impl IntoIterator<Item = &'a KeyValue>) -> Self {
        let mut contents = Self::default();
        for kv in kvs {
            let path = String::from_utf8(kv.key.to_vec()).unwrap();
            match Key::parse(&path) {
                Key::Block(cidr) => {
                    contents
                        .blocks
                        .insert(cidr, Block::decode(cidr, &kv.value).unwrap());
                }
                Key::BlockAffinity(key) => {
                    let affinity = BlockAffinity::decode(&kv.value).unwrap();
                    contents
                        .affinities
                        .insert((key.owner.to_string(), key.block), affinity);
                }
                Key::Handle(id) => {
                    contents.handles.insert(id, Handle::decode(&kv.value).unwrap());
                }
                _ if path.contains("/workloadendpoints/") => contents.endpoints.push(path),
                _ => {}
            }
        }
        contents
    }

    /// Who holds each allocated address.
    pub(crate) fn holders(&self) -> BTreeMap<IpAddr, String> {
        let of = |block: &Block| {
            let held = |o: u32| Some((block.address(o)?, block.attribute(o)?.handle()?.to_owned()));
            (0..u32::try_from(block.allocations.len()).unwrap())
                .filter_map(held)
                .collect::<Vec<_>>()
        };
        self.blocks.values().flat_map(of).collect()
    }

    /// The three objects must tell the same story, and nobody holds what `live` does not name.
    #[track_caller]
    pub(crate) fn assert_consistent(&self, live: &BTreeMap<String, Vec<IpAddr>>) {
        let holders = self.holders();
        let mut expected = BTreeMap::new();
        for (handle, addresses) in live {
            for address in addresses {
                assert_eq!(
                    expected.insert(*address, handle.clone()),
                    None,
                    "{address} was given twice"
                );
            }
        }
        assert_eq!(holders, expected, "what is stored is not what was answered");
        let mut counts: BTreeMap<String, Handle> = BTreeMap::new();
        for (address, handle) in &holders {
            let block = self.blocks.values().find(|b| b.cidr.contains(address)).unwrap();
            let entry = counts.entry(handle.clone()).or_default();
            entry.set(&block.cidr, entry.count(&block.cidr) + 1);
        }
        assert_eq!(self.handles, counts, "handles do not match the blocks");
        for (cidr, block) in &self.blocks {
            assert_eq!(block.problems(), Vec::<String>::new(), "{cidr}");
            if let Some(owner) = &block.affinity {
                let affinity = self.affinities.get(&(owner.clone(), *cidr));
                assert!(
                    affinity.is_some_and(|a| a.state.is_confirmed()),
                    "{cidr} of {owner}: {affinity:?}"
                );
            }
        }
        for ((owner, cidr), affinity) in &self.affinities {
            let block = self.blocks.get(cidr);
            let matches = block.is_some_and(|b| b.affinity.as_ref() == Some(owner));
            assert!(
                matches || !affinity.state.is_confirmed(),
                "affinity of {owner} for {cidr} without block"
            );
        }
    }
}

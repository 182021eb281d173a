//! Against a store in memory and the real allocator.

use super::*;
use tokio::task::JoinSet;
use twill_datastore::mem::MemStore;
use twill_datastore::syncer::Syncer;
use twill_ipam::{Allocator, Observed, system_clock};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

struct Scene {
    store: MemStore,
    keeper: Keeper<MemStore>,
    tasks: JoinSet<()>,
}

impl Scene {
    async fn new() -> Self {
        let store = MemStore::new();
        put(
            &store,
            "clusterinformations",
            "default",
            "ClusterInformation",
            r#""datastoreReady":true"#,
        )
        .await;
        put(
            &store,
            "nodes",
            "n1",
            "Node",
            r#""bgp":{"ipv4Address":"192.0.2.11/24"}"#,
        )
        .await;
        let (allocator, ipam) = Allocator::new(store.clone(), "n1", system_clock());
        let (syncer, mut changes) = Syncer::new(store.clone(), crate::hub::ranges("n1"), 1);
        let mut tasks = JoinSet::new();
        tasks.spawn(allocator.run(tokio_util::sync::CancellationToken::new()));
        tasks.spawn(syncer.run());
        let fed = ipam.clone();
        tasks.spawn(async move {
            while let Some(batch) = changes.recv().await {
                fed.update(batch.changes.into_iter().map(|change| match change.value {
                    Some(kv) => kv.into(),
                    None => Observed::Absent {
                        key: change.key,
                        at: change.revision,
                    },
                }));
                if batch.in_sync {
                    fed.in_sync();
                }
            }
        });
        let keeper = Keeper {
            store: store.clone(),
            ipam,
            node: "n1".to_owned(),
            looked: false,
        };
        Self { store, keeper, tasks }
    }

    async fn pool(&self, name: &str, cidr: &str, more: &str) {
        put(
            &self.store,
            "ippools",
            name,
            "IPPool",
            &format!(r#""cidr":"{cidr}","nodeSelector":"all()"{more}"#),
        )
        .await;
    }

    /// Reconciles with the pools as they are stored; the Node then.
    async fn settled(&mut self) -> Node {
        let mut place = Place {
            in_sync: true,
            ..Place::default()
        };
        for name in ["ipip", "vxlan", "plain", "six"] {
            if let Some(kv) = self
                .store
                .get(format!("{RESOURCES}/ippools/{name}"))
                .await
                .unwrap()
            {
                place
                    .pools
                    .insert(name.to_owned(), Arc::new(IpPool::decode(&kv.value).unwrap()));
            }
        }
        // The allocator may hear of a changed pool later than we do.
        tokio::time::timeout(Duration::from_secs(10), async {
            while self.keeper.reconcile(&place).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        self.keeper.stored().await.unwrap().unwrap().0
    }

    /// Handles that exist.
    async fn handles(&self) -> Vec<String> {
        let range = twill_datastore::KeyRange::prefix(twill_model::key::HANDLES);
        let found = self
            .store
            .range_all(range, twill_datastore::Consistency::Linearised)
            .await
            .unwrap();
        let name = |kv: twill_datastore::KeyValue| {
            String::from_utf8_lossy(&kv.key).replace(twill_model::key::HANDLES, "")
        };
        found.kvs.into_iter().map(name).collect()
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn put(store: &MemStore, plural: &str, name: &str, kind: &str, spec: &str) {
    let value = format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{{spec}}},"status":{{}}}}"#
    );
    store
        .put(format!("{RESOURCES}/{plural}/{name}"), value)
        .await
        .unwrap();
}

fn ipip(node: &Node) -> Option<String> {
    let bgp = node.spec.bgp.as_ref()?;
    bgp.ipv4_ipip_tunnel_addr.as_ref().map(ToString::to_string)
}

#[tokio::test]
async fn an_address_comes_with_the_pools_encapsulation_and_goes_with_it() {
    let mut scene = Scene::new().await;
    scene.pool("plain", "10.1.0.0/24", "").await;
    let node = scene.settled().await;
    assert_eq!((ipip(&node), scene.handles().await), (None, vec![]));

    scene
        .pool("ipip", "10.2.0.0/24", r#","ipipMode":"CrossSubnet""#)
        .await;
    scene
        .pool("vxlan", "10.3.0.0/24", r#","vxlanMode":"Always""#)
        .await;
    scene.pool("six", "fd00::/116", r#","vxlanMode":"Always""#).await;
    let node = scene.settled().await;
    let first = ipip(&node).unwrap();
    assert!(first.starts_with("10.2.0."), "{first}");
    assert!(
        node.spec
            .ipv4_vxlan_tunnel_addr
            .as_ref()
            .unwrap()
            .to_string()
            .starts_with("10.3.0.")
    );
    assert!(
        node.spec
            .ipv6_vxlan_tunnel_addr
            .as_ref()
            .unwrap()
            .to_string()
            .starts_with("fd00::")
    );
    assert_eq!(
        scene.handles().await,
        [
            "ipip-tunnel-addr-n1",
            "vxlan-tunnel-addr-n1",
            "vxlan-v6-tunnel-addr-n1"
        ]
    );
    let holder = check::holder(&scene.store, first.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let attribute = holder.attribute.unwrap();
    assert_eq!(attribute.secondary["type"], "ipipTunnelAddress");
    assert_eq!(attribute.secondary["node"], "n1");

    // Nothing changes, nothing is written.
    let revision = scene.store.progress().await.unwrap();
    scene.settled().await;
    assert_eq!(scene.store.progress().await.unwrap(), revision);

    scene.pool("ipip", "10.2.0.0/24", r#","ipipMode":"Never""#).await;
    let node = scene.settled().await;
    assert_eq!(ipip(&node), None);
    assert!(
        node.spec.bgp.unwrap().ipv4_address.is_some(),
        "what others wrote stays"
    );
    assert_eq!(
        scene.handles().await,
        ["vxlan-tunnel-addr-n1", "vxlan-v6-tunnel-addr-n1"]
    );
    scene.end().await;
}

#[tokio::test]
async fn an_address_that_is_anothers_or_nobodys_is_replaced_and_one_that_was_forgotten_is_named_again() {
    let mut scene = Scene::new().await;
    scene.pool("ipip", "10.2.0.0/24", r#","ipipMode":"Always""#).await;
    let first = ipip(&scene.settled().await).unwrap();

    // Somebody edits it away: the allocation is still there.
    put(
        &scene.store,
        "nodes",
        "n1",
        "Node",
        r#""bgp":{"ipv4Address":"192.0.2.11/24"}"#,
    )
    .await;
    assert_eq!(ipip(&scene.settled().await), Some(first.clone()));

    // Somebody writes an address that is not this node's.
    let forged = r#""bgp":{"ipv4Address":"192.0.2.11/24","ipv4IPIPTunnelAddr":"10.2.0.200"}"#;
    put(&scene.store, "nodes", "n1", "Node", forged).await;
    assert_eq!(ipip(&scene.settled().await), Some(first));
    assert_eq!(scene.handles().await, ["ipip-tunnel-addr-n1"]);
    scene.end().await;
}

#[tokio::test]
async fn wireguard_has_an_address_while_the_node_reports_a_key() {
    let mut scene = Scene::new().await;
    scene.pool("plain", "10.1.0.0/24", "").await;
    assert_eq!(scene.settled().await.spec.wireguard, None);
    let key = format!("{RESOURCES}/nodes/n1");
    let node = scene.store.get(key.clone()).await.unwrap().unwrap();
    let text = String::from_utf8(node.value.to_vec()).unwrap();
    let on = text.replace(r#""status":{}"#, r#""status":{"wireguardPublicKey":"a2V5"}"#);
    scene.store.put(key.clone(), on).await.unwrap();
    let wireguard = scene.settled().await.spec.wireguard.unwrap();
    assert!(wireguard.interface_ipv4_address.is_some());
    scene.store.put(key, text).await.unwrap();
    // A restart finds the address that no Node names, and gives it back.
    scene.keeper.looked = false;
    assert_eq!(scene.settled().await.spec.wireguard, None);
    assert_eq!(scene.handles().await, Vec::<String>::new());
    scene.end().await;
}

#[tokio::test]
async fn nothing_is_asked_for_a_node_that_is_not_there() {
    let mut scene = Scene::new().await;
    scene.pool("ipip", "10.2.0.0/24", r#","ipipMode":"Always""#).await;
    scene
        .store
        .delete_prefix(format!("{RESOURCES}/nodes/n1"))
        .await
        .unwrap();
    let place = Place {
        in_sync: true,
        ..Place::default()
    };
    scene.keeper.reconcile(&place).await.unwrap();
    assert_eq!(scene.handles().await, Vec::<String>::new());
    scene.end().await;
}

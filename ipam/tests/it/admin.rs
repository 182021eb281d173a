//! What operators ask for by name does exactly that, and refuses what `calicoctl` refuses.

use std::sync::Arc;

use twill_datastore::Store;
use twill_datastore::mem::MemStore;
use twill_ipam::admin::{
    Change, ConfigureError, Fact, HandleState, Named, SplitError, Walk, configure, release, remove_node,
    settings, split_pool,
};
use twill_ipam::check::check;
use twill_ipam::collect::Mode;
use twill_ipam::{Clock, system_clock};
use twill_model::change::Birth;
use twill_model::ipam::IpamConfig;
use twill_model::meta::Timestamp;
use twill_model::resources::ipamconfiguration::IpamConfiguration;

use crate::support::*;

const SHOWN: &str = "/calico/resources/v3/projectcalico.org/ipamconfigurations/default";
const CONFIG: &str = "/calico/ipam/v2/config";

fn birth() -> Birth {
    Birth {
        uid: "0b0e6c2a-6f4e-4a35-9d3a-2c3b8e3f0a11".to_owned(),
        at: Timestamp::from_unix_secs(1_787_405_600).unwrap(),
    }
}

fn clock() -> Arc<Clock> {
    Arc::new(system_clock())
}

#[tokio::test]
async fn configure_writes_what_allocators_obey_and_what_people_see_in_one_transaction() {
    let store = MemStore::new();
    let change = Change {
        strict_affinity: Some(true),
        max_blocks_per_host: Some(4),
        ip_cooldown_seconds: Some(60),
        ..Change::default()
    };
    let now = configure(&store, &change, &birth()).await.unwrap();
    assert!(now.strict_affinity && now.auto_allocate_blocks);
    let (key, shown) = (
        store.get(CONFIG).await.unwrap().unwrap(),
        store.get(SHOWN).await.unwrap().unwrap(),
    );
    assert_eq!(key.mod_revision, shown.mod_revision);
    assert_eq!(IpamConfig::decode(&key.value).unwrap(), now);
    let shown = IpamConfiguration::decode(&shown.value).unwrap();
    assert!(shown.spec.strict_affinity && shown.spec.auto_allocate_blocks);
    assert_eq!(
        (shown.spec.max_blocks_per_host, shown.spec.ip_cooldown_seconds),
        (4, 60)
    );
    assert!(!shown.metadata.uid.is_empty());
}

#[tokio::test]
async fn configure_refuses_what_no_allocator_could_obey() {
    let store = MemStore::new();
    let check = async |change: Change, wanted: ConfigureError| {
        assert_eq!(configure(&store, &change, &birth()).await.unwrap_err(), wanted);
        assert_eq!(store.get(CONFIG).await.unwrap(), None);
    };
    let auto_off = Change {
        auto_allocate_blocks: Some(false),
        ..Change::default()
    };
    check(auto_off, ConfigureError::NeitherStrictNorAuto).await;
    let cap = Change {
        max_blocks_per_host: Some(3),
        ..Change::default()
    };
    check(cap, ConfigureError::CapWithoutStrict(3)).await;
    let long = Change {
        ip_cooldown_seconds: Some(1201),
        ..Change::default()
    };
    let out = ConfigureError::OutOfRange {
        field: "ipCooldownSeconds",
        value: 1201,
        max: 1200,
    };
    check(long, out).await;
}

async fn locked(store: &MemStore) {
    store.put(CLUSTER, cluster(false)).await.unwrap();
}

#[tokio::test]
async fn a_pool_is_split_at_one_revision_and_its_addresses_stay_where_they_are() {
    let mut cluster = Cluster::with_block_size("10.244.0.0/24", 28).await;
    let client = cluster.node("n1").await;
    let before = client.assign(pod("n1", "net.a")).await.unwrap();
    locked(&cluster.store).await;
    let done = split_pool(&cluster.store, "10.244.0.0/24", 4, birth)
        .await
        .unwrap();
    let names: Vec<&str> = done.parts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "split-default-0",
            "split-default-1",
            "split-default-2",
            "split-default-3"
        ]
    );
    assert_eq!(done.parts[3].1.to_string(), "10.244.0.192/26");
    assert_eq!(cluster.store.get(pool_key("default")).await.unwrap(), None);
    cluster
        .store
        .put(CLUSTER, crate::support::cluster(true))
        .await
        .unwrap();
    let report = check(&cluster.store).await.unwrap();
    assert_eq!(
        (report.problems.len(), report.usage.pools.len()),
        (0, 4),
        "{report:?}"
    );
    assert_eq!(cluster.contents().await.holders().len(), before.addresses.len());
    cluster.stop().await;
}

#[tokio::test]
async fn a_pool_is_not_split_in_an_open_datastore_nor_into_odd_parts_nor_below_a_block() {
    let cluster = Cluster::with_block_size("10.244.0.0/26", 28).await;
    let store = &cluster.store;
    let check = async |pool: &str, parts: u32, wanted: SplitError| {
        assert_eq!(split_pool(store, pool, parts, birth).await.unwrap_err(), wanted);
        assert!(store.get(pool_key("default")).await.unwrap().is_some());
    };
    check("default", 2, SplitError::NotLocked).await;
    locked(store).await;
    check("other", 2, SplitError::NoPool("other".to_owned())).await;
    check("default", 3, SplitError::Parts(3)).await;
    check("default", 1, SplitError::Parts(1)).await;
    let small = SplitError::TooSmall {
        pool: "10.244.0.0/26".parse().unwrap(),
        parts: 8,
        block_size: 28,
    };
    check("default", 8, small).await;
    cluster.stop().await;
}

/// A locked store with pods a, b and c, of which b and c have lost their endpoints, and a handle without addresses.
async fn leaky() -> MemStore {
    let mut cluster = Cluster::with_block_size("10.244.0.0/24", 28).await;
    let client = cluster.node("n1").await;
    for handle in ["net.a", "net.b", "net.c"] {
        client.assign(pod("n1", handle)).await.unwrap();
    }
    let store = cluster.store.clone();
    cluster.stop().await;
    for handle in ["net.b", "net.c"] {
        store.delete_prefix(endpoint_key(handle)).await.unwrap();
    }
    let handle = r#"{"block":{"10.244.9.0/28":1},"deleted":false}"#;
    store.put("/calico/ipam/v2/handle/gone", handle).await.unwrap();
    locked(&store).await;
    store
}

/// Everything that a check looks at.
async fn facts(store: &MemStore) -> Vec<Fact> {
    let mut walk = Walk::new(store.clone());
    let mut facts = Vec::new();
    while let Some(some) = walk.next().await.unwrap() {
        facts.extend(some);
    }
    facts
}

/// What a report says of the addresses, and of the handles that hold nothing.
async fn named(store: &MemStore) -> Named {
    let mut named = Named::default();
    for fact in facts(store).await {
        match fact {
            Fact::Block(block) => {
                let leaked = block.addresses.into_iter().filter(|a| a.owners.is_empty());
                named
                    .addresses
                    .extend(leaked.map(|a| (a.address, (Some(a.handle), Some(a.sequence)))));
            }
            Fact::Handle(handle) if handle.state == HandleState::Leaked => {
                named.handles.insert(handle.id, handle.revision);
            }
            Fact::Handle(_) | Fact::Summary(_) => {}
        }
    }
    named
}

#[tokio::test]
async fn what_is_named_is_released_and_nothing_else() {
    let store = leaky().await;
    let named = named(&store).await;
    assert_eq!((named.addresses.len(), named.handles.len()), (2, 1));
    let done = release(&store, &named, &clock()).await.unwrap();
    assert_eq!((done.freed.len(), done.handles), (2, vec!["gone".to_owned()]));
    let contents = Contents::read(&store).await;
    let handles: Vec<&str> = contents.handles.keys().map(String::as_str).collect();
    assert_eq!(handles, ["net.a"]);
    store.put(CLUSTER, cluster(true)).await.unwrap();
    assert_eq!(check(&store).await.unwrap().problems, []);
}

#[tokio::test]
async fn an_address_given_anew_since_it_was_named_stays() {
    let store = leaky().await;
    let mut old = named(&store).await;
    for (_, sequence) in old.addresses.values_mut() {
        *sequence = sequence.map(|n: u64| n - 1);
    }
    old.handles.values_mut().for_each(|at: &mut u64| *at -= 1);
    old.addresses.insert("10.9.9.9".parse().unwrap(), (None, None));
    let done = release(&store, &old, &clock()).await.unwrap();
    assert_eq!(
        (done.freed.len(), done.kept.len(), done.handles.len()),
        (0, 3, 0),
        "{done:?}"
    );
}

#[tokio::test]
async fn an_address_named_without_a_handle_goes_whoever_has_it() {
    let store = leaky().await;
    let taken = Contents::read(&store).await.holders();
    let (address, _) = taken.iter().find(|(_, handle)| *handle == "net.a").unwrap();
    let mut named = Named::default();
    named.addresses.insert(*address, (None, None));
    let done = release(&store, &named, &clock()).await.unwrap();
    assert_eq!(done.freed, [*address]);
    let again = release(&store, &named, &clock()).await.unwrap();
    assert!(again.freed.is_empty());
}

#[tokio::test]
async fn a_report_says_who_uses_what_at_one_revision() {
    let store = leaky().await;
    let facts = facts(&store).await;
    let Some(Fact::Summary(summary)) = facts.last() else {
        panic!("the summary is last: {facts:?}")
    };
    assert!(summary.is_locked && summary.revision > 0);
    assert_eq!((summary.workload_addresses, summary.addresses_in_use), (1, 1));
    assert_eq!(summary.strays, []);
    let owners: Vec<usize> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Block(block) => Some(block.addresses.iter().map(|a| a.owners.len())),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(owners.iter().filter(|n| **n == 0).count(), 2, "{facts:?}");
    let leaked =
        |fact: &&Fact| matches!(fact, Fact::Handle(h) if h.state == HandleState::Leaked && h.id == "gone");
    assert_eq!(facts.iter().filter(leaked).count(), 1);
}

#[tokio::test]
async fn a_difference_between_what_allocators_obey_and_what_people_see_is_told() {
    let store = MemStore::new();
    let change = Change {
        strict_affinity: Some(true),
        ..Change::default()
    };
    configure(&store, &change, &birth()).await.unwrap();
    assert_eq!(settings(&store).await.unwrap().warning, None);
    store
        .put(CONFIG, r#"{"strict_affinity":false,"auto_allocate_blocks":true}"#)
        .await
        .unwrap();
    let settings = settings(&store).await.unwrap();
    assert!(!settings.config.strict_affinity);
    assert!(settings.warning.unwrap().contains("allocators obey the latter"));
}

#[tokio::test]
async fn removing_a_node_frees_all_that_it_holds_and_nothing_of_others() {
    let mut cluster = Cluster::with_block_size("10.244.0.0/24", 28).await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    n1.assign(pod("n1", "net.a")).await.unwrap();
    n2.assign(pod("n2", "net.b")).await.unwrap();
    let store = cluster.store.clone();
    cluster.stop().await;
    let would = remove_node(&store, "n1", Mode::DryRun, &clock()).await.unwrap();
    assert_eq!((would.freed.len(), would.blocks.len()), (1, 1));
    assert_eq!(Contents::read(&store).await.holders().len(), 2);
    remove_node(&store, "n1", Mode::Collect, &clock()).await.unwrap();
    let contents = Contents::read(&store).await;
    assert_eq!(contents.holders().into_values().collect::<Vec<_>>(), ["net.b"]);
    assert!(contents.affinities.keys().all(|(owner, _)| owner == "host:n2"));
    assert_eq!(contents.blocks.len(), 1);
}

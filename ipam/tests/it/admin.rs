//! What operators ask for by name does exactly that, and refuses what `calicoctl` refuses.

use std::sync::Arc;

use twill_datastore::Store;
use twill_datastore::mem::MemStore;
use twill_ipam::admin::{
    Change, CheckReport, ConfigureError, ReleaseError, SplitError, Terms, configure, release_leaked,
    remove_node, report, split_pool,
};
use twill_ipam::check::check;
use twill_ipam::collect::Mode;
use twill_ipam::{Clock, Now, system_clock};
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

fn terms(force: bool) -> Terms {
    Terms {
        version: "v1".to_owned(),
        force,
    }
}

#[tokio::test]
async fn what_all_reports_call_leaked_is_released_and_nothing_else() {
    let store = leaky().await;
    let first = report(&store, "v1", Now::default()).await.unwrap();
    // Between the two, c got its endpoint back.
    let address = first
        .allocations
        .values()
        .flatten()
        .find(|a| a.handle == "net.c")
        .unwrap();
    let address = address.ip.parse().unwrap();
    store
        .put(endpoint_key("net.c"), endpoint_json("net.c", &[address]))
        .await
        .unwrap();
    let second = report(&store, "v1", Now::default()).await.unwrap();
    let done = release_leaked(&store, &[first, second], &terms(false), &clock())
        .await
        .unwrap();
    assert_eq!((done.freed.len(), done.handles), (1, vec!["gone".to_owned()]));
    let contents = Contents::read(&store).await;
    let handles: Vec<&str> = contents.handles.keys().map(String::as_str).collect();
    assert_eq!(handles, ["net.a", "net.c"]);
    assert_eq!(check(&store).await.unwrap().problems, []);
}

#[tokio::test]
async fn an_address_given_anew_since_the_report_stays() {
    let store = leaky().await;
    let mut old = report(&store, "v1", Now::default()).await.unwrap();
    for allocation in old.allocations.values_mut().flatten() {
        allocation.sequence_number = allocation.sequence_number.map(|n| n - 1);
    }
    let done = release_leaked(&store, &[old], &terms(false), &clock())
        .await
        .unwrap();
    assert_eq!((done.freed.len(), done.kept.len()), (0, 2), "{done:?}");
}

#[tokio::test]
async fn reports_that_do_not_fit_are_refused_as_calicoctl_refuses_them() {
    let store = leaky().await;
    let good = report(&store, "v1", Now::default()).await.unwrap();
    let check = async |report: CheckReport, force: bool, wanted: &str| {
        let error = release_leaked(&store, &[report], &terms(force), &clock())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    };
    let other = CheckReport {
        cluster_guid: "other".to_owned(),
        ..good.clone()
    };
    check(other, true, "of cluster other").await;
    let version = CheckReport {
        version: "v0".to_owned(),
        ..good.clone()
    };
    check(version, false, "made by version v0").await;
    let stale = CheckReport {
        cluster_information_revision: "1".to_owned(),
        ..good.clone()
    };
    check(stale, true, "stale").await;
    store.put(CLUSTER, cluster(true)).await.unwrap();
    let open = report(&store, "v1", Now::default()).await.unwrap();
    check(open.clone(), false, "not locked").await;
    assert_eq!(
        release_leaked(&store, &[], &terms(false), &clock()).await,
        Err(ReleaseError::NoReport)
    );
    let done = release_leaked(&store, &[open], &terms(true), &clock())
        .await
        .unwrap();
    assert_eq!(done.freed.len(), 2);
}

#[tokio::test]
async fn a_report_is_calicoctls_json() {
    let store = leaky().await;
    let report = report(&store, "v1", Now::default()).await.unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["datastoreLocked"], true);
    assert_eq!(json["leakedHandles"][0]["ID"], "gone");
    let leaked = json["allocations"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|a| a.as_array().unwrap());
    let in_use: Vec<bool> = leaked.map(|a| a["inUse"].as_bool().unwrap()).collect();
    assert_eq!(in_use.iter().filter(|used| !**used).count(), 2);
    let back: CheckReport = serde_json::from_value(json).unwrap();
    assert_eq!(back, report);
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

//! `ipam check` names every fault with its key, and nothing when there is none.

use std::net::IpAddr;

use twill_datastore::Store;
use twill_datastore::mem::MemStore;
use twill_ipam::Family;
use twill_ipam::check::{ProblemKind, check, holder};

use crate::support::*;

const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.244.0.0-30";
const AFFINITY: &str = "/calico/ipam/v2/host/n1/ipv4/block/10.244.0.0-30";
const HANDLE: &str = "/calico/ipam/v2/handle/h";

/// A store with one healthy pod `h`, whose block and affinity have the keys above.
async fn healthy() -> MemStore {
    let store = MemStore::new();
    put_pool(&store, "default", "10.244.0.0/16", "\"blockSize\":30").await;
    let block = r#"{"cidr":"10.244.0.0/30","affinity":"host:n1","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"h","secondary":{"node":"n1"}}],"sequenceNumber":2,"sequenceNumberForAllocation":{"0":1},"deleted":false}"#;
    store.put(BLOCK, block).await.unwrap();
    store
        .put(AFFINITY, "{\"state\":\"confirmed\",\"deleted\":false}")
        .await
        .unwrap();
    store
        .put(HANDLE, "{\"block\":{\"10.244.0.0/30\":1},\"deleted\":false}")
        .await
        .unwrap();
    let address: IpAddr = "10.244.0.0".parse().unwrap();
    store
        .put(endpoint_key("h"), endpoint_json("h", &[address]))
        .await
        .unwrap();
    store
}

/// Changes one key of a healthy store (`None` deletes it) and expects exactly these problems.
async fn faulty(key: &str, change: impl Fn(&str) -> Option<String>, want: &[(&str, ProblemKind)]) {
    let store = healthy().await;
    let before = store.get(key.to_owned()).await.unwrap();
    let before = before
        .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
        .unwrap_or_default();
    match change(&before) {
        Some(value) => drop(store.put(key.to_owned(), value).await.unwrap()),
        None => drop(store.delete_prefix(key.to_owned()).await.unwrap()),
    }
    let report = check(&store).await.unwrap();
    let found: Vec<(&str, ProblemKind)> = report.problems.iter().map(|p| (&*p.key, p.kind)).collect();
    assert_eq!(found, want, "{:#?}", report.problems);
}

#[tokio::test]
async fn a_healthy_store_has_no_problems() {
    let store = healthy().await;
    let report = check(&store).await.unwrap();
    assert_eq!(report.problems, []);
    let pool = &report.usage.pools[0];
    assert_eq!(
        (pool.total, pool.used, pool.reserved, pool.free, pool.blocks),
        (65536, 1, 0, 65535, 1)
    );
    assert_eq!(report.usage.blocks[0].free(), 3);
    let held = holder(&store, "10.244.0.0".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (held.key.as_str(), held.owner.as_deref()),
        (BLOCK, Some("host:n1"))
    );
    assert_eq!(held.attribute.unwrap().handle(), Some("h"));
    assert_eq!(
        holder(&store, "10.244.0.1".parse().unwrap())
            .await
            .unwrap()
            .unwrap()
            .attribute,
        None
    );
    assert_eq!(holder(&store, "10.250.0.1".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn what_an_allocator_leaves_behind_is_healthy() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    for i in 0..70 {
        client.assign(pod("n1", &format!("h{i}"))).await.unwrap();
    }
    for i in 0..30 {
        client.release(release(&format!("h{i}"))).await.unwrap();
    }
    let report = check(&cluster.store).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.usage.pools[0].used, 40);
    cluster.stop().await;
}

#[tokio::test]
async fn leaks_and_orphans_are_named_with_their_key() {
    use ProblemKind::*;
    faulty(&endpoint_key("h"), |_| None, &[(BLOCK, NoEndpoint)]).await;
    faulty(HANDLE, |_| None, &[(BLOCK, MissingHandle)]).await;
    faulty(AFFINITY, |_| None, &[(BLOCK, BlockWithoutAffinity)]).await;
    let endpoint = endpoint_key("h");
    let no_block = [
        (HANDLE, HandleWithoutBlock),
        (AFFINITY, AffinityWithoutBlock),
        (&*endpoint, NotAllocated),
    ];
    faulty(BLOCK, |_| None, &no_block).await;
    faulty(&pool_key("default"), |_| None, &[(BLOCK, OutsidePools)]).await;
    let stray = "/calico/ipam/v2/handle/stray";
    let names = |block: &'static str| {
        move |_: &str| Some(format!("{{\"block\":{{\"{block}\":1}},\"deleted\":false}}"))
    };
    faulty(stray, names("10.244.0.0/30"), &[(stray, HandleWithoutBlock)]).await;
    faulty(stray, names("10.244.9.0/30"), &[(stray, HandleWithoutBlock)]).await;
    faulty(
        stray,
        |_| Some("{\"block\":{}}".into()),
        &[(stray, HandleWithoutBlock)],
    )
    .await;
    let other = "/calico/ipam/v2/host/n2/ipv4/block/10.244.0.0-30";
    for state in ["confirmed", "pending"] {
        let put = |_: &str| Some(format!("{{\"state\":\"{state}\"}}"));
        faulty(other, put, &[(other, AffinityWithoutBlock)]).await;
    }
}

#[tokio::test]
async fn counts_states_and_invariants_are_checked() {
    use ProblemKind::*;
    faulty(
        HANDLE,
        |v| Some(v.replace(":1}", ":2}")),
        &[(HANDLE, HandleCount)],
    )
    .await;
    let pending = |v: &str| Some(v.replace("confirmed", "pendingDeletion"));
    faulty(AFFINITY, pending, &[(AFFINITY, AffinityUnconfirmed)]).await;
    faulty(
        BLOCK,
        |v| Some(v.replace("[1,2,3]", "[1,3]")),
        &[(BLOCK, BlockInvariant)],
    )
    .await;
    let unused = |v: &str| {
        Some(
            v.replace("\"attributes\":[", "\"attributes\":[{\"handle_id\":\"x\"},")
                .replace("[0,null", "[1,null"),
        )
    };
    faulty(BLOCK, unused, &[(BLOCK, BlockInvariant)]).await;
    // A leaked ordinal: allocated twice to one handle that counts one and has one endpoint.
    let leaked = |v: &str| Some(v.replace("[0,null,", "[0,0,").replace("[1,2,3]", "[2,3]"));
    faulty(BLOCK, leaked, &[(BLOCK, NoEndpoint), (HANDLE, HandleCount)]).await;
    let nobody = |v: &str| Some(v.replace("\"handle_id\":\"h\",", ""));
    faulty(BLOCK, nobody, &[(BLOCK, NoHandle), (HANDLE, HandleWithoutBlock)]).await;
    let tunnel = |v: &str| {
        Some(v.replace(
            "\"node\":\"n1\"",
            "\"node\":\"n1\",\"type\":\"ipipTunnelAddress\"",
        ))
    };
    faulty(BLOCK, tunnel, &[]).await;
}

#[tokio::test]
async fn unreadable_values_are_named_and_the_rest_is_checked() {
    use ProblemKind::*;
    for value in ["", "{}", "{\"cidr\":", "null"] {
        let rest = [
            (BLOCK, Unreadable),
            (HANDLE, HandleWithoutBlock),
            (AFFINITY, AffinityWithoutBlock),
        ];
        let endpoint = endpoint_key("h");
        let want = [&rest[..], &[(&*endpoint, NotAllocated)]].concat();
        faulty(BLOCK, |_| Some(value.to_owned()), &want).await;
    }
    faulty(
        HANDLE,
        |_| Some("[]".into()),
        &[(BLOCK, MissingHandle), (HANDLE, Unreadable)],
    )
    .await;
    let odd = "/calico/ipam/v2/assignment/ipv4/block/nonsense";
    faulty(odd, |_| Some("{}".into()), &[(odd, Unreadable)]).await;
}

#[tokio::test]
async fn reservations_count_once_and_are_not_given() {
    let mut cluster = Cluster::with_block_size("10.244.0.0/29", 30).await;
    let reserved = r#"{"kind":"IPReservation","apiVersion":"projectcalico.org/v3","metadata":{"name":"r"},"spec":{"reservedCIDRs":["10.244.0.0/31","10.244.0.1/32","10.244.0.4/30"]}}"#;
    let key = "/calico/resources/v3/projectcalico.org/ipreservations/r";
    cluster.store.put(key, reserved).await.unwrap();
    let client = cluster.node("n1").await;
    for (handle, want) in [("a", "10.244.0.2"), ("b", "10.244.0.3")] {
        let want: IpAddr = want.parse().unwrap();
        assert_eq!(client.assign(pod("n1", handle)).await.unwrap().addresses, [want]);
    }
    assert!(client.assign(pod("n1", "c")).await.is_err());
    assert_eq!(Family::of("10.244.0.1".parse().unwrap()), Family::V4);
    let report = check(&cluster.store).await.unwrap();
    assert_eq!(report.problems, []);
    let pool = &report.usage.pools[0];
    assert_eq!((pool.total, pool.used, pool.reserved, pool.free), (8, 2, 6, 0));
    cluster.stop().await;
}

//! The client over the store in memory.

use twill_model::initial;

use super::*;
use crate::Commit;
use crate::mem::{Fault, MemStore};

async fn cluster() -> (MemStore, Client<MemStore>) {
    let store = MemStore::new();
    let client = Client::new(store.clone());
    for object in initial::objects(1) {
        assert!(client.ensure(&object).await.unwrap());
    }
    (store, client)
}

fn parse(kind: Kind, json: &str) -> AnyResource {
    AnyResource::decode(kind, json.as_bytes()).unwrap()
}

fn pool(cidr: &str) -> AnyResource {
    let meta = r#""metadata":{"name":"p"}"#;
    let json = format!(
        r#"{{"kind":"IPPool","apiVersion":"projectcalico.org/v3",{meta},"spec":{{"cidr":"{cidr}"}}}}"#
    );
    parse(Kind::IpPool, &json)
}

fn policy(name: &str, tier: &str, selector: &str) -> AnyResource {
    let json = format!(
        r#"{{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns"}},
        "spec":{{"tier":"{tier}","selector":"{selector}","types":["Ingress"]}}}}"#
    );
    parse(Kind::NetworkPolicy, &json)
}

fn pool_key() -> ResourceKey {
    ResourceKey::cluster(Kind::IpPool, "p")
}

#[tokio::test]
async fn created_object_gets_its_identity_once_and_keeps_it() {
    let (_, client) = cluster().await;
    let created = client.create(&pool("10.0.0.0/16")).await.unwrap();
    assert_eq!(created.object.metadata().uid.len(), 36);
    assert!(created.object.metadata().creation_timestamp.is_some());
    let read = client.get(&pool_key()).await.unwrap();
    assert_eq!(read, created);
    assert_eq!(
        read.presented().metadata().resource_version,
        created.revision.to_string()
    );
    let mut changed = read.presented();
    changed.metadata_mut().labels.insert("a".into(), "b".into());
    changed.metadata_mut().uid = "another".into();
    let replaced = client
        .replace(&changed, expected_revision(&changed).unwrap())
        .await
        .unwrap();
    assert!(replaced.revision > created.revision);
    assert_eq!(replaced.object.metadata().uid, created.object.metadata().uid);
    assert_eq!(replaced.object.metadata().labels["a"], "b");
    assert_eq!(
        client.create(&pool("10.0.0.0/16")).await,
        Err(ClientError::AlreadyExists(pool_key()))
    );
    assert!(!client.ensure(&pool("10.0.0.0/16")).await.unwrap());
}

#[tokio::test]
async fn old_revision_is_a_conflict_and_no_revision_is_the_last_writer() {
    let (_, client) = cluster().await;
    let created = client.create(&pool("10.0.0.0/16")).await.unwrap();
    let replaced = client.replace(&pool("10.0.0.0/16"), None).await.unwrap();
    let conflict = ClientError::Conflict(pool_key());
    assert_eq!(
        client.replace(&pool("10.0.0.0/16"), Some(created.revision)).await,
        Err(conflict.clone())
    );
    assert_eq!(
        client.apply(&pool("10.0.0.0/16"), Some(created.revision)).await,
        Err(conflict.clone())
    );
    assert_eq!(
        client.delete(&pool_key(), Some(created.revision)).await,
        Err(conflict)
    );
    let deleted = client
        .delete(&pool_key(), Some(replaced.revision))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(deleted.object, replaced.object);
    let gone = ClientError::NotFound(pool_key());
    assert_eq!(client.delete(&pool_key(), None).await, Err(gone.clone()));
    assert_eq!(
        client.replace(&pool("10.0.0.0/16"), None).await,
        Err(gone.clone())
    );
    assert_eq!(
        client.apply(&pool("10.0.0.0/16"), Some(replaced.revision)).await,
        Err(gone.clone())
    );
    assert_eq!(client.get(&pool_key()).await, Err(gone));
    client.apply(&pool("10.0.0.0/16"), None).await.unwrap();
}

#[tokio::test]
async fn change_that_must_not_be_is_refused_and_stores_nothing() {
    let (store, client) = cluster().await;
    client.create(&pool("10.0.0.0/16")).await.unwrap();
    let before = store.progress().await.unwrap();
    assert!(matches!(
        client.replace(&pool("10.1.0.0/16"), None).await,
        Err(ClientError::Refused(_))
    ));
    assert!(matches!(
        client.apply(&pool("10.1.0.0/16"), None).await,
        Err(ClientError::Refused(_))
    ));
    let tier = || ClientError::NoTier {
        key: policy("a", "none", "").key(),
        tier: "none".into(),
    };
    assert_eq!(client.create(&policy("a", "none", "")).await, Err(tier()));
    assert_eq!(client.apply(&policy("a", "none", ""), None).await, Err(tier()));
    let mut stale = pool("10.0.0.0/16");
    stale.metadata_mut().resource_version = "soon".into();
    assert_eq!(
        expected_revision(&stale),
        Err(ClientError::ResourceVersion("soon".into()))
    );
    assert_eq!(store.progress().await.unwrap(), before);
}

#[tokio::test]
async fn lost_replies_of_every_write_are_settled() {
    let (store, client) = cluster().await;
    store.faults().next_txn(Fault::LoseReply);
    let created = client.create(&pool("10.0.0.0/16")).await.unwrap();
    assert_eq!(client.get(&pool_key()).await.unwrap(), created);

    // The read passes, the write's request is lost, then its reply.
    for fault in [
        Fault::Delay(std::time::Duration::ZERO),
        Fault::LoseRequest,
        Fault::LoseReply,
    ] {
        store.faults().next_txn(fault);
    }
    let mut labelled = pool("10.0.0.0/16");
    labelled.metadata_mut().labels.insert("a".into(), "b".into());
    let replaced = client.replace(&labelled, Some(created.revision)).await.unwrap();
    assert_eq!(client.get(&pool_key()).await.unwrap(), replaced);
    assert_eq!(replaced.revision, created.revision + 1);

    for fault in [Fault::Delay(std::time::Duration::ZERO), Fault::LoseReply] {
        store.faults().next_txn(fault);
    }
    assert!(client.delete(&pool_key(), None).await.unwrap().is_some());
    assert_eq!(store.get(pool_key().path()).await.unwrap(), None);
}

#[tokio::test]
async fn write_whose_fate_is_unknown_says_so() {
    let (store, client) = cluster().await;
    for fault in [Fault::LoseRequest, Fault::FailBefore] {
        store.faults().next_txn(fault);
    }
    let Err(ClientError::Store(error)) = client.create(&pool("10.0.0.0/16")).await else {
        panic!("it succeeded")
    };
    assert_eq!(error.commit(), Commit::Unknown);
    store.faults().next_txn(Fault::FailBefore);
    let Err(ClientError::Store(error)) = client.create(&pool("10.0.0.0/16")).await else {
        panic!("it succeeded")
    };
    assert_eq!(error.commit(), Commit::No);
}

#[tokio::test]
async fn unreadable_object_is_named_can_be_replaced_and_stops_no_listing() {
    let (store, client) = cluster().await;
    store.put(pool_key().path(), "{").await.unwrap();
    store
        .put(format!("{}q", ResourceKey::prefix(Kind::IpPool)), "[]")
        .await
        .unwrap();
    assert!(matches!(
        client.get(&pool_key()).await,
        Err(ClientError::Unreadable { .. })
    ));
    let page = client.list(Kind::IpPool, None).await.unwrap();
    assert_eq!((page.items.len(), page.unreadable.len()), (0, 2));
    assert_eq!(page.unreadable[0].0, pool_key().path());
    client.replace(&pool("10.0.0.0/16"), None).await.unwrap();
    client.get(&pool_key()).await.unwrap();
    let q = ResourceKey::cluster(Kind::IpPool, "q");
    assert_eq!(client.delete(&q, None).await, Ok(None));
    let page = client.list(Kind::IpPool, None).await.unwrap();
    assert_eq!((page.items.len(), page.unreadable.len()), (1, 0));
}

#[tokio::test]
async fn policy_of_an_old_store_is_found_by_its_shown_name_and_keeps_its_key() {
    let (store, client) = cluster().await;
    let old = ResourceKey::namespaced(Kind::NetworkPolicy, "ns", "default.web");
    let mut stored = policy("default.web", "default", "all()");
    stored.metadata_mut().uid = "u".into();
    store.put(old.path(), stored.encode()).await.unwrap();
    let key = ResourceKey {
        name: "web".into(),
        ..old.clone()
    };
    let read = client.get(&key).await.unwrap();
    assert_eq!(
        (&read.key, read.presented().metadata().name.as_str()),
        (&old, "web")
    );
    let replaced = client
        .replace(&policy("web", "default", "has(a)"), Some(read.revision))
        .await
        .unwrap();
    assert_eq!(
        (&replaced.key, replaced.presented().metadata().name.as_str()),
        (&old, "web")
    );
    assert_eq!(client.get(&key).await.unwrap(), replaced);
    let gone = client.delete(&key, None).await.unwrap().unwrap();
    assert_eq!(gone.key, old);
    assert_eq!(store.get(old.path()).await.unwrap(), None);
}

#[tokio::test]
async fn listing_is_of_one_revision_and_one_namespace() {
    let (_, client) = cluster().await;
    for at in 0..600 {
        let mut policy = policy(&format!("p{at:03}"), "default", "");
        policy.metadata_mut().namespace = ["ns", "ns2"][at % 2].into();
        client.create(&policy).await.unwrap();
    }
    let first = client.page(Kind::NetworkPolicy, None, None).await.unwrap();
    assert_eq!(first.items.len(), 500);
    let last = ResourceKey::namespaced(Kind::NetworkPolicy, "ns2", "p599");
    client.delete(&last, None).await.unwrap();
    let second = client.page(Kind::NetworkPolicy, None, first.next).await.unwrap();
    assert_eq!((second.items.len(), second.next), (100, None));
    assert_eq!(second.items.last().unwrap().key, last);
    assert_eq!(
        client
            .list(Kind::NetworkPolicy, Some("ns"))
            .await
            .unwrap()
            .items
            .len(),
        300
    );
    assert_eq!(
        client
            .list(Kind::NetworkPolicy, Some("n"))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
}

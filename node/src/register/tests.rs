use super::*;
use twill_datastore::mem::MemStore;

fn bootstrap(name: &str, ips: &[&str]) -> Bootstrap {
    Bootstrap {
        node_name: name.into(),
        node_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        etcd: "http://127.0.0.1:2379".parse().unwrap(),
        etcd_compare_every: std::time::Duration::ZERO,
        tcp_api: None,
        install: None,
        bgp_secrets_dir: "/nonexistent".into(),
        run_dir: "/run/twill".into(),
        take_over: false,
    }
}

async fn text(store: &MemStore, path: &str) -> String {
    let path = format!("/calico/resources/v3/projectcalico.org/{path}");
    String::from_utf8(store.get(path).await.unwrap().unwrap().value.to_vec()).unwrap()
}

#[tokio::test]
async fn what_must_exist_is_made_once_in_calicos_words() {
    let store = MemStore::new();
    register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
        .await
        .unwrap();
    let tier = text(&store, "tiers/kube-admin").await;
    assert!(
        tier.ends_with(r#""spec":{"order":1000,"defaultAction":"Pass"},"status":{}}"#),
        "{tier}"
    );
    let cluster = text(&store, "clusterinformations/default").await;
    assert!(
        cluster.contains(r#""datastoreReady":true"#) && !cluster.contains("calicoVersion"),
        "{cluster}"
    );
    assert!(
        text(&store, "kubecontrollersconfigurations/default")
            .await
            .ends_with(r#""status":{}}"#)
    );
    let node = text(&store, "nodes/n1").await;
    assert!(
        node.starts_with(
            r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","uid":""#
        ),
        "{node}"
    );
    assert!(
        node.contains(r#""bgp":{"ipv4Address":"192.0.2.11/24"}"#),
        "{node}"
    );
    let revision = store.progress().await.unwrap();
    register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
        .await
        .unwrap();
    assert_eq!(
        store.progress().await.unwrap(),
        revision,
        "a second start writes nothing"
    );
}

#[tokio::test]
async fn a_node_that_moves_keeps_what_others_wrote() {
    let store = MemStore::new();
    register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
        .await
        .unwrap();
    let old = text(&store, "nodes/n1").await;
    let edited = old.replace(r#""spec":{"bgp":{"#, r#""spec":{"bgp":{"asNumber":65001,"#);
    store
        .put("/calico/resources/v3/projectcalico.org/nodes/n1", edited.clone())
        .await
        .unwrap();
    register(&store, &bootstrap("n1", &["192.0.2.12/24"]))
        .await
        .unwrap();
    assert_eq!(
        text(&store, "nodes/n1").await,
        edited.replace("192.0.2.11", "192.0.2.12")
    );
    register(&store, &bootstrap("n1", &[])).await.unwrap();
}

#[tokio::test]
async fn a_node_without_address_or_with_anothers_is_refused() {
    let store = MemStore::new();
    let missing = register(&store, &bootstrap("n1", &[])).await.unwrap_err();
    assert!(format!("{missing:#}").contains("--node-ip"), "{missing:#}");
    register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
        .await
        .unwrap();
    let shared = register(&store, &bootstrap("n2", &["192.0.2.11/24"]))
        .await
        .unwrap_err();
    assert!(format!("{shared:#}").contains("belongs to node n1"), "{shared:#}");
}

#[tokio::test]
async fn a_store_that_is_away_means_later() {
    let store = MemStore::new();
    store.faults().down(true);
    let tried = register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
        .await
        .unwrap();
    assert!(matches!(tried, Registered::Later(_)), "{tried:?}");
    store.faults().down(false);
    assert_eq!(
        register(&store, &bootstrap("n1", &["192.0.2.11/24"]))
            .await
            .unwrap(),
        Registered::Done
    );
}

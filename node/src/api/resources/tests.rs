use super::*;
use tokio_stream::StreamExt;
use tonic::Code;
use twill_datastore::mem::MemStore;

fn service() -> Resources<MemStore> {
    Resources {
        client: Client::new(MemStore::new()),
    }
}

fn write(kind: &str, namespace: &str, name: &str, spec: &str) -> Request<WriteRequest> {
    let ns = if namespace.is_empty() {
        String::new()
    } else {
        format!(r#","namespace":"{namespace}""#)
    };
    let json = format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"{ns}}},"spec":{spec}}}"#
    );
    let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
    let resource = Resource {
        kind,
        namespace,
        name,
        resource_version: String::new(),
        json: json.into_bytes(),
    };
    Request::new(WriteRequest {
        resource: Some(resource),
    })
}

fn pool(name: &str, cidr: &str) -> Request<WriteRequest> {
    write("IPPool", "", name, &format!(r#"{{"cidr":"{cidr}"}}"#))
}

fn get(kind: &str, namespace: &str, name: &str) -> Request<GetRequest> {
    Request::new(GetRequest {
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
    })
}

fn delete(kind: &str, name: &str, version: &str) -> Request<DeleteRequest> {
    let (kind, name, resource_version) = (kind.into(), name.into(), version.into());
    Request::new(DeleteRequest {
        kind,
        namespace: String::new(),
        name,
        resource_version,
    })
}

async fn names(service: &Resources<MemStore>, kind: &str, namespace: &str) -> Vec<String> {
    let request = Request::new(ListRequest {
        kind: kind.into(),
        namespace: namespace.into(),
    });
    let mut stream = service.list(request).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(page) = stream.next().await {
        names.extend(page.unwrap().items.into_iter().map(|r| r.name));
    }
    names
}

#[tokio::test]
async fn verbs_do_what_calicoctls_do() {
    let service = service();
    let missing = service.replace(pool("p", "10.0.0.0/16")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    service.create(pool("p", "10.0.0.0/16")).await.unwrap();
    assert_eq!(
        service.create(pool("p", "10.0.0.0/16")).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    service.apply(pool("p", "10.0.0.0/16")).await.unwrap();
    service.apply(pool("q", "10.1.0.0/16")).await.unwrap();
    let read = service.get(get("ippool", "", "p")).await.unwrap().into_inner();
    let json: serde_json::Value = serde_json::from_slice(&read.json).unwrap();
    assert_eq!(
        (
            json["spec"]["blockSize"].as_u64(),
            json["spec"]["nodeSelector"].as_str()
        ),
        (Some(26), Some("all()"))
    );
    assert_eq!(names(&service, "IPPool", "").await, ["p", "q"]);
    assert_eq!(
        service.delete(delete("pool", "p", "1")).await.unwrap_err().code(),
        Code::Aborted
    );
    service
        .delete(delete("pool", "p", &read.resource_version))
        .await
        .unwrap();
    service.delete(delete("pool", "q", "")).await.unwrap();
    assert_eq!(
        service.get(get("ippool", "", "p")).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn what_is_malformed_or_refused_says_so() {
    let service = service();
    let check = async |request: Request<WriteRequest>, code: Code, word: &str| {
        let status = service.create(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(word), "{status}");
    };
    check(
        write("Nonsense", "", "x", "{}"),
        Code::InvalidArgument,
        "Nonsense",
    )
    .await;
    check(pool("p", "ten"), Code::InvalidArgument, "cidr").await;
    check(pool("p", "10.0.0.0/31"), Code::InvalidArgument, "spec").await;
    check(
        write("NetworkPolicy", "", "x", "{}"),
        Code::InvalidArgument,
        "namespace",
    )
    .await;
    check(
        write("IPPool", "ns", "x", r#"{"cidr":"10.0.0.0/16"}"#),
        Code::InvalidArgument,
        "not namespaced",
    )
    .await;
    check(
        write("NetworkPolicy", "ns", "knp.default.x", "{}"),
        Code::FailedPrecondition,
        "kubernetes",
    )
    .await;
    check(
        write("ClusterInformation", "", "default", "{}"),
        Code::FailedPrecondition,
        "ClusterInformation",
    )
    .await;
    check(
        write("Profile", "", DEFAULT_ALLOW, "{}"),
        Code::FailedPrecondition,
        DEFAULT_ALLOW,
    )
    .await;
    let mut misnamed = pool("p", "10.0.0.0/16");
    misnamed.get_mut().resource.as_mut().unwrap().name = "q".into();
    check(misnamed, Code::InvalidArgument, "metadata.name").await;
    assert!(names(&service, "IPPool", "").await.is_empty());
}

#[tokio::test]
async fn policies_are_stored_with_their_annotation_and_shown_without() {
    let service = service();
    let policy = || write("NetworkPolicy", "ns", "allow", r#"{"selector":"all()"}"#);
    let early = service.create(policy()).await.unwrap_err();
    assert!(early.message().contains("tier"), "{early}");
    for tier in twill_model::initial::tiers() {
        service.client.ensure(&tier).await.unwrap();
    }
    service.create(policy()).await.unwrap();
    let path = "/calico/resources/v3/projectcalico.org/networkpolicies/ns/allow";
    let stored = service.client.store().get(path).await.unwrap().unwrap();
    let text = String::from_utf8(stored.value.to_vec()).unwrap();
    assert!(
        text.contains("projectcalico.org/metadata") && text.contains(r#""types":["Ingress"]"#),
        "{text}"
    );
    let shown = service.get(get("np", "ns", "allow")).await.unwrap().into_inner();
    assert!(
        !String::from_utf8(shown.json)
            .unwrap()
            .contains("projectcalico.org/metadata")
    );
    assert_eq!(names(&service, "NetworkPolicy", "ns").await, ["allow"]);
    assert!(names(&service, "NetworkPolicy", "other").await.is_empty());
}

#[tokio::test]
async fn the_profile_that_nobody_stores_is_there() {
    let service = service();
    assert_eq!(names(&service, "Profile", "").await, [DEFAULT_ALLOW]);
    let shown = service
        .get(get("profile", "", DEFAULT_ALLOW))
        .await
        .unwrap()
        .into_inner();
    AnyResource::decode(Kind::Profile, &shown.json).unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() {
    let service = service();
    service.client.store().faults().down(true);
    assert_eq!(
        service.get(get("ippool", "", "p")).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(
        service.create(pool("p", "10.0.0.0/16")).await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_deleted_node_takes_with_it_what_concerns_it_alone() {
    let service = service();
    let endpoint = |node: &str, n: u8| {
        let spec = format!(
            r#"{{"orchestrator":"k8s","node":"{node}","pod":"p{n}","endpoint":"eth0","interfaceName":"cali{n}","ipNetworks":["10.0.0.{n}/32"],"containerID":"c{n}"}}"#
        );
        write(
            "WorkloadEndpoint",
            "default",
            &format!("{node}-k8s-p{n}-eth0"),
            &spec,
        )
    };
    let peer = |name, node| {
        let spec = format!(r#"{{"node":"{node}","peerIP":"192.0.2.1","asNumber":64999}}"#);
        write("BGPPeer", "", name, &spec)
    };
    for node in ["n1", "n2"] {
        let host = format!(r#"{{"node":"{node}","interfaceName":"eth0"}}"#);
        let config = format!("node.{node}");
        for object in [
            write("Node", "", node, "{}"),
            endpoint(node, if node == "n1" { 1 } else { 2 }),
            peer(node, node),
            write("HostEndpoint", "", node, &host),
            write("FelixConfiguration", "", &config, "{}"),
            write("BGPConfiguration", "", &config, "{}"),
        ] {
            service.create(object).await.unwrap();
        }
    }
    // A block of the node with the pod's address in it.
    let store = service.client.store();
    let block = r#"{"cidr":"10.0.0.0/30","affinity":"host:n1","allocations":[null,0,null,null],"unallocated":[0,2,3],"attributes":[{"handle_id":"net.c1","secondary":{"node":"n1","namespace":"default","pod":"p1"}}],"sequenceNumber":2,"sequenceNumberForAllocation":{"1":1},"deleted":false}"#;
    let block_key = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30";
    store.put(block_key, block).await.unwrap();
    let handle = r#"{"block":{"10.0.0.0/30":1},"deleted":false}"#;
    store.put("/calico/ipam/v2/handle/net.c1", handle).await.unwrap();

    service.delete(delete("Node", "n1", "")).await.unwrap();
    for kind in ["Node", "BGPPeer", "HostEndpoint"] {
        assert_eq!(names(&service, kind, "").await, ["n2"], "{kind}");
    }
    for kind in ["FelixConfiguration", "BGPConfiguration"] {
        assert_eq!(names(&service, kind, "").await, ["node.n2"], "{kind}");
    }
    assert_eq!(
        names(&service, "WorkloadEndpoint", "default").await,
        ["n2-k8s-p2-eth0"]
    );
    let left = store.get(block_key).await.unwrap();
    assert_eq!(left, None, "an empty block of nobody's");
    assert_eq!(store.get("/calico/ipam/v2/handle/net.c1").await.unwrap(), None);
}

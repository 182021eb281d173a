use proptest::prelude::*;

use super::*;

fn check(path: &str, key: Key) {
    assert_eq!(Key::parse(path), key, "{path}");
    assert_eq!(key.path(), path);
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn every_path_of_the_contract_is_typed() {
    check(
        "/calico/resources/v3/projectcalico.org/nodes/n1",
        Key::cluster(Kind::Node, "n1"),
    );
    check(
        "/calico/resources/v3/projectcalico.org/workloadendpoints/default/n1-k8s-web--0-eth0",
        Key::namespaced(Kind::WorkloadEndpoint, "default", "n1-k8s-web--0-eth0"),
    );
    check(
        "/calico/resources/v3/projectcalico.org/networkpolicies/default/knp.default.x",
        Key::namespaced(Kind::NetworkPolicy, "default", "knp.default.x"),
    );
    check(
        "/twill/resources/v1/twill.net/bgpsessionpolicies/racks",
        Key::cluster(Kind::BgpSessionPolicy, "racks"),
    );
    check("/calico/ipam/v2/config", Key::IpamConfig);
    check(
        "/calico/ipam/v2/host/n1/ipv4/block/10.244.0.0-30",
        Key::affinity(AffinityOwner::Host("n1".into()), net("10.244.0.0/30")),
    );
    check(
        "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00::40-122",
        Key::affinity(
            AffinityOwner::Virtual("load-balancer".into()),
            net("fd00::40/122"),
        ),
    );
    check(
        "/calico/ipam/v2/handle/k8s-pod-network.0A1b",
        Key::Handle("k8s-pod-network.0A1b".into()),
    );
    check(
        "/calico/ipam/v2/assignment/ipv4/block/10.244.0.0-30",
        Key::Block(net("10.244.0.0/30")),
    );
    check(
        "/calico/ipam/v2/assignment/ipv6/block/fd00::-122",
        Key::Block(net("fd00::/122")),
    );
}

#[test]
fn what_is_not_exactly_a_key_of_ours_is_other() {
    for path in [
        "",
        "/",
        "/calico",
        "/calico/felix/v2/no-region/host/n1/status",
        "/calico/resources/v3/projectcalico.org/bgpsessionpolicies/racks",
        "/twill/resources/v1/twill.net/nodes/n1",
        "/calico/resources/v3/projectcalico.org/nodes",
        "/calico/resources/v3/projectcalico.org/nodes/",
        "/calico/resources/v3/projectcalico.org/nodes/a/b",
        "/calico/resources/v3/projectcalico.org/BGPFilters/a",
        "/calico/resources/v3/projectcalico.org/pods/a",
        "/calico/resources/v3/projectcalico.org/networkpolicies/a",
        "/calico/resources/v3/projectcalico.org/networkpolicies//a",
        "/calico/resources/v3/projectcalico.org/networkpolicies/a/b/c",
        "/calico/ipam/v2/config/",
        "/calico/ipam/v2/handle/",
        "/calico/ipam/v2/handle/a/b",
        "/calico/ipam/v2/host//ipv4/block/10.244.0.0-30",
        "/calico/ipam/v2/host/n1/ipv6/block/10.244.0.0-30",
        "/calico/ipam/v2/host/n1/ipv4/block/10.244.0.1-30",
        "/calico/ipam/v2/assignment/ipv4/block/10.244.0.0-030",
        "/calico/ipam/v2/assignment/ipv4/block/10.244.0.0-33",
        "/calico/ipam/v2/assignment/ipv6/block/FD00::-122",
        "/calico/ipam/v2/assignment/ipv4/block/10.244.0.0",
    ] {
        check(path, Key::Other(path.into()));
    }
}

#[test]
fn owners_read_as_blocks_write_them() {
    for text in ["host:n1", "virtual:load-balancer", "host:a:b"] {
        assert_eq!(text.parse::<AffinityOwner>().unwrap().to_string(), text);
    }
    for text in ["", "host:", "n1", "guest:n1"] {
        assert!(text.parse::<AffinityOwner>().is_err());
    }
}

fn arb_name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-zA-Z0-9._:@%-]{0,20}"
}

fn arb_net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<std::net::Ipv4Addr>(), 0..=32u8).prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap());
    let v6 = (any::<std::net::Ipv6Addr>(), 0..=128u8).prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap());
    prop_oneof![v4, v6].prop_map(|net| net.trunc())
}

fn arb_key() -> impl Strategy<Value = Key> {
    let resource = (0..Kind::ALL.len(), arb_name(), arb_name()).prop_map(|(i, namespace, name)| {
        let kind = Kind::ALL[i];
        let namespace = kind.is_namespaced().then_some(namespace);
        Key::Resource(ResourceKey {
            kind,
            namespace,
            name,
        })
    });
    let owner = prop_oneof![
        arb_name().prop_map(AffinityOwner::Host),
        arb_name().prop_map(AffinityOwner::Virtual)
    ];
    prop_oneof![
        resource,
        arb_net().prop_map(Key::block),
        (owner, arb_net()).prop_map(|(owner, net)| Key::affinity(owner, net)),
        arb_name().prop_map(Key::Handle),
        Just(Key::IpamConfig),
    ]
}

proptest! {
    #[test]
    fn every_typed_key_reads_back(key in arb_key()) {
        prop_assert_eq!(Key::parse(&key.path()), key);
    }

    #[test]
    fn every_text_is_a_key_and_is_written_as_it_was(
        path in "(/calico/(resources/v3/projectcalico.org/(nodes|profiles|networkpolicies)|ipam/v2/(host|assignment|handle))/)?[ -~]{0,30}"
    ) {
        prop_assert_eq!(Key::parse(&path).path(), path);
    }
}

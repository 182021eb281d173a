use bytes::Bytes;
use proptest::prelude::*;
use twill_felix::plan::IfName;
use twill_model::Kind;

use super::*;

fn fabric() -> Fabric {
    let mut fabric = Fabric::default();
    for (kind, name, spec) in [
        (Kind::Node, "n1", r#"{"bgp":{"ipv4Address":"172.31.0.1/24"}}"#),
        (Kind::Node, "n2", r#"{"bgp":{"ipv4Address":"172.31.0.2/24"}}"#),
        (Kind::IpPool, "pool", r#"{"cidr":"10.244.0.0/16","blockSize":26}"#),
        (Kind::BgpConfiguration, "default", r#"{"asNumber":64513}"#),
        (
            Kind::BgpPeer,
            "tor",
            r#"{"peerIP":"172.31.0.254","asNumber":64999}"#,
        ),
        (Kind::BgpFilter, "none", r#"{"exportV4":[{"action":"Reject"}]}"#),
    ] {
        let json = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
        );
        let key = Key::cluster(kind, name);
        let value = Some(Value::decode(&key, &Bytes::from(json)).unwrap());
        fabric.apply(
            "n1",
            &Update {
                key,
                value,
                revision: 7,
            },
        );
    }
    fabric
}

fn text() -> String {
    String::from_utf8(Snapshot::of(&fabric()).write("n1").unwrap()).unwrap()
}

/// What the speaker would be told.
fn sessions(fabric: &Fabric) -> Option<crate::bgp::config::Derived> {
    let (ours, keys) = (BTreeSet::new(), crate::bgp::secrets::Passwords::new());
    crate::bgp::config::bgp_config("n1", fabric, &ours, &keys)
}

#[test]
fn what_was_kept_gives_the_same_sessions() {
    let read = parse("n1", &text()).unwrap();
    assert_eq!(sessions(&read), sessions(&fabric()));
    assert_eq!(sessions(&read).unwrap().config.peers.len(), 2);
    assert!(!read.in_sync);
}

#[test]
fn a_file_is_replaced_whole_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bgp-cache");
    assert!(read(&path, "n1").unwrap().is_none());
    replace(&path, b"old").unwrap();
    replace(&path, text().as_bytes()).unwrap();
    assert_eq!(
        sessions(&read(&path, "n1").unwrap().unwrap()),
        sessions(&fabric())
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn what_this_node_would_not_have_written_is_refused_with_the_reason() {
    let check = |text: &str, says: &str| {
        let error = format!("{:#}", parse("n1", text).unwrap_err());
        assert!(error.contains(says), "{error}");
    };
    let good = text();
    check("", "line 1");
    check(&good.replacen("\"version\":1", "\"version\":2", 1), "version 2");
    check(&good.replacen("\"node\":\"n1\"", "\"node\":\"n9\"", 1), "n9");
    check(
        good.trim_end().rsplit_once('\n').unwrap().0,
        "5 resources and speaks of 6",
    );
    check(&good.replacen("172.31.0.2/24", "172.31.0.2/99", 1), "line");
    check(
        &good.replacen("/calico/resources", "/elsewhere", 1),
        "not the key of a resource",
    );
    let dir = tempfile::tempdir().unwrap();
    let error = read(dir.path(), "n1").unwrap_err();
    assert!(format!("{error:#}").contains(&dir.path().display().to_string()));
}

#[test]
fn own_blocks_and_borrowed_addresses_are_found_in_the_kernel() {
    let net = |s: &str| s.parse::<IpNet>().unwrap();
    let pod = || Route::Workload {
        link: IfName::fixed("cali1"),
    };
    let learned = Route::bgp([twill_felix::plan::routes::NextHop::via(
        "172.31.0.2".parse().unwrap(),
    )]);
    let held = [
        ("10.244.1.0/26", Some(Route::Blackhole)),
        ("10.244.1.5/32", Some(pod())),
        ("10.244.9.5/32", Some(pod())),
        ("10.244.2.0/26", learned),
        ("169.254.1.1/32", Some(Route::ProxyArpGateway)),
        ("192.0.2.0/24", None),
    ]
    .map(|(dst, route)| {
        let protocol = route.as_ref().map_or(80, Route::protocol);
        (
            net(dst),
            vec![HeldRoute {
                protocol,
                metric: 1024,
                route,
            }],
        )
    });
    let expected = BTreeSet::from([net("10.244.1.0/26"), net("10.244.9.5/32")]);
    assert_eq!(announced(&BTreeMap::from(held)), expected);
}

proptest! {
    #[test]
    fn no_damage_to_the_file_brings_the_daemon_down(at in 0..2000_usize, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = text().into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(text) = String::from_utf8(bytes) && let Ok(fabric) = parse("n1", &text) {
            let _ = sessions(&fabric);
        }
    }
}

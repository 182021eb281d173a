use super::*;
use bytes::Bytes;
use twill_bgp::policy::{Candidate, SessionType};
use twill_bgp::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use twill_bgp::wire::{AttrSet, NextHopValue};
use twill_model::update::Value;
use twill_model::{Key, Kind, Update};

use crate::bgp::secrets::Passwords;
use crate::fabric::Fabric;

fn fabric(objects: &[(Kind, &str, &str)]) -> Fabric {
    let mut fabric = Fabric::default();
    let node = (Kind::Node, "n1", r#"{"bgp":{"ipv4Address":"172.31.0.10/24"}}"#);
    for (kind, name, spec) in objects.iter().chain([&node]) {
        let json = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
        );
        let key = Key::cluster(*kind, *name);
        let value = Some(Value::decode(&key, &Bytes::from(json)).unwrap());
        let revision = 1;
        fabric.apply("n1", &Update { key, value, revision });
    }
    fabric
}

/// A route and what a session with these filters does with it.
struct Route {
    from: LearnedFrom,
    session: SessionType,
    local_pref: Option<u32>,
    path: Vec<u32>,
    communities: Vec<u32>,
}

const fn route(from: LearnedFrom, session: SessionType, local_pref: Option<u32>) -> Route {
    Route {
        from,
        session,
        local_pref,
        path: Vec::new(),
        communities: Vec::new(),
    }
}

const INSIDE: Option<u32> = Some(LOCAL_PREF_BASE - 1024);
const LOCAL: Route = route(LearnedFrom::Local, SessionType::Ibgp, INSIDE);
const IBGP: Route = route(LearnedFrom::Ibgp, SessionType::Ebgp, INSIDE);
const EBGP: Route = route(LearnedFrom::Ebgp, SessionType::Ibgp, None);

/// `accept` or `reject`, and what changes.
fn judge(policy: &Policy, prefix: &str, route: &Route) -> String {
    let pref = route.local_pref.map(u32::to_be_bytes);
    let mut path = Vec::new();
    twill_bgp::wire::as_path::prepend(&[], 1, 0, &mut path);
    for asn in route.path.iter().rev() {
        let mut longer = Vec::new();
        twill_bgp::wire::as_path::prepend(&path, *asn, 1, &mut longer);
        path = longer;
    }
    let communities: Vec<u8> = route.communities.iter().flat_map(|c| c.to_be_bytes()).collect();
    let attr = |code, flags, value| Attr { code, flags, value };
    let mut attrs = vec![attr(code::AS_PATH, TRANSITIVE, &*path)];
    attrs.extend(
        pref.as_ref()
            .map(|pref| attr(code::LOCAL_PREF, TRANSITIVE, &pref[..])),
    );
    if !communities.is_empty() {
        attrs.push(attr(code::COMMUNITIES, OPTIONAL | TRANSITIVE, &*communities));
    }
    let attrs = AttrSet::new(NextHopValue::SelfAddress, &attrs);
    let candidate = Candidate {
        prefix: prefix.parse().unwrap(),
        attrs: &attrs,
        from: route.from,
        session: route.session,
    };
    let judgement = policy.judge(&candidate);
    let changed = policy.changes(&judgement, &attrs).apply(&attrs);
    let mut words = vec![match judgement.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Reject => return "reject".to_owned(),
    }];
    words.extend(
        changed
            .communities()
            .filter(|c| !route.communities.contains(c))
            .map(|c| format!("+{}:{}", c >> 16, c & 0xffff)),
    );
    words.extend(
        changed
            .large_communities()
            .map(|c| format!("+{}:{}:{}", c[0], c[1], c[2])),
    );
    if changed.rank().local_pref != route.local_pref {
        words.push(format!("pref={}", changed.rank().local_pref.unwrap()));
    }
    let text = twill_bgp::wire::as_path::text(changed.as_path());
    words.extend((changed.as_path() != attrs.as_path()).then_some(format!("path={text}")));
    words.join(" ")
}

/// The policies of a session of n1, which has these blocks, with these filters.
fn pair(objects: &[(Kind, &str, &str)], ours: &[&str], filters: &[&str]) -> Result<Pair, String> {
    made(objects, ours, filters, false)
}

/// The same, with strict import or without.
fn made(
    objects: &[(Kind, &str, &str)],
    ours: &[&str],
    filters: &[&str],
    strict: bool,
) -> Result<Pair, String> {
    let fabric = fabric(objects);
    let passwords = Passwords::new();
    let local = Local {
        name: "n1",
        node: &fabric.nodes["n1"],
        asn: 64512,
        fabric: &fabric,
        passwords: &passwords,
    };
    let ours = ours.iter().map(|n| n.parse().unwrap()).collect();
    let names: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
    Policies::new(&local, &ours).of(&names, strict)
}

const POOL: (Kind, &str, &str) = (Kind::IpPool, "pool", r#"{"cidr":"10.244.0.0/16"}"#);
const HIDDEN: (Kind, &str, &str) = (
    Kind::IpPool,
    "hidden",
    r#"{"cidr":"10.245.0.0/16","disableBGPExport":true}"#,
);

#[test]
fn every_martian_is_a_prefix() {
    assert_eq!(martians().rules.len(), MARTIANS.len());
}

#[test]
fn everything_comes_in_but_martians_and_what_a_filter_rejects() {
    let import = pair(&[POOL], &[], &[]).unwrap().import;
    let check = |prefix, expected| assert_eq!(judge(&import, prefix, &EBGP), expected, "{prefix}");
    for good in [
        "10.244.3.64/26",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "10.0.0.0/8",
        "::/0",
        "2001:db8::/32",
    ] {
        check(good, "accept");
    }
    for bad in ["127.0.0.0/8", "0.0.0.0/8", "224.1.0.0/16", "fe80::/64"] {
        check(bad, "reject");
    }
    let filter = (
        Kind::BgpFilter,
        "f",
        r#"{"importV4":[{"action":"Reject","matchOperator":"In","cidr":"10.244.0.0/16"}]}"#,
    );
    let filtered = pair(&[POOL, filter], &[], &["f"]).unwrap().import;
    assert_eq!(judge(&filtered, "10.244.3.64/26", &EBGP), "reject");
    assert_eq!(judge(&filtered, "192.0.2.0/24", &EBGP), "accept");
}

#[test]
fn under_strict_import_only_pools_and_services_come_in() {
    let services = (
        Kind::BgpConfiguration,
        "default",
        r#"{"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}]}"#,
    );
    let rack = (
        Kind::Node,
        "n2",
        r#"{"bgp":{"asNumber":65002,"ipv4Address":"172.31.1.10/24"}}"#,
    );
    let filter = (
        Kind::BgpFilter,
        "f",
        r#"{"importV4":[{"action":"Accept","matchOperator":"In","cidr":"10.244.3.0/24"}]}"#,
    );
    let import = made(&[POOL, rack, services], &[], &[], true).unwrap().import;
    let inside = |path: &[u32]| {
        let route = Route {
            path: path.to_vec(),
            ..EBGP
        };
        judge(&import, "10.244.3.64/26", &route)
    };
    assert_eq!(inside(&[64999]), "reject");
    assert_eq!(
        inside(&[64999, 65002]),
        "accept",
        "a node in an AS of its own originated it"
    );
    assert_eq!(inside(&[65002, 64999]), "reject");
    assert_eq!(
        judge(&import, "10.244.3.64/26", &IBGP),
        "accept",
        "other nodes are trusted"
    );
    let filtered = made(&[POOL, filter], &[], &["f"], true).unwrap().import;
    assert_eq!(judge(&filtered, "10.244.3.64/26", &EBGP), "accept");
    assert_eq!(judge(&filtered, "10.244.4.64/26", &EBGP), "reject");
    let check = |prefix, expected| assert_eq!(judge(&import, prefix, &EBGP), expected, "{prefix}");
    check("10.96.7.0/24", "accept");
    for bad in ["0.0.0.0/0", "192.0.2.0/24", "10.0.0.0/8", "::/0", "127.0.0.0/8"] {
        check(bad, "reject");
    }
}

#[test]
fn own_blocks_go_out_whole_and_nothing_inside_them_but_what_overrides_them() {
    let export = pair(&[POOL, HIDDEN], &["10.244.0.0/26", "10.244.9.7/32"], &[])
        .unwrap()
        .export;
    let check =
        |prefix, route: &Route, expected| assert_eq!(judge(&export, prefix, route), expected, "{prefix}");
    check("10.244.0.0/26", &LOCAL, "accept");
    check("10.244.9.7/32", &LOCAL, "accept");
    check("10.244.0.5/32", &IBGP, "reject");
    check("10.244.0.5/32", &LOCAL, "reject");
    let elevated = Route {
        local_pref: Some(LOCAL_PREF_BASE - 512),
        ..IBGP
    };
    check("10.244.0.5/32", &elevated, "accept");
    check("10.244.1.0/26", &IBGP, "accept");
    check("192.0.2.0/24", &EBGP, "reject");
    check("10.245.0.0/26", &LOCAL, "reject");
    // An address of a service, which lies in no pool.
    check("10.96.0.0/12", &LOCAL, "accept");
    check("10.96.0.0/12", &IBGP, "reject");
}

#[test]
fn a_reflector_passes_on_service_addresses() {
    let services = (
        Kind::BgpConfiguration,
        "default",
        r#"{"serviceLoadBalancerIPs":[{"cidr":"198.51.100.0/24"}]}"#,
    );
    let reflector = (
        Kind::Node,
        "n1",
        r#"{"bgp":{"ipv4Address":"172.31.0.10/24","routeReflectorClusterID":"244.0.0.1"}}"#,
    );
    let plain = pair(&[services], &[], &[]).unwrap().export;
    assert_eq!(judge(&plain, "198.51.100.7/32", &IBGP), "reject");
    let mut fabric = fabric(&[services]);
    let json = format!(
        r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"n1"}},"spec":{}}}"#,
        reflector.2
    );
    let key = Key::cluster(Kind::Node, "n1");
    let value = Some(Value::decode(&key, &Bytes::from(json)).unwrap());
    fabric.apply(
        "n1",
        &Update {
            key,
            value,
            revision: 2,
        },
    );
    let passwords = Passwords::new();
    let local = Local {
        name: "n1",
        node: &fabric.nodes["n1"],
        asn: 64512,
        fabric: &fabric,
        passwords: &passwords,
    };
    let export = Policies::new(&local, &BTreeSet::new())
        .of(&[], false)
        .unwrap()
        .export;
    assert_eq!(judge(&export, "198.51.100.7/32", &IBGP), "accept");
    assert_eq!(judge(&export, "203.0.113.7/32", &IBGP), "reject");
}

#[test]
fn communities_of_prefixes_are_the_nodes_own_or_the_clusters() {
    let default = r#"{"communities":[{"name":"big","value":"64512:1:2"}],"prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["big","64512:7"]}]}"#;
    let own = r#"{"prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["64512:8"]}]}"#;
    let cluster = (Kind::BgpConfiguration, "default", default);
    let export = pair(&[POOL, cluster], &["10.244.0.0/26"], &[]).unwrap().export;
    assert_eq!(
        judge(&export, "10.244.0.0/26", &LOCAL),
        "accept +64512:7 +64512:1:2"
    );
    assert_eq!(judge(&export, "10.96.0.0/12", &LOCAL), "accept");
    let export = pair(
        &[POOL, cluster, (Kind::BgpConfiguration, "node.n1", own)],
        &["10.244.0.0/26"],
        &[],
    )
    .unwrap()
    .export;
    assert_eq!(judge(&export, "10.244.0.0/26", &LOCAL), "accept +64512:8");
    // A filter that accepts ends the evaluation before communities are added.
    let filter = (Kind::BgpFilter, "f", r#"{"exportV4":[{"action":"Accept"}]}"#);
    let export = pair(&[POOL, cluster, filter], &["10.244.0.0/26"], &["f"])
        .unwrap()
        .export;
    assert_eq!(judge(&export, "10.244.0.0/26", &LOCAL), "accept");
}

/// What one rule alone does with routes on export; `-` if it does not match, and the rules behind it decide.
fn rule(rule: &str, prefix: &str, route: &Route) -> String {
    let spec = format!(r#"{{"exportV4":[{rule}]}}"#);
    let fabric = fabric(&[(Kind::BgpFilter, "f", &spec)]);
    let terms = filters::terms("f", &fabric.bgp_filters["f"], Direction::Export, &fabric).unwrap();
    let with = |default| Policy {
        terms: terms.clone(),
        default,
    };
    let (open, closed) = (
        judge(&with(Verdict::Accept), prefix, route),
        judge(&with(Verdict::Reject), prefix, route),
    );
    if open == closed { open } else { "-".to_owned() }
}

#[test]
fn a_rule_matches_what_its_fields_say() {
    let check = |fields: &str, prefix: &str, route: &Route, expected: &str| {
        let text = format!(
            r#"{{{fields}{}"action":"Reject"}}"#,
            if fields.is_empty() { "" } else { "," }
        );
        let found = rule(&text, prefix, route);
        assert_eq!(found, expected, "{text} {prefix}");
    };
    check("", "10.1.0.0/16", &LOCAL, "reject");
    check("", "fd00::/64", &LOCAL, "-");
    for (operator, same, inside, outside) in [
        ("Equal", "reject", "-", "-"),
        ("NotEqual", "-", "reject", "reject"),
        ("In", "reject", "reject", "-"),
        ("NotIn", "-", "-", "reject"),
    ] {
        let fields = format!(r#""cidr":"10.1.0.0/16","matchOperator":"{operator}""#);
        check(&fields, "10.1.0.0/16", &LOCAL, same);
        check(&fields, "10.1.2.0/24", &LOCAL, inside);
        check(&fields, "10.2.0.0/16", &LOCAL, outside);
        check(&fields, "fd00::/64", &LOCAL, "-");
    }
    let bounded = r#""cidr":"10.1.0.0/16","matchOperator":"In","prefixLength":{"min":24,"max":26}"#;
    check(bounded, "10.1.2.0/24", &LOCAL, "reject");
    check(bounded, "10.1.0.0/16", &LOCAL, "-");
    check(bounded, "10.1.2.3/32", &LOCAL, "-");
    check(r#""source":"RemotePeers""#, "10.1.0.0/16", &IBGP, "reject");
    check(r#""source":"RemotePeers""#, "10.1.0.0/16", &LOCAL, "-");
    check(r#""peerType":"eBGP""#, "10.1.0.0/16", &IBGP, "reject");
    check(r#""peerType":"iBGP""#, "10.1.0.0/16", &IBGP, "-");
    let marked = Route {
        communities: vec![0xfde9_0007],
        path: vec![65001, 65002],
        ..EBGP
    };
    check(
        r#""communities":{"values":["65001:7"]}"#,
        "10.1.0.0/16",
        &marked,
        "reject",
    );
    check(
        r#""communities":{"values":["65001:8"]}"#,
        "10.1.0.0/16",
        &marked,
        "-",
    );
    check(r#""asPathPrefix":[65001]"#, "10.1.0.0/16", &marked, "reject");
    check(r#""asPathPrefix":[65002]"#, "10.1.0.0/16", &marked, "-");
    check(r#""priority":1024"#, "10.1.0.0/16", &LOCAL, "reject");
    check(r#""priority":512"#, "10.1.0.0/16", &LOCAL, "-");
    // A route without LOCAL_PREF counts as 100.
    check(r#""priority":2147483547"#, "10.1.0.0/16", &marked, "reject");
    check(r#""interface":"*""#, "10.1.0.0/16", &IBGP, "reject");
    check(r#""interface":"*""#, "10.1.0.0/16", &LOCAL, "-");
    check(r#""interface":"eth0""#, "10.1.0.0/16", &IBGP, "-");
}

#[test]
fn the_first_rule_of_the_first_filter_that_matches_decides() {
    let accept = (
        Kind::BgpFilter,
        "a",
        r#"{"exportV4":[{"cidr":"192.0.2.0/24","matchOperator":"In","action":"Accept"}]}"#,
    );
    let reject = (
        Kind::BgpFilter,
        "r",
        r#"{"exportV4":[{"action":"Reject"}],"importV4":[{"action":"Reject"}]}"#,
    );
    let check = |filters: &[&str], prefix, expected| {
        let pair = pair(&[POOL, accept, reject], &["10.244.0.0/26"], filters).unwrap();
        assert_eq!(
            judge(&pair.export, prefix, &LOCAL),
            expected,
            "{filters:?} {prefix}"
        );
    };
    check(&["a", "r"], "192.0.2.0/25", "accept");
    check(&["r", "a"], "192.0.2.0/25", "reject");
    check(&["a", "r"], "10.244.0.0/26", "reject");
    check(&["a"], "10.244.0.0/26", "accept");
    let import = pair(&[reject], &[], &["r"]).unwrap().import;
    assert_eq!(judge(&import, "192.0.2.0/24", &EBGP), "reject");
    assert_eq!(judge(&import, "2001:db8::/32", &EBGP), "accept");
}

#[test]
fn operations_change_what_is_accepted() {
    let change = r#"{"action":"Accept","operations":[{"addCommunity":{"value":"65001:1"}},{"addCommunity":{"value":"1:2:3"}},{"prependASPath":{"prefix":[65003,65004]}},{"setPriority":{"value":512}}]}"#;
    assert_eq!(
        rule(
            change,
            "10.1.0.0/16",
            &Route {
                path: vec![65001],
                ..EBGP
            }
        ),
        format!(
            "accept +65001:1 +1:2:3 pref={} path=65003 65004 65001",
            LOCAL_PREF_BASE - 512
        )
    );
}

#[test]
fn a_rule_that_cannot_be_obeyed_closes_the_session() {
    for bad in [
        r#"{"cidr":"x","matchOperator":"In","action":"Reject"}"#,
        r#"{"cidr":"10.0.0.0/8","action":"Reject"}"#,
        r#"{"action":"Pass"}"#,
        r#"{"communities":{"values":["x"]},"action":"Reject"}"#,
        r#"{"action":"Accept","operations":[{}]}"#,
    ] {
        let spec = format!(r#"{{"exportV4":[{bad}]}}"#);
        let error = pair(&[(Kind::BgpFilter, "f", &spec)], &[], &["f"]).unwrap_err();
        assert!(error.starts_with("BGPFilter f exportV4[0]: "), "{error}");
    }
}

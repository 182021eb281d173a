//! The graph against the naive recomputation, and the meaning of single inputs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use twill_model::{Key, Kind, Update, Value};

use super::naive::{State, recompute};
use super::{Graph, Output};
use crate::plan::nft::{Datum, Name};
use crate::plan::{IfName, base};

const NODE: &str = "n1";

fn key(kind: Kind, namespace: Option<&str>, name: &str) -> Key {
    match namespace {
        Some(namespace) => Key::namespaced(kind, namespace, name),
        None => Key::cluster(kind, name),
    }
}

fn object(kind: Kind, namespace: Option<&str>, name: &str, labels: Json, spec: Json) -> (Key, Value) {
    let key = key(kind, namespace, name);
    let mut metadata = json!({"name": name, "labels": labels});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let body = json!({"kind": kind.to_string(), "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec});
    let value = Value::decode(&key, &body.to_string().into()).expect("the test's object is well formed");
    (key, value)
}

fn endpoint(node: &str, n: u8, app: &str, profiles: &[&str]) -> (Key, Value) {
    let spec = json!({
        "orchestrator": "k8s", "node": node, "pod": format!("p{n}"), "endpoint": "eth0",
        "ipNetworks": [format!("10.244.0.{n}/32"), format!("fd00::{n}/128")], "profiles": profiles,
        "interfaceName": format!("cali{n}"), "mac": "ee:00:00:00:00:01",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8000 + u16::from(n), "hostPort": 0, "hostIP": ""}],
    });
    object(
        Kind::WorkloadEndpoint,
        Some("ns1"),
        &format!("{node}-k8s-p{n}-eth0"),
        json!({"app": app}),
        spec,
    )
}

fn profile(name: &str, label: &str) -> (Key, Value) {
    let spec = json!({
        "ingress": [{"action": "Allow"}],
        "egress": [{"action": "Allow", "destination": {"selector": format!("pcns.team == '{label}'")}}],
        "labelsToApply": {"pcns.team": label},
    });
    object(Kind::Profile, None, name, json!({}), spec)
}

fn policy(n: u8, order: u8, selector: &str, peer: &str, tier: &str) -> (Key, Value) {
    let rule = json!({
        "action": if order.is_multiple_of(3) { "Deny" } else { "Allow" }, "protocol": "TCP",
        "source": {"selector": peer, "notNets": ["10.0.0.0/8", "fd01::/64"]},
        "destination": {"ports": [80, "8000:8010", "http"]},
    });
    let spec = json!({
        "tier": tier, "order": order, "selector": selector, "types": ["Ingress", "Egress"],
        "ingress": [rule, {"action": "Pass"}], "egress": [{"action": "Log"}, {"action": "Allow", "source": {}}],
    });
    object(
        Kind::NetworkPolicy,
        Some("ns1"),
        &format!("policy{n}"),
        json!({}),
        spec,
    )
}

fn tier(name: &str, order: u8, end: &str) -> (Key, Value) {
    object(
        Kind::Tier,
        None,
        name,
        json!({}),
        json!({"order": order, "defaultAction": end}),
    )
}

fn block(n: u8, host: &str, borrower: &str) -> (Key, Value) {
    let cidr: ipnet::IpNet = format!("10.244.{n}.0/30").parse().expect("a prefix");
    let body = json!({
        "cidr": cidr.to_string(), "affinity": format!("host:{host}"), "allocations": [0, null, null, null],
        "unallocated": [1, 2, 3], "attributes": [{"handle_id": "h", "secondary": {"node": borrower}}],
        "sequenceNumber": 2, "sequenceNumberForAllocation": {"0": 1}, "deleted": false,
    });
    let key = Key::Block(cidr);
    let value = Value::decode(&key, &body.to_string().into()).expect("the test's block is well formed");
    (key, value)
}

fn run(script: &[(Key, Option<Value>)], flush_every: usize) -> (Output, State) {
    let (mut graph, mut state, mut last) = (Graph::new(NODE), State::new(), None);
    for (n, (key, value)) in script.iter().enumerate() {
        let revision = i64::try_from(n).expect("a short script") + 1;
        graph.update(&Update {
            key: key.clone(),
            value: value.clone(),
            revision,
        });
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
        if n % flush_every == 0 {
            last = graph.flush().or(last);
        }
    }
    graph.in_sync();
    (
        graph
            .flush()
            .or(last)
            .expect("a graph that is in sync has something to say"),
        state,
    )
}

fn arb_change() -> impl Strategy<Value = (Key, Option<Value>)> {
    let word = || prop_oneof![Just("web"), Just("db"), Just("mon")];
    let selectors = || {
        prop_oneof![
            Just("app == 'web'"),
            Just("has(app)"),
            Just("pcns.team == 'web'"),
            Just("!has(pcns.team)"),
            Just("app in {'db','mon'}"),
            Just(""),
            Just("app =="),
        ]
    };
    let node = || prop_oneof![Just("n1"), Just("n2")];
    let set = prop_oneof![
        4 => (node(), 1..5u8, word(), proptest::sample::subsequence(vec!["a", "b", "c"], 0..3))
            .prop_map(|(node, n, app, profiles)| endpoint(node, n, app, &profiles)),
        2 => (prop_oneof![Just("a"), Just("b"), Just("c")], word()).prop_map(|(name, label)| profile(name, label)),
        3 => (1..5u8, 0..4u8, selectors(), selectors(), prop_oneof![Just("default"), Just("first"), Just("lost")])
            .prop_map(|(n, order, selector, peer, tier)| policy(n, order, selector, peer, tier)),
        1 => (prop_oneof![Just("default"), Just("first")], 0..4u8, prop_oneof![Just("Deny"), Just("Pass")])
            .prop_map(|(name, order, end)| tier(name, order, end)),
        1 => (0..3u8, node(), node()).prop_map(|(n, host, borrower)| block(n, host, borrower)),
    ];
    (set, any::<prop::sample::Index>()).prop_map(|((key, value), keep)| {
        let kept = keep.index(4) != 0;
        (key, kept.then_some(value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_gives_what_the_final_state_gives(
        script in prop::collection::vec(arb_change(), 1..60), flush_every in 1..8usize,
    ) {
        let (output, state) = run(&script, flush_every);
        prop_assert_eq!(&output, &recompute(NODE, &state, output.desired.revision));
        prop_assert!(output.desired.table.dangling().is_empty(), "{:?}", output.desired.table.dangling());
    }

    #[test]
    fn any_order_of_arrival_gives_the_same(script in prop::collection::vec(arb_change(), 1..30)) {
        let state: BTreeMap<_, _> = script.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
        let forth: Vec<_> = state.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
        let back: Vec<_> = forth.iter().rev().cloned().collect();
        prop_assert_eq!(run(&forth, 1).0, run(&back, 3).0);
    }
}

fn output(objects: Vec<(Key, Value)>) -> Output {
    run(
        &objects.into_iter().map(|(k, v)| (k, Some(v))).collect::<Vec<_>>(),
        1,
    )
    .0
}

/// The text of the group that an endpoint's direction leads to.
fn group(output: &Output, map: &'static str, link: &str) -> String {
    let table = &output.desired.table;
    let set = &table.sets[&Name::fixed(map)];
    let link = crate::plan::nft::Key::new(&[IfName::new(link).expect("a name").into()]);
    let Some(Datum::Verdict(crate::plan::nft::Verdict::Goto(name))) = set.elements.get(&link) else {
        return "no entry".into();
    };
    let chains = table
        .chains
        .iter()
        .filter(|(n, _)| n.as_str().starts_with(name.as_str()));
    let names: Vec<_> = chains.clone().map(|(n, _)| n.clone()).collect();
    let mut text = String::new();
    for (at, (_, chain)) in chains.enumerate() {
        for rule in &chain.rules {
            text += &format!("{at}: {}\n", rule);
        }
    }
    for (at, name) in names.iter().enumerate().rev() {
        text = text.replace(name.as_str(), &format!("#{at}"));
    }
    text
}

#[test]
fn an_endpoint_without_policy_and_profile_passes_nothing() {
    let output = output(vec![endpoint("n1", 1, "web", &[])]);
    assert_eq!(group(&output, base::FROM_WL, "cali1"), "0: drop\n");
    assert_eq!(group(&output, base::TO_WL, "cali1"), "0: drop\n");
}

#[test]
fn a_missing_profile_stays_closed_even_before_an_open_one() {
    let output = output(vec![
        profile("a", "web"),
        endpoint("n1", 1, "web", &["gone", "a"]),
    ]);
    assert_eq!(
        group(&output, base::TO_WL, "cali1"),
        "0: drop comment \"missing profile gone\"\n0: drop\n"
    );
}

#[test]
fn endpoints_of_other_nodes_are_members_but_get_no_chains() {
    let output = output(vec![
        policy(1, 1, "app == 'web'", "app == 'db'", "default"),
        endpoint("n1", 1, "web", &[]),
        endpoint("n2", 2, "db", &[]),
    ]);
    assert_eq!(group(&output, base::TO_WL, "cali2"), "no entry");
    let sets = output
        .desired
        .table
        .sets
        .iter()
        .filter(|(n, _)| n.as_str().starts_with("s4-"));
    let members: usize = sets.map(|(_, s)| s.elements.len()).sum();
    assert_eq!(
        members, 3,
        "10.244.0.2 among the sources, and the port `http` of both endpoints"
    );
}

#[test]
fn tiers_policies_and_profiles_follow_in_calicos_order() {
    let mut deny = policy(1, 3, "", "app == 'db'", "first");
    deny.0 = key(Kind::NetworkPolicy, Some("ns1"), "policy1");
    let output = output(vec![
        tier("default", 3, "Deny"),
        tier("first", 1, "Pass"),
        deny,
        policy(2, 2, "", "app == 'mon'", "default"),
        policy(3, 1, "", "app == 'web'", "default"),
        profile("a", "web"),
        endpoint("n1", 1, "web", &["a"]),
    ]);
    insta::assert_snapshot!(group(&output, base::TO_WL, "cali1"));
}

#[test]
fn own_blocks_are_blackholed_and_announced_and_borrowed_addresses_announced() {
    let output = output(vec![
        block(1, "n1", "n1"),
        block(2, "n2", "n1"),
        block(3, "n2", "n2"),
    ]);
    let announced: Vec<_> = output.announce.iter().map(ToString::to_string).collect();
    assert_eq!(announced, ["10.244.1.0/30", "10.244.2.0/32"]);
    let holes = output
        .desired
        .routes
        .iter()
        .filter(|(_, r)| **r == crate::plan::routes::Route::Blackhole);
    assert_eq!(
        holes.map(|(n, _)| n.to_string()).collect::<Vec<_>>(),
        ["10.244.1.0/30"]
    );
}

#[test]
fn what_cannot_be_used_is_named_and_opens_nothing() {
    let mut graph = Graph::new(NODE);
    let (broken_key, broken) = policy(1, 3, "", "app ==", "default");
    for (key, value) in [(broken_key.clone(), broken), endpoint("n1", 1, "web", &[])] {
        graph.update(&Update {
            key,
            value: Some(value),
            revision: 1,
        });
    }
    let problems: Vec<_> = graph
        .problems()
        .map(|(k, why)| (k.clone(), why.to_owned()))
        .collect();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].0, broken_key);
    assert!(
        problems[0].1.starts_with("spec.ingress[0].source"),
        "{}",
        problems[0].1
    );
    let output = graph.flush().expect("something changed");
    let group = group(&output, base::TO_WL, "cali1");
    let tier = group.lines().find(|line| line.starts_with("1: "));
    assert!(
        tier.is_some_and(|first| first.starts_with("1: drop")),
        "a Deny that cannot be read denies all: {group}"
    );
}

use std::collections::BTreeMap;

use proptest::prelude::*;
use twill_datastore::{COMPARES_MAX, OPS_MAX, Op};
use twill_model::ipam::Block;
use twill_model::kind::Kind;
use twill_model::resources::ippool::AllowedUse;
use twill_model::{Key, ResourceKey};

use super::*;
use crate::pool::Family;
use crate::request::{Assign, Chore, Riders, Want};
use crate::state::{Observed, UNFINISHED_GRACE_MS};

const NOW: Now = Now {
    unix_nanos: 1_787_405_600_000_000_000,
    mono_ms: 0,
};

fn put(state: &mut State, key: &str, value: &str, revision: u64) {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    state.observe(
        &Observed::Put {
            key,
            value,
            revision,
            created: revision,
        },
        NOW,
    );
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{{spec}}},"status":{{}}}}"#
    )
}

fn path(kind: Kind, name: &str) -> String {
    ResourceKey::cluster(kind, name).path()
}

/// Node `n1` with one pool of /26 blocks.
fn state(config: &str) -> State {
    let mut state = State::new("n1");
    let cluster = object("ClusterInformation", "default", "\"datastoreReady\":true");
    put(
        &mut state,
        &path(Kind::ClusterInformation, "default"),
        &cluster,
        1,
    );
    put(&mut state, &path(Kind::Node, "n1"), &object("Node", "n1", ""), 2);
    let pool = object("IPPool", "p", "\"cidr\":\"10.244.0.0/16\",\"blockSize\":26");
    put(
        &mut state,
        &path(Kind::IpPool, "p"),
        &pool.replace(",\"status\":{}", ""),
        3,
    );
    if !config.is_empty() {
        put(&mut state, twill_model::key::IPAM_CONFIG, config, 4);
    }
    state
}

fn pod(id: u64, riders: usize) -> Request {
    let ops: Vec<Op> = (0..riders)
        .map(|r| Op::put(format!("/rider/{id}/{r}"), "x"))
        .collect();
    let compares = ops.iter().filter_map(|op| match op {
        Op::Put { key, .. } => Some(twill_datastore::Compare::absent(key.clone())),
        _ => None,
    });
    let riders = Riders::fixed(compares.collect(), ops.clone());
    Request::new(
        id,
        Work::Assign(Assign {
            handle: format!("h{id}"),
            attributes: BTreeMap::from([("node".to_owned(), "n1".to_owned())]),
            wants: vec![Want::any(Family::V4)],
            purpose: AllowedUse::Workload,
            namespace_labels: BTreeMap::new(),
            riders,
        }),
    )
}

/// Commits whatever is planned until nothing is left, and says how many transactions that took.
fn drain(state: &mut State, requests: &mut Vec<Request>) -> (usize, BTreeMap<u64, Result<Reply, Error>>) {
    let (mut txns, mut answers) = (0, BTreeMap::new());
    while !requests.is_empty() {
        let next = plan(state, &*requests, NOW);
        assert!(next.reads.is_empty());
        answers.extend(next.answers);
        if let Some(commit) = next.commit {
            txns += 1;
            commit.txn().check().unwrap();
            let revision = state.revision() + 1;
            let told = commit.committed(state, revision, NOW);
            answers.extend(told.into_iter().map(|(id, reply)| (id, Ok(reply))));
        }
        requests.retain(|r| !answers.contains_key(&r.id));
    }
    (txns, answers)
}

#[test]
fn sixty_pods_fit_into_one_transaction_and_the_claim_with_them() {
    let mut state = state("");
    let mut requests: Vec<Request> = (0..60).map(|id| pod(id, 1)).collect();
    let (txns, answers) = drain(&mut state, &mut requests);
    assert_eq!((txns, answers.len()), (1, 60));
    let mut requests: Vec<Request> = (100..210).map(|id| pod(id, 1)).collect();
    let (txns, _) = drain(&mut state, &mut requests);
    assert_eq!(txns, 2, "110 pods in two commits, one of which claims");
}

#[test]
fn the_cap_auto_allocate_and_the_lock_are_obeyed() {
    let error = |config: &str, pods: u64| {
        let (_, answers) = drain(&mut state(config), &mut (0..pods).map(|id| pod(id, 0)).collect());
        answers.into_values().find_map(Result::err)
    };
    let capped = "{\"auto_allocate_blocks\":true,\"maxBlocksPerHost\":1}";
    assert_eq!(error(capped, 64), None);
    assert_eq!(error(capped, 65), Some(Error::BlockLimit { limit: 1 }));
    assert_eq!(error("", 20 * 64 + 1), Some(Error::BlockLimit { limit: 20 }));
    assert_eq!(
        error("{\"kubeVirtVMAddressPersistence\":\"Enabled\"}", 1),
        Some(Error::AutoAllocateOff)
    );
    let mut locked = state("");
    let cluster = object("ClusterInformation", "default", "\"datastoreReady\":false");
    put(
        &mut locked,
        &path(Kind::ClusterInformation, "default"),
        &cluster,
        9,
    );
    let (_, answers) = drain(&mut locked, &mut vec![pod(1, 0)]);
    assert_eq!(answers[&1], Err(Error::Locked));
    let (_, answers) = drain(&mut State::new("n1"), &mut vec![pod(1, 0)]);
    assert_eq!(answers[&1], Err(Error::NoCluster));
}

#[test]
fn riders_must_be_as_announced() {
    let mut request = pod(1, 2);
    if let Work::Assign(assign) = &mut request.work {
        assign.riders.ops = 3;
    }
    let (_, answers) = drain(&mut state(""), &mut vec![request, pod(2, RIDERS_MAX + 1)]);
    assert!(
        answers
            .values()
            .all(|a| matches!(a, Err(Error::BadRiders { .. }))),
        "{answers:?}"
    );
}

/// A block of `owner` with one address in use.
fn block(owner: &str, cidr: &str) -> (String, String) {
    let cidr: ipnet::IpNet = cidr.parse().unwrap();
    let mut block = crate::block::new(cidr, owner, NOW).unwrap();
    let attribute = twill_model::ipam::Attribute {
        handle_id: Some("old".into()),
        ..Default::default()
    };
    crate::block::assign(&mut block, 0, &attribute);
    (
        Key::block(cidr).path(),
        twill_model::gojson::to_string(&block).unwrap(),
    )
}

#[test]
fn an_own_block_in_use_whose_affinity_is_not_confirmed_is_repaired_at_once() {
    let affinity = "/calico/ipam/v2/host/n1/ipv4/block/10.244.0.0-26";
    for found in [None, Some("pending"), Some("pendingDeletion"), Some("confirmed")] {
        let mut state = state("");
        let (key, value) = block("host:n1", "10.244.0.0/26");
        put(&mut state, &key, &value, 10);
        if let Some(found) = found {
            put(&mut state, affinity, &format!("{{\"state\":\"{found}\"}}"), 11);
        }
        let chores = state.chores(NOW);
        if found == Some("confirmed") {
            assert_eq!(chores, []);
            continue;
        }
        assert_eq!(
            chores,
            [Chore::Confirm("10.244.0.0/26".parse().unwrap())],
            "{found:?}"
        );
        drain(&mut state, &mut vec![Request::new(1, Work::Chore(chores[0]))]);
        assert_eq!(state.chores(NOW), []);
        let own: Vec<&Block> = state.own_blocks().collect();
        assert_eq!(
            own[0].sequence_number,
            NOW.unix_nanos + 1,
            "the block is rewritten"
        );
    }
}

#[test]
fn an_affinity_without_our_block_goes_after_a_grace_period() {
    let affinity = "/calico/ipam/v2/host/n1/ipv4/block/10.244.0.0-26";
    let late = Now {
        mono_ms: UNFINISHED_GRACE_MS,
        ..NOW
    };
    for owner in [None, Some("host:n2")] {
        let mut state = state("");
        put(&mut state, affinity, "{\"state\":\"pending\"}", 10);
        if let Some(owner) = owner {
            let (key, value) = block(owner, "10.244.0.0/26");
            put(&mut state, &key, &value, 11);
        }
        assert_eq!(state.chores(NOW), []);
        let chores = state.chores(late);
        assert_eq!(chores, [Chore::DropAffinity("10.244.0.0/26".parse().unwrap())]);
        drain(&mut state, &mut vec![Request::new(1, Work::Chore(chores[0]))]);
        assert_eq!(state.chores(late), []);
    }
}

#[test]
fn a_begun_claim_is_finished_before_another_is_begun() {
    let mut state = state("");
    put(
        &mut state,
        "/calico/ipam/v2/host/n1/ipv4/block/10.244.9.0-26",
        "{\"state\":\"pending\"}",
        10,
    );
    drain(&mut state, &mut vec![pod(1, 0)]);
    let own: Vec<String> = state.own_blocks().map(|b| b.cidr.to_string()).collect();
    assert_eq!(own, ["10.244.9.0/26"]);
}

#[test]
fn an_empty_block_whose_pool_selects_other_nodes_is_given_up() {
    let mut state = state("");
    drain(&mut state, &mut vec![pod(1, 0)]);
    let pool = object(
        "IPPool",
        "p",
        "\"cidr\":\"10.244.0.0/16\",\"nodeSelector\":\"rack == 'b'\"",
    );
    put(
        &mut state,
        &path(Kind::IpPool, "p"),
        &pool.replace(",\"status\":{}", ""),
        100,
    );
    assert_eq!(state.chores(NOW), [], "it is in use");
    let release = crate::request::Release {
        target: crate::request::ReleaseTarget::Handle("h1".into()),
        riders: Riders::default(),
    };
    drain(&mut state, &mut vec![Request::new(2, Work::Release(release))]);
    let chores = state.chores(NOW);
    assert!(matches!(chores[..], [Chore::GiveUp(_)]), "{chores:?}");
    drain(&mut state, &mut vec![Request::new(3, Work::Chore(chores[0]))]);
    assert_eq!((state.own_blocks().count(), state.chores(NOW)), (0, Vec::new()));
}

#[test]
fn strict_affinity_forbids_borrowing_and_an_unreadable_block_is_left_alone() {
    // A pool of one block, owned by someone else.
    let strict = "{\"strict_affinity\":true,\"auto_allocate_blocks\":true}";
    let pool = object("IPPool", "p", "\"cidr\":\"10.244.0.0/26\"").replace(",\"status\":{}", "");
    let exhausted = |config: &str, value: &str| {
        let mut state = state(config);
        put(&mut state, &path(Kind::IpPool, "p"), &pool, 5);
        put(&mut state, &block("host:n2", "10.244.0.0/26").0, value, 6);
        let next = plan(&state, &[pod(1, 0)], NOW);
        (next.answers.first().map(|(_, a)| a.clone()), next.reads.len())
    };
    let value = block("host:n2", "10.244.0.0/26").1;
    assert!(matches!(
        exhausted(strict, &value),
        (Some(Err(Error::Exhausted { strict: true, .. })), 0)
    ));
    assert!(
        matches!(exhausted("", &value), (None, 1)),
        "it looks whether it can borrow"
    );
    assert!(matches!(
        exhausted("", "{}"),
        (Some(Err(Error::Exhausted { .. })), 0)
    ));
}

proptest! {
    // Each case plans up to three transactions of sixty.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_group_stays_within_etcds_limits_and_serves_everyone(
        sizes in prop::collection::vec(0usize..=RIDERS_MAX, 1..150)
    ) {
        let mut state = state("");
        let mut requests: Vec<Request> = (0u64..).zip(&sizes).map(|(id, riders)| pod(id, *riders)).collect();
        // The naive model: everyone gets one address, no two the same.
        let first = plan(&state, &requests, NOW).commit.unwrap();
        prop_assert!(first.members().count() <= GROUP_MAX);
        prop_assert!(first.txn().compares.len() <= COMPARES_MAX && first.txn().then.len() <= OPS_MAX);
        let (_, answers) = drain(&mut state, &mut requests);
        let mut given = std::collections::BTreeSet::new();
        for answer in answers.values() {
            let Ok(Reply::Assigned(assigned)) = answer else { panic!("{answer:?}") };
            prop_assert!(given.insert(assigned.addresses[0]));
        }
        prop_assert_eq!(given.len(), sizes.len());
        let held: usize = state.own_blocks().map(|b| b.allocations.iter().flatten().count()).sum();
        prop_assert_eq!(held, sizes.len());
    }
}

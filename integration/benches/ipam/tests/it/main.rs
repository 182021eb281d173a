//! The small soak, and the checker's negative twins: histories with one wrong thing in them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use twill_ipam_rig::check::{Rule, Verdict, check};
use twill_ipam_rig::history::Change;
use twill_ipam_rig::journal::Line;
use twill_ipam_rig::mixed::{self, MixedArgs};
use twill_ipam_rig::soak::{self, Outcome, SoakArgs};
use twill_ipam_rig::world::Stack;

const BLOCKS: &str = "/calico/ipam/v2/assignment/";

fn judge(outcome: &Outcome, history: &[Change], journals: &BTreeMap<String, Vec<Line>>) -> Verdict {
    check(history, journals, &outcome.pools, &outcome.dead)
}

/// Changes a copy of the history and expects the checker to see it.
#[track_caller]
fn caught(outcome: &Outcome, rule: Rule, change: impl FnOnce(&mut Vec<Change>)) {
    let mut history = outcome.history.clone();
    change(&mut history);
    let verdict = judge(outcome, &history, &outcome.journals);
    assert!(
        verdict.violations.iter().any(|v| v.rule == rule),
        "{rule:?} is not among {:?}",
        verdict.violations
    );
}

/// A block as it is in the end, in which two handles hold addresses.
fn shared_block(history: &[Change]) -> (String, Value) {
    let mut blocks: BTreeMap<&str, &Change> = BTreeMap::new();
    for change in history.iter().filter(|c| c.key.starts_with(BLOCKS)) {
        blocks.insert(&change.key, change);
    }
    let found = blocks.values().find_map(|change| {
        let value: Value = serde_json::from_slice(change.value.as_deref()?).ok()?;
        let holders = value["attributes"].as_array()?.len();
        (holders >= 2).then_some((change.key.clone(), value))
    });
    found.unwrap()
}

/// One more change, after all others.
fn then(history: &mut Vec<Change>, key: &str, value: Option<&Value>) {
    let revision = history.last().unwrap().revision + 1;
    let value = value.map(|value| serde_json::to_vec(value).unwrap());
    let key = key.to_owned();
    history.push(Change { revision, key, value });
}

#[tokio::test]
async fn five_thousand_assignments_under_fifty_faults_break_no_rule_and_forged_histories_do() {
    let args = SoakArgs {
        assignments: 5000,
        faults: 50,
        nodes: 8,
        members: 3,
        seed: 1,
        stack: Stack::Dual,
    };
    let outcome = soak::run(args, Path::new(env!("CARGO_BIN_EXE_ipam-rig")))
        .await
        .unwrap();
    let verdict = &outcome.verdict;
    println!("{:?}, {:?}, {:?}", outcome.took, outcome.faults, verdict.failures);
    assert_eq!(verdict.violations, []);
    assert!(verdict.assignments >= 5000, "{}", verdict.assignments);
    assert!(outcome.faults.values().sum::<u64>() >= 40, "{:?}", outcome.faults);
    // The dead node's block and the strewn handles were found, beside the load or after it.
    let is_handle = |c: &&Change| c.key.contains("/handle/k8s-pod-network.leaked") && c.value.is_none();
    assert_eq!(outcome.history.iter().filter(is_handle).count(), 20);

    caught(&outcome, Rule::I1, |history| {
        // An address goes from one handle to another in one write, and the attribute that nobody uses any more with it.
        let (key, mut value) = shared_block(history);
        value["attributes"].as_array_mut().unwrap().remove(0);
        for index in value["allocations"].as_array_mut().unwrap() {
            if let Some(n) = index.as_u64() {
                *index = json!(n.saturating_sub(1));
            }
        }
        then(history, &key, Some(&value));
    });
    caught(&outcome, Rule::I3, |history| {
        // A block vanishes with all that is in it.
        let (key, _) = shared_block(history);
        then(history, &key, None);
    });
    caught(&outcome, Rule::I4, |history| {
        // A handle appears that holds nothing.
        let handle = json!({"block": {"10.200.0.0/28": 1}, "deleted": false});
        then(history, "/calico/ipam/v2/handle/forged", Some(&handle));
    });
    caught(&outcome, Rule::I5, |history| {
        // A second node confirms a block that is another's.
        let (key, _) = shared_block(history);
        let key = key.replace("/assignment/", "/host/n99/");
        then(
            history,
            &key,
            Some(&json!({"state": "confirmed", "deleted": false})),
        );
    });
    let mut lies = outcome.journals.clone();
    let told = lies
        .get_mut("n1")
        .unwrap()
        .iter_mut()
        .find_map(|line| match line {
            Line::Added { addresses, .. } => Some(addresses),
            _ => None,
        });
    *told.unwrap() = vec!["10.200.9.9".parse().unwrap()];
    let verdict = judge(&outcome, &outcome.history, &lies);
    assert!(
        verdict.violations.iter().any(|v| v.rule == Rule::I2),
        "{:?}",
        verdict.violations
    );
}

#[tokio::test]
async fn beside_calicos_allocator_on_a_pool_nearly_full_nothing_is_given_twice_or_lost() {
    let args = MixedArgs {
        operations: 120,
        seed: 1,
        reference: None,
    };
    let outcome = mixed::run(args).await.unwrap();
    println!("{outcome}");
    assert_eq!(outcome.verdict.violations, []);
    assert_eq!(outcome.ownerless, Vec::<String>::new());
    assert!(
        outcome.fullest >= 960,
        "at most {} of 1024 in use",
        outcome.fullest
    );
    // Calico's nodes took empty blocks away from ours.
    assert!(outcome.handed_over[1] > 0, "{:?}", outcome.handed_over);
}

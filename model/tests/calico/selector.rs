//! The selector language against the answers of Calico's own parser.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use twill_model::selector::scope::{self, Entity};
use twill_model::selector::{Restriction, Selector};

#[derive(Deserialize)]
struct Recorded {
    labels: Vec<BTreeMap<String, String>>,
    selectors: Vec<Answer>,
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    input: String,
    #[serde(default)]
    canonical: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    restrictions: BTreeMap<String, Demand>,
    #[serde(default)]
    matches: Vec<usize>,
    error: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Demand {
    present: bool,
    absent: bool,
    one_of: Option<BTreeSet<String>>,
}

impl From<Restriction<'_>> for Demand {
    fn from(restriction: Restriction<'_>) -> Self {
        Self {
            present: restriction.present,
            absent: restriction.absent,
            one_of: restriction
                .one_of
                .map(|values| values.into_iter().map(str::to_owned).collect()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Scope {
    what: String,
    namespace: String,
    selector: String,
    not_selector: String,
    namespace_selector: String,
    service_accounts: Vec<String>,
    service_account_selector: String,
    text: String,
    canonical: String,
    uid: String,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("v3.32.1/selectors.json")).expect("the recording is JSON of this shape")
}

#[test]
fn it_accepts_and_refuses_what_calico_does() {
    let recorded = recorded();
    for answer in &recorded.selectors {
        match (Selector::parse(&answer.input), &answer.error) {
            (Ok(_), None) | (Err(_), Some(_)) => {}
            (Ok(ours), Some(error)) => panic!("{:?} parses to {ours}, Calico: {error}", answer.input),
            (Err(ours), None) => panic!("{:?}: {ours}, Calico: {}", answer.input, answer.canonical),
        }
    }
    let refused = recorded
        .selectors
        .iter()
        .filter(|answer| answer.error.is_some())
        .count();
    assert!(
        refused > 100 && recorded.selectors.len() - refused > 300,
        "the recording holds both"
    );
}

#[test]
fn it_prints_and_hashes_as_calico_does() {
    for answer in recorded()
        .selectors
        .iter()
        .filter(|answer| answer.error.is_none())
    {
        let ours = Selector::parse(&answer.input).unwrap();
        assert_eq!(ours.canonical(), answer.canonical, "{:?}", answer.input);
        assert_eq!(ours.unique_id(), answer.uid, "{:?}", answer.input);
    }
}

#[test]
fn it_matches_the_labels_that_calico_matches() {
    let recorded = recorded();
    for answer in recorded.selectors.iter().filter(|answer| answer.error.is_none()) {
        let ours = Selector::parse(&answer.input).unwrap();
        let matches: Vec<usize> = (0..recorded.labels.len())
            .filter(|&i| ours.matches(&recorded.labels[i]))
            .collect();
        assert_eq!(matches, answer.matches, "{:?}", answer.input);
    }
}

/// But for an empty set, of which Calico forgets that nothing is in it: it demands no value there, we demand one of
/// none.
#[test]
fn it_demands_of_labels_what_calico_demands() {
    let plain = |answer: &Answer| answer.error.is_none() && !answer.canonical.contains(" in {}");
    for answer in recorded().selectors.into_iter().filter(plain) {
        let selector = Selector::parse(&answer.input).unwrap();
        let ours: BTreeMap<String, Demand> = selector
            .restrictions()
            .into_iter()
            .map(|(label, demand)| (label.to_owned(), demand.into()))
            .collect();
        assert_eq!(ours, answer.restrictions, "{:?}", answer.input);
    }
}

#[test]
fn it_joins_the_selectors_of_policies_and_rules_as_calico_does() {
    for it in recorded().scopes {
        let ours = match it.what.as_str() {
            "NetworkPolicy" => Some(
                scope::network_policy(&it.namespace, &it.selector, &it.service_account_selector).unwrap(),
            ),
            "GlobalNetworkPolicy" => Some(
                scope::global_network_policy(
                    &it.selector,
                    &it.namespace_selector,
                    &it.service_account_selector,
                )
                .unwrap(),
            ),
            "rule" => scope::rule_entity(Entity {
                policy_namespace: &it.namespace,
                selector: &it.selector,
                not_selector: &it.not_selector,
                namespace_selector: &it.namespace_selector,
                service_accounts: &it.service_accounts,
                service_account_selector: &it.service_account_selector,
            })
            .unwrap(),
            other => panic!("{other} is no kind of scope"),
        };
        match ours {
            Some(ours) => {
                assert_eq!(ours.canonical(), it.canonical, "{it:?}");
                assert_eq!(ours.unique_id(), it.uid, "{it:?}");
            }
            None => assert_eq!(it.text, "", "{it:?}"),
        }
    }
}

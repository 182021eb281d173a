//! The delta as a pure function: applied to a model of the kernel it gives the desired state.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Mode, Operation, State, delta};
use crate::kernel::nft::{ChainState, SetState, rule_hash};
use crate::plan::nft::*;

/// A table over a few names, so that two of them share much: chains `c0..c3`, sets `s0..s2`.
fn arb_table() -> impl Strategy<Value = Table> {
    let verdict = prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        (0..4_u8).prop_map(|i| Verdict::Jump(Name::new(&format!("c{i}")).unwrap()))
    ];
    let elements = proptest::collection::btree_map(0..6_u8, verdict, 0..5);
    let sets = proptest::collection::btree_map(0..3_u8, (any::<bool>(), elements), 0..4);
    let stmt = prop_oneof![
        Just(Stmt::Counter),
        Just(Stmt::drop()),
        (0..3_u8).prop_map(|i| Stmt::Vmap(vec![Field::L4Proto], Name::new(&format!("s{i}")).unwrap())),
    ];
    let rule = proptest::collection::vec(stmt, 1..3).prop_map(Rule::new);
    let chains = proptest::collection::btree_map(0..4_u8, proptest::collection::vec(rule, 0..4), 0..5);
    (sets, chains).prop_map(|(sets, chains)| {
        let mut table = Table::default();
        for (i, (interval, elements)) in sets {
            let mut set = Set::vmap(&[Kind::Proto]);
            set.interval = interval;
            for (key, verdict) in elements {
                set.insert_verdict(&[Value::Proto(key).into()], verdict);
            }
            table
                .sets
                .insert(Name::new(&format!("s{i}")).unwrap(), Arc::new(set));
        }
        for (i, rules) in chains {
            table.chains.insert(
                Name::new(&format!("c{i}")).unwrap(),
                Arc::new(Chain { base: None, rules }),
            );
        }
        table
    })
}

/// A kernel that checks what the real one does: names exist, nothing is made twice, what is removed is unused.
fn run(held: Option<State>, ops: &[Operation]) -> Option<State> {
    let mut state = held;
    for op in ops {
        if *op == Operation::NewTable {
            assert!(state.is_none());
            state = Some(State::default());
            continue;
        }
        let State { chains, sets } = state.as_mut().unwrap();
        match op {
            Operation::Flush(name) => chains.get_mut(name).unwrap().rules.clear(),
            Operation::DelChain(name) => {
                assert!(
                    chains.remove(name).unwrap().rules.is_empty(),
                    "chain {name} still has rules"
                );
            }
            Operation::NewChain(name, chain) => {
                let held = chains.entry(name.to_string());
                held.or_insert(ChainState {
                    base: chain.base,
                    rules: Vec::new(),
                    applied: None,
                })
                .base = chain.base;
            }
            Operation::NewRule(name, index, chain) => {
                chains
                    .get_mut(name.as_str())
                    .unwrap()
                    .rules
                    .push(Some(rule_hash(&chain.rules[*index])));
            }
            Operation::DelSet(name) => drop(sets.remove(name).unwrap()),
            Operation::NewSet(name, set) => {
                let empty = SetState {
                    elements: Arc::default(),
                    ..SetState::of(set)
                };
                assert!(
                    sets.insert(name.to_string(), empty).is_none(),
                    "set {name} made twice"
                );
            }
            Operation::AddElements(name, shape, all) => {
                let held = sets.get_mut(name.as_str()).unwrap();
                assert_eq!(held.shape, *shape);
                for (key, datum) in all {
                    assert!(
                        Arc::make_mut(&mut held.elements)
                            .insert(key.clone(), datum.clone())
                            .is_none()
                    );
                }
            }
            Operation::DelElements(name, _, all) => {
                let held: &mut BTreeMap<_, _> = Arc::make_mut(&mut sets.get_mut(name).unwrap().elements);
                assert!(all.iter().all(|(key, _)| held.remove(key).is_some()));
            }
            Operation::NewTable | Operation::DelTable => unreachable!(),
        }
    }
    state
}

proptest! {
    #[test]
    fn delta_makes_the_held_state_the_desired_one(old in arb_table(), new in arb_table()) {
        let held = run(None, &delta(&old, None, Mode::Exact));
        prop_assert_eq!(&held, &Some(State::of(&old)));
        let ops = delta(&new, held.as_ref(), Mode::Exact);
        let now = run(held, &ops);
        prop_assert_eq!(&now, &Some(State::of(&new)));
        prop_assert_eq!(delta(&new, now.as_ref(), Mode::Exact), vec![]);
    }

    #[test]
    fn additive_delta_takes_nothing_away(old in arb_table(), new in arb_table()) {
        let held = State::of(&old);
        let now = run(Some(held.clone()), &delta(&new, Some(&held), Mode::Additive)).unwrap();
        for (name, chain) in &held.chains {
            prop_assert_eq!(chain, &now.chains[name]);
        }
        for (name, set) in &held.sets {
            let kept = set.elements.iter().all(|(k, d)| now.sets[name].elements.get(k) == Some(d));
            prop_assert!(kept);
        }
    }

    #[test]
    fn a_change_of_elements_is_elements_only(table in arb_table(), key in 0..6_u8) {
        let held = State::of(&table);
        let mut next = table;
        for set in next.sets.values_mut() {
            Arc::make_mut(set).insert_verdict(&[Value::Proto(key).into()], Verdict::Return);
        }
        prop_assert!(delta(&next, Some(&held), Mode::Exact).iter().all(Operation::elements_only));
    }
}

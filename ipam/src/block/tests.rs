use std::collections::BTreeSet;

use proptest::prelude::*;
use twill_model::gojson;

use super::*;

const NOW: Now = Now {
    unix_nanos: 1_787_405_600_000_000_000,
    mono_ms: 0,
};

fn empty() -> Block {
    new("10.244.0.0/30".parse().unwrap(), "host:n1", NOW).unwrap()
}

fn holder(handle: &str) -> Attribute {
    let secondary = [("node".to_owned(), "n1".to_owned())].into();
    Attribute {
        handle_id: Some(handle.to_owned()),
        secondary,
        ..Attribute::default()
    }
}

#[test]
fn a_new_block_is_what_calico_creates() {
    let want = r#"{"cidr":"10.244.0.0/30","affinity":"host:n1","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":null,"sequenceNumber":1787405600000000000,"sequenceNumberForAllocation":{},"deleted":false}"#;
    assert_eq!(gojson::to_string(&empty()).unwrap(), want);
    assert_eq!(new("10.0.0.0/8".parse().unwrap(), "host:n1", NOW), None);
}

#[test]
fn a_claim_with_its_first_address_is_what_two_steps_leave() {
    let mut block = empty();
    assert!(assign(&mut block, 0, &holder("h")));
    written(&mut block);
    assert_eq!(block.sequence_number, NOW.unix_nanos + 1);
    let numbers = block.sequence_number_for_allocation.unwrap();
    assert_eq!(numbers.get("0"), Some(&NOW.unix_nanos));
}

#[test]
fn ordinals_leave_at_the_front_and_return_to_the_back() {
    let mut block = empty();
    for want in [0, 1] {
        let ordinal = next_free(&block, |_| true).unwrap();
        assert_eq!(ordinal, want);
        assign(&mut block, ordinal, &holder("h"));
    }
    release(&mut block, &[0]);
    assert_eq!(block.unallocated, [2, 3, 0]);
    assert_eq!(next_free(&block, |o| o != 2), Some(3));
    assert!(!assign(&mut block, 1, &holder("i")), "it is taken");
    assert!(!assign(&mut block, 9, &holder("i")), "it is outside");
}

#[test]
fn equal_attributes_are_shared_and_dropped_with_their_last_address() {
    let mut block = empty();
    for (ordinal, handle) in [(0, "h"), (1, "i"), (2, "h")] {
        assign(&mut block, ordinal, &holder(handle));
    }
    assert_eq!(block.allocations, [Some(0), Some(1), Some(0), None]);
    assert_eq!(ordinals_of(&block, "h"), [0, 2]);
    release(&mut block, &[0]);
    assert_eq!(block.attributes().len(), 2);
    release(&mut block, &[2, 2]);
    assert_eq!(block.allocations, [None, Some(0), None, None]);
    release(&mut block, &[1]);
    // Emptied, Go prints a list and not null.
    assert_eq!(block.attributes, Some(Vec::new()));
    assert!(is_empty(&block) && block.sequence_number_for_allocation.unwrap().is_empty());
}

#[test]
fn what_others_cooled_down_is_freed_when_its_time_is_over() {
    let mut block = empty();
    let cooling = |time: &str| Attribute {
        released_at: Some(time.to_owned()),
        ..Attribute::default()
    };
    assign(&mut block, 0, &cooling("2026-08-22T13:32:00Z"));
    assign(&mut block, 1, &cooling("2026-08-22T13:33:19Z"));
    assign(&mut block, 2, &cooling("soon"));
    let thawed = |secs| {
        let mut block = block.clone();
        thaw(&mut block, NOW, secs);
        block.unallocated
    };
    assert_eq!(thawed(60), [3, 0]);
    assert_eq!(thawed(0), [3, 0, 1]);
    assert_eq!(thawed(3600), [3]);
    assert_eq!(thawed(-1), [3, 0, 1]);
    assert!(ordinals_of(&block, "h").is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u32, u8),
    Next(u8),
    Release(Vec<u32>),
    ReleaseHandle(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..20, 0u8..4).prop_map(|(o, h)| Step::Assign(o, h)),
        (0u8..4).prop_map(Step::Next),
        prop::collection::vec(0u32..20, 0..4).prop_map(Step::Release),
        (0u8..4).prop_map(Step::ReleaseHandle),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_steps_keeps_the_invariants(steps in prop::collection::vec(step(), 0..80)) {
        let mut block = new("10.244.0.16/28".parse().unwrap(), "host:n1", NOW).unwrap();
        // The naive model: who holds what, and the queue of the free.
        let mut held: BTreeMap<u32, u8> = BTreeMap::new();
        let mut queue: Vec<u32> = (0..16).collect();
        for step in steps {
            let mut give = |o: u32, h: u8, held: &mut BTreeMap<u32, u8>| {
                if let Some(at) = queue.iter().position(|free| *free == o) {
                    queue.remove(at);
                    held.insert(o, h);
                }
            };
            match step {
                Step::Assign(o, h) => {
                    assert_eq!(assign(&mut block, o, &holder(&h.to_string())), o < 16 && !held.contains_key(&o));
                    give(o, h, &mut held);
                }
                Step::Next(h) => if let Some(o) = next_free(&block, |_| true) {
                    assert!(assign(&mut block, o, &holder(&h.to_string())));
                    give(o, h, &mut held);
                },
                Step::Release(ordinals) => {
                    release(&mut block, &ordinals);
                    queue.extend(ordinals.iter().filter(|o| held.remove(o).is_some()));
                }
                Step::ReleaseHandle(h) => {
                    let ordinals = ordinals_of(&block, &h.to_string());
                    let want: Vec<u32> = held.iter().filter(|(_, holder)| **holder == h).map(|(o, _)| *o).collect();
                    prop_assert_eq!(&ordinals, &want);
                    release(&mut block, &ordinals);
                    held.retain(|_, holder| *holder != h);
                    queue.extend(ordinals);
                }
            }
            written(&mut block);
            prop_assert_eq!(&block.unallocated, &queue);
            prop_assert_eq!(block.problems(), Vec::<String>::new());
            let json = gojson::to_vec(&block).unwrap();
            prop_assert_eq!(&Block::decode(block.cidr, &json).unwrap(), &block);
            let numbers: BTreeSet<String> = block.sequence_number_for_allocation.iter().flatten().map(|(o, _)| o.clone()).collect();
            prop_assert_eq!(numbers, held.keys().map(u32::to_string).collect::<BTreeSet<_>>());
        }
    }
}

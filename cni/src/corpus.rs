//! The fuzzers' corpus, replayed through the fuzzers' own entry.

use crate::conf;

#[path = "../../fuzz/entries/cni.rs"]
mod entries;
#[path = "../../fuzz/entries/replay.rs"]
mod replay;

#[test]
fn what_the_fuzzers_found_stays_harmless() {
    replay::check(entries::TARGETS);
}

//! The fuzzers' corpus, replayed through the fuzzers' own entry.

use super::wire;

#[path = "../../../fuzz/entries/netlink.rs"]
mod entries;
#[path = "../../../fuzz/entries/replay.rs"]
mod replay;

#[test]
fn what_the_fuzzers_found_stays_harmless() {
    replay::check(entries::TARGETS);
}

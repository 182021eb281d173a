//! The fuzzers' corpora, replayed through the fuzzers' own entries.

#[path = "../../../fuzz/entries/model.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets need it")]
mod entries;
#[path = "../../../fuzz/entries/replay.rs"]
mod replay;

#[test]
fn what_the_fuzzers_found_stays_harmless() {
    replay::check(entries::TARGETS);
}

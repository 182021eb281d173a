//! Runs a target's corpus through its entry, for the tests of the crates that own the entries.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// A target's name and its entry.
type Target = (&'static str, fn(&[u8]));

/// The files at which the entry panics; the corpus must not be empty, or the replay proves nothing.
pub(crate) fn replay(target: &str, entry: fn(&[u8])) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files: Vec<PathBuf> = std::fs::read_dir(&corpus)
        .unwrap_or_else(|e| panic!("{}: {e}", corpus.display()))
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    let panics = |file: &PathBuf| {
        let octets = std::fs::read(file).expect("the corpus can be read");
        catch_unwind(|| entry(&octets)).is_err()
    };
    files.into_iter().filter(panics).collect()
}

/// All targets of a crate pass, and the negative twin: an entry that panics is noticed at every file.
pub(crate) fn check(targets: &[Target]) {
    for (target, entry) in targets {
        assert_eq!(replay(target, *entry), Vec::<PathBuf>::new(), "{target}");
        assert!(!replay(target, |_| panic!("on purpose")).is_empty());
    }
}

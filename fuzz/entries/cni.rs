//! What the fuzzer calls in the CNI plugin, and what the crate's own test replays the corpus through. The module that includes
//! this file has `conf`.

use super::conf;

/// A target's name and its entry.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Each target and its entry.
pub(crate) const TARGETS: &[Target] = &[("cni_stdin", stdin)];

/// A network configuration on standard input: taken, or refused with words.
pub(crate) fn stdin(data: &[u8]) {
    assert!(conf::VERSIONS.contains(&conf::version_of(data)));
    match conf::Conf::parse(data) {
        Ok(conf) => drop(conf.run_dir()),
        Err(error) => assert!(!error.msg.is_empty()),
    }
}

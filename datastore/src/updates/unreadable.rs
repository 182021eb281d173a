//! What cannot be read: the register behind health's list, and a budget for the log.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Bytes, Revision};

/// The most keys in health's list; the rest is a number.
pub const UNREADABLE_SHOWN_MAX: usize = 100;
/// The most bytes kept of an error, which may quote the value.
const REASON_BYTES_MAX: usize = 256;
/// So many unreadable values are logged in a window; more are counted.
const LOG_MAX: u32 = 20;
/// The window.
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// A key whose value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableKey {
    /// The key as stored.
    pub key: String,
    /// The revision that wrote the value.
    pub revision: Revision,
    /// What is wrong with it, cut to 256 bytes.
    pub reason: String,
}

/// What cannot be read now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadableList {
    /// How many there are.
    pub total: usize,
    /// The first of them in the order of keys, at most [`UNREADABLE_SHOWN_MAX`].
    pub first: Vec<UnreadableKey>,
}

/// Every unreadable key: at most as many as the store has keys.
#[derive(Debug, Default)]
pub(super) struct Register {
    keys: BTreeMap<Bytes, (Revision, String)>,
    changed: bool,
}

impl Register {
    pub(super) fn insert(&mut self, key: &Bytes, revision: Revision, error: &impl Display) {
        let mut reason = error.to_string();
        let end = (0..=REASON_BYTES_MAX)
            .rev()
            .find(|at| reason.is_char_boundary(*at))
            .unwrap_or(0);
        reason.truncate(end);
        self.keys.insert(key.clone(), (revision, reason));
        self.changed = true;
    }

    pub(super) fn remove(&mut self, key: &Bytes) {
        self.changed |= self.keys.remove(key).is_some();
    }

    /// The list, if it is not what it was when last asked for.
    pub(super) fn changed_list(&mut self) -> Option<UnreadableList> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let shown = self.keys.iter().take(UNREADABLE_SHOWN_MAX);
        let first = shown.map(|(key, (revision, reason))| UnreadableKey {
            key: String::from_utf8_lossy(key).into_owned(),
            revision: *revision,
            reason: reason.clone(),
        });
        Some(UnreadableList {
            total: self.keys.len(),
            first: first.collect(),
        })
    }
}

/// Keeps a storm of unreadable values from becoming a storm of log lines.
#[derive(Debug)]
pub(super) struct LogBudget {
    since: Instant,
    spent: u32,
    suppressed: u64,
}

impl LogBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            spent: 0,
            suppressed: 0,
        }
    }

    /// If a line may be logged now: how many were not since the last.
    pub(super) fn spend(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= LOG_WINDOW {
            (self.since, self.spent) = (now, 0);
        }
        if self.spent >= LOG_MAX {
            self.suppressed += 1;
            return None;
        }
        self.spent += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_bounded_in_a_window_and_says_later_how_much_was_left_out() {
        let start = Instant::now();
        let mut log = LogBudget::new(start);
        let spent: Vec<_> = (0..50).map(|_| log.spend(start)).collect();
        assert_eq!(spent.iter().flatten().count(), 20);
        assert_eq!(log.spend(start + LOG_WINDOW), Some(30));
        assert_eq!(log.spend(start + LOG_WINDOW), Some(0));
    }

    #[test]
    fn list_shows_some_and_counts_all_and_cuts_long_reasons() {
        let mut register = Register::default();
        assert_eq!(register.changed_list(), None);
        for at in 0..150 {
            register.insert(&format!("k{at:03}").into(), at, &"é".repeat(1000));
        }
        let list = register.changed_list().unwrap();
        assert_eq!(
            (list.total, list.first.len(), list.first[99].key.as_str()),
            (150, 100, "k099")
        );
        assert_eq!(list.first[0].reason.len(), 256);
        assert_eq!(register.changed_list(), None);
        register.remove(&"k000".into());
        assert_eq!(register.changed_list().unwrap().total, 149);
    }
}

//! Those who watch sessions and best paths: bounded, and never waited for. What a slow one misses, it is told in number.

use crate::view::{Best, Notice};
use ipnet::IpNet;
use std::collections::BTreeMap;
use tokio::sync::broadcast;

/// Notices that wait for the slowest watcher; it misses the oldest beyond.
const NOTICES_MAX: usize = 4096;

/// The watchers. Costs nothing while there are none.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    sender: Option<broadcast::Sender<Notice>>,
}

impl Watchers {
    /// One more.
    pub(super) fn join(&mut self) -> broadcast::Receiver<Notice> {
        let sender = self
            .sender
            .get_or_insert_with(|| broadcast::channel(NOTICES_MAX).0);
        sender.subscribe()
    }

    /// Whether somebody watches, or did until just now.
    pub(super) const fn has_channel(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether somebody watches; forgets those who have gone.
    pub(super) fn any(&mut self) -> bool {
        if self.sender.as_ref().is_some_and(|s| s.receiver_count() == 0) {
            self.sender = None;
        }
        self.sender.is_some()
    }

    pub(super) fn tell(&self, notice: impl FnOnce() -> Notice) {
        if let Some(sender) = &self.sender {
            // An error means that the last one has just gone.
            let _ = sender.send(notice());
        }
    }

    pub(super) fn best(&self, changes: &BTreeMap<IpNet, Option<Best>>) {
        for (prefix, best) in changes {
            self.tell(|| Notice::Best {
                prefix: *prefix,
                best: best.clone(),
            });
        }
    }
}

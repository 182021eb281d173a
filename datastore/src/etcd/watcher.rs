//! A watch on etcd: one stream with one watcher for each top-level directory.
//!
//! etcd sends the events of one revision to one watcher in one message, so that ranges that belong together (`/calico/...`) share a
//! watcher, over the span that covers them, and what was not asked for is dropped here. Watchers of one stream are not in step with
//! each other; each keeps its own place.
//!
//! A watcher is opened one revision early. etcd 3.4 lets a watch begin exactly at the compacted revision although deletions at that
//! revision are gone from its history (etcd#19179); beginning at the revision before is refused as compacted then.

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};

use super::convert;
use super::status::store_error;
use crate::{
    Batch, Bytes, Commit, KeyRange, Revision, StoreError, Watch, WatchEvent, WatchItem, WatchRequest,
};

/// A watch on an [`EtcdStore`](super::EtcdStore).
#[derive(Debug)]
pub struct EtcdWatch {
    stream: WatchStream,
    groups: Vec<Group>,
    /// What one message of etcd's told, 64 MiB at most, with the group it is for. A group moves on when its item is handed out.
    ready: VecDeque<(usize, WatchItem)>,
    told: Revision,
    patience: Duration,
    over: Option<StoreError>,
}

/// The ranges under one top-level directory: one watcher.
#[derive(Debug)]
struct Group {
    span: KeyRange,
    /// `from` moves on as events are told.
    request: WatchRequest,
}

impl Group {
    fn first(&self) -> Revision {
        self.request
            .ranges
            .iter()
            .map(|(_, from)| *from)
            .min()
            .unwrap_or(1)
    }

    fn options(&self, id: usize) -> (Vec<u8>, WatchOptions) {
        let (key, end) = convert::bounds(&self.span);
        let start = i64::try_from(self.first())
            .unwrap_or(i64::MAX)
            .saturating_sub(1)
            .max(1);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(start)
            .with_watch_id(i64::try_from(id).unwrap_or(i64::MAX))
            .with_progress_notify();
        (key, options)
    }

    fn advance(&mut self, next: Revision) {
        for (_, from) in &mut self.request.ranges {
            *from = (*from).max(next);
        }
    }
}

/// A watch that is not open yet.
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub(super) fn new(request: WatchRequest) -> Self {
        let mut groups: Vec<(Bytes, Group)> = Vec::new();
        for (range, from) in request.ranges {
            let directory = top_directory(&range);
            match groups.iter_mut().find(|(name, _)| *name == directory) {
                Some((_, group)) => {
                    group.span = group.span.cover(&range);
                    group.request.ranges.push((range, from));
                }
                None => {
                    let request = WatchRequest {
                        ranges: vec![(range.clone(), from)],
                    };
                    groups.push((directory, Group { span: range, request }));
                }
            }
        }
        Self(groups.into_iter().map(|(_, group)| group).collect())
    }

    /// What opens the stream: the first watcher. Watchers are numbered from 1.
    pub(super) fn first(&self) -> (Vec<u8>, WatchOptions) {
        self.0.first().map(|group| group.options(1)).unwrap_or_default()
    }

    /// Adds the other watchers to the stream.
    pub(super) async fn open(
        self,
        mut stream: WatchStream,
        patience: Duration,
    ) -> Result<EtcdWatch, StoreError> {
        for (at, group) in self.0.iter().enumerate().skip(1) {
            let (key, options) = group.options(at + 1);
            stream.watch(key, Some(options)).await.map_err(store_error)?;
        }
        Ok(EtcdWatch {
            stream,
            groups: self.0,
            ready: VecDeque::new(),
            told: 0,
            patience,
            over: None,
        })
    }
}

/// The first segment of the range's keys, slashes included (`/calico/`); empty if they do not share one.
fn top_directory(range: &KeyRange) -> Bytes {
    let start = range.start();
    let slash = start
        .iter()
        .skip(1)
        .position(|byte| *byte == b'/')
        .map(|at| at + 2);
    let directory = slash.map(|end| start.slice(..end)).unwrap_or_default();
    let whole = KeyRange::prefix(directory.clone());
    let inside = match (range.end(), whole.end()) {
        (_, None) => true,
        (Some(end), Some(bound)) => end <= bound,
        (None, Some(_)) => false,
    };
    if inside { directory } else { Bytes::new() }
}

impl EtcdWatch {
    fn take(&mut self, response: &WatchResponse) -> Option<WatchItem> {
        let id = usize::try_from(response.watch_id())
            .ok()
            .and_then(|id| id.checked_sub(1));
        let Some((at, group)) = id.and_then(|at| Some((at, self.groups.get_mut(at)?))) else {
            // The answer to a progress request is addressed to no watcher (-1).
            return Some(WatchItem::Alive);
        };
        if response.compact_revision() > 0 {
            self.over = Some(StoreError::Compacted { oldest: None });
            let oldest = Revision::try_from(response.compact_revision()).unwrap_or(0) + 1;
            return Some(WatchItem::Compacted { oldest });
        }
        if response.canceled() {
            self.over = Some(cancelled(response.cancel_reason()));
            return None;
        }
        if response.created() {
            let now = convert::header_revision(response.header()).unwrap_or(Revision::MAX);
            if now + 1 < group.first() {
                self.over = Some(behind(now, group.first()));
            }
            return None;
        }
        if response.events().is_empty() {
            // A progress notification: it takes the same way as the watcher's events, so all before it has been told.
            if let Ok(revision) = convert::header_revision(response.header()) {
                self.ready.push_back((at, WatchItem::Progress { revision }));
            }
        }
        let batches = batches(response.events(), &group.request);
        self.ready
            .extend(batches.into_iter().map(|batch| (at, WatchItem::Events(batch))));
        None
    }

    /// Hands out what is ready, and moves on.
    fn hand_out(&mut self) -> Option<WatchItem> {
        loop {
            let (at, item) = self.ready.pop_front()?;
            let group = self.groups.get_mut(at)?;
            match &item {
                WatchItem::Events(batch) => group.advance(batch.revision + 1),
                WatchItem::Progress { revision } => {
                    group.advance(revision + 1);
                    let told = self.groups.iter().map(Group::first).min().unwrap_or(1) - 1;
                    if told <= self.told {
                        continue;
                    }
                    self.told = told;
                    return Some(WatchItem::Progress { revision: told });
                }
                _ => {}
            }
            return Some(item);
        }
    }
}

/// A member that lags behind what was seen elsewhere, or a store that was restored from a backup: a watch would be silent.
fn behind(now: Revision, from: Revision) -> StoreError {
    StoreError::Behind {
        now,
        seen: from.saturating_sub(1),
    }
}

fn cancelled(reason: &str) -> StoreError {
    if reason.contains("permission denied") {
        return StoreError::Auth {
            reason: reason.to_owned(),
        };
    }
    StoreError::Unavailable {
        reason: format!("etcd cancelled the watch: {reason}"),
        commit: Commit::No,
    }
}

/// The wanted events of one message, by revision.
fn batches(events: &[Event], request: &WatchRequest) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let Some(event) = watch_event(event) else { continue };
        let (WatchEvent::Put(crate::KeyValue { mod_revision, .. }) | WatchEvent::Delete { mod_revision, .. }) =
            event;
        if !request.wants(event.key(), mod_revision) {
            continue;
        }
        match batches.last_mut() {
            Some(batch) if batch.revision == mod_revision => batch.events.push(event),
            _ => batches.push(Batch {
                revision: mod_revision,
                events: vec![event],
            }),
        }
    }
    batches
}

fn watch_event(event: &Event) -> Option<WatchEvent> {
    let kv = convert::key_value(event.kv()?.clone());
    Some(match event.event_type() {
        EventType::Put => WatchEvent::Put(kv),
        EventType::Delete => WatchEvent::Delete {
            key: kv.key,
            mod_revision: kv.mod_revision,
        },
    })
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> WatchItem {
        loop {
            if let Some(item) = self.hand_out() {
                return item;
            }
            if let Some(error) = &self.over {
                return WatchItem::Disconnected(error.clone());
            }
            match self.stream.message().await {
                Ok(Some(response)) => {
                    if let Some(item) = self.take(&response) {
                        return item;
                    }
                }
                Ok(None) => self.over = Some(cancelled("the stream ended")),
                Err(error) => self.over = Some(store_error(error)),
            }
        }
    }

    fn resume(&self) -> WatchRequest {
        WatchRequest {
            ranges: self
                .groups
                .iter()
                .flat_map(|group| group.request.ranges.clone())
                .collect(),
        }
    }

    async fn request_progress(&mut self) {
        // Fails only when the stream is gone or stuck, which is for the next item, or its absence, to tell.
        let _ = tokio::time::timeout(self.patience, self.stream.request_progress()).await;
    }
}

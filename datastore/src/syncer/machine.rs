//! What a syncer does next: a plain struct that owns no store, task or clock.
//!
//! Replies go in ([`Machine::page`], [`Machine::opened`], [`Machine::open_failed`], [`Machine::item`], [`Machine::tick`]), wishes come out
//! ([`Machine::poll`]); [`Machine::deadline`] says when to tick. At most one call to the store is under way.
//!
//! ```text
//!            pages                  opened               broken, silent
//!  Listing ---------> Opening ---------------> Watching ----------------> Waiting --> Opening
//!     ^  \ failed        | compacted              | compacted                |
//!     |   `-> Waiting    |                        |                          |
//!     `------------------+------------------------+------- (listed again) ---'
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::changes::{self, Change, Changes, Known, Page};
use super::state::{Counts, Health, State};
use crate::{
    Bytes, Commit, Consistency, KeyRange, Pager, RangeReply, RangeRequest, Revision, StoreError, WatchItem,
    WatchRequest,
};

/// A watch that has been silent for so long is asked for a sign of life.
pub const PROGRESS_AFTER: Duration = Duration::from_secs(15);
/// A watch that has been silent for so long is taken for dead and opened anew.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// So many watches in a row find the store behind before everything is listed again.
const BEHIND_MAX: u32 = 3;
/// The first wait after a failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait between attempts: as long as a returning etcd may go unnoticed.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often everything is compared, unless said otherwise; each time is up to a fifth shorter, so that a fleet does not list in step.
pub const COMPARE_EVERY: Duration = Duration::from_secs(300);

/// What the machine wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Read this page, and hand the reply to [`Machine::page`].
    List(RangeRequest),
    /// Open this watch, and say how it went.
    Watch(WatchRequest),
    /// Ask the open watch for a sign of life.
    AskProgress,
    /// Drop the open watch.
    CloseWatch,
    /// Hand these to the consumer.
    Deliver(Changes),
    /// Tell the world.
    State(State),
}

#[derive(Debug)]
enum Phase {
    /// A page of `ranges[at]` has been asked for.
    Listing(Listing),
    /// A watch has been asked for.
    Opening(WatchRequest),
    Watching {
        heard: Instant,
        asked: bool,
    },
    /// After a failure: until then, then this.
    Waiting {
        until: Instant,
        then: Next,
    },
}

#[derive(Debug)]
enum Next {
    List,
    Watch(WatchRequest),
}

#[derive(Debug)]
struct Listing {
    at: usize,
    pager: Pager,
    /// Where what was not listed yet of this range begins; `None`: at its start.
    cursor: Option<Bytes>,
    /// Differences found and not yet part of the copy: told as one unit at the end of a later pass, page by page in the first.
    staged: Vec<Change>,
    why: Why,
}

/// Why everything is listed.
#[derive(Debug)]
enum Why {
    /// Nothing is known yet, or too much was missed.
    Missed,
    /// It is time to compare; where the watch was left.
    Compare(Option<WatchRequest>),
    /// The store was put back, after this revision had been seen: whatever it holds is news.
    Restored { seen: Revision },
}

/// The core of a [`Syncer`](super::Syncer).
#[derive(Debug)]
pub struct Machine {
    ranges: Vec<KeyRange>,
    /// The copy, without values: what the consumer has been told.
    known: BTreeMap<Bytes, Revision>,
    phase: Phase,
    state: State,
    /// The last time that the store answered.
    contact: Instant,
    /// Failures since the store last told something.
    failures: u32,
    /// Watches in a row that found the store behind.
    behind: u32,
    random: u64,
    compare_every: Duration,
    compare_at: Option<Instant>,
    out: VecDeque<Output>,
}

impl Machine {
    /// Begins to list. Ranges that overlap become one.
    #[must_use]
    pub fn new(now: Instant, ranges: Vec<KeyRange>, seed: u64) -> Self {
        let ranges = KeyRange::disjoint(ranges);
        let state = State {
            revision: 0,
            in_sync: false,
            health: Health::Resyncing,
            counts: Counts::default(),
        };
        let phase = Phase::Waiting {
            until: now,
            then: Next::List,
        };
        let (known, out) = (BTreeMap::new(), VecDeque::new());
        let mut machine = Self {
            ranges,
            known,
            phase,
            state,
            contact: now,
            failures: 0,
            behind: 0,
            random: seed,
            compare_every: COMPARE_EVERY,
            compare_at: None,
            out,
        };
        machine.list(Why::Missed);
        machine
    }

    /// How often everything is compared; zero is never.
    pub fn compare_every(&mut self, now: Instant, every: Duration) {
        self.compare_every = every;
        self.compare_at = self.compare_at.and_then(|_| self.next_comparison(now));
    }

    fn next_comparison(&mut self, now: Instant) -> Option<Instant> {
        let part = self.random_below(1024);
        let every = self.compare_every;
        (!every.is_zero()).then(|| now + every - every / 5 * part / 1024)
    }

    /// The next wish.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Machine::tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Listing(_) | Phase::Opening(_) => None,
            Phase::Watching { heard, asked } => {
                let patience = if *asked { SILENCE_MAX } else { PROGRESS_AFTER };
                let silent = *heard + patience;
                Some(self.compare_at.map_or(silent, |at| at.min(silent)))
            }
            Phase::Waiting { until, .. } => Some(*until),
        }
    }

    /// How the copy stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Time has passed; `resume` is where the open watch stands.
    pub fn tick(&mut self, now: Instant, resume: Option<WatchRequest>) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        let compare = self.compare_at.is_some_and(|at| at <= now);
        match &mut self.phase {
            Phase::Watching { .. } if compare => {
                self.out.push_back(Output::CloseWatch);
                self.state.counts.comparisons += 1;
                self.list(Why::Compare(resume));
            }
            Phase::Watching {
                asked: asked @ false, ..
            } => {
                *asked = true;
                self.out.push_back(Output::AskProgress);
            }
            Phase::Watching { .. } => {
                self.out.push_back(Output::CloseWatch);
                let silence = StoreError::Timeout {
                    limit: SILENCE_MAX,
                    commit: Commit::No,
                };
                self.broken(now, &silence, resume);
            }
            Phase::Waiting { then, .. } => match std::mem::replace(then, Next::List) {
                Next::List => self.list(Why::Missed),
                Next::Watch(request) => self.open(request),
            },
            Phase::Listing(_) | Phase::Opening(_) => {}
        }
    }

    fn list(&mut self, why: Why) {
        let Some(first) = self.ranges.first() else { return };
        self.state.counts.listings += 1;
        self.compare_at = None;
        let pager = Pager::new(first.clone(), Consistency::Linearised);
        self.out.extend(pager.request().map(Output::List));
        self.phase = Phase::Listing(Listing {
            at: 0,
            pager,
            cursor: None,
            staged: Vec::new(),
            why,
        });
    }

    fn open(&mut self, request: WatchRequest) {
        self.out.push_back(Output::Watch(request.clone()));
        self.phase = Phase::Opening(request);
    }

    /// The reply to [`Output::List`].
    pub fn page(&mut self, now: Instant, reply: Result<RangeReply, StoreError>) {
        let Phase::Listing(listing) = &mut self.phase else {
            return;
        };
        let page = match reply {
            // Linearised: no member that merely lags answers so.
            Ok(page) if listing.pager.revision() == 0 && page.revision < self.state.revision => {
                error!(
                    seen = self.state.revision,
                    found = page.revision,
                    "the datastore's revision went back: it was restored from a backup; taking over what it holds"
                );
                listing.why = Why::Restored {
                    seen: self.state.revision,
                };
                self.state.revision = page.revision;
                page
            }
            Ok(page) => page,
            Err(failure) => {
                if let Err(failure) = listing.pager.failed(failure) {
                    warn!(error = %failure, "listing the datastore failed");
                    let next = match &mut listing.why {
                        Why::Compare(Some(resume)) => Next::Watch(resume.clone()),
                        _ => Next::List,
                    };
                    self.wait(now, next);
                } else {
                    self.out.extend(listing.pager.request().map(Output::List));
                }
                return;
            }
        };
        self.contact = now;
        let range = &self.ranges[listing.at];
        let mut kvs = listing.pager.page(page);
        kvs.retain(|kv| range.contains(&kv.key));
        let more = listing.pager.request();
        let reached = listing.pager.reached().cloned();
        if let Why::Compare(_) = listing.why {
            let told = self.state.revision;
            let missed = kvs
                .iter()
                .filter(|kv| kv.mod_revision <= told && self.known.get(&kv.key) != Some(&kv.mod_revision));
            for kv in missed {
                self.state.counts.mismatches += 1;
                error!(key = %String::from_utf8_lossy(&kv.key), revision = kv.mod_revision, told,
                    "the watch of the datastore had not told a change; repairing");
            }
        }
        let known = Known {
            keys: &self.known,
            all_is_news: matches!(listing.why, Why::Restored { .. }),
        };
        let page = Page {
            range,
            from: listing.cursor.as_ref(),
            to: reached.as_ref(),
            revision: listing.pager.revision(),
        };
        known.diff(&page, kvs, &mut listing.staged);
        listing.cursor = reached;
        self.after_page(now, more);
    }

    /// A page has been compared: on to the next page, range, or the watch.
    fn after_page(&mut self, now: Instant, more: Option<RangeRequest>) {
        let Phase::Listing(listing) = &mut self.phase else {
            return;
        };
        let revision = listing.pager.revision();
        let next_range = self.ranges.get(listing.at + 1).filter(|_| more.is_none());
        let request = more.or_else(|| {
            listing.pager = Pager::at(next_range?.clone(), revision);
            listing.at += 1;
            listing.cursor = None;
            listing.pager.request()
        });
        let last = request.is_none();
        let restored = if let Why::Restored { seen } = listing.why {
            if last && listing.staged.iter().all(|change| change.value.is_none()) {
                // A store that lost everything, or another one: the fabric must not be torn down for it.
                error!(
                    seen,
                    found = revision,
                    "the datastore went back and is empty; keeping what is known"
                );
                self.state.revision = seen;
                return self.wait(now, Next::List);
            }
            self.state.counts.restores += u64::from(last);
            true
        } else {
            false
        };
        if last || (!self.state.in_sync && !restored) {
            let changes = std::mem::take(&mut listing.staged);
            self.deliver(revision, changes, last, restored && last);
        }
        if let Some(request) = request {
            self.out.push_back(Output::List(request));
            return;
        }
        info!(revision, keys = self.known.len(), "the datastore has been listed");
        self.open(WatchRequest::new(self.ranges.iter().cloned(), revision + 1));
    }

    /// Makes changes part of the copy and tells them.
    fn deliver(&mut self, revision: Revision, changes: Vec<Change>, in_sync: bool, restored: bool) {
        for change in &changes {
            match &change.value {
                Some(kv) => self.known.insert(change.key.clone(), kv.mod_revision),
                None => self.known.remove(&change.key),
            };
        }
        self.state.in_sync |= in_sync;
        self.state.revision = self.state.revision.max(revision);
        if !changes.is_empty() || in_sync {
            self.out.push_back(Output::Deliver(Changes {
                revision,
                changes,
                in_sync,
                restored,
            }));
        }
        self.out.push_back(Output::State(self.state.clone()));
    }

    /// [`Output::Watch`] has succeeded.
    pub fn opened(&mut self, now: Instant) {
        if let Phase::Opening(_) = self.phase {
            self.phase = Phase::Watching {
                heard: now,
                asked: false,
            };
            self.contact = now;
            self.compare_at = self.next_comparison(now);
            self.turn(Health::Connected);
        }
    }

    /// [`Output::Watch`] has failed.
    pub fn open_failed(&mut self, now: Instant, failure: StoreError) {
        if let Phase::Opening(request) = &self.phase {
            let request = request.clone();
            self.broken(now, &failure, Some(request));
        }
    }

    /// The open watch has said something; `resume` is where it stands now.
    pub fn item(&mut self, now: Instant, item: WatchItem, resume: Option<WatchRequest>) {
        let Phase::Watching { heard, asked } = &mut self.phase else {
            return;
        };
        match item {
            WatchItem::Disconnected(failure) => {
                self.out.push_back(Output::CloseWatch);
                self.broken(now, &failure, resume);
                return;
            }
            WatchItem::Compacted { oldest } => {
                info!(
                    oldest,
                    "the datastore has forgotten what was missed; listing it again"
                );
                self.out.push_back(Output::CloseWatch);
                self.relist(now);
                return;
            }
            WatchItem::Events(batch) => {
                (*heard, *asked) = (now, false);
                let changes = batch
                    .events
                    .into_iter()
                    .filter_map(|event| changes::news_of(&self.known, event))
                    .collect();
                self.deliver(batch.revision, changes, false, false);
            }
            WatchItem::Progress { revision } => {
                (*heard, *asked) = (now, false);
                self.deliver(revision, Vec::new(), false, false);
            }
            WatchItem::Alive => (*heard, *asked) = (now, false),
        }
        self.contact = now;
        self.failures = 0;
        self.behind = 0;
    }

    fn broken(&mut self, now: Instant, failure: &StoreError, resume: Option<WatchRequest>) {
        self.state.counts.reconnects += 1;
        if let StoreError::Behind { .. } = failure {
            self.behind += 1;
        }
        match (failure, resume) {
            // A member that lags catches up within a moment; a store that was restored never does, and a linearised listing shows it.
            (StoreError::Behind { .. }, _) if self.behind >= BEHIND_MAX => {
                self.behind = 0;
                self.wait(now, Next::List);
            }
            (StoreError::Compacted { .. } | StoreError::TooLarge { .. }, _) | (_, None) => self.relist(now),
            (_, Some(request)) => {
                warn!(error = %failure, "the watch of the datastore broke; what is known stays");
                self.wait(now, Next::Watch(request));
            }
        }
    }

    /// Lists again: at once the first time, with a pause when that did not help.
    fn relist(&mut self, now: Instant) {
        if self.failures > 0 {
            return self.wait(now, Next::List);
        }
        self.failures = 1;
        self.turn(Health::Resyncing);
        self.list(Why::Missed);
    }

    fn wait(&mut self, now: Instant, then: Next) {
        let pause = self.backoff();
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waiting {
            until: now + pause,
            then,
        };
        self.turn(Health::StaleSince(self.contact));
    }

    /// Between half and all of a span that doubles with each failure, so that a fleet does not come back in step.
    fn backoff(&mut self) -> Duration {
        let span = BACKOFF_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(BACKOFF_MAX);
        let part = self.random_below(1024);
        span / 2 + span / 2 * part / 1024
    }

    fn random_below(&mut self, bound: u64) -> u32 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % bound.max(1)).unwrap_or(0)
    }

    fn turn(&mut self, health: Health) {
        if self.state.health == health {
            return;
        }
        match &health {
            Health::Connected => info!(revision = self.state.revision, "following the datastore"),
            Health::Resyncing => info!(revision = self.state.revision, "listing the datastore"),
            Health::StaleSince(_) if matches!(self.state.health, Health::StaleSince(_)) => {}
            Health::StaleSince(_) => warn!(
                revision = self.state.revision,
                "lost the datastore; what is known stays"
            ),
        }
        self.state.health = health;
        self.out.push_back(Output::State(self.state.clone()));
    }
}

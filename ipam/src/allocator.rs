//! One task a node that runs plans against the store: gathers what is asked meanwhile, commits it together, settles
//! lost replies, and takes back what nobody is there to use.
//!
//! ```text
//!  Client (clones) ──jobs: mpsc, QUEUE_MAX──▶ Allocator::run ──txn──▶ Store
//!      │                 ◀──oneshot per job──   (the one task)
//!      └──update: map of the newest value per key, merged while the task is busy──▶
//! ```
//!
//! The task is the only writer of this node's view, so there is never more than one transaction under way, and what
//! comes in while one is under way goes together into the next. It spawns nothing.

mod client;
mod feed;

pub use client::{Client, Counter, Counters, QUEUE_MAX};

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use twill_datastore::{Bytes, Commit as Outcome, Op, OpReply, Store, StoreError, Txn};
use twill_model::AffinityOwner;

use crate::error::Error;
use crate::now::Now;
use crate::plan::{Commit, plan};
use crate::request::{Chore, Reply, Request, Undo, Work};
use crate::state::{Observed, State};
use feed::{Feed, Taken};

/// Most requests that are planned over; the rest waits in the queue.
const PENDING_MAX: usize = 256;
/// Most attempts for one request while others keep changing the same objects: Calico gives up at 100 too.
const ATTEMPTS_MAX: u32 = 100;
/// Failures of the store in a row after which a request is answered with an error.
const FAILURES_MAX: u32 = 3;
/// Most assignments to be taken back that are remembered while the store is away. Beyond it the oldest is left to
/// the runtime's DEL.
const UNDO_MAX: usize = 1024;
/// Most keys in one read: etcd takes 128 operations.
const READS_MAX: usize = 120;
/// Waits after a failure of the store: doubled each time up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often to look for housekeeping when nothing happens.
const CHORE_INTERVAL: Duration = Duration::from_secs(1);

/// Tells an allocator the time.
pub type Clock = Box<dyn Fn() -> Now + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    let start = Instant::now();
    Box::new(move || {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            unix_nanos: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
            mono_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    })
}

/// A request that waits, and who waits for it.
struct Job {
    work: Work,
    answer: Option<oneshot::Sender<Result<Reply, Error>>>,
}

struct Pending {
    request: Request,
    answer: Option<oneshot::Sender<Result<Reply, Error>>>,
    attempts: u32,
    failures: u32,
    /// What its riders put in the last attempt.
    puts: Vec<Bytes>,
}

impl Pending {
    fn is_abandoned(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// The allocator of one node. Make one with [`Allocator::new`], keep its [`Client`], and let a task of yours
/// [`run`](Allocator::run) it.
pub struct Allocator<S> {
    store: S,
    state: State,
    clock: Clock,
    jobs: mpsc::Receiver<Job>,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
    pending: VecDeque<Pending>,
    next_id: u64,
    is_ready: bool,
    backoff: Option<Duration>,
    /// The transaction whose reply was lost.
    unsettled: Option<Commit>,
}

impl<S: Store> Allocator<S> {
    /// An allocator of `node` on `store`, and the way to ask it. It begins when it has been told of everything under
    /// [`crate::keys::watched`] and then [`Client::in_sync`]; requests wait until then.
    #[must_use]
    pub fn new(store: S, node: &str, clock: Clock) -> (Self, Client) {
        Self::of(store, AffinityOwner::Host(node.to_owned()), clock)
    }

    /// As [`Allocator::new`], for any owner of blocks: services' addresses come from `virtual:load-balancer`'s. Two of one owner
    /// at once are safe (each refuses what the other changed), but slow; a node has one, a virtual owner an elected one.
    #[must_use]
    pub fn of(store: S, owner: AffinityOwner, clock: Clock) -> (Self, Client) {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let (feed, counters) = (Arc::new(Feed::default()), Arc::new(Counters::default()));
        let client = Client::new(sender, Arc::clone(&feed), Arc::clone(&counters));
        let allocator = Self {
            store,
            state: State::of(owner),
            clock,
            jobs,
            feed,
            counters,
            pending: VecDeque::new(),
            next_id: 0,
            is_ready: false,
            backoff: None,
            unsettled: None,
        };
        (allocator, client)
    }

    /// Serves requests until `stop` is cancelled or no client is left. A transaction under way is finished first;
    /// what waits is answered with [`Error::Stopped`].
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if !self.gather(&stop).await {
                break;
            }
            self.step().await;
            if let Some(backoff) = self.backoff {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(backoff) => {}
                }
            }
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.push(job);
        }
        for waiting in self.pending.drain(..) {
            if let Some(answer) = waiting.answer {
                // Whoever asked may be gone as well.
                let _ = answer.send(Err(Error::Stopped));
            }
        }
    }

    /// Waits until there is something to do and takes in all that there is. False if the end has come.
    async fn gather(&mut self, stop: &CancellationToken) -> bool {
        self.take_feed();
        if (self.pending.is_empty() && self.unsettled.is_none()) || !self.is_ready {
            self.state.trim();
            tokio::select! {
                () = stop.cancelled() => return false,
                job = self.jobs.recv(), if self.pending.len() < PENDING_MAX => match job {
                    Some(job) => self.push(job),
                    None => return false,
                },
                () = self.feed.changed() => {}
                () = tokio::time::sleep(CHORE_INTERVAL) => {}
            }
            // Those who were woken by the same event as the first one join its transaction.
            tokio::task::yield_now().await;
        }
        while self.pending.len() < PENDING_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            self.push(job);
        }
        self.take_feed();
        self.drop_abandoned();
        if self.is_ready {
            self.add_chores();
        }
        true
    }

    fn take_feed(&mut self) {
        let now = (self.clock)();
        let Taken {
            seen,
            in_sync,
            restored,
        } = self.feed.take();
        if restored {
            tracing::warn!(
                node = self.state.node(),
                "allocator begins anew: the datastore was restored"
            );
            self.state = State::new(self.state.node());
        }
        for observed in &seen {
            self.state.observe(observed, now);
        }
        if in_sync && !self.is_ready {
            self.is_ready = true;
            // What an earlier process of this node has under way must not arrive any more.
            self.unsettled = Some(Commit::none());
            tracing::info!(
                node = self.state.node(),
                blocks = self.state.own_blocks().count(),
                "allocator ready"
            );
        }
    }

    fn push(&mut self, job: Job) {
        let pending = self.pending(job.work, job.answer);
        self.pending.push_back(pending);
    }

    fn pending(&mut self, work: Work, answer: Option<oneshot::Sender<Result<Reply, Error>>>) -> Pending {
        self.next_id += 1;
        Pending {
            request: Request::new(self.next_id, work),
            answer,
            attempts: 0,
            failures: 0,
            puts: Vec::new(),
        }
    }

    /// Lets go of requests whose caller has gone; those that may have been committed are taken back.
    fn drop_abandoned(&mut self) {
        let mut gone = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if pending.is_abandoned() {
                gone.push(pending)
            } else {
                self.pending.push_back(pending)
            }
        }
        for pending in gone {
            if let Some(since) = pending.request.unsettled_since {
                self.undo(&pending.request, since, pending.puts);
            }
        }
    }

    fn add_chores(&mut self) {
        for chore in self.state.chores((self.clock)()) {
            let same = |p: &Pending| matches!(&p.request.work, Work::Chore(c) if *c == chore);
            if !self.pending.iter().any(same) {
                let pending = self.pending(Work::Chore(chore), None);
                self.pending.push_back(pending);
            }
        }
    }

    /// One plan: its answers, its transaction, its reads.
    async fn step(&mut self) {
        if !self.is_ready || (self.pending.is_empty() && self.unsettled.is_none()) {
            return;
        }
        if let Some(commit) = self.unsettled.take() {
            self.settle(commit).await;
            return;
        }
        let now = (self.clock)();
        let next = plan(&self.state, self.pending.iter().map(|p| &p.request), now);
        let idle = next.answers.is_empty() && next.commit.is_none() && next.reads.is_empty();
        for (id, answer) in next.answers {
            self.finish(id, answer);
        }
        if let Some(commit) = next.commit {
            self.commit(commit).await;
        }
        if !next.reads.is_empty() {
            self.read(next.reads).await;
        }
        if idle && let Some(first) = self.pending.front() {
            // No plan leaves the first request waiting for itself; if one ever did, it must not spin.
            let id = first.request.id;
            self.finish(id, Err(Error::Contended { attempts: 1 }));
        }
    }

    async fn commit(&mut self, commit: Commit) {
        let since = self.state.revision();
        self.counters.commits.add(1);
        for pending in &mut self.pending {
            pending.puts = commit.puts_of(pending.request.id);
        }
        let result = self.store.txn(commit.txn().clone()).await;
        let now = (self.clock)();
        match result {
            Ok(reply) if reply.succeeded => {
                self.backoff = None;
                for (id, reply) in commit.committed(&mut self.state, reply.revision, now) {
                    self.finish(id, Ok(reply));
                }
            }
            Ok(reply) => {
                self.backoff = None;
                self.counters.conflicts.add(1);
                for (id, error) in commit.refused(&mut self.state, &reply, now) {
                    self.finish(id, Err(error));
                }
                self.count_attempt(&commit);
            }
            Err(error) if error.commit() == Outcome::Unknown => {
                self.counters.lost_replies.add(1);
                tracing::warn!(%error, requests = commit.members().count(), "reply lost");
                self.mark_unsettled(&commit, since);
                self.unsettled = Some(commit);
            }
            Err(error) => self.fail(&commit.members().collect(), &error),
        }
    }

    fn count_attempt(&mut self, commit: &Commit) {
        let members: BTreeSet<u64> = commit.members().collect();
        let mut tired = Vec::new();
        for pending in &mut self.pending {
            if members.contains(&pending.request.id) {
                pending.attempts += 1;
                pending.request.looked.clear();
                if pending.attempts >= ATTEMPTS_MAX {
                    tired.push(pending.request.id);
                }
            }
        }
        for id in tired {
            self.finish(
                id,
                Err(Error::Contended {
                    attempts: ATTEMPTS_MAX,
                }),
            );
        }
    }

    fn mark_unsettled(&mut self, commit: &Commit, since: u64) {
        let members: BTreeSet<u64> = commit.members().collect();
        for pending in self
            .pending
            .iter_mut()
            .filter(|p| members.contains(&p.request.id))
        {
            pending.request.unsettled_since.get_or_insert(since);
        }
    }

    /// After a lost reply, before anything else: raises the fence and looks at everything the transaction compared.
    /// Planning again then finds each member either served or not, and it stays so.
    async fn settle(&mut self, commit: Commit) {
        match self.store.txn(commit.fence(&self.state)).await {
            Ok(reply) => {
                self.backoff = None;
                let now = (self.clock)();
                commit.fenced(&mut self.state, &reply, now);
                self.count_attempt(&commit);
            }
            Err(error) => {
                self.unsettled = Some(commit);
                // Nobody can be served before.
                let all = self.pending.iter().map(|p| p.request.id).collect();
                self.fail(&all, &error);
            }
        }
    }

    /// The store failed for these requests. Those that have waited long enough are told so; what may have been
    /// committed for them is taken back later.
    fn fail(&mut self, ids: &BTreeSet<u64>, error: &StoreError) {
        self.counters.failures.add(1);
        self.backoff = Some(self.backoff.map_or(BACKOFF_MIN, |b| (b * 2).min(BACKOFF_MAX)));
        let mut given_up = Vec::new();
        for pending in self.pending.iter_mut().filter(|p| ids.contains(&p.request.id)) {
            pending.failures += 1;
            let is_undo = matches!(pending.request.work, Work::Undo(_));
            if !is_undo && (pending.failures >= FAILURES_MAX || !error.is_transient()) {
                given_up.push(pending.request.id);
            }
        }
        for id in given_up {
            self.finish(
                id,
                Err(Error::Datastore {
                    reason: error.to_string(),
                }),
            );
        }
    }

    async fn read(&mut self, wanted: Vec<(u64, Vec<Bytes>)>) {
        let mut keys: BTreeSet<Bytes> = BTreeSet::new();
        let mut readers = BTreeSet::new();
        for (id, more) in wanted {
            if keys.len() + more.len() > READS_MAX && !keys.is_empty() {
                break;
            }
            if let Some(pending) = self.pending.iter_mut().find(|p| p.request.id == id) {
                pending.request.looked.extend(more.iter().cloned());
                readers.insert(id);
                keys.extend(more);
            }
        }
        let keys: Vec<Bytes> = keys.into_iter().collect();
        for key in &keys {
            self.state.want_whole(key);
        }
        self.counters.reads.add(1);
        let txn = Txn::default().then(keys.iter().map(|key| Op::get(key.clone())).collect());
        match self.store.txn(txn).await {
            Ok(reply) => {
                self.backoff = None;
                let now = (self.clock)();
                for (key, response) in keys.iter().zip(&reply.responses) {
                    let kv = OpReply::kvs(response).first();
                    self.state
                        .observe(&Observed::read(key.clone(), kv, reply.revision), now);
                }
            }
            Err(error) => {
                for pending in self
                    .pending
                    .iter_mut()
                    .filter(|p| readers.contains(&p.request.id))
                {
                    pending.request.looked.retain(|key| !keys.contains(key));
                }
                self.fail(&readers, &error);
            }
        }
    }

    /// Answers a request and forgets it. An answer that nobody takes is taken back.
    fn finish(&mut self, id: u64, result: Result<Reply, Error>) {
        let Some(at) = self.pending.iter().position(|p| p.request.id == id) else {
            return;
        };
        let Some(pending) = self.pending.remove(at) else {
            return;
        };
        if let Work::Chore(chore) = &pending.request.work {
            log_chore(*chore, &result);
        }
        let unsettled = pending.request.unsettled_since;
        // What a handle got by this very commit is newer than everything before it.
        let new_since = match &result {
            Ok(Reply::Assigned(a)) if a.fresh => Some(unsettled.unwrap_or(a.revision.saturating_sub(1))),
            _ => None,
        };
        let may_stand = matches!(result, Err(Error::Datastore { .. }));
        let is_told = pending.answer.is_none_or(|answer| answer.send(result).is_ok());
        match (new_since, unsettled) {
            (Some(since), _) if !is_told => self.undo(&pending.request, since, pending.puts),
            (None, Some(since)) if may_stand => self.undo(&pending.request, since, pending.puts),
            _ => {}
        }
    }

    /// Takes back, before anything else of that handle, what an assignment may have committed.
    fn undo(&mut self, request: &Request, since: u64, keys: Vec<Bytes>) {
        let Work::Assign(assign) = &request.work else {
            return;
        };
        let waiting = self
            .pending
            .iter()
            .filter(|p| matches!(p.request.work, Work::Undo(_)))
            .count();
        if waiting >= UNDO_MAX {
            tracing::warn!(
                handle = assign.handle,
                "too many assignments to take back, leaving this one"
            );
            return;
        }
        self.counters.undone.add(1);
        let undo = Undo {
            handle: assign.handle.clone(),
            since,
            keys,
        };
        let pending = self.pending(Work::Undo(undo), None);
        self.pending.push_front(pending);
    }
}

fn log_chore(chore: Chore, result: &Result<Reply, Error>) {
    match result {
        Ok(_) => tracing::info!(?chore, "block affinity put in order"),
        Err(error) => tracing::warn!(?chore, %error, "block affinity could not be put in order"),
    }
}

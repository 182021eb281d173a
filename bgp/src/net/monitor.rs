//! The shell of BMP and MRT: the RIB task's end here, the tasks that carry in `bmp` and `mrt`.
//!
//! ```text
//!            +--requests, 16: subscribe, walk a table, statistics--+
//! RIB task <-+                                                     +- BMP task (1 a collector), MRT tasks (1 a file)
//!            +--batches of events, at most EVENTS_MAX prefixes---->+
//! ```
//! The RIB task never waits for any of them: a watcher that does not keep up loses its subscription, says so, and starts over
//! with the whole table, which it fetches at its own pace.

mod bmp;
mod mrt;

use crate::config::{BmpConfig, MrtConfig};
use crate::family::{Family, PerFamily};
use crate::fsm::{Cause, Session};
use crate::monitor::{Event, Watched};
use crate::rib::PeerId;
use crate::speaker::{Observed, Speaker, TableSlice};
use crate::view::PrefixCounts;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests that wait for the RIB task.
const REQUESTS_MAX: usize = 16;
/// Batches that wait for one watcher.
const BATCHES_MAX: usize = 4096;
/// Prefixes in all batches that wait for one watcher: some 30 MiB.
const EVENTS_MAX: usize = 500_000;

/// What happened in one turn, shared by all watchers.
pub(super) type Batch = Arc<(SystemTime, Vec<Event>)>;

/// A watcher's end of its subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    batches: mpsc::Receiver<Batch>,
    waiting: Arc<AtomicUsize>,
    /// Peers that were in session when it began.
    pub(super) peers: Vec<Arc<Watched>>,
}

impl Subscription {
    /// The next batch; `None` when this watcher did not keep up, or the speaker has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await?;
        self.waiting.fetch_sub(weight(&batch), Ordering::Relaxed);
        Some(batch)
    }
}

fn weight(batch: &Batch) -> usize {
    let events = batch.1.iter().map(|e| match e {
        Event::Routes(_, change) => change.nlri.len() + 1,
        _ => 1,
    });
    events.sum()
}

/// A peer with its counts: prefixes, and UPDATEs treated as withdraw.
pub(super) type Counted = (Arc<Watched>, PerFamily<PrefixCounts>, u64);

/// From a watcher to the RIB task.
#[derive(Debug)]
pub(super) enum Request {
    /// Events from now on. Peers whose routes import policy rewrites are asked for them again, if it says so.
    Subscribe {
        ask_again: bool,
        answer: oneshot::Sender<Subscription>,
    },
    Walk(Family, u32, oneshot::Sender<TableSlice>),
    Statistics(oneshot::Sender<Vec<Counted>>),
    /// Who we are, and the peers in session.
    Peers(oneshot::Sender<(Ipv4Addr, u32, Vec<Arc<Watched>>)>),
}

/// A watcher's way to the RIB task.
#[derive(Clone, Debug)]
pub(super) struct Source {
    requests: mpsc::Sender<Request>,
    stop: CancellationToken,
}

impl Source {
    /// Asks; `None` when the speaker ends or the watcher is to stop.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        let answer = async {
            self.requests.send(request(tx)).await.ok()?;
            rx.await.ok()
        };
        self.stop.run_until_cancelled(answer).await.flatten()
    }

    pub(super) async fn subscribe(&self, ask_again: bool) -> Option<Subscription> {
        self.ask(|answer| Request::Subscribe { ask_again, answer }).await
    }

    pub(super) async fn walk(&self, family: Family, from: u32) -> Option<TableSlice> {
        self.ask(|answer| Request::Walk(family, from, answer)).await
    }
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Bmp(BmpConfig),
    Table(MrtConfig),
    Updates(MrtConfig),
}

#[derive(Debug)]
struct Watcher {
    batches: mpsc::Sender<Batch>,
    waiting: Arc<AtomicUsize>,
}

/// The RIB task's end.
#[derive(Debug)]
pub(super) struct Monitor {
    requests_tx: mpsc::Sender<Request>,
    requests: mpsc::Receiver<Request>,
    peers: BTreeMap<PeerId, Arc<Watched>>,
    watchers: Vec<Watcher>,
    targets: BTreeMap<Target, CancellationToken>,
    /// What has happened in this turn.
    events: Vec<Event>,
}

impl Monitor {
    pub(super) fn new() -> Self {
        let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
        Self {
            requests_tx,
            requests,
            peers: BTreeMap::new(),
            watchers: Vec::new(),
            targets: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Starts who is to be told from now on, and stops the others. Those who stay are left alone.
    pub(super) fn configure(&mut self, speaker: &mut Speaker, tasks: &mut JoinSet<()>) {
        let config = &speaker.config().clone();
        let mut wanted: Vec<Target> = config.bmp.iter().cloned().map(Target::Bmp).collect();
        let MrtConfig { table, updates } = &config.mrt;
        wanted.extend(table.is_some().then(|| {
            Target::Table(MrtConfig {
                updates: None,
                ..config.mrt.clone()
            })
        }));
        wanted.extend(updates.is_some().then(|| {
            Target::Updates(MrtConfig {
                table: None,
                ..config.mrt.clone()
            })
        }));
        self.targets.retain(|target, stop| {
            let stays = wanted.contains(target);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for target in wanted {
            if self.targets.contains_key(&target) {
                continue;
            }
            let stop = CancellationToken::new();
            let source = Source {
                requests: self.requests_tx.clone(),
                stop: stop.clone(),
            };
            match target.clone() {
                Target::Bmp(to) => {
                    let name = config.router_id.to_string();
                    tasks.spawn(bmp::run(to, name, source));
                }
                Target::Table(MrtConfig {
                    table: Some((file, every)),
                    ..
                }) => {
                    tasks.spawn(mrt::dump_tables(file, every, source));
                }
                Target::Updates(MrtConfig {
                    updates: Some(file), ..
                }) => {
                    // From now on, not from when the file is open: nothing between is missed.
                    let from_now = self.subscribe(speaker);
                    tasks.spawn(mrt::record_updates(file, source, from_now));
                }
                Target::Table(_) | Target::Updates(_) => {}
            }
            self.targets.insert(target, stop);
        }
    }

    /// A watcher more, who is told what happens from now on.
    fn subscribe(&mut self, speaker: &mut Speaker) -> Subscription {
        if self.watchers.is_empty() {
            speaker.observe(true);
        }
        // What has happened before is in the table.
        self.publish(speaker);
        let (batches_tx, batches) = mpsc::channel(BATCHES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        self.watchers.push(Watcher {
            batches: batches_tx,
            waiting: Arc::clone(&waiting),
        });
        Subscription {
            batches,
            waiting,
            peers: self.peers.values().cloned().collect(),
        }
    }

    /// All watchers are told to stop.
    pub(super) fn close(&mut self) {
        self.targets.values().for_each(CancellationToken::cancel);
        self.watchers.clear();
        self.requests.close();
    }

    /// The next request; there is always a sender.
    pub(super) async fn request(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    /// Answers a request. Whoever asked may have gone; then nobody misses the answer.
    pub(super) fn answer(
        &mut self,
        request: Request,
        speaker: &mut Speaker,
        treated: impl Fn(PeerId) -> u64,
    ) {
        match request {
            Request::Subscribe { ask_again, answer } => {
                let subscription = self.subscribe(speaker);
                if answer.send(subscription).is_err() {
                    // The next batch finds nobody there.
                    return;
                }
                let rewritten = self.peers.keys().filter(|p| ask_again && speaker.rewrites(**p));
                for peer in rewritten.copied().collect::<Vec<_>>() {
                    speaker.ask_again(peer);
                }
            }
            Request::Walk(family, from, answer) => {
                let _ = answer.send(speaker.walk(family, from));
            }
            Request::Statistics(answer) => {
                let counted = self.peers.iter().map(|(id, peer)| {
                    let counts = speaker.received_counts(*id);
                    (Arc::clone(peer), counts, treated(*id))
                });
                let _ = answer.send(counted.collect());
            }
            Request::Peers(answer) => {
                let own = speaker.own();
                let peers = self.peers.values().cloned().collect();
                let _ = answer.send((own.router_id, own.asn, peers));
            }
        }
    }

    /// A session is up; to be called after the speaker knows it.
    pub(super) fn up(&mut self, peer: PeerId, session: &Session, ports: (u16, u16), speaker: &mut Speaker) {
        self.gather(speaker);
        let Some(config) = speaker.peer_config(peer) else {
            return;
        };
        let watched = Arc::new(Watched {
            address: config.host().unwrap_or(crate::link::plain(config.address)),
            asn: session.peer_asn,
            router_id: session.router_id,
            local_address: crate::link::plain(session.local_address),
            local_asn: config.local_asn(speaker.own().asn),
            ports,
            opens: Arc::clone(&session.opens),
            add_path_in: session.add_path_in,
            since: SystemTime::now(),
        });
        self.peers.insert(peer, Arc::clone(&watched));
        self.say(Event::Up(watched));
    }

    /// A session is over.
    pub(super) fn down(&mut self, peer: PeerId, cause: &Cause, speaker: &mut Speaker) {
        self.gather(speaker);
        if let Some(watched) = self.peers.remove(&peer) {
            self.say(Event::Down(watched, cause.clone()));
        }
    }

    fn say(&mut self, event: Event) {
        if !self.watchers.is_empty() {
            self.events.push(event);
        }
    }

    /// Takes what the speaker has observed, in its place among the sessions' beginnings and ends.
    fn gather(&mut self, speaker: &mut Speaker) {
        for observed in speaker.observed() {
            let event = match observed {
                Observed::Routes(peer, change) => {
                    let watched = self.peers.get(&peer);
                    watched.map(|w| Event::Routes(Arc::clone(w), change))
                }
                Observed::EndOfRib(peer, family) => {
                    let watched = self.peers.get(&peer);
                    watched.map(|w| Event::EndOfRib(Arc::clone(w), family))
                }
            };
            self.events.extend(event);
        }
    }

    /// Hands what has happened in this turn to the watchers. Who does not keep up is a watcher no more.
    pub(super) fn publish(&mut self, speaker: &mut Speaker) {
        if self.watchers.is_empty() {
            return;
        }
        self.gather(speaker);
        if self.events.is_empty() {
            return;
        }
        let batch: Batch = Arc::new((SystemTime::now(), std::mem::take(&mut self.events)));
        let weight = weight(&batch);
        self.watchers.retain(|watcher| {
            let waiting = watcher.waiting.fetch_add(weight, Ordering::Relaxed);
            // A batch that is too large by itself may pass when nothing else waits.
            let fits = waiting == 0 || waiting + weight <= EVENTS_MAX;
            fits && watcher.batches.try_send(Arc::clone(&batch)).is_ok()
        });
        if self.watchers.is_empty() {
            speaker.observe(false);
        }
    }
}

#[cfg(test)]
mod tests;

//! The RIB task: it owns the speaker, and with it all routes. Work is done in slices of about a millisecond; between them the
//! task lets others run.

mod commands;
mod peers;

use super::advert::Adverts;
use super::bfd::{Bfd, BfdChange};
use super::handle::Command;
use super::hosts::Hosts;
use super::listener::Accepted;
use super::monitor::Monitor;
use super::peer_task::{PeerCommand, PeerEvents, until};
use super::report::SharedReport;
use super::watchers::Watchers;
use crate::config::Secret;
use crate::fsm::Stop;
use crate::rib::PeerId;
use crate::speaker::{Output, Speaker};
use crate::view::{Best, Converged};
use crate::wire::Notification;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Peer tasks' messages that wait: each is one read of a socket.
const EVENTS_MAX: usize = 64;
/// Messages taken at once.
const EVENTS_PER_TURN: usize = 16;
/// After so long a turn others run, above all those that send KEEPALIVEs. One message is worked through to its end: a read
/// of 256 KiB, about ten milliseconds at worst.
const TURN: Duration = Duration::from_millis(2);
/// Messages that wait for one peer task; the speaker's window is far below.
const PEER_COMMANDS_MAX: usize = 64;
/// Connections that wait to be given to their peers.
const ACCEPTED_MAX: usize = 64;
/// How long peer tasks may take to say goodbye.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// The same before a restart: as long as a peer on a loaded machine takes to close its end, so that most are not reset.
const RESTART_WAIT: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct PeerHandle {
    commands: mpsc::Sender<PeerCommand>,
    report: SharedReport,
    /// What it is known by.
    address: IpAddr,
    /// What people call it.
    name: String,
    /// The other end of its last session: a peer that is an interface is known by no address.
    remote: IpAddr,
    /// Connections handed over.
    accepted: u64,
    /// The task has no connection left, as far as is known.
    vacant: bool,
    /// A dynamic neighbour whose session has never been established.
    pending: bool,
}

/// One address that we listen on.
#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    task: AbortHandle,
    /// MD5 keys set on it.
    keyed: BTreeMap<IpNet, Secret>,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct RibTask {
    speaker: Speaker,
    peers: BTreeMap<PeerId, PeerHandle>,
    tasks: JoinSet<()>,
    listeners: BTreeMap<SocketAddr, Listener>,
    events_tx: mpsc::Sender<PeerEvents>,
    events: mpsc::Receiver<PeerEvents>,
    accepted_tx: mpsc::Sender<Accepted>,
    accepted: mpsc::Receiver<Accepted>,
    converged: watch::Sender<Converged>,
    next_hops: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    bfd: Bfd,
    adverts: Adverts,
    watchers: Watchers,
    /// Somebody programs the best paths; otherwise they are kept for watchers only.
    subscribed: bool,
    monitor: Monitor,
    best_wanted: Option<oneshot::Sender<BTreeMap<IpNet, Option<Best>>>>,
    /// Best paths that were made for somebody who did not wait for them.
    untaken: BTreeMap<IpNet, Option<Best>>,
    /// Connections closed before a byte was read.
    refused: u64,
    /// Of these, those of hosts that had too many without a session.
    refused_of_crowds: u64,
    hosts: Hosts,
    /// Dynamic neighbours are being turned away, and operators were told.
    crowded: bool,
    panics_of_departed: u64,
}

impl RibTask {
    pub(super) fn new(
        speaker: Speaker,
        converged: watch::Sender<Converged>,
        next_hops: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    ) -> Self {
        let (events_tx, events) = mpsc::channel(EVENTS_MAX);
        let (accepted_tx, accepted) = mpsc::channel(ACCEPTED_MAX);
        let (bfd, bfd_task) = Bfd::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(bfd_task.run());
        let (adverts, advert_task) = Adverts::new();
        tasks.spawn(advert_task.run());
        Self {
            speaker,
            peers: BTreeMap::new(),
            tasks,
            listeners: BTreeMap::new(),
            events_tx,
            events,
            accepted_tx,
            accepted,
            converged,
            next_hops,
            bfd,
            adverts,
            watchers: Watchers::default(),
            subscribed: false,
            monitor: Monitor::new(),
            best_wanted: None,
            untaken: BTreeMap::new(),
            refused: 0,
            refused_of_crowds: 0,
            hosts: Hosts::default(),
            crowded: false,
            panics_of_departed: 0,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let mut waiting = VecDeque::with_capacity(EVENTS_PER_TURN);
        let mut busy = true;
        loop {
            let deadline = self.speaker.deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => return self.end(&Stop::Restart).await,
                    Some(Command::Shutdown(text)) => {
                        return self.end(&Stop::Notify(Notification::shutdown(&text))).await;
                    }
                    Some(command) => self.command(command),
                },
                _ = self.events.recv_many(&mut events, EVENTS_PER_TURN), if waiting.is_empty() => {
                    waiting.extend(events.drain(..));
                }
                change = self.bfd.changed() => self.bfd_changed(&change),
                found = self.adverts.found() => self.neighbour_found(&found),
                request = self.monitor.request() => self.monitor_request(request),
                Some((stream, from)) = self.accepted.recv() => self.accept(stream, from),
                Some(joined) = self.tasks.join_next() => supervise(joined),
                () = until(deadline) => {
                    self.speaker.tick(Instant::now());
                    self.dismiss_late();
                }
                () = std::future::ready(()), if busy => {}
            }
            let begun = Instant::now();
            while begun.elapsed() < TURN
                && let Some((peer, events)) = waiting.pop_front()
            {
                self.peer_events(peer, events);
            }
            self.monitor.publish(&mut self.speaker);
            busy = !waiting.is_empty();
            busy |= self.speaker.work(Instant::now());
            while let Some(output) = self.speaker.poll() {
                self.apply(output);
            }
            if let Some(wanted) = self.speaker.next_hops_wanted() {
                self.next_hops.send_replace(Arc::new(wanted));
            }
            self.answer_best();
            // Those whom this turn woke stand behind this task, and while it finds something to do nobody else may take them.
            tokio::task::yield_now().await;
        }
    }

    fn apply(&mut self, output: Output) {
        match output {
            Output::Send { peer, session, batch } => self.tell(peer, PeerCommand::Send { session, batch }),
            Output::Reset(peer, notification) => self.tell(peer, PeerCommand::Reset(notification)),
            Output::Warning(peer, what) => {
                if let Some(handle) = self.peers.get(&peer) {
                    tracing::warn!(peer = %handle.name, "{what}");
                    handle.report.event(Instant::now(), what);
                }
            }
            Output::Alarm(what) => tracing::warn!("{what}"),
            Output::Converged(converged, own) => {
                tracing::info!(
                    ipv4 = converged.ipv4,
                    ipv6 = converged.ipv6,
                    "bgp route selection is settled"
                );
                self.converged.send_replace(converged);
                for (peer, handle) in &self.peers {
                    if let Some(config) = self.speaker.peer_config(*peer) {
                        let _ = handle
                            .commands
                            .try_send(PeerCommand::Configure(Box::new(config.clone()), own));
                    }
                }
            }
        }
    }

    /// Tells a peer task something. Its channel holds far more than the speaker's window; should it be full or closed all the
    /// same, the task is not what it should be, and its peer finds its session silent and ends it.
    fn tell(&self, peer: PeerId, command: PeerCommand) {
        if let Some(handle) = self.peers.get(&peer)
            && handle.commands.try_send(command).is_err()
        {
            tracing::warn!(peer = %handle.name, "a bgp peer task does not take its commands");
        }
    }

    fn monitor_request(&mut self, request: super::monitor::Request) {
        let peers = &self.peers;
        let treated = |peer| {
            let handle: Option<&PeerHandle> = peers.get(&peer);
            handle.map_or(0, |h| h.report.lock().counters.treated_as_withdraw)
        };
        self.monitor.answer(request, &mut self.speaker, treated);
    }

    /// Starts and stops those who are told what the speaker hears.
    pub(super) fn watch(&mut self) {
        self.monitor.configure(&mut self.speaker, &mut self.tasks);
    }

    fn bfd_changed(&self, change: &BfdChange) {
        let Some(peer) = self.speaker.peer_at(change.peer) else {
            return;
        };
        if let Some(handle) = self.peers.get(&peer) {
            let what = format!("bfd: {} to {}", change.change.from, change.change.to);
            handle.report.event(Instant::now(), what);
        }
        let running = self.speaker.session(peer).map(|s| s.id);
        if change.failed && running == Some(change.session) {
            self.tell(peer, PeerCommand::Reset(Notification::BFD_DOWN));
        }
    }

    async fn end(mut self, how: &Stop) {
        self.bfd.close();
        self.adverts.close();
        self.monitor.close();
        self.listeners.values().for_each(|l| l.task.abort());
        for handle in self.peers.values() {
            let _ = handle.commands.try_send(PeerCommand::Stop(how.clone()));
        }
        let all = async {
            loop {
                tokio::select! {
                    // Peer tasks hand over their last events; nobody needs them, but they must not wait for a place.
                    _ = self.events.recv() => {}
                    joined = self.tasks.join_next() => if joined.is_none() { return },
                }
            }
        };
        // Before a restart nothing was said that a reset could destroy: who keeps his end open need not be waited for.
        let restarts = matches!(how, Stop::Restart);
        let wait = if restarts { RESTART_WAIT } else { STOP_WAIT };
        if tokio::time::timeout(wait, all).await.is_err() && !restarts {
            tracing::warn!("some bgp peers did not take their goodbye in time");
        }
    }
}

/// A panic in a task's own code is none of a session's: half a speaker is worse than none.
fn supervise(joined: Result<(), tokio::task::JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        tracing::error!("a bgp task panicked");
        std::panic::resume_unwind(error.into_panic());
    }
}

//! The RIB task: it owns the speaker, and with it all routes. Work is done in slices of about a millisecond; between them the
//! task lets others run.

use super::bfd::{Bfd, BfdChange};
use super::handle::{Command, ConfigureError, Reset};
use super::listener::{self, Accepted};
use super::monitor::Monitor;
use super::peer_task::{PeerCommand, PeerEvent, PeerEvents, PeerTask, until};
use super::report::SharedReport;
use super::watchers::Watchers;
use crate::bfd::Demand;
use crate::config::{Config, PeerConfig, Secret};
use crate::family::PerFamily;
use crate::fsm::Stop;
use crate::rib::PeerId;
use crate::speaker::{Output, PeerChange, Speaker};
use crate::view::{Best, Converged, NegotiatedView, Notice, PeerState, PeerStatus, PrefixCounts};
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

#[derive(Debug)]
struct PeerHandle {
    commands: mpsc::Sender<PeerCommand>,
    report: SharedReport,
    address: IpAddr,
    /// Connections handed over.
    accepted: u64,
    /// The task has no connection left, as far as is known.
    vacant: bool,
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
    watchers: Watchers,
    /// Somebody programs the best paths; otherwise they are kept for watchers only.
    subscribed: bool,
    monitor: Monitor,
    best_wanted: Option<oneshot::Sender<BTreeMap<IpNet, Option<Best>>>>,
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
            watchers: Watchers::default(),
            subscribed: false,
            monitor: Monitor::new(),
            best_wanted: None,
        }
    }

    /// Listens on these addresses and no others, as the peers' security asks.
    pub(super) fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), ConfigureError> {
        self.listeners.retain(|address, listener| {
            let wanted = addresses.contains(address);
            if !wanted {
                listener.task.abort();
            }
            wanted
        });
        let peers: Vec<PeerConfig> = self
            .speaker
            .peers()
            .filter_map(|p| self.speaker.peer_config(p))
            .cloned()
            .collect();
        let ranges = self.speaker.ranges().to_vec();
        for address in addresses {
            let failed = |source| ConfigureError::Listen {
                address: *address,
                source,
            };
            if !self.listeners.contains_key(address) {
                let socket = Arc::new(super::dial::listen(*address).map_err(failed)?);
                let task = self
                    .tasks
                    .spawn(listener::run(Arc::clone(&socket), self.accepted_tx.clone()));
                self.listeners.insert(
                    *address,
                    Listener {
                        socket,
                        task,
                        keyed: BTreeMap::new(),
                    },
                );
            }
            if let Some(listener) = self.listeners.get_mut(address) {
                super::dial::protect_listener(
                    &listener.socket,
                    address.is_ipv6(),
                    &peers,
                    &ranges,
                    &mut listener.keyed,
                )
                .map_err(failed)?;
            }
        }
        Ok(())
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
                    tracing::warn!(peer = %handle.address, "{what}");
                    handle.report.event(Instant::now(), what);
                }
            }
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
            tracing::warn!(peer = %handle.address, "a bgp peer task does not take its commands");
        }
    }

    pub(super) fn peers_changed(&mut self, changes: Vec<PeerChange>) {
        let own = self.speaker.own();
        for change in changes {
            match change {
                PeerChange::Added(peer, config) => {
                    let (commands, rx) = mpsc::channel(PEER_COMMANDS_MAX);
                    let (report, address) = (SharedReport::new(Instant::now()), config.address);
                    let task = PeerTask::new(peer, *config, own, report.clone());
                    self.tasks.spawn(task.run(rx, self.events_tx.clone()));
                    self.peers.insert(
                        peer,
                        PeerHandle {
                            commands,
                            report,
                            address,
                            accepted: 0,
                            vacant: false,
                        },
                    );
                }
                PeerChange::Changed(peer, config) => {
                    self.tell(peer, PeerCommand::Configure(config, own));
                    self.want_bfd(peer);
                }
                PeerChange::Removed(peer) => {
                    self.session_changed(
                        peer,
                        PeerState::Idle,
                        Some("it is no longer configured".to_owned()),
                    );
                    self.tell(peer, PeerCommand::Stop(Stop::Notify(Notification::DECONFIGURED)));
                    if let Some(handle) = self.peers.remove(&peer) {
                        self.bfd.want(handle.address, None);
                    }
                }
            }
        }
    }

    fn accept(&mut self, stream: tokio::net::TcpStream, from: SocketAddr) {
        let address = from.ip().to_canonical();
        if self.speaker.peer_at(address).is_none()
            && let Some(welcome) = self.speaker.welcome(address)
        {
            self.peers_changed(vec![welcome]);
        }
        let peer = self.speaker.peer_at(address);
        match peer.and_then(|p| self.peers.get_mut(&p)) {
            // A flood of connections must not take the places that the speaker's window counts on.
            Some(handle) if handle.commands.capacity() > PEER_COMMANDS_MAX / 2 => {
                handle.vacant = false;
                if handle.commands.try_send(PeerCommand::Accepted(stream)).is_ok() {
                    handle.accepted += 1;
                }
            }
            Some(_) => tracing::debug!(%from, "bgp connection refused: too many at once"),
            None => tracing::debug!(%from, "bgp connection from an address that is no peer"),
        }
    }

    /// Forgets a dynamic neighbour that has no connection left.
    fn dismiss(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|h| h.vacant)
            && let Some(removed) = self.speaker.dismiss(Instant::now(), peer)
        {
            self.peers_changed(vec![removed]);
        }
    }

    /// Dynamic neighbours whose routes were kept for their return, in vain.
    fn dismiss_late(&mut self) {
        let vacant = self.peers.iter().filter(|(_, h)| h.vacant).map(|(p, _)| *p);
        for peer in vacant.collect::<Vec<_>>() {
            self.dismiss(peer);
        }
    }

    fn session_changed(&self, peer: PeerId, state: PeerState, why: Option<String>) {
        if let Some(handle) = self.peers.get(&peer) {
            let peer = handle.address;
            self.watchers.tell(|| Notice::Session { peer, state, why });
        }
    }

    fn peer_events(&mut self, peer: PeerId, events: Vec<PeerEvent>) {
        let now = Instant::now();
        if !self.peers.contains_key(&peer) {
            return;
        }
        for event in events {
            match event {
                PeerEvent::Up(session, ports) => {
                    self.session_changed(peer, PeerState::Established, None);
                    self.speaker.up(now, peer, (*session).clone());
                    self.monitor.up(peer, &session, ports, &mut self.speaker);
                    self.want_bfd(peer);
                }
                PeerEvent::Down(down) => {
                    self.session_changed(peer, PeerState::Idle, Some(down.cause.to_string()));
                    self.monitor.down(peer, &down.cause, &mut self.speaker);
                    self.speaker.down(now, peer, &down);
                    self.want_bfd(peer);
                }
                PeerEvent::Routes(session, routes) => self.speaker.routes(now, peer, session, &routes),
                PeerEvent::Refresh(session, refresh) => self.speaker.refresh(now, peer, session, refresh),
                PeerEvent::Sent(session) => self.speaker.sent(peer, session),
                PeerEvent::Vacant(accepted) => {
                    if let Some(handle) = self.peers.get_mut(&peer) {
                        handle.vacant = handle.accepted == accepted;
                    }
                    self.dismiss(peer);
                }
            }
        }
    }

    /// BFD runs beside an established session that is configured for it, from the session's own address. A link-local one would
    /// need its link, too, and is not served.
    fn want_bfd(&self, peer: PeerId) {
        let (Some(config), Some(handle)) = (self.speaker.peer_config(peer), self.peers.get(&peer)) else {
            return;
        };
        let linked = matches!(handle.address, IpAddr::V6(a) if a.is_unicast_link_local());
        let demand = config.bfd.zip(self.speaker.session(peer)).filter(|_| !linked);
        let demand = demand.map(|(params, session)| Demand {
            params,
            local: session.local_address,
            session: session.id,
        });
        self.bfd.want(handle.address, demand);
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
        self.monitor.configure(self.speaker.config(), &mut self.tasks);
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

    fn command(&mut self, command: Command) {
        // Whoever asked may have gone; then nobody misses the answer.
        match command {
            Command::Configure(config, answer) => {
                let _ = answer.send(self.configure(*config));
            }
            Command::Originate(routes) => self.speaker.originate(routes),
            Command::OwnRoutesKnown => self.speaker.own_routes_known(),
            Command::NextHops(said) => self.speaker.next_hops_reached(&said),
            Command::Peers(answer) => {
                let _ = answer.send(self.show_peers());
            }
            Command::Routes(query, answer) => {
                let _ = answer.send(self.speaker.show_routes(&query));
            }
            Command::Events(address, answer) => {
                let handle = self.speaker.peer_at(address).and_then(|p| self.peers.get(&p));
                let _ = answer.send(
                    handle
                        .map(|h| h.report.events(Instant::now()))
                        .unwrap_or_default(),
                );
            }
            Command::Reset(address, how, answer) => {
                let _ = answer.send(self.reset(address, how));
            }
            Command::Subscribe => {
                self.subscribed = true;
                self.speaker.subscribe();
            }
            Command::Watch(answer) => {
                if !self.watchers.any() && !self.subscribed {
                    self.speaker.subscribe_from_now();
                }
                let _ = answer.send(self.watchers.join());
            }
            Command::BestChanges(answer) => self.best_wanted = Some(answer),
            // Both end the loop before they come here.
            Command::Stop | Command::Shutdown(_) => {}
        }
    }

    fn configure(&mut self, config: Config) -> Result<(), ConfigureError> {
        let listen = config.listen.clone();
        let changes = self.speaker.configure(Instant::now(), config)?;
        self.peers_changed(changes);
        self.watch();
        self.listen(&listen)
    }

    fn reset(&mut self, address: IpAddr, how: Reset) -> bool {
        let Some(peer) = self.speaker.peer_at(address) else {
            return false;
        };
        match how {
            Reset::Hard => self.tell(peer, PeerCommand::Reset(Notification::RESET)),
            Reset::Soft => {
                self.speaker.soft_reset(peer);
            }
        }
        true
    }

    /// Without anybody who programs best paths, watchers are shown them, and nobody keeps them when the last has gone.
    fn show_best(&mut self) {
        if self.subscribed || !self.watchers.has_channel() {
            return;
        }
        if !self.watchers.any() {
            self.speaker.unsubscribe();
        } else if self.speaker.has_best_changes() {
            self.watchers.best(&self.speaker.best_changes());
        }
    }

    fn answer_best(&mut self) {
        self.show_best();
        if self.best_wanted.is_none() || !self.speaker.has_best_changes() {
            return;
        }
        let changes = self.speaker.best_changes();
        if changes.is_empty() {
            return;
        }
        self.watchers.best(&changes);
        if let Some(answer) = self.best_wanted.take()
            && answer.send(changes).is_err()
        {
            // The consumer has gone with changes in its hands: the next one starts over anyway.
            tracing::debug!("best-path changes were made for nobody");
        }
    }

    fn show_peers(&self) -> Vec<PeerStatus> {
        let (now, counts) = (Instant::now(), self.speaker.prefix_counts());
        let own = self.speaker.own().asn;
        let mut peers: Vec<PeerStatus> = self
            .peers
            .iter()
            .filter_map(|(peer, handle)| {
                let config = self.speaker.peer_config(*peer)?;
                let prefixes = counts.get(peer).copied().unwrap_or_default();
                let mut status = status(now, config, own, handle, prefixes);
                (status.counters.updates_out, status.counters.octets_out) = self.speaker.sent_counts(*peer);
                status.bfd = self.bfd.view(config.address);
                Some(status)
            })
            .collect();
        peers.sort_by_key(|p| p.address);
        peers
    }

    async fn end(mut self, how: &Stop) {
        self.bfd.close();
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
        if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
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

fn status(
    now: Instant,
    config: &PeerConfig,
    own_asn: u32,
    handle: &PeerHandle,
    prefixes: PerFamily<PrefixCounts>,
) -> PeerStatus {
    let report = handle.report.lock();
    let negotiated = report.session.as_ref().map(|s| NegotiatedView {
        router_id: s.router_id,
        local_address: s.local_address,
        hold_secs: s.hold_secs,
        families: s.families,
        four_octet_as: s.four_octet_as,
        route_refresh: s.route_refresh,
        graceful_restart: s.restart.map(|r| r.listed()).unwrap_or_default(),
        restart_secs: s.restart.map_or(0, |r| r.restart_secs),
        notification_restart: s.notification_restart,
        enhanced_refresh: s.enhanced_refresh,
        message_max: s.message_max,
        extended_next_hop: s.extended_next_hop,
        add_path_in: s.add_path_in,
        add_path_out: s.add_path_out,
        long_lived_secs: PerFamily::from_fn(|f| {
            s.long_lived.and_then(|l| *l.families.at(f)).map(|l| l.stale_secs)
        }),
        capabilities: s.capabilities.clone(),
        described_sent: report.offered.clone(),
        described_received: s.described.clone(),
    });
    PeerStatus {
        address: config.address,
        description: config.description.clone(),
        asn: config.asn,
        session: config.session_type(own_asn),
        state: report.state,
        state_age: now.duration_since(report.since),
        established_count: report.established_count,
        prefixes,
        last_error_sent: report.last_error_sent.clone(),
        last_error_received: report.last_error_received.clone(),
        negotiated,
        counters: report.counters,
        config: Box::new(config.clone()),
        bfd: None,
    }
}

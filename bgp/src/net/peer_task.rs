//! One task a peer: it runs the FSM and carries its connections' octets. A panic in the FSM ends the session, not the task.

use super::hosts::Place;
use super::link::{Ends, Happened, Link, Reading};
use super::permit::Permit;
use super::report::SharedReport;
use crate::config::PeerConfig;
use crate::fsm::{Cause, ConnId, Down, Input, Output, Own, Peer, Session, Stop};
use crate::rib::PeerId;
use crate::speaker::Batch;
use crate::wire::{Notification, RouteRefresh, Routes};
use std::future::poll_fn;
use std::net::Ipv6Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// After a panic the peer is held down so long, after each further one twice as long.
const PANIC_HOLD: Duration = Duration::from_secs(60);
/// But no longer.
const PANIC_HOLD_MAX: Duration = Duration::from_secs(600);
/// Connections of one peer that are being closed: each lingers for two seconds, and who opens one after another must not
/// pile them up.
const CLOSING_MAX: usize = 4;

/// From the RIB task to a peer task.
#[derive(Debug)]
pub(super) enum PeerCommand {
    Accepted(TcpStream, Place),
    /// Who the neighbour on the peer's link is.
    Neighbour(Ipv6Addr),
    Send {
        session: u32,
        batch: Batch,
    },
    Configure(Box<PeerConfig>, Own),
    Reset(Notification),
    /// Ends the task.
    Stop(Stop),
}

/// From a peer task to the RIB task.
#[derive(Debug)]
pub(super) enum PeerEvent {
    Up(Box<Session>, Ends),
    Down(Down),
    Routes(u32, Routes),
    Refresh(u32, RouteRefresh),
    /// A batch of this session is through.
    Sent(u32),
    /// No connection is left, after so many that were accepted.
    Vacant(u64),
}

/// What happened to a peer, in order.
pub(super) type PeerEvents = (PeerId, Vec<PeerEvent>);

pub(super) struct PeerTask {
    id: PeerId,
    fsm: Peer,
    own: Own,
    links: Vec<Link>,
    /// The connection of the running session, and the session.
    session: Option<(ConnId, u32)>,
    /// A connection has octets that were not read yet.
    readable: bool,
    pending: Vec<PeerEvent>,
    report: SharedReport,
    held_until: Option<Instant>,
    stopping: bool,
    /// Connections handed over so far, and how many of them [`PeerEvent::Vacant`] has told of.
    accepted: u64,
    vacant_told: u64,
    /// Who was found on the peer's link.
    neighbour: Option<Ipv6Addr>,
}

impl PeerTask {
    pub(super) fn new(id: PeerId, config: PeerConfig, own: Own, report: SharedReport) -> Self {
        let seed = crate::wire::attr::hash_octets(config.address.to_string().as_bytes());
        Self {
            id,
            fsm: Peer::new(config, own, seed),
            own,
            links: Vec::new(),
            session: None,
            readable: false,
            pending: Vec::new(),
            report,
            held_until: None,
            stopping: false,
            accepted: 0,
            vacant_told: 0,
            neighbour: None,
        }
    }

    /// Runs until it is stopped or the RIB task is gone.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<PeerCommand>,
        rib: mpsc::Sender<PeerEvents>,
    ) {
        let mut permit = Permit::None;
        self.step(Input::Start);
        loop {
            if self.links.is_empty() && self.vacant_told < self.accepted {
                self.vacant_told = self.accepted;
                self.pending.push(PeerEvent::Vacant(self.accepted));
            }
            if !self.pending.is_empty() {
                permit.want(&rib);
                permit.send(self.id, &mut self.pending);
            }
            // A permit before a read: what is read can be handed over. But not before there is something to read: those of
            // idle peers would be missing elsewhere.
            if self.readable {
                permit.want(&rib);
            } else if self.pending.is_empty() {
                permit = Permit::None;
            }
            if self.stopping && self.links.is_empty() && self.pending.is_empty() {
                return;
            }
            let deadline = self.deadline();
            let reading = match (self.readable, &permit) {
                (false, _) => Reading::Ask,
                (true, Permit::Held(_)) => Reading::Take,
                (true, _) => Reading::Wait,
            };
            tokio::select! {
                open = permit.granted() => if !open {
                    return;
                },
                // Told to stop, it still has its goodbye to say; nobody will tell it anything more.
                command = commands.recv(), if !self.stopping => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = until(deadline) => self.tick(),
                (id, what) = poll_links(&mut self.links, reading) => self.happened(id, what),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let links = self.links.iter().filter_map(Link::closing_until);
        links.chain(self.fsm.deadline()).chain(self.held_until).min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.links
            .retain(|l| l.closing_until().is_none_or(|until| until > now));
        if self.held_until.take_if(|until| *until <= now).is_some() {
            self.step(Input::Start);
        }
        self.step(Input::Tick);
    }

    fn command(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::Accepted(stream, place) => self.accepted(stream, place),
            PeerCommand::Neighbour(address) => {
                if self.neighbour.replace(address) != Some(address) {
                    let what = format!("the neighbour on the link is {address}");
                    self.report.event(Instant::now(), what);
                    self.step(Input::Retry);
                }
            }
            PeerCommand::Send { session, batch } => self.send(session, batch),
            PeerCommand::Configure(config, own) => {
                self.own = own;
                if config.password != self.fsm.config().password {
                    self.rekey(&config);
                }
                self.step(Input::Configure(config, own));
            }
            PeerCommand::Reset(notification) => self.step(Input::Stop(Stop::Reset(notification))),
            PeerCommand::Stop(stop) => {
                self.stopping = true;
                self.step(Input::Stop(stop));
            }
        }
    }

    /// A new MD5 key comes into force on running connections without ending them.
    fn rekey(&mut self, config: &PeerConfig) {
        for link in &self.links {
            if let Err(error) = link.rekey(config) {
                self.report.event(
                    Instant::now(),
                    format!("the new TCP MD5 key could not be set: {error}"),
                );
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, place: Place) {
        self.accepted += 1;
        let Ok(local) = super::dial::local_address(&stream) else {
            return;
        };
        let _ = stream.set_nodelay(true);
        if let Err(error) = super::dial::protect(&stream, self.fsm.config()) {
            self.report.event(
                Instant::now(),
                format!("connection refused: its socket cannot be protected: {error}"),
            );
            return;
        }
        let closing = self.links.iter().filter(|l| l.closing_until().is_some());
        if closing.count() >= CLOSING_MAX
            && let Some(oldest) = self.links.iter().position(|l| l.closing_until().is_some())
        {
            self.links.remove(oldest);
        }
        let id = self.fsm.conn_id();
        self.links.push(Link::open(id, stream, place));
        self.step(Input::Accepted(id, local));
    }

    fn send(&mut self, session: u32, batch: Batch) {
        let Some((conn, _)) = self.session.filter(|(_, s)| *s == session) else {
            return;
        };
        let Some(link) = self.links.iter_mut().find(|l| l.id == conn) else {
            return;
        };
        let last = batch.parts.len().saturating_sub(1);
        for (place, part) in batch.parts.into_iter().enumerate() {
            link.queue(part, (place == last).then_some(session));
        }
        self.step(Input::Queued(conn));
    }

    fn happened(&mut self, id: ConnId, what: Happened) {
        match what {
            Happened::Connected(local) => self.step(Input::Connected(id, local)),
            Happened::Readable => self.readable = true,
            Happened::Unreadable => self.readable = false,
            Happened::Read => {
                self.readable = false;
                let Some(link) = self.links.iter_mut().find(|l| l.id == id) else {
                    return;
                };
                let mut inbox = std::mem::take(&mut link.inbox);
                self.step(Input::Bytes(id, &mut inbox));
                if let Some(link) = self.links.iter_mut().find(|l| l.id == id) {
                    link.inbox = inbox;
                    link.trim();
                }
            }
            Happened::Wrote { drained, batches } => {
                self.pending.extend(batches.into_iter().map(PeerEvent::Sent));
                self.step(Input::Written { conn: id, drained });
            }
            Happened::Closed(why) => {
                self.readable = false;
                self.links.retain(|l| l.id != id);
                self.step(Input::Closed(id, why));
            }
            Happened::Gone => self.links.retain(|l| l.id != id),
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Instant::now();
        let fsm = &mut self.fsm;
        if catch_unwind(AssertUnwindSafe(|| fsm.handle(now, input))).is_err() {
            self.panicked(now);
        }
        while let Some(output) = self.fsm.poll() {
            self.apply(now, output);
        }
        self.report.update(now, &self.fsm);
    }

    /// The session ends with Cease 6/8, and the peer is held down.
    fn panicked(&mut self, now: Instant) {
        tracing::error!(peer = %self.fsm.config().name(), "a bgp session panicked and was closed");
        self.report
            .event(now, "internal error: the session was closed".into());
        let mut octets = Vec::new();
        Notification::OUT_OF_RESOURCES.encode(&mut octets);
        for link in &mut self.links {
            link.queue(octets.clone().into(), None);
        }
        self.links.retain_mut(|l| !l.close(now));
        if let Some((_, session)) = self.session.take() {
            let cause = Cause::Sent(Notification::OUT_OF_RESOURCES);
            let retain = crate::family::Families::NONE;
            self.pending.push(PeerEvent::Down(Down {
                session,
                retain,
                restart_secs: 0,
                long_lived_secs: crate::family::PerFamily::default(),
                cause,
            }));
        }
        let seed = crate::wire::attr::hash_octets(b"after a panic");
        self.fsm = self.fsm.after_panic(self.own, seed);
        let times = u32::try_from(self.fsm.counters().panics).unwrap_or(u32::MAX);
        let hold = PANIC_HOLD * 2_u32.saturating_pow(times.saturating_sub(1)).min(16);
        self.held_until = Some(now + hold.min(PANIC_HOLD_MAX));
    }

    fn apply(&mut self, now: Instant, output: Output) {
        let session = self.session.map_or(0, |(_, s)| s);
        match output {
            Output::Dial(id) => {
                self.links
                    .push(Link::dialling(id, self.fsm.config().clone(), self.neighbour))
            }
            Output::Send(id, octets) => {
                if let Some(link) = self.links.iter_mut().find(|l| l.id == id) {
                    link.queue(octets.into(), None);
                }
            }
            Output::Close(id) => self.links.retain_mut(|l| l.id != id || !l.close(now)),
            Output::Up(conn, up) => {
                tracing::info!(peer = %self.fsm.config().name(), "bgp session established");
                self.session = Some((conn, up.id));
                let link = self.links.iter_mut().find(|l| l.id == conn);
                let ends = link.map(|link| {
                    link.established();
                    link.ends()
                });
                self.pending.push(PeerEvent::Up(up, ends.unwrap_or_default()));
            }
            Output::Down(down) => {
                tracing::info!(peer = %self.fsm.config().name(), cause = %down.cause, "bgp session ended");
                self.session = None;
                self.pending.push(PeerEvent::Down(down));
            }
            Output::Routes(routes) => self.pending.push(PeerEvent::Routes(session, routes)),
            Output::Refresh(refresh) => self.pending.push(PeerEvent::Refresh(session, refresh)),
            Output::Event(what) => self.report.event(now, what),
        }
    }
}

/// Waits for something to happen on one of the links.
async fn poll_links(links: &mut [Link], reading: Reading) -> (ConnId, Happened) {
    poll_fn(|cx| {
        for link in links.iter_mut() {
            if let Poll::Ready(what) = link.poll(cx, reading) {
                return Poll::Ready((link.id, what));
            }
        }
        match reading {
            Reading::Take => Poll::Ready((ConnId(0), Happened::Unreadable)),
            Reading::Ask | Reading::Wait => Poll::Pending,
        }
    })
    .await
}

/// Sleeps until then; for ever without a deadline.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn each_panic_is_counted_and_holds_the_peer_down_for_longer() {
        let own = Own {
            asn: 65000,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            restarting: false,
            forwarding: crate::family::Families::NONE,
        };
        let config = PeerConfig::new(Ipv4Addr::new(10, 0, 0, 2).into(), 65001);
        let report = SharedReport::new(Instant::now());
        let mut task = PeerTask::new(PeerId(1), config, own, report.clone());
        let now = Instant::now();
        let held: Vec<u64> = (0..6)
            .map(|_| {
                task.panicked(now);
                task.held_until.unwrap().duration_since(now).as_secs()
            })
            .collect();
        assert_eq!(held, [60, 120, 240, 480, 600, 600]);
        task.step(Input::Tick);
        assert_eq!(report.lock().counters.panics, 6);
    }
}

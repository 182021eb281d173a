//! The bench's BGP speakers: all sessions in one thread, on one epoll.

use crate::conn::Conn;
use crate::wire::{self, Prefix};
use crate::workload::PrefixTable;
use anyhow::{Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOLD_TIME: u16 = 180;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// AS numbers of the senders count up from here; they tell a route's origin.
pub(crate) const SENDER_AS: u32 = 4_200_000_000;
pub(crate) const RECEIVER_AS: u32 = 4_200_100_000;
const NOBODY: u16 = u16::MAX;
const UNKNOWN: u16 = u16::MAX - 1;

#[derive(Clone, Debug)]
pub(crate) struct PeerSpec {
    pub(crate) ip: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) ibgp: bool,
    /// Number of the sender this peer is.
    pub(crate) sender: Option<usize>,
    pub(crate) receiver: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Down,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What one receiver has learned.
pub(crate) struct View {
    owner: Vec<u16>,
    /// Prefixes of this peer itself, which the daemon must not count.
    own: Range<usize>,
    pub(crate) have: usize,
    pub(crate) per_sender: Vec<usize>,
}

impl View {
    fn new(prefixes: usize, senders: usize, own: Range<usize>) -> Self {
        View {
            owner: vec![NOBODY; prefixes],
            own,
            have: 0,
            per_sender: vec![0; senders],
        }
    }

    fn set(&mut self, id: u32, owner: u16) {
        let id = id as usize;
        if self.own.contains(&id) {
            return;
        }
        let old = std::mem::replace(&mut self.owner[id], owner);
        if old == owner {
            return;
        }
        if let Some(n) = self.per_sender.get_mut(usize::from(old)) {
            *n -= 1;
        }
        if let Some(n) = self.per_sender.get_mut(usize::from(owner)) {
            *n += 1;
        }
        self.have = self.have + usize::from(owner != NOBODY) - usize::from(old != NOBODY);
    }

    fn update(&mut self, body: &[u8], dut_as: u32, table: &PrefixTable) {
        let Some((withdrawn, attrs, nlri)) = wire::split_update(body) else {
            return;
        };
        let mut each = |p: Prefix, owner| {
            if let Some(id) = table.id(p) {
                self.set(id, owner);
            }
        };
        wire::prefixes(withdrawn, |p| each(p, NOBODY));
        if nlri.is_empty() {
            return;
        }
        let owner = wire::first_as(attrs, dut_as)
            .and_then(|asn| u16::try_from(asn.checked_sub(SENDER_AS)?).ok())
            .unwrap_or(UNKNOWN);
        wire::prefixes(nlri, |p| each(p, owner));
    }
}

pub(crate) struct Peer {
    pub(crate) spec: PeerSpec,
    conn: Option<Conn>,
    state: State,
    retry_at: Option<Instant>,
    pub(crate) view: Option<View>,
    pub(crate) updates: u64,
    last_error: String,
}

pub(crate) struct Engine<'a> {
    pub(crate) peers: Vec<Peer>,
    dut: SocketAddrV4,
    dut_as: u32,
    table: &'a PrefixTable,
    epoll: Epoll,
    keepalive: Arc<[u8]>,
    next_keepalive: Instant,
    /// When a receiver last got an UPDATE that names a prefix.
    pub(crate) last_update: Instant,
    /// Sessions that the daemon closed once they were established.
    pub(crate) lost: Vec<String>,
}

impl<'a> Engine<'a> {
    /// `own` gives the prefix numbers that a peer itself announces and nobody else does.
    pub(crate) fn new(
        dut: SocketAddrV4,
        dut_as: u32,
        table: &'a PrefixTable,
        prefixes: usize,
        specs: &[(PeerSpec, Range<usize>)],
    ) -> Result<Self> {
        let senders = specs.iter().filter(|s| s.0.sender.is_some()).count();
        let now = Instant::now();
        let peers = specs
            .iter()
            .map(|(spec, own)| Peer {
                spec: spec.clone(),
                conn: None,
                state: State::Down,
                retry_at: Some(now),
                view: spec.receiver.then(|| View::new(prefixes, senders, own.clone())),
                updates: 0,
                last_error: String::new(),
            })
            .collect();
        Ok(Engine {
            peers,
            dut,
            dut_as,
            table,
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            keepalive: wire::keepalive().into(),
            next_keepalive: now + KEEPALIVE_EVERY,
            last_update: now,
            lost: Vec::new(),
        })
    }

    /// Brings every session up.
    pub(crate) fn establish(&mut self, timeout: Duration) -> Result<()> {
        let up = |e: &Self| e.peers.iter().all(|p| p.state == State::Established);
        if self.run_until(Instant::now() + timeout, up)? {
            return Ok(());
        }
        let down: Vec<_> = self
            .peers
            .iter()
            .filter(|p| p.state != State::Established)
            .collect();
        bail!(
            "{} of {} sessions did not come up; {} is in {:?}: {}",
            down.len(),
            self.peers.len(),
            down[0].spec.ip,
            down[0].state,
            down[0].last_error
        );
    }

    /// Serves the sessions until `done`; false when the deadline came first.
    pub(crate) fn run_until(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool> {
        let mut events = vec![EpollEvent::empty(); 512];
        loop {
            if done(self) {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            self.timers(now)?;
            let n = match self.epoll.wait(&mut events, EpollTimeout::from(20u8)) {
                Err(nix::errno::Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..n] {
                self.ready(event.data() as usize, event.events())?;
            }
        }
    }

    pub(crate) fn queue(&mut self, peer: usize, bytes: Arc<[u8]>) -> Result<()> {
        if let Some(conn) = &mut self.peers[peer].conn {
            conn.queue(bytes);
        }
        self.write(peer)
    }

    /// Ends one session the way an operator does: Cease, then close.
    pub(crate) fn drop_peer(&mut self, peer: usize) -> Result<()> {
        self.queue(peer, wire::cease().into())?;
        self.close(peer, None)
    }

    pub(crate) fn drained(&self) -> bool {
        self.peers
            .iter()
            .all(|p| p.conn.as_ref().is_none_or(Conn::drained))
    }

    pub(crate) fn is_up(&self, peer: usize) -> bool {
        self.peers[peer].state == State::Established
    }

    fn timers(&mut self, now: Instant) -> Result<()> {
        for i in 0..self.peers.len() {
            if self.peers[i].retry_at.is_some_and(|at| at <= now) {
                self.peers[i].retry_at = None;
                if let Err(e) = self.connect(i) {
                    self.close(i, Some(e.to_string()))?;
                }
            }
        }
        if now >= self.next_keepalive {
            self.next_keepalive = now + KEEPALIVE_EVERY;
            for i in 0..self.peers.len() {
                if self.peers[i].state == State::Established {
                    self.queue(i, self.keepalive.clone())?;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, i: usize) -> Result<()> {
        let spec = self.peers[i].spec.clone();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((spec.ip, 0)).into())?;
        socket.connect_timeout(&SocketAddr::V4(self.dut).into(), Duration::from_secs(2))?;
        let mut conn = Conn::new(socket.into())?;
        conn.queue(wire::open(spec.asn, HOLD_TIME, spec.ip).into());
        self.epoll
            .add(&conn.stream, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        self.peers[i].conn = Some(conn);
        self.peers[i].state = State::OpenSent;
        self.write(i)
    }

    fn ready(&mut self, i: usize, flags: EpollFlags) -> Result<()> {
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read(i)?;
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.write(i)?;
        }
        Ok(())
    }

    fn write(&mut self, i: usize) -> Result<()> {
        let Some(conn) = &mut self.peers[i].conn else {
            return Ok(());
        };
        if let Err(e) = conn.flush() {
            return self.close(i, Some(e.to_string()));
        }
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, !conn.drained());
        self.epoll
            .modify(&conn.stream, &mut EpollEvent::new(flags, i as u64))?;
        Ok(())
    }

    fn read(&mut self, i: usize) -> Result<()> {
        let peer = &mut self.peers[i];
        let Some(conn) = &mut peer.conn else { return Ok(()) };
        let (mut state, mut notified, mut greet, mut routes) = (peer.state, None, false, false);
        let (dut_as, table) = (self.dut_as, self.table);
        let result = conn.receive(|kind, msg| match kind {
            wire::UPDATE => {
                peer.updates += 1;
                let body = &msg[wire::HEADER_LEN..];
                if let Some(view) = &mut peer.view
                    && body.len() > 4
                {
                    routes = true;
                    view.update(body, dut_as, table);
                }
            }
            wire::OPEN => {
                greet = true;
                state = State::OpenConfirm;
            }
            wire::KEEPALIVE if state == State::OpenConfirm => state = State::Established,
            wire::NOTIFICATION => notified = Some((msg.get(19).copied(), msg.get(20).copied())),
            _ => {}
        });
        peer.state = state;
        if routes {
            self.last_update = Instant::now();
        }
        if let Some((Some(code), sub)) = notified {
            return self.close(i, Some(format!("NOTIFICATION {code}/{}", sub.unwrap_or(0))));
        }
        if let Err(e) = result {
            return self.close(i, Some(e.to_string()));
        }
        if greet {
            self.queue(i, self.keepalive.clone())?;
        }
        Ok(())
    }

    /// Closes a session; with an error it was the other side, and an unfinished one retries.
    fn close(&mut self, i: usize, error: Option<String>) -> Result<()> {
        let peer = &mut self.peers[i];
        if let Some(conn) = peer.conn.take() {
            self.epoll.delete(&conn.stream)?;
        }
        let was = std::mem::replace(&mut peer.state, State::Down);
        if let Some(error) = error {
            if was == State::Established {
                self.lost.push(format!("{}: {error}", peer.spec.ip));
            } else {
                peer.retry_at = Some(Instant::now() + RETRY_AFTER);
            }
            peer.last_error = error;
        }
        Ok(())
    }
}

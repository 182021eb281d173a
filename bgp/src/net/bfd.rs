//! The shell of BFD: one task for all sessions, its sockets, and the RIB task's hold on it.
//!
//! ```text
//! RIB task --watch: sessions wanted, the newest counts--> BFD task <--UDP 3784, 4784, one socket a local address
//!    ^                                                       | one sending socket a session, its port above 49151
//!    +------changes of state, 64, merged by peer beyond------+
//! ```
//! The task shares nothing with the RIB's but the runtime: no table work delays a packet by more than a slice.

use super::peer_task::until;
use crate::bfd::table::{BfdView, Demand, Output, Received, Table};
use crate::bfd::{Change, PORT_MULTIHOP, PORT_SINGLE_HOP, SOURCE_PORT_MIN};
use crate::link;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

/// Changes of state that wait for the RIB task; more are merged.
const CHANGES_MAX: usize = 64;
/// Datagrams taken from one socket before timers get their turn.
const READS_PER_TURN: usize = 64;
/// A control packet has 24 octets, with authentication up to 52; what is longer is none.
const DATAGRAM_MAX: usize = 128;
/// Source ports tried before a session is given up: nearly all of 16384 are free.
const PORT_TRIES: u32 = 64;
/// A port that could not be listened on is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// Network control (RFC 2474 CS6), as routers mark what must arrive.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Sessions by peer, as operators see them.
type Views = Arc<Mutex<BTreeMap<IpAddr, BfdView>>>;

/// A change of a session, merged with those that nobody took.
#[derive(Clone, Copy, Debug)]
pub(super) struct BfdChange {
    pub(super) peer: IpAddr,
    /// The BGP session that it is about.
    pub(super) session: u32,
    /// The last change.
    pub(super) change: Change,
    /// One of the changes was a failure of the path.
    pub(super) failed: bool,
}

/// The RIB task's hold on the BFD task.
#[derive(Debug)]
pub(super) struct Bfd {
    wanted: watch::Sender<BTreeMap<IpAddr, Demand>>,
    changes: mpsc::Receiver<BfdChange>,
    views: Views,
}

impl Bfd {
    /// The hold, and the task to run.
    pub(super) fn new() -> (Self, BfdTask) {
        let (wanted, wanted_rx) = watch::channel(BTreeMap::new());
        let (changes_tx, changes) = mpsc::channel(CHANGES_MAX);
        let views = Views::default();
        let task = BfdTask {
            table: Table::new(RandomState::new().hash_one(std::process::id())),
            wanted: wanted_rx,
            changes: changes_tx,
            pending: BTreeMap::new(),
            views: Arc::clone(&views),
            receivers: BTreeMap::new(),
            retry_at: None,
            senders: BTreeMap::new(),
            port: RandomState::new().hash_one(0),
        };
        let hold = Self {
            wanted,
            changes,
            views,
        };
        (hold, task)
    }

    /// Wants a session with this peer, or none.
    pub(super) fn want(&self, peer: IpAddr, demand: Option<Demand>) {
        self.wanted.send_if_modified(|wanted| match demand {
            Some(demand) => wanted.insert(peer, demand) != Some(demand),
            None => wanted.remove(&peer).is_some(),
        });
    }

    /// Ends the task, which says goodbye to all peers.
    pub(super) fn close(&mut self) {
        self.wanted = watch::channel(BTreeMap::new()).0;
    }

    /// The next change; pending for ever once the task is gone.
    pub(super) async fn changed(&mut self) -> BfdChange {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    pub(super) fn view(&self, peer: IpAddr) -> Option<BfdView> {
        lock(&self.views).get(&peer).copied()
    }
}

fn lock(views: &Views) -> MutexGuard<'_, BTreeMap<IpAddr, BfdView>> {
    // Views have no invariant that a panic could break.
    views.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task.
pub(super) struct BfdTask {
    table: Table,
    wanted: watch::Receiver<BTreeMap<IpAddr, Demand>>,
    changes: mpsc::Sender<BfdChange>,
    pending: BTreeMap<IpAddr, BfdChange>,
    views: Views,
    receivers: BTreeMap<SocketAddr, UdpSocket>,
    retry_at: Option<Instant>,
    /// By discriminator; `None` where no port could be had.
    senders: BTreeMap<u32, Option<std::net::UdpSocket>>,
    port: u64,
}

impl BfdTask {
    /// Runs until the hold is dropped; then tells all peers that the sessions end on purpose.
    pub(super) async fn run(mut self) {
        loop {
            self.flush();
            let deadline = [self.table.deadline(), self.retry_at].into_iter().flatten().min();
            tokio::select! {
                changed = self.wanted.changed() => {
                    let wanted = match changed {
                        Ok(()) => self.wanted.borrow_and_update().clone(),
                        Err(_) => BTreeMap::new(),
                    };
                    self.listen(&wanted);
                    self.table.demand(Instant::now(), &wanted);
                    if changed.is_err() {
                        return self.flush();
                    }
                }
                Ok(permit) = self.changes.clone().reserve_owned(), if !self.pending.is_empty() => {
                    if let Some((_, change)) = self.pending.pop_first() {
                        permit.send(change);
                    }
                }
                address = readable(&self.receivers) => self.read(address),
                () = until(deadline) => self.tick(Instant::now()),
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            let wanted = self.wanted.borrow().clone();
            self.listen(&wanted);
        }
        self.table.tick(now);
    }

    /// Listens where packets for these sessions come in, and nowhere else.
    fn listen(&mut self, wanted: &BTreeMap<IpAddr, Demand>) {
        let addresses: BTreeSet<SocketAddr> = wanted.values().map(receive_address).collect();
        self.receivers.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if self.receivers.contains_key(&address) {
                continue;
            }
            match receiver(address) {
                Ok(socket) => {
                    self.receivers.insert(address, socket);
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot listen for bfd packets; trying again");
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    fn read(&mut self, address: SocketAddr) {
        let Some(socket) = self.receivers.get(&address) else {
            return;
        };
        let mut buf = [0; DATAGRAM_MAX];
        for _ in 0..READS_PER_TURN {
            let (len, from, ttl) = match socket.try_io(Interest::READABLE, || receive(socket, &mut buf)) {
                Ok(received) => received,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%address, %error, "a bfd packet could not be read");
                    }
                    return;
                }
            };
            let datagram = Received {
                from,
                ttl,
                multihop: address.port() == PORT_MULTIHOP,
                payload: buf.get(..len).unwrap_or_default(),
            };
            if let Err(why) = self.table.receive(Instant::now(), &datagram) {
                tracing::trace!(%from, %why, "a bfd packet was dropped");
            }
        }
    }

    /// Does what the table wants.
    fn flush(&mut self) {
        let mut touched = BTreeSet::new();
        while let Some(output) = self.table.poll() {
            match output {
                Output::Send {
                    peer,
                    local,
                    remote,
                    multihop,
                    discriminator,
                    packet,
                } => {
                    touched.insert(peer);
                    let to = socket_address(remote, port(multihop));
                    self.send(to, local, discriminator, &packet);
                }
                Output::Changed {
                    peer,
                    session,
                    change,
                } => self.changed(peer, session, change),
                Output::Gone(discriminator) => {
                    self.senders.remove(&discriminator);
                    lock(&self.views).retain(|peer, _| self.table.view(*peer).is_some());
                }
            }
        }
        for peer in touched {
            if let Some(view) = self.table.view(peer) {
                lock(&self.views).insert(peer, view);
            }
        }
    }

    fn changed(&mut self, peer: IpAddr, session: u32, change: Change) {
        tracing::info!(%peer, from = %change.from, to = %change.to, "bfd session changed");
        let before = self.pending.get(&peer).filter(|b| b.session == session);
        let failed = change.failed() || before.is_some_and(|b| b.failed);
        self.pending.insert(
            peer,
            BfdChange {
                peer,
                session,
                change,
                failed,
            },
        );
    }

    fn send(&mut self, to: SocketAddr, local: IpAddr, discriminator: u32, packet: &[u8]) {
        if !self.senders.contains_key(&discriminator) {
            let socket = self.sender(local);
            if let Err(error) = &socket {
                tracing::warn!(%to, %error, "no port to send bfd packets from");
            }
            self.senders.insert(discriminator, socket.ok());
        }
        // What a full queue or a missing route swallows is lost as on a bad link: that is what BFD is there to see.
        if let Some(Some(socket)) = self.senders.get(&discriminator)
            && let Err(error) = socket.send_to(packet, to)
        {
            tracing::trace!(%to, %error, "a bfd packet was not sent");
        }
    }

    /// A socket with a port of its own, 49152 to 65535 (RFC 5881 section 4).
    fn sender(&mut self, local: IpAddr) -> io::Result<std::net::UdpSocket> {
        let socket = Socket::new(
            domain(local),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if local.is_ipv4() {
            socket.set_ttl_v4(255)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_unicast_hops_v6(255)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        let mut result = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..PORT_TRIES {
            self.port = self.port.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let places = u64::from(u16::MAX - SOURCE_PORT_MIN) + 1;
            let port = SOURCE_PORT_MIN + u16::try_from((self.port >> 33) % places).unwrap_or(0);
            result = socket.bind(&SockAddr::from(socket_address(local, port)));
            if !result
                .as_ref()
                .is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
            {
                break;
            }
        }
        result.map(|()| socket.into())
    }
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    }
}

const fn port(multihop: bool) -> u16 {
    if multihop { PORT_MULTIHOP } else { PORT_SINGLE_HOP }
}

fn receive_address(demand: &Demand) -> SocketAddr {
    socket_address(demand.local, port(demand.params.multihop))
}

/// As the system knows it: a link-local address has its link beside it.
fn socket_address(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(v6) => {
            let (plain, link) = link::split(v6);
            SocketAddrV6::new(plain, port, 0, link).into()
        }
    }
}

/// A socket that says the TTL of each datagram.
fn receiver(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        domain(address.ip()),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
    } else {
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

/// Waits until one of the sockets can be read.
async fn readable(sockets: &BTreeMap<SocketAddr, UdpSocket>) -> SocketAddr {
    poll_fn(|cx| {
        for (address, socket) in sockets {
            if let Poll::Ready(Ok(())) = socket.poll_recv_ready(cx) {
                return Poll::Ready(*address);
            }
        }
        Poll::Pending
    })
    .await
}

/// One datagram: its length, its source, its TTL.
fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, IpAddr, Option<u8>)> {
    let mut space = cmsg_space!(libc::c_int);
    let mut slices = [IoSliceMut::new(buf)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let ttl = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => u8::try_from(ttl).ok(),
        _ => None,
    });
    let from = message.address.and_then(|a| {
        let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = || {
            Some(link::scoped(
                a.as_sockaddr_in6()?.ip(),
                a.as_sockaddr_in6()?.scope_id(),
            ))
        };
        v4.or_else(|| v6().map(IpAddr::V6))
    });
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((message.bytes, from, ttl))
}

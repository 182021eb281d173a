//! Who the neighbours on links are (RFC 4861): Router Advertisements tell it, ours as theirs. So a peer can be an interface and
//! nothing else, as FRR's `neighbor eth0 interface` is.
//!
//! ```text
//! RIB task --watch: interfaces--> advert task <--raw ICMPv6 socket--> the links
//!    ^                                |
//!    +----neighbours, 64 at most------+
//! ```
//! Ours have Router Lifetime 0: we are a neighbour, and nobody's default router.

use super::peer_task::until;
use super::sockopt;
use nix::cmsg_space;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt as opt};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

/// Neighbours found that the RIB task has not taken yet; what does not fit is found again with the next advertisement.
const FOUND_MAX: usize = 64;
/// Messages taken before timers get their turn.
const READS_PER_TURN: usize = 64;
/// Longest message that is read; advertisements of routers with many prefixes have a few hundred octets.
const MESSAGE_MAX: usize = 1500;
/// The first advertisements come quickly, so that a neighbour need not wait (RFC 4861 section 10, MAX_INITIAL_RTR_ADVERTISEMENTS).
const QUICK: u32 = 3;
/// Time between these.
const QUICK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between later ones; FRR's for unnumbered peers.
const INTERVAL: Duration = Duration::from_secs(10);
/// An answer to a solicitation comes at the earliest so long after the last advertisement (RFC 4861, MIN_DELAY_BETWEEN_RAS).
const ANSWER_INTERVAL: Duration = Duration::from_secs(3);
/// Another neighbour on the same link is believed so long after the last one.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// A socket that could not be had is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// Types of ICMPv6 messages.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// A message that was routed has a smaller one (RFC 4861 section 6.1.2).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A neighbour, and its interface.
pub(super) type Found = (String, Ipv6Addr);

/// The RIB task's hold on the task.
#[derive(Debug)]
pub(super) struct Adverts {
    wanted: watch::Sender<BTreeSet<String>>,
    found: mpsc::Receiver<Found>,
}

impl Adverts {
    /// The hold, and the task to run.
    pub(super) fn new() -> (Self, AdvertTask) {
        let (wanted, wanted_rx) = watch::channel(BTreeSet::new());
        let (found_tx, found) = mpsc::channel(FOUND_MAX);
        let task = AdvertTask {
            wanted: wanted_rx,
            found: found_tx,
            links: BTreeMap::new(),
            failing: false,
        };
        (Self { wanted, found }, task)
    }

    /// Wants to know the neighbours on these interfaces, and no others.
    pub(super) fn want(&self, interfaces: BTreeSet<String>) {
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(wanted, interfaces.clone()) != interfaces);
    }

    /// The next neighbour found; pending for ever once the task is gone.
    pub(super) async fn found(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Ends the task.
    pub(super) fn close(&mut self) {
        self.wanted = watch::channel(BTreeSet::new()).0;
    }
}

/// One interface.
#[derive(Debug)]
struct LinkState {
    /// 0 while there is no such interface.
    index: u32,
    neighbour: Option<Ipv6Addr>,
    found_at: Option<Instant>,
    sent: u32,
    sent_at: Option<Instant>,
    due: Instant,
}

/// The task.
pub(super) struct AdvertTask {
    wanted: watch::Receiver<BTreeSet<String>>,
    found: mpsc::Sender<Found>,
    links: BTreeMap<String, LinkState>,
    /// Operators were told that there is no socket.
    failing: bool,
}

impl AdvertTask {
    /// Runs until the hold is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.follow(&wanted);
            if wanted.is_empty() {
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match open() {
                Ok(socket) => {
                    self.failing = false;
                    if self.serve(&socket).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "no raw ICMPv6 socket (it needs CAP_NET_RAW): bgp peers on interfaces can only dial us");
                    }
                    tokio::select! {
                        changed = self.wanted.changed() => if changed.is_err() {
                            return;
                        },
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    /// Advertises and listens while interfaces are wanted.
    async fn serve(&mut self, socket: &UdpSocket) -> Result<(), watch::error::RecvError> {
        loop {
            let deadline = self.links.values().map(|l| l.due).min();
            tokio::select! {
                changed = self.wanted.changed() => {
                    changed?;
                    let wanted = self.wanted.borrow_and_update().clone();
                    self.follow(&wanted);
                    if wanted.is_empty() {
                        return Ok(());
                    }
                }
                ready = socket.readable() => {
                    if ready.is_err() {
                        return Ok(());
                    }
                    for _ in 0..READS_PER_TURN {
                        match socket.try_io(Interest::READABLE, || receive(socket)) {
                            Ok(message) => self.received(message),
                            Err(error) => {
                                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                                    tracing::debug!(%error, "an ICMPv6 message could not be read");
                                }
                                break;
                            }
                        }
                    }
                }
                () = until(deadline) => self.advertise(socket, Instant::now()),
            }
        }
    }

    /// These interfaces from now on.
    fn follow(&mut self, wanted: &BTreeSet<String>) {
        self.links.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.links.entry(name.clone()).or_insert_with(|| LinkState {
                index: 0,
                neighbour: None,
                found_at: None,
                sent: 0,
                sent_at: None,
                due: Instant::now(),
            });
        }
    }

    /// Sends what is due, on interfaces that are there.
    fn advertise(&mut self, socket: &UdpSocket, now: Instant) {
        for (name, link) in self.links.iter_mut().filter(|(_, l)| l.due <= now) {
            let index = if_nametoindex(name.as_str()).unwrap_or(0);
            if index != link.index {
                (link.index, link.sent, link.neighbour) = (index, 0, None);
            }
            let sent = index != 0 && say(socket, index, link.sent == 0).is_ok();
            if sent {
                link.sent = link.sent.saturating_add(1);
                link.sent_at = Some(now);
            }
            let quick = !sent || link.sent < QUICK;
            link.due = now + if quick { QUICK_INTERVAL } else { INTERVAL };
        }
    }

    fn received(&mut self, message: Message) {
        let Some((name, link)) = self
            .links
            .iter_mut()
            .find(|(_, l)| l.index == message.link && l.index != 0)
        else {
            return;
        };
        match message.kind {
            ROUTER_SOLICITATION => {
                let soonest = link.sent_at.map(|at| at + ANSWER_INTERVAL);
                let soonest = soonest.unwrap_or_else(Instant::now).max(Instant::now());
                link.due = link.due.min(soonest);
            }
            _ if link.neighbour == Some(message.from) => {}
            _ => {
                // Two that take turns must not keep everybody busy.
                let soon = link.found_at.is_some_and(|at| at.elapsed() < CHANGE_INTERVAL);
                if !soon && self.found.try_send((name.clone(), message.from)).is_ok() {
                    tracing::info!(interface = %name, neighbour = %message.from, "a router advertises itself");
                    link.neighbour = Some(message.from);
                    link.found_at = Some(Instant::now());
                }
            }
        }
    }
}

/// A message that counts.
struct Message {
    kind: u8,
    from: Ipv6Addr,
    link: u32,
}

/// A raw socket for both types. In tokio's hands it is a socket for datagrams like any other.
fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::IPV6,
        Type::RAW.nonblocking().cloexec(),
        Some(Protocol::ICMPV6),
    )?;
    sockopt::pass_icmp_v6(socket.as_fd(), &[ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT])?;
    setsockopt(&socket, opt::Ipv6RecvHopLimit, &true)?;
    socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_multicast_loop_v6(false)?;
    UdpSocket::from_std(socket.into())
}

/// An advertisement of ours, and at first a wish for those of others.
fn say(socket: &UdpSocket, index: u32, solicit: bool) -> io::Result<()> {
    let to = |address| SocketAddr::from(SocketAddrV6::new(address, 0, 0, index));
    if solicit {
        // Solicitations go to all routers, and that is a group that one has to be in.
        let _ = socket.join_multicast_v6(&ALL_ROUTERS, index);
        socket.try_send_to(&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], to(ALL_ROUTERS))?;
    }
    // Checksum (the kernel's), Cur Hop Limit 64, no flags, Router Lifetime 0, Reachable Time and Retrans Timer unspecified.
    let advertisement = [ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    socket.try_send_to(&advertisement, to(ALL_NODES))?;
    Ok(())
}

/// The next message that counts; others are passed over, so many at once.
fn receive(socket: &UdpSocket) -> io::Result<Message> {
    let mut buf = [0; MESSAGE_MAX];
    for _ in 0..READS_PER_TURN {
        let mut space = cmsg_space!(libc::c_int);
        let mut slices = [IoSliceMut::new(&mut buf)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let hops = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
            _ => None,
        });
        let from = message.address.and_then(|a| {
            let from = a.as_sockaddr_in6()?;
            Some((from.ip(), from.scope_id()))
        });
        let len = message.bytes;
        let octets = buf.get(..len).unwrap_or_default();
        if let Some((from, link)) = from
            && let Some(kind) = judge(octets, from, hops)
        {
            return Ok(Message { kind, from, link });
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// The type of a message that is what it must be (RFC 4861 sections 6.1.1 and 6.1.2): from a neighbour itself, not routed, whole.
fn judge(octets: &[u8], from: Ipv6Addr, hops: Option<u8>) -> Option<u8> {
    let &[kind, 0, ..] = octets else { return None };
    let fixed = match kind {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        _ => return None,
    };
    let neighbour = from.is_unicast_link_local() || (kind == ROUTER_SOLICITATION && from.is_unspecified());
    if !neighbour || hops != Some(HOP_LIMIT) {
        return None;
    }
    let mut options = octets.get(fixed..)?;
    while let &[_, len, ..] = options {
        options = options.get(usize::from(len) * 8..).filter(|_| len != 0)?;
    }
    options.is_empty().then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const PLAIN: [u8; 16] = [134, 0, 1, 2, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn an_advertisement_of_a_neighbour_counts() {
        assert_eq!(judge(&PLAIN, FROM, Some(255)), Some(134));
        let with = |option: &[u8]| judge(&[&PLAIN[..], option].concat(), FROM, Some(255));
        assert_eq!(with(&[1, 1, 2, 2, 2, 2, 2, 2]), Some(134));
        assert_eq!(
            judge(&[133, 0, 0, 0, 0, 0, 0, 0], Ipv6Addr::UNSPECIFIED, Some(255)),
            Some(133)
        );
    }

    #[test]
    fn what_was_routed_or_is_broken_does_not() {
        for hops in [None, Some(254), Some(64), Some(0)] {
            assert_eq!(judge(&PLAIN, FROM, hops), None);
        }
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!(judge(&PLAIN, global, Some(255)), None);
        for len in 0..16 {
            assert_eq!(judge(&PLAIN[..len], FROM, Some(255)), None, "{len} octets");
        }
        let with = |option: &[u8]| judge(&[&PLAIN[..], option].concat(), FROM, Some(255));
        for option in [
            &[1][..],
            &[1, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1, 255],
        ] {
            assert_eq!(with(option), None, "{option:?}");
        }
        let mut other = PLAIN;
        other[1] = 1;
        assert_eq!(judge(&other, FROM, Some(255)), None, "a code");
        assert_eq!(
            judge(&[135, 0, 0, 0, 0, 0, 0, 0], FROM, Some(255)),
            None,
            "another type"
        );
    }
}

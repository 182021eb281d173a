//! All sessions of a speaker: which are wanted, whose a packet is (RFC 5880 section 6.3, RFC 5881 sections 3 and 5), and when
//! the next has something to do.

use super::packet::{PACKET_LEN, Packet, PacketError};
use super::session::{Change, Session};
use super::{Diagnostic, Params, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Outputs that wait. The shell takes them after each call; only a flood within one call could reach this, and then packets
/// are dropped as a network drops them.
const OUT_MAX: usize = 64 * 1024;
/// The TTL of what comes from one hop away (RFC 5881 section 5).
const TTL: u8 = 255;

/// What one peer's session shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its parameters.
    pub params: Params,
    /// The address to send from: our end of the BGP session; a link-local one with its link ([`crate::link`]).
    pub local: IpAddr,
    /// The address to send to, likewise: what the peer is known by need not be one.
    pub remote: IpAddr,
    /// The BGP session that this protects, by number.
    pub session: u32,
}

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its source; a link-local one with the link that it came in by ([`crate::link`]): on another link it is another's
    /// (RFC 5881 section 4).
    pub from: IpAddr,
    /// The TTL or hop limit that it came with, if the system said it.
    pub ttl: Option<u8>,
    /// It came to port 4784.
    pub multihop: bool,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// From more than one hop away.
    #[error("the TTL is not 255")]
    Ttl,
    /// The packet itself.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// There is no such session, or it is another's.
    #[error("no session is this packet's")]
    NoSession,
}

/// A session as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdView {
    /// Our state.
    pub state: State,
    /// Theirs, as last heard.
    pub remote_state: State,
    /// Why we last left Up.
    pub diagnostic: Diagnostic,
    /// At which interval we send; `None` while the other end wants nothing.
    pub tx_interval: Option<Duration>,
    /// How long the other end may be silent.
    pub detection_time: Duration,
}

/// What the table wants done or known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this. All packets with one discriminator come from the same port, which is no other's.
    Send {
        /// The peer.
        peer: IpAddr,
        /// From this address.
        local: IpAddr,
        /// To this address.
        remote: IpAddr,
        /// To port 4784 instead of 3784.
        multihop: bool,
        /// The session.
        discriminator: u32,
        /// The payload.
        packet: [u8; PACKET_LEN],
    },
    /// A session has changed its state.
    Changed {
        /// The peer.
        peer: IpAddr,
        /// The BGP session that it protects.
        session: u32,
        /// What has changed.
        change: Change,
    },
    /// The session with this discriminator is over: its port can be given back.
    Gone(u32),
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    demand: Demand,
    machine: Session,
    /// It is not wanted any more, and goes then.
    until: Option<Instant>,
    deadline: Option<Instant>,
}

/// The sessions.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<u32, Entry>,
    by_peer: BTreeMap<IpAddr, u32>,
    /// By the address that packets come from.
    by_remote: BTreeMap<IpAddr, u32>,
    deadlines: BTreeSet<(Instant, u32)>,
    random: u64,
    out: VecDeque<Output>,
}

impl Table {
    /// A table without sessions; `seed` should differ from start to start.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            // Small seeds have few bits.
            random: (seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            out: VecDeque::new(),
        }
    }

    /// Makes the sessions those that are wanted. One that is wanted no more says goodbye for as long as it takes the other end
    /// to hear it: administratively down, or, if it failed, still why.
    pub fn demand(&mut self, now: Instant, wanted: &BTreeMap<IpAddr, Demand>) {
        let surplus: Vec<u32> = self
            .by_peer
            .iter()
            .filter(|(peer, _)| !wanted.contains_key(*peer))
            .map(|(_, discriminator)| *discriminator)
            .collect();
        for discriminator in surplus {
            self.dismiss(now, discriminator);
        }
        for (peer, demand) in wanted {
            self.want(now, *peer, *demand);
        }
    }

    fn want(&mut self, now: Instant, peer: IpAddr, demand: Demand) {
        if let Some(discriminator) = self.by_peer.get(&peer).copied() {
            let same = self.entries.get(&discriminator).is_some_and(|e| {
                (e.demand.local, e.demand.remote) == (demand.local, demand.remote)
                    && e.demand.params.multihop == demand.params.multihop
            });
            if same {
                self.with(discriminator, |entry| {
                    let fresh = entry.demand.session != demand.session;
                    entry.demand = demand;
                    entry.until = None;
                    entry.machine.configure(now, demand.params);
                    // What another BGP session lived through is no failure of this one.
                    fresh.then(|| entry.machine.enable(now)).flatten()
                });
                return;
            }
            self.forget(discriminator);
        }
        let discriminator = self.discriminator();
        let seed = self.next_random();
        self.by_peer.insert(peer, discriminator);
        self.by_remote.insert(demand.remote, discriminator);
        self.entries.insert(
            discriminator,
            Entry {
                peer,
                demand,
                machine: Session::new(now, demand.params, discriminator, seed),
                until: None,
                deadline: None,
            },
        );
        self.with(discriminator, |_| None);
    }

    fn dismiss(&mut self, now: Instant, discriminator: u32) {
        self.with(discriminator, |entry| {
            if entry.until.is_some() {
                return None;
            }
            let failed = entry.machine.state() == State::Down;
            let change = if failed { None } else { entry.machine.disable(now) };
            entry.until = Some(now + entry.machine.farewell());
            change
        });
    }

    fn forget(&mut self, discriminator: u32) {
        if let Some(entry) = self.entries.remove(&discriminator) {
            if let Some(at) = entry.deadline {
                self.deadlines.remove(&(at, discriminator));
            }
            if self.by_peer.get(&entry.peer) == Some(&discriminator) {
                self.by_peer.remove(&entry.peer);
            }
            if self.by_remote.get(&entry.demand.remote) == Some(&discriminator) {
                self.by_remote.remove(&entry.demand.remote);
            }
            self.push(Output::Gone(discriminator));
        }
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// [`Dropped`]: nothing follows from it.
    pub fn receive(&mut self, now: Instant, datagram: &Received<'_>) -> Result<(), Dropped> {
        if !datagram.multihop && datagram.ttl != Some(TTL) {
            return Err(Dropped::Ttl);
        }
        let packet = Packet::decode(datagram.payload)?;
        let discriminator = match packet.your_discriminator {
            0 => *self.by_remote.get(&datagram.from).ok_or(Dropped::NoSession)?,
            known => known,
        };
        let entry = self.entries.get(&discriminator).ok_or(Dropped::NoSession)?;
        if entry.demand.remote != datagram.from || entry.demand.params.multihop != datagram.multihop {
            return Err(Dropped::NoSession);
        }
        self.with(discriminator, |entry| entry.machine.receive(now, &packet));
        Ok(())
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, discriminator)) = self.deadlines.first().copied()
            && at <= now
        {
            let over = self.entries.get(&discriminator).and_then(|e| e.until);
            if over.is_some_and(|until| until <= now) {
                self.forget(discriminator);
            } else {
                self.with(discriminator, |entry| entry.machine.tick(now));
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Table::tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The session with a peer.
    #[must_use]
    pub fn view(&self, peer: IpAddr) -> Option<BfdView> {
        let machine = &self.entries.get(self.by_peer.get(&peer)?)?.machine;
        Some(BfdView {
            state: machine.state(),
            remote_state: machine.remote_state(),
            diagnostic: machine.diagnostic(),
            tx_interval: machine.tx_interval(),
            detection_time: machine.detection_time(),
        })
    }

    /// Does something to a session, then takes what it has to say and when it wants to be called.
    fn with(&mut self, discriminator: u32, act: impl FnOnce(&mut Entry) -> Option<Change>) {
        let Some(entry) = self.entries.get_mut(&discriminator) else {
            return;
        };
        let change = act(entry);
        let (peer, demand) = (entry.peer, entry.demand);
        let mut out = Vec::new();
        while let Some(packet) = entry.machine.poll() {
            out.push(Output::Send {
                peer,
                local: demand.local,
                remote: demand.remote,
                multihop: demand.params.multihop,
                discriminator,
                packet,
            });
        }
        if let Some(change) = change {
            out.push(Output::Changed {
                peer,
                session: demand.session,
                change,
            });
        }
        let deadline = [entry.machine.deadline(), entry.until]
            .into_iter()
            .flatten()
            .min();
        if let Some(old) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(old, discriminator));
        }
        self.deadlines.extend(deadline.map(|at| (at, discriminator)));
        out.into_iter().for_each(|o| self.push(o));
    }

    fn push(&mut self, output: Output) {
        if self.out.len() < OUT_MAX || !matches!(output, Output::Send { .. }) {
            self.out.push_back(output);
        }
    }

    fn discriminator(&mut self) -> u32 {
        loop {
            let bits = u32::try_from(self.next_random() >> 32).unwrap_or(1);
            if bits != 0 && !self.entries.contains_key(&bits) {
                return bits;
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

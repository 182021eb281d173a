//! The speaker's state, its outputs, and the calls that the shell makes.

use super::best::Fib;
use super::limits::Usage;
use super::nexthop::NextHops;
use super::peers::PeerSlot;
use super::plane::Plane;
use super::restart::Deferral;
use crate::config::{Config, ConfigError, Origination, PeerConfig};
use crate::family::{Family, PerFamily};
use crate::fsm::Own;
use crate::policy::LearnedFrom;
use crate::prefix::{V4, V6};
use crate::rib::decision::Multipath;
use crate::rib::{AttrTable, PathSource, PeerId, Sources};
use crate::view::Converged;
use crate::wire::update::Op;
use crate::wire::{Notification, Routes};
use bytes::Bytes;
use ipnet::IpNet;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Octets for one peer, shared with others: messages in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The octets.
    pub parts: Vec<Bytes>,
    /// How many messages they are.
    pub messages: u32,
}

/// What the speaker wants done.
#[derive(Debug)]
pub enum Output {
    /// Write this on the peer's session, and call [`Speaker::sent`] when the socket has taken it.
    Send {
        /// The peer.
        peer: PeerId,
        /// The session that it is meant for.
        session: u32,
        /// The octets.
        batch: Batch,
    },
    /// End the peer's session with this.
    Reset(PeerId, Notification),
    /// Operators should know this of the peer; its session goes on.
    Warning(PeerId, String),
    /// Operators should know this of the speaker as a whole.
    Alarm(String),
    /// Route selection is settled for these families; OPENs say so from now on.
    Converged(Converged, Own),
}

/// What a new configuration did to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// A new one.
    Added(PeerId, Box<PeerConfig>),
    /// Its configuration, or what all have in common, is another.
    Changed(PeerId, Box<PeerConfig>),
    /// It is gone.
    Removed(PeerId),
}

/// All that planes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) attrs: AttrTable,
    pub(super) sources: Sources,
    pub(super) peers: Vec<Option<PeerSlot>>,
    pub(super) by_address: BTreeMap<IpAddr, PeerId>,
    pub(super) out: VecDeque<Output>,
    pub(super) deferral: PerFamily<Deferral>,
    pub(super) own_routes_known: bool,
    /// What those who watch have not taken yet; `None` while nobody does.
    pub(super) observed: Option<Vec<super::observe::Observed>>,
    pub(super) next_hops: NextHops,
    pub(super) usage: Usage,
}

/// The routes of all peers and what is done with them.
#[derive(Debug)]
pub struct Speaker {
    pub(super) shared: Shared,
    pub(super) v4: Plane<V4>,
    pub(super) v6: Plane<V6>,
    pub(super) originated: BTreeMap<IpNet, Origination>,
}

/// Runs the same call on the plane of a family.
macro_rules! on_plane {
    ($speaker:expr, $family:expr, |$plane:ident, $shared:ident| $body:expr) => {{
        let $shared = &mut $speaker.shared;
        match $family {
            $crate::family::Family::Ipv4Unicast => {
                let $plane = &mut $speaker.v4;
                $body
            }
            $crate::family::Family::Ipv6Unicast => {
                let $plane = &mut $speaker.v6;
                $body
            }
        }
    }};
}
pub(super) use on_plane;

impl Speaker {
    /// A speaker, and the peers that its configuration has.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration is not valid.
    pub fn new(now: Instant, config: Config) -> Result<(Self, Vec<PeerChange>), ConfigError> {
        config.check()?;
        let mut sources = Sources::default();
        *sources.at_mut(PeerId::LOCAL) = PathSource {
            from: LearnedFrom::Local,
            router_id: config.router_id,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            client: false,
            generation: PerFamily::default(),
        };
        let deferral = PerFamily::from_fn(|_| Deferral::begin(now, &config.restart));
        let empty = Config {
            peers: Vec::new(),
            ..config.clone()
        };
        let shared = Shared {
            config: empty,
            attrs: AttrTable::default(),
            sources,
            peers: vec![None],
            by_address: BTreeMap::new(),
            out: VecDeque::new(),
            deferral,
            own_routes_known: false,
            observed: None,
            next_hops: NextHops::default(),
            usage: Usage::default(),
        };
        let mut speaker = Self {
            shared,
            v4: Plane::default(),
            v6: Plane::default(),
            originated: BTreeMap::new(),
        };
        let changes = speaker.configure(now, config)?;
        Ok((speaker, changes))
    }

    /// What all OPENs have in common now.
    #[must_use]
    pub fn own(&self) -> Own {
        self.shared.own()
    }

    /// Takes what a peer's session said, in order. Of a session that is over, nothing counts.
    pub fn routes(&mut self, now: Instant, peer: PeerId, session: u32, routes: &Routes) {
        for op in &routes.ops {
            // Nor anything of one that is being ended for too many: what has come goes with it.
            let ending = self.shared.peer(peer).is_some_and(|s| s.over_limit);
            if ending || !self.shared.in_session(peer, session) {
                return;
            }
            match op {
                Op::EndOfRib(family) => {
                    self.shared.observe_end_of_rib(peer, *family);
                    self.end_of_rib(now, peer, *family);
                }
                Op::Announce(Family::Ipv4Unicast, set, range) => {
                    let nlri = routes.v4.get(range.clone()).unwrap_or_default();
                    self.v4.announce(&mut self.shared, peer, set, nlri);
                }
                Op::Announce(Family::Ipv6Unicast, set, range) => {
                    let nlri = routes.v6.get(range.clone()).unwrap_or_default();
                    self.v6.announce(&mut self.shared, peer, set, nlri);
                }
                Op::Withdraw(Family::Ipv4Unicast, range) => {
                    self.v4.withdraw(
                        &mut self.shared,
                        peer,
                        routes.v4.get(range.clone()).unwrap_or_default(),
                    );
                }
                Op::Withdraw(Family::Ipv6Unicast, range) => {
                    self.v6.withdraw(
                        &mut self.shared,
                        peer,
                        routes.v6.get(range.clone()).unwrap_or_default(),
                    );
                }
            }
        }
        self.enforce_limits(Some(peer));
    }

    /// The socket has taken one batch of a session.
    pub fn sent(&mut self, peer: PeerId, session: u32) {
        if self.shared.in_session(peer, session)
            && let Some(slot) = self.shared.peer_mut(peer)
        {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }

    /// Does one bounded slice (about a millisecond) of what is to be done; `true` if there may be more. Then
    /// [`Speaker::poll`] until it gives nothing.
    pub fn work(&mut self, now: Instant) -> bool {
        let swept = self.v4.sweep(&mut self.shared) | self.v6.sweep(&mut self.shared);
        let sent = self.v4.flush(now, &mut self.shared) | self.v6.flush(now, &mut self.shared);
        if swept {
            self.forget_departed();
            self.enforce_limits(None);
        }
        swept || sent
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.shared.out.pop_front()
    }

    /// When to call [`Speaker::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let stale = self.shared.peers.iter().flatten().flat_map(PeerSlot::deadlines);
        let deferral = Family::ALL
            .into_iter()
            .filter_map(|f| self.shared.deferral.at(f).until());
        stale
            .chain(deferral)
            .chain(self.v4.deadline())
            .chain(self.v6.deadline())
            .min()
    }

    /// Time has passed; afterwards [`Speaker::work`].
    pub fn tick(&mut self, now: Instant) {
        self.expire_stale(now);
        self.expire_deferral(now);
    }

    pub(super) fn fibs(&mut self) -> [&mut Option<Fib>; 2] {
        [&mut self.v4.fib, &mut self.v6.fib]
    }
}

impl Shared {
    pub(super) fn own(&self) -> Own {
        let restart = &self.config.restart;
        Own {
            asn: self.config.asn,
            router_id: self.config.router_id,
            restarting: restart.restarting
                && Family::ALL
                    .into_iter()
                    .any(|f| self.deferral.at(f).until().is_some()),
            forwarding: restart.forwarding_preserved,
        }
    }

    pub(super) fn multipath(&self) -> Multipath {
        if self.config.multipath_relaxed {
            Multipath::Relaxed
        } else {
            Multipath::SamePath
        }
    }

    pub(super) fn cluster_id(&self) -> Ipv4Addr {
        self.config.cluster_id.unwrap_or(self.config.router_id)
    }

    pub(super) fn peer(&self, peer: PeerId) -> Option<&PeerSlot> {
        self.peers.get(peer.index())?.as_ref()
    }

    pub(super) fn peer_mut(&mut self, peer: PeerId) -> Option<&mut PeerSlot> {
        self.peers.get_mut(peer.index())?.as_mut()
    }

    pub(super) fn in_session(&self, peer: PeerId, session: u32) -> bool {
        self.peer(peer)
            .and_then(|s| s.session.as_ref())
            .is_some_and(|s| s.id == session)
    }

    /// Hands a batch to a peer's session.
    pub(super) fn send(&mut self, peer: PeerId, batch: Batch) {
        let Some(slot) = self.peer_mut(peer) else { return };
        let Some(session) = slot.session.as_ref().map(|s| s.id) else {
            return;
        };
        slot.in_flight += 1;
        slot.updates_out += u64::from(batch.messages);
        slot.octets_out += batch.parts.iter().map(|b| b.len() as u64).sum::<u64>();
        self.out.push_back(Output::Send { peer, session, batch });
    }
}

//! Peers as the speaker sees them: configuration, the running session, counts; how they come, change and go.

use super::core::{Batch, Output, PeerChange, Shared, Speaker, on_plane};
use super::export::ExportKey;
use super::limits::Alarm;
use super::paths::PathNumbers;
use super::restart::{Kept, Stale};
use crate::config::limits::WARN_PERCENT;
use crate::config::{Config, ConfigError, PEERS_MAX, PeerConfig};
use crate::family::{Family, PerFamily};
use crate::fsm::{Down, Session};
use crate::policy::{LearnedFrom, SessionType};
use crate::rib::{PathSource, PeerId};
use crate::view::PrefixCounts;
use crate::wire::RouteRefresh;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

/// One peer.
#[derive(Debug)]
pub(super) struct PeerSlot {
    pub(super) config: PeerConfig,
    /// It has no entry of its own: it came from a range.
    pub(super) dynamic: bool,
    pub(super) session: Option<Session>,
    /// Numbers of the path identifiers that it has sent (RFC 7911).
    pub(super) path_numbers: PathNumbers,
    /// Batches handed over and not yet taken by the socket.
    pub(super) in_flight: u32,
    pub(super) counts: PerFamily<PrefixCounts>,
    /// Routes of earlier sessions are kept.
    pub(super) stale: PerFamily<Option<Stale>>,
    /// The peer has sent all it had since it came up.
    pub(super) complete: PerFamily<bool>,
    /// The session is being ended for too many prefixes.
    pub(super) over_limit: bool,
    /// A warning was given that there are nearly too many.
    pub(super) near_limit: PerFamily<bool>,
    pub(super) updates_out: u64,
    pub(super) octets_out: u64,
}

impl PeerSlot {
    fn new(config: PeerConfig, dynamic: bool) -> Self {
        Self {
            config,
            dynamic,
            session: None,
            path_numbers: PathNumbers::default(),
            in_flight: 0,
            counts: PerFamily::default(),
            stale: PerFamily::default(),
            complete: PerFamily::default(),
            over_limit: false,
            near_limit: PerFamily::default(),
            updates_out: 0,
            octets_out: 0,
        }
    }

    /// Prefixes in the Adj-RIBs-In of both families.
    pub(super) fn received(&self) -> u64 {
        self.counts.ipv4.received + self.counts.ipv6.received
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        [self.stale.ipv4, self.stale.ipv6]
            .into_iter()
            .flatten()
            .map(|s| s.until)
    }
}

impl Speaker {
    /// Applies a new configuration; what it did to peers comes back, for those who run them.
    ///
    /// # Errors
    /// [`ConfigError`]: nothing is applied.
    pub fn configure(&mut self, now: Instant, config: Config) -> Result<Vec<PeerChange>, ConfigError> {
        config.check()?;
        let old = std::mem::replace(
            &mut self.shared.config,
            Config {
                peers: Vec::new(),
                ..config.clone()
            },
        );
        let common = (old.asn, old.router_id, old.graceful_shutdown, old.cluster_id)
            != (
                config.asn,
                config.router_id,
                config.graceful_shutdown,
                config.cluster_id,
            );
        self.shared.sources.at_mut(PeerId::LOCAL).router_id = config.router_id;
        let mut changes = Vec::new();
        let mut peers = config.peers.clone();
        let listed: BTreeSet<IpAddr> = peers.iter().map(|p| p.address).collect();
        let gone = self
            .shared
            .by_address
            .iter()
            .filter(|(a, _)| !listed.contains(*a));
        for (address, peer) in gone.map(|(a, p)| (*a, *p)).collect::<Vec<_>>() {
            // A dynamic neighbour stays one while a range has its address.
            let dynamic = self.shared.peer(peer).is_some_and(|s| s.dynamic);
            match config.range_of(address).filter(|_| dynamic) {
                Some(range) => peers.push(range.peer(address)),
                None => {
                    self.remove_peer(now, address, peer);
                    changes.push(PeerChange::Removed(peer));
                }
            }
        }
        for config in peers {
            match self.shared.by_address.get(&config.address).copied() {
                None => {
                    let peer = self.add_peer(config.clone(), false);
                    changes.push(PeerChange::Added(peer, Box::new(config)));
                }
                Some(peer) => {
                    if let Some(slot) = self.shared.peer_mut(peer) {
                        slot.dynamic &= !listed.contains(&config.address);
                    }
                    if common || self.shared.peer(peer).is_some_and(|s| s.config != config) {
                        self.change_peer(peer, config.clone());
                        changes.push(PeerChange::Changed(peer, Box::new(config)));
                    }
                }
            }
        }
        self.follow_next_hops();
        Ok(changes)
    }

    /// A stranger connects: a new peer, if a range has its address and there is a place.
    pub fn welcome(&mut self, address: IpAddr) -> Option<PeerChange> {
        let range = self.shared.config.range_of(address)?;
        let dynamic = |a: &IpAddr, p: &PeerId| {
            self.shared.peer(*p).is_some_and(|s| s.dynamic)
                && self
                    .shared
                    .config
                    .range_of(*a)
                    .is_some_and(|r| r.net == range.net)
        };
        let of_range = self
            .shared
            .by_address
            .iter()
            .filter(|(a, p)| dynamic(a, p))
            .count();
        let (net, peers_max, config) = (range.net, range.peers_max as usize, range.peer(address));
        let all = self.shared.by_address.len();
        let percent = usize::try_from(WARN_PERCENT).unwrap_or(100);
        let shared = &mut self.shared;
        shared.alarm(Alarm::RangeNear(net), (of_range + 1) * 100 >= peers_max * percent, || {
            format!("{} dynamic neighbours of {net} are {WARN_PERCENT} % or more of the {peers_max} that it may have", of_range + 1)
        });
        shared.alarm(Alarm::RangeFull(net), of_range >= peers_max, || {
            format!(
                "a dynamic neighbour of {net} is turned away: there are {of_range} of at most {peers_max}"
            )
        });
        shared.alarm(Alarm::PeersFull, all >= PEERS_MAX, || {
            format!(
                "a dynamic neighbour of {net} is turned away: there are {all} peers of at most {PEERS_MAX}"
            )
        });
        if of_range >= peers_max || all >= PEERS_MAX {
            return None;
        }
        let peer = self.add_peer(config.clone(), true);
        Some(PeerChange::Added(peer, Box::new(config)))
    }

    /// A dynamic neighbour has no connection left: it is forgotten, unless its routes are kept for its return
    /// (RFC 4724). `None` if it stays, for this reason or since it is no dynamic neighbour.
    pub fn dismiss(&mut self, now: Instant, peer: PeerId) -> Option<PeerChange> {
        let slot = self.shared.peer(peer)?;
        let away = slot.session.is_none() && slot.deadlines().next().is_none();
        if !slot.dynamic || !away {
            return None;
        }
        let address = slot.config.address;
        self.remove_peer(now, address, peer);
        Some(PeerChange::Removed(peer))
    }

    fn add_peer(&mut self, config: PeerConfig, dynamic: bool) -> PeerId {
        let place = self
            .shared
            .peers
            .iter()
            .skip(1)
            .position(Option::is_none)
            .map(|i| i + 1);
        let place = place
            .filter(|i| !self.is_sweeping(PeerId(u16::try_from(*i).unwrap_or(0))))
            .unwrap_or_else(|| {
                self.shared.peers.push(None);
                self.shared.peers.len() - 1
            });
        let peer = PeerId(u16::try_from(place).expect("PEERS_MAX peers and as many departing ones fit"));
        self.shared.by_address.insert(config.address, peer);
        if let Some(slot) = self.shared.peers.get_mut(place) {
            *slot = Some(PeerSlot::new(config, dynamic));
        }
        self.rank(peer, None);
        peer
    }

    /// What the decision knows of a peer. Its generation goes on counting.
    fn rank(&mut self, peer: PeerId, session: Option<&Session>) {
        let Some(slot) = self.shared.peers.get(peer.index()).and_then(Option::as_ref) else {
            return;
        };
        let internal = slot.config.session_type(self.shared.config.asn) == SessionType::Ibgp;
        let (address, client) = (slot.config.address, slot.config.route_reflector_client);
        let place = self.shared.sources.at_mut(peer);
        *place = PathSource {
            from: if internal {
                LearnedFrom::Ibgp
            } else {
                LearnedFrom::Ebgp
            },
            router_id: session.map_or(place.router_id, |s| s.router_id),
            address,
            client,
            generation: place.generation,
        };
    }

    fn change_peer(&mut self, peer: PeerId, config: PeerConfig) {
        let Some(slot) = self.shared.peer_mut(peer) else {
            return;
        };
        let old = std::mem::replace(&mut slot.config, config);
        let import = slot.config.import != old.import
            || slot.config.own_as_allowed != old.own_as_allowed
            || slot.config.honour_graceful_shutdown != old.honour_graceful_shutdown;
        let Some(session) = slot.session.clone() else {
            return self.rank(peer, None);
        };
        self.rank(peer, Some(&session));
        let Some(key) = self.shared.key(peer) else { return };
        for family in session.families.iter() {
            on_plane!(self, family, |plane, _shared| {
                let same = plane
                    .groups
                    .iter()
                    .find(|g| g.has(peer))
                    .is_some_and(|g| g.key == key);
                if !same {
                    plane.repeat(key.clone(), peer, false);
                }
            });
            if import && session.route_refresh {
                self.shared.say_refresh(peer, RouteRefresh::Request(family));
            }
        }
        if import && !session.route_refresh {
            self.judge_again(peer, &old);
        }
    }

    /// Import is judged otherwise, and the peer cannot be asked for its routes again. Where the old policy rewrote nothing,
    /// the table has them as they were received; otherwise only a new session brings them.
    fn judge_again(&mut self, peer: PeerId, old: &PeerConfig) {
        let what = if old.import.rewrites() {
            let reset = Output::Reset(peer, crate::wire::Notification::CONFIG_CHANGE);
            self.shared.out.push_back(reset);
            "import policy has changed, the old one rewrote routes, and the peer does not know route refresh: the session is \
             reset to have them again"
        } else {
            let external = self.shared.sources.at(peer).from == LearnedFrom::Ebgp;
            let marked = external && old.honour_graceful_shutdown;
            self.v4.judge_again(&mut self.shared, peer, marked);
            self.v6.judge_again(&mut self.shared, peer, marked);
            "import policy has changed; the peer does not know route refresh, and the routes that it has sent were judged again"
        };
        self.shared.out.push_back(Output::Warning(peer, what.to_owned()));
    }

    fn remove_peer(&mut self, now: Instant, address: IpAddr, peer: PeerId) {
        self.close(now, peer, None);
        self.shared.by_address.remove(&address);
        if let Some(slot) = self.shared.peers.get_mut(peer.index()).and_then(Option::take) {
            // They go with the next sweep, and nobody there can be blamed for them.
            self.shared.usage.routes = self.shared.usage.routes.saturating_sub(slot.received());
        }
        self.check_deferral();
    }

    fn is_sweeping(&self, peer: PeerId) -> bool {
        self.v4.is_sweeping(peer) || self.v6.is_sweeping(peer)
    }

    /// After a sweep: numbers of departed peers at the end of the list are not kept.
    pub(super) fn forget_departed(&mut self) {
        while let [_, .., None] = self.shared.peers[..] {
            let last = PeerId(u16::try_from(self.shared.peers.len() - 1).unwrap_or(u16::MAX));
            if self.is_sweeping(last) {
                return;
            }
            self.shared.peers.pop();
        }
    }

    /// The peer's session is established.
    pub fn up(&mut self, now: Instant, peer: PeerId, session: Session) {
        let Some(slot) = self.shared.peer_mut(peer) else {
            return;
        };
        slot.in_flight = 0;
        slot.over_limit = false;
        slot.session = Some(session.clone());
        slot.complete = PerFamily::from_fn(|f| {
            !session.families.has(f)
                || session
                    .restart
                    .is_none_or(|r| r.families.at(f).is_none() || r.restarting)
        });
        self.rank(peer, Some(&session));
        self.returned(now, peer, &session);
        if let Some(key) = self.shared.key(peer) {
            for family in session.families.iter() {
                on_plane!(self, family, |plane, _shared| plane.join(key.clone(), peer));
            }
        }
        self.check_deferral();
    }

    /// The peer's session is over.
    pub fn down(&mut self, now: Instant, peer: PeerId, down: &Down) {
        if self.shared.in_session(peer, down.session) {
            self.close(now, peer, Some(down));
        }
    }

    fn close(&mut self, now: Instant, peer: PeerId, down: Option<&Down>) {
        self.v4.leave(peer);
        self.v6.leave(peer);
        let had = self
            .shared
            .peer_mut(peer)
            .and_then(|s| s.session.take())
            .is_some();
        for family in Family::ALL {
            if had || down.is_none() {
                self.departed(now, peer, family, down);
            }
        }
    }

    /// What a peer wants sent again, or says of its own repetition (RFC 2918, RFC 7313).
    pub fn refresh(&mut self, now: Instant, peer: PeerId, session: u32, refresh: RouteRefresh) {
        if !self.shared.in_session(peer, session) {
            return;
        }
        match refresh {
            RouteRefresh::Request(family) => self.repeat(peer, family),
            RouteRefresh::Begin(family) => self.begin_refresh(now, peer, family),
            RouteRefresh::End(family) => self.end_refresh(peer, family),
            RouteRefresh::Ignored => {}
        }
    }

    fn repeat(&mut self, peer: PeerId, family: Family) {
        let Some(key) = self.shared.key(peer) else { return };
        self.shared.say_refresh(peer, RouteRefresh::Begin(family));
        on_plane!(self, family, |plane, _shared| plane.repeat(key, peer, true));
    }

    /// Asks the peer for its routes again and sends it ours again; `false` if it is not up.
    pub fn soft_reset(&mut self, peer: PeerId) -> bool {
        let Some(session) = self.shared.peer(peer).and_then(|s| s.session.clone()) else {
            return false;
        };
        for family in session.families.iter() {
            if session.route_refresh {
                self.shared.say_refresh(peer, RouteRefresh::Request(family));
            }
            self.repeat(peer, family);
        }
        true
    }

    /// The peer with this address.
    #[must_use]
    pub fn peer_at(&self, address: IpAddr) -> Option<PeerId> {
        self.shared.by_address.get(&address).copied()
    }
}

impl Shared {
    fn key(&self, peer: PeerId) -> Option<ExportKey> {
        let slot = self.peer(peer)?;
        Some(ExportKey::new(
            &self.config,
            self.cluster_id(),
            &slot.config,
            slot.session.as_ref()?,
        ))
    }

    /// Says something about route refresh; its marks only to those who know them.
    pub(super) fn say_refresh(&mut self, peer: PeerId, refresh: RouteRefresh) {
        let enhanced = self
            .peer(peer)
            .and_then(|s| s.session.as_ref())
            .is_some_and(|s| s.enhanced_refresh);
        if !enhanced && !matches!(refresh, RouteRefresh::Request(_)) {
            return;
        }
        let mut octets = Vec::new();
        refresh.encode(&mut octets);
        self.send(
            peer,
            Batch {
                parts: vec![octets.into()],
                messages: 0,
            },
        );
    }

    /// Whether a peer's path of this generation is kept only as a last resort (RFC 9494).
    pub(super) fn is_last_resort(&self, peer: PeerId, family: Family, generation: u8) -> bool {
        let long_lived = |s: &PeerSlot| s.stale.at(family).is_some_and(|s| s.kept == Kept::LongLived);
        *self.sources.at(peer).generation.at(family) != generation && self.peer(peer).is_some_and(long_lived)
    }

    /// Whether a peer's path of this generation counts: the present one, or, while stale routes are kept, one since then.
    pub(super) fn keeps(&self, peer: PeerId, family: Family, generation: u8) -> bool {
        let present = *self.sources.at(peer).generation.at(family);
        let Some(slot) = self.peer(peer) else { return false };
        match slot.stale.at(family) {
            None => generation == present,
            Some(stale) => generation.wrapping_sub(stale.since) <= present.wrapping_sub(stale.since),
        }
    }
}

//! Peers and their tasks: who comes and goes, what they say, and what operators are shown of them.

use super::{PEER_COMMANDS_MAX, PeerHandle, RibTask};
use crate::bfd::{Demand, Params};
use crate::config::PeerConfig;
use crate::config::limits::WARN_PERCENT;
use crate::family::PerFamily;
use crate::fsm::Stop;
use crate::link;
use crate::net::advert::Found;
use crate::net::dial;
use crate::net::hosts::Place;
use crate::net::peer_task::{PeerCommand, PeerEvent, PeerTask};
use crate::net::report::SharedReport;
use crate::rib::PeerId;
use crate::speaker::PeerChange;
use crate::view::{NegotiatedView, Notice, PeerState, PeerStatus, PrefixCounts, Totals};
use crate::wire::Notification;
use nix::net::if_::if_indextoname;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tokio::sync::mpsc;

impl RibTask {
    pub(in crate::net) fn peers_changed(&mut self, changes: Vec<PeerChange>) {
        if !changes.is_empty() {
            self.want_neighbours();
        }
        let own = self.speaker.own();
        for change in changes {
            match change {
                PeerChange::Added(peer, config) => {
                    let (commands, rx) = mpsc::channel(PEER_COMMANDS_MAX);
                    let (report, address) = (SharedReport::new(Instant::now()), config.address);
                    let name = config.name();
                    let task = PeerTask::new(peer, *config, own, report.clone());
                    self.tasks.spawn(task.run(rx, self.events_tx.clone()));
                    self.peers.insert(
                        peer,
                        PeerHandle {
                            commands,
                            report,
                            address,
                            name,
                            remote: address,
                            accepted: 0,
                            vacant: false,
                            pending: false,
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
                        self.panics_of_departed += handle.report.lock().counters.panics;
                        self.bfd.want(handle.address, None);
                    }
                }
            }
        }
    }

    pub(super) fn accept(&mut self, stream: tokio::net::TcpStream, from: SocketAddr) {
        let address = self.whose(from);
        if let Err(why) = self.admit(stream, from, address) {
            self.refused += 1;
            tracing::debug!(%from, "bgp connection refused: {why}");
        }
    }

    fn admit(
        &mut self,
        stream: tokio::net::TcpStream,
        from: SocketAddr,
        address: IpAddr,
    ) -> Result<(), &'static str> {
        const STRANGER: &str = "nobody there is a peer";
        let config = self.speaker.config();
        let max = config.limits.pending_per_host;
        let known = self.speaker.peer_at(address);
        let whose = known.and_then(|p| self.speaker.peer_config(p));
        let whose = whose.or_else(|| config.range_of(address).map(|r| &r.template));
        if dial::too_far(&stream, whose.ok_or(STRANGER)?) {
            return Err("it comes from farther away than TTL security allows");
        }
        let place = self.place(from, max)?;
        if known.is_none() {
            self.welcome(address);
        }
        let peer = self.speaker.peer_at(address).ok_or(STRANGER)?;
        let handle = self.peers.get_mut(&peer).ok_or(STRANGER)?;
        // A flood of connections must not take the places that the speaker's window counts on.
        if handle.commands.capacity() <= PEER_COMMANDS_MAX / 2 {
            return Err("too many at once");
        }
        handle.vacant = false;
        if let SocketAddr::V6(from) = from
            && from.ip().is_unicast_link_local()
        {
            let _ = handle.commands.try_send(PeerCommand::Neighbour(*from.ip()));
        }
        if handle
            .commands
            .try_send(PeerCommand::Accepted(stream, place))
            .is_ok()
        {
            handle.accepted += 1;
        }
        Ok(())
    }

    /// A place among the connections of a host that carry no session.
    fn place(&mut self, from: SocketAddr, max: u32) -> Result<Place, &'static str> {
        let host = match from {
            SocketAddr::V4(v4) => IpAddr::V4(*v4.ip()),
            SocketAddr::V6(v6) => link::scoped(*v6.ip(), v6.scope_id()).to_canonical(),
        };
        self.hosts.take(host, max).map_err(|full| {
            self.refused_of_crowds += 1;
            if full.first {
                tracing::warn!(%host, max, "bgp connections are refused: too many from one host have no session yet");
            }
            "too many from one host have no session yet"
        })
    }

    /// Which peer connects from there: on a link the one with that address or, if there is none, the neighbour.
    fn whose(&self, from: SocketAddr) -> IpAddr {
        let address = from.ip().to_canonical();
        let SocketAddr::V6(from) = from else {
            return address;
        };
        if !from.ip().is_unicast_link_local() {
            return address;
        }
        let name = if_indextoname(from.scope_id()).ok();
        let Some(name) = name.as_ref().and_then(|n| n.to_str().ok()) else {
            return address;
        };
        let exact = link::identity(name, Some(*from.ip()));
        if self.speaker.peer_at(exact).is_some() {
            return exact;
        }
        link::identity(name, None)
    }

    /// Neighbours are looked for where a peer is nothing but an interface.
    fn want_neighbours(&self) {
        let configs = self.speaker.peers().filter_map(|p| self.speaker.peer_config(p));
        let unknown = configs.filter(|c| c.host().is_none());
        self.adverts
            .want(unknown.filter_map(|c| c.interface.clone()).collect());
    }

    /// Somebody advertises himself on a link.
    pub(super) fn neighbour_found(&mut self, (interface, address): &Found) {
        let peer = self.speaker.peer_at(link::identity(interface, None));
        if let Some(peer) = peer {
            self.tell(peer, PeerCommand::Neighbour(*address));
        }
    }

    /// A stranger connects. If he is a dynamic neighbour he gets a place, unless too many others are there of whom nothing is
    /// known but that they connected: configured peers are in no danger of them.
    fn welcome(&mut self, address: IpAddr) {
        let (pending, max) = (self.pending(), u64::from(self.speaker.config().limits.pending));
        if self.speaker.config().range_of(address).is_none() {
            return;
        }
        if pending >= max {
            if !std::mem::replace(&mut self.crowded, true) {
                tracing::warn!(
                    pending,
                    max,
                    "dynamic bgp neighbours are turned away: too many have no session yet"
                );
            }
            return;
        }
        if pending * 100 < max * WARN_PERCENT {
            self.crowded = false;
        }
        if let Some(welcome) = self.speaker.welcome(address) {
            self.peers_changed(vec![welcome]);
            if let Some(handle) = self.speaker.peer_at(address).and_then(|p| self.peers.get_mut(&p)) {
                handle.pending = true;
            }
        }
    }

    fn pending(&self) -> u64 {
        self.peers.values().filter(|h| h.pending).count() as u64
    }

    /// What is used of the bounds over all peers.
    pub(super) fn totals(&self) -> Totals {
        let panics = self.peers.values().map(|h| h.report.lock().counters.panics);
        let mut totals = Totals {
            pending: self.pending(),
            refused: self.refused,
            refused_of_crowds: self.refused_of_crowds,
            panics: self.panics_of_departed + panics.sum::<u64>(),
            ..self.speaker.totals()
        };
        if self.crowded {
            let max = totals.limits.pending;
            totals.alarms.push(format!(
                "dynamic neighbours are turned away: {} of at most {max} have no session yet",
                totals.pending
            ));
        }
        totals
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
    pub(super) fn dismiss_late(&mut self) {
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

    pub(super) fn peer_events(&mut self, peer: PeerId, events: Vec<PeerEvent>) {
        let now = Instant::now();
        if !self.peers.contains_key(&peer) {
            return;
        }
        for event in events {
            match event {
                PeerEvent::Up(session, ends) => {
                    self.session_changed(peer, PeerState::Established, None);
                    if let Some(handle) = self.peers.get_mut(&peer) {
                        handle.pending = false;
                        handle.remote = ends.remote.unwrap_or(handle.address);
                    }
                    self.speaker.up(now, peer, (*session).clone());
                    self.monitor.up(peer, &session, ends.ports, &mut self.speaker);
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

    /// BFD runs beside an established session that is configured for it, between the session's own addresses; link-local ones
    /// have their link with them, and are one hop apart whatever else is said.
    fn want_bfd(&self, peer: PeerId) {
        let (Some(config), Some(handle)) = (self.speaker.peer_config(peer), self.peers.get(&peer)) else {
            return;
        };
        let linked = link::of(handle.remote) != 0;
        let demand = config.bfd.zip(self.speaker.session(peer));
        let demand = demand.map(|(params, session)| Demand {
            params: Params {
                multihop: params.multihop && !linked,
                ..params
            },
            local: session.local_address,
            remote: handle.remote,
            session: session.id,
        });
        self.bfd.want(handle.address, demand);
    }

    pub(super) fn show_peers(&self) -> Vec<PeerStatus> {
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
        local_address: link::plain(s.local_address),
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
        asn: report
            .session
            .as_ref()
            .map(|s| s.peer_asn)
            .or_else(|| config.known_asn(own_asn)),
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

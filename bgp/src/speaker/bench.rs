//! A speaker between peers that the test plays: what each of them holds of us is what a strict receiver makes of our octets.
//! Every message is decoded as its receiver would, and none may give it anything to object to.

use super::{Output, PeerChange, Speaker};
use crate::config::{Config, Origination, PeerConfig};
use crate::family::{Families, Family, PerFamily};
use crate::fsm::{Cause, Down, Session};
use crate::policy::SessionType;
use crate::prefix::{Prefix, V4, V6};
use crate::rib::PeerId;
use crate::wire::attr::{Attr, flags_of};
use crate::wire::header::{self, HEADER_LEN, MessageType};
use crate::wire::nlri::PathIds;
use crate::wire::update::{Decoder, Op, UpdateContext};
use crate::wire::{AttrSet, NextHopValue, Nlri, Notification, RouteRefresh, Routes, as_path};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const OWN_ASN: u32 = 64512;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A route as a peer announces it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    pub(crate) path: Vec<u32>,
    pub(crate) hop: Option<IpAddr>,
    pub(crate) path_id: u32,
    /// Other attributes, by code.
    pub(crate) attrs: BTreeMap<u8, Vec<u8>>,
}

impl Route {
    pub(crate) fn of(path: &[u32]) -> Self {
        Self {
            path: path.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn id(mut self, path_id: u32) -> Self {
        self.path_id = path_id;
        self
    }

    pub(crate) fn communities(self, communities: &[u32]) -> Self {
        if communities.is_empty() {
            return self;
        }
        let octets: Vec<u8> = communities.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.attr(8, &octets)
    }

    pub(crate) fn attr(mut self, code: u8, value: &[u8]) -> Self {
        self.attrs.insert(code, value.to_vec());
        self
    }

    fn set(&self, from: IpAddr) -> AttrSet {
        let mut path = Vec::new();
        for asn in self.path.iter().rev() {
            path = {
                let mut out = Vec::new();
                as_path::prepend(&path, *asn, 1, &mut out);
                out
            };
        }
        let mut attrs = self.attrs.clone();
        attrs.entry(1).or_insert_with(|| vec![0]);
        attrs.insert(2, path);
        let attrs: Vec<Attr<'_>> = attrs
            .iter()
            .map(|(code, value)| Attr {
                code: *code,
                flags: flags_of(*code),
                value,
            })
            .collect();
        AttrSet::new(NextHopValue::from(self.hop.unwrap_or(from)), &attrs)
    }
}

/// What a peer holds of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) hop: Option<IpAddr>,
    pub(crate) path: String,
    pub(crate) set: Arc<AttrSet>,
}

pub(crate) struct Played {
    pub(crate) id: PeerId,
    pub(crate) config: PeerConfig,
    pub(crate) session: Option<Session>,
    decoder: Option<Decoder>,
    pub(crate) held: BTreeMap<(IpNet, u32), Held>,
    /// Messages of any kind, and the longest.
    pub(crate) messages: usize,
    pub(crate) longest: usize,
    pub(crate) end_of_rib: PerFamily<bool>,
    pub(crate) asked: Vec<RouteRefresh>,
}

pub(crate) struct Bench {
    pub(crate) now: Instant,
    pub(crate) speaker: Speaker,
    pub(crate) peers: BTreeMap<IpAddr, Played>,
    pub(crate) warnings: Vec<String>,
    pub(crate) alarms: Vec<String>,
    pub(crate) resets: Vec<(IpAddr, Notification)>,
    sessions: u32,
}

/// What a peer says whose AS number is not configured.
pub(crate) const EXTERNAL_ASN: u32 = 65003;

/// A session on which both sides can do all that the configuration offers.
pub(crate) fn session(config: &PeerConfig, id: u32) -> Session {
    let kind = config.session_type(OWN_ASN);
    let router_id = match config.address {
        IpAddr::V4(a) => a,
        IpAddr::V6(a) => Ipv4Addr::from(a.segments()[7] as u32 | 0x0a00_0000),
    };
    let restart = crate::wire::RestartCapability {
        restart_secs: 90,
        families: PerFamily::from_fn(|f| config.families.has(f).then_some(true)),
        ..crate::wire::RestartCapability::default()
    };
    let long_lived =
        config
            .graceful_restart
            .long_lived_secs
            .map(|stale_secs| crate::wire::LongLivedCapability {
                families: PerFamily::from_fn(|f| {
                    config.families.has(f).then_some(crate::wire::LongLived {
                        preserved: true,
                        stale_secs,
                    })
                }),
            });
    Session {
        id,
        kind,
        peer_asn: config.known_asn(OWN_ASN).unwrap_or(EXTERNAL_ASN),
        router_id,
        local_address: if config.address.is_ipv4() {
            ip("10.0.0.1")
        } else {
            ip("fd00::1")
        },
        hold_secs: 90,
        families: config.families,
        four_octet_as: true,
        route_refresh: true,
        enhanced_refresh: true,
        restart: Some(restart),
        notification_restart: false,
        message_max: 4096,
        extended_next_hop: config.extended_next_hop && config.address.is_ipv6(),
        add_path_in: config.add_path.receive,
        add_path_out: config.add_path.send,
        long_lived,
        capabilities: Vec::new(),
        described: Vec::new(),
        opens: Arc::default(),
    }
}

impl Bench {
    /// A speaker in AS 64512 with these peers, all of them up.
    pub(crate) fn new(peers: Vec<PeerConfig>) -> Self {
        Self::with(Config {
            peers,
            ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
        })
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut bench = Self::down(config);
        let addresses: Vec<IpAddr> = bench.peers.keys().copied().collect();
        for address in addresses {
            bench.up_with(address, |_| ());
        }
        bench
    }

    /// The same with no peer up.
    pub(crate) fn down(config: Config) -> Self {
        let now = Instant::now();
        let (speaker, changes) = Speaker::new(now, config).unwrap();
        let mut bench = Self {
            now,
            speaker,
            peers: BTreeMap::new(),
            warnings: Vec::new(),
            alarms: Vec::new(),
            resets: Vec::new(),
            sessions: 0,
        };
        bench.changed(changes);
        bench
    }

    fn changed(&mut self, changes: Vec<PeerChange>) {
        for change in changes {
            match change {
                PeerChange::Added(id, config) => {
                    let played = Played {
                        id,
                        config: (*config).clone(),
                        session: None,
                        decoder: None,
                        held: BTreeMap::new(),
                        messages: 0,
                        longest: 0,
                        end_of_rib: PerFamily::default(),
                        asked: Vec::new(),
                    };
                    self.peers.insert(config.address, played);
                }
                PeerChange::Changed(_, config) => {
                    let peer = self.peers.get_mut(&config.address).unwrap();
                    peer.config = *config;
                }
                PeerChange::Removed(id) => self.peers.retain(|_, p| p.id != id),
            }
        }
    }

    pub(crate) fn configure(&mut self, config: Config) {
        let changes = self.speaker.configure(self.now, config).unwrap();
        self.changed(changes);
    }

    pub(crate) fn up_with(&mut self, address: IpAddr, change: impl FnOnce(&mut Session)) {
        self.sessions += 1;
        let peer = self.peers.get_mut(&address).unwrap();
        let mut session = session(&peer.config, self.sessions);
        change(&mut session);
        let ids = |f| {
            if session.add_path_out.has(f) {
                PathIds::Present
            } else {
                PathIds::Absent
            }
        };
        peer.decoder = Some(Decoder::new(UpdateContext {
            session: session.kind,
            peer_asn: peer.config.local_asn(OWN_ASN),
            four_octet_as: session.four_octet_as,
            families: session.families,
            path_ids: PerFamily::from_fn(ids),
            extended_next_hop: session.extended_next_hop,
            enforce_first_as: true,
            own_addresses: vec![address],
        }));
        peer.held.clear();
        peer.end_of_rib = Families::NONE;
        peer.session = Some(session.clone());
        self.speaker.up(self.now, peer.id, session);
    }

    /// The peer's connection is lost; its routes are kept where its session says so.
    pub(crate) fn lose(&mut self, address: &str) {
        let peer = self.peers.get_mut(&ip(address)).unwrap();
        let session = peer.session.take().unwrap();
        let long_lived = session.long_lived;
        let down = Down {
            session: session.id,
            retain: session.restart.map_or(Families::NONE, |_| session.families),
            restart_secs: session.restart.map_or(0, |r| r.restart_secs),
            long_lived_secs: PerFamily::from_fn(|f| {
                long_lived
                    .and_then(|l| *l.families.at(f))
                    .map_or(0, |l| l.stale_secs)
            }),
            cause: Cause::Closed("lost".into()),
        };
        self.speaker.down(self.now, peer.id, &down);
    }

    /// The peer's session ends, and nothing of it is kept.
    pub(crate) fn lose_for_good(&mut self, address: &str) {
        let peer = self.peers.get_mut(&ip(address)).unwrap();
        let session = peer.session.take().unwrap();
        let down = Down {
            session: session.id,
            retain: Families::NONE,
            restart_secs: 0,
            long_lived_secs: PerFamily::default(),
            cause: Cause::Sent(Notification::OUT_OF_RESOURCES),
        };
        self.speaker.down(self.now, peer.id, &down);
    }

    pub(crate) fn announce(&mut self, from: &str, prefix: &str, route: &Route) {
        self.op(from, prefix, route.path_id, Some(Arc::new(route.set(ip(from)))));
    }

    pub(crate) fn withdraw(&mut self, from: &str, prefix: &str, path_id: u32) {
        self.op(from, prefix, path_id, None);
    }

    pub(crate) fn end_of_rib(&mut self, from: &str, family: Family) {
        let routes = Routes {
            ops: vec![Op::EndOfRib(family)],
            ..Routes::default()
        };
        self.routes(from, &routes);
    }

    pub(crate) fn refresh(&mut self, from: &str, refresh: RouteRefresh) {
        let peer = &self.peers[&ip(from)];
        let session = peer.session.as_ref().unwrap().id;
        self.speaker.refresh(self.now, peer.id, session, refresh);
    }

    fn op(&mut self, from: &str, prefix: &str, path_id: u32, set: Option<Arc<AttrSet>>) {
        let (mut routes, net) = (Routes::default(), net(prefix));
        let family = Family::of_net(&net);
        if let Some(prefix) = V4::of_net(net) {
            routes.v4.push(Nlri { prefix, path_id });
        }
        if let Some(prefix) = V6::of_net(net) {
            routes.v6.push(Nlri { prefix, path_id });
        }
        routes.ops.push(match set {
            Some(set) => Op::Announce(family, set, 0..1),
            None => Op::Withdraw(family, 0..1),
        });
        self.routes(from, &routes);
    }

    fn routes(&mut self, from: &str, routes: &Routes) {
        let peer = &self.peers[&ip(from)];
        let session = peer.session.as_ref().unwrap().id;
        self.speaker.routes(self.now, peer.id, session, routes);
    }

    pub(crate) fn originate(&mut self, routes: &[(&str, Origination)]) {
        let routes = routes.iter().map(|(n, o)| (net(n), o.clone())).collect();
        self.speaker.originate(routes);
        self.speaker.own_routes_known();
    }

    pub(crate) fn after(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        self.speaker.tick(self.now);
        self.settle();
    }

    /// Lets the speaker do what it can do at this moment, and takes what it says.
    pub(crate) fn at_once(&mut self) {
        loop {
            let more = self.speaker.work(self.now);
            while let Some(output) = self.speaker.poll() {
                self.output(output);
            }
            if !more {
                return;
            }
        }
    }

    /// Lets the speaker finish, and takes what it says.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.at_once();
            // A prefix that changed often waits a moment.
            match self.speaker.deadline() {
                Some(at) if at <= self.now + Duration::from_millis(150) => self.now = self.now.max(at),
                _ => return,
            }
        }
        panic!("the speaker does not come to rest");
    }

    fn address(&self, id: PeerId) -> IpAddr {
        *self.peers.iter().find(|(_, p)| p.id == id).unwrap().0
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { peer, session, batch } => {
                self.speaker.sent(peer, session);
                let of = self.address(peer);
                // What was meant for an earlier session finds no connection any more.
                if self.peers[&of].session.as_ref().is_some_and(|s| s.id == session) {
                    self.take(of, &batch.parts.concat());
                }
            }
            Output::Warning(_, what) => self.warnings.push(what),
            Output::Alarm(what) => self.alarms.push(what),
            Output::Reset(peer, notification) => self.resets.push((self.address(peer), notification)),
            Output::Converged(..) => {}
        }
    }

    fn take(&mut self, of: IpAddr, mut octets: &[u8]) {
        let peer = self.peers.get_mut(&of).unwrap();
        let session = peer
            .session
            .as_ref()
            .expect("nothing is sent to a peer that is down");
        while !octets.is_empty() {
            let (kind, len) = header::peek(octets, session.message_max).unwrap().unwrap();
            let (message, rest) = octets.split_at(len);
            (peer.messages, peer.longest) = (peer.messages + 1, peer.longest.max(len));
            let body = &message[HEADER_LEN..];
            match kind {
                MessageType::Update => {
                    let mut routes = Routes::default();
                    let decoder = peer.decoder.as_mut().unwrap();
                    let verdicts = decoder.decode(body, &mut routes).unwrap();
                    assert_eq!(verdicts, [], "{of} objects to {body:02x?}");
                    hold(&mut peer.held, &mut peer.end_of_rib, &routes);
                    lawful(session, &routes);
                }
                MessageType::RouteRefresh => peer.asked.push(RouteRefresh::decode(body).unwrap()),
                other => panic!("a speaker sends no {other:?}"),
            }
            octets = rest;
        }
    }

    pub(crate) fn held(&self, of: &str, prefix: &str) -> Option<&Held> {
        self.peers[&ip(of)].held.get(&(net(prefix), 0))
    }

    /// The AS path that a peer holds for a prefix.
    pub(crate) fn path(&self, of: &str, prefix: &str) -> Option<&str> {
        self.held(of, prefix).map(|h| &*h.path)
    }

    /// The peer whose path is best for a prefix, with its LOCAL_PREF; `None` for none.
    pub(crate) fn best(&self, prefix: &str) -> Option<(IpAddr, Option<u32>)> {
        let query = crate::view::RouteQuery {
            table: crate::view::RouteTable::Best,
            peer: None,
            prefix: Some(net(prefix)),
            limit: 1,
        };
        let best = self.speaker.show_routes(&query).into_iter().next()?;
        Some((best.peer?, best.local_pref))
    }
}

fn hold(held: &mut BTreeMap<(IpNet, u32), Held>, end_of_rib: &mut Families, routes: &Routes) {
    let nlri = |family, range: &std::ops::Range<usize>| -> Vec<(IpNet, u32)> {
        match family {
            Family::Ipv4Unicast => routes.v4[range.clone()]
                .iter()
                .map(|n| (n.prefix.net(), n.path_id))
                .collect(),
            Family::Ipv6Unicast => routes.v6[range.clone()]
                .iter()
                .map(|n| (n.prefix.net(), n.path_id))
                .collect(),
        }
    };
    for op in &routes.ops {
        match op {
            Op::Announce(family, set, range) => {
                let of = Held {
                    hop: set.next_hop().address(),
                    path: as_path::text(set.as_path()),
                    set: Arc::clone(set),
                };
                held.extend(nlri(*family, range).into_iter().map(|n| (n, of.clone())));
            }
            Op::Withdraw(family, range) => {
                for nlri in nlri(*family, range) {
                    held.remove(&nlri);
                }
            }
            Op::EndOfRib(family) => *end_of_rib.at_mut(*family) = true,
        }
    }
}

/// What no decoder objects to and is unlawful all the same.
fn lawful(session: &Session, routes: &Routes) {
    for op in &routes.ops {
        let Op::Announce(_, set, _) = op else { continue };
        assert!(
            set.value(1).is_some() && set.value(2).is_some(),
            "mandatory attributes are there"
        );
        assert_eq!(
            set.value(5).is_some(),
            session.kind == SessionType::Ibgp,
            "LOCAL_PREF is for internal peers, always"
        );
        let inside = |code: u8| session.kind == SessionType::Ebgp && set.value(code).is_some();
        assert!(!inside(9) && !inside(10), "reflection ends at the edge");
        for list in [8, 10, 16, 25, 32] {
            assert_ne!(
                set.value(list).map(<[u8]>::len),
                Some(0),
                "an empty list is no attribute"
            );
        }
    }
}

//! A speaker with an attacker and a bystander, and what becomes of either.

use super::octets::{NLRI, SOUND, attr, mandatory, message, open_body, path, sound, update};
use super::{Fate, Message, OWN, Passed, THEIR, Trigger, TwoOctets};
use bytes::BytesMut;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_bgp::fsm::{Cause, ConnId, Input, Output, Peer};
use twill_bgp::rib::PeerId;
use twill_bgp::speaker::{self, PeerChange, Speaker};
use twill_bgp::wire::Routes;
use twill_bgp::wire::attr::code;
use twill_bgp::wire::header::{self, HEADER_LEN, MESSAGE_MAX_EXTENDED, MessageType};
use twill_bgp::wire::nlri::PathIds;
use twill_bgp::wire::update::{Decoder, Op, UpdateContext};
use twill_bgp::{Config, Families, PeerConfig, PerFamily};

/// The attacker (10.0.0.2) and an external bystander (10.0.0.3) at one speaker.
pub(super) struct World {
    pub(super) now: Instant,
    speaker: Speaker,
    pub(super) attacker: PeerId,
    pub(super) bystander: PeerId,
    fsm: Peer,
    pub(super) session: Option<u32>,
    ended: Option<Cause>,
    /// What the bystander was sent, in order.
    sent: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let peer = |address: [u8; 4], asn: u32| PeerConfig {
            families: Families::BOTH,
            passive: true,
            idle_hold: false,
            ..PeerConfig::new(IpAddr::from(address), asn)
        };
        let config = Config {
            peers: vec![peer([10, 0, 0, 2], THEIR.into()), peer([10, 0, 0, 3], 65002)],
            ..Config::new(OWN, [10, 0, 0, 1].into())
        };
        let (mut speaker, changes) = Speaker::new(now, config).unwrap();
        speaker.own_routes_known();
        let mut changes = changes.into_iter().map(|c| match c {
            PeerChange::Added(id, config) => (id, *config),
            other => panic!("{other:?}"),
        });
        let ((attacker, config), (bystander, other)) = (changes.next().unwrap(), changes.next().unwrap());
        let mut world = Self {
            fsm: Peer::new(other, speaker.own(), 1),
            now,
            attacker,
            bystander,
            session: None,
            ended: None,
            sent: Vec::new(),
            speaker,
        };
        // The bystander's session is made like any other, and then left alone.
        let body = {
            let mut body = open_body(&[2, 8, 65, 4, 0, 0, 0xfd, 0xea, 2, 0]);
            body[1..3].copy_from_slice(&65002_u16.to_be_bytes());
            body[8] = 3;
            body
        };
        world.connect(&message(MessageType::Open, &body), world.bystander);
        world.fsm = Peer::new(config, world.speaker.own(), 1);
        world.session = None;
        world
    }

    pub(super) fn connect(&mut self, open: &[u8], whose: PeerId) -> ConnId {
        self.input(whose, Input::Start);
        let id = self.fsm.conn_id();
        self.input(whose, Input::Accepted(id, [10, 0, 0, 1].into()));
        self.input(whose, Input::Bytes(id, &mut BytesMut::from(open)));
        let keepalive = message(MessageType::Keepalive, &[]);
        self.input(whose, Input::Bytes(id, &mut BytesMut::from(&keepalive[..])));
        id
    }

    pub(super) fn input(&mut self, whose: PeerId, input: Input<'_>) {
        self.fsm.handle(self.now, input);
        while let Some(output) = self.fsm.poll() {
            let session = self.session.unwrap_or(0);
            match output {
                Output::Up(_, up) => {
                    self.session = Some(up.id);
                    self.speaker.up(self.now, whose, *up);
                }
                Output::Down(down) => {
                    self.speaker.down(self.now, whose, &down);
                    (self.session, self.ended) = (None, Some(down.cause));
                }
                Output::Routes(routes) => self.speaker.routes(self.now, whose, session, &routes),
                Output::Refresh(refresh) => self.speaker.refresh(self.now, whose, session, refresh),
                Output::Send(_, octets) => {
                    // An OPEN that was refused has no session whose end could be told.
                    if let [.., 2, subcode] = octets[..]
                        && octets[18] == 3
                    {
                        let cause = twill_bgp::wire::Notification::new(2, subcode);
                        self.ended.get_or_insert(Cause::Sent(cause));
                    }
                }
                Output::Dial(_) | Output::Close(_) | Output::Event(_) => {}
            }
        }
        while self.speaker.work(self.now) {}
        while let Some(output) = self.speaker.poll() {
            if let speaker::Output::Send { peer, session, batch } = output {
                self.speaker.sent(peer, session);
                if peer == self.bystander {
                    self.sent.extend(batch.parts.iter().map(|p| p.to_vec()));
                }
            }
        }
        while self.speaker.work(self.now) {}
    }

    /// Prefixes that the bystander has now, and with which paths. Everything that it was sent must be lawful.
    pub(super) fn bystander_has(&self, prefix: &[u8]) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(UpdateContext {
            session: twill_bgp::policy::SessionType::Ebgp,
            peer_asn: OWN,
            four_octet_as: true,
            families: Families::BOTH,
            path_ids: PerFamily {
                ipv4: PathIds::Absent,
                ipv6: PathIds::Absent,
            },
            extended_next_hop: false,
            enforce_first_as: true,
            own_addresses: Vec::new(),
        });
        let mut has = None;
        for mut octets in self.sent.iter().map(|s| &s[..]) {
            while let Some((kind, len)) = header::peek(octets, 4096).expect("a lawful header") {
                let (message, rest) = octets.split_at(len);
                octets = rest;
                if kind != MessageType::Update {
                    continue;
                }
                let mut routes = Routes::default();
                let said = decoder.decode(&message[HEADER_LEN..], &mut routes);
                assert_eq!(said, Ok(vec![]), "{} octets", message.len());
                for op in &routes.ops {
                    let (set, range) = match op {
                        Op::Announce(_, set, range) => (Some(set), range),
                        Op::Withdraw(_, range) => (None, range),
                        Op::EndOfRib(_) => continue,
                    };
                    let named = routes.v4.get(range.clone()).unwrap_or_default().iter().any(|n| {
                        let mut out = Vec::new();
                        twill_bgp::prefix::Prefix::encode(n.prefix, &mut out);
                        out == prefix
                    });
                    if named {
                        has = set.map(|s| s.as_path().to_vec());
                        assert!(set.is_none_or(|s| s.value(code::CLUSTER_LIST).is_none()));
                    }
                }
            }
        }
        has
    }
}

/// What became of a trigger.
pub(super) fn play(trigger: &Trigger) -> (Fate, World) {
    let mut world = World::new();
    let attacker = world.attacker;
    let open = match trigger {
        Trigger::Open(parameters) => open_body(parameters),
        Message(_) => open_body(&sound(false)),
        TwoOctets(_) => open_body(&sound(true)),
    };
    let conn = world.connect(&message(MessageType::Open, &open), attacker);
    if let Message(octets) | TwoOctets(octets) = trigger {
        assert!(world.session.is_some(), "the session does not come up");
        assert!(octets.len() <= MESSAGE_MAX_EXTENDED);
        world.input(attacker, Input::Bytes(conn, &mut BytesMut::from(&octets[..])));
    }
    let fate = match &world.ended {
        None => Fate::Stays(if world.bystander_has(NLRI).is_some() {
            Passed::Yes
        } else {
            Passed::No
        }),
        Some(Cause::Sent(n)) => Fate::Reset(n.code, n.subcode),
        Some(Cause::Received(_)) => Fate::Ended,
        Some(other) => panic!("{other:?}"),
    };
    (fate, world)
}

/// The peer comes (or stays) and has a sound route passed on: no harm was done.
pub(super) fn still_works(world: &mut World) {
    let attacker = world.attacker;
    world.now += Duration::from_secs(1);
    let wide = sound(false);
    let conn = match world.session {
        Some(_) => None,
        None => Some(world.connect(&message(MessageType::Open, &open_body(&wide)), attacker)),
    };
    assert!(world.session.is_some(), "the peer is not taken back");
    let conn = conn.unwrap_or(ConnId(1));
    // A session of two-octet speakers has its own form of path.
    let two_octets = attr(0x40, 2, &[2, 1, 0xfd, 0xe9]);
    for path in [path(1), two_octets] {
        let octets = update(&[], &mandatory(&path), SOUND);
        world.input(attacker, Input::Bytes(conn, &mut BytesMut::from(&octets[..])));
        if world.bystander_has(SOUND).is_some() {
            return;
        }
    }
    panic!("a sound route is not passed on");
}

//! Incidents and CVEs of BGP speakers in the field, each trigger sent to a peer's FSM with the speaker behind it. The session
//! stays or ends as the RFCs say, a session that ended comes back, a sound route still arrives, and what other peers are sent
//! is lawful.

use bytes::BytesMut;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_bgp::fsm::{Cause, ConnId, Input, Output, Peer};
use twill_bgp::rib::PeerId;
use twill_bgp::speaker::{self, PeerChange, Speaker};
use twill_bgp::wire::attr::code;
use twill_bgp::wire::header::{self, HEADER_LEN, MESSAGE_MAX_EXTENDED, MessageType};
use twill_bgp::wire::nlri::PathIds;
use twill_bgp::wire::update::{Decoder, Op, UpdateContext};
use twill_bgp::wire::{Routes, as_path};
use twill_bgp::{Config, Families, PeerConfig, PerFamily};

const OWN: u32 = 65000;
const THEIR: u16 = 65001;

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays; the route of the message is passed on to the next peer, or is not.
    Stays(Passed),
    /// We end it with this code and subcode.
    Reset(u8, u8),
    /// The peer's own NOTIFICATION ends it.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Yes,
    No,
}

const PASSED: Fate = Fate::Stays(Passed::Yes);
const WITHHELD: Fate = Fate::Stays(Passed::No);

/// What the attacker says.
enum Trigger {
    /// The optional parameters of its OPEN.
    Open(Vec<u8>),
    /// A message on an established session of speakers with four-octet AS numbers.
    Message(Vec<u8>),
    /// The same between a two-octet speaker and us.
    TwoOctets(Vec<u8>),
}

use Trigger::{Message, TwoOctets};

/// What happened where, what it takes, and what becomes of it here.
type Case = (&'static str, Trigger, Fate);

fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    match u8::try_from(value.len()) {
        Ok(short) if flags & 0x10 == 0 => [&[flags, code, short], value].concat(),
        _ => [&[flags | 0x10, code], &len[..], value].concat(),
    }
}

fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    header::message(&mut out, kind, |out| out.extend_from_slice(body));
    out
}

fn update(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = |x: &[u8]| u16::try_from(x.len()).unwrap().to_be_bytes();
    let body = [&len(withdrawn)[..], withdrawn, &len(attrs), attrs, nlri].concat();
    message(MessageType::Update, &body)
}

const NLRI: &[u8] = &[24, 198, 18, 5];
const SOUND: &[u8] = &[24, 198, 51, 100];

fn path(asns: usize) -> Vec<u8> {
    let asn = u32::from(THEIR).to_be_bytes();
    let segments = (0..asns).collect::<Vec<_>>();
    let segments = segments
        .chunks(255)
        .map(|s| [&[2, s.len() as u8][..], &asn.repeat(s.len())].concat());
    attr(0x40, 2, &segments.collect::<Vec<_>>().concat())
}

fn mandatory(path: &[u8]) -> Vec<u8> {
    [&attr(0x40, 1, &[0])[..], path, &attr(0x40, 3, &[10, 0, 0, 2])].concat()
}

/// A sound route with one more attribute.
fn with(flags: u8, code: u8, value: &[u8]) -> Trigger {
    Message(update(
        &[],
        &[&mandatory(&path(1))[..], &attr(flags, code, value)].concat(),
        NLRI,
    ))
}

/// A route with this path.
fn along(path: &[u8]) -> Trigger {
    Message(update(&[], &mandatory(path), NLRI))
}

/// A route of a two-octet speaker with this in front of its other attributes.
fn two_octets(first: &[u8]) -> Trigger {
    let path = attr(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    TwoOctets(update(&[], &[first, &mandatory(&path)].concat(), NLRI))
}

fn refresh(body: &[u8]) -> Trigger {
    Message(message(MessageType::RouteRefresh, body))
}

/// An OPEN whose only parameter holds these capabilities.
fn capabilities(octets: &[u8]) -> Trigger {
    Trigger::Open([&[2, octets.len() as u8], octets].concat())
}

/// Path attributes that are no list, and a prefix behind them.
fn list(attrs: &[u8]) -> Trigger {
    Message(update(&[], attrs, NLRI))
}

fn cases() -> Vec<Case> {
    [
        early(),
        quagga(),
        frr_opens(),
        frr_attributes(),
        frr_multiprotocol(),
        others(),
        gobgp(),
        ours(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn early() -> Vec<Case> {
    let long_as4 = [&[2, 250][..], &70_000_u32.to_be_bytes().repeat(250)].concat();
    vec![
        (
            "2009-01: AS4_PATH with AS_CONFED_SEQUENCE",
            two_octets(&attr(0xc0, 17, &[3, 1, 0, 1, 0, 0])),
            PASSED,
        ),
        (
            "CVE-2009-1572: a long AS4_PATH",
            two_octets(&attr(0xc0, 17, &long_as4)),
            PASSED,
        ),
        ("2009-02 SuproNet: a path of 252 ASNs", along(&path(252)), PASSED),
        (
            "2010-08, CVE-2010-3035: attribute 99 of 3,000 octets",
            with(0xf0, 99, &[0xa5; 3000]),
            PASSED,
        ),
    ]
}

fn quagga() -> Vec<Case> {
    let unknown_segment = attr(0x40, 2, &[9, 1, 0, 0, 0xfd, 0xe9]);
    let twice = [
        &mandatory(&path(1))[..],
        &attr(0xc0, 99, &[1]),
        &attr(0xc0, 99, &[2]),
        &attr(0x80, 10, &[1; 4]),
    ]
    .concat();
    vec![
        (
            "CVE-2010-2948: ORF in a ROUTE-REFRESH",
            refresh(&[0, 1, 1, 1, 1, 64, 0, 200, 0x80]),
            WITHHELD,
        ),
        (
            "CVE-2010-2949: an AS_PATH segment of unknown type",
            along(&unknown_segment),
            WITHHELD,
        ),
        (
            "CVE-2011-3327: extended communities, length not x8",
            with(0xc0, 16, &[0; 9]),
            WITHHELD,
        ),
        (
            "CVE-2012-1820: ORF capability cut short",
            capabilities(&[3, 5, 0, 1, 0, 1, 9]),
            WITHHELD,
        ),
        ("CVE-2017-16227: a path of 600 ASNs", along(&path(600)), PASSED),
        (
            "CVE-2018-5378: NOTIFICATION with invalid data",
            Message(message(MessageType::Notification, &[2, 2, 0, 1])),
            Fate::Ended,
        ),
        (
            "CVE-2018-5379: attributes twice, cluster list from outside",
            list(&twice),
            PASSED,
        ),
        (
            "CVE-2018-5380: NOTIFICATION of unknown code",
            Message(message(MessageType::Notification, &[255, 255])),
            Fate::Ended,
        ),
        (
            "CVE-2018-5381: a multiprotocol capability of no length",
            capabilities(&[1, 0, 1, 0]),
            WITHHELD,
        ),
    ]
}

fn frr_opens() -> Vec<Case> {
    vec![
        (
            "CVE-2022-36440: four-octet AS capability of length 2",
            capabilities(&[65, 2, 0xfd, 0xe9]),
            WITHHELD,
        ),
        (
            "CVE-2022-37032: graceful restart capability of length 1",
            capabilities(&[64, 1, 0x80]),
            WITHHELD,
        ),
        (
            "CVE-2022-40302: option 255, one octet behind it",
            Trigger::Open(vec![255, 255]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2022-40318: option 255, its length cut",
            Trigger::Open(vec![255, 0, 9, 2]),
            Fate::Reset(2, 4),
        ),
        (
            "CVE-2022-43681: a parameter longer than the OPEN",
            Trigger::Open(vec![2, 200]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2023-31489: long-lived restart capability cut short",
            capabilities(&[71, 3, 0, 1, 1]),
            WITHHELD,
        ),
        (
            "CVE-2023-41361: software version longer than it is",
            capabilities(&[75, 3, 200, b'a', b'b']),
            WITHHELD,
        ),
        (
            "CVE-2025-43970: software version of length 0",
            capabilities(&[75, 1, 0, 75, 0]),
            WITHHELD,
        ),
    ]
}

fn frr_attributes() -> Vec<Case> {
    vec![
        ("CVE-2019-5892: attribute 255", with(0xc0, 255, &[0; 12]), PASSED),
        (
            "CVE-2023-31490: Prefix-SID sub-TLV",
            with(0xc0, 40, &[5, 0, 3, 0, 1, 200]),
            PASSED,
        ),
        (
            "CVE-2023-38802, CVE-2024-44070: attribute 23 cut short",
            with(0xc0, 23, &[0]),
            PASSED,
        ),
        (
            "CVE-2023-41359: AIGP TLV longer than the attribute",
            with(0x80, 26, &[1, 0, 200, 0]),
            PASSED,
        ),
        (
            "CVE-2023-41360: ORF header at the very end",
            refresh(&[0, 1, 0, 1, 1]),
            WITHHELD,
        ),
        (
            "CVE-2024-31948: Prefix-SID TLV longer than the attribute",
            with(0xc0, 40, &[1, 0, 7, 0, 0]),
            PASSED,
        ),
        (
            "CVE-2026-37459: attribute 39, TLV length without its header",
            with(0xc0, 39, &[0, 1, 0, 0]),
            PASSED,
        ),
        (
            "CVE-2026-37460: attribute 255 as RFAPI reads it",
            with(0xc0, 255, &[1, 255, 1]),
            PASSED,
        ),
    ]
}

fn frr_multiprotocol() -> Vec<Case> {
    let flowspec = |nlri: &[u8]| attr(0x80, 14, &[&[0, 1, 133, 0, 0], nlri].concat());
    let lone = |attrs: &[u8]| Message(update(&[], attrs, &[]));
    vec![
        (
            "CVE-2023-38406: FlowSpec, length 0",
            lone(&flowspec(&[0])),
            WITHHELD,
        ),
        (
            "CVE-2023-41909: FlowSpec without attributes",
            lone(&flowspec(&[3, 1, 24, 10])),
            WITHHELD,
        ),
        (
            "CVE-2026-37457: FlowSpec, one operator too many",
            lone(&flowspec(&[4, 3, 0x01, 6, 0x01])),
            WITHHELD,
        ),
        (
            "CVE-2023-41358: NLRI with attribute length 0",
            Message(update(&[], &[], NLRI)),
            WITHHELD,
        ),
        (
            "CVE-2023-46752: MP_REACH cut in its next hop",
            lone(&attr(0x80, 14, &[0, 2, 1, 32, 0xfd])),
            Fate::Reset(3, 9),
        ),
        (
            "CVE-2023-46753: an unknown transitive attribute alone",
            lone(&attr(0xc0, 99, &[1])),
            WITHHELD,
        ),
        (
            "CVE-2023-47234: MP_UNREACH, and NLRI without mandatory attributes",
            list(&attr(0x80, 15, &[0, 2, 1])),
            WITHHELD,
        ),
        (
            "CVE-2023-47235: a malformed End-of-RIB",
            lone(&attr(0x80, 15, &[0, 2])),
            Fate::Reset(3, 9),
        ),
    ]
}

fn others() -> Vec<Case> {
    let confed = [&[3, 255][..], &u32::from(THEIR).to_be_bytes().repeat(255)].concat();
    let no_length = [&[0x50, 1, 0, 0][..], &path(1), &attr(0x40, 3, &[10, 0, 0, 2])].concat();
    vec![
        (
            "CVE-2023-38283: ORIGIN of extended length 0",
            list(&no_length),
            WITHHELD,
        ),
        (
            "CVE-2023-4481: attribute 28 corrupted",
            with(0xe0, 28, &[0xff; 3]),
            PASSED,
        ),
        (
            "CVE-2023-40457: an unknown attribute, reserved flags set",
            with(0xcf, 200, &[0xff; 64]),
            PASSED,
        ),
        (
            "CVE-2025-20115: AS_CONFED_SEQUENCE of 255 ASNs",
            along(&attr(0x40, 2, &confed)),
            WITHHELD,
        ),
        (
            "2025-05-20: attribute 40, all zero",
            with(0xc0, 40, &[0; 60]),
            PASSED,
        ),
        (
            "2025-10-24: OTC of 1,024 octets",
            with(0xc0, 35, &[0; 1024]),
            WITHHELD,
        ),
        (
            "CVE-2026-49943: a path of 2,049 ASNs in an extended message",
            along(&path(2049)),
            WITHHELD,
        ),
    ]
}

fn gobgp() -> Vec<Case> {
    let short_extended = [&mandatory(&path(1))[..], &[0xd0, 16, 0]].concat();
    let hop = |hop: &[u8]| list(&[&attr(0x40, 1, &[0])[..], &path(1), &attr(0x40, 3, hop)].concat());
    vec![
        (
            "CVE-2023-46565, CVE-2025-43971: an attribute header cut short",
            list(&short_extended),
            WITHHELD,
        ),
        (
            "CVE-2025-43972: an extended community of 7 octets",
            with(0xc0, 16, &[0; 7]),
            WITHHELD,
        ),
        (
            "CVE-2025-43973: an OPEN of no parameters but a length",
            Trigger::Open(vec![2]),
            Fate::Reset(2, 0),
        ),
        (
            "CVE-2026-41643: a broken AS4_PATH in front of AS_PATH",
            two_octets(&attr(0xc0, 17, &[2, 9, 0])),
            PASSED,
        ),
        (
            "CVE-2026-37461: an IPv6 extended community of 3 octets",
            with(0xc0, 25, &[0; 3]),
            WITHHELD,
        ),
        (
            "CVE-2026-37462: withdrawn length beyond the message",
            Message(message(MessageType::Update, &[0xff, 0xff, 0, 0])),
            Fate::Reset(3, 1),
        ),
        ("CVE-2026-30405: NEXT_HOP of no length", hop(&[]), WITHHELD),
        ("CVE-2026-30405: NEXT_HOP of 16 octets", hop(&[1; 16]), WITHHELD),
    ]
}

fn ours() -> Vec<Case> {
    let mut unknown = message(MessageType::Keepalive, &[]);
    unknown[18] = 77;
    let text = [&[6, 2, 200][..], b"bye"].concat();
    vec![
        (
            "CVE-2019-16159: a shutdown text shorter than it says",
            Message(message(MessageType::Notification, &text)),
            Fate::Ended,
        ),
        ("an unknown message type", Message(unknown), Fate::Reset(1, 3)),
        (
            "an OPEN in Established",
            Message(message(MessageType::Open, &open_body(&[]))),
            Fate::Reset(5, 3),
        ),
        ("a path of 3,000 ASNs", along(&path(3000)), WITHHELD),
        (
            "FRR's empty path: 999 ASNs go on with all their loops",
            along(&path(999)),
            PASSED,
        ),
    ]
}

fn open_body(parameters: &[u8]) -> Vec<u8> {
    let [high, low] = THEIR.to_be_bytes();
    let head = [4, high, low, 0, 90, 10, 0, 0, 2, parameters.len() as u8];
    [&head, parameters].concat()
}

/// The parameters of a sound OPEN.
fn sound(two_octets: bool) -> Vec<u8> {
    let mut caps = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 6, 0, 64, 2, 0, 120];
    if !two_octets {
        caps.extend([65, 4, 0, 0]);
        caps.extend(THEIR.to_be_bytes());
    }
    [&[2, caps.len() as u8], &caps[..]].concat()
}

/// The attacker (10.0.0.2) and an external bystander (10.0.0.3) at one speaker.
struct World {
    now: Instant,
    speaker: Speaker,
    attacker: PeerId,
    bystander: PeerId,
    fsm: Peer,
    session: Option<u32>,
    ended: Option<Cause>,
    /// What the bystander was sent, in order.
    sent: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
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

    fn connect(&mut self, open: &[u8], whose: PeerId) -> ConnId {
        self.input(whose, Input::Start);
        let id = self.fsm.conn_id();
        self.input(whose, Input::Accepted(id, [10, 0, 0, 1].into()));
        self.input(whose, Input::Bytes(id, &mut BytesMut::from(open)));
        let keepalive = message(MessageType::Keepalive, &[]);
        self.input(whose, Input::Bytes(id, &mut BytesMut::from(&keepalive[..])));
        id
    }

    fn input(&mut self, whose: PeerId, input: Input<'_>) {
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
    fn bystander_has(&self, prefix: &[u8]) -> Option<Vec<u8>> {
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
fn play(trigger: &Trigger) -> (Fate, World) {
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
fn still_works(world: &mut World) {
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

#[test]
fn every_trigger_of_an_incident_is_harmless() {
    let mut wrong = Vec::new();
    for (id, trigger, expected) in cases() {
        let (fate, mut world) = play(&trigger);
        if fate != expected {
            wrong.push(format!("{id}: {fate:?} instead of {expected:?}"));
        }
        still_works(&mut world);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_long_path_is_passed_on_whole() {
    let (_, world) = play(&along(&path(999)));
    let passed = world.bystander_has(NLRI).unwrap();
    assert_eq!(as_path::length(&passed), 1000);
    assert_eq!(as_path::first(&passed), Some(OWN));
}

/// The negative twin: a speaker that lets a session die, or that passes nothing on, is told from one that does not.
#[test]
fn harm_would_be_noticed() {
    let (fate, mut world) = play(&Message(message(MessageType::Update, &[0])));
    assert_eq!(fate, Fate::Reset(1, 2));
    world.bystander = world.attacker;
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| still_works(&mut world))).is_err());
}

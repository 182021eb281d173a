//! What the fuzzer calls in twill-bgp, and what the crate's own test replays the corpus through: decoders with their
//! invariants, and sequences of events into two peers' FSMs with the speaker behind them.

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_bgp::bfd;
use twill_bgp::config::File;
use twill_bgp::config::{Config, Origination, PeerConfig};
use twill_bgp::fsm::{ConnId, Input, Output, Peer, Session, Stop};
use twill_bgp::policy::SessionType;
use twill_bgp::rib::PeerId;
use twill_bgp::speaker::{self, PeerChange, Speaker};
use twill_bgp::wire::header::{self, HEADER_LEN, MESSAGE_MAX, MESSAGE_MAX_EXTENDED, MessageType};
use twill_bgp::wire::nlri::PathIds;
use twill_bgp::wire::update::{Decoder, Op, UpdateContext};
use twill_bgp::wire::{Capabilities, Notification, Open, RouteRefresh, Routes, as_path, capability};
use twill_bgp::{Families, PerFamily};

/// A target's name and its entry.
pub type Target = (&'static str, fn(&[u8]));

/// Each target and its entry.
pub const TARGETS: &[Target] = &[
    ("bgp_header", header),
    ("bgp_open", open),
    ("bgp_capabilities", capabilities),
    ("bgp_update", update),
    ("bgp_notification", notification),
    ("bgp_refresh", refresh),
    ("bgp_session", session),
    ("bgp_config", config),
    ("bfd_packet", bfd_packet),
    ("bfd_session", bfd_session),
];

/// Framing: a length that is believed lies within the session's maximum.
pub fn header(data: &[u8]) {
    for max in [MESSAGE_MAX, MESSAGE_MAX_EXTENDED] {
        match header::peek(data, max) {
            Ok(Some((_, len))) => assert!((HEADER_LEN..=max).contains(&len)),
            Ok(None) => assert!(data.len() < HEADER_LEN),
            Err(error) => assert_eq!(error.notification().code, 1),
        }
    }
}

/// An OPEN that is taken means the same after another round.
pub fn open(data: &[u8]) {
    match Open::decode(data) {
        Ok(open) => {
            let mut octets = Vec::new();
            open.encode(&mut octets);
            let again = Open::decode(&octets[HEADER_LEN..]).expect("our own OPEN is lawful");
            assert_eq!(
                (open.asn, open.hold_time, open.router_id),
                (again.asn, again.hold_time, again.router_id)
            );
            // A speaker of no family known to us is told from one that says nothing only by what it said.
            if open.capabilities.families() != Families::NONE {
                assert_eq!(open.capabilities.families(), again.capabilities.families());
            }
        }
        Err(error) => assert_eq!(error.notification().code, 2),
    }
}

/// Capabilities on their own: many, repeated, cut short.
pub fn capabilities(data: &[u8]) {
    let mut read = Capabilities::default();
    let first = capability::read(data, &mut read);
    assert_eq!(
        first,
        capability::read(data, &mut read),
        "an overrun is one every time"
    );
    assert!(read.codes.len() <= 256);
    let _ = read.list();
}

fn context(options: u8) -> UpdateContext {
    let bit = |n: u8| options & (1 << n) != 0;
    let ids = |present| {
        if present {
            PathIds::Present
        } else {
            PathIds::Absent
        }
    };
    UpdateContext {
        session: if bit(0) {
            SessionType::Ibgp
        } else {
            SessionType::Ebgp
        },
        peer_asn: if bit(0) { 65000 } else { 65001 },
        four_octet_as: bit(1),
        families: Families {
            ipv4: !bit(2),
            ipv6: !bit(3),
        },
        path_ids: PerFamily {
            ipv4: ids(bit(4)),
            ipv6: ids(bit(5)),
        },
        extended_next_hop: bit(6),
        enforce_first_as: bit(7),
        own_addresses: vec![IpAddr::from([10, 0, 0, 1])],
    }
}

/// An UPDATE under options that its first octet chooses; twice, since the second time may come from the decoder's memory.
pub fn update(data: &[u8]) {
    let Some((options, body)) = data.split_first() else {
        return;
    };
    let mut decoder = Decoder::new(context(*options));
    let (mut first, mut second) = (Routes::default(), Routes::default());
    let said = decoder.decode(body, &mut first);
    assert_eq!(said, decoder.decode(body, &mut second));
    assert_eq!(format!("{:?}", first.ops), format!("{:?}", second.ops));
    match said {
        Err(error) => {
            assert!(first.ops.is_empty());
            assert_eq!(error.notification().code, 3);
        }
        Ok(verdicts) => assert!(verdicts.len() <= body.len()),
    }
    for op in &first.ops {
        let Op::Announce(_, set, _) = op else { continue };
        assert_eq!(as_path::check(set.as_path(), as_path::Width::Four), Ok(()));
        assert!(set.value(twill_bgp::wire::attr::code::ORIGIN).is_some());
    }
}

/// A NOTIFICATION says itself without control characters, and means the same after another round.
pub fn notification(data: &[u8]) {
    let read = Notification::decode(data);
    assert!(!read.to_string().contains(char::is_control));
    let mut octets = Vec::new();
    read.encode(&mut octets);
    assert!(octets.len() <= MESSAGE_MAX);
    assert_eq!(Notification::decode(&octets[HEADER_LEN..]), read);
    let _ = Notification::hard_reset(&read).to_string();
}

/// A ROUTE-REFRESH that is taken is encoded as it came.
pub fn refresh(data: &[u8]) {
    match RouteRefresh::decode(data) {
        Ok(RouteRefresh::Ignored) => {}
        Ok(known) => {
            let mut octets = Vec::new();
            known.encode(&mut octets);
            assert_eq!(&octets[HEADER_LEN..], data);
        }
        Err(notification) => assert_eq!((notification.code, notification.subcode), (7, 1)),
    }
}

/// A configuration file of people: taken, or refused with words and without passwords.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match File::parse(text) {
        Ok(file) => assert_eq!(file.config.check(), Ok(())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A BFD packet that is taken comes back octet by octet, but for what we do not carry.
pub fn bfd_packet(data: &[u8]) {
    if let Ok(packet) = bfd::Packet::decode(data) {
        assert_eq!(bfd::Packet::decode(&packet.encode()), Ok(packet));
    }
}

/// Packets and time into one BFD session: its timers stay sane whatever the other end says.
pub fn bfd_session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = Instant::now();
    let mut machine = bfd::Session::new(now, bfd::Params::default(), 7, 1);
    // Once it is empty, it gives zeros for ever.
    while !input.is_empty()
        && let Ok(step) = u8::arbitrary(&mut input)
    {
        match step % 4 {
            0 | 1 => {
                let mut octets = [0; 24];
                if input.fill_buffer(&mut octets).is_err() {
                    return;
                }
                octets[0] = 0x20 | (octets[0] & 0x1f);
                octets[3] = 24;
                if let Ok(packet) = bfd::Packet::decode(&octets) {
                    machine.receive(now, &packet);
                }
            }
            2 => {
                now += Duration::from_millis(u16::arbitrary(&mut input).unwrap_or(0).into());
                machine.tick(now);
            }
            _ if step & 4 == 0 => drop(machine.disable(now)),
            _ => drop(machine.enable(now)),
        }
        let mut packets = 0;
        while let Some(packet) = machine.poll() {
            packets += 1;
            assert!(bfd::Packet::decode(&packet).is_ok_and(|p| !(p.poll && p.is_final)));
        }
        // The first call also finds the packet that a new session sends.
        assert!(packets <= 3);
        if let Some(interval) = machine.tx_interval() {
            assert!(interval >= bfd::INTERVAL_MIN);
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Accept(bool),
    Connect(bool, u8),
    Bytes(bool, u8, Vec<u8>),
    Message(bool, u8, Message),
    Close(bool, u8),
    Written(bool, u8, bool),
    Wait(u16),
    Reset(bool, u8, u8),
    Restart(bool),
    Configure(bool, u8),
    Originate(u8),
}

#[derive(Arbitrary, Debug)]
enum Message {
    /// A lawful OPEN with these capabilities behind its own.
    Open(bool, u8, Vec<u8>),
    /// Whatever an OPEN may hold.
    AnyOpen(Vec<u8>),
    Keepalive,
    /// Attributes behind lawful ones, and prefixes.
    Route(Vec<u8>, Vec<u8>),
    Withdraw(Vec<u8>),
    /// Whatever an UPDATE may hold.
    Update(Vec<u8>),
    Refresh([u8; 4]),
    Notification(u8, u8, Vec<u8>),
}

/// A peer of the world below.
struct Side {
    id: PeerId,
    fsm: Peer,
    session: Option<(ConnId, Session)>,
    conns: Vec<ConnId>,
}

struct World {
    now: Instant,
    speaker: Speaker,
    sides: Vec<Side>,
}

const OWN_ASN: u32 = 65000;

/// A sequence of events into an external and an internal peer and the speaker behind them. What the speaker sends must be
/// lawful to the letter: a decoder of the other end finds nothing to complain about.
pub fn session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut world = World::new(u8::arbitrary(&mut input).unwrap_or(0));
    for _ in 0..200 {
        let Ok(step) = Step::arbitrary(&mut input) else {
            return;
        };
        world.step(step);
        if input.is_empty() {
            break;
        }
    }
    // However it went, time heals: nothing runs for ever.
    for _ in 0..20 {
        world.wait(60_000);
    }
}

fn address(side: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, if side == 0 { 2 } else { 3 }])
}

impl World {
    fn new(options: u8) -> Self {
        let now = Instant::now();
        let mut external = PeerConfig::new(address(0), 65001);
        external.families = Families::BOTH;
        external.prefixes_max = (options & 1 != 0).then_some(3);
        external.passive = options & 2 != 0;
        let mut internal = PeerConfig::new(address(1), OWN_ASN);
        internal.families = Families::BOTH;
        internal.route_reflector_client = options & 4 != 0;
        internal.passive = options & 8 != 0;
        let config = Config {
            peers: vec![external, internal],
            ..Config::new(OWN_ASN, [10, 0, 0, 1].into())
        };
        let (speaker, changes) = Speaker::new(now, config).expect("the configuration is lawful");
        let own = speaker.own();
        let sides = changes.into_iter().map(|change| {
            let PeerChange::Added(id, config) = change else {
                unreachable!("a new speaker only adds peers")
            };
            Side {
                id,
                fsm: Peer::new(*config, own, 1),
                session: None,
                conns: Vec::new(),
            }
        });
        let mut world = Self {
            now,
            sides: sides.collect(),
            speaker,
        };
        world.speaker.subscribe();
        world.speaker.own_routes_known();
        for side in 0..2 {
            world.input(side, Input::Start);
        }
        world
    }

    fn conn(&self, side: usize, which: u8) -> Option<ConnId> {
        let conns = &self.sides[side].conns;
        (!conns.is_empty()).then(|| conns[usize::from(which) % conns.len()])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Accept(side) => {
                let side = usize::from(side);
                let id = self.sides[side].fsm.conn_id();
                self.sides[side].conns.push(id);
                self.input(side, Input::Accepted(id, [10, 0, 0, 1].into()));
            }
            Step::Connect(side, which) => {
                self.with_conn(side, which, |id| Input::Connected(id, [10, 0, 0, 1].into()))
            }
            Step::Bytes(side, which, octets) => self.octets(usize::from(side), which, &octets),
            Step::Message(side, which, message) => {
                let octets = message.encode(usize::from(side));
                self.octets(usize::from(side), which, &octets);
            }
            Step::Close(side, which) => {
                self.with_conn(side, which, |id| Input::Closed(id, "fuzz".into()));
                let side = usize::from(side);
                if let Some(id) = self.conn(side, which) {
                    self.sides[side].conns.retain(|c| *c != id);
                }
            }
            Step::Written(side, which, drained) => {
                self.with_conn(side, which, |conn| Input::Written { conn, drained });
            }
            Step::Wait(millis) => self.wait(millis.into()),
            Step::Reset(side, code, subcode) => {
                let notification = Notification::new(code, subcode);
                self.input(usize::from(side), Input::Stop(Stop::Reset(notification)));
            }
            Step::Restart(side) => {
                self.input(usize::from(side), Input::Stop(Stop::Restart));
                self.input(usize::from(side), Input::Start);
            }
            Step::Configure(side, bits) => {
                let side = usize::from(side);
                let mut config = self.sides[side].fsm.config().clone();
                config.passive = bits & 1 != 0;
                config.timers.hold_secs = if bits & 2 != 0 { 3 } else { 90 };
                config.graceful_restart.enabled = bits & 4 != 0;
                let own = self.speaker.own();
                self.input(side, Input::Configure(Box::new(config), own));
            }
            Step::Originate(count) => {
                let routes = (0..count).map(|n| {
                    let net = format!("10.{n}.0.0/16").parse().expect("it is a prefix");
                    (net, Origination::default())
                });
                let routes: BTreeMap<_, _> = routes.collect();
                self.speaker.originate(routes);
                self.settle();
            }
        }
    }

    fn with_conn(&mut self, side: bool, which: u8, input: impl FnOnce(ConnId) -> Input<'static>) {
        let side = usize::from(side);
        if let Some(id) = self.conn(side, which) {
            self.input(side, input(id));
        }
    }

    fn octets(&mut self, side: usize, which: u8, octets: &[u8]) {
        if let Some(id) = self.conn(side, which) {
            self.input(side, Input::Bytes(id, &mut BytesMut::from(octets)));
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        for side in 0..2 {
            if self.sides[side].fsm.deadline().is_some_and(|at| at <= self.now) {
                self.input(side, Input::Tick);
            }
        }
        if self.speaker.deadline().is_some_and(|at| at <= self.now) {
            self.speaker.tick(self.now);
        }
        self.settle();
    }

    fn input(&mut self, side: usize, input: Input<'_>) {
        self.sides[side].fsm.handle(self.now, input);
        while let Some(output) = self.sides[side].fsm.poll() {
            self.apply(side, output);
        }
        self.settle();
    }

    fn apply(&mut self, side: usize, output: Output) {
        let (
            now,
            Side {
                id, session, conns, ..
            },
        ) = (self.now, &mut self.sides[side]);
        let number = session.as_ref().map_or(0, |(_, s)| s.id);
        match output {
            Output::Dial(conn) => conns.push(conn),
            Output::Send(_, octets) => {
                assert!(
                    matches!(header::peek(&octets, MESSAGE_MAX), Ok(Some((_, len))) if len == octets.len())
                );
            }
            Output::Close(conn) => conns.retain(|c| *c != conn),
            Output::Up(conn, up) => {
                *session = Some((conn, (*up).clone()));
                self.speaker.up(now, *id, *up);
            }
            Output::Down(down) => {
                *session = None;
                self.speaker.down(now, *id, &down);
            }
            Output::Routes(routes) => self.speaker.routes(now, *id, number, &routes),
            Output::Refresh(refresh) => self.speaker.refresh(now, *id, number, refresh),
            Output::Event(_) => {}
        }
    }

    /// Lets the speaker do what it has to do, and reads what it sends.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let busy = self.speaker.work(self.now);
            while let Some(output) = self.speaker.poll() {
                match output {
                    speaker::Output::Send { peer, session, batch } => {
                        let side = self
                            .sides
                            .iter()
                            .position(|s| s.id == peer)
                            .expect("a known peer");
                        if let Some((_, up)) = &self.sides[side].session
                            && up.id == session
                        {
                            batch.parts.iter().for_each(|part| lawful(part, up));
                        }
                        self.speaker.sent(peer, session);
                    }
                    speaker::Output::Reset(peer, notification) => {
                        let side = self
                            .sides
                            .iter()
                            .position(|s| s.id == peer)
                            .expect("a known peer");
                        self.sides[side]
                            .fsm
                            .handle(self.now, Input::Stop(Stop::Reset(notification)));
                        while let Some(output) = self.sides[side].fsm.poll() {
                            self.apply(side, output);
                        }
                    }
                    _ => {}
                }
            }
            if !busy {
                self.speaker.best_changes();
                return;
            }
        }
        panic!("the speaker never comes to rest");
    }
}

/// Whole messages, none too long, every UPDATE without a fault for whom it is sent to.
fn lawful(mut octets: &[u8], session: &Session) {
    let ids = |f| {
        if session.add_path_out.has(f) {
            PathIds::Present
        } else {
            PathIds::Absent
        }
    };
    let mut decoder = Decoder::new(UpdateContext {
        session: session.kind,
        peer_asn: OWN_ASN,
        four_octet_as: session.four_octet_as,
        families: session.families,
        path_ids: PerFamily::from_fn(ids),
        extended_next_hop: session.extended_next_hop,
        enforce_first_as: true,
        own_addresses: Vec::new(),
    });
    while !octets.is_empty() {
        let (kind, len) = header::peek(octets, session.message_max)
            .expect("a lawful header")
            .expect("a whole header");
        let (message, rest) = octets.split_at(len);
        if kind == MessageType::Update {
            let mut routes = Routes::default();
            let said = decoder.decode(&message[HEADER_LEN..], &mut routes);
            assert_eq!(said, Ok(Vec::new()), "sent to {:?}: {message:02x?}", session.kind);
        }
        octets = rest;
    }
}

impl Message {
    fn encode(&self, side: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |kind, body: &[u8]| {
            let body = &body[..body.len().min(MESSAGE_MAX - HEADER_LEN)];
            header::message(&mut out, kind, |out| out.extend_from_slice(body));
        };
        match self {
            Self::Open(wide, hold, more) => put(MessageType::Open, &open_body(side, *wide, *hold, more)),
            Self::AnyOpen(body) => put(MessageType::Open, body),
            Self::Keepalive => put(MessageType::Keepalive, &[]),
            Self::Route(more, nlri) => put(MessageType::Update, &route_body(side, more, nlri)),
            Self::Withdraw(nlri) => {
                let len = u16::try_from(nlri.len()).unwrap_or(u16::MAX).to_be_bytes();
                put(MessageType::Update, &[&len[..], nlri, &[0, 0]].concat());
            }
            Self::Update(body) => put(MessageType::Update, body),
            Self::Refresh(body) => put(MessageType::RouteRefresh, body),
            Self::Notification(code, subcode, data) => {
                put(
                    MessageType::Notification,
                    &[&[*code, *subcode], &data[..]].concat(),
                );
            }
        }
        out
    }
}

fn open_body(side: usize, wide: bool, hold: u8, more: &[u8]) -> Vec<u8> {
    let asn: u16 = if side == 0 { 65001 } else { 65000 };
    let mut caps = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0];
    if wide {
        caps.extend_from_slice(&[65, 4, 0, 0]);
        caps.extend_from_slice(&asn.to_be_bytes());
    }
    caps.extend(more.iter().take(200));
    let len = u8::try_from(caps.len()).unwrap_or(u8::MAX);
    let mut body = vec![4];
    body.extend_from_slice(&asn.to_be_bytes());
    body.extend_from_slice(&u16::from(hold).saturating_mul(3).to_be_bytes());
    body.extend_from_slice(&[10, 0, 0, if side == 0 { 2 } else { 3 }, len + 2, 2, len]);
    body.extend_from_slice(&caps);
    body
}

fn route_body(side: usize, more: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut attrs = vec![0x40, 1, 1, 0];
    if side == 0 {
        attrs.extend_from_slice(&[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9]);
    } else {
        attrs.extend_from_slice(&[0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    }
    attrs.extend_from_slice(&[0x40, 3, 4, 10, 0, 0, if side == 0 { 2 } else { 3 }]);
    attrs.extend(more.iter().take(2000));
    let len = u16::try_from(attrs.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0, 0], &len[..], &attrs, nlri].concat()
}

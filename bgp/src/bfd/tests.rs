//! Two sessions over a link in virtual time, with delay and loss.

use super::*;
use std::collections::VecDeque;
use std::time::Instant;

const MS: Duration = Duration::from_millis(1);

/// What the link does to the packet number `n` of a direction.
type Loss = Box<dyn FnMut(Duration) -> bool>;

struct World {
    start: Instant,
    now: Instant,
    ends: [Session; 2],
    flying: VecDeque<(Instant, usize, [u8; packet::PACKET_LEN])>,
    loses: [Loss; 2],
    /// Packets to each end that were lost since the last one that came through.
    lost_in_a_row: [u32; 2],
    heard_at: [Instant; 2],
    changes: Vec<(Duration, usize, Change)>,
    sent: [u32; 2],
}

fn params(ms: u64, multiplier: u8) -> Params {
    Params {
        min_tx: Duration::from_millis(ms),
        min_rx: Duration::from_millis(ms),
        multiplier,
        multihop: false,
    }
}

impl World {
    fn new(a: Params, b: Params, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            ends: [
                Session::new(now, a, 11, seed * 2 + 1),
                Session::new(now, b, 22, seed * 7 + 5),
            ],
            flying: VecDeque::new(),
            loses: [Box::new(|_| false), Box::new(|_| false)],
            lost_in_a_row: [0; 2],
            heard_at: [now; 2],
            changes: Vec::new(),
            sent: [0; 2],
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.carry();
            let next = self
                .ends
                .iter()
                .filter_map(Session::deadline)
                .chain(self.flying.front().map(|f| f.0))
                .min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some((_, to, octets)) = self.flying.pop_front_if(|f| f.0 <= next) {
                let packet = Packet::decode(&octets).unwrap();
                self.heard_at[to] = self.now;
                self.lost_in_a_row[to] = 0;
                let change = self.ends[to].receive(self.now, &packet);
                self.note(to, change);
            }
            for end in 0..2 {
                if self.ends[end].deadline().is_some_and(|at| at <= self.now) {
                    let change = self.ends[end].tick(self.now);
                    self.note(end, change);
                }
            }
        }
    }

    fn note(&mut self, end: usize, change: Option<Change>) {
        let age = self.now - self.start;
        self.changes.extend(change.map(|c| (age, end, c)));
    }

    fn carry(&mut self) {
        for from in 0..2 {
            while let Some(packet) = self.ends[from].poll() {
                self.sent[from] += 1;
                let to = 1 - from;
                if (self.loses[to])(self.now - self.start) {
                    self.lost_in_a_row[to] += 1;
                } else {
                    self.flying.push_back((self.now + 2 * MS, to, packet));
                }
            }
        }
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn failures(&self) -> usize {
        self.changes.iter().filter(|(.., c)| c.failed()).count()
    }
}

#[test]
fn it_comes_up_and_stays_up_and_keeps_its_intervals() {
    for seed in 0..20 {
        let mut world = World::new(params(50, 3), params(100, 3), seed);
        world.run(Duration::from_secs(3));
        assert_eq!(world.states(), [State::Up; 2], "seed {seed}");
        assert_eq!(world.ends[0].tx_interval(), Some(100 * MS));
        assert_eq!(world.ends[0].detection_time(), 300 * MS);
        let before = world.sent;
        world.run(Duration::from_secs(100));
        assert_eq!(world.failures(), 0, "seed {seed}");
        for (after, before) in world.sent.into_iter().zip(before) {
            // 100 ms less 0 to 25 hundredths: 1000 to 1333 packets.
            assert!((1000..=1334).contains(&(after - before)), "seed {seed}: {after}");
        }
    }
}

#[test]
fn until_it_is_up_it_sends_once_a_second() {
    let mut world = World::new(params(10, 3), params(10, 3), 3);
    world.loses[1] = Box::new(|_| true);
    world.loses[0] = Box::new(|_| true);
    world.run(Duration::from_secs(100));
    assert_eq!(world.states(), [State::Down; 2]);
    assert!((100..=135).contains(&world.sent[0]), "{:?}", world.sent);
    assert_eq!(world.changes, []);
}

#[test]
fn a_dead_link_is_noticed_within_the_detection_time_and_not_before() {
    for seed in 0..200 {
        let mut world = World::new(params(50, 3), params(50, 3), seed);
        world.run(Duration::from_secs(5));
        for loses in &mut world.loses {
            *loses = Box::new(|_| true);
        }
        let died = world.now - world.start;
        world.run(Duration::from_secs(1));
        let detection = 150 * MS;
        let noticed: Vec<_> = world.changes.iter().filter(|(.., c)| c.failed()).collect();
        assert_eq!(noticed.len(), 2, "seed {seed}");
        for (at, end, _) in noticed {
            assert!(*at <= died + detection + 2 * MS, "seed {seed}: {at:?} {died:?}");
            assert_eq!(world.start + *at, world.heard_at[*end] + detection, "seed {seed}");
            assert_eq!(world.ends[*end].diagnostic(), Diagnostic::DETECTION_TIME);
        }
    }
}

#[test]
fn a_link_that_is_dead_one_way_takes_both_ends_down() {
    let mut world = World::new(params(50, 3), params(50, 3), 9);
    world.run(Duration::from_secs(5));
    world.loses[0] = Box::new(|_| true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.states()[0], State::Down);
    assert_ne!(world.states()[1], State::Up);
    assert_eq!(world.failures(), 2);
    // It heals, and both are up again.
    world.loses[0] = Box::new(|_| false);
    world.run(Duration::from_secs(5));
    assert_eq!(world.states(), [State::Up; 2]);
}

/// A session whose other end is up fails only when as many packets in a row were lost as the multiplier less one (an end that
/// is down sends slowly), and it is up again soon after the loss is over, whatever it did.
#[test]
fn loss_alone_takes_it_down_only_when_enough_packets_in_a_row_are_lost() {
    let mut failed = 0;
    for seed in 0..200_u64 {
        let mut world = World::new(params(50, 3), params(50, 3), seed);
        world.run(Duration::from_secs(5));
        assert_eq!(world.states(), [State::Up; 2], "seed {seed}");
        for (end, loses) in world.loses.iter_mut().enumerate() {
            let mut random = seed * 31 + end as u64 + 1;
            *loses = Box::new(move |_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % 100 < 20
            });
        }
        let mut seen = world.changes.len();
        for _ in 0..2000 {
            let lost = world.lost_in_a_row;
            world.run(5 * MS);
            for (_, end, change) in world.changes.split_off(seen) {
                let detected = world.ends[end].diagnostic() == Diagnostic::DETECTION_TIME;
                if change.failed() && detected && world.ends[1 - end].state() == State::Up {
                    failed += 1;
                    assert!(
                        lost[end].max(world.lost_in_a_row[end]) >= 2,
                        "seed {seed}: down after {lost:?}"
                    );
                }
            }
            seen = world.changes.len();
        }
        world.loses = [Box::new(|_| false), Box::new(|_| false)];
        world.run(Duration::from_secs(6));
        assert_eq!(world.states(), [State::Up; 2], "seed {seed}");
    }
    // The negative twin: so much loss does take sessions down, or the test would prove nothing.
    assert!(failed > 10, "{failed}");
}

#[test]
fn what_an_operator_does_is_no_failure() {
    let mut world = World::new(params(50, 3), params(50, 3), 4);
    world.run(Duration::from_secs(5));
    let now = world.now;
    let change = world.ends[0].disable(now);
    world.note(0, change);
    world.run(Duration::from_secs(1));
    assert_eq!(world.states(), [State::AdminDown, State::Down]);
    assert_eq!(world.ends[1].diagnostic(), Diagnostic::NEIGHBOR_DOWN);
    assert_eq!(world.failures(), 0);
    let now = world.now;
    world.ends[0].enable(now);
    world.run(Duration::from_secs(5));
    assert_eq!(world.states(), [State::Up; 2]);
}

#[test]
fn new_intervals_come_into_force_by_a_poll_and_cost_nothing() {
    let mut world = World::new(params(50, 3), params(50, 3), 5);
    world.run(Duration::from_secs(5));
    let now = world.now;
    world.ends[0].configure(now, params(400, 3));
    // Not before the other end has consented.
    assert_eq!(world.ends[0].tx_interval(), Some(50 * MS));
    world.run(Duration::from_secs(2));
    assert_eq!(world.ends[0].tx_interval(), Some(400 * MS));
    assert_eq!(world.ends[1].detection_time(), 1200 * MS);
    let now = world.now;
    world.ends[0].configure(now, params(20, 5));
    world.run(Duration::from_secs(2));
    assert_eq!(world.ends[0].tx_interval(), Some(50 * MS));
    assert_eq!(world.ends[1].detection_time(), 250 * MS);
    assert_eq!(world.failures(), 0);
}

#[test]
fn a_peer_that_wants_nothing_is_sent_nothing() {
    let now = Instant::now();
    let mut session = Session::new(now, params(50, 3), 1, 1);
    session.poll();
    let silent = Packet {
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        poll: true,
        is_final: false,
        demand: false,
        multiplier: 3,
        my_discriminator: 9,
        your_discriminator: 0,
        desired_min_tx: 50_000,
        required_min_rx: 0,
    };
    session.receive(now, &silent);
    assert_eq!(session.tx_interval(), None);
    // But a poll is answered, with F and without P.
    let answers: Vec<_> = std::iter::from_fn(|| session.poll())
        .map(|p| Packet::decode(&p).unwrap())
        .filter(|p| p.is_final)
        .collect();
    assert!(matches!(answers[..], [Packet { poll: false, .. }]));
    assert_eq!(session.deadline(), Some(now + session.detection_time()));
}

mod table {
    use super::super::table::Dropped;
    use super::*;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn wanted(session: u32) -> BTreeMap<IpAddr, Demand> {
        let demand = Demand {
            params: params(50, 3),
            local: at(1),
            remote: at(2),
            session,
        };
        BTreeMap::from([(at(2), demand)])
    }

    fn outputs(table: &mut Table) -> Vec<super::super::table::Output> {
        std::iter::from_fn(|| table.poll()).collect()
    }

    fn discriminator(table: &mut Table) -> u32 {
        let sent = outputs(table).into_iter().find_map(|o| match o {
            super::super::table::Output::Send { discriminator, .. } => Some(discriminator),
            _ => None,
        });
        sent.unwrap()
    }

    fn heard(state: State, your_discriminator: u32) -> [u8; packet::PACKET_LEN] {
        Packet {
            state,
            diagnostic: Diagnostic::NONE,
            poll: false,
            is_final: false,
            demand: false,
            multiplier: 3,
            my_discriminator: 77,
            your_discriminator,
            desired_min_tx: 50_000,
            required_min_rx: 50_000,
        }
        .encode()
    }

    #[test]
    fn one_address_on_two_links_is_two_peers() {
        let on = |link| IpAddr::from(crate::link::scoped("fe80::1".parse().unwrap(), link));
        let demand = |link| Demand {
            params: params(50, 3),
            local: IpAddr::from(crate::link::scoped("fe80::9".parse().unwrap(), link)),
            remote: on(link),
            session: link,
        };
        let named = |name: &str| crate::link::identity(name, None);
        let wanted = BTreeMap::from([(named("eth0"), demand(3)), (named("eth1"), demand(4))]);
        let (now, mut table) = (Instant::now(), Table::new(7));
        table.demand(now, &wanted);
        let hello = heard(State::Down, 0);
        let from = |from| Received {
            from,
            ..datagram(&hello)
        };
        table.receive(now, &from(on(4))).unwrap();
        let state = |table: &Table, name| table.view(named(name)).unwrap().state;
        assert_eq!(
            (state(&table, "eth0"), state(&table, "eth1")),
            (State::Down, State::Init)
        );
        // By no link, and by one that has no session, it is nobody's.
        for other in [0, 5] {
            assert_eq!(table.receive(now, &from(on(other))), Err(Dropped::NoSession));
        }
        // Nor does knowing the number help.
        outputs(&mut table);
        table.tick(now + Duration::from_secs(2));
        let sent = outputs(&mut table).into_iter().find_map(|o| match o {
            super::super::table::Output::Send {
                discriminator,
                remote,
                ..
            } if remote == on(3) => Some(discriminator),
            _ => None,
        });
        let known = heard(State::Init, sent.unwrap());
        let stranger = Received {
            from: on(4),
            ..datagram(&known)
        };
        assert_eq!(table.receive(now, &stranger), Err(Dropped::NoSession));
        // The neighbour is another one now: the session begins anew.
        let mut other = wanted.clone();
        let place = other.get_mut(&named("eth1")).unwrap();
        place.remote = IpAddr::from(crate::link::scoped("fe80::2".parse().unwrap(), 4));
        table.demand(now, &other);
        assert_eq!(table.receive(now, &from(on(4))), Err(Dropped::NoSession));
        assert_eq!(state(&table, "eth1"), State::Down);
    }

    fn datagram(payload: &[u8]) -> Received<'_> {
        Received {
            from: at(2),
            ttl: Some(255),
            multihop: false,
            payload,
        }
    }

    #[test]
    fn a_packet_finds_its_session_and_a_strangers_finds_none() {
        let now = Instant::now();
        let mut table = Table::new(5);
        table.demand(now, &wanted(1));
        let own = discriminator(&mut table);
        let (first, known, strange) = (
            heard(State::Down, 0),
            heard(State::Init, own),
            heard(State::Init, own ^ 1),
        );
        let far = Received {
            ttl: Some(254),
            ..datagram(&first)
        };
        assert_eq!(table.receive(now, &far), Err(Dropped::Ttl));
        let unknown = Received {
            ttl: None,
            ..datagram(&first)
        };
        assert_eq!(table.receive(now, &unknown), Err(Dropped::Ttl));
        let stranger = Received {
            from: at(3),
            ..datagram(&known)
        };
        assert_eq!(table.receive(now, &stranger), Err(Dropped::NoSession));
        let port = Received {
            multihop: true,
            ..datagram(&known)
        };
        assert_eq!(table.receive(now, &port), Err(Dropped::NoSession));
        assert_eq!(table.receive(now, &datagram(&strange)), Err(Dropped::NoSession));
        assert_eq!(table.view(at(2)).unwrap().state, State::Down);
        assert_eq!(table.receive(now, &datagram(&first)), Ok(()));
        assert_eq!(table.view(at(2)).unwrap().state, State::Init);
        assert_eq!(table.receive(now, &datagram(&known)), Ok(()));
        assert_eq!(table.view(at(2)).unwrap().state, State::Up);
    }

    #[test]
    fn a_session_that_is_not_wanted_any_more_says_so_and_goes() {
        use super::super::table::Output;
        let mut now = Instant::now();
        let mut table = Table::new(5);
        table.demand(now, &wanted(1));
        let own = discriminator(&mut table);
        table.receive(now, &datagram(&heard(State::Down, 0))).unwrap();
        table.receive(now, &datagram(&heard(State::Up, own))).unwrap();
        outputs(&mut table);
        table.demand(now, &BTreeMap::new());
        let mut out = outputs(&mut table);
        while let Some(at) = table.deadline() {
            now = at;
            table.tick(now);
            out.extend(outputs(&mut table));
        }
        let said = out.iter().filter_map(|o| match o {
            Output::Send { packet, .. } => Some(Packet::decode(packet).unwrap().state),
            _ => None,
        });
        assert!(said.clone().count() >= 3 && said.clone().all(|s| s == State::AdminDown));
        assert_eq!(out.last(), Some(&Output::Gone(own)));
        assert!(
            !out.iter()
                .any(|o| matches!(o, Output::Changed { change, .. } if change.failed()))
        );
        // And comes back when it is wanted again.
        table.demand(now, &wanted(2));
        assert_ne!(discriminator(&mut table), own);
    }
}

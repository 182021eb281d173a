//! The world: routers, connections, time, faults.

mod check;
mod network;
mod routers;

use super::oracle::{self, Node};
use bytes::BytesMut;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use twill_bgp::config::{AddPath, Origination, Restart};
use twill_bgp::fsm::{ConnId, Input, Output as FsmOutput, Peer, Stop};
use twill_bgp::rib::PeerId;
use twill_bgp::speaker::{Output, PeerChange, Speaker};
use twill_bgp::view::{Best, RouteQuery, RouteTable};
use twill_bgp::{Config, Families, PeerConfig};

/// Faults of one run.
const FAULTS: u64 = 8;
/// Virtual time in which everything must settle when the faults are over.
const SETTLE: Duration = Duration::from_secs(900);
/// Long-lived stale routes must be gone before everything has settled.
const LONG_LIVED_SECS: u32 = 400;
/// Steps of one run; more means that something spins.
const STEPS_MAX: u64 = 2_000_000;

/// How a router comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Router {
    Fresh,
    /// The process is new, the kernel's routes are not.
    Restarted,
    /// Everything is new.
    Rebooted,
}

struct Running {
    speaker: Speaker,
    peers: BTreeMap<PeerId, Session>,
    fib: BTreeMap<IpNet, Best>,
}

struct Session {
    fsm: Peer,
    address: IpAddr,
    up: Option<(ConnId, u32)>,
    inbox: BTreeMap<ConnId, BytesMut>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    router: usize,
    life: u32,
    peer: PeerId,
    conn: ConnId,
}

enum Packet {
    Octets(Vec<u8>, Option<u32>),
    Fin,
}

struct Wire {
    ends: [Option<End>; 2],
    routers: [usize; 2],
    queues: [VecDeque<Packet>; 2],
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Deliver(usize, usize),
    Arrive(usize),
    Heal(usize, usize),
    Start(usize),
}

pub(super) struct World {
    seed: u64,
    random: u64,
    now: Instant,
    start: Instant,
    nodes: Vec<Node>,
    links: Vec<(usize, usize)>,
    cut: Vec<(usize, usize)>,
    routers: Vec<Option<Running>>,
    lives: Vec<u32>,
    was: Vec<Router>,
    wires: Vec<Wire>,
    queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    sequence: u64,
    steps: u64,
    losses: Option<Vec<String>>,
}

fn address(router: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(router + 1).unwrap()))
}

fn router_of(address: IpAddr) -> usize {
    let IpAddr::V4(v4) = address else {
        panic!("routers have IPv4 addresses")
    };
    usize::from(v4.octets()[3]) - 1
}

impl World {
    /// A random topology: a full mesh inside AS 64512, other ASes of one router each, connected somehow.
    pub(super) fn random(seed: u64) -> Self {
        let mut world = Self::empty(seed);
        let count = 3 + world.below(4);
        let inside = 1 + world.below(count);
        for i in 0..count {
            world.add_node(if i < inside { 64512 } else { 65000 + i as u32 });
        }
        for a in 0..count {
            for b in a + 1..count {
                let mesh = b < inside;
                if mesh || (b >= inside && (a + 1 == b || world.below(3) == 0)) {
                    world.links.push((a, b));
                }
            }
        }
        world.start_all();
        world
    }

    /// A full mesh in one AS.
    pub(super) fn mesh(seed: u64, count: usize) -> Self {
        let mut world = Self::empty(seed);
        (0..count).for_each(|_| world.add_node(64512));
        world.links = (0..count)
            .flat_map(|a| (a + 1..count).map(move |b| (a, b)))
            .collect();
        world.start_all();
        world
    }

    fn empty(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            seed,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now,
            start: now,
            nodes: Vec::new(),
            links: Vec::new(),
            cut: Vec::new(),
            routers: Vec::new(),
            lives: Vec::new(),
            was: Vec::new(),
            wires: Vec::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            steps: 0,
            losses: None,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % n
    }

    fn add_node(&mut self, asn: u32) {
        let i = self.nodes.len();
        let prefixes = (0..1 + self.below(3))
            .map(|p| format!("10.{}.{p}.0/24", 100 + i))
            .collect();
        self.nodes.push(Node {
            asn,
            router_id: i as u32 + 1,
            prefixes,
        });
        self.routers.push(None);
        self.lives.push(0);
        self.was.push(Router::Fresh);
    }

    fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|i| self.start(i, Router::Fresh));
    }

    fn config(&self, router: usize, how: Router) -> Config {
        let IpAddr::V4(id) = address(router) else {
            unreachable!()
        };
        let peer = |other: usize| {
            let mut peer = PeerConfig::new(address(other), self.nodes[other].asn);
            peer.local_address = Some(address(router));
            // Some pairs have a passive side, others collide.
            peer.passive = (router + other).is_multiple_of(3) && other > router;
            // Some pairs send path identifiers, if of one path only: the model knows no more (RFC 7911).
            if (self.seed as usize + router + other).is_multiple_of(2) {
                peer.add_path = AddPath {
                    receive: Families::BOTH,
                    send: Families::BOTH,
                    send_max: 1,
                };
            }
            if self.seed.is_multiple_of(3) {
                peer.graceful_restart.long_lived_secs = Some(LONG_LIVED_SECS);
            }
            peer
        };
        let near = self.links.iter().filter_map(|(a, b)| match router {
            r if r == *a => Some(*b),
            r if r == *b => Some(*a),
            _ => None,
        });
        let restart = Restart {
            restarting: how == Router::Restarted,
            forwarding_preserved: if how == Router::Restarted {
                Families::BOTH
            } else {
                Families::NONE
            },
            deferral: Duration::from_secs(60),
        };
        Config {
            peers: near.map(peer).collect(),
            restart,
            ..Config::new(self.nodes[router].asn, id)
        }
    }

    pub(super) fn start(&mut self, router: usize, how: Router) {
        let (mut speaker, changes) = Speaker::new(self.now, self.config(router, how)).unwrap();
        speaker.subscribe();
        let own = speaker.own();
        let mut peers = BTreeMap::new();
        for change in changes {
            let PeerChange::Added(id, config) = change else {
                panic!("a new speaker only adds peers")
            };
            let address = config.address;
            let fsm = Peer::new(*config, own, self.seed ^ u64::from(id.0) << 8 ^ router as u64);
            peers.insert(
                id,
                Session {
                    fsm,
                    address,
                    up: None,
                    inbox: BTreeMap::new(),
                },
            );
        }
        // What the kernel kept stays until the new process says otherwise; here the FIB starts over.
        self.routers[router] = Some(Running {
            speaker,
            peers,
            fib: BTreeMap::new(),
        });
        self.was[router] = how;
        self.originate(router);
        for id in self.peers_of(router) {
            self.input(router, id, Input::Start);
        }
        self.drain(router);
    }

    /// The peers of a router that runs.
    fn peers_of(&self, router: usize) -> Vec<PeerId> {
        let running = self.routers[router].as_ref().unwrap();
        running.peers.keys().copied().collect()
    }

    fn originate(&mut self, router: usize) {
        let routes = |prefixes: &[String]| {
            prefixes
                .iter()
                .map(|p| (p.parse().unwrap(), Origination::default()))
                .collect()
        };
        let routes = routes(&self.nodes[router].prefixes);
        if let Some(running) = &mut self.routers[router] {
            running.speaker.originate(routes);
            running.speaker.own_routes_known();
        }
    }

    /// The process dies; the kernel says goodbye for it.
    pub(super) fn kill(&mut self, router: usize) {
        self.routers[router] = None;
        self.lives[router] += 1;
        for wire in 0..self.wires.len() {
            for side in 0..2 {
                if self.wires[wire].ends[side].is_some_and(|e| e.router == router) {
                    self.wires[wire].ends[side] = None;
                    self.push(wire, 1 - side, Packet::Fin);
                }
            }
        }
    }

    /// The machine dies: nobody is told.
    fn crash(&mut self, router: usize) {
        self.routers[router] = None;
        self.lives[router] += 1;
        for wire in &mut self.wires {
            for side in 0..2 {
                if wire.ends[side].is_some_and(|e| e.router == router) {
                    wire.ends[side] = None;
                    wire.queues[1 - side].clear();
                }
            }
        }
    }

    fn at(&mut self, delay: Duration, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, what)));
    }

    /// Goes on to `end`, event by event.
    fn go(&mut self, end: Instant) {
        loop {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "seed {}: too many steps", self.seed);
            let tick = (0..self.routers.len())
                .filter_map(|r| Some((self.deadline(r)?, r)))
                .min();
            let event = self.queue.peek().map(|Reverse((at, ..))| *at);
            let next = [tick.map(|t| t.0), event].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            match tick.filter(|(t, _)| event.is_none_or(|e| *t <= e)) {
                Some((_, router)) => self.tick(router),
                None => {
                    if let Some(Reverse((_, _, what))) = self.queue.pop() {
                        self.happen(what);
                    }
                }
            }
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver(wire, side) => self.deliver(wire, side),
            What::Arrive(wire) => self.arrive(wire),
            What::Heal(a, b) => self.cut.retain(|c| *c != (a, b)),
            What::Start(router) => {
                let how = if self.below(2) == 0 {
                    Router::Restarted
                } else {
                    Router::Rebooted
                };
                if self.routers[router].is_none() {
                    self.start(router, how);
                }
            }
        }
    }

    pub(super) fn sleep(&mut self, secs: u64) {
        self.go(self.now + Duration::from_secs(secs));
    }

    fn fault(&mut self) {
        let router = self.below(self.nodes.len());
        let link = self.below(self.links.len());
        let link = self.links[link];
        let later = Duration::from_secs(1 + self.below(200) as u64);
        match self.below(7) {
            0 if !self.cut.contains(&link) => {
                self.cut.push(link);
                self.at(later, What::Heal(link.0, link.1));
            }
            1 if self.routers[router].is_some() => {
                self.kill(router);
                self.at(later, What::Start(router));
            }
            2 if self.routers[router].is_some() => {
                self.crash(router);
                self.at(later, What::Start(router));
            }
            3 => {
                // Every connection of a pair is reset.
                for wire in 0..self.wires.len() {
                    let [a, b] = self.wires[wire].routers;
                    if (a.min(b), a.max(b)) == link {
                        self.push(wire, 0, Packet::Fin);
                        self.push(wire, 1, Packet::Fin);
                    }
                }
            }
            4 => {
                // An operator has a router send and ask for everything again (RFC 2918, RFC 7313).
                if let Some(running) = &mut self.routers[router] {
                    let peers: Vec<PeerId> = running.peers.keys().copied().collect();
                    for peer in peers {
                        running.speaker.soft_reset(peer);
                    }
                    self.drain(router);
                }
            }
            _ => {
                let extra = format!("10.{}.{}.0/24", 100 + router, 10 + self.below(5));
                let prefixes = &mut self.nodes[router].prefixes;
                match prefixes.iter().position(|p| *p == extra) {
                    Some(at) => drop(prefixes.remove(at)),
                    None => prefixes.push(extra),
                }
                self.originate(router);
                self.drain(router);
            }
        }
    }

    /// A whole run: faults, then peace, then the comparison.
    pub(super) fn run(&mut self) {
        self.sleep(5);
        for _ in 0..FAULTS {
            self.fault();
            let pause = self.below(60) as u64;
            self.sleep(pause);
        }
        self.settle();
        self.check();
    }

    /// Lets all faults heal and everything settle.
    pub(super) fn settle(&mut self) {
        self.go(self.now + SETTLE);
    }
}

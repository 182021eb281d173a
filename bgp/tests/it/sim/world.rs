//! The world: routers, connections, time, faults.

use super::oracle::{self, Node};
use bytes::BytesMut;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use twill_bgp::config::{Origination, Restart};
use twill_bgp::fsm::{ConnId, Input, Output as FsmOutput, Peer, Stop};
use twill_bgp::rib::PeerId;
use twill_bgp::speaker::{Output, PeerChange, Speaker};
use twill_bgp::view::{Best, RouteQuery, RouteTable};
use twill_bgp::{Config, Families, PeerConfig};

/// Faults of one run.
const FAULTS: u64 = 8;
/// Virtual time in which everything must settle when the faults are over.
const SETTLE: Duration = Duration::from_secs(900);
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
        let ids: Vec<PeerId> = self.routers[router]
            .as_ref()
            .unwrap()
            .peers
            .keys()
            .copied()
            .collect();
        for id in ids {
            self.input(router, id, Input::Start);
        }
        self.drain(router);
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

    fn latency(&mut self) -> Duration {
        Duration::from_millis(1 + self.below(40) as u64)
    }

    /// Puts a packet on its way to one side.
    fn push(&mut self, wire: usize, to: usize, packet: Packet) {
        self.wires[wire].queues[to].push_back(packet);
        let delay = self.latency();
        self.at(delay, What::Deliver(wire, to));
    }

    fn is_cut(&self, wire: usize) -> bool {
        let [a, b] = self.wires[wire].routers;
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn input(&mut self, router: usize, peer: PeerId, input: Input<'_>) {
        let now = self.now;
        let Some(session) = self.routers[router].as_mut().and_then(|r| r.peers.get_mut(&peer)) else {
            return;
        };
        session.fsm.handle(now, input);
        while let Some(output) = self.routers[router]
            .as_mut()
            .and_then(|r| r.peers.get_mut(&peer)?.fsm.poll())
        {
            self.apply(router, peer, output);
        }
    }

    fn apply(&mut self, router: usize, peer: PeerId, output: FsmOutput) {
        let now = self.now;
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        let Some(session) = running.peers.get_mut(&peer) else {
            return;
        };
        match output {
            FsmOutput::Dial(conn) => {
                let other = router_of(session.address);
                let end = End {
                    router,
                    life: self.lives[router],
                    peer,
                    conn,
                };
                self.wires.push(Wire {
                    ends: [Some(end), None],
                    routers: [router, other],
                    queues: [VecDeque::new(), VecDeque::new()],
                });
                let delay = self.latency();
                self.at(delay, What::Arrive(self.wires.len() - 1));
            }
            FsmOutput::Send(conn, octets) => self.send(router, conn, peer, octets, None),
            FsmOutput::Close(conn) => {
                session.inbox.remove(&conn);
                if let Some((wire, side)) = self.find(router, peer, conn) {
                    self.wires[wire].ends[side] = None;
                    self.push(wire, 1 - side, Packet::Fin);
                }
            }
            FsmOutput::Up(conn, up) => {
                session.up = Some((conn, up.id));
                running.speaker.up(now, peer, *up);
            }
            FsmOutput::Down(down) => {
                session.up = None;
                running.speaker.down(now, peer, &down);
            }
            FsmOutput::Routes(routes) => {
                let id = session.up.map_or(0, |(_, id)| id);
                running.speaker.routes(now, peer, id, &routes);
            }
            FsmOutput::Refresh(refresh) => {
                let id = session.up.map_or(0, |(_, id)| id);
                running.speaker.refresh(now, peer, id, refresh);
            }
            FsmOutput::Event(_) => {}
        }
    }

    fn find(&self, router: usize, peer: PeerId, conn: ConnId) -> Option<(usize, usize)> {
        let end = End {
            router,
            life: self.lives[router],
            peer,
            conn,
        };
        (0..self.wires.len()).rev().find_map(|w| {
            (0..2)
                .find(|s| self.wires[w].ends[*s] == Some(end))
                .map(|side| (w, side))
        })
    }

    /// Octets onto the wire, in pieces.
    fn send(&mut self, router: usize, conn: ConnId, peer: PeerId, octets: Vec<u8>, batch: Option<u32>) {
        let Some((wire, side)) = self.find(router, peer, conn) else {
            return;
        };
        let cut = self.below(octets.len() + 1);
        let (head, tail) = octets.split_at(cut);
        if !head.is_empty() {
            self.push(wire, 1 - side, Packet::Octets(head.to_vec(), None));
        }
        self.push(wire, 1 - side, Packet::Octets(tail.to_vec(), batch));
    }

    /// Lets the speaker do all it has to do.
    fn drain(&mut self, router: usize) {
        loop {
            let now = self.now;
            let Some(running) = self.routers[router].as_mut() else {
                return;
            };
            let worked = running.speaker.work(now);
            let Some(output) = running.speaker.poll() else {
                if worked {
                    continue;
                }
                break;
            };
            self.carry_out(router, output);
        }
        self.update_fib(router);
    }

    fn carry_out(&mut self, router: usize, output: Output) {
        match output {
            Output::Send { peer, session, batch } => {
                let up = self.routers[router].as_ref().and_then(|r| r.peers.get(&peer)?.up);
                if let Some((conn, _)) = up.filter(|(_, id)| *id == session) {
                    self.send(router, conn, peer, batch.parts.concat(), Some(session));
                    self.input(router, peer, Input::Queued(conn));
                }
            }
            Output::Warning(..) => {}
            Output::Reset(peer, n) => self.input(router, peer, Input::Stop(Stop::Reset(n))),
            Output::Converged(_, own) => {
                let ids: Vec<PeerId> = self.routers[router]
                    .as_ref()
                    .unwrap()
                    .peers
                    .keys()
                    .copied()
                    .collect();
                for id in ids {
                    let config = self.routers[router].as_ref().unwrap().peers[&id]
                        .fsm
                        .config()
                        .clone();
                    self.input(router, id, Input::Configure(Box::new(config), own));
                }
            }
        }
    }

    fn update_fib(&mut self, router: usize) {
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        while running.speaker.has_best_changes() {
            for (net, best) in running.speaker.best_changes() {
                match best {
                    Some(best) => {
                        running.fib.insert(net, best);
                    }
                    None => {
                        running.fib.remove(&net);
                        if let Some(losses) = &mut self.losses {
                            losses.push(format!("{net} at router {router}"));
                        }
                    }
                }
            }
        }
    }

    fn deadline(&self, router: usize) -> Option<Instant> {
        let running = self.routers[router].as_ref()?;
        let fsms = running.peers.values().filter_map(|p| p.fsm.deadline());
        fsms.chain(running.speaker.deadline()).min()
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

    fn tick(&mut self, router: usize) {
        let now = self.now;
        let Some(running) = self.routers[router].as_mut() else {
            return;
        };
        running.speaker.tick(now);
        let ids: Vec<PeerId> = running.peers.keys().copied().collect();
        for id in ids {
            self.input(router, id, Input::Tick);
        }
        self.drain(router);
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

    /// The dialled side answers, or does not.
    fn arrive(&mut self, wire: usize) {
        if self.is_cut(wire) {
            return;
        }
        let [from, to] = self.wires[wire].routers;
        let Some(running) = self.routers[to].as_mut() else {
            self.push(wire, 0, Packet::Fin);
            return;
        };
        let Some((peer, session)) = running.peers.iter_mut().find(|(_, s)| s.address == address(from)) else {
            return;
        };
        let (peer, conn) = (*peer, session.fsm.conn_id());
        self.wires[wire].ends[1] = Some(End {
            router: to,
            life: self.lives[to],
            peer,
            conn,
        });
        if let Some(end) = self.wires[wire].ends[0] {
            self.input(
                end.router,
                end.peer,
                Input::Connected(end.conn, address(end.router)),
            );
            self.drain(end.router);
        } else {
            self.push(wire, 1, Packet::Fin);
        }
        self.input(to, peer, Input::Accepted(conn, address(to)));
        self.drain(to);
    }

    fn deliver(&mut self, wire: usize, side: usize) {
        if self.is_cut(wire) {
            self.at(Duration::from_secs(1), What::Deliver(wire, side));
            return;
        }
        let Some(packet) = self.wires[wire].queues[side].pop_front() else {
            return;
        };
        let sender = self.wires[wire].ends[1 - side];
        let Some(end) = self.wires[wire].ends[side] else {
            // Nobody is there any more: a reset.
            if let (Some(_), Packet::Octets(..)) = (sender, packet) {
                self.push(wire, 1 - side, Packet::Fin);
            }
            return;
        };
        match packet {
            Packet::Fin => {
                self.wires[wire].ends[side] = None;
                self.input(end.router, end.peer, Input::Closed(end.conn, "closed".into()));
            }
            Packet::Octets(octets, batch) => {
                self.octets(end, &octets);
                if let Some(sender) = sender {
                    self.input(
                        sender.router,
                        sender.peer,
                        Input::Written {
                            conn: sender.conn,
                            drained: true,
                        },
                    );
                    if let (Some(running), Some(session)) = (self.routers[sender.router].as_mut(), batch) {
                        running.speaker.sent(sender.peer, session);
                    }
                    self.drain(sender.router);
                }
            }
        }
        self.drain(end.router);
    }

    fn octets(&mut self, end: End, octets: &[u8]) {
        let Some(running) = self.routers[end.router].as_mut() else {
            return;
        };
        let Some(session) = running.peers.get_mut(&end.peer) else {
            return;
        };
        let mut inbox = session.inbox.remove(&end.conn).unwrap_or_default();
        inbox.extend_from_slice(octets);
        self.input(end.router, end.peer, Input::Bytes(end.conn, &mut inbox));
        let running = self.routers[end.router].as_mut();
        if let Some(session) = running.and_then(|r| r.peers.get_mut(&end.peer)) {
            session.inbox.insert(end.conn, inbox);
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
        match self.below(6) {
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

    pub(super) fn watch_losses(&mut self) {
        self.losses = Some(Vec::new());
    }

    pub(super) fn losses(&self) -> Vec<String> {
        self.losses.clone().unwrap_or_default()
    }

    /// Makes the model believe in a prefix that nobody announces.
    pub(super) fn spoil(&mut self) {
        self.nodes[0].prefixes.push("10.250.0.0/24".into());
    }

    /// Compares every router's best paths, and its FIB, with the model.
    pub(super) fn check(&self) {
        let model = oracle::best_paths(&self.nodes, &self.links);
        for (router, expected) in model.iter().enumerate() {
            let running = self.routers[router].as_ref().expect("all routers run in the end");
            let query = RouteQuery {
                table: RouteTable::Best,
                peer: None,
                prefix: None,
                limit: 10_000,
            };
            let text = |asns: &[u32]| asns.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            let got: BTreeMap<String, (Option<IpAddr>, String, bool)> = running
                .speaker
                .show_routes(&query)
                .into_iter()
                .map(|r| (r.prefix.to_string(), (r.peer, r.as_path, r.stale)))
                .collect();
            let want: BTreeMap<String, (Option<IpAddr>, String, bool)> = expected
                .iter()
                .map(|(prefix, p)| (prefix.clone(), (p.from.map(address), text(&p.as_path), false)))
                .collect();
            let at = self.now - self.start;
            assert_eq!(got, want, "seed {}, router {router}, after {at:?}", self.seed);
            let fib: BTreeMap<String, Option<IpAddr>> = running
                .fib
                .iter()
                .map(|(net, b)| (net.to_string(), Some(b.source)))
                .collect();
            let want: BTreeMap<String, Option<IpAddr>> = want
                .into_iter()
                .filter(|(_, (p, ..))| p.is_some())
                .map(|(net, (p, ..))| (net, p))
                .collect();
            assert_eq!(fib, want, "FIB, seed {}, router {router}", self.seed);
        }
    }
}

//! Many peers, hasty ones and slow ones, over real sockets on the loopback: 127.0.0.0/8 has an address for each.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use twill_bgp::config::{Config, RangeConfig};
use twill_bgp::family::Families;
use twill_bgp::net::{Handle, bind};
use twill_bgp::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use twill_bgp::wire::header::{MessageType, keepalive, message};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// Silence after which a reader looks at its condition.
const GLANCE: Duration = Duration::from_millis(20);
const OUR_AS: u32 = 65_000;

struct Daemon {
    port: u16,
    handle: Handle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    /// Anybody of 127.1.0.0/16 is a peer of AS 65001.
    fn start(change: impl FnOnce(&mut RangeConfig)) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut config = Config::new(OUR_AS, Ipv4Addr::new(10, 0, 0, 1));
        config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        let mut range = RangeConfig::new("127.1.0.0/16".parse().unwrap(), 65_001);
        range.template.families = Families::IPV4;
        change(&mut range);
        config.ranges = vec![range];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .event_interval(twill_bgp::net::EVENT_INTERVAL)
            .build()
            .unwrap();
        let entered = runtime.enter();
        let (handle, server) = bind(config).unwrap();
        drop(entered);
        drop(runtime.spawn(server.run()));
        Self {
            port,
            handle,
            runtime: Some(runtime),
        }
    }

    fn peers(&self) -> usize {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(self.handle.peers()).unwrap().len()
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
            std::thread::park_timeout(GLANCE);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The other end of one session, as simple as can be.
struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    updates: usize,
    /// The longest time without anything to read, and how long it has lasted by now.
    silence: Duration,
    waited: Duration,
    /// Read already, of the inbox.
    at: usize,
    ended: bool,
}

impl Client {
    /// Up, with this hold time.
    fn up(daemon: &Daemon, place: u16, hold_secs: u16) -> Self {
        let [high, low] = place.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket
            .connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.port)).into())
            .unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(GLANCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self {
            stream,
            inbox: Vec::new(),
            updates: 0,
            silence: Duration::ZERO,
            waited: Duration::ZERO,
            at: 0,
            ended: false,
        };
        let mut out = Vec::new();
        message(&mut out, MessageType::Open, |out| {
            out.extend_from_slice(&[4, 0xfd, 0xe9]);
            out.extend_from_slice(&hold_secs.to_be_bytes());
            out.extend_from_slice(&[10, 9, high, low]);
            out.extend_from_slice(&[14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9]);
        });
        keepalive(&mut out);
        client.stream.write_all(&out).unwrap();
        let (mut opened, mut alive) = (false, false);
        client.until("session", |_, kind, _| {
            opened |= kind == 1;
            alive |= kind == 4;
            opened && alive
        });
        client.silence = Duration::ZERO;
        client
    }

    /// Reads until a message satisfies.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Self, u8, &[u8]) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Some(whole) = self.next() {
                let (kind, body) = (whole[18], &whole[19..]);
                self.updates += usize::from(kind == 2 && body.len() > 4);
                if done(self, kind, body) {
                    return;
                }
            }
            assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
            assert!(!self.ended, "{what}: the session ended first");
            self.read();
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.inbox[self.at..];
        let len = usize::from(u16::from_be_bytes([*rest.get(16)?, *rest.get(17)?]));
        let whole = rest.get(..len)?.to_vec();
        self.at += len;
        Some(whole)
    }

    fn read(&mut self) {
        self.inbox.drain(..std::mem::take(&mut self.at));
        let mut octets = vec![0; 65_536];
        let begun = Instant::now();
        match self.stream.read(&mut octets) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                self.silence = self.silence.max(self.waited + begun.elapsed());
                self.waited = Duration::ZERO;
                self.inbox.extend_from_slice(&octets[..n]);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.waited += begun.elapsed();
            }
            Err(_) => self.ended = true,
        }
    }

    fn until_route(&mut self, prefix: [u8; 4]) {
        self.until("route", |_, kind, body| {
            kind == 2 && body.windows(4).any(|w| w == prefix)
        });
    }

    fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }
}

/// An UPDATE that announces /24 prefixes (length and three octets each).
fn announce(med: u32, nlri: &[[u8; 4]], out: &mut Vec<u8>) {
    let mut attrs = Vec::new();
    for (flags, code, value) in [
        (TRANSITIVE, code::ORIGIN, &[0][..]),
        (
            TRANSITIVE,
            code::AS_PATH,
            &[
                2,
                2,
                0,
                0,
                0xfd,
                0xe9,
                (med >> 24) as u8,
                (med >> 16) as u8,
                (med >> 8) as u8,
                med as u8 | 1,
            ],
        ),
        (TRANSITIVE, code::NEXT_HOP, &[10, 9, 9, 9]),
        (OPTIONAL, code::MED, &med.to_be_bytes()),
    ] {
        Attr { code, flags, value }.encode(&mut attrs);
    }
    message(out, MessageType::Update, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(attrs.len() as u16).to_be_bytes());
        out.extend_from_slice(&attrs);
        out.extend_from_slice(nlri.as_flattened());
    });
}

fn withdraw(prefix: [u8; 4], out: &mut Vec<u8>) {
    message(out, MessageType::Update, |out| {
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&[0, 0]);
    });
}

fn prefix(number: u32) -> [u8; 4] {
    let [_, a, b, c] = (number + 0x0014_0000).to_be_bytes();
    [24, a, b, c]
}

#[test]
fn each_of_a_hundred_peers_is_heard_though_the_others_are_idle() {
    let daemon = Daemon::start(|_| ());
    let mut clients: Vec<Client> = (1..=100).map(|place| Client::up(&daemon, place, 90)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let mut out = Vec::new();
        announce(0, &[prefix(number as u32)], &mut out);
        client.send(&out);
    }
    let mut observer = Client::up(&daemon, 200, 90);
    let mut heard = std::collections::BTreeSet::new();
    observer.until("a route of each", |_, kind, body| {
        if kind == 2 && body.len() > 4 {
            let attrs = usize::from(u16::from_be_bytes([body[2], body[3]]));
            heard.extend(body[4 + attrs..].chunks(4).map(<[u8]>::to_vec));
        }
        heard.len() == 100
    });
}

#[test]
fn ten_thousand_flaps_in_a_second_reach_a_peer_as_twenty_updates_at_most() {
    let daemon = Daemon::start(|_| ());
    let mut sender = Client::up(&daemon, 1, 90);
    let mut receiver = Client::up(&daemon, 2, 90);
    let begun = Instant::now();
    for hundred in 0..100_u32 {
        let mut out = Vec::new();
        for flap in 0..50 {
            // What stands last of a batch alternates: else there would be nothing to say.
            let last = hundred % 2 == 0;
            withdraw(prefix(7), &mut out);
            announce(hundred * 50 + flap + 1, &[prefix(7)], &mut out);
            if last && flap == 49 {
                withdraw(prefix(7), &mut out);
            }
        }
        sender.send(&out);
        let due = begun + Duration::from_millis(10) * (hundred + 1);
        while Instant::now() < due {
            receiver.read();
        }
    }
    let took = begun.elapsed();
    let mut out = Vec::new();
    announce(9, &[prefix(8)], &mut out);
    sender.send(&out);
    receiver.until_route(prefix(8));
    let most = 20.0 * took.as_secs_f64().max(1.0);
    assert!(
        receiver.updates >= 3,
        "{} UPDATEs: it never flapped",
        receiver.updates
    );
    assert!(
        receiver.updates as f64 <= most + 1.0,
        "{} UPDATEs in {took:?}",
        receiver.updates
    );
}

#[test]
fn a_peer_that_stops_reading_holds_up_nobody_and_loses_its_session() {
    let daemon = Daemon::start(|range| range.template.timers.send_hold = Some(Duration::from_secs(2)));
    let stuck = Client::up(&daemon, 3, 90);
    let mut sender = Client::up(&daemon, 1, 90);
    let mut receiver = Client::up(&daemon, 2, 90);
    let begun = Instant::now();
    let mut round = 0;
    // What the stuck one's socket has taken into its buffers is not enough: there must be more than it can take.
    while daemon.peers() == 3 {
        assert!(begun.elapsed() < PATIENCE, "the stuck peer kept its session");
        let mut out = Vec::new();
        for number in (0..20_000).step_by(500) {
            let nlri: Vec<[u8; 4]> = (number..number + 500).map(prefix).collect();
            announce(round * 2 + 2, &nlri, &mut out);
        }
        round += 1;
        announce(round, &[prefix(100_000 + round)], &mut out);
        let sent = Instant::now();
        sender.send(&out);
        receiver.until_route(prefix(100_000 + round));
        assert!(
            sent.elapsed() < Duration::from_secs(5),
            "others waited for {:?}",
            sent.elapsed()
        );
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
    drop(stuck);
}

#[test]
fn keepalives_come_in_time_while_the_table_is_busy() {
    // 0.9 s between two, and what a crowded machine adds: at best of three.
    let bound = Duration::from_millis(1500);
    let mut silences = Vec::new();
    while silences.len() < 3 {
        let silence = silence_of_a_busy_table();
        if silence < bound {
            return;
        }
        silences.push(silence);
    }
    panic!("silent for {silences:?}");
}

/// The longest time between two messages to a peer with hold time 3 s while another one sends 1.2 million routes.
fn silence_of_a_busy_table() -> Duration {
    let daemon = Daemon::start(|_| ());
    let mut sender = Client::up(&daemon, 1, 90);
    let mut listener = Client::up(&daemon, 2, 3);
    let feed = std::thread::spawn(move || {
        for round in 0..6 {
            let mut out = Vec::new();
            for number in (0..200_000).step_by(8) {
                let nlri: Vec<[u8; 4]> = (number..number + 8).map(prefix).collect();
                announce(round * 1_000_000 + number + 2, &nlri, &mut out);
            }
            sender.send(&out);
        }
        let mut out = Vec::new();
        announce(1, &[prefix(300_000)], &mut out);
        sender.send(&out);
        sender
    });
    let mut alive = Vec::new();
    keepalive(&mut alive);
    let mut said = Instant::now();
    let mut hushed = listener.stream.try_clone().unwrap();
    listener.until("the last route", |_, kind, body| {
        if said.elapsed() > Duration::from_millis(500) {
            said = Instant::now();
            hushed.write_all(&alive).unwrap();
        }
        kind == 2 && body.windows(4).any(|w| w == prefix(300_000))
    });
    drop(feed.join().unwrap());
    listener.silence
}

#[test]
fn a_range_takes_no_more_peers_than_it_says_and_forgets_those_that_go() {
    let daemon = Daemon::start(|range| range.peers_max = 2);
    let first = Client::up(&daemon, 1, 90);
    let _second = Client::up(&daemon, 2, 90);
    let refused = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    refused
        .bind(&SocketAddr::from((Ipv4Addr::new(127, 1, 0, 3), 0)).into())
        .unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.port));
    let answer = refused
        .connect(&at.into())
        .map(|()| TcpStream::from(refused).read(&mut [0; 64]));
    assert!(matches!(answer, Ok(Ok(0) | Err(_)) | Err(_)), "{answer:?}");
    assert_eq!(daemon.peers(), 2);
    drop(first);
    daemon.wait("the first is forgotten", |d| d.peers() == 1);
    let _third = Client::up(&daemon, 3, 90);
    let known = |d: &Daemon| {
        let runtime = d.runtime.as_ref().unwrap();
        let peers = runtime.block_on(d.handle.peers()).unwrap();
        peers.iter().map(|p| p.address).collect::<Vec<IpAddr>>()
    };
    assert_eq!(known(&daemon), [[127, 1, 0, 2], [127, 1, 0, 3]].map(IpAddr::from));
}

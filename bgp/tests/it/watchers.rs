//! Those who watch a running speaker: BMP collectors, and readers of its MRT files. Two speakers on loopback addresses of their
//! own; the second gives the first something to tell.

use crate::lab::eventually;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use twill_bgp::config::{BmpConfig, MrtConfig, NextHopMode, Origination};
use twill_bgp::net::{Handle, bind};
use twill_bgp::policy::{Action, Policy, Term, Verdict};
use twill_bgp::view::{RouteQuery, RouteTable};
use twill_bgp::{Config, PeerConfig};

/// A loopback address is no lawful next hop, so routes have one of their own.
const NEXT_HOP: &str = "192.0.2.7";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The speaker that is watched, and the one beyond it.
struct Pair {
    watched: Handle,
    other: Handle,
    tasks: Vec<JoinHandle<()>>,
    addresses: [IpAddr; 2],
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Pair {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let [_, _, high, low] = pid.to_be_bytes();
        let addresses = [1, 2].map(|end| IpAddr::from([127, high.max(1), low, (n * 2 + end) as u8]));
        let port = 20_000 + (pid % 10_000) as u16;
        let config = |own: usize, asn: u32, passive: bool| {
            let other = 1 - own;
            let mut peer = PeerConfig::new(addresses[other], if asn == 65000 { 65001 } else { 65000 });
            peer.port = port;
            peer.local_address = Some(addresses[own]);
            peer.passive = passive;
            peer.next_hop = NextHopMode::Keep;
            peer.timers.connect_retry = Duration::from_millis(200);
            let IpAddr::V4(id) = addresses[own] else {
                unreachable!()
            };
            Config {
                listen: vec![SocketAddr::new(addresses[own], port)],
                peers: vec![peer],
                ..Config::new(asn, id)
            }
        };
        let mut first = config(0, 65000, true);
        change(&mut first);
        let (watched, server) = bind(first).unwrap();
        let (other, second) = bind(config(1, 65001, false)).unwrap();
        let tasks = vec![tokio::spawn(server.run()), tokio::spawn(second.run())];
        Self {
            watched,
            other,
            tasks,
            addresses,
        }
    }

    /// The other speaker announces 10.x.y.0/24, so many.
    async fn announce(&self, count: u32) {
        let route = |n: u32| {
            let net = format!("10.{}.{}.0/24", n / 256, n % 256);
            let route = Origination {
                next_hop: Some(NEXT_HOP.parse().unwrap()),
                ..Origination::default()
            };
            (net.parse().unwrap(), route)
        };
        self.other
            .originate((0..count).map(route).collect())
            .await
            .unwrap();
        self.other.own_routes_known().await.unwrap();
    }

    async fn learned(&self, count: usize) {
        let query = RouteQuery {
            table: RouteTable::Best,
            peer: Some(self.addresses[1]),
            prefix: None,
            limit: 100_000,
        };
        let seen = async || self.watched.routes(query.clone()).await.unwrap().len();
        eventually("routes", seen, |n| *n == count).await;
    }
}

fn collector(listener: &TcpListener) -> BmpConfig {
    BmpConfig {
        address: listener.local_addr().unwrap(),
        pre_policy: true,
        post_policy: true,
        statistics: Duration::from_millis(200),
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A collector's end.
struct Station(BufReader<TcpStream>);

/// A message: its type, and everything behind it.
type Message = (u8, Vec<u8>);

impl Station {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = tokio::time::timeout(Duration::from_secs(20), listener.accept())
            .await
            .expect("the speaker does not connect")
            .unwrap();
        Self(BufReader::new(stream))
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        let read = async {
            let mut head = [0; 6];
            self.0.read_exact(&mut head).await.ok()?;
            assert_eq!(head[0], 3, "the version");
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; len as usize - 6];
            self.0.read_exact(&mut body).await.ok()?;
            Some((head[5], body))
        };
        tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("no message in time")
    }

    /// Reads until a message is the one; all those before it are given back, too.
    async fn until(&mut self, what: &str, is: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            let found = is(&message);
            seen.push(message);
            if found {
                return seen;
            }
        }
        panic!("the end instead of {what}; before it: {seen:?}");
    }
}

/// The UPDATE in a Route Monitoring message, if that is what it is and it is of this view.
fn update(message: &Message, post_policy: bool) -> Option<&[u8]> {
    let (0, body) = (message.0, &message.1) else {
        return None;
    };
    ((body[1] & 0x40 != 0) == post_policy).then(|| &body[42..])
}

/// An UPDATE that announces 10.0.0.0/24, or withdraws it.
fn names(update: &[u8], announced: bool) -> bool {
    let withdrawn = usize::from(u16::from_be_bytes([update[19], update[20]]));
    if announced {
        withdrawn == 0 && update.ends_with(&[24, 10, 0, 0])
    } else {
        update.get(21..21 + withdrawn) == Some(&[24, 10, 0, 0])
    }
}

const INITIATION: u8 = 4;
const PEER_UP: u8 = 3;
const PEER_DOWN: u8 = 2;
const STATISTICS: u8 = 1;
const TERMINATION: u8 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_is_told_everything_and_again_when_it_comes_back() {
    let listener = listener().await;
    let pair = Pair::start(|c| c.bmp = vec![collector(&listener)]);
    let mut station = Station::accept(&listener).await;
    assert_eq!(station.next().await.unwrap().0, INITIATION);
    pair.announce(1).await;
    let up = station.until("Peer Up", |m| m.0 == PEER_UP).await;
    let up = &up.last().unwrap().1;
    let IpAddr::V4(other) = pair.addresses[1] else {
        unreachable!()
    };
    assert_eq!(
        up[22..26],
        other.octets(),
        "the peer's address at the end of its field"
    );
    assert_eq!((up[26..30]).to_vec(), 65001_u32.to_be_bytes());
    // Both OPENs stand whole at the end.
    assert_eq!((up[62..78].to_vec(), up[80]), (vec![0xff; 16], 1));
    for post_policy in [false, true] {
        let is = |m: &Message| update(m, post_policy).is_some_and(|u| names(u, true));
        station.until("the route", is).await;
    }
    station.until("statistics", |m| m.0 == STATISTICS).await;
    // It goes and comes back: everything is said again.
    drop(station);
    let mut station = Station::accept(&listener).await;
    let is = |m: &Message| update(m, true).is_some_and(|u| names(u, true));
    let seen = station.until("the route again", is).await;
    let kinds: Vec<u8> = seen.iter().map(|m| m.0).take(2).collect();
    assert_eq!(kinds, [INITIATION, PEER_UP]);
    // A withdrawal, and the end of the session.
    pair.announce(0).await;
    let is = |m: &Message| update(m, false).is_some_and(|u| names(u, false));
    station.until("the withdrawal", is).await;
    pair.other.shutdown("test").await.unwrap();
    let down = station.until("Peer Down", |m| m.0 == PEER_DOWN).await;
    let (_, body) = down.last().unwrap();
    assert_eq!((body[42], body[43 + 19]), (3, 6), "a Cease of the other end");
    pair.watched.stop().await.unwrap();
    station.until("Termination", |m| m.0 == TERMINATION).await;
    assert_eq!(station.next().await, None);
}

/// LOCAL_PREF 300, as import policy sets it.
const RAISED: [u8; 7] = [0x40, 5, 4, 0, 0, 1, 44];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_policy_a_collector_is_shown_nothing_that_policy_has_made() {
    let listener = listener().await;
    let raise = Term::change("raise", vec![], vec![Action::LocalPref(300)]);
    let import = Arc::new(Policy {
        terms: vec![raise],
        default: Verdict::Accept,
    });
    let pair = Pair::start(|c| {
        c.bmp = vec![collector(&listener)];
        c.peers[0].import = import;
    });
    pair.announce(1).await;
    pair.learned(1).await;
    // The first one may have come before the route; the second one finds it in the table.
    drop(Station::accept(&listener).await);
    let mut station = Station::accept(&listener).await;
    let raised = |update: &[u8]| update.windows(RAISED.len()).any(|w| w == RAISED);
    let after = |m: &Message| update(m, true).is_some_and(|u| names(u, true));
    let before = |m: &Message| update(m, false).is_some_and(|u| names(u, true));
    let mut seen = station.until("the route", |m| after(m) || before(m)).await;
    assert!(update(seen.last().unwrap(), true).is_some_and(raised), "{seen:?}");
    seen.extend(station.until("the route as it was received", before).await);
    assert!(
        seen.iter().filter_map(|m| update(m, false)).all(|u| !raised(u)),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_not_read_harms_nobody() {
    let listener = listener().await;
    let pair = Pair::start(|c| c.bmp = vec![collector(&listener)]);
    let station = Station::accept(&listener).await;
    for round in 1..4 {
        pair.announce(20_000 * round % 60_000).await;
        pair.learned((20_000 * round % 60_000) as usize).await;
    }
    drop(station);
    // And it is served as soon as it reads.
    pair.announce(1).await;
    let mut station = Station::accept(&listener).await;
    let is = |m: &Message| update(m, true).is_some_and(|u| names(u, true));
    station.until("the route", is).await;
}

/// What bgpdump, which is none of ours, reads in a file.
fn bgpdump(file: &Path) -> String {
    let out = Command::new("bgpdump")
        .arg("-m")
        .arg(file)
        .output()
        .expect("bgpdump is installed by scripts/setup");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mrt_files_are_read_by_others() {
    let dir = TempDir::new().unwrap();
    let (table, updates) = (dir.path().join("table"), dir.path().join("updates"));
    let pair = Pair::start(|c| {
        c.mrt = MrtConfig {
            table: Some((table.clone(), Duration::from_secs(1))),
            updates: Some(updates.clone()),
        };
    });
    pair.announce(3).await;
    let other = pair.addresses[1];
    let line = format!("|B|{other}|65001|10.0.2.0/24|65001|IGP|{NEXT_HOP}|");
    let dumped = async || bgpdump(&table);
    let seen = eventually("the table", dumped, |t: &String| t.contains(&line)).await;
    assert!(
        seen.lines().all(|l| l.starts_with("TABLE_DUMP2|")) && seen.lines().count() == 3,
        "{seen}"
    );
    // Recording began with the configuration: nothing is missing, not even the session's beginning.
    let recorded = async || bgpdump(&updates);
    let came = format!("|A|{other}|65001|10.0.2.0/24|65001|IGP|{NEXT_HOP}|");
    let seen = eventually("the announcement", recorded, |t: &String| t.contains(&came)).await;
    let up = format!("|STATE|{other}|65001|5|6");
    let place = |what: &str| seen.find(what);
    assert!(place(&up).is_some() && place(&up) < place(&came), "{seen}");
    pair.announce(2).await;
    let gone = format!("|W|{other}|65001|10.0.2.0/24");
    eventually("the withdrawal", recorded, |t: &String| t.contains(&gone)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_paths_that_wait_are_given_at_once_and_none_is_lost_by_a_question_given_up() {
    let pair = Pair::start(|_| ());
    let mut changes = pair.watched.best_changes().await.unwrap();
    assert_eq!(changes.waiting().await.unwrap().len(), 0, "nothing is known yet");
    pair.announce(3).await;
    pair.learned(3).await;
    assert_eq!(changes.waiting().await.unwrap().len(), 3);
    assert_eq!(changes.waiting().await.unwrap().len(), 0);
    for count in 4..20 {
        // A question that waits, given up.
        let soon = tokio::time::timeout(Duration::from_millis(1), changes.next()).await;
        assert!(soon.is_err(), "{soon:?}");
        pair.announce(count).await;
        pair.learned(count as usize).await;
        let news = changes.waiting().await.unwrap();
        let net = format!("10.0.{}.0/24", count - 1).parse().unwrap();
        assert_eq!(news.keys().collect::<Vec<_>>(), [&net]);
    }
}

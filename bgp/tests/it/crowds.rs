//! Hosts that open connections and say nothing, over real sockets on the loopback.

use crate::lab::eventually;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use twill_bgp::net::{Handle, bind};
use twill_bgp::view::Totals;
use twill_bgp::{Config, PeerConfig};

/// A peer with TTL security for one hop.
const NEAR: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);
/// One that may be anywhere, so that the listener itself has none.
const FAR: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 3);
/// How many connections a crowd has.
const CROWD: usize = 8;

struct Speaker {
    handle: Handle,
    at: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Speaker {
    fn start(pending_per_host: u32) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let peer = |address: Ipv4Addr, hops| PeerConfig {
            passive: true,
            ttl_security_hops: hops,
            ..PeerConfig::new(address.into(), 65001)
        };
        let mut config = Config {
            listen: vec![at],
            peers: vec![peer(NEAR, Some(1)), peer(FAR, None)],
            ..Config::new(65000, Ipv4Addr::new(10, 0, 0, 1))
        };
        config.limits.pending_per_host = pending_per_host;
        let (handle, server) = bind(config).unwrap();
        let task = tokio::spawn(server.run());
        Self { handle, at, task }
    }

    async fn connect(&self, from: Ipv4Addr, ttl: u32) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket2::SockRef::from(&socket).set_ttl_v4(ttl).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    async fn crowd(&self, from: Ipv4Addr, ttl: u32) -> Vec<TcpStream> {
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(self.connect(from, ttl).await);
        }
        crowd
    }

    async fn totals(&self) -> Totals {
        self.handle.totals().await.unwrap()
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The octets that come before the end, or within a while; none at all if we were turned away.
async fn heard(stream: &mut TcpStream) -> usize {
    let mut octets = [0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut octets));
    read.await.expect("an OPEN or the end").unwrap_or(0)
}

#[tokio::test]
async fn a_host_has_so_many_connections_without_a_session_and_the_newest_beyond_is_closed() {
    let speaker = Speaker::start(3);
    let mut crowd = speaker.crowd(FAR, 64).await;
    let refused = |t: &Totals| t.refused_of_crowds > 0;
    eventually("some are refused", async || speaker.totals().await, refused).await;
    assert_ne!(heard(&mut crowd[0]).await, 0, "the first was welcome");
    let mut unheard = 0;
    for stream in &mut crowd[1..] {
        unheard += u64::from(heard(stream).await == 0);
    }
    assert_eq!(speaker.totals().await.refused_of_crowds, unheard);
    // When they have gone the host is as welcome as any.
    drop(crowd);
    let greeted = async || heard(&mut speaker.connect(FAR, 64).await).await;
    eventually("an OPEN", greeted, |octets| *octets > 0).await;
}

#[tokio::test]
async fn a_larger_bound_lets_them_all_in() {
    let speaker = Speaker::start(16);
    let mut crowd = speaker.crowd(FAR, 64).await;
    for stream in &mut crowd {
        assert_ne!(heard(stream).await, 0);
    }
    assert_eq!(speaker.totals().await.refused_of_crowds, 0);
}

#[tokio::test]
async fn a_low_ttl_stranger_takes_no_place_of_the_true_peers() {
    let speaker = Speaker::start(3);
    let mut strangers = speaker.crowd(NEAR, 64).await;
    // The bound alone would keep the true peer out now.
    let mut peer = speaker.connect(NEAR, 255).await;
    assert_ne!(heard(&mut peer).await, 0, "the true peer is greeted");
    for stranger in &mut strangers {
        assert_eq!(heard(stranger).await, 0, "who comes from afar is not");
    }
    let totals = speaker.totals().await;
    assert_eq!((totals.refused, totals.refused_of_crowds), (8, 0));
    // Nor do later ones take the place of one that waits.
    let mut later = speaker.crowd(NEAR, 254).await;
    for stranger in &mut later {
        assert_eq!(heard(stranger).await, 0);
    }
    let waits = tokio::time::timeout(Duration::from_millis(100), peer.read(&mut [0; 64])).await;
    assert!(waits.is_err(), "its connection stands: {waits:?}");
}

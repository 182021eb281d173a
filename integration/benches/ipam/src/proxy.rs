//! What stands between a node and etcd. It forwards bytes, and on command it does to connections what networks do.
//!
//! ```text
//!   Proxy (one listener) ── one task per connection, CONNECTIONS_MAX ──▶ a member, in turn
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Connections of one node at once: its client keeps one for each endpoint.
const CONNECTIONS_MAX: usize = 64;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A request of at least so many bytes writes something: pings and acknowledgements of HTTP/2 are smaller.
const REQUEST_BYTES: usize = 300;

/// What a proxy does to connections from now on, or once.
#[derive(Debug, Default)]
pub struct Fate {
    /// The next so many replies to requests that write are lost: the request is delivered whole, then the connection is cut.
    lose: AtomicUsize,
    /// Connections of an older generation are cut.
    generation: AtomicU64,
    /// Nothing passes before this time (milliseconds since the proxy began).
    hold_until: AtomicU64,
    /// Each chunk waits so long.
    delay_ms: AtomicU64,
    /// Replies lost so far.
    lost: AtomicU64,
}

impl Fate {
    /// Delivers the next request that writes, and cuts the connection before its reply.
    pub fn lose_reply(&self) {
        self.lose.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Slows every chunk down.
    pub fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Replies that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Forgets what was asked for but has not happened yet.
    pub fn be_kind(&self) {
        self.lose.store(0, Ordering::Relaxed);
        self.delay(0);
        self.hold_until.store(0, Ordering::Relaxed);
    }

    fn takes_a_reply(&self) -> bool {
        let take = |n: usize| n.checked_sub(1);
        self.lose
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// A proxy in front of some members.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    /// What it does.
    pub fate: Arc<Fate>,
    began: Instant,
    /// Ends with the proxy, and its connections with it.
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(members: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (fate, began) = (Arc::new(Fate::default()), Instant::now());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, members, Arc::clone(&fate), began));
        Ok(Self {
            port,
            fate,
            began,
            _tasks: tasks,
        })
    }

    /// Nothing passes for so long; connections stay.
    pub fn hold(&self, time: Duration) {
        let until = self.began.elapsed() + time;
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.fate.hold_until.store(until, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, members: Vec<u16>, fate: Arc<Fate>, began: Instant) {
    let mut connections = JoinSet::new();
    let mut turn = 0;
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            continue;
        }
        turn += 1;
        let Some(port) = members.get(turn % members.len()).copied() else {
            return;
        };
        connections.spawn(connection(client, port, Arc::clone(&fate), began));
    }
}

async fn connection(client: TcpStream, port: u16, fate: Arc<Fate>, began: Instant) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let generation = fate.generation.load(Ordering::Relaxed);
    // An error ends the connection, and so does every fault: there is nobody to tell.
    let _ = forward(client, server, &fate, generation, began).await;
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    fate: &Fate,
    generation: u64,
    began: Instant,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut up, mut down) = (vec![0; CHUNK], vec![0; CHUNK]);
    // Set once the request went out whose reply is to be lost: what comes back from then on is dropped.
    let mut doomed = false;
    loop {
        tokio::select! {
            n = from_client.read(&mut up) => {
                let n = n?;
                if n == 0 { return Ok(()); }
                wait(fate, began).await;
                to_server.write_all(up.get(..n).unwrap_or_default()).await?;
                doomed |= n >= REQUEST_BYTES && fate.takes_a_reply();
            }
            n = from_server.read(&mut down) => {
                let n = n?;
                if n == 0 { return Ok(()); }
                if doomed {
                    fate.lost.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                wait(fate, began).await;
                to_client.write_all(down.get(..n).unwrap_or_default()).await?;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if fate.generation.load(Ordering::Relaxed) != generation {
            return Ok(());
        }
    }
}

async fn wait(fate: &Fate, began: Instant) {
    let until = began + Duration::from_millis(fate.hold_until.load(Ordering::Relaxed));
    tokio::time::sleep_until(until).await;
    let delay = fate.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

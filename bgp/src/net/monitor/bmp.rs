//! One BMP collector (RFC 7854): we connect, say everything that is known, then everything that happens.

use super::{Batch, Source, Subscription};
use crate::config::BmpConfig;
use crate::family::Family;
use crate::monitor::{RouteChange, TableEntry, View, Watched, bmp};
use crate::wire::AttrSet;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A collector must take the connection within this time.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A collector that takes nothing for so long is given up.
const STALL_WAIT: Duration = Duration::from_secs(60);
/// How long our last words may take.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// The first pause between attempts; it doubles to [`RETRY_MAX`] (section 3.2).
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why a connection ended.
enum End {
    /// The speaker ends, or the collector is no more configured.
    Stopped,
    /// It will be tried again.
    Lost(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Serves one collector until it is to stop.
pub(super) async fn run(config: BmpConfig, name: String, source: Source) {
    let mut pause = RETRY_MIN;
    loop {
        let mut station = match connect(&config, &source).await {
            Ok(stream) => {
                tracing::info!(collector = %config.address, "bmp collector connected");
                pause = RETRY_MIN;
                Station {
                    stream,
                    config: &config,
                    out: Vec::new(),
                }
            }
            Err(End::Stopped) => return,
            Err(End::Lost(error)) => {
                tracing::debug!(collector = %config.address, %error, "bmp collector cannot be reached");
                if sleep(&source, pause).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(RETRY_MAX);
                continue;
            }
        };
        match station.serve(&name, &source).await {
            End::Stopped => return station.goodbye().await,
            End::Lost(error) => {
                tracing::warn!(collector = %config.address, %error, "bmp collector lost; connecting again");
            }
        }
        drop(station);
        if sleep(&source, pause).await.is_none() {
            return;
        }
    }
}

async fn sleep(source: &Source, time: Duration) -> Option<()> {
    source.stop.run_until_cancelled(tokio::time::sleep(time)).await
}

async fn connect(config: &BmpConfig, source: &Source) -> Result<TcpStream, End> {
    let dial = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(config.address));
    let dialled = source.stop.run_until_cancelled(dial).await;
    Ok(dialled.ok_or(End::Stopped)?.map_err(io::Error::from)??)
}

struct Station<'a> {
    stream: TcpStream,
    config: &'a BmpConfig,
    out: Vec<u8>,
}

impl Station<'_> {
    /// Everything that is known, then everything that happens.
    async fn serve(&mut self, name: &str, source: &Source) -> End {
        let Err(end) = self.serve_all(name, source).await else {
            return End::Stopped;
        };
        end
    }

    async fn serve_all(&mut self, name: &str, source: &Source) -> Result<(), End> {
        let description = concat!("twill-bgp ", env!("CARGO_PKG_VERSION"));
        bmp::initiation(&mut self.out, name, description);
        let mut subscription = source
            .subscribe(self.config.pre_policy)
            .await
            .ok_or(End::Stopped)?;
        for peer in &subscription.peers {
            bmp::peer_up(&mut self.out, peer);
        }
        self.flush(source).await?;
        self.tables(&subscription.peers, source).await?;
        self.follow(&mut subscription, source).await
    }

    /// The tables as they are, each with an End-of-RIB for each peer and view.
    async fn tables(&mut self, peers: &[Arc<Watched>], source: &Source) -> Result<(), End> {
        let by_address: BTreeMap<IpAddr, &Arc<Watched>> = peers.iter().map(|p| (p.address, p)).collect();
        for family in Family::ALL {
            let mut from = Some(0);
            while let Some(place) = from {
                let slice = source.walk(family, place).await.ok_or(End::Stopped)?;
                from = slice.next;
                self.slice(family, &slice.entries, &by_address);
                self.flush(source).await?;
            }
            for peer in peers {
                for view in self.views() {
                    bmp::end_of_rib(&mut self.out, peer, view, family, SystemTime::now());
                }
            }
            self.flush(source).await?;
        }
        Ok(())
    }

    fn views(&self) -> impl Iterator<Item = View> + use<> {
        let (pre, post) = (self.config.pre_policy, self.config.post_policy);
        let wanted = [(View::PrePolicy, pre), (View::PostPolicy, post)];
        wanted
            .into_iter()
            .filter_map(|(view, wanted)| wanted.then_some(view))
    }

    /// Routes of one slice, gathered by peer and attributes. What policy has rewritten is not what was received: of those
    /// peers the routes before policy come by a refresh.
    fn slice(&mut self, family: Family, entries: &[TableEntry], peers: &BTreeMap<IpAddr, &Arc<Watched>>) {
        type Key = (View, IpAddr, *const AttrSet);
        type Gathered = (Arc<AttrSet>, Vec<(IpNet, u32)>);
        let mut gathered: HashMap<Key, Gathered> = HashMap::new();
        for entry in entries {
            for path in &entry.paths {
                let Some(peer) = path.peer.filter(|p| peers.contains_key(p)) else {
                    continue;
                };
                let shows = |view: &View| match view {
                    View::PrePolicy => !path.rewritten,
                    View::PostPolicy => path.accepted,
                };
                for view in self.views().filter(shows) {
                    let key = (view, peer, Arc::as_ptr(&path.attrs));
                    let group = gathered
                        .entry(key)
                        .or_insert_with(|| (Arc::clone(&path.attrs), Vec::new()));
                    group.1.push((entry.prefix, path.path_id));
                }
            }
        }
        let now = SystemTime::now();
        for ((view, peer, _), (attrs, nlri)) in gathered {
            let change = RouteChange {
                family,
                view,
                attrs: Some(attrs),
                nlri,
            };
            if let Some(peer) = peers.get(&peer) {
                bmp::routes(&mut self.out, peer, &change, now);
            }
        }
    }

    async fn follow(&mut self, subscription: &mut Subscription, source: &Source) -> Result<(), End> {
        let every = self.config.statistics;
        let mut due = tokio::time::Instant::now() + every;
        let mut heard = [0; 64];
        loop {
            tokio::select! {
                batch = subscription.next() => match batch {
                    Some(batch) => self.batch(&batch),
                    None if source.stop.is_cancelled() => return Err(End::Stopped),
                    None => return Err(io::Error::other("it does not keep up").into()),
                },
                // A collector says nothing; but that it is gone can be read.
                read = self.stream.read(&mut heard) => if read? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                },
                () = tokio::time::sleep_until(due), if !every.is_zero() => {
                    due += every;
                    self.statistics(source).await?;
                }
                () = source.stop.cancelled() => return Err(End::Stopped),
            }
            self.flush(source).await?;
        }
    }

    fn batch(&mut self, batch: &Batch) {
        let (pre, post) = (self.config.pre_policy, self.config.post_policy);
        let wants = |view| match view {
            View::PrePolicy => pre,
            View::PostPolicy => post,
        };
        for event in &batch.1 {
            bmp::event(&mut self.out, event, wants, batch.0);
        }
    }

    async fn statistics(&mut self, source: &Source) -> Result<(), End> {
        let counted = source.ask(super::Request::Statistics).await.ok_or(End::Stopped)?;
        for (peer, counts, treated) in counted {
            bmp::statistics(&mut self.out, &peer, &counts, treated, SystemTime::now());
        }
        Ok(())
    }

    async fn flush(&mut self, source: &Source) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let write = tokio::time::timeout(STALL_WAIT, self.stream.write_all(&self.out));
        let written = source.stop.run_until_cancelled(write).await;
        self.out.clear();
        // What a large batch took is given back.
        self.out.shrink_to(1 << 20);
        Ok(written.ok_or(End::Stopped)?.map_err(io::Error::from)??)
    }

    async fn goodbye(&mut self) {
        let mut out = Vec::new();
        bmp::termination(&mut out);
        let last = async {
            self.stream.write_all(&out).await?;
            self.stream.shutdown().await
        };
        let _ = tokio::time::timeout(GOODBYE_WAIT, last).await;
    }
}

//! The service of the BGP speaker: its peers and routes, with or without a fabric around it.

mod find;
pub(super) mod show;
mod watch;

use std::net::IpAddr;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, Stream};
use ipnet::IpNet;
use tonic::{Request, Response, Status};
use twill_bgp::net::{Closed, Handle, Reset};
use twill_bgp::view::{PeerState, RouteQuery, RouteTable};
use twill_bgp::{PeerStatus, RouteView};
use twill_datastore::Store;
use twill_proto::api::bgp_server::Bgp as Service;
use twill_proto::api::{
    DetailReply, DetailRequest, Notice, PeersReply, PeersRequest, ResetReply, ResetRequest,
    RouteTable as AskedTable, RoutesReply, RoutesRequest, WatchRequest,
};

use super::Api;
use crate::bgp::Speaker;
use crate::bgp::config::Derived;

/// Most routes in one answer: more than a person reads and a script should ask for.
const ROUTES_MAX: usize = 100_000;
/// Routes in one message; about 150 bytes each, far below a message's 4 MiB.
const ROUTES_A_MESSAGE: usize = 1000;

pub(super) struct Bgp {
    speaker: Speaker,
}

/// An answer in many messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Bgp {
    /// The service of a speaker, with or without a fabric around it.
    pub(super) fn of(speaker: Speaker) -> Self {
        Self { speaker }
    }

    pub(super) fn new<S: Store>(api: Api<S>) -> Self {
        Self { speaker: api.speaker }
    }

    fn running(&self) -> Result<(Handle, std::sync::Arc<Derived>), Status> {
        let both = self.speaker.handle().zip(self.speaker.derived());
        both.ok_or_else(|| Status::unavailable("the BGP speaker does not run yet"))
    }

    /// The peers that a person means; all if nothing is said.
    async fn meant(
        &self,
        handle: &Handle,
        derived: &Derived,
        text: &str,
    ) -> Result<(Vec<PeerStatus>, Option<PeerStatus>), Status> {
        let peers = handle.peers().await.map_err(closed)?;
        let one = if text.is_empty() {
            None
        } else {
            Some(find::peer(&peers, derived, text)?.clone())
        };
        Ok((peers, one))
    }
}

fn closed(closed: Closed) -> Status {
    Status::unavailable(closed.to_string())
}

fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[tonic::async_trait]
impl Service for Bgp {
    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersReply>, Status> {
        let Ok((handle, derived)) = self.running() else {
            return Ok(Response::new(PeersReply::default()));
        };
        let statuses = handle.peers().await.map_err(closed)?;
        let totals = handle.totals().await.map_err(closed)?;
        let now = unix_secs();
        let peers = statuses.iter().map(|status| show::peer(&derived, now, status));
        Ok(Response::new(PeersReply {
            local_as: derived.config.asn,
            router_id: derived.config.router_id.to_string(),
            peers: peers.collect(),
            warnings: totals.alarms,
        }))
    }

    async fn detail(&self, request: Request<DetailRequest>) -> Result<Response<DetailReply>, Status> {
        let (handle, derived) = self.running()?;
        let text = request.into_inner().peer;
        let (_, status) = self.meant(&handle, &derived, &text).await?;
        let status = status.ok_or_else(|| Status::invalid_argument("which peer?"))?;
        let events = handle.events(status.address).await.map_err(closed)?;
        Ok(Response::new(show::detail(
            &derived,
            unix_secs(),
            &status,
            &events,
        )))
    }

    type RoutesStream = Messages<RoutesReply>;

    async fn routes(&self, request: Request<RoutesRequest>) -> Result<Response<Self::RoutesStream>, Status> {
        let asked = request.into_inner();
        let (handle, derived) = self.running()?;
        let (peers, peer) = self.meant(&handle, &derived, &asked.peer).await?;
        let one = !asked.prefix.is_empty();
        let table = match asked.table() {
            AskedTable::Received => RouteTable::Received,
            AskedTable::Accepted => RouteTable::Accepted,
            AskedTable::Advertised if peer.is_none() => {
                return Err(Status::invalid_argument("advertised to which peer? say --peer"));
            }
            AskedTable::Advertised => RouteTable::Advertised,
            AskedTable::Unspecified if one || asked.all_paths => RouteTable::All,
            AskedTable::Unspecified => RouteTable::Best,
        };
        let query = RouteQuery {
            table,
            peer: peer.map(|p| p.address),
            prefix: None,
            limit: ROUTES_MAX,
        };
        let routes = look_up(&handle, query, &asked.prefix).await?;
        let message = |chunk: &[RouteView]| {
            Ok(RoutesReply {
                routes: chunk.iter().map(|r| show::route(&peers, r)).collect(),
            })
        };
        let messages: Vec<_> = routes.chunks(ROUTES_A_MESSAGE).map(message).collect();
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn reset(&self, request: Request<ResetRequest>) -> Result<Response<ResetReply>, Status> {
        let ResetRequest { peer, soft, message } = request.into_inner();
        let (handle, derived) = self.running()?;
        let all = handle.peers().await.map_err(closed)?;
        let meant: Vec<&PeerStatus> = match peer.as_str() {
            "" => return Err(Status::invalid_argument("which peer? `all` is every peer")),
            "all" => all.iter().collect(),
            text => vec![find::peer(&all, &derived, text)?],
        };
        if soft && !message.is_empty() {
            return Err(Status::invalid_argument(
                "a soft reset ends no session, so there is nothing to send a message with",
            ));
        }
        let how = if soft {
            Reset::Soft
        } else {
            Reset::Hard { text: message }
        };
        let mut reply = ResetReply::default();
        for status in meant {
            let address = status.config.name();
            if status.state == PeerState::Established {
                tracing::info!(peer = %address, soft, "session reset by an operator");
                handle.reset(status.address, how.clone()).await.map_err(closed)?;
            } else {
                reply.down.push(address.clone());
            }
            reply.peers.push(address);
        }
        Ok(Response::new(reply))
    }

    type WatchStream = Messages<Notice>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let asked = request.into_inner();
        let (handle, derived) = self.running()?;
        let (_, peer) = self.meant(&handle, &derived, &asked.peer).await?;
        let notices = handle.watch().await.map_err(closed)?;
        let wanted = watch::Wanted {
            peer: peer.map(|p| p.address),
            sessions: asked.sessions || !asked.routes,
            routes: asked.routes || !asked.sessions,
        };
        let messages = watch::messages(notices, wanted, self.speaker.clone());
        Ok(Response::new(Box::pin(messages)))
    }
}

/// Routes of a prefix, or of all. An address without a length stands for the longest prefix that has it and has routes.
async fn look_up(handle: &Handle, query: RouteQuery, text: &str) -> Result<Vec<RouteView>, Status> {
    let of = async |prefix: Option<IpNet>| {
        let query = RouteQuery {
            prefix,
            ..query.clone()
        };
        handle.routes(query).await.map_err(closed)
    };
    if text.is_empty() {
        return of(None).await;
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return of(Some(net.trunc())).await;
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_| Status::invalid_argument(format!("{text:?} is neither an address nor a prefix")))?;
    let whole = IpNet::from(address);
    for len in (0..=whole.max_prefix_len()).rev() {
        let Ok(net) = IpNet::new(address, len) else {
            continue;
        };
        let found = of(Some(net.trunc())).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

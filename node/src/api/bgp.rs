//! The service of the BGP speaker: its peers and routes.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, Stream};
use ipnet::IpNet;
use tonic::{Request, Response, Status};
use twill_bgp::view::{RouteQuery, RouteTable};
use twill_bgp::{PeerStatus, RouteView};
use twill_datastore::Store;
use twill_proto::api::bgp_server::Bgp as Service;
use twill_proto::api::{BgpRoute, Peer, PeerType, PeersReply, PeersRequest, RoutesReply, RoutesRequest};

use super::Api;
use crate::bgp::{Speaker, config};

/// Most routes in one answer: more than a person reads and a script should ask for.
const ROUTES_MAX: usize = 100_000;
/// Routes in one message; about 100 bytes each, far below a message's 4 MiB.
const ROUTES_A_MESSAGE: usize = 1000;

pub(super) struct Bgp {
    speaker: Speaker,
}

impl Bgp {
    /// The service of a speaker, with or without a fabric around it.
    pub(super) fn of(speaker: Speaker) -> Self {
        Self { speaker }
    }

    pub(super) fn new<S: Store>(api: Api<S>) -> Self {
        Self { speaker: api.speaker }
    }
}

#[tonic::async_trait]
impl Service for Bgp {
    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersReply>, Status> {
        let (Some(handle), Some(derived)) = (self.speaker.handle(), self.speaker.derived()) else {
            return Ok(Response::new(PeersReply::default()));
        };
        let statuses = handle
            .peers()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let peers = statuses
            .iter()
            .map(|status| peer(&derived, now.as_secs(), status))
            .collect();
        let (local_as, router_id) = (derived.config.asn, derived.config.router_id.to_string());
        Ok(Response::new(PeersReply {
            local_as,
            router_id,
            peers,
        }))
    }

    type RoutesStream = Pin<Box<dyn Stream<Item = Result<RoutesReply, Status>> + Send>>;

    async fn routes(&self, request: Request<RoutesRequest>) -> Result<Response<Self::RoutesStream>, Status> {
        let RoutesRequest { prefix, all_paths } = request.into_inner();
        let table = if all_paths {
            RouteTable::Received
        } else {
            RouteTable::Best
        };
        let query = RouteQuery {
            table,
            peer: None,
            prefix: parse_prefix(&prefix)?,
            limit: ROUTES_MAX,
        };
        let handle = self
            .speaker
            .handle()
            .ok_or_else(|| Status::unavailable("the BGP speaker does not run yet"))?;
        let routes = handle
            .routes(query)
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let message = |chunk: &[RouteView]| {
            Ok(RoutesReply {
                routes: chunk.iter().map(route).collect(),
            })
        };
        let messages: Vec<_> = routes.chunks(ROUTES_A_MESSAGE).map(message).collect();
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }
}

fn parse_prefix(text: &str) -> Result<Option<IpNet>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| Some(net.trunc()))
        .map_err(|_| Status::invalid_argument(format!("{text:?} is neither an address nor a prefix")))
}

fn peer(derived: &config::Derived, now_secs: u64, status: &PeerStatus) -> Peer {
    let source = derived.sources.get(&status.address);
    let kind = match source.map(|s| s.kind) {
        Some(config::PeerType::Mesh) => PeerType::Mesh,
        Some(config::PeerType::Global) => PeerType::Global,
        Some(config::PeerType::Node) => PeerType::Node,
        None => PeerType::Unspecified,
    };
    let configured = derived.config.peers.iter().find(|p| p.address == status.address);
    let counts = [status.prefixes.ipv4, status.prefixes.ipv6];
    let error = status
        .last_error_received
        .iter()
        .chain(&status.last_error_sent)
        .next()
        .cloned();
    let established = status.state == twill_bgp::view::PeerState::Established;
    Peer {
        address: status.address.to_string(),
        port: configured.map_or(0, |p| p.port.into()),
        r#type: kind.into(),
        remote_as: status.asn,
        local_as: derived.config.asn,
        state: status.state.to_string(),
        since_unix_secs: i64::try_from(now_secs.saturating_sub(status.state_age.as_secs()))
            .unwrap_or(i64::MAX),
        info: error.filter(|_| !established).unwrap_or_default(),
        prefixes_received: counts.iter().map(|c| c.received).sum(),
        prefixes_advertised: counts.iter().map(|c| c.advertised).sum(),
        router_id: status
            .negotiated
            .as_ref()
            .map_or_else(String::new, |n| n.router_id.to_string()),
        source: source.map_or_else(String::new, |s| s.name.clone()),
    }
}

fn route(view: &RouteView) -> BgpRoute {
    let community = |c: &u32| format!("{}:{}", c >> 16, c & 0xffff);
    BgpRoute {
        prefix: view.prefix.to_string(),
        next_hop: view
            .next_hop
            .map_or_else(|| "self".to_owned(), |hop| hop.to_string()),
        peer: view.peer.map_or_else(String::new, |peer| peer.to_string()),
        as_path: view.as_path.clone(),
        origin: view.origin.to_owned(),
        local_pref: view.local_pref,
        med: view.med,
        communities: view.communities.iter().map(community).collect(),
        best: view.best,
        stale: view.stale,
    }
}

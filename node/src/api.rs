//! What the command line asks: gRPC on `twill.sock` (0660: root and the socket's group).
//!
//! One listener, one task a connection (tonic's), all inside the subsystem's own future, so that stop ends them.

mod bgp;
mod datastore;
mod departed;
mod incoming;
mod ipam;
mod neighbours;
mod node;
mod resources;
mod role;
mod tcp;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use twill_datastore::Store;
use twill_proto::api::bgp_server::BgpServer;
use twill_proto::api::datastore_server::DatastoreServer;
use twill_proto::api::ipam_server::IpamServer;
use twill_proto::api::node_server::NodeServer;
use twill_proto::api::resources_server::ResourcesServer;

pub(crate) use role::Role;
pub(crate) use tcp::serve as serve_tcp;

use crate::bgp::Speaker;
use crate::health::Health;

pub(crate) use bgp::show::counters as bgp_counters;

/// Requests that one connection may have under way.
const STREAMS_MAX: u32 = 100;
/// Longest message taken; an object has at most 1.5 MiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Root and whoever is in the socket's group.
const SOCKET_MODE: u32 = 0o660;

/// What the services answer from.
#[derive(Clone, Debug)]
pub(crate) struct Api<S> {
    pub(crate) store: S,
    pub(crate) speaker: Speaker,
    pub(crate) health: Health,
    pub(crate) node: String,
    pub(crate) started_unix_secs: i64,
}

/// Serves until cancelled.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn serve<S: Store>(api: Api<S>, socket: PathBuf, stop: CancellationToken) -> Result<()> {
    let listener = listen(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), "serving the command line");
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_routes(routes(&api))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .context("serving the command line")
}

/// All services.
fn routes<S: Store>(api: &Api<S>) -> Routes {
    let mut routes = Routes::default();
    routes = routes.add_service(
        ResourcesServer::new(resources::Resources::new(api.store.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
    );
    routes = routes.add_service(BgpServer::new(bgp::Bgp::new(api.clone())));
    routes = routes.add_service(
        IpamServer::new(ipam::Ipam::new(api.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
    );
    routes = routes.add_service(DatastoreServer::new(datastore::Datastore::new(api.clone())));
    routes.add_service(NodeServer::new(node::Node::new(api.clone())))
}

/// Serves the BGP speaker's service alone, until cancelled.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn serve_bgp(speaker: Speaker, socket: PathBuf, stop: CancellationToken) -> Result<()> {
    let listener = listen(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), "serving the command line");
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(BgpServer::new(bgp::Bgp::of(speaker)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .context("serving the command line")
}

fn listen(socket: &std::path::Path) -> Result<UnixListener> {
    let listener = crate::socket::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

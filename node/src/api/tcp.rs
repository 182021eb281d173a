//! The same services over TCP: TLS, and only for whoever shows a certificate of the client authority, as far as its role goes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use twill_datastore::Store;

use super::incoming::incoming;
use super::role::{self, Role};
use super::{Api, STREAMS_MAX, routes};
use crate::bootstrap::TcpApi;

/// How long a client may take to show who it is: one that says nothing holds up nobody.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take, that of the largest cluster's check included.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections open at a time: a fleet of operators, and few enough for each to have all of its streams.
const CONNECTIONS_MAX: usize = 64;
/// A client that is silent for so long is asked whether it is there, and cut off if it does not answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Serves until cancelled; with new certificates as soon as their files change.
///
/// # Errors
/// The address cannot be had, or the files cannot be used at the start.
pub(crate) async fn serve<S: Store>(api: Api<S>, tcp: TcpApi, stop: CancellationToken) -> Result<()> {
    let listening = || format!("listening on {}", tcp.listen);
    let listener = std::net::TcpListener::bind(tcp.listen).with_context(listening)?;
    listener.set_nonblocking(true).with_context(listening)?;
    tracing::info!(address = %tcp.listen, "serving the command line over TCP");
    serve_on(&listener, &routes(&api), &tcp, stop).await
}

async fn serve_on(
    listener: &std::net::TcpListener,
    routes: &Routes,
    tcp: &TcpApi,
    stop: CancellationToken,
) -> Result<()> {
    let mut tls = certificates(tcp)?;
    loop {
        let seen = looks(tcp);
        let listener = listener.try_clone().and_then(TcpListener::from_std);
        let listener = listener.with_context(|| format!("listening on {}", tcp.listen))?;
        let again = stop.child_token();
        let served = Server::builder()
            .tls_config(tls.clone())
            .context("using the certificates of the command line's service")?
            .max_concurrent_streams(STREAMS_MAX)
            .timeout(CALL_TIMEOUT)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(guarded(routes, tcp.default_role))
            .serve_with_incoming_shutdown(
                incoming(listener, CONNECTIONS_MAX),
                again.clone().cancelled_owned(),
            );
        tokio::select! {
            served = served => served.context("serving the command line over TCP")?,
            fresh = changed(tcp, seen) => {
                again.cancel();
                tls = fresh;
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// All services, each call as far as the client's role goes.
fn guarded(routes: &Routes, default: Option<Role>) -> Routes {
    let router = routes.clone().into_axum_router();
    let guard = axum::middleware::from_fn_with_state(default, role::guard);
    router.layer(guard).into()
}

/// Waits until a file changes and all of them can be used.
async fn changed(tcp: &TcpApi, mut seen: Looks) -> ServerTlsConfig {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = looks(tcp);
        if now == seen {
            continue;
        }
        seen = now;
        match certificates(tcp) {
            Ok(tls) => return tls,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "changed certificates cannot be used; the old ones stay"
                );
            }
        }
    }
}

type Looks = [Option<(SystemTime, u64)>; 3];

fn looks(tcp: &TcpApi) -> Looks {
    [&tcp.cert_file, &tcp.key_file, &tcp.client_ca_file].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn certificates(tcp: &TcpApi) -> Result<ServerTlsConfig> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tcp.cert_file)?, read(&tcp.key_file)?))
        .client_ca_root(Certificate::from_pem(read(&tcp.client_ca_file)?))
        .timeout(HANDSHAKE_TIMEOUT))
}

#[cfg(test)]
mod tests;

//! The plugin's socket: each connection brings one request and the descriptors of a pod, and gets one reply.
//!
//! ```text
//! cni.sock -- accept --> one task a connection (at most CONNECTIONS_MAX) --> Pods::{add, del, check, gc}
//! cni-spool/ ---------> replay, every REPLAY_PERIOD -----------------------> Pods::del
//! ```

mod annotations;
mod endpoint;
mod journal;
mod labels;
mod pods;
mod reconcile;
mod spool;
mod wire;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::Store;
use twill_proto::cni::{Done, Reply, reply::Outcome, request::Op};

use crate::health::{Component, Health};
use crate::metrics::Metrics;

pub(crate) use pods::{Memory, Pods};
pub(crate) use reconcile::reconcile;
pub(crate) use spool::replay;

/// Requests under way at once: a node has at most a few hundred pods, and a burst waits in the socket's backlog.
const CONNECTIONS_MAX: usize = 128;
/// How long a request may take to arrive once its connection is there: the plugin writes at once.
const RECEIVE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer to wait for; the plugin gives up after a minute.
const ANSWER_DEADLINE: Duration = Duration::from_secs(55);
/// Only root makes pods.
const SOCKET_MODE: u32 = 0o600;
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until cancelled; requests under way are finished or dropped with the subsystem's deadline.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn serve<S: Store>(
    pods: Arc<Pods<S>>,
    socket: PathBuf,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let listener = crate::socket::bind(&socket).context("serving the CNI plugin")?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(SOCKET_MODE))
        .with_context(|| format!("setting the mode of {}", socket.display()))?;
    health.ready(Component::Cni, "");
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(e) = ended
                    && e.is_panic() {
                        return Err(e).context("a request panicked");
                    }
                continue;
            }
            permit = permits.clone().acquire_owned() => permit.context("the semaphore is never closed")?,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a plugin's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (pods, metrics) = (pods.clone(), metrics.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection(&pods, &metrics, stream).await {
                tracing::warn!(error = format!("{error:#}"), "plugin connection");
            }
        });
    }
    health.not_ready(Component::Cni, "stopping");
    // Whoever is left is told nothing and asks again; what it holds is idempotent.
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection<S: Store>(pods: &Pods<S>, metrics: &Metrics, mut stream: UnixStream) -> Result<()> {
    let peer = stream.peer_cred().context("asking who connects")?;
    if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
        anyhow::bail!("uid {} may not make pods", peer.uid());
    }
    let received = tokio::time::timeout(RECEIVE_DEADLINE, wire::receive(&mut stream)).await;
    let wire::Received { request, fds } = received.context("no whole request in time")??;
    let started = Instant::now();
    let subject = journal::Subject::of(request.op.as_ref());
    let answered = tokio::time::timeout(ANSWER_DEADLINE, answer(pods, request.op, fds)).await;
    let reply = answered.unwrap_or_else(|_| Err(CniError::try_again("the daemon did not finish in time")));
    metrics.cni_request(
        subject.command(),
        reply.as_ref().map_or_else(|e| e.code, |_| 0),
        started.elapsed(),
    );
    subject.say(&reply, started.elapsed());
    let outcome = reply.unwrap_or_else(|e| Outcome::Error(e.into()));
    tokio::time::timeout(
        RECEIVE_DEADLINE,
        wire::send(
            &mut stream,
            &Reply {
                outcome: Some(outcome),
            },
        ),
    )
    .await
    .context("the plugin does not take its answer")?
}

async fn answer<S: Store>(
    pods: &Pods<S>,
    op: Option<Op>,
    fds: Vec<std::os::fd::OwnedFd>,
) -> Result<Outcome, CniError> {
    match op {
        Some(Op::Add(add)) => {
            labels::check(&add)?;
            pods.add(&add, fds).await.map(Outcome::Attached)
        }
        Some(Op::Del(del)) => pods.del(&del).await.map(done),
        Some(Op::Check(check)) => pods.check(&check, fds).await.map(done),
        Some(Op::Status(_)) => pods.status().map(done),
        Some(Op::Gc(gc)) => pods.gc(&gc).await.map(done),
        None => Err(CniError::new(
            code::IO,
            "the request is none that this daemon knows; is the plugin newer?",
        )),
    }
}

fn done((): ()) -> Outcome {
    Outcome::Done(Done {})
}

fn command(op: Option<&Op>) -> &'static str {
    match op {
        Some(Op::Add(_)) => "ADD",
        Some(Op::Del(_)) => "DEL",
        Some(Op::Check(_)) => "CHECK",
        Some(Op::Status(_)) => "STATUS",
        Some(Op::Gc(_)) => "GC",
        None => "unknown",
    }
}

/// Codes of the CNI spec that the daemon answers with.
pub(crate) mod code {
    pub(crate) const UNKNOWN_CONTAINER: u32 = 3;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const INVALID_CONFIG: u32 = 7;
    pub(crate) const TRY_AGAIN: u32 = 11;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    /// Not available, and running pods are affected as well.
    pub(crate) const LIMITED: u32 = 51;
    /// Ours: no address to be had.
    pub(crate) const NO_ADDRESS: u32 = 100;
    /// Ours: CHECK found the attachment other than ADD left it.
    pub(crate) const NOT_AS_MADE: u32 = 101;
}

/// An error on its way to the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    pub(crate) msg: String,
}

impl CniError {
    pub(crate) fn new(code: u32, msg: impl std::fmt::Display) -> Self {
        Self {
            code,
            msg: msg.to_string(),
        }
    }

    /// Nothing is wrong with the request: a later one may succeed.
    pub(crate) fn try_again(msg: impl std::fmt::Display) -> Self {
        Self::new(code::TRY_AGAIN, msg)
    }
}

impl From<CniError> for twill_proto::cni::Error {
    fn from(e: CniError) -> Self {
        Self {
            code: e.code,
            msg: e.msg,
            details: String::new(),
        }
    }
}

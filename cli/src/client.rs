//! The connection to the daemon, and its errors in calicoctl's words.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use twill_model::Kind;
use twill_proto::api::resources_client::ResourcesClient;

use crate::config::{Server, Target};

/// Longest message that is taken from the daemon.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// How long a call may take: a full `ipam check` of a large cluster, and a person's patience.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The daemon is on this machine, or a few hops away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the daemon.
///
/// # Errors
/// Nobody listens there, or we may not.
pub(crate) async fn connect(target: &Target) -> Result<Channel> {
    match target {
        Target::Socket(socket) => local(socket).await,
        Target::Server(server) => remote(server).await,
    }
}

/// Connects to the service of resources.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn resources(target: &Target) -> Result<ResourcesClient<Channel>> {
    // An object has at most 1.5 MiB, a page of a listing 500 of them.
    Ok(ResourcesClient::new(connect(target).await?).max_decoding_message_size(REPLY_BYTES_MAX))
}

async fn local(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    // The name never leaves this process: the connector below goes to the socket.
    let endpoint = Endpoint::from_static("http://twilld")
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|e| anyhow::Error::msg(root_cause(&e))).with_context(|| {
        format!(
            "cannot reach the Twill daemon at {}: is twilld running on this node? (--socket, TWILL_SOCKET)",
            socket.display()
        )
    })
}

async fn remote(server: &Server) -> Result<Channel> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&server.ca_file)?))
        .identity(Identity::from_pem(
            read(&server.cert_file)?,
            read(&server.key_file)?,
        ));
    if let Some(name) = &server.name {
        tls = tls.domain_name(name);
    }
    let reaching = || format!("cannot reach the Twill daemon at {}", server.url);
    let endpoint = Endpoint::from_shared(server.url.clone())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(|e| anyhow::Error::msg(root_cause(&e)))
        .with_context(reaching)?
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect().await;
    channel
        .map_err(|e| anyhow::Error::msg(root_cause(&e)))
        .with_context(reaching)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// One resource that could not be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Refusal {
    /// In calicoctl's words where it has some.
    pub(crate) fn new(status: &Status, kind: Kind, namespace: &str, name: &str) -> Self {
        let identifier = match (namespace, name) {
            (_, "") => kind.to_string(),
            ("", name) => format!("{kind}({name})"),
            (namespace, name) => format!("{kind}({namespace}/{name})"),
        };
        let message = match status.code() {
            Code::NotFound => format!(
                "resource does not exist: {identifier} with error: {}",
                or_none(status.message())
            ),
            Code::AlreadyExists => format!(
                "resource already exists: {identifier} with error: {}",
                or_none(status.message())
            ),
            Code::Aborted => format!("update conflict: {identifier}"),
            _ if status.message().is_empty() => format!("{identifier}: {}", status.code()),
            _ => format!("{identifier}: {}", status.message()),
        };
        Self {
            code: status.code(),
            message,
        }
    }
}

fn or_none(message: &str) -> &str {
    if message.is_empty() { "<nil>" } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_calicoctl_words_them() {
        let worded = |code, message: &str, ns| {
            Refusal::new(&Status::new(code, message), Kind::IpPool, ns, "p").message
        };
        assert_eq!(
            worded(Code::NotFound, "", ""),
            "resource does not exist: IPPool(p) with error: <nil>"
        );
        assert_eq!(
            worded(Code::AlreadyExists, "x", "ns"),
            "resource already exists: IPPool(ns/p) with error: x"
        );
        assert_eq!(worded(Code::Aborted, "x", ""), "update conflict: IPPool(p)");
        assert_eq!(
            worded(Code::InvalidArgument, "cidr is bad", ""),
            "IPPool(p): cidr is bad"
        );
    }
}

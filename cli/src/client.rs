//! The connection to the daemon, and its errors in calicoctl's words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use twill_model::Kind;

/// How long a call may take: a full `ipam check` of a large cluster, and a person's patience.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The daemon is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the daemon's socket.
///
/// # Errors
/// Nobody listens there, or we may not.
pub(crate) async fn connect(socket: &Path) -> Result<Channel> {
    let path: PathBuf = socket.to_owned();
    // The name never leaves this process: the connector below goes to the socket.
    let endpoint = Endpoint::from_static("http://twilld")
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|e| anyhow::Error::msg(root_cause(&e))).with_context(|| {
        format!("cannot reach the Twill daemon at {}: is twilld running on this node? (--socket, TWILL_SOCKET)", socket.display())
    })
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

//! The listeners: each accepts on one address and hands connections to the RIB task, which knows whose they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// After a failed accept (no descriptors left), so that it does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection and who opened it.
pub(super) type Accepted = (TcpStream, SocketAddr);

pub(super) async fn run(listener: Arc<TcpListener>, accepted: mpsc::Sender<Accepted>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a bgp connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

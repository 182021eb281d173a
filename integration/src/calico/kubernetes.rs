//! A Kubernetes API that knows no object: `calicoctl ipam check` lists Services, and no cluster is there to have any.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::netns;

/// Longest head of a request.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// How long a client may take to say what it wants.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The API, on loopback of one namespace. Dropping it ends it.
pub(super) struct Stub {
    namespace: String,
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    pub(super) fn start(namespace: &str) -> Result<Self> {
        let listener = netns::within(namespace, || TcpListener::bind("127.0.0.1:0"))?
            .context("listening as a Kubernetes API")?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                // One request a connection; a client that breaks off has its own news.
                let _ = answer(&stream);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Ok(Self {
            namespace: namespace.to_owned(),
            address,
            ended,
            thread: Some(thread),
        })
    }

    pub(super) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "stub", "user": {}}],
            "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        })
        .to_string()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let address = self.address;
        // Wakes the thread from its accept.
        let _ = netns::within(&self.namespace, || TcpStream::connect(address).map(drop));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut lines = BufReader::new(stream.take(HEAD_BYTES_MAX)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let list = match path {
        "/api/v1/services" => Some("ServiceList"),
        "/api/v1/pods" => Some("PodList"),
        "/api/v1/nodes" => Some("NodeList"),
        "/api/v1/namespaces" => Some("NamespaceList"),
        _ => None,
    };
    let (status, body) = match list {
        Some(kind) => (
            "200 OK",
            json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}),
        ),
        None => (
            "404 Not Found",
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": path}),
        ),
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

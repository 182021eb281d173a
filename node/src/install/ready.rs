//! Asking the daemon, as a plugin would, whether it serves pods.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use twill_proto::cni::{self, Reply, Request, Status, reply::Outcome, request::Op};

/// Pause between two questions.
const RETRY: Duration = Duration::from_millis(200);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks until the daemon says yes.
///
/// # Errors
/// Its last answer, or that it is not there, when the time is over.
pub(super) fn wait(socket: &Path, network: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        match ask(socket, network) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(RETRY.min(end.saturating_duration_since(Instant::now()))),
        }
    }
}

fn ask(socket: &Path, network: &str) -> Result<()> {
    let at = || format!("daemon at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(at)?;
    stream.set_read_timeout(Some(ANSWER)).with_context(at)?;
    stream.set_write_timeout(Some(ANSWER)).with_context(at)?;
    let status = Status {
        network: network.to_owned(),
    };
    let request = Request {
        op: Some(Op::Status(status)),
    };
    stream.write_all(&cni::encode(&request)?).with_context(at)?;
    let mut prefix = [0; cni::LENGTH_BYTES];
    stream.read_exact(&mut prefix).with_context(at)?;
    let mut payload = vec![0; cni::payload_length(prefix)?];
    stream.read_exact(&mut payload).with_context(at)?;
    let reply: Reply = cni::decode(&payload)?;
    match reply.outcome {
        Some(Outcome::Done(_)) => Ok(()),
        Some(Outcome::Error(e)) => bail!("{}: {}", at(), e.msg),
        _ => bail!("{} answers with something else", at()),
    }
}

//! One request to the daemon over `cni.sock` and its reply, all before a deadline.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
};
use rustix::net::{SocketType, connect, sendmsg, socket_with};
use twill_proto::cni::{self, Reply, Request};

use crate::fd::PodFds;

/// Pause between two attempts to connect while the daemon restarts.
const CONNECT_RETRY: Duration = Duration::from_millis(50);

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens, or too slow to answer: the request may be repeated.
    Away(String),
    /// What came back is not ours to understand.
    Garbled(String),
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a daemon that is not there, as while it restarts.
    pub(crate) connect: Duration,
    /// For the whole exchange.
    pub(crate) total: Duration,
}

/// Sends `request`, with `fds` if there are any, and waits for the reply.
///
/// # Errors
/// See [`Failure`]. After [`Failure::Away`] the daemon may or may not have acted: requests are idempotent.
pub(crate) fn call(
    socket: &Path,
    request: &Request,
    fds: Option<&PodFds>,
    patience: Patience,
) -> Result<Reply, Failure> {
    let started = Instant::now();
    let frame = cni::encode(request).map_err(|e| Failure::Garbled(e.to_string()))?;
    let mut stream = connect_within(socket, started, patience)?;
    let deadline = started + patience.total;
    let result = exchange(&mut stream, &frame, fds, deadline);
    result.map_err(|e| match e {
        Failure::Away(reason) => Failure::Away(format!("daemon at {}: {reason}", socket.display())),
        Failure::Garbled(reason) => Failure::Garbled(format!("daemon at {}: {reason}", socket.display())),
    })
}

fn connect_within(socket: &Path, started: Instant, patience: Patience) -> Result<UnixStream, Failure> {
    let away = |e: rustix::io::Errno| Failure::Away(format!("daemon at {}: {e}", socket.display()));
    let address = SocketAddrUnix::new(socket).map_err(away)?;
    loop {
        let fd = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(away)?;
        // Also bounds connect(2), which blocks while the daemon's backlog is full.
        set_socket_timeout(&fd, Timeout::Send, Some(remaining(started + patience.total)?)).map_err(away)?;
        match connect(&fd, &address) {
            Ok(()) => return Ok(UnixStream::from(fd)),
            Err(_) if started.elapsed() + CONNECT_RETRY < patience.connect => {
                std::thread::sleep(CONNECT_RETRY)
            }
            Err(e) => return Err(away(e)),
        }
    }
}

fn exchange(
    stream: &mut UnixStream,
    frame: &[u8],
    fds: Option<&PodFds>,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let away = |e: std::io::Error| Failure::Away(e.to_string());
    let sent = send_first(stream, frame, fds).map_err(|e| Failure::Away(e.to_string()))?;
    stream
        .set_write_timeout(Some(remaining(deadline)?))
        .map_err(away)?;
    stream
        .write_all(frame.get(sent..).unwrap_or_default())
        .map_err(away)?;
    let mut prefix = [0; cni::LENGTH_BYTES];
    read_exact(stream, &mut prefix, deadline)?;
    let length = cni::payload_length(prefix).map_err(|e| Failure::Garbled(e.to_string()))?;
    let mut payload = vec![0; length];
    read_exact(stream, &mut payload, deadline)?;
    cni::decode(&payload).map_err(|e| Failure::Garbled(e.to_string()))
}

/// The first piece carries the descriptors; returns how much of `frame` went with it.
fn send_first(stream: &UnixStream, frame: &[u8], fds: Option<&PodFds>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let borrowed;
    if let Some(fds) = fds {
        borrowed = [fds.netns.as_fd(), fds.netlink.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&borrowed));
    }
    sendmsg(stream, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)
}

/// Like `Read::read_exact`, but the deadline holds for all of it, not for each piece.
fn read_exact(stream: &mut UnixStream, mut buf: &mut [u8], deadline: Instant) -> Result<(), Failure> {
    while !buf.is_empty() {
        stream
            .set_read_timeout(Some(remaining(deadline)?))
            .map_err(|e| Failure::Away(e.to_string()))?;
        match stream.read(buf) {
            Ok(0) => return Err(Failure::Away("connection closed without a reply".into())),
            Ok(n) => buf = buf.get_mut(n..).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Err(late()),
            Err(e) => return Err(Failure::Away(e.to_string())),
        }
    }
    Ok(())
}

/// Never zero, which the kernel takes for "no timeout".
fn remaining(deadline: Instant) -> Result<Duration, Failure> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| *left >= Duration::from_millis(1))
        .ok_or_else(late)
}

fn late() -> Failure {
    Failure::Away("no answer in time".into())
}

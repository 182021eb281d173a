//! A netlink socket: requests with extended acknowledgements, dumps, groups of notifications.
//!
//! The kernel handles a request inside `send`, so that its answer already waits when `send` returns; no call here
//! blocks for longer than the kernel works on it, and [`RECEIVE_TIMEOUT`] bounds what should never happen.
#![expect(
    unsafe_code,
    reason = "system calls of sockets; one of the four modules that may"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::wire::{self, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Wire};

/// Bound on the wait for an answer of the kernel.
pub const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Send buffer: bounds one atomic batch. The largest measured ruleset (10,000 rules, 100,000 elements) takes 7 MB.
pub const SEND_BUFFER_BYTES: usize = 64 << 20;
/// Receive buffer: acknowledgements of one batch, notifications between two turns of the owner.
pub const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Largest datagram that the kernel sends: dumps fill 32 KiB, notifications less than 64 KiB.
const DATAGRAM_MAX: usize = 64 << 10;
/// Messages that one `send` carries when each wants its own acknowledgement, so that these fit the receive buffer.
const PIPELINE_MAX: usize = 256;
/// Repetitions of a dump that the kernel says was disturbed by a change.
const DUMP_RETRIES: usize = 8;

const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route = libc::NETLINK_ROUTE as isize,
    /// nf_tables.
    Netfilter = libc::NETLINK_NETFILTER as isize,
}

/// Why the kernel did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused, in its own words when it gave any.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// The error number.
        errno: i32,
        /// The kernel's explanation (extended acknowledgement).
        message: Option<String>,
        /// Byte offset of the attribute at fault within the request.
        offset: Option<u32>,
    },
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// Changes kept disturbing a dump.
    #[error("the kernel's state changed {DUMP_RETRIES} times while it was being read")]
    Disturbed,
    /// A descriptor that was handed to us is no netlink socket of the protocol needed.
    #[error("the descriptor is not a {0:?} netlink socket")]
    WrongSocket(Protocol),
}

impl NetlinkError {
    /// The error number, when the kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(e) => e.raw_os_error(),
            _ => None,
        }
    }
}

/// Writes one message under the sequence number that it is given.
pub(crate) type Fill = Box<dyn FnOnce(&mut Wire, u32)>;

/// An answer to one message of a batch.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) seq: u32,
    pub(crate) result: Result<(), NetlinkError>,
}

/// A netlink socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked below.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol as i32) };
        if raw < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: `raw` was just returned by the kernel and nobody else owns it.
        Self::from_fd(unsafe { OwnedFd::from_raw_fd(raw) }, protocol)
    }

    /// Takes over a socket, such as one that another process opened in another namespace. It is bound when it is not yet.
    ///
    /// # Errors
    /// [`NetlinkError::WrongSocket`] when the descriptor is something else; `Socket` when it cannot be set up.
    pub fn from_fd(fd: OwnedFd, protocol: Protocol) -> Result<Self, NetlinkError> {
        let raw = fd.as_raw_fd();
        let is = |name| get_int(raw, libc::SOL_SOCKET, name).ok();
        if is(libc::SO_DOMAIN) != Some(libc::AF_NETLINK) || is(libc::SO_PROTOCOL) != Some(protocol as i32) {
            return Err(NetlinkError::WrongSocket(protocol));
        }
        let mut port = bound_port(raw)?;
        if port == 0 {
            bind(raw)?;
            port = bound_port(raw)?;
        }
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_int(raw, libc::SOL_NETLINK, option, 1)?;
        }
        if protocol == Protocol::Route {
            set_int(raw, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)?;
        }
        for (force, plain, bytes) in [
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES),
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES),
        ] {
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            // Without CAP_NET_ADMIN over the first namespace (a container) only the smaller buffer is to be had.
            if set_int(raw, libc::SOL_SOCKET, force, bytes).is_err() {
                set_int(raw, libc::SOL_SOCKET, plain, bytes)?;
            }
        }
        set_timeout(raw, RECEIVE_TIMEOUT)?;
        Ok(Self {
            fd,
            seq: 1,
            port,
            buffer: vec![0; DATAGRAM_MAX],
        })
    }

    /// The number by which notifications name the changes made through this socket.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Subscribes to a group of notifications.
    ///
    /// # Errors
    /// When the kernel knows no such group.
    pub fn join(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).unwrap_or(i32::MAX);
        set_int(
            self.fd.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group,
        )
    }

    /// A sequence number for the next message, never 0.
    pub(crate) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Sets sequence numbers aside for a batch that was numbered by its encoder.
    pub(crate) fn skip_seq(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // Starting over near the end keeps the numbers of one batch in a row.
        self.seq = self
            .seq
            .checked_add(count)
            .filter(|s| *s < u32::MAX / 2)
            .unwrap_or(1);
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        fill: impl FnOnce(&mut Wire),
    ) -> Result<(), NetlinkError> {
        let mut wire = Wire::default();
        let seq = self.next_seq();
        let open = wire.message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, seq, body);
        fill(&mut wire);
        wire.end_message(open);
        self.send(wire.as_bytes())?;
        loop {
            for answer in self.receive(Wait::Yes)? {
                if answer.seq == seq {
                    return answer.result;
                }
            }
        }
    }

    /// Asks one question and calls `each` for every message before the acknowledgement.
    pub(crate) fn query<T: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        fill: impl FnOnce(&mut Wire),
        mut each: impl FnMut(&mut T, Message<'_>),
    ) -> Result<T, NetlinkError> {
        let mut wire = Wire::default();
        let seq = self.next_seq();
        let open = wire.message(kind, NLM_F_REQUEST | NLM_F_ACK, seq, body);
        fill(&mut wire);
        wire.end_message(open);
        self.send(wire.as_bytes())?;
        let mut out = T::default();
        self.dump_answer(seq, &mut out, &mut each)?;
        Ok(out)
    }

    /// Sends messages that each want an acknowledgement, pipelined; results in the order of the messages.
    pub(crate) fn pipeline(&mut self, build: Vec<Fill>) -> Result<Vec<Answer>, NetlinkError> {
        let mut results = Vec::with_capacity(build.len());
        let mut build = build.into_iter().peekable();
        while build.peek().is_some() {
            let mut wire = Wire::default();
            let mut waiting = std::collections::BTreeMap::new();
            for one in build.by_ref().take(PIPELINE_MAX) {
                let seq = self.next_seq();
                one(&mut wire, seq);
                waiting.insert(seq, results.len());
                results.push(Answer { seq, result: Ok(()) });
            }
            self.send(wire.as_bytes())?;
            while !waiting.is_empty() {
                for answer in self.receive(Wait::Yes)? {
                    if let Some(slot) = waiting.remove(&answer.seq).and_then(|i| results.get_mut(i)) {
                        *slot = answer;
                    }
                }
            }
        }
        Ok(results)
    }

    /// Dumps: calls `each` for every message of the answer. A disturbed dump starts again with `reset`.
    pub(crate) fn dump<T: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        fill: impl Fn(&mut Wire),
        mut each: impl FnMut(&mut T, Message<'_>),
    ) -> Result<T, NetlinkError> {
        for _ in 0..DUMP_RETRIES {
            let mut wire = Wire::default();
            let seq = self.next_seq();
            let open = wire.message(kind, NLM_F_REQUEST | NLM_F_DUMP, seq, body);
            fill(&mut wire);
            wire.end_message(open);
            self.send(wire.as_bytes())?;
            let mut out = T::default();
            if self.dump_answer(seq, &mut out, &mut each)? == Dump::Whole {
                return Ok(out);
            }
        }
        Err(NetlinkError::Disturbed)
    }

    fn dump_answer<T>(
        &mut self,
        seq: u32,
        out: &mut T,
        each: &mut impl FnMut(&mut T, Message<'_>),
    ) -> Result<Dump, NetlinkError> {
        let mut state = Dump::Whole;
        loop {
            let Some(len) = self.datagram(Wait::Yes)? else {
                continue;
            };
            let bytes = self.buffer.get(..len).unwrap_or_default();
            for message in wire::messages(bytes).filter(|m| m.seq == seq) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    state = Dump::Disturbed;
                }
                match message.kind {
                    NLMSG_DONE => return dump_end(&message).map(|()| state),
                    NLMSG_ERROR => match answer(&message).result {
                        Ok(()) => return Ok(state),
                        // nf_tables says EINTR where rtnetlink sets a flag.
                        Err(e) if e.errno() == Some(libc::EINTR) => return Ok(Dump::Disturbed),
                        Err(e) => return Err(e),
                    },
                    _ => each(out, message),
                }
            }
        }
    }

    /// Sends a whole nf_tables batch and gathers all that the kernel says to it: answers with errors, and one
    /// without for the message that asked for an acknowledgement.
    pub(crate) fn batch(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, NetlinkError> {
        self.send(bytes)?;
        let mut answers = Vec::new();
        loop {
            let more = self.receive(Wait::No)?;
            if more.is_empty() {
                return Ok(answers);
            }
            answers.extend(more);
        }
    }

    /// Takes one datagram of notifications, if one waits. `Err` with `ENOBUFS` means that some were lost.
    pub(crate) fn notifications(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<bool, NetlinkError> {
        let Some(len) = self.datagram(Wait::No)? else {
            return Ok(false);
        };
        wire::messages(self.buffer.get(..len).unwrap_or_default()).for_each(&mut each);
        Ok(true)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: the pointer and length are those of a live slice; the kernel only reads it.
            let n = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            match usize::try_from(n) {
                Ok(n) if n == bytes.len() => return Ok(()),
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::WriteZero,
                        "short write of a netlink message",
                    ));
                }
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
    }

    /// Acknowledgements of one datagram.
    fn receive(&mut self, wait: Wait) -> Result<Vec<Answer>, NetlinkError> {
        let Some(len) = self.datagram(wait)? else {
            return Ok(Vec::new());
        };
        let bytes = self.buffer.get(..len).unwrap_or_default();
        Ok(wire::messages(bytes)
            .filter(|m| m.kind == NLMSG_ERROR)
            .map(|m| answer(&m))
            .collect())
    }

    /// One datagram of the kernel into the buffer. `None`: nothing waits, or it was not from the kernel.
    fn datagram(&mut self, wait: Wait) -> io::Result<Option<usize>> {
        let flags = if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
        loop {
            // SAFETY: `sockaddr_nl` is plain data, for which all zero bytes is a value.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut from_len = size_u32::<libc::sockaddr_nl>();
            // SAFETY: buffer and address are live and exclusively borrowed, their lengths are their own.
            let n = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    flags,
                    (&raw mut from).cast(),
                    &raw mut from_len,
                )
            };
            match usize::try_from(n) {
                Ok(n) if from.nl_pid == 0 => return Ok(Some(n)),
                Ok(_) => {} // another process wrote to our port: not the kernel's word
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e if e.kind() == io::ErrorKind::WouldBlock && wait == Wait::No => return Ok(None),
                    e => return Err(e),
                },
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dump {
    Whole,
    Disturbed,
}

/// Waits until one of the descriptors can be read, or the time is over. Returns for each whether it can.
///
/// # Errors
/// When the kernel refuses to wait.
pub(crate) fn poll_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Duration,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and count are those of a live array.
    let n = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, millis) };
    if n < 0 {
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => return Ok([false; N]),
            e => return Err(e),
        }
    }
    Ok(polled.map(|p| p.revents != 0))
}

/// The end of a dump may carry an error in place of a count.
fn dump_end(message: &Message<'_>) -> Result<(), NetlinkError> {
    match wire::u32_at(message.payload, 0).map(u32::cast_signed) {
        Some(code) if code < 0 => {
            let tlvs = message.payload.get(4..).unwrap_or_default();
            let message = wire::find(tlvs, NLMSGERR_ATTR_MSG).map(wire::text);
            Err(NetlinkError::Refused {
                errno: -code,
                message,
                offset: None,
            })
        }
        _ => Ok(()),
    }
}

fn answer(message: &Message<'_>) -> Answer {
    let code = wire::u32_at(message.payload, 0).map_or(-libc::EPROTO, u32::cast_signed);
    if code == 0 {
        return Answer {
            seq: message.seq,
            result: Ok(()),
        };
    }
    let mut tlvs: &[u8] = &[];
    if message.flags & NLM_F_ACK_TLVS != 0 {
        // Behind the code stands the header of the request, and all of it unless the answer is capped.
        let len = wire::u32_at(message.payload, 4).unwrap_or_default() as usize;
        let skip = if message.flags & NLM_F_CAPPED == 0 {
            len.next_multiple_of(4)
        } else {
            wire::HEADER_LEN
        };
        tlvs = message.payload.get(4 + skip..).unwrap_or_default();
    }
    let result = Err(NetlinkError::Refused {
        errno: -code,
        message: wire::find(tlvs, NLMSGERR_ATTR_MSG).map(wire::text),
        offset: wire::find(tlvs, NLMSGERR_ATTR_OFFS).and_then(|p| wire::u32_at(p, 0)),
    });
    Answer {
        seq: message.seq,
        result,
    }
}

fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn bind(fd: i32) -> io::Result<()> {
    // SAFETY: `sockaddr_nl` is plain data, for which all zero bytes is a value (let the kernel choose a port).
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    // SAFETY: the address is live for the call and its length is its own.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), size_u32::<libc::sockaddr_nl>()) })
}

fn bound_port(fd: i32) -> io::Result<u32> {
    // SAFETY: as in `bind`.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut len = size_u32::<libc::sockaddr_nl>();
    // SAFETY: both are live, exclusively borrowed, and the length is the address's own.
    check(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) })?;
    Ok(address.nl_pid)
}

fn get_int(fd: i32, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut len = size_u32::<i32>();
    // SAFETY: both are live, exclusively borrowed, and the length is the value's own.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

fn set_int(fd: i32, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is live for the call and the length is its own.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_u32::<i32>()) })
}

fn set_timeout(fd: i32, timeout: Duration) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(timeout.subsec_micros()),
    };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
    // SAFETY: the value is live for the call and the length is its own.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_u32::<libc::timeval>(),
        )
    })
}

//! One connection of a peer task: octets in both directions, kept here and not in futures, so that every wait can be dropped.

use super::hosts::Place;
use crate::config::PeerConfig;
use crate::fsm::ConnId;
use crate::link;
use bytes::{Buf, Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Octets of one read: few system calls under load. Lives once a thread, not once a connection.
const READ_OCTETS: usize = 256 * 1024;
/// Slices of one write.
const WRITE_SLICES: usize = 64;
/// How long a closing connection may take to get its last words out and the peer's end in.
const LINGER: Duration = Duration::from_secs(2);
/// An inbox that grew beyond this is given back when it is empty.
const INBOX_KEPT: usize = 4096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_OCTETS]);
}

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum State {
    Dialling(Dial),
    Open(TcpStream),
    /// Last words, then the end of our side, then the peer's.
    Closing(TcpStream, Instant),
}

/// A connection, or an attempt.
pub(super) struct Link {
    pub(super) id: ConnId,
    state: State,
    pub(super) inbox: BytesMut,
    outbox: VecDeque<Outgoing>,
    end_sent: bool,
    /// Its place among its host's, while it carries no session.
    place: Option<Place>,
}

struct Outgoing {
    octets: Bytes,
    /// The last of a batch of this session: the speaker wants to know.
    batch_of: Option<u32>,
}

/// Where a connection ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// Our port and the peer's.
    pub(super) ports: (u16, u16),
    /// The peer's address; a link-local one with its link.
    pub(super) remote: Option<IpAddr>,
}

/// What a link may do about octets that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Say that there are some.
    Ask,
    /// Nothing: it has been said already.
    Wait,
    /// Read them.
    Take,
}

/// What happened to a link.
#[derive(Debug)]
pub(super) enum Happened {
    /// The dial succeeded; our address.
    Connected(IpAddr),
    /// There is something to read.
    Readable,
    /// There was nothing to read after all, on no link.
    Unreadable,
    /// The inbox has grown.
    Read,
    /// Octets were taken; the batches of these sessions are through.
    Wrote { drained: bool, batches: Vec<u32> },
    /// It is over.
    Closed(String),
    /// It was closing, and is now gone.
    Gone,
}

impl Link {
    pub(super) fn dialling(id: ConnId, config: PeerConfig, neighbour: Option<Ipv6Addr>) -> Self {
        Self::new(
            id,
            State::Dialling(Box::pin(
                async move { super::dial::dial(&config, neighbour).await },
            )),
            None,
        )
    }

    pub(super) fn open(id: ConnId, stream: TcpStream, place: Place) -> Self {
        Self::new(id, State::Open(stream), Some(place))
    }

    /// It carries a session.
    pub(super) fn established(&mut self) {
        self.place = None;
    }

    fn new(id: ConnId, state: State, place: Option<Place>) -> Self {
        Self {
            id,
            state,
            inbox: BytesMut::new(),
            outbox: VecDeque::new(),
            end_sent: false,
            place,
        }
    }

    pub(super) fn queue(&mut self, octets: Bytes, batch_of: Option<u32>) {
        self.outbox.push_back(Outgoing { octets, batch_of });
    }

    /// Writes what waits, then ends. A dial is given up.
    pub(super) fn close(&mut self, now: Instant) -> bool {
        let dialling = State::Dialling(Box::pin(std::future::pending()));
        match std::mem::replace(&mut self.state, dialling) {
            State::Dialling(_) => return true,
            State::Open(stream) => self.state = State::Closing(stream, now + LINGER),
            closing @ State::Closing(..) => self.state = closing,
        }
        false
    }

    pub(super) const fn closing_until(&self) -> Option<Instant> {
        match &self.state {
            State::Closing(_, until) => Some(*until),
            _ => None,
        }
    }

    /// What has happened, if anything.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reading: Reading) -> Poll<Happened> {
        match &mut self.state {
            State::Dialling(dial) => match ready!(dial.as_mut().poll(cx)) {
                Ok(stream) => {
                    let local = super::dial::local_address(&stream);
                    self.state = State::Open(stream);
                    Poll::Ready(local.map_or_else(|e| Happened::Closed(e.to_string()), Happened::Connected))
                }
                Err(error) => Poll::Ready(Happened::Closed(error.to_string())),
            },
            State::Open(_) => {
                if !self.outbox.is_empty()
                    && let Poll::Ready(wrote) = self.write(cx)
                {
                    return Poll::Ready(wrote);
                }
                match reading {
                    Reading::Take => self.read(cx),
                    Reading::Ask => self.read_ready(cx),
                    Reading::Wait => Poll::Pending,
                }
            }
            State::Closing(..) => self.poll_close(cx),
        }
    }

    /// Puts the peer's present MD5 key on the socket; a dial goes on with the old one and is tried again.
    pub(super) fn rekey(&self, config: &PeerConfig) -> io::Result<()> {
        match &self.state {
            State::Dialling(_) => Ok(()),
            State::Open(stream) | State::Closing(stream, _) => {
                let Some(host) = config.host() else { return Ok(()) };
                super::sockopt::set_md5_key(stream.as_fd(), host.into(), config.password.as_ref())
            }
        }
    }

    /// Where the connection ends; nothing when it has gone.
    pub(super) fn ends(&self) -> Ends {
        let (State::Open(stream) | State::Closing(stream, _)) = &self.state else {
            return Ends::default();
        };
        let peer = stream.peer_addr().ok();
        Ends {
            ports: (
                stream.local_addr().map_or(0, |a| a.port()),
                peer.map_or(0, |a| a.port()),
            ),
            remote: peer.map(|a| match a {
                SocketAddr::V6(v6) => link::scoped(*v6.ip(), v6.scope_id()).to_canonical(),
                SocketAddr::V4(v4) => IpAddr::V4(*v4.ip()),
            }),
        }
    }

    fn stream(&mut self) -> Option<&mut TcpStream> {
        match &mut self.state {
            State::Dialling(_) => None,
            State::Open(stream) | State::Closing(stream, _) => Some(stream),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let filled = slices
            .iter_mut()
            .zip(&self.outbox)
            .map(|(s, o)| *s = IoSlice::new(&o.octets))
            .count();
        let (State::Open(stream) | State::Closing(stream, _)) = &mut self.state else {
            return Poll::Pending;
        };
        let written = pin!(stream).poll_write_vectored(cx, slices.get(..filled).unwrap_or_default());
        match ready!(written) {
            Ok(written) => {
                let batches = self.advance(written);
                Poll::Ready(Happened::Wrote {
                    drained: self.outbox.is_empty(),
                    batches,
                })
            }
            Err(error) => Poll::Ready(Happened::Closed(error.to_string())),
        }
    }

    fn advance(&mut self, mut written: usize) -> Vec<u32> {
        let mut batches = Vec::new();
        while let Some(first) = self.outbox.front_mut() {
            if first.octets.len() > written {
                first.octets.advance(written);
                break;
            }
            written -= first.octets.len();
            batches.extend(first.batch_of);
            self.outbox.pop_front();
        }
        batches
    }

    fn read_ready(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let (State::Open(stream) | State::Closing(stream, _)) = &mut self.state else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(stream.poll_read_ready(cx)) {
            Ok(()) => Happened::Readable,
            Err(error) => Happened::Closed(error.to_string()),
        })
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let inbox = &mut self.inbox;
        let (State::Open(stream) | State::Closing(stream, _)) = &mut self.state else {
            return Poll::Pending;
        };
        loop {
            if let Err(error) = ready!(stream.poll_read_ready(cx)) {
                return Poll::Ready(Happened::Closed(error.to_string()));
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = stream.try_read(scratch);
                if let Ok(n) = read {
                    inbox.extend_from_slice(scratch.get(..n).unwrap_or_default());
                }
                read
            });
            return Poll::Ready(match read {
                Ok(0) => Happened::Closed("closed by the peer".into()),
                Ok(_) => Happened::Read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => Happened::Closed(error.to_string()),
            });
        }
    }

    /// Last words out, our end said, the peer's octets read and dropped: closing with octets unread would reset the
    /// connection and might destroy what we said.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        while !self.outbox.is_empty() {
            if let Happened::Closed(_) = ready!(self.write(cx)) {
                return Poll::Ready(Happened::Gone);
            }
        }
        if !self.end_sent {
            if let Some(stream) = self.stream()
                && ready!(pin!(stream).poll_shutdown(cx)).is_err()
            {
                return Poll::Ready(Happened::Gone);
            }
            self.end_sent = true;
        }
        while let Happened::Read = ready!(self.read(cx)) {
            self.inbox.clear();
        }
        Poll::Ready(Happened::Gone)
    }

    /// Gives back an inbox that is empty.
    pub(super) fn trim(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > INBOX_KEPT {
            self.inbox = BytesMut::new();
        }
    }
}

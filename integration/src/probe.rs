//! Probes from inside namespaces: ICMP, TCP and UDP, many at once; a counted stream of pings; a flow that is held open.
//!
//! A socket belongs to the namespace it was made in, so one process serves and asks everywhere: threads enter a namespace, make
//! their sockets there and end.

use crate::netns;
use anyhow::{Context, Result, anyhow, ensure};
use rand::Rng;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The TCP and UDP port that every endpoint serves.
pub const PORT: u16 = 8080;
/// How long a probe waits: longer than one retransmission of a SYN (1 s), so that one lost packet is not a verdict.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Echo requests of one ICMP probe, spread over its timeout.
const PINGS: u16 = 3;
/// How often a server's thread looks whether it should end.
const SERVER_TICK: Duration = Duration::from_millis(200);
/// Connections that one server keeps at a time; the lab's probes are far fewer.
const CONNECTIONS_MAX: usize = 256;

/// Somebody who can be asked and can ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its name for people.
    pub name: String,
    /// The network namespace.
    pub netns: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Echo request with a fresh id.
    Icmp,
    /// A new connection, a message and its echo.
    Tcp,
    /// A datagram and its echo.
    Udp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One probe that is to be made.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who asks.
    pub from: Endpoint,
    /// Who is asked.
    pub to: Endpoint,
    /// How.
    pub kind: Kind,
}

/// What came of a probe.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The probe.
    pub probe: Probe,
    /// Time to the echo, or why there was none.
    pub echo: Result<Duration, String>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { from, to, kind } = &self.probe;
        write!(f, "{} -> {} {kind}: ", from.name, to.name)?;
        match &self.echo {
            Ok(time) => write!(f, "echo after {:.1} ms", time.as_secs_f64() * 1e3),
            Err(why) => f.write_str(why),
        }
    }
}

/// Makes all probes at the same time; the whole pass takes about as long as its slowest probe.
///
/// # Errors
/// When a namespace cannot be entered. A probe without an echo is not an error.
pub fn run(probes: &[Probe]) -> Result<Vec<Seen>> {
    thread::scope(|scope| {
        let ask = |probe: &Probe| -> Result<Seen> {
            let started = Instant::now();
            let asked = netns::within(&probe.from.netns, || match probe.kind {
                Kind::Icmp => icmp(probe.to.address),
                Kind::Tcp => tcp(probe.to.address),
                Kind::Udp => udp(probe.to.address),
            })?;
            let echo = asked.map(|()| started.elapsed()).map_err(|e| format!("{e:#}"));
            Ok(Seen {
                probe: probe.clone(),
                echo,
            })
        };
        let threads: Vec<_> = probes
            .iter()
            .map(|probe| scope.spawn(move || ask(probe)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().map_err(|_| anyhow!("a probe panicked"))?)
            .collect()
    })
}

/// All probes of the given kinds between all endpoints.
#[must_use]
pub fn full_mesh(endpoints: &[Endpoint], kinds: &[Kind]) -> Vec<Probe> {
    let mut probes = Vec::new();
    for from in endpoints {
        for to in endpoints.iter().filter(|to| *to != from) {
            probes.extend(kinds.iter().map(|&kind| Probe {
                from: from.clone(),
                to: to.clone(),
                kind,
            }));
        }
    }
    probes
}

fn tcp(to: Ipv4Addr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), PROBE_TIMEOUT)?;
    echo(&mut stream, PROBE_TIMEOUT)
}

fn echo(stream: &mut TcpStream, timeout: Duration) -> Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    let sent: [u8; 8] = rand::rng().random();
    stream.write_all(&sent)?;
    let mut got = [0; 8];
    stream.read_exact(&mut got)?;
    ensure!(sent == got, "the echo differs from what was sent");
    Ok(())
}

fn udp(to: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, PORT))?;
    socket.set_read_timeout(Some(PROBE_TIMEOUT))?;
    let sent: [u8; 8] = rand::rng().random();
    socket.send(&sent)?;
    let mut got = [0; 8];
    ensure!(
        socket.recv(&mut got)? == 8 && sent == got,
        "the echo differs from what was sent"
    );
    Ok(())
}

fn icmp(to: Ipv4Addr) -> Result<()> {
    let pinger = Pinger::open(to)?;
    for sequence in 0..PINGS {
        // A closed door may answer with an error on the socket; the next echo may still come.
        let _ = pinger.send(sequence);
        let end = Instant::now() + PROBE_TIMEOUT / u32::from(PINGS);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if pinger.receive(left)?.is_some() {
                return Ok(());
            }
        }
    }
    Err(anyhow!("no echo reply"))
}

/// A raw socket that sends echo requests with one id to one address (RFC 792).
struct Pinger {
    socket: Socket,
    to: Ipv4Addr,
    id: [u8; 2],
}

impl Pinger {
    fn open(to: Ipv4Addr) -> Result<Self> {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("opening a raw socket")?;
        Ok(Self {
            socket,
            to,
            id: rand::rng().random(),
        })
    }

    fn send(&self, sequence: u16) -> Result<()> {
        let [s0, s1] = sequence.to_be_bytes();
        let mut packet = [
            8, 0, 0, 0, self.id[0], self.id[1], s0, s1, b't', b'w', b'i', b'l', b'l', b'l', b'a', b'b',
        ];
        let [c0, c1] = checksum(&packet).to_be_bytes();
        (packet[2], packet[3]) = (c0, c1);
        self.socket
            .send_to(&packet, &SocketAddr::from((self.to, 0)).into())?;
        Ok(())
    }

    /// Waits for one packet: the sequence number when it is an echo reply to us, none when it is something else or the time is up.
    fn receive(&self, timeout: Duration) -> Result<Option<u16>> {
        self.socket
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        let mut buffer = [0_u8; 256];
        let read = match (&self.socket).read(&mut buffer) {
            Ok(read) => read,
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e).context("reading echo replies"),
        };
        Ok(buffer
            .get(..read)
            .and_then(|packet| reply(packet, self.to, self.id)))
    }
}

/// The sequence number of an IPv4 packet that is an echo reply from `from` with `id`.
fn reply(packet: &[u8], from: Ipv4Addr, id: [u8; 2]) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if packet.get(12..16)? != from.octets() {
        return None;
    }
    match packet.get(header..)? {
        [0, 0, _, _, i0, i1, s0, s1, ..] if [*i0, *i1] == id => Some(u16::from_be_bytes([*s0, *s1])),
        _ => None,
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | c.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Open connections and their threads.
type Connections = Arc<Mutex<Vec<(TcpStream, JoinHandle<()>)>>>;

/// Serves echoes on TCP and UDP port [`PORT`] of an endpoint's address until it is dropped. Two threads, and one for each open connection.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    listener: Socket,
    threads: Vec<JoinHandle<()>>,
    connections: Connections,
}

impl Server {
    /// Starts serving inside the endpoint's namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the port is taken.
    pub fn start(endpoint: &Endpoint) -> Result<Self> {
        let (listener, udp) = netns::within(&endpoint.netns, || -> Result<(TcpListener, UdpSocket)> {
            // Its own address: an answer must come from where the question went.
            let own = SocketAddr::from((endpoint.address, PORT));
            Ok((TcpListener::bind(own)?, UdpSocket::bind(own)?))
        })?
        .with_context(|| format!("serving port {PORT} at {}", endpoint.name))?;
        udp.set_read_timeout(Some(SERVER_TICK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::default();
        let handle = Socket::from(listener.try_clone()?);
        let threads = vec![
            thread::spawn({
                let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
                move || accept(&listener, &stop, &connections)
            }),
            thread::spawn({
                let stop = Arc::clone(&stop);
                move || serve_udp(&udp, &stop)
            }),
        ];
        Ok(Self {
            stop,
            listener: handle,
            threads,
            connections,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread in accept.
        let _ = self.listener.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for (stream, thread) in connections.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, connections: &Connections) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut open = connections.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, thread)| !thread.is_finished());
        let Ok(handle) = stream.try_clone() else { continue };
        if open.len() < CONNECTIONS_MAX {
            open.push((handle, thread::spawn(move || serve_tcp(&mut stream))));
        }
    }
}

fn serve_tcp(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if buffer
            .get(..read)
            .is_none_or(|bytes| stream.write_all(bytes).is_err())
        {
            return;
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((read, from)) = socket.recv_from(&mut buffer)
            && let Some(bytes) = buffer.get(..read)
        {
            // A peer that is gone meanwhile loses its echo.
            let _ = socket.send_to(bytes, from);
        }
    }
}

/// A TCP connection that was made once and is used again later.
#[derive(Debug)]
pub struct Flow {
    stream: TcpStream,
}

impl Flow {
    /// Connects and exchanges a first message.
    ///
    /// # Errors
    /// When there is no echo.
    pub fn open(from: &Endpoint, to: &Endpoint) -> Result<Self> {
        let address = SocketAddr::from((to.address, PORT));
        let stream = netns::within(&from.netns, || {
            TcpStream::connect_timeout(&address, PROBE_TIMEOUT)
        })?
        .with_context(|| format!("connecting {} to {}", from.name, to.name))?;
        let mut flow = Self { stream };
        flow.exchange()?;
        Ok(flow)
    }

    /// Sends a message on the open connection and waits for its echo.
    ///
    /// # Errors
    /// When there is no echo.
    pub fn exchange(&mut self) -> Result<()> {
        echo(&mut self.stream, PROBE_TIMEOUT).context("the established flow does not go on")
    }
}

/// Pings at a steady rate, each counted.
#[derive(Debug)]
pub struct Stream {
    /// Who pings whom.
    pub name: String,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u16>>,
    receiver: JoinHandle<Result<Vec<bool>>>,
}

/// What a stream counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Echo requests that left.
    pub sent: usize,
    /// Sequence numbers without a reply.
    pub lost: Vec<usize>,
}

/// How long replies may still come after the last request.
const STREAM_GRACE: Duration = Duration::from_secs(2);

impl Stream {
    /// Starts `rate` pings a second; at most 65535 in all.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &Endpoint, to: &Endpoint, rate: u32) -> Result<Self> {
        let name = format!("{} -> {}", from.name, to.name);
        let address = to.address;
        let pinger = netns::within(&from.netns, || Pinger::open(address))??;
        // Replies wait here while this process gets no CPU.
        pinger.socket.set_recv_buffer_size(1 << 20)?;
        let (pinger, stop) = (Arc::new(pinger), Arc::new(AtomicBool::new(false)));
        let sender = thread::spawn({
            let (pinger, stop) = (Arc::clone(&pinger), Arc::clone(&stop));
            move || send_steadily(&pinger, &stop, rate)
        });
        let receiver = thread::spawn({
            let stop = Arc::clone(&stop);
            move || collect(&pinger, &stop)
        });
        Ok(Self {
            name,
            stop,
            sender,
            receiver,
        })
    }

    /// Ends the stream; how many requests it sent, every one of which was answered.
    ///
    /// # Errors
    /// When one was not, or could not be sent at all.
    pub fn finish_whole(self) -> Result<usize> {
        let name = self.name.clone();
        let count = self.finish()?;
        ensure!(
            count.lost.is_empty(),
            "{name}: {} of {} pings lost, from number {:?}",
            count.lost.len(),
            count.sent,
            count.lost.first()
        );
        Ok(count.sent)
    }

    /// Ends the stream and counts.
    ///
    /// # Errors
    /// When a request could not be sent at all.
    pub fn finish(self) -> Result<Count> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let seen = self
            .receiver
            .join()
            .map_err(|_| anyhow!("the receiver panicked"))??;
        let sent = usize::from(sent.with_context(|| format!("pinging {}", self.name))?);
        let lost = (0..sent)
            .filter(|&i| !seen.get(i).copied().unwrap_or(false))
            .collect();
        Ok(Count { sent, lost })
    }
}

fn send_steadily(pinger: &Pinger, stop: &AtomicBool, rate: u32) -> Result<u16> {
    let started = Instant::now();
    let mut sent = 0_u16;
    while !stop.load(Ordering::Relaxed) && sent < u16::MAX {
        let due = started + Duration::from_secs(1) / rate * u32::from(sent);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        pinger.send(sent)?;
        sent += 1;
    }
    Ok(sent)
}

fn collect(pinger: &Pinger, stop: &AtomicBool) -> Result<Vec<bool>> {
    let mut seen = Vec::new();
    let mut quiet_since = None;
    loop {
        if let Some(sequence) = pinger.receive(SERVER_TICK)? {
            let index = usize::from(sequence);
            if seen.len() <= index {
                seen.resize(index + 1, false);
            }
            if let Some(slot) = seen.get_mut(index) {
                *slot = true;
            }
        }
        if stop.load(Ordering::Relaxed)
            && quiet_since.get_or_insert_with(Instant::now).elapsed() > STREAM_GRACE
        {
            return Ok(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_echo_reply_with_our_id_from_the_right_address_counts() {
        let from = Ipv4Addr::new(10, 0, 0, 1);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 0, 0, 0, 7, 7, 1, 2]);
        assert_eq!(reply(&packet, from, [7, 7]), Some(0x0102));
        assert_eq!(reply(&packet, from, [7, 8]), None);
        assert_eq!(reply(&packet, Ipv4Addr::new(10, 0, 0, 3), [7, 7]), None);
        packet[20] = 8;
        assert_eq!(reply(&packet, from, [7, 7]), None);
        assert_eq!(reply(&packet[..21], from, [7, 7]), None);
    }

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let mut packet = [8, 0, 0, 0, 0x12, 0x34, 0, 1, b'x', b'y'];
        let [c0, c1] = checksum(&packet).to_be_bytes();
        (packet[2], packet[3]) = (c0, c1);
        assert_eq!(checksum(&packet), 0);
    }
}

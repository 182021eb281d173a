//! A daemon that does no BGP work: it copies every UPDATE to every other peer.
//! Running the bench against it shows the bench's own ceiling.

use crate::conn::Conn;
use crate::wire;
use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::net::{SocketAddrV4, TcpListener};
use std::sync::Arc;

const LISTENER: u64 = u64::MAX;

pub(crate) fn run(listen: SocketAddrV4, asn: u32) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let n = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..n] {
            if event.data() == LISTENER {
                let (stream, _) = listener.accept()?;
                let mut conn = Conn::new(stream)?;
                conn.queue(wire::open(asn, 180, *listen.ip()).into());
                conn.flush()?;
                let interest = EpollEvent::new(EpollFlags::EPOLLIN, conns.len() as u64);
                epoll.add(&conn.stream, interest)?;
                conns.push(Some(conn));
                continue;
            }
            let from = event.data() as usize;
            let mut updates = Vec::new();
            let mut greet = false;
            let Some(conn) = conns[from].as_mut() else {
                continue;
            };
            let mut result = Ok(());
            if event
                .events()
                .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP)
            {
                result = conn.receive(|kind, msg| match kind {
                    wire::UPDATE => updates.extend_from_slice(msg),
                    wire::OPEN => greet = true,
                    _ => {}
                });
            }
            if greet {
                conn.queue(wire::keepalive().into());
            }
            if result.and_then(|()| conn.flush()).is_err() {
                epoll.delete(&conn.stream)?;
                conns[from] = None;
                continue;
            }
            arm(&epoll, conn, from)?;
            if updates.is_empty() {
                continue;
            }
            let shared: Arc<[u8]> = updates.into();
            for (to, slot) in conns.iter_mut().enumerate() {
                let Some(conn) = slot else { continue };
                if to == from {
                    continue;
                }
                conn.queue(shared.clone());
                if conn.flush().is_err() {
                    epoll.delete(&conn.stream)?;
                    *slot = None;
                } else {
                    arm(&epoll, conn, to)?;
                }
            }
        }
    }
}

fn arm(epoll: &Epoll, conn: &Conn, index: usize) -> nix::Result<()> {
    let mut flags = EpollFlags::EPOLLIN;
    flags.set(EpollFlags::EPOLLOUT, !conn.drained());
    epoll.modify(&conn.stream, &mut EpollEvent::new(flags, index as u64))
}

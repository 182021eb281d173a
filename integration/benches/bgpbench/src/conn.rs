//! One non-blocking BGP connection: framing in, queued bytes out.

use crate::wire;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

const RX_BUFFER: usize = 128 * 1024;
/// Bytes one `flush` writes at most, so that all senders advance together.
const WRITE_QUANTUM: usize = 128 * 1024;

pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    rx: Vec<u8>,
    filled: usize,
    tx: VecDeque<(Arc<[u8]>, usize)>,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Conn {
            stream,
            rx: vec![0; RX_BUFFER],
            filled: 0,
            tx: VecDeque::new(),
        })
    }

    pub(crate) fn queue(&mut self, bytes: Arc<[u8]>) {
        self.tx.push_back((bytes, 0));
    }

    pub(crate) fn drained(&self) -> bool {
        self.tx.is_empty()
    }

    /// Writes what the socket takes, up to one quantum.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut budget = WRITE_QUANTUM;
        while let Some((bytes, at)) = self.tx.front_mut() {
            if budget == 0 {
                return Ok(());
            }
            let end = bytes.len().min(*at + budget);
            match self.stream.write(&bytes[*at..end]) {
                Ok(n) => {
                    *at += n;
                    budget -= n;
                    if *at == bytes.len() {
                        self.tx.pop_front();
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads once and hands over every whole message: its type and all its bytes.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(u8, &[u8])) -> io::Result<()> {
        match self.stream.read(&mut self.rx[self.filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.filled += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        let mut at = 0;
        while let Some((len, kind)) = wire::header(&self.rx[at..self.filled]) {
            if !(wire::HEADER_LEN..=wire::MAX_MSG).contains(&len) {
                return Err(io::Error::new(ErrorKind::InvalidData, "bad message length"));
            }
            if at + len > self.filled {
                break;
            }
            each(kind, &self.rx[at..at + len]);
            at += len;
        }
        self.rx.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

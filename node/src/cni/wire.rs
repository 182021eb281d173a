//! A frame with descriptors, off and onto a socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use twill_proto::cni::{self, Reply, Request};

/// Descriptors that one request may bring: the namespace and a netlink socket inside it.
const FDS_MAX: usize = 2;
/// The first read; most requests fit.
const FIRST_BYTES: usize = 16 * 1024;

/// One request.
pub(super) struct Received {
    pub(super) request: Request,
    pub(super) fds: Vec<OwnedFd>,
}

/// Reads one frame. The caller brings the deadline.
pub(super) async fn receive(stream: &mut UnixStream) -> Result<Received> {
    let mut bytes = vec![0; FIRST_BYTES];
    let (got, fds) = stream
        .async_io(Interest::READABLE, || {
            first_read(stream, &mut bytes).map_err(std::io::Error::from)
        })
        .await
        .context("receiving a request")?;
    bytes.truncate(got);
    while bytes.len() < cni::LENGTH_BYTES {
        if stream.read_buf(&mut bytes).await? == 0 {
            bail!("connection closed within a request");
        }
    }
    let prefix = bytes.first_chunk().context("four bytes are there")?;
    let end = cni::LENGTH_BYTES + cni::payload_length(*prefix)?;
    if bytes.len() > end {
        bail!("{} bytes follow the request", bytes.len() - end);
    }
    let had = bytes.len();
    bytes.resize(end, 0);
    stream
        .read_exact(bytes.get_mut(had..).unwrap_or_default())
        .await
        .context("receiving a request")?;
    let request = cni::decode(bytes.get(cni::LENGTH_BYTES..).unwrap_or_default())?;
    Ok(Received { request, fds })
}

fn first_read(stream: &UnixStream, bytes: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        stream,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((got.bytes, fds))
}

/// Writes one frame.
pub(super) async fn send(stream: &mut UnixStream, reply: &Reply) -> Result<()> {
    stream.write_all(&cni::encode(reply)?).await.context("answering")
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::cni::{Del, request::Op};

    fn frame() -> Vec<u8> {
        cni::encode(&Request {
            op: Some(Op::Del(Del::default())),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_request_arrives_in_pieces_or_at_once() {
        for pieces in [1, 3, 100] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            let sender = tokio::spawn(async move {
                for piece in frame().chunks(frame().len().div_ceil(pieces)) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                theirs
            });
            let received = receive(&mut ours).await.unwrap();
            assert!(matches!(received.request.op, Some(Op::Del(_))));
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn too_much_too_little_and_garbage_are_errors() {
        for bytes in [
            vec![0xff; 8],
            vec![0, 0],
            [frame(), vec![0]].concat(),
            vec![0, 0, 0, 1, 0xff],
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).await.unwrap();
            drop(theirs);
            assert!(receive(&mut ours).await.is_err(), "{bytes:?}");
        }
    }
}

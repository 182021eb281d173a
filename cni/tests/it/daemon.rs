//! A daemon made of a socket, and the plugin's process.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use twill_proto::cni::{self, Reply, Request};

/// What arrived with one request.
pub(crate) struct Received {
    pub(crate) request: Request,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Answers one request on `<run_dir>/cni.sock`; without a reply it hangs up.
pub(crate) fn answer_once(run_dir: &Path, reply: Option<Reply>) -> JoinHandle<Received> {
    let listener = UnixListener::bind(run_dir.join("cni.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let received = receive(&mut stream);
        if let Some(reply) = reply {
            stream.write_all(&cni::encode(&reply).unwrap()).unwrap();
        }
        received
    })
}

fn receive(stream: &mut UnixStream) -> Received {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 1 << 16];
    let got = recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    bytes.truncate(got.bytes);
    let length = cni::payload_length(*bytes.first_chunk().unwrap()).unwrap();
    let missing = (cni::LENGTH_BYTES + length).saturating_sub(bytes.len());
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).unwrap();
    bytes.extend(rest);
    Received {
        request: cni::decode(&bytes[cni::LENGTH_BYTES..]).unwrap(),
        fds,
    }
}

/// How the process ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) success: bool,
    pub(crate) stdout: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", self.stdout))
    }

    pub(crate) fn code(&self) -> i64 {
        assert!(!self.success, "succeeded: {}", self.stdout);
        self.json()["code"].as_i64().unwrap()
    }
}

pub(crate) fn plugin(env: &[(&str, &str)], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_twill"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that has seen enough closes its end early.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    }
}

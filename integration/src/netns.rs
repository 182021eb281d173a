//! Network namespaces: made, entered and removed, without a change to the one we started in.

use crate::run::{self, COMMAND_TIMEOUT};
use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Replies of the daemons' health endpoints are far below this.
const HTTP_BYTES_MAX: u64 = 1 << 20;

/// Where `ip netns` keeps a namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Whether the namespace exists.
#[must_use]
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Makes a namespace with its loopback up.
///
/// # Errors
/// When `ip` refuses, for instance because it exists.
pub fn create(name: &str) -> Result<()> {
    run::output(Command::new("ip").args(["netns", "add", name]), b"")?;
    ip(name, "link set lo up\n")
}

/// Removes a namespace, if it is there.
///
/// # Errors
/// When `ip` refuses.
pub fn remove(name: &str) -> Result<()> {
    if !exists(name) {
        return Ok(());
    }
    run::output(Command::new("ip").args(["netns", "del", name]), b"").map(drop)
}

/// Runs lines of `ip -batch` inside a namespace.
///
/// # Errors
/// When `ip` refuses a line; the error holds the line's number and reason.
pub fn ip(name: &str, lines: &str) -> Result<()> {
    run::output(
        Command::new("ip").args(["-n", name, "-batch", "-"]),
        lines.as_bytes(),
    )
    .map(drop)
}

/// A command that will run inside a namespace. `nsenter`, not `ip netns exec`: that would give it another /sys.
#[must_use]
pub fn command(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path(name).display()))
        .arg("--")
        .arg(program);
    command
}

/// Writes a sysctl below `/proc/sys/net` of a namespace.
///
/// # Errors
/// When the file cannot be written.
pub fn sysctl(name: &str, key: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/net/{key}");
    within(name, move || {
        std::fs::write(&file, value).with_context(|| format!("writing {file}"))
    })?
}

/// Runs `work` on a thread of its own inside the namespace. Sockets and processes made there stay there.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path(name)).with_context(|| format!("opening the namespace {name}"))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || -> Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering the namespace {name}"))?;
            Ok(work())
        });
        inside
            .join()
            .map_err(|_| anyhow!("a thread inside {name} panicked"))?
    })
}

/// Processes that live in the namespace.
///
/// # Errors
/// When `ip` refuses.
pub fn pids(name: &str) -> Result<Vec<i32>> {
    let text = run::output(Command::new("ip").args(["netns", "pids", name]), b"")?;
    Ok(text.split_whitespace().filter_map(|p| p.parse().ok()).collect())
}

/// One HTTP/1.0 GET inside the namespace: status and body.
///
/// # Errors
/// When nobody answers in time, or not in HTTP.
pub fn http_get(name: &str, address: SocketAddr, path: &str, timeout: Duration) -> Result<(u16, String)> {
    within(name, || -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut reply = String::new();
        stream.take(HTTP_BYTES_MAX).read_to_string(&mut reply)?;
        let status = reply.split_whitespace().nth(1).and_then(|s| s.parse().ok());
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.context("the reply is not HTTP")?, body.to_owned()))
    })?
    .with_context(|| format!("GET http://{address}{path} in {name}"))
}

/// Runs a command inside the namespace to its end, entered by a thread rather than by `nsenter`: nothing is added to its time.
///
/// # Errors
/// As [`run::run`].
pub fn run_inside(name: &str, mut command: Command, input: &[u8]) -> Result<run::Finished> {
    within(name, || run::run(&mut command, input, COMMAND_TIMEOUT))?
}

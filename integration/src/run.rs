//! Running a command to its end with a bound, waiting for a condition with a deadline, and noticing Ctrl-C in both.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long an ordinary command (`ip`, `birdc`, `etcdctl`) may take, with room for a loaded machine.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Distance between two looks at a condition.
const POLL: Duration = Duration::from_millis(25);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP only set a flag that [`check_interrupt`] reads, so that the command can clean up.
///
/// # Errors
/// When the kernel refuses a handler.
pub fn catch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .context("installing a signal handler")?;
    }
    Ok(())
}

/// Whether a signal asked us to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// # Errors
/// When a signal asked us to stop.
pub fn check_interrupt() -> Result<()> {
    ensure!(!interrupted(), "interrupted");
    Ok(())
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From before the spawn until after the wait.
    pub elapsed: Duration,
}

impl Finished {
    /// What it said, for an error message: standard error, or standard output when that is empty.
    #[must_use]
    pub fn said(&self) -> &str {
        let (out, err) = (self.stdout.trim(), self.stderr.trim());
        if err.is_empty() { out } else { err }
    }
}

/// Runs a command with `input` on its standard input until it ends, or kills it at the deadline.
///
/// # Errors
/// When it cannot be started or does not end in time. A non-zero exit is not an error here.
pub fn run(command: &mut Command, input: &[u8], timeout: Duration) -> Result<Finished> {
    let shown = shown(command);
    let started = Instant::now();
    let mut child = command
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let stdin = child.stdin.take();
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let (done, ended) = mpsc::channel();
    let out = drain(child.stdout.take(), done.clone());
    let err = drain(child.stderr.take(), done);
    for _ in 0..2 {
        let left = timeout.saturating_sub(started.elapsed());
        if ended.recv_timeout(left).is_err() {
            // Only a child that is stuck gets here; the readers end with it.
            let _ = child.kill();
            let _ = child.wait();
            bail!("{shown}: not finished after {timeout:?}");
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    let elapsed = started.elapsed();
    // A child that never reads its input is free to do so.
    let _ = writer.join();
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished {
        status,
        stdout: text(out),
        stderr: text(err),
        elapsed,
    })
}

/// Runs a command and returns its standard output.
///
/// # Errors
/// When it cannot be started, does not end in time or exits non-zero (the error holds what it said).
pub fn output(command: &mut Command, input: &[u8]) -> Result<String> {
    let finished = run(command, input, COMMAND_TIMEOUT)?;
    ensure!(
        finished.status.success(),
        "{}: {}: {}",
        shown(command),
        finished.status,
        finished.said()
    );
    Ok(finished.stdout)
}

/// A reason that no waiting changes, such as a process that has ended: [`wait_for`] gives up at once.
#[derive(Debug)]
pub struct Hopeless(pub String);

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Looks at a condition until it holds, and returns what it found.
///
/// # Errors
/// At the deadline, with the last reason `look` gave; at once when that is [`Hopeless`]; when a signal asked us to stop.
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        check_interrupt()?;
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if error.is::<Hopeless>() => return Err(error.context(what.to_owned())),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not so after {timeout:?}")));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Passes time that a scenario asks for ("dead for at least 5 s").
///
/// # Errors
/// When a signal asked us to stop.
pub fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check_interrupt()?;
        thread::sleep(POLL.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

fn drain(pipe: Option<impl Read + Send + 'static>, done: mpsc::Sender<()>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before a read error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = done.send(());
        bytes
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed_at_its_deadline() {
        let error = run(Command::new("sleep").arg("60"), b"", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("sleep 60: not finished"), "{error}");
    }

    #[test]
    fn input_reaches_the_command_and_its_failure_is_told() {
        assert_eq!(output(&mut Command::new("cat"), b"abc").unwrap(), "abc");
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), b"").unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn waiting_ends_at_once_when_there_is_no_hope() {
        let dead = || -> Result<()> { Err(Hopeless("it has ended".to_owned()).into()) };
        let error = wait_for("it answers", Duration::from_secs(600), dead).unwrap_err();
        assert_eq!(format!("{error:#}"), "it answers: it has ended");
    }

    #[test]
    fn a_condition_that_never_holds_is_told_with_its_last_reason() {
        let never = || -> Result<()> { bail!("still two") };
        let error = wait_for("three peers", Duration::from_millis(1), never).unwrap_err();
        assert_eq!(format!("{error:#}"), "three peers: not so after 1ms: still two");
    }
}

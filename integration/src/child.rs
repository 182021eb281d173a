//! Long-lived processes of a lab: started in a process group of their own, found again by a later command, and ended.

use crate::netns;
use crate::run::{self, Hopeless};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How long a process may take to end by SIGTERM before SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the kernel may take to end a killed process on a loaded machine.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// What of a log is shown when something fails.
const TAIL_LINES: usize = 25;

/// Whether a process outlives the command that starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It stays until `down`.
    Stays,
    /// The kernel kills it when our main thread ends, however that comes about.
    EndsWithUs,
}

/// A process, told from a later one with the same id by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id, and id of its process group.
    pub pid: i32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`, field 22).
    pub started: u64,
}

/// A process of the lab and where it logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// What it is: `etcd`, `bird` or `twilld`, and the member it runs in.
    pub role: String,
    /// The process itself.
    pub process: Process,
    /// Its standard output and error.
    pub log: PathBuf,
}

impl Process {
    /// This process itself.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn this() -> Result<Self> {
        Self::of(i32::try_from(std::process::id())?).context("reading /proc/self/stat")
    }

    fn of(pid: i32) -> Option<Self> {
        let (started, _) = stat(pid)?;
        Some(Self { pid, started })
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(started, state)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Sends a signal to its process group, if it is still the same process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a process id is positive")?;
        // The group is missing when the process did not lead one: then it alone is meant.
        kill_process_group(pid, signal)
            .or_else(|_| kill_process(pid, signal))
            .with_context(|| format!("signalling process {}", self.pid))
    }

    /// Ends it: SIGTERM, and SIGKILL when that does not help.
    ///
    /// # Errors
    /// When it is still there after both.
    pub fn end(&self) -> Result<()> {
        self.signal(Signal::TERM)?;
        if self.gone_within(TERM_TIMEOUT) {
            return Ok(());
        }
        self.kill()
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it is still there afterwards.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        ensure!(
            self.gone_within(KILL_TIMEOUT),
            "process {} does not die",
            self.pid
        );
        Ok(())
    }

    fn gone_within(&self, timeout: Duration) -> bool {
        let deadline = std::time::Instant::now() + timeout;
        while self.is_alive() {
            if std::time::Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Reaps it when it is our own child; otherwise somebody else does.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        true
    }
}

/// Ends whatever still runs in a namespace, children of children included.
///
/// # Errors
/// When a process does not die.
pub fn clear(namespace: &str) -> Result<()> {
    if !netns::exists(namespace) {
        return Ok(());
    }
    let ours = std::process::id();
    for pid in netns::pids(namespace)? {
        // Threads of ours may be inside while a probe runs.
        if u32::try_from(pid).is_ok_and(|pid| pid == ours) {
            continue;
        }
        if let Some(process) = Process::of(pid) {
            process.kill()?;
        }
    }
    Ok(())
}

impl Child {
    /// Starts `program args` in a namespace, logging to `log` (appended).
    ///
    /// Call it from the main thread: a parent-death signal is tied to the thread that starts the child.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        role: &str,
        namespace: &str,
        program: &Path,
        args: &[String],
        log: &Path,
        life: Life,
    ) -> Result<Self> {
        run::check_interrupt()?;
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let mut command = match life {
            Life::Stays => netns::command(namespace, program),
            Life::EndsWithUs => {
                let mut command = netns::command(namespace, "setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
        };
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        for (key, _) in std::env::vars()
            .filter(|(key, _)| key.starts_with("ETCD") || (key.starts_with("TWILL_") && key != "TWILL_LOG"))
        {
            command.env_remove(key);
        }
        let pid = command.spawn().with_context(|| format!("starting {role}"))?.id();
        let process = Process::of(i32::try_from(pid)?).with_context(|| format!("{role} ended at once"))?;
        Ok(Self {
            role: role.to_owned(),
            process,
            log: log.to_owned(),
        })
    }

    /// # Errors
    /// [`Hopeless`] when it no longer runs; the error holds the end of its log.
    pub fn check(&self) -> Result<()> {
        if !self.process.is_alive() {
            bail!(Hopeless(format!("{} has ended{}", self.role, self.tail())));
        }
        Ok(())
    }

    /// The end of its log, for an error message.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default();
        format!(
            "\n--- {} ({})\n{}\n---",
            self.role,
            self.log.display(),
            last.join("\n")
        )
    }
}

/// Start time and state of a process, from `/proc/PID/stat`. The name in parentheses may hold anything, also parentheses.
fn stat(pid: i32) -> Option<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // `state` is field 3, the start time field 22.
    let started = fields.nth(18)?.parse().ok()?;
    Some((started, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reused_id_is_not_taken_for_it() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        assert!(
            !Process {
                started: this.started + 1,
                ..this
            }
            .is_alive()
        );
    }

    #[test]
    fn a_killed_child_is_gone_and_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .process_group(0)
            .spawn()
            .unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        process.kill().unwrap();
        assert!(!process.is_alive());
        // Already reaped, or else reaped here: either way it is gone.
        let _ = child.wait();
    }
}

//! The one writer of our table: holds the sockets, remembers what was applied, notices what others change.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::consts::{self as c, msg};
use super::delta::{Mode, Operation, delta, rebuild};
use super::state::State;
use super::{dump, encode};
use crate::kernel::netlink::{NetlinkError, Protocol, SEND_BUFFER_BYTES, Socket};
use crate::kernel::wire;
use crate::plan::nft::{Name, Table};

/// Repetitions of a batch that another commit overtook. Each repetition reads the table again when that commit was in it.
const OVERTAKEN_MAX: usize = 16;
/// Errors of one batch that are told: the kernel reports each message at fault.
const FAULTS_MAX: usize = 8;

/// Whose table a change was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// None of ours was changed by another.
    Quiet,
    /// Our table was changed by another process: what is remembered may be wrong.
    Touched,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Operations sent; 0 when nothing had to change.
    pub operations: usize,
    /// Bytes of the batch.
    pub bytes: usize,
    /// Only elements changed, so that the kernel did not walk the chains.
    pub elements_only: bool,
    /// The table had to be replaced whole.
    pub rebuilt: bool,
    /// Time from the delta to the kernel's acknowledgement.
    pub took: Duration,
}

/// Why a table is not in the kernel. What was there before still is: a batch is applied whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused some of the operations.
    #[error("nf_tables refused the batch: {}", faults.join("; "))]
    Refused {
        /// Each operation at fault and the kernel's reason, at most eight.
        faults: Vec<String>,
    },
    /// The table names chains or sets that it does not hold.
    #[error("the desired table refers to what it does not hold: {0:?}")]
    Dangling(Vec<Name>),
    /// The batch is larger than the socket takes.
    #[error("the batch of {0} bytes exceeds the bound of {SEND_BUFFER_BYTES}")]
    TooLarge(usize),
    /// Others kept committing between our reading and our writing.
    #[error("others changed the ruleset {OVERTAKEN_MAX} times in a row while this table was being written")]
    Overtaken,
    /// The socket failed, or a dump.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The writer of one table.
#[derive(Debug)]
pub struct Writer {
    socket: Socket,
    monitor: Socket,
    /// What the table holds; `None` until it was read. The inner `None`: there is no table.
    held: Option<Option<State>>,
    generation: u32,
}

enum Sent {
    Done,
    Overtaken,
}

impl Writer {
    /// Opens the sockets in the calling thread's network namespace. Reads nothing yet.
    ///
    /// # Errors
    /// When the kernel gives no sockets.
    pub fn open() -> Result<Self, NetlinkError> {
        let monitor = Socket::open(Protocol::Netfilter)?;
        monitor.join(c::NFNLGRP_NFTABLES)?;
        Ok(Self {
            socket: Socket::open(Protocol::Netfilter)?,
            monitor,
            held: None,
            generation: 0,
        })
    }

    /// The descriptor that becomes readable when somebody changed a ruleset.
    #[must_use]
    pub fn monitor(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// Forgets what is remembered: the next apply reads the table again.
    pub fn forget(&mut self) {
        self.held = None;
    }

    /// What the table holds as far as is known; `None` until it was read, or when there is no table.
    #[must_use]
    pub fn held(&self) -> Option<&State> {
        self.held.as_ref()?.as_ref()
    }

    /// Reads the table from the kernel, and says whether it is other than what was remembered.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub fn resync(&mut self, table: &Table) -> Result<bool, NetlinkError> {
        let (generation, state) = dump::table(&mut self.socket, table)?;
        let drifted = self.held.as_ref().is_some_and(|held| *held != state);
        self.generation = generation;
        if drifted || self.held.is_none() {
            self.held = Some(state);
        }
        Ok(drifted)
    }

    /// Takes all notifications that wait and says whether another process changed our table.
    ///
    /// # Errors
    /// When the socket fails. Lost notifications are no error: they count as `Touched`.
    pub fn drain(&mut self, table: &Name) -> Result<Foreign, NetlinkError> {
        let ours = self.socket.port();
        let mut foreign = Foreign::Quiet;
        loop {
            let taken = self.monitor.notifications(|m| {
                let body = m.payload.get(4..).unwrap_or_default();
                // Every kind of object has its table's name in attribute 1; generations have a number there.
                let named = || {
                    wire::find(body, 1)
                        .map(wire::text)
                        .is_some_and(|n| n == table.as_str())
                };
                if m.kind != msg::NEWGEN && m.port != ours && named() {
                    foreign = Foreign::Touched;
                }
            });
            match taken {
                Ok(true) => {}
                Ok(false) => return Ok(foreign),
                Err(e) if e.errno() == Some(libc::ENOBUFS) => foreign = Foreign::Touched,
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes the kernel's table the desired one, in one atomic batch.
    ///
    /// When the kernel refuses a delta, the table is read again, and at last replaced whole (still in one batch).
    ///
    /// # Errors
    /// See [`ApplyError`]; the table is then as it was before.
    pub fn apply(&mut self, desired: &Table, mode: Mode) -> Result<Applied, ApplyError> {
        let dangling = desired.dangling();
        if !dangling.is_empty() {
            return Err(ApplyError::Dangling(dangling));
        }
        let begun = Instant::now();
        let mut applied = Applied::default();
        let mut refused = 0;
        for _ in 0..OVERTAKEN_MAX {
            self.refresh(desired)?;
            let held = self.held.as_ref().and_then(Option::as_ref);
            applied.rebuilt = refused > 1;
            let ops = if applied.rebuilt {
                rebuild(desired, held)
            } else {
                delta(desired, held, mode)
            };
            applied.operations = ops.len();
            applied.elements_only = ops.iter().all(Operation::elements_only);
            if ops.is_empty() {
                self.remember(desired, mode);
                return Ok(applied);
            }
            match self.send(desired, &ops, &mut applied) {
                Ok(Sent::Done) => {
                    self.remember(desired, mode);
                    applied.took = begun.elapsed();
                    return Ok(applied);
                }
                Ok(Sent::Overtaken) => {}
                Err(ApplyError::Refused { .. }) if refused < 2 && mode == Mode::Exact => {
                    refused += 1;
                    self.held = None;
                }
                Err(e) => return Err(e),
            }
        }
        Err(ApplyError::Overtaken)
    }

    /// Removes the table whole, for handing the node back. No table is no error.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn remove(&mut self, table: &Table) -> Result<(), ApplyError> {
        for _ in 0..OVERTAKEN_MAX {
            self.held = None;
            self.resync(table)?;
            if self.held().is_none() {
                return Ok(());
            }
            if let Sent::Done = self.send(table, &[Operation::DelTable], &mut Applied::default())? {
                self.held = Some(None);
                return Ok(());
            }
        }
        Err(ApplyError::Overtaken)
    }

    /// Makes sure that what is remembered is what is there: reads the generation, and the table when it must.
    fn refresh(&mut self, desired: &Table) -> Result<(), NetlinkError> {
        if self.held.is_some() {
            let generation = dump::generation(&mut self.socket)?;
            if generation == self.generation {
                return Ok(());
            }
            // Somebody committed. Their notifications are queued before their commit ends.
            if self.drain(&desired.name)? == Foreign::Quiet {
                self.generation = generation;
                return Ok(());
            }
            self.held = None;
        }
        self.resync(desired).map(drop)
    }

    fn remember(&mut self, desired: &Table, mode: Mode) {
        match mode {
            Mode::Exact => self.held = Some(Some(State::of(desired))),
            Mode::Additive => self.held = None,
        }
    }

    fn send(&mut self, table: &Table, ops: &[Operation], applied: &mut Applied) -> Result<Sent, ApplyError> {
        let seq = self.socket.next_seq();
        let batch = encode::batch(table, ops, seq, self.generation);
        self.socket.skip_seq(batch.origin.len() + 1);
        applied.bytes = batch.wire.len();
        if batch.wire.len() > SEND_BUFFER_BYTES {
            return Err(ApplyError::TooLarge(batch.wire.len()));
        }
        let mut acknowledged = false;
        let mut faults = Vec::new();
        for answer in self.socket.batch(batch.wire.as_bytes())? {
            let about = batch.operation(answer.seq).and_then(|i| ops.get(i));
            match (answer.result, about) {
                (Ok(()), _) => acknowledged = true,
                (Err(e), None) if e.errno() == Some(libc::ERESTART) => return Ok(Sent::Overtaken),
                (Err(e), _) if faults.len() >= FAULTS_MAX => drop(e),
                (Err(e), Some(op)) => faults.push(format!("{op}: {e}")),
                (Err(e), None) => faults.push(format!("commit: {e}")),
            }
        }
        if !faults.is_empty() {
            return Err(ApplyError::Refused { faults });
        }
        if !acknowledged {
            return Err(
                NetlinkError::from(std::io::Error::other("nf_tables did not acknowledge a batch")).into(),
            );
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        Ok(Sent::Done)
    }
}

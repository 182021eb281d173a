//! Faults of the store in memory, given one by one or by a rule.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Commit, StoreError, Txn};

/// The most faults that may wait for their call. More is a mistake of the test.
const FAULTS_WAITING_MAX: usize = 10_000;

/// What goes wrong with one call.
#[derive(Debug)]
pub enum Fault {
    /// The call never reaches the store: it fails, nothing is written, and the error says so.
    FailBefore,
    /// The call never reaches the store, but the error cannot say so.
    LoseRequest,
    /// The call is carried out; its reply is lost.
    LoseReply,
    /// The call is carried out so much later. By tokio's clock, which a test can pause.
    Delay(Duration),
    /// The call waits before it is carried out, until the [`Hold`] is dropped.
    Hold(Wait),
}

/// A call held back; dropping it lets the call go on.
#[derive(Debug)]
pub struct Hold {
    _sender: oneshot::Sender<()>,
    arrived: oneshot::Receiver<()>,
}

impl Hold {
    /// Waits until a call has arrived and is being held.
    pub async fn arrived(&mut self) {
        // An error means that the fault was cleared: nothing will ever arrive, and nothing is held.
        let _ = (&mut self.arrived).await;
    }
}

/// The call's side of a [`Hold`].
#[derive(Debug)]
pub struct Wait {
    release: oneshot::Receiver<()>,
    arrived: oneshot::Sender<()>,
}

impl Fault {
    /// A fault that holds its call until the second value is dropped.
    #[must_use]
    pub fn hold() -> (Self, Hold) {
        let (sender, release) = oneshot::channel();
        let (tell, arrived) = oneshot::channel();
        (
            Self::Hold(Wait {
                release,
                arrived: tell,
            }),
            Hold {
                _sender: sender,
                arrived,
            },
        )
    }
}

/// A call, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call<'a> {
    Txn(&'a Txn),
    Range,
    Watch,
    Other,
}

type Rule = Box<dyn FnMut(&Txn) -> Option<Fault> + Send>;

#[derive(Default)]
struct Plan {
    down: bool,
    txns: VecDeque<Fault>,
    ranges: VecDeque<Fault>,
    watches: VecDeque<Fault>,
    rule: Option<Rule>,
}

/// The faults to come. Every fault hits one call and is then used up; [`Faults::down`] stays until it is lifted.
#[derive(Default)]
pub struct Faults {
    plan: Mutex<Plan>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next transaction that has no fault yet.
    ///
    /// # Panics
    /// If 10,000 faults wait already.
    pub fn next_txn(&self, fault: Fault) {
        push(&mut self.plan().txns, fault);
    }

    /// The next read that has no fault yet.
    ///
    /// # Panics
    /// If 10,000 faults wait already.
    pub fn next_range(&self, fault: Fault) {
        push(&mut self.plan().ranges, fault);
    }

    /// The next opening of a watch that has no fault yet.
    ///
    /// # Panics
    /// If 10,000 faults wait already.
    pub fn next_watch(&self, fault: Fault) {
        push(&mut self.plan().watches, fault);
    }

    /// Asks `rule` about every transaction for which no fault waits: the place for a seeded generator.
    pub fn rule(&self, rule: impl FnMut(&Txn) -> Option<Fault> + Send + 'static) {
        self.plan().rule = Some(Box::new(rule));
    }

    /// Takes the store away (true) or gives it back. While it is away every call fails at once, as with etcd stopped. Open watches
    /// are cut by [`MemStore::disconnect_watches`](super::MemStore::disconnect_watches).
    pub fn down(&self, down: bool) {
        self.plan().down = down;
    }

    /// Forgets every fault that has not hit yet.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    fn take(&self, call: Call<'_>) -> Option<Fault> {
        let mut plan = self.plan();
        if plan.down {
            return Some(Fault::FailBefore);
        }
        match call {
            Call::Txn(txn) => plan
                .txns
                .pop_front()
                .or_else(|| plan.rule.as_mut().and_then(|rule| rule(txn))),
            Call::Range => plan.ranges.pop_front(),
            Call::Watch => plan.watches.pop_front(),
            Call::Other => None,
        }
    }

    /// What happens before the call is carried out; the value says what happens afterwards.
    pub(super) async fn before(&self, call: Call<'_>) -> Result<After, StoreError> {
        let unavailable = |reason: &str, commit| {
            Err(StoreError::Unavailable {
                reason: reason.to_owned(),
                commit,
            })
        };
        match self.take(call) {
            None => Ok(After::Answer),
            Some(Fault::FailBefore) => unavailable("connection refused", Commit::No),
            Some(Fault::LoseRequest) => unavailable("connection reset", Commit::Unknown),
            Some(Fault::LoseReply) => Ok(After::LoseReply),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(After::Answer)
            }
            Some(Fault::Hold(wait)) => {
                let _ = wait.arrived.send(());
                // Ends in an error when the Hold is dropped, which is the signal.
                let _ = wait.release.await;
                Ok(After::Answer)
            }
        }
    }
}

fn push(queue: &mut VecDeque<Fault>, fault: Fault) {
    assert!(
        queue.len() < FAULTS_WAITING_MAX,
        "{FAULTS_WAITING_MAX} faults wait already"
    );
    queue.push_back(fault);
}

/// What happens once the call is carried out.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Answer,
    LoseReply,
}

impl After {
    pub(super) async fn finish(self) -> Result<(), StoreError> {
        match self {
            Self::Answer => Ok(()),
            Self::LoseReply => Err(StoreError::Unavailable {
                reason: "connection reset".to_owned(),
                commit: Commit::Unknown,
            }),
        }
    }
}

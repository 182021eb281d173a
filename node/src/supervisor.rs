//! Ordered start and stop of the subsystems, and the panic policy.
//!
//! Each subsystem is one task with a token of its own; what it spawns it owns. Stop goes in reverse order of start, each with
//! a deadline, then abort. A subsystem that ends by itself, by an error or by a panic, ends the daemon: a kernel left as it
//! was is safe, a half-dead daemon is not.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long one subsystem may take to stop: sessions close at once, a running apply takes a second at worst.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

struct Subsystem {
    name: &'static str,
    id: Id,
    token: CancellationToken,
    abort: tokio::task::AbortHandle,
}

/// The running subsystems, in order of start.
#[derive(Default)]
pub(crate) struct Supervisor {
    tasks: JoinSet<Result<()>>,
    subsystems: Vec<Subsystem>,
    /// Those that ended while another was waited for.
    ended: HashSet<Id>,
}

impl Supervisor {
    /// Starts a subsystem. It must end soon after its token is cancelled, and never before.
    pub(crate) fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let abort = self.tasks.spawn(run(token.clone()));
        self.subsystems.push(Subsystem {
            name,
            id: abort.id(),
            token,
            abort,
        });
    }

    /// Waits until `stop` asks for the end, then stops all in reverse order.
    ///
    /// # Errors
    /// A subsystem ended before it was asked to; the others are left as they are, and the process should end.
    pub(crate) async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        tokio::select! {
            () = stop => {}
            Some(ended) = self.tasks.join_next_with_id() => return Err(self.early_end(ended)),
        }
        tracing::info!("stopping");
        while let Some(subsystem) = self.subsystems.pop() {
            subsystem.token.cancel();
            let begun = Instant::now();
            if tokio::time::timeout(STOP_DEADLINE, self.ended(subsystem.id))
                .await
                .is_err()
            {
                tracing::warn!(subsystem = subsystem.name, "did not stop in time");
                subsystem.abort.abort();
            }
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(subsystem = subsystem.name, took_ms, "stopped");
        }
        Ok(())
    }

    /// Waits for one subsystem; others that end meanwhile by error are logged.
    async fn ended(&mut self, id: Id) {
        while !self.ended.contains(&id) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return;
            };
            let (ended_id, outcome) = flatten(ended);
            if let Err(error) = outcome {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "subsystem ended with an error while stopping"
                );
            }
            self.ended.insert(ended_id);
        }
    }

    fn early_end(&self, ended: Result<(Id, Result<()>), JoinError>) -> anyhow::Error {
        let (id, outcome) = flatten(ended);
        let name = self
            .subsystems
            .iter()
            .find(|s| s.id == id)
            .map_or("?", |s| s.name);
        match outcome {
            Ok(()) => anyhow!("subsystem {name} ended without being asked to"),
            Err(error) => error.context(format!("subsystem {name}")),
        }
    }
}

fn flatten(ended: Result<(Id, Result<()>), JoinError>) -> (Id, Result<()>) {
    match ended {
        Ok((id, outcome)) => (id, outcome),
        Err(e) => (e.id(), Err(e).context("panicked or was aborted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn stop_goes_in_reverse_order_of_start() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::default();
        for name in ["first", "second", "third"] {
            let order = order.clone();
            supervisor.start(name, |token| async move {
                token.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            });
        }
        supervisor.run_until(async {}).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);
    }

    #[tokio::test]
    async fn a_panic_an_error_and_an_early_end_end_the_daemon_by_name() {
        let check = async |name: &'static str, end: fn() -> Result<()>, word: &str| {
            let mut supervisor = Supervisor::default();
            supervisor.start("steady", |token| async move {
                token.cancelled().await;
                Ok(())
            });
            supervisor.start(name, |_| async move { end() });
            let error = supervisor.run_until(std::future::pending()).await.unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(name) && text.contains(word), "{text}");
        };
        check("quitter", || Ok(()), "without being asked").await;
        check("failer", || Err(anyhow!("no luck")), "no luck").await;
        check("panicker", || std::panic::panic_any("boom"), "panicked").await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_with_another_is_not_waited_for() {
        let (fed, mut feed) = tokio::sync::oneshot::channel::<()>();
        let mut supervisor = Supervisor::default();
        supervisor.start("fed by the next", |_| async move {
            let _ = (&mut feed).await;
            Ok(())
        });
        supervisor.start("slow to end", |token| async move {
            token.cancelled().await;
            drop(fed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        });
        let begun = tokio::time::Instant::now();
        supervisor.run_until(async {}).await.unwrap();
        assert!(begun.elapsed() < STOP_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_stop_is_aborted_after_the_deadline() {
        let mut supervisor = Supervisor::default();
        supervisor.start("stubborn", |_| std::future::pending());
        supervisor.run_until(async {}).await.unwrap();
    }
}

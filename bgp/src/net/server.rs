//! The server: binds, then runs the RIB task with everything that belongs to it.

use super::handle::{Command, ConfigureError, Handle};
use super::rib_task::RibTask;
use crate::config::Config;
use crate::speaker::Speaker;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// A speaker that is ready to run.
#[derive(Debug)]
pub struct Server {
    task: RibTask,
    commands: mpsc::Receiver<Command>,
}

/// Makes a speaker and listens where the configuration says. Must be called within a tokio runtime.
///
/// # Errors
/// [`ConfigureError`]: the configuration is not valid, or an address cannot be listened on.
pub fn bind(config: Config) -> Result<(Handle, Server), ConfigureError> {
    let listen = config.listen.clone();
    let (speaker, peers) = Speaker::new(Instant::now(), config)?;
    let (converged_tx, converged) = watch::channel(speaker.converged());
    let (next_hops_tx, next_hops) = watch::channel(Arc::default());
    let (handle, commands) = Handle::new(converged, next_hops);
    let mut task = RibTask::new(speaker, converged_tx, next_hops_tx);
    task.listen(&listen)?;
    task.watch();
    task.peers_changed(peers);
    Ok((handle, Server { task, commands }))
}

impl Server {
    /// Runs until [`Handle::stop`] or [`Handle::shutdown`], or until every handle is gone (which counts as a stop).
    /// Dropping the future ends all its tasks and closes all connections.
    pub async fn run(self) {
        self.task.run(self.commands).await;
    }
}

//! Carries out the deletions that nobody could carry out when they were asked for. Plugin and daemon note them in one
//! directory, in the form of [`twill_proto::cni::spool`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use twill_datastore::Store;
use twill_proto::cni::{Del, spool};

use super::Pods;

/// How often the spool is looked at.
const REPLAY_PERIOD: Duration = Duration::from_secs(1);
/// Deletions carried out in one look, so that one look has an end.
const REPLAY_MAX: usize = 256;
/// A note is a few hundred bytes.
const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// Carries out what is noted, again and again until cancelled.
///
/// # Errors
/// None; the signature is that of a subsystem.
pub(crate) async fn replay<S: Store>(
    pods: Arc<Pods<S>>,
    dir: PathBuf,
    stop: CancellationToken,
) -> Result<()> {
    let mut ticks = tokio::time::interval(REPLAY_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        if pods.status().is_ok() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = look(&pods, &dir) => {}
            }
        }
    }
}

async fn look<S: Store>(pods: &Pods<S>, dir: &Path) {
    let Ok(mut entries) = tokio::fs::read_dir(dir).await else {
        return;
    };
    let mut done = 0;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        if done >= REPLAY_MAX || !spool::is_note(&path) {
            continue;
        }
        done += 1;
        match note(&path).await {
            Ok(del) => {
                if let Err(error) = pods.del(&del).await {
                    tracing::debug!(note = %path.display(), error = error.msg, "not carried out yet");
                    continue;
                }
                tracing::info!(note = %path.display(), "noted deletion carried out");
            }
            Err(error) => tracing::warn!(note = %path.display(), %error, "no note of a deletion, dropped"),
        }
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::warn!(note = %path.display(), %error, "removing a note");
        }
    }
}

async fn note(path: &Path) -> io::Result<Del> {
    let size = tokio::fs::metadata(path).await?.len();
    if size > NOTE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes are too many for a note"),
        ));
    }
    spool::read(&tokio::fs::read(path).await?)
}

//! MRT files: the table, whole, every so often; and what sessions say, as it happens. Files are written off the runtime's
//! threads.

use super::{Request, Source, Subscription};
use crate::family::Family;
use crate::monitor::mrt::{self, TableDump};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that cannot be written is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Does file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Writes all of it and gives the file back.
async fn write(mut file: File, octets: Vec<u8>) -> io::Result<File> {
    blocking(move || {
        file.write_all(&octets)?;
        Ok(file)
    })
    .await
}

/// Dumps the table into a file every so often, whole: a reader sees the one before or this one.
pub(super) async fn dump_tables(path: PathBuf, every: Duration, source: Source) {
    let mut due = tokio::time::Instant::now() + every;
    while source
        .stop
        .run_until_cancelled(tokio::time::sleep_until(due))
        .await
        .is_some()
    {
        match dump_table(&path, &source).await {
            Ok(Some(())) => tracing::debug!(file = %path.display(), "mrt table dumped"),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "mrt table could not be dumped");
            }
        }
        // One that took longer than the interval is not made up for.
        due = (due + every).max(tokio::time::Instant::now());
    }
}

/// One dump; `None` when the speaker ends.
async fn dump_table(path: &Path, source: &Source) -> io::Result<Option<()>> {
    let Some((router_id, asn, peers)) = source.ask(Request::Peers).await else {
        return Ok(None);
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let (part_path, whole_path) = (part.clone(), path.to_owned());
    let mut file = blocking(move || File::create(part_path)).await?;
    let mut out = Vec::new();
    let mut dump = TableDump::begin(&mut out, SystemTime::now(), router_id, asn, &peers);
    for family in Family::ALL {
        let mut from = Some(0);
        while let Some(place) = from {
            let Some(slice) = source.walk(family, place).await else {
                return Ok(None);
            };
            from = slice.next;
            for entry in &slice.entries {
                dump.entry(&mut out, entry);
            }
            file = write(file, std::mem::take(&mut out)).await?;
        }
    }
    blocking(move || {
        file.sync_all()?;
        std::fs::rename(part, whole_path)
    })
    .await?;
    Ok(Some(()))
}

/// Appends what sessions say to a file, from the moment on from which `subscription` is.
pub(super) async fn record_updates(path: PathBuf, source: Source, subscription: Subscription) {
    let mut subscription = Some(subscription);
    while let Err(error) = record(&path, &source, &mut subscription).await {
        tracing::warn!(file = %path.display(), %error, "mrt updates are not recorded; trying again");
        if source
            .stop
            .run_until_cancelled(tokio::time::sleep(RETRY))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// While the file cannot be had, what happens waits in the subscription, as much as fits there.
async fn record(path: &Path, source: &Source, subscription: &mut Option<Subscription>) -> io::Result<()> {
    let open = path.to_owned();
    let mut file = blocking(move || OpenOptions::new().create(true).append(true).open(open)).await?;
    if subscription.is_none() {
        *subscription = source.subscribe(false).await;
    }
    while let Some(current) = subscription {
        let Some(next) = source.stop.run_until_cancelled(current.next()).await else {
            return Ok(());
        };
        let Some(batch) = next else {
            *subscription = None;
            return Err(io::Error::other("the disk does not keep up"));
        };
        let mut out = Vec::new();
        for event in &batch.1 {
            mrt::event(&mut out, event, batch.0);
        }
        if !out.is_empty() {
            file = write(file, out).await?;
        }
    }
    Ok(())
}

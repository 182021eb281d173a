//! Deletions that the daemon has not heard of yet: one file each under `<run_dir>/cni-spool`, holding the framed request.
//! The daemon replays and removes them when it starts and while it runs. Written whole or not at all, named after the
//! attachment, so that the same deletion twice is one file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use twill_proto::cni::{self, Attachment, Del, Request, request::Op};

/// Most deletions kept: more pods than any node runs, four times over. Beyond it DEL fails with "try again later".
pub(crate) const SPOOL_MAX: usize = 4096;

/// Directory under the run dir.
pub(crate) const SPOOL_DIR: &str = "cni-spool";

/// Records a deletion.
///
/// # Errors
/// The spool is full or cannot be written.
pub(crate) fn record(run_dir: &Path, attachment: &Attachment) -> io::Result<()> {
    let dir = run_dir.join(SPOOL_DIR);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let name = file_name(attachment);
    let path = dir.join(&name);
    if path.exists() {
        return Ok(());
    }
    if fs::read_dir(&dir)?.count() >= SPOOL_MAX {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("{} holds {SPOOL_MAX} deletions", dir.display()),
        ));
    }
    let request = Request {
        op: Some(Op::Del(Del {
            attachment: Some(attachment.clone()),
            replayed: true,
        })),
    };
    let frame = cni::encode(&request).map_err(io::Error::other)?;
    let partial = dir.join(format!(".{name}.{}", std::process::id()));
    let written = write_whole(&partial, &frame).and_then(|()| fs::rename(&partial, &path));
    if written.is_err() {
        // Nothing to add to the error that is on its way.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Legal in a file system whatever the network is called: a piece of the container id for people, a hash for identity.
fn file_name(a: &Attachment) -> String {
    let identity = [a.network.as_str(), a.container_id.as_str(), a.ifname.as_str()].join("/");
    let shown: String = a.container_id.chars().take(64).collect();
    format!("{shown}-{:016x}.del", fnv1a(identity.as_bytes()))
}

/// FNV-1a, 64 bits: stable between versions, which the standard hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(id: &str) -> Attachment {
        Attachment {
            container_id: id.into(),
            ifname: "eth0".into(),
            network: "n".into(),
            ..Attachment::default()
        }
    }

    #[test]
    fn the_same_deletion_twice_is_one_file_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &attachment("c1")).unwrap();
        record(dir.path(), &attachment("c1")).unwrap();
        record(dir.path(), &attachment("c2")).unwrap();
        let files: Vec<_> = fs::read_dir(dir.path().join(SPOOL_DIR))
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        assert_eq!(files.len(), 2);
        let bytes = fs::read(dir.path().join(SPOOL_DIR).join(file_name(&attachment("c1")))).unwrap();
        let request: Request = cni::decode(&bytes[cni::LENGTH_BYTES..]).unwrap();
        assert!(
            matches!(request.op, Some(Op::Del(Del { attachment: Some(a), replayed: true })) if a.container_id == "c1")
        );
    }

    #[test]
    fn a_full_spool_refuses_new_deletions_and_still_knows_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &attachment("first")).unwrap();
        for n in 1..SPOOL_MAX {
            fs::write(dir.path().join(SPOOL_DIR).join(format!("{n}.del")), b"").unwrap();
        }
        assert_eq!(
            record(dir.path(), &attachment("late")).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        record(dir.path(), &attachment("first")).unwrap();
    }
}

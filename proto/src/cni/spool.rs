//! Deletions that nobody could carry out when they were asked for: one file each in a directory, holding the framed request.
//! The plugin writes them while no daemon listens, the daemon while no store answers, and the daemon reads both. Written
//! whole or not at all, and named after the attachment, so that the same deletion twice is one file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Attachment, Del, LENGTH_BYTES, Request, decode, encode, request::Op};

/// Most deletions kept: more pods than any node runs, four times over. Beyond it DEL fails with "try again later".
pub const SPOOL_MAX: usize = 4096;
/// Directory under the run dir.
pub const SPOOL_DIR: &str = "cni-spool";
/// What names of notes end in; what else lies there is not yet whole.
const SUFFIX: &str = "del";

/// Records a deletion in `dir`, which is made if it is not there.
///
/// # Errors
/// The spool is full or cannot be written.
pub fn record(dir: &Path, attachment: &Attachment) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = file_name(attachment);
    let path = dir.join(&name);
    if path.exists() {
        return Ok(());
    }
    if fs::read_dir(dir)?.count() >= SPOOL_MAX {
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
    let frame = encode(&request).map_err(io::Error::other)?;
    let partial = dir.join(format!(".{name}.{}", std::process::id()));
    let written = write_whole(&partial, &frame).and_then(|()| fs::rename(&partial, &path));
    if written.is_err() {
        // Nothing to add to the error that is on its way.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Whether a file of the spool is a note.
#[must_use]
pub fn is_note(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == SUFFIX)
}

/// The deletion that a note's bytes say.
///
/// # Errors
/// They say none.
pub fn read(bytes: &[u8]) -> io::Result<Del> {
    let payload = bytes.get(LENGTH_BYTES..).unwrap_or_default();
    let request: Request = decode(payload).map_err(io::Error::other)?;
    match request.op {
        Some(Op::Del(del)) => Ok(Del {
            replayed: true,
            ..del
        }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a deletion")),
    }
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
    let shown: String = a.container_id.chars().filter(|c| *c != '/').take(64).collect();
    format!("{shown}-{:016x}.{SUFFIX}", fnv1a(identity.as_bytes()))
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
        let spool = dir.path().join(SPOOL_DIR);
        record(&spool, &attachment("c1")).unwrap();
        record(&spool, &attachment("c1")).unwrap();
        record(&spool, &attachment("c2/../c3")).unwrap();
        let files: Vec<_> = fs::read_dir(&spool).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|path| is_note(path)));
        let bytes = fs::read(spool.join(file_name(&attachment("c1")))).unwrap();
        let del = read(&bytes).unwrap();
        assert!(del.replayed && del.attachment.unwrap().container_id == "c1");
        assert!(read(b"").is_err() && read(b"\0\0\0\x01x").is_err());
    }

    #[test]
    fn a_full_spool_refuses_new_deletions_and_still_knows_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &attachment("first")).unwrap();
        for n in 1..SPOOL_MAX {
            fs::write(dir.path().join(format!("{n}.del")), b"").unwrap();
        }
        assert_eq!(
            record(dir.path(), &attachment("late")).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        record(dir.path(), &attachment("first")).unwrap();
    }
}

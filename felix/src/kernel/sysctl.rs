//! Kernel settings under `/proc/sys/net`, which is the calling thread's network namespace.

use std::io;
use std::path::PathBuf;

/// Where the settings of the calling thread's namespace are.
const ROOT: &str = "/proc/sys/net";

/// Sets one setting unless it already has the value. Returns whether it was changed.
///
/// # Errors
/// When the setting cannot be read or written; the error names it.
pub(super) fn set(name: &str, value: &str) -> io::Result<bool> {
    let path: PathBuf = [ROOT, name].iter().collect();
    let told = |e: io::Error| io::Error::new(e.kind(), format!("net/{name}: {e}"));
    if std::fs::read_to_string(&path).map_err(told)?.trim() == value {
        return Ok(false);
    }
    std::fs::write(&path, value).map_err(told)?;
    Ok(true)
}

/// As [`set`], where the setting may not exist (a kernel without IPv6).
pub(super) fn set_if_there(name: &str, value: &str) -> io::Result<bool> {
    match set(name, value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

//! What a worker asked for and was told: one line each, written before it is acted on, so that a killed process leaves a true
//! account. A line cut short by SIGKILL is the last and is dropped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Line {
    /// ADD is about to be asked for.
    Adding {
        /// The handle.
        handle: String,
    },
    /// ADD was answered.
    Added {
        /// The handle.
        handle: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
        /// The revision named in the answer.
        revision: u64,
        /// Whether they were new.
        fresh: bool,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// DEL is about to be asked for: from now on its addresses may be anybody's.
    Deleting {
        /// The handle.
        handle: String,
        /// The newest revision that this process knew of.
        revision: u64,
    },
    /// DEL was answered.
    Deleted {
        /// The handle.
        handle: String,
    },
    /// A request failed.
    Failed {
        /// The handle.
        handle: String,
        /// The error's name.
        error: String,
    },
}

/// A journal being written.
pub struct Journal {
    file: Mutex<File>,
}

impl Journal {
    /// Opens a journal for more lines.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // Ends what a predecessor may have left half written.
        file.write_all(b"\n")?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Writes a line. Once this returns it survives the process.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).context("writing the journal")
    }
}

/// Reads a journal.
///
/// # Errors
/// If the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

//! `twillctl` as a user runs it: arguments in, text out.

use crate::run::{self, COMMAND_TIMEOUT, Finished};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `twillctl` towards one daemon.
#[derive(Clone, Debug)]
pub struct Ctl {
    program: PathBuf,
    socket: PathBuf,
}

impl Ctl {
    /// A `twillctl` that talks to the daemon behind `socket`.
    #[must_use]
    pub fn new(program: PathBuf, socket: PathBuf) -> Self {
        Self { program, socket }
    }

    /// The command itself, with the socket set.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("TWILL_SOCKET", &self.socket).args(words);
        command
    }

    /// Runs it; a non-zero exit is not an error.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        run::run(&mut self.command(words), b"", COMMAND_TIMEOUT)
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it exits non-zero.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        run::output(&mut self.command(words), b"")
    }

    /// Runs it with `-o json`.
    ///
    /// # Errors
    /// When it exits non-zero or prints something else.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let mut words = words.to_vec();
        words.extend(["-o", "json"]);
        let text = self.output(&words)?;
        serde_json::from_str(&text).with_context(|| format!("twillctl {}: not JSON: {text}", words.join(" ")))
    }

    /// The objects of one kind, whether printed as a list object, an array or a single object.
    ///
    /// # Errors
    /// As [`Ctl::json`].
    pub fn objects(&self, words: &[&str]) -> Result<Vec<Value>> {
        Ok(match self.json(words)? {
            Value::Array(items) => items,
            Value::Object(mut map) => match map.remove("items") {
                Some(Value::Array(items)) => items,
                Some(_) => Vec::new(),
                None => vec![Value::Object(map)],
            },
            _ => Vec::new(),
        })
    }

    /// Runs `verb -f` on a YAML text, kept as `file` so that a person can look at it later.
    ///
    /// # Errors
    /// When the file cannot be written or `twillctl` refuses it.
    pub fn file(&self, verb: &str, file: &Path, yaml: &str) -> Result<String> {
        std::fs::write(file, yaml).with_context(|| format!("writing {}", file.display()))?;
        let finished = self.run(&[verb, "-f", &file.to_string_lossy()])?;
        ensure!(
            finished.status.success(),
            "twillctl {verb} -f {}: {}: {}",
            file.display(),
            finished.status,
            finished.said()
        );
        Ok(finished.stdout)
    }
}

//! The Twill CNI plugin: exec'd once per pod and operation, it turns what the runtime says (environment and standard
//! input, CNI spec 0.3.1 to 1.1.0) into one request to the daemon, hands it the pod's network namespace, and prints
//! the answer. It decides nothing, keeps nothing but the spool of deletions, and never waits without a deadline.
#![warn(clippy::indexing_slicing)]

mod args;
mod conf;
#[cfg(test)]
mod corpus;
mod daemon;
mod error;
mod fd;
mod output;
mod plugin;
mod prev;

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    // One byte more than allowed tells "too long" from "just fits".
    let read = std::io::stdin().take(conf::STDIN_MAX + 1).read_to_end(&mut stdin);
    let env = |name: &str| std::env::var_os(name).and_then(|v| v.into_string().ok());
    let (printed, code) = match read {
        Ok(_) => plugin::run(&env, &stdin),
        Err(e) => plugin::failure("1.0.0", &error::CniError::io("reading standard input", &e)),
    };
    match std::io::stdout().write_all(printed.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

//! The plugin's binary as a runtime calls it: environment and standard input, against a daemon made of a socket.
#![allow(
    clippy::unwrap_used,
    reason = "what fails here fails the test that asked for it"
)]

mod conformance;
mod daemon;
mod table;

//! The speaker's public face: in virtual time, and against other implementations.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall say where and end"
)]
#![expect(clippy::cast_possible_truncation, reason = "a simulation counts in tens")]

mod bfd;
mod bird;
mod corpus;
mod crowds;
mod incidents;
mod interop;
mod lab;
mod load;
mod sim;
mod unnumbered;
mod watchers;

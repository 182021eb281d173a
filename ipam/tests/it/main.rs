//! The public face of the crate against the store in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod allocator;
mod calico;
mod check;
mod collect;
mod crash;
mod faults;
mod semantics;
mod simulation;
mod support;

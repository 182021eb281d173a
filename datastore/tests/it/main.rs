//! The stores on their public face: one conformance suite for all of them, and etcd's own troubles.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod conformance;
mod etcd;
mod random;
mod secure;
mod syncer;
mod world;

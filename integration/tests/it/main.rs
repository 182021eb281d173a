//! The lab on real kernels, etcd and BIRD. Needs root and the tools of scripts/setup, and fails without them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod arrows;
mod bgp;
mod cli;
mod closed;
mod common;
mod compat;
mod containerd;
mod demo;
mod doors;
mod faults;
mod guards;
mod handover;
mod ipam;
mod network;
mod plugin;
mod pods;
mod racks;
mod registered;
mod reuse;
mod sources;
mod speaker;

//! The host agent: what this node's kernel should hold ([`plan`]) and the code that makes it so ([`kernel`]).
//!
//! `plan` is plain data and pure functions: no socket, no clock, no file. `kernel` is the only place that
//! touches the machine: nf_tables and rtnetlink by our own encoders, sysctls by `/proc`. Nothing else in the
//! daemon writes a route, rule, set, link or neighbour (one writer per kernel object).

pub mod calc;
pub mod kernel;
pub mod plan;

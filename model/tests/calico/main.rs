//! Replays what the real Calico v3.32.1 stores, accepts and answers (`v3.32.1/`) against this crate.

mod corpus;
mod initial;
mod objects;
mod selector;
mod validation;

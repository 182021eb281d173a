//! Our table in the kernel: what it holds, what must change, and the one atomic batch that changes it.
//!
//! `delta` is pure: desired table and the state held give operations. `encode` makes them bytes, `dump` reads the
//! kernel's table back into a state, `writer` owns the sockets. When only elements of sets changed, the batch has only
//! element messages, which the kernel takes in microseconds; a change of rules makes it walk all reachable chains again.
//!
//! The table is never owned by the process (`NFT_TABLE_F_OWNER`): it must outlive it.

mod consts;
mod delta;
mod dump;
mod encode;
mod state;
mod writer;

pub use delta::{Mode, Operation, delta, rebuild};
pub use encode::rule_hash;
pub use state::{ChainState, SetState, Shape, State};
pub use writer::{Applied, ApplyError, Foreign, Writer};

#[cfg(test)]
mod tests;

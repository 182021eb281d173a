//! The rig around Twill's address management: real etcd, real processes, faults, and a checker that knows nothing of how
//! addresses are assigned.
//!
//! | module | holds |
//! |---|---|
//! | [`etcd`] | a cluster of one or three members on loopback |
//! | [`proxy`] | what stands between a node and etcd, and what it does to connections |
//! | [`node`] | a node's process: the allocator as the daemon runs it, and eight workers |
//! | [`journal`] | what workers asked for and were told, written before it is used |
//! | [`history`] | every change of every key, from revision 1 |
//! | [`check`] | invariants I1 to I10, from history and journals alone |
//! | [`soak`] | all of it together |
//! | [`world`] | what a cluster holds before the first pod |
//! | [`bench`] | the numbers of docs/numbers.md |
//! | [`audit`] | `ipam check` in a process of its own |
//! | [`calico`] | the same steps done Calico's way |
//! | [`mixed`] | both on one pool that is nearly full |

pub mod audit;
pub mod bench;
pub mod calico;
pub mod check;
pub mod etcd;
pub mod history;
pub mod journal;
pub mod mixed;
pub mod node;
pub mod proxy;
pub mod soak;
mod twill;
pub mod world;

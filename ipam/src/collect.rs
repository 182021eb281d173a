//! Collection of what nobody has any more: addresses without an endpoint, addresses and blocks of nodes that are gone, handles
//! without addresses, cool-downs that nobody ended.
//!
//! ```text
//!   Scan (one revision, linearised) ──▶ Collector::observe ──▶ confirmed: seen twice, a grace period apart, unchanged
//!        ▲                                                        │
//!        └──────────── next pass ◀── Sweep, one block at a time ◀─┘   read again, compare everything, write
//! ```
//!
//! Nothing is freed on one observation, and nothing whose handle, sequence number or revision changed between the two. The
//! grace is measured by the collector's own clock that never steps. A collector that was stopped between its last read and
//! its write is refused by the compares, and by the election if another has taken over.
//!
//! [`Scan`], [`Collector`] and [`plan`](Collector::plan) are pure; [`Runner`] is the shell.

mod leak;
mod ledger;
mod run;
mod scan;

pub use leak::{Leak, LeakId, Why};
pub use ledger::Collector;
pub use run::{COLLECTOR_KEY, Guards, Mode, Pass, Runner, pass, scan};
pub use scan::{Facts, LEAKS_MAX, Scan, Scanner};

//! The finite state machine of one peer (RFC 4271 section 8): it owns up to three connections at once (the session, one that we
//! dial, one that we accepted), resolves their collision (section 6.8), keeps all timers, and knows graceful restart (RFC 4724,
//! RFC 8538) as far as it concerns connections. It reads no clock and no socket.

mod conn;
mod end;
mod messages;
mod open;
mod opening;
mod peer;
mod timers;

pub use conn::ConnId;
pub use end::{Cause, Down};
pub use open::{Own, Session};
pub use peer::{Input, Output, Peer, Stop};

#[cfg(test)]
mod tests;

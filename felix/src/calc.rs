//! The calculation graph: from what the datastore says to what this node should hold.
//!
//! Pure: no kernel, no clock, no task. Updates go in, in any order and with references to what is not there yet;
//! [`Graph::flush`] gives the desired state that follows from the present ones. The same inputs give the same
//! output whatever their history, which [`naive`] checks by computing everything anew.
//!
//! ```text
//! WorkloadEndpoint, Profile ──► sets    (labels ─► members of the sets that active rules name) ──┐
//! NetworkPolicy, Tier       ──► policies (selector ─► local endpoints, ordered, resolved rules) ─┼─► plan::policy ─► Desired
//! block                     ──► routes  (own blocks, borrowed addresses, local workloads) ───────┘                └► announce
//! ```

pub mod endpoint;
pub mod graph;
pub mod labels;
pub mod naive;
pub mod policies;
pub mod routes;
pub mod rule;
pub mod sets;
pub mod settings;

pub use graph::{Graph, Output};

/// A short name for some bytes: 26 characters of `[a-z2-7]`, 128 bits of SHA-256, fit for kernel objects.
#[must_use]
pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = sha2::Sha256::digest(bytes);
    let mut name = String::with_capacity(26);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in hash.iter().take(16) {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            name.push(char::from(ALPHABET[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        name.push(char::from(ALPHABET[(bits << (5 - held)) as usize & 31]));
    }
    name
}

#[cfg(test)]
mod tests;

//! What the fuzzer calls in felix's netlink reader, and what the crate's own test replays the corpus through. The module that
//! includes this file has `wire`.

use super::wire;

/// A target's name and its entry.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Each target and its entry.
pub(crate) const TARGETS: &[Target] = &[("netlink_messages", messages)];

/// How deep attributes nest at most in what the kernel sends.
const DEPTH: usize = 8;

/// Messages of one datagram, and all that could be nested attributes in them: everything lies within the datagram.
pub(crate) fn messages(data: &[u8]) {
    let mut seen = 0;
    for message in wire::messages(data) {
        seen += wire::HEADER_LEN + message.payload.len();
        assert!(seen <= data.len() + 3, "messages overlap");
        for fixed in [0, 4, 12, 16] {
            attrs(message.payload.get(fixed..).unwrap_or_default(), DEPTH);
        }
    }
}

fn attrs(bytes: &[u8], depth: usize) {
    for (kind, payload) in wire::attrs(bytes) {
        assert!(payload.len() < bytes.len());
        let _ = (wire::find(bytes, kind), wire::text(payload), wire::be32(payload));
        if depth > 0 {
            attrs(payload, depth - 1);
        }
    }
}

//! Netlink messages as bytes: a builder for what is sent, iterators for what comes in. Pure.
//!
//! Sources: linux/netlink.h. Lengths and types are in host order, every message and attribute is padded to 4 bytes.

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Largest payload of one attribute: its length field has 16 bits and counts the attribute's own header.
pub(crate) const ATTR_MAX: usize = u16::MAX as usize - 4;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// One or more messages under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    bytes: Vec<u8>,
}

/// Where an open message or nest began; must be closed in reverse order.
#[must_use]
pub(crate) struct Open(usize);

impl Wire {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Starts a message whose fixed part is `body`.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, seq: u32, body: &[u8]) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.raw(body);
        Open(at)
    }

    pub(crate) fn end_message(&mut self, open: Open) {
        let len = u32::try_from(self.bytes.len() - open.0).expect("a batch stays below its bound of 64 MiB");
        self.patch(open.0, &len.to_ne_bytes());
    }

    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) {
        debug_assert!(payload.len() <= ATTR_MAX);
        let len = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(payload);
    }

    pub(crate) fn attr_u8(&mut self, kind: u16, v: u8) {
        self.attr(kind, &[v]);
    }

    pub(crate) fn attr_u32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_ne_bytes());
    }

    pub(crate) fn attr_be32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_be_bytes());
    }

    pub(crate) fn attr_be64(&mut self, kind: u16, v: u64) {
        self.attr(kind, &v.to_be_bytes());
    }

    /// A text with its NUL.
    pub(crate) fn attr_str(&mut self, kind: u16, v: &str) {
        let mut bytes = v.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    pub(crate) fn nest(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Open(at)
    }

    pub(crate) fn end_nest(&mut self, open: Open) {
        let len = self.bytes.len() - open.0;
        debug_assert!(len <= u16::MAX as usize);
        self.patch(open.0, &u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
    }

    /// Bytes since a nest was opened.
    pub(crate) fn since(&self, open: &Open) -> usize {
        self.bytes.len() - open.0
    }

    /// A nest filled by a closure.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let open = self.nest(kind);
        fill(self);
        self.end_nest(open);
    }

    /// Changes a 16-bit field that was already written.
    pub(crate) fn patch_u16(&mut self, at: usize, change: impl FnOnce(u16) -> u16) {
        if let Some(was) = u16_at(&self.bytes, at) {
            self.patch(at, &change(was).to_ne_bytes());
        }
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// One message that came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// The port whose request caused a notification: ours for our own changes.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Iterates over the messages of one datagram. Ends at the first that is malformed.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER_LEN..len)?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Iterates over attributes: type without its flags, payload. Ends at the first that is malformed.
pub(crate) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let payload = bytes.get(4..len)?;
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// A text without its NUL, lossy where it is not UTF-8.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(payload.get(..end).unwrap_or_default()).into_owned()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_round_trip() {
        let mut w = Wire::default();
        for seq in [7, 8] {
            let m = w.message(20, NLM_F_REQUEST, seq, &[1, 2, 3]);
            w.attr_str(1, "lo");
            w.nested(2, |w| w.attr_u32(3, 99));
            w.end_message(m);
        }
        let got: Vec<_> = messages(w.as_bytes()).collect();
        assert_eq!(
            got.iter().map(|m| (m.kind, m.seq)).collect::<Vec<_>>(),
            [(20, 7), (20, 8)]
        );
        let body = &got[1].payload[4..];
        assert_eq!(find(body, 1).map(text).as_deref(), Some("lo"));
        assert_eq!(
            find(find(body, 2).unwrap(), 3).and_then(|p| u32_at(p, 0)),
            Some(99)
        );
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_neither_panic_nor_loop(bytes: Vec<u8>) {
            proptest::prop_assert!(messages(&bytes).count() <= bytes.len());
            proptest::prop_assert!(attrs(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_length_of_zero_ends_the_iteration() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attrs(&[0; 64]).count(), 0);
    }
}

//! NOTIFICATION (RFC 4271 section 4.5): codes of RFC 4271, 4486, 6608, 7313, 8538, 9687 and shutdown texts (RFC 9003).

use super::header::{HEADER_LEN, MESSAGE_MAX, MessageType, message};
use crate::family::Family;
use std::fmt;

/// The longest Shutdown Communication (RFC 9003 section 2).
const SHUTDOWN_TEXT_MAX: usize = 255;

/// A NOTIFICATION, received or to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The subcode.
    pub subcode: u8,
    /// Data that goes with it.
    pub data: Vec<u8>,
}

impl Notification {
    /// Hold Timer Expired.
    pub const HOLD_TIMER: Self = Self::new(4, 0);
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER: Self = Self::new(8, 0);
    /// Cease, Peer De-configured.
    pub const DECONFIGURED: Self = Self::new(6, 3);
    /// Cease, Administrative Reset.
    pub const RESET: Self = Self::new(6, 4);
    /// Cease, Connection Rejected.
    pub const REJECTED: Self = Self::new(6, 5);
    /// Cease, Other Configuration Change.
    pub const CONFIG_CHANGE: Self = Self::new(6, 6);
    /// Cease, Connection Collision Resolution.
    pub const COLLISION: Self = Self::new(6, 7);
    /// Cease, Out of Resources.
    pub const OUT_OF_RESOURCES: Self = Self::new(6, 8);
    /// Cease, BFD Down (RFC 9384).
    pub const BFD_DOWN: Self = Self::new(6, 10);

    /// Cease, Maximum Number of Prefixes Reached, with the family and the bound (RFC 4486 section 4).
    #[must_use]
    pub fn max_prefixes(family: Family, max: u64) -> Self {
        let [high, low] = family.afi().to_be_bytes();
        let max = u32::try_from(max).unwrap_or(u32::MAX).to_be_bytes();
        Self::with(6, 1, &[&[high, low, family.safi()][..], &max].concat())
    }

    /// Cease, Maximum Number of Prefixes Reached, as such or inside a Hard Reset.
    #[must_use]
    pub fn is_max_prefixes(&self) -> bool {
        matches!(
            (self.code, self.subcode, &self.data[..]),
            (6, 1, _) | (6, 9, [6, 1, ..])
        )
    }

    /// Cease, Out of Resources, as such or inside a Hard Reset.
    #[must_use]
    pub fn is_out_of_resources(&self) -> bool {
        matches!(
            (self.code, self.subcode, &self.data[..]),
            (6, 8, _) | (6, 9, [6, 8, ..])
        )
    }

    /// A NOTIFICATION without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Vec::new(),
        }
    }

    /// A NOTIFICATION with data; what does not fit a message is cut off.
    #[must_use]
    pub fn with(code: u8, subcode: u8, data: &[u8]) -> Self {
        let data = data.iter().copied().take(MESSAGE_MAX - HEADER_LEN - 2).collect();
        Self { code, subcode, data }
    }

    /// Cease, Administrative Shutdown, with a text for the other operator (RFC 9003); cut at 255 octets, whole characters.
    #[must_use]
    pub fn shutdown(text: &str) -> Self {
        Self::with_text(2, text)
    }

    /// Cease, Administrative Reset, with a text for the other operator (RFC 9003).
    #[must_use]
    pub fn reset(text: &str) -> Self {
        Self::with_text(4, text)
    }

    fn with_text(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(SHUTDOWN_TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.as_bytes().get(..end).unwrap_or_default();
        let mut data = Vec::new();
        if !text.is_empty() {
            data.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            data.extend_from_slice(text);
        }
        Self {
            code: 6,
            subcode,
            data,
        }
    }

    /// Cease, Hard Reset (RFC 8538 section 3.1) around another NOTIFICATION.
    #[must_use]
    pub fn hard_reset(inner: &Self) -> Self {
        Self::with(6, 9, &[&[inner.code, inner.subcode], &inner.data[..]].concat())
    }

    /// Reads the body of a message; the framing has made sure of the two octets.
    #[must_use]
    pub fn decode(body: &[u8]) -> Self {
        match *body {
            [code, subcode, ref data @ ..] => Self::with(code, subcode, data),
            _ => Self::new(0, 0),
        }
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, MessageType::Notification, |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            out.extend_from_slice(&self.data);
        });
    }

    /// A Cease of any kind.
    #[must_use]
    pub const fn is_cease(&self) -> bool {
        self.code == 6
    }

    /// A Hard Reset: it ends graceful restart even under RFC 8538.
    #[must_use]
    pub const fn is_hard_reset(&self) -> bool {
        self.code == 6 && self.subcode == 9
    }

    /// Cease, BFD Down: packets do not reach the other end.
    #[must_use]
    pub const fn is_bfd_down(&self) -> bool {
        self.code == 6 && self.subcode == 10
    }

    /// The text of a shutdown or reset, also inside a Hard Reset, if there is a lawful one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let (len, rest) = match (self.code, self.subcode, &self.data[..]) {
            (6, 2 | 4, [len, rest @ ..]) | (6, 9, [6, 2 | 4, len, rest @ ..]) => (len, rest),
            _ => return None,
        };
        std::str::from_utf8(rest.get(..usize::from(*len))?)
            .ok()
            .filter(|t| !t.is_empty())
    }

    fn name(&self) -> &'static str {
        match (self.code, self.subcode) {
            (1, 1) => "connection not synchronised",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (1, _) => "message header error",
            (2, 1) => "unsupported version",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "unsupported capability",
            (2, 11) => "role mismatch",
            (2, _) => "OPEN message error",
            (3, 1) => "malformed attribute list",
            (3, 2) => "unrecognised well-known attribute",
            (3, 3) => "missing well-known attribute",
            (3, 4) => "attribute flags error",
            (3, 5) => "attribute length error",
            (3, 6) => "invalid ORIGIN",
            (3, 8) => "invalid NEXT_HOP",
            (3, 9) => "optional attribute error",
            (3, 10) => "invalid network field",
            (3, 11) => "malformed AS_PATH",
            (3, _) => "UPDATE message error",
            (4, _) => "hold timer expired",
            (5, 1) => "unexpected message in OpenSent",
            (5, 2) => "unexpected message in OpenConfirm",
            (5, 3) => "unexpected message in Established",
            (5, _) => "finite state machine error",
            (6, 1) => "maximum number of prefixes reached",
            (6, 2) => "administrative shutdown",
            (6, 3) => "peer de-configured",
            (6, 4) => "administrative reset",
            (6, 5) => "connection rejected",
            (6, 6) => "other configuration change",
            (6, 7) => "connection collision resolution",
            (6, 8) => "out of resources",
            (6, 9) => "hard reset",
            (6, 10) => "BFD down",
            (6, _) => "cease",
            (7, 1) => "invalid ROUTE-REFRESH length",
            (8, _) => "send hold timer expired",
            _ => "unknown error",
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, self.name())?;
        if let (true, [code, subcode, ..]) = (self.is_hard_reset(), &self.data[..]) {
            let inner = Self::new(*code, *subcode);
            write!(f, " ({code}/{subcode} {})", inner.name())?;
        }
        if let Some(text) = self.text() {
            // The text is the peer's: control characters do not reach a terminal.
            write!(f, ": {}", text.escape_debug())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_texts_are_cut_between_characters_and_come_back() {
        let n = Notification::shutdown(&"ü".repeat(200));
        assert_eq!(n.data.len(), 255);
        assert_eq!(n.text().map(|t| t.chars().count()), Some(127));
        assert_eq!(Notification::shutdown("").data, [0u8; 0]);
    }

    #[test]
    fn an_over_long_or_broken_shutdown_text_is_no_text() {
        // CVE-2019-16159: the length octet says more than there is.
        assert_eq!(Notification::with(6, 2, &[200, b'a']).text(), None);
        assert_eq!(Notification::with(6, 2, &[2, 0xff, 0xfe]).text(), None);
        assert_eq!(Notification::with(6, 2, &[]).text(), None);
        assert_eq!(Notification::with(6, 2, b"\x02hi").text(), Some("hi"));
        assert_eq!(
            Notification::hard_reset(&Notification::reset("hi")).text(),
            Some("hi")
        );
        assert_eq!(Notification::with(6, 9, &[6]).text(), None);
        assert_eq!(
            Notification::with(6, 1, b"\x02hi").text(),
            None,
            "only 2 and 4 have one"
        );
    }

    #[test]
    fn it_names_itself_without_control_characters() {
        let n = Notification::with(6, 2, b"\x02\x1bc");
        assert_eq!(n.to_string(), "6/2 administrative shutdown: \\u{1b}c");
        let hard = Notification::hard_reset(&Notification::shutdown("bye"));
        assert_eq!(
            hard.to_string(),
            "6/9 hard reset (6/2 administrative shutdown): bye"
        );
        assert_eq!(
            Notification::decode(&[4, 0]).to_string(),
            "4/0 hold timer expired"
        );
    }
}

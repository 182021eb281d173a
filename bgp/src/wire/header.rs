//! The message header and framing (RFC 4271 sections 4.1 and 6.1).

use super::notification::Notification;

/// Octets of the header.
pub const HEADER_LEN: usize = 19;
/// The longest message without RFC 8654.
pub const MESSAGE_MAX: usize = 4096;
/// The longest message with RFC 8654, but for OPEN and KEEPALIVE.
pub const MESSAGE_MAX_EXTENDED: usize = 65_535;

/// The five message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Type 1.
    Open,
    /// Type 2.
    Update,
    /// Type 3.
    Notification,
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918).
    RouteRefresh,
}

impl MessageType {
    /// The octet of the header.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    const fn length_min(self) -> usize {
        match self {
            Self::Open => 29,
            Self::Update | Self::RouteRefresh => 23,
            Self::Notification => 21,
            Self::Keepalive => HEADER_LEN,
        }
    }
}

/// What makes a header unusable: NOTIFICATION code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The marker is not all ones.
    #[error("connection not synchronised: the marker is not all ones")]
    ConnectionNotSynchronised,
    /// Shorter than its type allows, or longer than the session does.
    #[error("bad message length {0}")]
    BadLength(u16),
    /// No such type.
    #[error("bad message type {0}")]
    BadType(u8),
}

impl HeaderError {
    /// What goes back to the peer.
    #[must_use]
    pub fn notification(self) -> Notification {
        match self {
            Self::ConnectionNotSynchronised => Notification::new(1, 1),
            Self::BadLength(len) => Notification::with(1, 2, &len.to_be_bytes()),
            Self::BadType(kind) => Notification::with(1, 3, &[kind]),
        }
    }
}

/// The first message in `buf`: its type and whole length, or `None` if the header is not yet complete. The message itself
/// may still be incomplete.
///
/// # Errors
/// [`HeaderError`]; nothing after it can be trusted.
pub fn peek(buf: &[u8], message_max: usize) -> Result<Option<(MessageType, usize)>, HeaderError> {
    let Some((marker, rest)) = buf.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [high, low, kind, ..] = *rest else {
        return Ok(None);
    };
    if *marker != [0xff; 16] {
        return Err(HeaderError::ConnectionNotSynchronised);
    }
    let length = u16::from_be_bytes([high, low]);
    let len = usize::from(length);
    if !(HEADER_LEN..=message_max).contains(&len) {
        return Err(HeaderError::BadLength(length));
    }
    let kind = match kind {
        1 => MessageType::Open,
        2 => MessageType::Update,
        3 => MessageType::Notification,
        4 => MessageType::Keepalive,
        5 => MessageType::RouteRefresh,
        other => return Err(HeaderError::BadType(other)),
    };
    let over = (kind == MessageType::Keepalive && len != HEADER_LEN)
        || (kind == MessageType::Open && len > MESSAGE_MAX);
    // A short ROUTE-REFRESH is its own error (RFC 7313 section 5), told by its decoder.
    if over || (len < kind.length_min() && kind != MessageType::RouteRefresh) {
        return Err(HeaderError::BadLength(length));
    }
    Ok(Some((kind, len)))
}

/// Appends a message of this type whose body `body` writes. The caller keeps within the session's maximum.
pub fn message(out: &mut Vec<u8>, kind: MessageType, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.code()]);
    body(out);
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + 16..start + 18) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    message(out, MessageType::Keepalive, |_| ());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u16, kind: u8) -> Vec<u8> {
        [&[0xff; 16][..], &len.to_be_bytes(), &[kind]].concat()
    }

    #[test]
    fn a_header_tells_type_and_length() {
        assert_eq!(
            peek(&header(19, 4), MESSAGE_MAX),
            Ok(Some((MessageType::Keepalive, 19)))
        );
        assert_eq!(
            peek(&header(4096, 2), MESSAGE_MAX),
            Ok(Some((MessageType::Update, 4096)))
        );
        assert_eq!(peek(&header(19, 4)[..18], MESSAGE_MAX), Ok(None));
    }

    #[test]
    fn bad_headers_carry_the_rfcs_codes_and_data() {
        let bad = |buf: &[u8]| peek(buf, MESSAGE_MAX).unwrap_err().notification();
        let mut unsynchronised = header(19, 4);
        unsynchronised[3] = 0;
        assert_eq!(bad(&unsynchronised), Notification::new(1, 1));
        assert_eq!(bad(&header(18, 4)), Notification::with(1, 2, &[0, 18]));
        assert_eq!(bad(&header(20, 4)), Notification::with(1, 2, &[0, 20]));
        assert_eq!(bad(&header(4097, 2)), Notification::with(1, 2, &[16, 1]));
        assert_eq!(bad(&header(22, 2)), Notification::with(1, 2, &[0, 22]));
        assert_eq!(bad(&header(28, 1)), Notification::with(1, 2, &[0, 28]));
        assert_eq!(bad(&header(19, 6)), Notification::with(1, 3, &[6]));
    }

    #[test]
    fn extended_messages_are_for_all_but_open_and_keepalive() {
        let long = |kind| peek(&header(65_535, kind), MESSAGE_MAX_EXTENDED);
        for (kind, expected) in [
            (2, MessageType::Update),
            (3, MessageType::Notification),
            (5, MessageType::RouteRefresh),
        ] {
            assert_eq!(long(kind), Ok(Some((expected, 65_535))));
        }
        assert_eq!(long(1), Err(HeaderError::BadLength(65_535)));
        assert_eq!(long(4), Err(HeaderError::BadLength(65_535)));
    }
}

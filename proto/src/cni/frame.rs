//! Framing on `cni.sock`: a 32-bit big-endian length, then one message.

use prost::Message;

/// Bytes of the length in front of a message.
pub const LENGTH_BYTES: usize = 4;

/// Largest message. A CNI configuration is at most 1 MiB and only parts of it travel; a garbage collection that
/// names every attachment of a full node stays far below.
pub const FRAME_MAX: usize = 2 * 1024 * 1024;

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`FRAME_MAX`].
    #[error("message of {0} bytes is longer than {FRAME_MAX}")]
    TooLong(usize),
    /// Not the protobuf message that was expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// The message with its length in front.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let len = message.encoded_len();
    let prefix = u32::try_from(len)
        .ok()
        .filter(|_| len <= FRAME_MAX)
        .ok_or(FrameError::TooLong(len))?;
    let mut out = Vec::with_capacity(LENGTH_BYTES + len);
    out.extend_from_slice(&prefix.to_be_bytes());
    message.encode_raw(&mut out);
    Ok(out)
}

/// How many bytes follow the length.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn payload_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > FRAME_MAX {
        Err(FrameError::TooLong(len))
    } else {
        Ok(len)
    }
}

/// The message in what followed the length.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, FrameError> {
    Ok(M::decode(payload)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{Attachment, Del, Request, request::Op};

    fn del() -> Request {
        let attachment = Attachment {
            container_id: "c1".into(),
            ..Attachment::default()
        };
        Request {
            op: Some(Op::Del(Del {
                attachment: Some(attachment),
                replayed: false,
            })),
        }
    }

    #[test]
    fn a_frame_round_trips() {
        let bytes = encode(&del()).unwrap();
        let (prefix, payload) = bytes.split_first_chunk::<LENGTH_BYTES>().unwrap();
        assert_eq!(payload_length(*prefix).unwrap(), payload.len());
        assert_eq!(decode::<Request>(payload).unwrap(), del());
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
        assert_eq!(payload_length([0xff; 4]), Err(FrameError::TooLong(0xffff_ffff)));
        assert_eq!(payload_length([0, 0, 0, 0]), Ok(0));
    }

    #[test]
    fn a_message_beyond_the_bound_is_not_sent() {
        let mut request = del();
        if let Some(Op::Del(d)) = &mut request.op {
            d.attachment = Some(Attachment {
                netns: "x".repeat(FRAME_MAX),
                ..Attachment::default()
            });
        }
        assert!(matches!(encode(&request), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn garbage_is_an_error_and_an_unknown_field_is_not() {
        assert!(matches!(
            decode::<Request>(&[0xff, 0xff, 0xff]),
            Err(FrameError::Malformed(_))
        ));
        // Field 99, varint 1: what a newer plugin may say.
        assert_eq!(
            decode::<Request>(&[0x98, 0x06, 0x01]).unwrap(),
            Request::default()
        );
    }
}

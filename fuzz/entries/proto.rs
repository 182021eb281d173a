//! What the fuzzer calls in twill-proto, and what the crate's own test replays the corpus through.

use twill_proto::cni::{self, LENGTH_BYTES, Reply, Request};

/// A target's name and its entry.
pub type Target = (&'static str, fn(&[u8]));

/// Each target and its entry.
pub const TARGETS: &[Target] = &[("cni_request", request), ("cni_reply", reply)];

/// A request on `cni.sock`, with its length in front: what is read comes back.
pub fn request(data: &[u8]) {
    if let Some(payload) = payload(data)
        && let Ok(read) = cni::decode::<Request>(payload)
    {
        let octets = cni::encode(&read).expect("what was read is not too long");
        assert_eq!(cni::decode::<Request>(&octets[LENGTH_BYTES..]), Ok(read));
    }
}

/// A reply, likewise.
pub fn reply(data: &[u8]) {
    if let Some(payload) = payload(data)
        && let Ok(read) = cni::decode::<Reply>(payload)
    {
        let octets = cni::encode(&read).expect("what was read is not too long");
        assert_eq!(cni::decode::<Reply>(&octets[LENGTH_BYTES..]), Ok(read));
    }
}

fn payload(data: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = data.split_first_chunk::<LENGTH_BYTES>()?;
    let len = cni::payload_length(*prefix).ok()?;
    Some(rest.get(..len).unwrap_or(rest))
}

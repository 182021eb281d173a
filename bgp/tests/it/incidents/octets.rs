//! Messages octet by octet, lawful or not.

use super::{Message, THEIR, Trigger, TwoOctets};
use twill_bgp::wire::header::{self, MessageType};

pub(super) const NLRI: &[u8] = &[24, 198, 18, 5];
pub(super) const SOUND: &[u8] = &[24, 198, 51, 100];

pub(super) fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    match u8::try_from(value.len()) {
        Ok(short) if flags & 0x10 == 0 => [&[flags, code, short], value].concat(),
        _ => [&[flags | 0x10, code], &len[..], value].concat(),
    }
}

pub(super) fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    header::message(&mut out, kind, |out| out.extend_from_slice(body));
    out
}

pub(super) fn update(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = |x: &[u8]| u16::try_from(x.len()).unwrap().to_be_bytes();
    let body = [&len(withdrawn)[..], withdrawn, &len(attrs), attrs, nlri].concat();
    message(MessageType::Update, &body)
}

pub(super) fn path(asns: usize) -> Vec<u8> {
    let asn = u32::from(THEIR).to_be_bytes();
    let segments = (0..asns).collect::<Vec<_>>();
    let segments = segments
        .chunks(255)
        .map(|s| [&[2, s.len() as u8][..], &asn.repeat(s.len())].concat());
    attr(0x40, 2, &segments.collect::<Vec<_>>().concat())
}

pub(super) fn mandatory(path: &[u8]) -> Vec<u8> {
    [&attr(0x40, 1, &[0])[..], path, &attr(0x40, 3, &[10, 0, 0, 2])].concat()
}

/// A sound route with one more attribute.
pub(super) fn with(flags: u8, code: u8, value: &[u8]) -> Trigger {
    Message(update(
        &[],
        &[&mandatory(&path(1))[..], &attr(flags, code, value)].concat(),
        NLRI,
    ))
}

/// A route with this path.
pub(super) fn along(path: &[u8]) -> Trigger {
    Message(update(&[], &mandatory(path), NLRI))
}

/// A route of a two-octet speaker with this in front of its other attributes.
pub(super) fn two_octets(first: &[u8]) -> Trigger {
    let path = attr(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    TwoOctets(update(&[], &[first, &mandatory(&path)].concat(), NLRI))
}

pub(super) fn refresh(body: &[u8]) -> Trigger {
    Message(message(MessageType::RouteRefresh, body))
}

/// An OPEN whose only parameter holds these capabilities.
pub(super) fn capabilities(octets: &[u8]) -> Trigger {
    Trigger::Open([&[2, octets.len() as u8], octets].concat())
}

/// Path attributes that are no list, and a prefix behind them.
pub(super) fn list(attrs: &[u8]) -> Trigger {
    Message(update(&[], attrs, NLRI))
}

pub(super) fn open_body(parameters: &[u8]) -> Vec<u8> {
    let [high, low] = THEIR.to_be_bytes();
    let head = [4, high, low, 0, 90, 10, 0, 0, 2, parameters.len() as u8];
    [&head, parameters].concat()
}

/// The parameters of a sound OPEN.
pub(super) fn sound(two_octets: bool) -> Vec<u8> {
    let mut caps = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 6, 0, 64, 2, 0, 120];
    if !two_octets {
        caps.extend([65, 4, 0, 0]);
        caps.extend(THEIR.to_be_bytes());
    }
    [&[2, caps.len() as u8], &caps[..]].concat()
}

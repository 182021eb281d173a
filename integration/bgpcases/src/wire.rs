//! BGP messages written by hand, octet by octet, lawful or not. Nothing here is shared with the speaker under test, so a mistake
//! in its encoder cannot hide behind the same mistake in its decoder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
pub(crate) const REFRESH: u8 = 5;

/// Octets of a header.
pub(crate) const HEADER: usize = 19;

/// A message with the length that it has.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    raw(u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX), kind, body)
}

/// A message that claims a length.
pub(crate) fn raw(claimed: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff; 16][..], &claimed.to_be_bytes(), &[kind], body].concat()
}

pub(crate) fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

pub(crate) fn notification(code: u8, subcode: u8, data: &[u8]) -> Vec<u8> {
    message(NOTIFICATION, &[&[code, subcode], data].concat())
}

pub(crate) fn refresh(afi: u16, subtype: u8) -> Vec<u8> {
    let [high, low] = afi.to_be_bytes();
    message(REFRESH, &[high, low, subtype, 1])
}

/// A capability: code and value.
pub(crate) type Capability = (u8, Vec<u8>);

/// An OPEN, any field of which may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) version: u8,
    /// The two-octet field.
    pub(crate) asn: u16,
    pub(crate) hold_secs: u16,
    pub(crate) id: Ipv4Addr,
    pub(crate) capabilities: Vec<Capability>,
    /// Instead of the capabilities: everything behind the identifier, with its length octet.
    pub(crate) parameters: Option<Vec<u8>>,
}

impl Open {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.version];
        body.extend(self.asn.to_be_bytes());
        body.extend(self.hold_secs.to_be_bytes());
        body.extend(self.id.octets());
        match &self.parameters {
            Some(parameters) => body.extend(parameters),
            None => body.extend(classic(&triples(&self.capabilities))),
        }
        message(OPEN, &body)
    }

    /// Adds a capability, or puts it in the place of the one with its code.
    pub(crate) fn set(&mut self, code: u8, value: &[u8]) {
        self.capabilities.retain(|(c, _)| *c != code);
        self.capabilities.push((code, value.to_vec()));
    }

    /// It says that AS numbers are of four octets.
    pub(crate) fn wide(&self) -> bool {
        match &self.parameters {
            Some(octets) => octets.windows(2).any(|w| w == [65, 4]),
            None => self.capabilities.iter().any(|(c, v)| *c == 65 && v.len() == 4),
        }
    }

    /// It takes path identifiers in front of IPv4 prefixes.
    pub(crate) fn path_ids(&self) -> bool {
        let mode = |(c, v): &Capability| *c == 69 && matches!(v[..], [0, 1, 1, 1 | 3]);
        self.capabilities.iter().any(mode)
    }

    pub(crate) fn without(&mut self, code: u8) {
        self.capabilities.retain(|(c, _)| *c != code);
    }
}

/// Capabilities one behind the other.
pub(crate) fn triples(capabilities: &[Capability]) -> Vec<u8> {
    let of = |(code, value): &Capability| [&[*code, octet(value.len())], &value[..]].concat();
    capabilities.iter().flat_map(of).collect()
}

/// Optional parameters of RFC 4271: one, with these capabilities.
pub(crate) fn classic(triples: &[u8]) -> Vec<u8> {
    [&[octet(triples.len() + 2), 2, octet(triples.len())], triples].concat()
}

/// Optional parameters of RFC 9072: one, with these capabilities.
pub(crate) fn extended(triples: &[u8]) -> Vec<u8> {
    let two = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
    let parameter = [&[2], &two(triples.len())[..], triples].concat();
    [&[255, 255], &two(parameter.len())[..], &parameter].concat()
}

fn octet(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

/// An attribute with these flags; two octets of length where one does not do or the flags say so.
pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    match u8::try_from(value.len()) {
        Ok(len) if flags & 0x10 == 0 => [&[flags, code, len], value].concat(),
        _ => {
            let len = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
            [&[flags | 0x10, code], &len[..], value].concat()
        }
    }
}

/// An AS_SEQUENCE of four-octet numbers, in as many segments as it takes; nothing for no numbers.
pub(crate) fn sequence(asns: &[u32]) -> Vec<u8> {
    let segment = |part: &[u32]| {
        let numbers = part.iter().flat_map(|a| a.to_be_bytes());
        [2, octet(part.len())]
            .into_iter()
            .chain(numbers)
            .collect::<Vec<_>>()
    };
    asns.chunks(255).flat_map(segment).collect()
}

/// One segment of any type, with the count given.
pub(crate) fn segment(kind: u8, count: u8, asns: &[u32]) -> Vec<u8> {
    let numbers = asns.iter().flat_map(|a| a.to_be_bytes());
    [kind, count].into_iter().chain(numbers).collect()
}

/// A prefix: `(length, octets)` as it stands in NLRI, and whether it is IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    pub(crate) v6: bool,
    /// 0 without add-path.
    pub(crate) path_id: u32,
    pub(crate) nlri: Vec<u8>,
}

impl Prefix {
    pub(crate) fn v4(octets: [u8; 4], len: u8) -> Self {
        let whole = usize::from(len).div_ceil(8);
        Self {
            v6: false,
            path_id: 0,
            nlri: [&[len], octets.get(..whole).unwrap_or_default()].concat(),
        }
    }

    pub(crate) fn v6(address: Ipv6Addr, len: u8) -> Self {
        let whole = usize::from(len).div_ceil(8);
        Self {
            v6: true,
            path_id: 0,
            nlri: [&[len], address.octets().get(..whole).unwrap_or_default()].concat(),
        }
    }

    pub(crate) fn with_id(&self, path_id: u32) -> Self {
        Self {
            path_id,
            ..self.clone()
        }
    }

    /// With its identifier in front.
    pub(crate) fn with_path_id(&self) -> Vec<u8> {
        [&self.path_id.to_be_bytes()[..], &self.nlri].concat()
    }
}

/// MP_REACH_NLRI of a unicast family.
pub(crate) fn mp_reach(afi: u16, safi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let head = [&afi.to_be_bytes()[..], &[safi, octet(next_hop.len())]].concat();
    [&head, next_hop, &[0], nlri].concat()
}

/// MP_UNREACH_NLRI of IPv6 unicast.
pub(crate) fn mp_unreach(nlri: &[u8]) -> Vec<u8> {
    [&[0, 2, 1], nlri].concat()
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An UPDATE in its parts, any of which may be wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Update {
    pub(crate) withdrawn: Vec<u8>,
    /// Code and encoded attribute, in order.
    pub(crate) attributes: Vec<(u8, Vec<u8>)>,
    pub(crate) nlri: Vec<u8>,
    /// Instead of the true length of withdrawn routes.
    pub(crate) withdrawn_length: Option<u16>,
    /// Instead of the true length of the attributes.
    pub(crate) attributes_length: Option<u16>,
}

impl Update {
    pub(crate) fn encode(&self) -> Vec<u8> {
        message(UPDATE, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let list: Vec<u8> = self.attributes.iter().flat_map(|(_, a)| a.clone()).collect();
        let two = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let withdrawn_length = self.withdrawn_length.unwrap_or(two(self.withdrawn.len()));
        let length = self.attributes_length.unwrap_or(two(list.len()));
        [
            &withdrawn_length.to_be_bytes()[..],
            &self.withdrawn,
            &length.to_be_bytes(),
            &list,
            &self.nlri,
        ]
        .concat()
    }

    /// Puts an attribute in the place of the one with its code, or behind all others.
    pub(crate) fn set(&mut self, flags: u8, code: u8, value: &[u8]) {
        let encoded = attribute(flags, code, value);
        match self.attributes.iter_mut().find(|(c, _)| *c == code) {
            Some((_, old)) => *old = encoded,
            None => self.attributes.push((code, encoded)),
        }
    }

    /// Adds an attribute behind all others, also if there is one of its code.
    pub(crate) fn add(&mut self, flags: u8, code: u8, value: &[u8]) {
        self.attributes.push((code, attribute(flags, code, value)));
    }

    /// Adds octets behind all attributes that are none.
    pub(crate) fn add_raw(&mut self, octets: &[u8]) {
        self.attributes.push((0, octets.to_vec()));
    }

    pub(crate) fn remove(&mut self, code: u8) {
        self.attributes.retain(|(c, _)| *c != code);
    }

    /// Another value for an attribute that is there, with its flags as they are.
    pub(crate) fn value(&mut self, code: u8, value: &[u8]) {
        let flags = self.attributes.iter().find(|(c, _)| *c == code);
        let flags = flags.and_then(|(_, a)| a.first().copied()).unwrap_or(0x40);
        self.set(flags & !0x10, code, value);
    }

    /// Other flags for an attribute that is there.
    pub(crate) fn flags(&mut self, code: u8, flags: u8) {
        if let Some((_, encoded)) = self.attributes.iter_mut().find(|(c, _)| *c == code)
            && let Some(first) = encoded.first_mut()
        {
            *first = (*first & 0x10) | flags;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_rfc_draws_them() {
        assert_eq!(keepalive(), [vec![0xff; 16], vec![0, 19, 4]].concat());
        assert_eq!(attribute(0x40, 1, &[0]), [0x40, 1, 1, 0]);
        assert_eq!(attribute(0x50, 1, &[0]), [0x50, 1, 0, 1, 0]);
        assert_eq!(sequence(&[1, 2]), [2, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(sequence(&[7; 256]).len(), 2 + 255 * 4 + 2 + 4);
        assert_eq!(Prefix::v4([10, 1, 2, 0], 23).nlri, [23, 10, 1, 2]);
        assert_eq!(extended(&[2, 0]), [255, 255, 0, 5, 2, 0, 2, 2, 0]);
        let update = Update {
            nlri: vec![8, 10],
            ..Update::default()
        };
        assert_eq!(update.encode()[19..], [0, 0, 0, 0, 8, 10]);
    }
}

//! What the daemon sends, read by hand and held to the RFCs: every UPDATE must be lawful towards the peer that gets it.

use crate::roles::{DUT_AS, Role};
use crate::wire::Prefix;
use std::net::Ipv4Addr;

/// One attribute as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) flags: u8,
    pub(crate) code: u8,
    pub(crate) value: Vec<u8>,
}

/// A route as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) attrs: Vec<Attr>,
    /// From NEXT_HOP or MP_REACH_NLRI.
    pub(crate) next_hop: Vec<u8>,
}

impl Route {
    pub(crate) fn attr(&self, code: u8) -> Option<&Attr> {
        self.attrs.iter().find(|a| a.code == code)
    }

    pub(crate) fn value(&self, code: u8) -> Option<&[u8]> {
        self.attr(code).map(|a| a.value.as_slice())
    }

    pub(crate) fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(code)?.try_into().ok()?))
    }

    /// The numbers of all segments in order, whatever their type.
    pub(crate) fn path(&self) -> Vec<u32> {
        path(self.value(2).unwrap_or_default(), 4).unwrap_or_default()
    }
}

/// What one UPDATE says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) announced: Vec<Prefix>,
    pub(crate) withdrawn: Vec<Prefix>,
    pub(crate) route: Route,
    /// Next hop of the IPv6 prefixes.
    pub(crate) next_hop_v6: Vec<u8>,
    /// `Some(v6)`: End-of-RIB.
    pub(crate) end_of_rib: Option<bool>,
}

/// What decides how an UPDATE is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) role: Role,
    pub(crate) four_octet_as: bool,
    /// Of IPv4 prefixes.
    pub(crate) path_ids: bool,
    pub(crate) message_max: usize,
}

/// Reads an UPDATE; the error says what is unlawful about it.
pub(crate) fn update(body: &[u8], terms: Terms) -> Result<Said, String> {
    let (withdrawn, rest) = block(body).ok_or("withdrawn length beyond the message")?;
    let (mut list, nlri) = block(rest).ok_or("attribute length beyond the message")?;
    let mut said = Said::default();
    prefixes(withdrawn, false, terms.path_ids, &mut said.withdrawn)?;
    prefixes(nlri, false, terms.path_ids, &mut said.announced)?;
    if body.len() == 4 {
        said.end_of_rib = Some(false);
        return Ok(said);
    }
    while !list.is_empty() {
        let attr;
        (attr, list) = split(list).ok_or("attributes overrun")?;
        if said.route.attr(attr.code).is_some() {
            return Err(format!("attribute {} twice", attr.code));
        }
        flags(&attr)?;
        said.route.attrs.push(attr);
    }
    multiprotocol(&mut said, terms)?;
    if !said.announced.is_empty() {
        lawful(&said.route, terms)?;
    }
    if !nlri.is_empty() {
        let next_hop = said.route.value(3).ok_or("no NEXT_HOP")?;
        if next_hop.len() != 4 {
            return Err("NEXT_HOP is not of four octets".into());
        }
        said.route.next_hop = next_hop.to_vec();
    }
    Ok(said)
}

fn multiprotocol(said: &mut Said, terms: Terms) -> Result<(), String> {
    if let Some(value) = said.route.value(15).map(<[u8]>::to_vec) {
        let [0, afi @ (1 | 2), 1, nlri @ ..] = &value[..] else {
            return Err("MP_UNREACH_NLRI of a family not agreed on".into());
        };
        prefixes(nlri, *afi == 2, terms.path_ids && *afi == 1, &mut said.withdrawn)?;
        if nlri.is_empty() && said.announced.is_empty() {
            said.end_of_rib = Some(*afi == 2);
        }
    }
    if let Some(value) = said.route.value(14).map(<[u8]>::to_vec) {
        let [0, afi @ (1 | 2), 1, len, rest @ ..] = &value[..] else {
            return Err("MP_REACH_NLRI of a family not agreed on".into());
        };
        let (next_hop, rest) = rest.split_at_checked((*len).into()).ok_or("next hop overruns")?;
        let [0, nlri @ ..] = rest else {
            return Err("reserved octet is not zero".into());
        };
        if *afi == 2 && !matches!(len, 16 | 32) {
            return Err(format!("IPv6 next hop of {len} octets"));
        }
        said.next_hop_v6 = next_hop.to_vec();
        prefixes(nlri, *afi == 2, terms.path_ids && *afi == 1, &mut said.announced)?;
    }
    Ok(())
}

/// The flags that each attribute's RFC demands.
fn flags(attr: &Attr) -> Result<(), String> {
    let expected = match attr.code {
        1 | 2 | 3 | 5 | 6 => 0x40,
        4 | 9 | 10 | 14 | 15 | 26 => 0x80,
        7 | 8 | 16 | 17 | 18 | 25 | 32 | 35 => 0xc0,
        _ => return Ok(()),
    };
    if attr.flags & 0xc0 != expected {
        return Err(format!("attribute {} with flags {:#x}", attr.code, attr.flags));
    }
    if attr.flags & 0x0f != 0 {
        return Err(format!("attribute {} with unused flags set", attr.code));
    }
    Ok(())
}

/// What every route must have towards this peer, and must not.
fn lawful(route: &Route, terms: Terms) -> Result<(), String> {
    let origin = route.value(1).ok_or("no ORIGIN")?;
    if !matches!(origin, [0..=2]) {
        return Err(format!("ORIGIN {origin:?}"));
    }
    let width = if terms.four_octet_as { 4 } else { 2 };
    let asns = path(route.value(2).ok_or("no AS_PATH")?, width)?;
    if asns.contains(&0) {
        return Err("AS 0 in AS_PATH".into());
    }
    if terms.four_octet_as && (route.attr(17).is_some() || route.attr(18).is_some()) {
        return Err("AS4 attribute to a four-octet speaker".into());
    }
    for (code, unit) in [(8, 4), (10, 4), (16, 8), (25, 20), (32, 12)] {
        if let Some(value) = route.value(code)
            && (value.is_empty() || value.len() % unit != 0)
        {
            return Err(format!("attribute {code} of {} octets", value.len()));
        }
    }
    if terms.role.internal() {
        if route.number(5).is_none() {
            return Err("no LOCAL_PREF to an internal peer".into());
        }
        return Ok(());
    }
    if asns.first() != Some(&DUT_AS) {
        return Err(format!("AS_PATH {asns:?} does not start with the daemon's AS"));
    }
    let forbidden = [5, 9, 10].into_iter().find(|c| route.attr(*c).is_some());
    forbidden.map_or(Ok(()), |code| {
        Err(format!("attribute {code} to an external peer"))
    })
}

fn path(mut value: &[u8], width: usize) -> Result<Vec<u32>, String> {
    let mut asns = Vec::new();
    while let [kind, count, rest @ ..] = value {
        if !matches!(kind, 1 | 2) || *count == 0 {
            return Err(format!("AS_PATH segment of type {kind} and {count} numbers"));
        }
        let (numbers, rest) = rest
            .split_at_checked(usize::from(*count) * width)
            .ok_or("AS_PATH overruns")?;
        let number = |n: &[u8]| n.iter().fold(0, |sum, o| sum << 8 | u32::from(*o));
        asns.extend(numbers.chunks(width).map(number));
        value = rest;
    }
    if value.is_empty() {
        Ok(asns)
    } else {
        Err("AS_PATH overruns".into())
    }
}

fn block(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

fn split(list: &[u8]) -> Option<(Attr, &[u8])> {
    let (flags, code, len, rest) = match list {
        [flags, code, high, low, rest @ ..] if flags & 0x10 != 0 => {
            (*flags, *code, u16::from_be_bytes([*high, *low]).into(), rest)
        }
        [flags, code, len, rest @ ..] if flags & 0x10 == 0 => (*flags, *code, usize::from(*len), rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    let value = value.to_vec();
    Some((Attr { flags, code, value }, rest))
}

fn prefixes(mut field: &[u8], v6: bool, ids: bool, into: &mut Vec<Prefix>) -> Result<(), String> {
    while !field.is_empty() {
        let mut path_id = 0;
        if ids {
            let (id, rest) = field.split_first_chunk::<4>().ok_or("path identifier cut")?;
            (path_id, field) = (u32::from_be_bytes(*id), rest);
        }
        let len = *field.first().ok_or("prefix cut")?;
        if len > if v6 { 128 } else { 32 } {
            return Err(format!("prefix length {len}"));
        }
        let octets = 1 + usize::from(len).div_ceil(8);
        let (nlri, rest) = field.split_at_checked(octets).ok_or("prefix cut")?;
        let spare = (8 - len % 8) % 8;
        if nlri
            .last()
            .is_some_and(|last| octets > 1 && last & ((1_u16 << spare) - 1).to_be_bytes()[1] != 0)
        {
            return Err("bits behind a prefix".into());
        }
        into.push(Prefix {
            v6,
            path_id,
            nlri: nlri.to_vec(),
        });
        field = rest;
    }
    Ok(())
}

/// The fields of an OPEN.
#[derive(Clone, Debug)]
pub(crate) struct SeenOpen {
    pub(crate) version: u8,
    pub(crate) asn: u16,
    pub(crate) hold_secs: u16,
    pub(crate) id: Ipv4Addr,
    pub(crate) capabilities: Vec<(u8, Vec<u8>)>,
}

impl SeenOpen {
    pub(crate) fn capability(&self, code: u8) -> Option<&[u8]> {
        let found = self.capabilities.iter().find(|(c, _)| *c == code);
        found.map(|(_, value)| value.as_slice())
    }
}

/// Reads an OPEN with classic parameters.
pub(crate) fn open(body: &[u8]) -> Result<SeenOpen, String> {
    let &[version, a, b, c, d, e, f, g, h, len, ref rest @ ..] = body else {
        return Err("short OPEN".into());
    };
    if rest.len() != usize::from(len) {
        return Err("OPEN with a wrong parameter length".into());
    }
    let (mut parameters, mut capabilities) = (rest, Vec::new());
    while let [2, len, rest @ ..] = parameters {
        let (mut value, rest) = rest.split_at_checked((*len).into()).ok_or("parameter overruns")?;
        while let [code, len, rest @ ..] = value {
            let (own, rest) = rest
                .split_at_checked((*len).into())
                .ok_or("capability overruns")?;
            capabilities.push((*code, own.to_vec()));
            value = rest;
        }
        parameters = rest;
    }
    if !parameters.is_empty() {
        return Err("unknown optional parameter".into());
    }
    Ok(SeenOpen {
        version,
        asn: u16::from_be_bytes([a, b]),
        hold_secs: u16::from_be_bytes([c, d]),
        id: Ipv4Addr::new(e, f, g, h),
        capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HEADER, Update, sequence};

    const EXTERNAL: Terms = Terms {
        role: Role::Observer,
        four_octet_as: true,
        path_ids: false,
        message_max: 4096,
    };

    fn sound() -> Update {
        let mut update = Update {
            nlri: vec![24, 198, 51, 100],
            ..Update::default()
        };
        update.set(0x40, 1, &[0]);
        update.set(0x40, 2, &sequence(&[DUT_AS, 65001]));
        update.set(0x40, 3, &[10, 99, 0, 1]);
        update
    }

    fn verdict(change: impl FnOnce(&mut Update), terms: Terms) -> Result<Said, String> {
        let mut changed = sound();
        change(&mut changed);
        update(changed.encode().get(HEADER..).unwrap(), terms)
    }

    #[test]
    fn a_sound_update_is_lawful() {
        let said = verdict(|_| (), EXTERNAL).unwrap();
        assert_eq!(said.announced, [Prefix::v4([198, 51, 100, 0], 24)]);
        assert_eq!(
            (said.route.path(), said.route.next_hop),
            (vec![DUT_AS, 65001], vec![10, 99, 0, 1])
        );
    }

    #[test]
    fn every_unlawful_thing_is_found() {
        let changes: [fn(&mut Update); 12] = [
            |u| u.remove(1),
            |u| u.value(1, &[3]),
            |u| u.value(2, &[]),
            |u| u.value(2, &sequence(&[65001])),
            |u| u.value(2, &sequence(&[DUT_AS, 0])),
            |u| u.value(2, &[2, 9]),
            |u| u.remove(3),
            |u| u.set(0x40, 5, &[0, 0, 0, 1]),
            |u| u.flags(1, 0xc0),
            |u| u.set(0xc0, 8, &[]),
            |u| u.nlri = vec![33, 1, 2, 3, 4, 5],
            |u| u.nlri = vec![23, 198, 51, 101],
        ];
        for (place, change) in changes.into_iter().enumerate() {
            assert!(verdict(change, EXTERNAL).is_err(), "{place}");
        }
        let internal = Terms {
            role: Role::Client,
            ..EXTERNAL
        };
        assert!(verdict(|_| (), internal).is_err(), "no LOCAL_PREF");
    }
}

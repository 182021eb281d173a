//! Capabilities (RFC 5492): what an OPEN offers. A capability that we do not know, or whose value is malformed, counts as not
//! offered; it never ends a session, since NOTIFICATION 2/7 makes Calico's BIRD drop all capabilities.

use crate::family::{Families, Family, PerFamily};
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::be_u8;
use nom::{IResult, Parser};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ENHANCED_REFRESH: u8 = 70;

/// One capability as it stands in an OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its code.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a speaker offers, or what it got from its peer: the capabilities that we know, and the codes of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprotocol (RFC 4760); `None` if the capability is absent altogether: then IPv4 unicast is meant.
    pub families: Option<Families>,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// The four-octet AS number (RFC 6793).
    pub four_octet_as: Option<u32>,
    /// Graceful restart (RFC 4724).
    pub restart: Option<RestartCapability>,
    /// All codes received, ascending, each once. Not encoded.
    pub codes: Vec<u8>,
}

/// The graceful-restart capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartCapability {
    /// Restart State: the speaker has restarted.
    pub restarting: bool,
    /// N bit (RFC 8538).
    pub notification: bool,
    /// Restart Time, seconds, 12 bits.
    pub restart_secs: u16,
    /// Families listed: `Some(preserved)` with their Forwarding State bit.
    pub families: PerFamily<Option<bool>>,
}

/// Reads capability triples; stops at the first whose length overruns (what came before counts).
pub fn read(mut input: &[u8], into: &mut Capabilities) {
    while !input.is_empty() {
        let Ok((rest, (code, value))) = triple(input) else {
            return;
        };
        into.take(code, value);
        input = rest;
    }
}

fn triple(input: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    (be_u8, length_data(be_u8)).parse(input)
}

impl Capabilities {
    fn take(&mut self, code: u8, value: &[u8]) {
        if let Err(at) = self.codes.binary_search(&code) {
            self.codes.insert(at, code);
        }
        match (code, value) {
            (MULTIPROTOCOL, &[a, b, _, safi]) => {
                let families = self.families.get_or_insert_default();
                if let Some(family) = Family::of(u16::from_be_bytes([a, b]), safi) {
                    *families.at_mut(family) = true;
                }
            }
            // Length 0 by the RFC; more is tolerated.
            (ROUTE_REFRESH, _) => self.route_refresh = true,
            (ENHANCED_REFRESH, _) => self.enhanced_refresh = true,
            (FOUR_OCTET_AS, &[a, b, c, d]) => self.four_octet_as = Some(u32::from_be_bytes([a, b, c, d])),
            (GRACEFUL_RESTART, value) => {
                if let Ok((_, restart)) = restart(value) {
                    self.restart = Some(restart);
                }
            }
            _ => {}
        }
    }

    /// The families meant: IPv4 unicast where the capability is absent (RFC 4760 section 8).
    #[must_use]
    pub fn families(&self) -> Families {
        self.families.unwrap_or(Families::IPV4)
    }

    /// The capabilities as triples, in ascending order of their codes.
    #[must_use]
    pub fn list(&self) -> Vec<Capability> {
        let mut list = Vec::new();
        let mut push = |code, value| list.push(Capability { code, value });
        for family in self.families.unwrap_or_default().iter() {
            let [a, b] = family.afi().to_be_bytes();
            push(MULTIPROTOCOL, vec![a, b, 0, family.safi()]);
        }
        if self.route_refresh {
            push(ROUTE_REFRESH, Vec::new());
        }
        if let Some(restart) = &self.restart {
            push(GRACEFUL_RESTART, restart.encode());
        }
        if let Some(asn) = self.four_octet_as {
            push(FOUR_OCTET_AS, asn.to_be_bytes().to_vec());
        }
        if self.enhanced_refresh {
            push(ENHANCED_REFRESH, Vec::new());
        }
        list
    }
}

impl RestartCapability {
    fn encode(&self) -> Vec<u8> {
        let flags = u16::from(self.restarting) << 15 | u16::from(self.notification) << 14;
        let mut out = (flags | (self.restart_secs & 0x0fff)).to_be_bytes().to_vec();
        for family in Family::ALL {
            if let Some(preserved) = self.families.at(family) {
                out.extend_from_slice(&family.afi().to_be_bytes());
                out.extend_from_slice(&[family.safi(), u8::from(*preserved) << 7]);
            }
        }
        out
    }

    /// The families listed.
    #[must_use]
    pub fn listed(&self) -> Families {
        PerFamily::from_fn(|f| self.families.at(f).is_some())
    }
}

fn restart(value: &[u8]) -> IResult<&[u8], RestartCapability> {
    let (mut rest, head) = nom::number::complete::be_u16(value)?;
    let mut restart = RestartCapability {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        restart_secs: head & 0x0fff,
        families: PerFamily::default(),
    };
    while !rest.is_empty() {
        let (after, tuple) = take(4usize)(rest)?;
        if let &[a, b, safi, flags] = tuple
            && let Some(family) = Family::of(u16::from_be_bytes([a, b]), safi)
        {
            *restart.families.at_mut(family) = Some(flags & 0x80 != 0);
        }
        rest = after;
    }
    Ok((rest, restart))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(input: &[u8]) -> Capabilities {
        let mut caps = Capabilities::default();
        read(input, &mut caps);
        caps
    }

    #[test]
    fn malformed_values_count_as_not_offered() {
        // CVE-2022-36440, 2022-37032, 2023-31489, 2023-41361, 2025-43970: lengths of known and unknown capabilities.
        for bytes in [
            &[65, 2, 1, 2][..],
            &[65, 0],
            &[64, 1, 0],
            &[64, 5, 0x40, 120, 0, 1, 1],
            &[71, 0],
            &[71, 1, 0],
            &[75, 0],
            &[75, 1, 200],
            &[1, 0],
            &[1, 9, 0, 1, 0, 1, 0, 0, 0, 0, 0],
            &[64],
            &[64, 200, 1],
        ] {
            let caps = read_all(bytes);
            assert_eq!(
                (caps.four_octet_as, caps.restart, caps.families),
                (None, None, None),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn graceful_restart_flags_are_where_the_rfcs_put_them() {
        let caps = read_all(&[64, 10, 0xc0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0]);
        let families = PerFamily {
            ipv4: Some(true),
            ipv6: Some(false),
        };
        let expected = RestartCapability {
            restarting: true,
            notification: true,
            restart_secs: 120,
            families,
        };
        assert_eq!(caps.restart, Some(expected));
        assert_eq!(expected.encode(), [0xc0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0]);
    }

    #[test]
    fn a_multiprotocol_capability_of_another_family_is_not_ipv4() {
        assert_eq!(read_all(&[1, 4, 0, 25, 0, 70]).families(), Families::NONE);
        assert_eq!(read_all(&[]).families(), Families::IPV4);
    }
}

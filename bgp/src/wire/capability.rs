//! Capabilities (RFC 5492): what an OPEN offers. A capability that we do not know, or whose value is malformed, counts as not
//! offered; it never ends a session, since NOTIFICATION 2/7 makes Calico's BIRD drop all capabilities.

mod describe;

use crate::family::{Families, Family, PerFamily};
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::be_u8;
use nom::{IResult, Parser};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;
/// AFI of IPv6, as the next hop of RFC 8950.
const AFI_IPV6: u16 = 2;

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
    /// IPv4 unicast with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// Several paths for one prefix (RFC 7911).
    pub add_path: PerFamily<AddPathMode>,
    /// Long-lived graceful restart (RFC 9494).
    pub long_lived: Option<LongLivedCapability>,
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

/// What a speaker does with several paths for a prefix of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPathMode {
    /// It takes them.
    pub receive: bool,
    /// It gives them.
    pub send: bool,
}

/// The long-lived graceful-restart capability. Without families it says that the speaker keeps its peer's routes and knows
/// stale ones when it sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLivedCapability {
    /// Families listed.
    pub families: PerFamily<Option<LongLived>>,
}

/// One family of the long-lived graceful-restart capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLived {
    /// F bit: forwarding state was kept over the restart.
    pub preserved: bool,
    /// Long-lived Stale Time, seconds, 24 bits.
    pub stale_secs: u32,
}

/// Reads capability triples; stops at the first whose length overruns (what came before counts).
pub fn read(mut input: &[u8], into: &mut Capabilities) -> Result<(), Overrun> {
    while !input.is_empty() {
        let (rest, (code, value)) = triple(input).map_err(|_| Overrun)?;
        into.take(code, value);
        input = rest;
    }
    Ok(())
}

/// A capability's length goes beyond its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

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
            (EXTENDED_NEXT_HOP, value) => {
                let (tuples, rest) = value.as_chunks::<6>();
                let v4_over_v6 = |t: &[u8; 6]| {
                    let [a, b, c, d, e, f] = *t;
                    Family::of(u16::from_be_bytes([a, b]), d) == Some(Family::Ipv4Unicast)
                        && (c, u16::from_be_bytes([e, f])) == (0, AFI_IPV6)
                };
                self.extended_next_hop |= rest.is_empty() && tuples.iter().any(v4_over_v6);
            }
            (EXTENDED_MESSAGE, _) => self.extended_message = true,
            (ADD_PATH, value) => {
                let (tuples, rest) = value.as_chunks::<4>();
                for [a, b, safi, mode] in tuples.iter().filter(|_| rest.is_empty()) {
                    // Values beyond 3 are ignored (section 4).
                    if let Some(family) = Family::of(u16::from_be_bytes([*a, *b]), *safi)
                        && matches!(mode, 1..=3)
                    {
                        *self.add_path.at_mut(family) = AddPathMode {
                            receive: mode & 1 != 0,
                            send: mode & 2 != 0,
                        };
                    }
                }
            }
            (LONG_LIVED, value) => {
                let (tuples, rest) = value.as_chunks::<7>();
                if rest.is_empty() {
                    let long_lived = self.long_lived.get_or_insert_default();
                    for [a, b, safi, flags, high, mid, low] in tuples {
                        if let Some(family) = Family::of(u16::from_be_bytes([*a, *b]), *safi) {
                            *long_lived.families.at_mut(family) = Some(LongLived {
                                preserved: flags & 0x80 != 0,
                                stale_secs: u32::from_be_bytes([0, *high, *mid, *low]),
                            });
                        }
                    }
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
        if self.extended_next_hop {
            let [a, b] = Family::Ipv4Unicast.afi().to_be_bytes();
            let [e, f] = AFI_IPV6.to_be_bytes();
            push(EXTENDED_NEXT_HOP, vec![a, b, 0, Family::Ipv4Unicast.safi(), e, f]);
        }
        if self.extended_message {
            push(EXTENDED_MESSAGE, Vec::new());
        }
        if let Some(restart) = &self.restart {
            push(GRACEFUL_RESTART, restart.encode());
        }
        if let Some(asn) = self.four_octet_as {
            push(FOUR_OCTET_AS, asn.to_be_bytes().to_vec());
        }
        let add_path = self.encode_add_path();
        if !add_path.is_empty() {
            push(ADD_PATH, add_path);
        }
        if self.enhanced_refresh {
            push(ENHANCED_REFRESH, Vec::new());
        }
        if let Some(long_lived) = &self.long_lived {
            push(LONG_LIVED, long_lived.encode());
        }
        list
    }

    fn encode_add_path(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for family in Family::ALL {
            let mode = self.add_path.at(family);
            if mode.receive || mode.send {
                out.extend_from_slice(&family.afi().to_be_bytes());
                out.extend_from_slice(&[family.safi(), u8::from(mode.receive) | u8::from(mode.send) << 1]);
            }
        }
        out
    }
}

impl LongLivedCapability {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for family in Family::ALL {
            if let Some(of) = self.families.at(family) {
                let [_, high, mid, low] = of.stale_secs.to_be_bytes();
                out.extend_from_slice(&family.afi().to_be_bytes());
                out.extend_from_slice(&[family.safi(), u8::from(of.preserved) << 7, high, mid, low]);
            }
        }
        out
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
        // What came before an overrun counts.
        let _ = read(input, &mut caps);
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
    fn the_newer_capabilities_come_back_and_malformed_ones_do_not_count() {
        let said = Capabilities {
            extended_next_hop: true,
            extended_message: true,
            add_path: PerFamily {
                ipv4: AddPathMode {
                    receive: true,
                    send: true,
                },
                ipv6: AddPathMode {
                    receive: false,
                    send: true,
                },
            },
            long_lived: Some(LongLivedCapability {
                families: PerFamily {
                    ipv4: Some(LongLived {
                        preserved: true,
                        stale_secs: 0x0001_5180,
                    }),
                    ipv6: None,
                },
            }),
            codes: vec![5, 6, 69, 71],
            ..Capabilities::default()
        };
        let octets: Vec<u8> = said
            .list()
            .into_iter()
            .flat_map(|c| [vec![c.code, u8::try_from(c.value.len()).unwrap()], c.value].concat())
            .collect();
        assert_eq!(
            octets,
            [
                &[5, 6, 0, 1, 0, 1, 0, 2][..],
                &[6, 0],
                &[69, 8, 0, 1, 1, 3, 0, 2, 1, 2],
                &[71, 7, 0, 1, 1, 0x80, 1, 0x51, 0x80],
            ]
            .concat()
        );
        assert_eq!(read_all(&octets), said);
        // A length that is no multiple, a mode beyond 3, another next-hop family.
        for bytes in [
            &[69, 5, 0, 1, 1, 3, 0][..],
            &[69, 4, 0, 1, 1, 4],
            &[71, 6, 0, 1, 1, 0, 0, 0],
            &[5, 6, 0, 1, 0, 1, 0, 1],
            &[5, 5, 0, 1, 0, 1, 0],
        ] {
            let codes = vec![bytes[0]];
            assert_eq!(
                read_all(bytes),
                Capabilities {
                    codes,
                    ..Capabilities::default()
                },
                "{bytes:?}"
            );
        }
        // Calico's BIRD says that it knows stale routes, and no more.
        assert_eq!(
            read_all(&[71, 0]).long_lived,
            Some(LongLivedCapability::default())
        );
    }

    #[test]
    fn a_multiprotocol_capability_of_another_family_is_not_ipv4() {
        assert_eq!(read_all(&[1, 4, 0, 25, 0, 70]).families(), Families::NONE);
        assert_eq!(read_all(&[]).families(), Families::IPV4);
    }
}

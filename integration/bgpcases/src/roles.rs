//! Who peers with the daemon: the same peers whatever daemon it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The daemon's AS number.
pub(crate) const DUT_AS: u32 = 65_000;
/// Its address and identifier.
pub(crate) const DUT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Its other address.
pub(crate) const DUT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);
/// The key of [`Role::Keyed`].
pub(crate) const KEY: &str = "twill-cases";
/// How many prefixes [`Role::Limited`] may send.
pub(crate) const PREFIXES_MAX: usize = 40_000;
/// Where [`Role::Dialled`] and its likes listen.
pub(crate) const PORT_DIALLED: u16 = 1790;
/// What the daemon announces by itself.
pub(crate) const NETWORKS: [&str; 2] = ["10.1.0.0/26", "fd00:1::/122"];

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The external peer that misbehaves.
    External,
    /// Another external peer, which sees what is passed on.
    Observer,
    /// The internal peer that misbehaves.
    Internal,
    /// A reflection client, which sees what is passed on inside.
    Client,
    /// An external peer with a key.
    Keyed,
    /// An external peer with TTL security.
    Near,
    /// An external peer that may send only so much.
    Limited,
    /// An external peer that the daemon dials.
    Dialled,
    /// An external peer that need not read: the daemon soon gives up on it.
    Slow,
    /// An external peer with several paths a prefix, both ways.
    Paths,
    /// A second external peer of the first one's AS.
    Second,
    /// An internal peer to which the daemon's address is every next hop.
    ViaUs,
    /// An internal peer that is no client.
    Plain,
    /// External, for what takes its time.
    Idle,
    /// External, for what takes its time as well.
    IdleToo,
    /// Internal, for what takes its time.
    IdleInternal,
    /// Another external peer that the daemon dials.
    DialledToo,
    /// External, over IPv6.
    External6,
    /// Internal, over IPv6.
    Internal6,
    /// Somebody out of the range of dynamic neighbours.
    Dynamic,
    /// Nobody whom the daemon knows.
    Stranger,
}

pub(crate) const ALL: [Role; 21] = [
    Role::External,
    Role::Observer,
    Role::Internal,
    Role::Client,
    Role::Keyed,
    Role::Near,
    Role::Limited,
    Role::Dialled,
    Role::Slow,
    Role::Paths,
    Role::Second,
    Role::ViaUs,
    Role::Plain,
    Role::Idle,
    Role::IdleToo,
    Role::IdleInternal,
    Role::DialledToo,
    Role::External6,
    Role::Internal6,
    Role::Dynamic,
    Role::Stranger,
];

impl Role {
    pub(crate) const fn number(self) -> u8 {
        self as u8 + 2
    }

    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::External6 | Self::Internal6 => self.v6().into(),
            Self::Dynamic => Ipv4Addr::new(10, 99, 1, 5).into(),
            _ => self.id().into(),
        }
    }

    /// Its identifier, and a next hop of its own.
    pub(crate) const fn id(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.number())
    }

    /// A next hop of its own.
    pub(crate) const fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, self.number() as u16)
    }

    pub(crate) const fn asn(self) -> u16 {
        match self {
            Self::Observer => 65_002,
            Self::Internal
            | Self::Client
            | Self::ViaUs
            | Self::Plain
            | Self::IdleInternal
            | Self::Internal6 => 65_000,
            _ => 65_001,
        }
    }

    pub(crate) const fn internal(self) -> bool {
        self.asn() == 65_000
    }

    /// The daemon dials it.
    pub(crate) const fn dialled(self) -> bool {
        matches!(self, Self::Dialled | Self::DialledToo)
    }

    /// It has an entry of its own in the daemon's configuration.
    pub(crate) const fn configured(self) -> bool {
        !matches!(self, Self::Dynamic | Self::Stranger)
    }

    /// Over which address of the daemon they talk.
    pub(crate) fn dut(self) -> IpAddr {
        if self.address().is_ipv4() {
            DUT.into()
        } else {
            DUT_V6.into()
        }
    }

    /// Its paths begin so.
    pub(crate) fn path(self) -> Vec<u32> {
        if self.internal() {
            Vec::new()
        } else {
            vec![self.asn().into()]
        }
    }
}

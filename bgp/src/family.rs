//! Address families (RFC 4760 section 3) that the speaker carries, and values kept once for each.

use std::fmt;

/// One address family with its subsequent address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// All families, in the order in which they are walked everywhere.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The Address Family Identifier.
    #[must_use]
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// The Subsequent Address Family Identifier: unicast.
    #[must_use]
    pub const fn safi(self) -> u8 {
        1
    }

    /// The family of these identifiers, if the speaker carries it.
    #[must_use]
    pub const fn of(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4Unicast),
            (2, 1) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }

    /// The family of a prefix.
    #[must_use]
    pub const fn of_net(net: &ipnet::IpNet) -> Self {
        match net {
            ipnet::IpNet::V4(_) => Self::Ipv4Unicast,
            ipnet::IpNet::V6(_) => Self::Ipv6Unicast,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerFamily<T> {
    /// The value for IPv4 unicast.
    pub ipv4: T,
    /// The value for IPv6 unicast.
    pub ipv6: T,
}

/// A set of families.
pub type Families = PerFamily<bool>;

impl<T> PerFamily<T> {
    /// The value of one family.
    pub const fn at(&self, family: Family) -> &T {
        match family {
            Family::Ipv4Unicast => &self.ipv4,
            Family::Ipv6Unicast => &self.ipv6,
        }
    }

    /// The value of one family, to change it.
    pub const fn at_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4Unicast => &mut self.ipv4,
            Family::Ipv6Unicast => &mut self.ipv6,
        }
    }

    /// A value made for each family.
    pub fn from_fn(mut f: impl FnMut(Family) -> T) -> Self {
        Self {
            ipv4: f(Family::Ipv4Unicast),
            ipv6: f(Family::Ipv6Unicast),
        }
    }
}

impl Families {
    /// Both families.
    pub const BOTH: Self = Self {
        ipv4: true,
        ipv6: true,
    };
    /// No family.
    pub const NONE: Self = Self {
        ipv4: false,
        ipv6: false,
    };
    /// IPv4 unicast alone.
    pub const IPV4: Self = Self {
        ipv4: true,
        ipv6: false,
    };
    /// IPv6 unicast alone.
    pub const IPV6: Self = Self {
        ipv4: false,
        ipv6: true,
    };

    /// Whether the family is in the set.
    #[must_use]
    pub const fn has(self, family: Family) -> bool {
        *self.at(family)
    }

    /// The families that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4 && other.ipv4,
            ipv6: self.ipv6 && other.ipv6,
        }
    }

    /// The families in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.has(*f))
    }
}

//! Addresses and prefixes as they stand in stored objects.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An address with a prefix length, or without one, which means a prefix of full length.
///
/// Host bits stay as written (`192.0.2.11/24` is a node's address), and so does the spelling: an object that is read
/// and written keeps `FD00::1/64` as it was.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    net: IpNet,
    /// The spelling, where it is not the canonical `address/length`.
    text: Option<Box<str>>,
}

impl Net {
    /// The address, host bits included.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.net.addr()
    }

    /// The prefix length; full where none was written.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.net.prefix_len()
    }

    /// The prefix with its host bits cleared.
    #[must_use]
    pub fn masked(&self) -> IpNet {
        self.net.trunc()
    }

    /// Address and length as written.
    #[must_use]
    pub fn as_written(&self) -> IpNet {
        self.net
    }

    /// The same, spelled as Go spells it: `fd00::/48` for `FD00:0::/48`. A bare address stays bare.
    #[must_use]
    pub fn canonical(&self) -> Self {
        if self.has_prefix_len() {
            self.net.into()
        } else {
            self.net.addr().into()
        }
    }

    /// True if host bits are clear.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.net == self.net.trunc()
    }

    /// True if a prefix length was written.
    #[must_use]
    pub fn has_prefix_len(&self) -> bool {
        self.text.as_ref().is_none_or(|text| text.contains('/'))
    }

    /// True for a prefix of one address.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.net.prefix_len() == self.net.max_prefix_len()
    }

    /// True for IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        matches!(self.net, IpNet::V4(_))
    }

    /// True for IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        !self.is_ipv4()
    }
}

impl From<IpNet> for Net {
    fn from(net: IpNet) -> Self {
        Self { net, text: None }
    }
}

/// A bare address, written without prefix length.
impl From<IpAddr> for Net {
    fn from(addr: IpAddr) -> Self {
        Self {
            net: IpNet::from(addr),
            text: Some(addr.to_string().into()),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.net.fmt(f),
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is neither an address nor a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a CIDR such as \"10.244.0.0/16\"")]
pub struct NetError(pub String);

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => text
                .parse::<IpAddr>()
                .map(IpNet::from)
                .map_err(|_| NetError(text.to_owned()))?,
        };
        let canonical = net.to_string() == text;
        Ok(Self {
            net,
            text: (!canonical).then(|| text.into()),
        })
    }
}

impl serde::Serialize for Net {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Net {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

crate::go::whole_fields!(Net);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_is_kept() {
        for text in [
            "10.244.0.0/16",
            "10.244.0.1",
            "192.0.2.11/24",
            "FD00::1/64",
            "fd00:0::1",
            "::/0",
        ] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_address_is_a_prefix_of_full_length() {
        let net: Net = "10.244.0.1".parse().unwrap();
        assert_eq!(net.masked(), "10.244.0.1/32".parse().unwrap());
        assert!(net.is_single() && !net.has_prefix_len());
        assert_eq!(Net::from(net.addr()), net);
        assert!("10.244.0.1/32".parse::<Net>().unwrap().has_prefix_len());
    }

    #[test]
    fn host_bits_are_kept_and_can_be_masked() {
        let net: Net = "192.0.2.11/24".parse().unwrap();
        assert_eq!(
            (net.addr().to_string(), net.masked().to_string()),
            ("192.0.2.11".into(), "192.0.2.0/24".into())
        );
        assert!(!net.is_masked());
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["", "10.0.0.0/33", "10.0.0", "a", "10.0.0.1/", "fe80::1%eth0"] {
            assert!(
                text.parse::<Net>()
                    .unwrap_err()
                    .to_string()
                    .contains(&format!("{text:?}"))
            );
        }
    }
}

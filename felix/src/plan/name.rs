//! Names of interfaces and link-layer addresses.

use std::fmt;
use std::str::FromStr;

/// Longest interface name: IFNAMSIZ less its NUL.
pub const IFNAME_MAX: usize = 15;

/// The name of a network interface: 1 to 15 bytes of printable ASCII, no `/`, no `:`, no space, not `.` or `..`
/// (the kernel's `dev_valid_name`, and safe as a component of a path under `/proc/sys`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    bytes: [u8; 16],
}

/// Why a text is no name or no address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with a byte that the kernel does not take.
    #[error("`{0}` is not an interface name: 1 to 15 printable ASCII characters without `/`, `:` and space")]
    Interface(String),
    /// Not six hexadecimal octets.
    #[error("`{0}` is not a MAC address: six octets such as ee:ee:ee:ee:ee:ee")]
    Mac(String),
}

impl IfName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError::Interface`] when the kernel would refuse the name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let good = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
        if name.is_empty()
            || name.len() > IFNAME_MAX
            || name == "."
            || name == ".."
            || !name.bytes().all(good)
        {
            return Err(NameError::Interface(name.escape_debug().to_string()));
        }
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(Self { bytes })
    }

    /// A name fixed in the source.
    ///
    /// # Panics
    /// When the literal is not a name: a mistake in this program, found by the first test that runs it.
    #[must_use]
    pub fn fixed(name: &'static str) -> Self {
        Self::new(name).expect("a literal name is well formed")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self
            .bytes
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(self.bytes.len());
        self.bytes
            .get(..len)
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    /// The name as nf_tables registers hold it: 16 bytes, padded with NUL.
    #[must_use]
    pub fn as_register(&self) -> &[u8; 16] {
        &self.bytes
    }
}

impl FromStr for IfName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The host side of every workload link: fixed, because running pods hold it as a permanent neighbour
    /// (Calico's value, so that a node can be taken over and handed back with its pods running).
    pub const HOST_SIDE: Self = Self([0xee; 6]);
}

impl FromStr for Mac {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Mac(s.escape_debug().to_string());
        let mut octets = [0; 6];
        let mut parts = s.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Self(octets))
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "cali1234567890a", "br-ex.100", "a"] {
            assert_eq!(IfName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "cali12345678901x", "ä"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_round_trips_and_refuses_other_forms() {
        assert_eq!("ee:EE:ee:ee:ee:ee".parse::<Mac>().unwrap(), Mac::HOST_SIDE);
        assert_eq!(Mac::HOST_SIDE.to_string(), "ee:ee:ee:ee:ee:ee");
        for bad in [
            "",
            "ee",
            "ee:ee:ee:ee:ee",
            "ee:ee:ee:ee:ee:ee:ee",
            "e:e:e:e:e:e",
            "gg:00:00:00:00:00",
            "+1:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}

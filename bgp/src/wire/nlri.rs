//! NLRI: prefixes as length and as few octets as hold them (RFC 4271 section 4.3), with path identifiers where add-path was
//! agreed on (RFC 7911 section 3).

use crate::prefix::{Prefix, octets};

/// A prefix with its path identifier, 0 without add-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nlri<P> {
    /// The prefix.
    pub prefix: P,
    /// The path identifier.
    pub path_id: u32,
}

/// Whether path identifiers stand in front of the prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathIds {
    /// Plain prefixes.
    Absent,
    /// Four octets before each prefix.
    Present,
}

impl PathIds {
    /// Octets that an identifier takes.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Present => 4,
        }
    }
}

impl<P: Prefix> Nlri<P> {
    /// Appends it.
    pub fn encode(self, ids: PathIds, out: &mut Vec<u8>) {
        if ids == PathIds::Present {
            out.extend_from_slice(&self.path_id.to_be_bytes());
        }
        self.prefix.encode(out);
    }
}

/// What came of reading a field of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Prefixes that no speaker may take a route for; passed over.
    pub martians: u32,
}

/// A length beyond the family's, or octets that run out: NOTIFICATION 3/10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidNetworkField;

/// Appends the prefixes of one field.
///
/// # Errors
/// [`InvalidNetworkField`]; what was appended before it must not be used.
pub fn read<P: Prefix>(
    mut input: &[u8],
    ids: PathIds,
    into: &mut Vec<Nlri<P>>,
) -> Result<Read, InvalidNetworkField> {
    let mut martians = 0;
    while !input.is_empty() {
        let mut path_id = 0;
        if ids == PathIds::Present {
            let (id, rest) = input.split_first_chunk::<4>().ok_or(InvalidNetworkField)?;
            (path_id, input) = (u32::from_be_bytes(*id), rest);
        }
        let (&len, rest) = input.split_first().ok_or(InvalidNetworkField)?;
        let (value, rest) = rest.split_at_checked(octets(len)).ok_or(InvalidNetworkField)?;
        let prefix = P::from_octets(value, len).ok_or(InvalidNetworkField)?;
        input = rest;
        if prefix.is_martian() {
            martians += 1;
        } else {
            into.push(Nlri { prefix, path_id });
        }
    }
    Ok(Read { martians })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::{V4, V6};

    #[test]
    fn prefixes_come_back_and_martians_are_passed_over() {
        let mut out: Vec<Nlri<V4>> = Vec::new();
        let read = read(&[8, 10, 0, 8, 127, 26, 10, 244, 0, 64], PathIds::Absent, &mut out).unwrap();
        let nets: Vec<String> = out.iter().map(|n| n.prefix.net().to_string()).collect();
        assert_eq!(
            (read.martians, nets),
            (
                1,
                ["10.0.0.0/8", "0.0.0.0/0", "10.244.0.64/26"]
                    .map(String::from)
                    .into()
            )
        );
    }

    #[test]
    fn path_identifiers_stand_in_front() {
        let prefix = V4::from_octets(&[10], 8).unwrap();
        let (mut octets, mut back) = (Vec::new(), Vec::new());
        let said = [1, u32::MAX].map(|path_id| Nlri { prefix, path_id });
        said.iter().for_each(|n| n.encode(PathIds::Present, &mut octets));
        assert_eq!(octets, [0, 0, 0, 1, 8, 10, 255, 255, 255, 255, 8, 10]);
        read(&octets, PathIds::Present, &mut back).unwrap();
        assert_eq!(back, said);
    }

    #[test]
    fn lengths_and_overruns_are_errors() {
        let v4 = |i: &[u8]| read::<V4>(i, PathIds::Absent, &mut Vec::new());
        assert_eq!(v4(&[33, 1, 2, 3, 4, 5]), Err(InvalidNetworkField));
        assert_eq!(v4(&[24, 1, 2]), Err(InvalidNetworkField));
        assert_eq!(
            read::<V6>(&[129; 18], PathIds::Absent, &mut Vec::new()),
            Err(InvalidNetworkField)
        );
        assert_eq!(
            read::<V4>(&[0, 0, 1], PathIds::Present, &mut Vec::new()),
            Err(InvalidNetworkField)
        );
        assert_eq!(
            read::<V4>(&[0, 0, 0, 1], PathIds::Present, &mut Vec::new()),
            Err(InvalidNetworkField)
        );
    }
}

//! AS paths (RFC 4271 section 4.3, RFC 5065 segment types, RFC 6793 widths) as validated octets: type, count, AS numbers of
//! four octets each. All functions here take the four-octet form unless they say otherwise.

use crate::config::AS_TRANS_16;
use std::fmt::Write as _;

/// AS numbers in one path; a longer one is treated as withdrawn.
pub const ASNS_MAX: usize = 1000;
const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;

/// How wide the AS numbers of a path are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// RFC 4271.
    Two,
    /// RFC 6793.
    Four,
}

impl Width {
    const fn octets(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// Unknown segment type, a segment that overruns or is empty, one octet left.
    Malformed,
    /// AS 0 (RFC 7607).
    AsZero,
    /// A confederation segment from outside (RFC 5065 section 5).
    Confederation,
    /// More than [`ASNS_MAX`] numbers.
    TooLong,
}

/// One segment: whether it is a set, and its AS numbers as octets.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// AS_SET rather than AS_SEQUENCE.
    pub set: bool,
    asns: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The AS numbers, leftmost (nearest) first.
    pub fn asns(self) -> impl DoubleEndedIterator<Item = u32> + 'a {
        self.asns
            .as_chunks::<4>()
            .0
            .iter()
            .map(|c| u32::from_be_bytes(*c))
    }
}

/// The segments of a valid four-octet path.
pub fn segments(mut path: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    std::iter::from_fn(move || {
        let (&[kind, count], rest) = path.split_first_chunk::<2>()?;
        let (asns, rest) = rest.split_at_checked(usize::from(count) * 4)?;
        path = rest;
        Some(Segment {
            set: kind == AS_SET,
            asns,
        })
    })
}

/// Checks a path of either width.
///
/// # Errors
/// The first [`PathFault`].
pub fn check(mut path: &[u8], width: Width) -> Result<(), PathFault> {
    let mut total = 0;
    while !path.is_empty() {
        let (&[kind, count], rest) = path.split_first_chunk::<2>().ok_or(PathFault::Malformed)?;
        match kind {
            AS_SET | AS_SEQUENCE => {}
            3 | 4 => return Err(PathFault::Confederation),
            _ => return Err(PathFault::Malformed),
        }
        let len = usize::from(count) * width.octets();
        if count == 0 || rest.len() < len {
            return Err(PathFault::Malformed);
        }
        let (asns, rest) = rest.split_at(len);
        if asns.chunks(width.octets()).any(|asn| asn.iter().all(|o| *o == 0)) {
            return Err(PathFault::AsZero);
        }
        total += usize::from(count);
        path = rest;
    }
    if total > ASNS_MAX {
        Err(PathFault::TooLong)
    } else {
        Ok(())
    }
}

/// An AS4_PATH without its confederation segments, which must not be there (RFC 6793 section 6); `None` if it is broken or
/// nothing is left.
#[must_use]
pub fn as4(mut path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    while !path.is_empty() {
        let (&[kind, count], rest) = path.split_first_chunk::<2>()?;
        let (asns, rest) = rest.split_at_checked(usize::from(count) * 4)?;
        if !matches!(kind, 3 | 4) {
            out.extend_from_slice(&[kind, count]);
            out.extend_from_slice(asns);
        }
        path = rest;
    }
    (!out.is_empty() && check(&out, Width::Four).is_ok()).then_some(out)
}

/// A valid two-octet path in four-octet form.
#[must_use]
pub fn widen(mut path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() * 2);
    while let Some((&[kind, count], rest)) = path.split_first_chunk::<2>() {
        let Some((asns, rest)) = rest.split_at_checked(usize::from(count) * 2) else {
            break;
        };
        out.extend_from_slice(&[kind, count]);
        for asn in asns.as_chunks::<2>().0 {
            out.extend_from_slice(&u32::from(u16::from_be_bytes(*asn)).to_be_bytes());
        }
        path = rest;
    }
    out
}

/// The two-octet form: numbers that do not fit become AS_TRANS. `true` if there were any.
#[must_use]
pub fn narrow(path: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut lossy) = (Vec::with_capacity(path.len()), false);
    for segment in segments(path) {
        let count = u8::try_from(segment.asns.len() / 4).unwrap_or(u8::MAX);
        out.extend_from_slice(&[if segment.set { AS_SET } else { AS_SEQUENCE }, count]);
        for asn in segment.asns() {
            lossy |= asn > u32::from(u16::MAX);
            out.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS_16).to_be_bytes());
        }
    }
    (out, lossy)
}

/// The true path of a route from a two-octet speaker (RFC 6793 section 4.2.3): as much of the front of `path` as AS4_PATH
/// lacks, then AS4_PATH. An AS4_PATH longer than the path is ignored.
#[must_use]
pub fn merge(path: &[u8], as4_path: &[u8]) -> Vec<u8> {
    let (have, tail) = (length(path), length(as4_path));
    if have < tail {
        return path.to_vec();
    }
    let mut lead = (have - tail) as usize;
    let mut out = Vec::with_capacity(path.len());
    for segment in segments(path) {
        if lead == 0 {
            break;
        }
        let all = segment.asns.len() / 4;
        let take = if segment.set { all } else { all.min(lead) };
        lead -= if segment.set { 1 } else { take };
        push_segment(&mut out, segment.set, segment.asns().take(take));
    }
    out.extend_from_slice(as4_path);
    out
}

fn push_segment(out: &mut Vec<u8>, set: bool, asns: impl Iterator<Item = u32>) {
    let at = out.len();
    out.extend_from_slice(&[if set { AS_SET } else { AS_SEQUENCE }, 0]);
    let mut count = 0u8;
    for asn in asns {
        out.extend_from_slice(&asn.to_be_bytes());
        count = count.saturating_add(1);
    }
    if let Some(field) = out.get_mut(at + 1) {
        *field = count;
    }
}

/// Appends `path` with `asn` in front `times` times to `out`.
pub fn prepend(path: &[u8], asn: u32, times: u8, out: &mut Vec<u8>) {
    let mut rest = path;
    let mut head: &[u8] = &[];
    if let Some(first) = segments(path).next()
        && !first.set
        && first.asns.len() / 4 + usize::from(times) <= 255
    {
        head = first.asns;
        rest = path.get(2 + head.len()..).unwrap_or_default();
    }
    if times > 0 || !head.is_empty() {
        let count = usize::from(times) + head.len() / 4;
        out.extend_from_slice(&[AS_SEQUENCE, u8::try_from(count).unwrap_or(u8::MAX)]);
        (0..times).for_each(|_| out.extend_from_slice(&asn.to_be_bytes()));
        out.extend_from_slice(head);
    }
    out.extend_from_slice(rest);
}

/// The path with every number as `to` makes it; `None` takes it out, and a segment that loses all of them goes whole.
#[must_use]
pub fn map(path: &[u8], mut to: impl FnMut(u32) -> Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for segment in segments(path) {
        let asns: Vec<u32> = segment.asns().filter_map(&mut to).collect();
        if !asns.is_empty() {
            push_segment(&mut out, segment.set, asns.into_iter());
        }
    }
    out
}

/// A number for private use (RFC 6996).
#[must_use]
pub const fn is_private(asn: u32) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

/// The length that the decision compares: a set counts as one (RFC 4271 section 9.1.2.2 a).
#[must_use]
pub fn length(path: &[u8]) -> u32 {
    segments(path)
        .map(|s| {
            if s.set {
                1
            } else {
                u32::try_from(s.asns.len() / 4).unwrap_or(0)
            }
        })
        .sum()
}

/// The AS next to us: the first of a leading sequence.
#[must_use]
pub fn first(path: &[u8]) -> Option<u32> {
    segments(path).next().filter(|s| !s.set)?.asns().next()
}

/// How often this AS stands in the path.
#[must_use]
pub fn count(path: &[u8], asn: u32) -> usize {
    segments(path)
        .flat_map(Segment::asns)
        .filter(|a| *a == asn)
        .count()
}

/// The path for people: numbers in order, sets in braces.
#[must_use]
pub fn text(path: &[u8]) -> String {
    let mut out = String::new();
    for segment in segments(path) {
        let numbers: Vec<String> = segment.asns().map(|a| a.to_string()).collect();
        let space = if out.is_empty() { "" } else { " " };
        let _ = if segment.set {
            write!(out, "{space}{{{}}}", numbers.join(","))
        } else {
            write!(out, "{space}{}", numbers.join(" "))
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(asns: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        push_segment(&mut out, false, asns.iter().copied());
        out
    }

    #[test]
    fn faults_are_told_apart() {
        let check4 = |p: &[u8]| check(p, Width::Four);
        assert_eq!(check4(&[]), Ok(()));
        assert_eq!(check4(&seq(&[1, 2])), Ok(()));
        assert_eq!(check4(&[2]), Err(PathFault::Malformed));
        assert_eq!(check4(&[2, 0]), Err(PathFault::Malformed));
        assert_eq!(check4(&[2, 1, 0, 0, 0]), Err(PathFault::Malformed));
        assert_eq!(check4(&[5, 1, 0, 0, 0, 1]), Err(PathFault::Malformed));
        assert_eq!(check4(&seq(&[1, 0])), Err(PathFault::AsZero));
        assert_eq!(check4(&[3, 1, 0, 0, 0, 1]), Err(PathFault::Confederation));
        assert_eq!(check4(&seq(&[7; 250]).repeat(5)), Err(PathFault::TooLong));
        assert_eq!(check(&[2, 2, 0, 1, 0, 2], Width::Two), Ok(()));
    }

    #[test]
    fn an_as4_path_loses_its_confederation_segments() {
        let good = seq(&[70_000]);
        assert_eq!(as4(&good), Some(good.clone()));
        assert_eq!(
            as4(&[&[3, 1, 0, 0, 0, 9], &good[..]].concat()),
            Some(good.clone())
        );
        assert_eq!(as4(&[3, 1, 0, 0, 0, 9]), None);
        assert_eq!(as4(&[&good[..], &[4, 2, 0, 0, 0, 9]].concat()), None);
        assert_eq!(as4(&[]), None);
    }

    #[test]
    fn prepending_starts_a_new_segment_only_when_the_first_is_full_or_a_set() {
        let prepended = |path: &[u8], times| {
            let mut out = Vec::new();
            prepend(path, 9, times, &mut out);
            out
        };
        assert_eq!(prepended(&[], 1), seq(&[9]));
        assert_eq!(prepended(&seq(&[1, 2]), 2), seq(&[9, 9, 1, 2]));
        assert_eq!(
            prepended(&seq(&[1; 255]), 1),
            [seq(&[9]), seq(&[1; 255])].concat()
        );
        assert_eq!(
            prepended(&[1, 1, 0, 0, 0, 5], 1),
            [seq(&[9]), vec![1, 1, 0, 0, 0, 5]].concat()
        );
        assert_eq!(prepended(&seq(&[1]), 0), seq(&[1]));
    }

    #[test]
    fn numbers_are_replaced_and_taken_out_segment_by_segment() {
        let path = [seq(&[64512, 7]), vec![1, 1, 0, 0, 0xfc, 0], seq(&[8])].concat();
        let public = |asn| Some(asn).filter(|a| !is_private(*a));
        assert_eq!(text(&map(&path, public)), "7 8");
        assert_eq!(text(&map(&path, |a| public(a).or(Some(9)))), "9 7 {9} 8");
        assert_eq!(map(&path, Some), path);
        for (asn, private) in [(64_511, false), (64_512, true), (65_534, true), (65_535, false)] {
            assert_eq!(is_private(asn), private, "{asn}");
        }
    }

    #[test]
    fn two_octet_paths_get_their_wide_numbers_back() {
        let path = seq(&[1, 70_000, 3]);
        let (narrow, lossy) = narrow(&path);
        assert!(lossy);
        assert_eq!(text(&merge(&widen(&narrow), &seq(&[70_000, 3]))), "1 70000 3");
        assert_eq!(text(&merge(&seq(&[1]), &seq(&[2, 3]))), "1");
    }

    #[test]
    fn sets_count_as_one_and_show_in_braces() {
        let path = [seq(&[1, 2]), vec![1, 2, 0, 0, 0, 3, 0, 0, 0, 4]].concat();
        assert_eq!(
            (length(&path), text(&path), first(&path)),
            (3, "1 2 {3,4}".into(), Some(1))
        );
        assert_eq!(count(&path, 4), 1);
    }
}

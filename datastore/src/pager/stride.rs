//! How far ahead a page looks: a piece of the key space that should hold a page and a half.
//!
//! Keys are text: of the 256 bytes that a place could hold, a name has ten, or sixteen, or forty. So a distance between keys is
//! counted in the letters that occur at each place, like hours and minutes, and not in bytes: counted in bytes, a step over the last
//! digit would look as far as ten times the step.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::KeyValue;

/// Keys that a stride should hold. etcd walks over this many for each page, and a stride that holds less than a page (500) costs a
/// call more.
const KEYS_AIM: u128 = 800;
/// Places that count behind the one where a page's keys begin to differ, that one included.
const PLACES: usize = 8;
/// Places that count before it, so that a step over the last letter of a place carries to the one before.
const CARRIES: usize = 6;
/// Most that all places together may tell apart: times [`KEYS_AIM`] it is far from the end of 128 bits.
const NUMBERS_MAX: u128 = 1 << 96;
/// Factor of the first stride after one that held nothing, two places or so.
const LEAP: u128 = 4_096;
const HEX: &[u8] = b"0123456789abcdef";

/// A distance in the key space: `step` in the places from `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    start: usize,
    /// The letters of each place, in order, none empty.
    places: Vec<Vec<u8>>,
    /// Numbers that the places can tell apart.
    numbers: u128,
    step: u128,
    /// How many bytes of the key before stay as they are while strides hold nothing: those after it are skipped.
    kept: usize,
    /// How many bytes fewer the next stride keeps if this one holds nothing.
    leap: usize,
}

impl Stride {
    /// From a page of keys in order; `None` if that says nothing.
    pub(super) fn of(page: &[KeyValue]) -> Option<Self> {
        let (first, last) = (&page.first()?.key, &page.last()?.key);
        let differ = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let start = differ.saturating_sub(CARRIES);
        let (places, numbers) = places(page, start, differ);
        let mut stride = Self {
            start,
            places,
            numbers,
            step: 1,
            kept: start,
            leap: 1,
        };
        let keys = u128::try_from(page.len()).ok().filter(|keys| *keys > 1)?;
        let gap = stride.number(last).checked_sub(stride.number(first))?;
        stride.step = (gap * KEYS_AIM / keys).max(1);
        Some(stride)
    }

    /// A stride that ended held so many keys: the next one is wider if these were few.
    pub(super) fn held(&mut self, keys: usize) {
        let keys = u128::try_from(keys).unwrap_or(u128::MAX);
        if let Some(factor) = KEYS_AIM.checked_div(keys) {
            (self.kept, self.leap) = (self.start, 1);
            self.widen(factor.clamp(1, 16));
        } else if self.kept == self.start && self.leap == 1 && self.step < self.numbers {
            self.widen(LEAP);
        } else {
            // Nothing near: the next keys may be far away, so each empty stride looks much further than the one before.
            self.kept = self.kept.saturating_sub(self.leap);
            self.leap *= 2;
        }
    }

    fn widen(&mut self, factor: u128) {
        self.step = self.step.saturating_mul(factor).min(self.numbers);
    }

    /// The key one stride behind `key`; `None` if that is behind all keys.
    pub(super) fn after(&self, key: &[u8]) -> Option<Bytes> {
        let near = self.number(key).saturating_add(self.step);
        if self.kept == self.start && near < self.numbers {
            let prefix = key.iter().copied().chain(std::iter::repeat(0));
            let mut end: Vec<u8> = prefix.take(self.start).collect();
            end.extend(self.letters(near));
            return Some(end.into());
        }
        // Behind everything that begins as the key does.
        let mut end = key.get(..self.kept).unwrap_or(key).to_vec();
        let raised = end.iter().rposition(|byte| *byte != u8::MAX)?;
        end.truncate(raised + 1);
        *end.last_mut()? += 1;
        Some(end.into())
    }

    /// What the places of `key` say, as one number; a letter that does not occur counts as the next that does.
    fn number(&self, key: &[u8]) -> u128 {
        let counted = self.places.iter().enumerate();
        counted.fold(0, |number, (at, letters)| {
            let byte = key.get(self.start + at);
            let rank = byte.map_or(0, |byte| letters.partition_point(|letter| letter < byte));
            number * wide(letters.len()) + wide(rank)
        })
    }

    /// The opposite of [`Stride::number`], for numbers that there are.
    fn letters(&self, mut number: u128) -> Vec<u8> {
        let mut found: Vec<u8> = Vec::with_capacity(self.places.len());
        for letters in self.places.iter().rev() {
            let base = wide(letters.len()).max(1);
            let rank = usize::try_from(number % base).unwrap_or(usize::MAX);
            found.extend(letters.get(rank));
            number /= base;
        }
        found.reverse();
        found
    }
}

fn wide(number: usize) -> u128 {
    u128::try_from(number).unwrap_or(u128::MAX)
}

/// The letters of the places from `start` on, and how many numbers they make; keys are alike before `differ`.
fn places(page: &[KeyValue], start: usize, differ: usize) -> (Vec<Vec<u8>>, u128) {
    let at = |place: usize| -> BTreeSet<u8> {
        let bytes = page.iter().filter_map(|kv| kv.key.get(place));
        bytes.copied().collect()
    };
    // Before and where they begin to differ, a page shows few of the letters that follow. Numbers in hex are the same throughout.
    let behind: BTreeSet<u8> = (differ..differ + PLACES).flat_map(at).collect();
    let is_hex = behind.iter().all(|byte| HEX.contains(byte));
    let (mut places, mut numbers) = (Vec::new(), 1);
    for place in start..differ + PLACES {
        let mut letters = at(place);
        if letters.is_empty() {
            break;
        }
        if is_hex && place <= differ && letters.is_subset(&behind) {
            letters.clone_from(&behind);
        }
        let letters = whole(&letters);
        let more = numbers * wide(letters.len());
        if more > NUMBERS_MAX {
            break;
        }
        numbers = more;
        places.push(letters);
    }
    (places, numbers)
}

/// Where one digit stands all may stand, and so with letters.
fn whole(seen: &BTreeSet<u8>) -> Vec<u8> {
    let classes = [
        (b'0'..=b'9', b'0'..=b'9'),
        (b'A'..=b'F', b'A'..=b'F'),
        (b'G'..=b'Z', b'A'..=b'Z'),
        (b'a'..=b'f', b'a'..=b'f'),
        (b'g'..=b'z', b'a'..=b'z'),
    ];
    let mut all = seen.clone();
    for (part, class) in classes {
        if seen.range(part).next().is_some() {
            all.extend(class);
        }
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str]) -> Vec<KeyValue> {
        let kv = |key: &&str| KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::new(),
            mod_revision: 1,
            create_revision: 1,
            version: 1,
        };
        keys.iter().map(kv).collect()
    }

    fn counted(from: u32, to: u32, digits: usize) -> Stride {
        let keys: Vec<String> = (from..to).map(|i| format!("h/{i:0>digits$}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Stride::of(&page(&keys)).unwrap()
    }

    #[test]
    fn a_stride_holds_as_many_keys_as_meant_also_over_the_last_digit() {
        for from in [0, 3_700, 9_499, 94_321] {
            let stride = counted(from, from + 500, 6);
            let end = stride
                .after(format!("h/{:0>6}\0", from + 499).as_bytes())
                .unwrap();
            let end: u32 = std::str::from_utf8(&end[2..8]).unwrap().parse().unwrap();
            let held = end - (from + 500);
            assert!((700..=900).contains(&held), "from {from}: {held}");
        }
    }

    #[test]
    fn a_stride_over_the_end_of_all_places_takes_the_rest_of_what_begins_alike() {
        let stride = counted(999_000, 999_500, 6);
        assert_eq!(stride.start, 0);
        let stride = Stride {
            start: 2,
            kept: 2,
            ..stride
        };
        let far = Stride {
            step: stride.numbers,
            ..stride
        };
        assert_eq!(&far.after(b"h/999500").unwrap()[..], b"h0");
        assert_eq!(far.after(&[0xff; 12]), None);
    }

    #[test]
    fn empty_strides_leap_to_the_front_of_the_key_in_few_steps() {
        let mut stride =
            Stride::of(&page(&["prefix/aaaaaaaaaaaaaaaa0", "prefix/aaaaaaaaaaaaaaaa9"])).unwrap();
        let mut empty = 0;
        while stride
            .after(b"prefix/aaaaaaaaaaaaaaaa9")
            .is_some_and(|end| end[..] <= b"prefix/b"[..])
        {
            stride.held(0);
            empty += 1;
        }
        assert!(empty <= 7, "{empty}");
    }

    #[test]
    fn a_page_of_one_key_guesses_nothing() {
        assert_eq!(Stride::of(&page(&["a"])), None);
        assert_eq!(Stride::of(&[]), None);
    }
}

//! How far ahead a page looks: a piece of the key space that should hold a few pages.

use bytes::Bytes;

/// Keys that a stride should hold. etcd walks over this many for each page, and a stride that holds less than a page costs a
/// call: four pages are little of both.
const KEYS_AIM: u64 = 2_000;
/// Bytes of a key that count, from where a page's keys begin to differ.
const WINDOW: usize = 8;

/// A distance in the key space: `step` in the eight bytes from `at`, read as one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    at: usize,
    step: u64,
    /// How many bytes further to the front the next stride counts if this one holds nothing.
    leap: usize,
}

impl Stride {
    /// From a page that held `keys` keys from `first` to `last`; `None` if that says nothing.
    pub(super) fn between(first: &[u8], last: &[u8], keys: usize) -> Option<Self> {
        let at = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let gap = window(last, at).checked_sub(window(first, at))?;
        let keys = u64::try_from(keys).ok().filter(|keys| *keys > 1)?;
        let wide = u128::from(gap.max(1)) * u128::from(KEYS_AIM) / u128::from(keys);
        let mut stride = Self { at, step: 0, leap: 1 };
        stride.set(wide);
        Some(stride)
    }

    /// A stride that ended held so many keys: the next one is wider if these were few.
    pub(super) fn held(&mut self, keys: usize) {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        if keys == 0 {
            // Nothing near: the next keys may be far away, so each empty stride looks much further than the one before.
            if self.at == 0 {
                self.step = u64::MAX;
            }
            self.at = self.at.saturating_sub(self.leap);
            self.leap *= 2;
            return;
        }
        self.leap = 1;
        let factor = (KEYS_AIM / keys).min(16);
        if factor > 1 {
            self.set(u128::from(self.step) * u128::from(factor));
        }
    }

    /// Moves the window to the front until the step fits into it.
    fn set(&mut self, mut step: u128) {
        loop {
            match u64::try_from(step) {
                Ok(fits) => {
                    self.step = fits.max(1);
                    return;
                }
                Err(_) if self.at == 0 => {
                    self.step = u64::MAX;
                    return;
                }
                Err(_) => {
                    step >>= 8;
                    self.at -= 1;
                }
            }
        }
    }

    /// The key one stride behind `key`; `None` if that is behind all keys.
    pub(super) fn after(&self, key: &[u8]) -> Option<Bytes> {
        let (sum, carry) = window(key, self.at).overflowing_add(self.step);
        let mut end: Vec<u8> = key
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .take(self.at)
            .collect();
        if carry {
            let raised = end.iter().rposition(|byte| *byte != u8::MAX)?;
            end.truncate(raised + 1);
            *end.last_mut()? += 1;
            // What the carry leaves in the window is added, so that the stride is as long as meant.
            end.resize(self.at, 0);
        }
        end.extend(sum.to_be_bytes());
        Some(end.into())
    }
}

/// Eight bytes of `key` from `at` as a number, zeros behind its end.
fn window(key: &[u8], at: usize) -> u64 {
    let mut bytes = [0; WINDOW];
    let tail = key.get(at..).unwrap_or_default();
    for (to, from) in bytes.iter_mut().zip(tail) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_is_longer_than_the_page_that_it_was_guessed_from() {
        let stride = Stride::between(b"h/000", b"h/500", 500).unwrap();
        let end = stride.after(b"h/500\0").unwrap();
        assert!(end[..] > b"h/501"[..] && end[..] < b"hA"[..], "{end:?}");
    }

    #[test]
    fn a_stride_over_the_end_of_a_byte_carries() {
        let stride = Stride {
            at: 2,
            step: u64::MAX,
            leap: 1,
        };
        let end = stride.after(b"a\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        assert_eq!(&end[..], b"b\x00\xff\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(stride.after(&[0xff; 12]), None);
    }

    #[test]
    fn empty_strides_leap_to_the_front_of_the_key_in_few_steps() {
        let mut stride =
            Stride::between(b"prefix/aaaaaaaaaaaaaaaa0", b"prefix/aaaaaaaaaaaaaaaa9", 10).unwrap();
        let mut empty = 0;
        while stride
            .after(b"prefix/aaaaaaaaaaaaaaaa9")
            .is_some_and(|end| end[..] <= b"prefix/b"[..])
        {
            stride.held(0);
            empty += 1;
        }
        assert!(empty <= 6, "{empty}");
    }

    #[test]
    fn a_page_of_one_key_guesses_nothing() {
        assert_eq!(Stride::between(b"a", b"a", 1), None);
    }
}

//! Reading a range page by page at one revision: which page to ask for next. No I/O.

mod stride;

use bytes::Bytes;

use crate::{Consistency, KeyRange, KeyValue, PAGE_KEYS_MAX, RangeReply, RangeRequest, Revision, StoreError};
use stride::Stride;

/// Walks a range in pages at the revision of the first page. Pages of large values that no reply can hold are asked for again
/// with half as many keys.
///
/// etcd walks its index over the whole range asked for, however few keys the page may hold (3.4 collects them, 3.5 counts them):
/// a million keys in pages of the rest of the range would be read a thousand times over. So every page but the first asks for a
/// stride of the range that should hold a page and a half, guessed from how close together the keys before were. A page may
/// therefore be empty although more follow: go by [`Pager::request`] and [`Pager::reached`].
#[derive(Clone, Debug)]
pub struct Pager {
    range: KeyRange,
    consistency: Consistency,
    revision: Option<Revision>,
    /// Where what was not shown yet begins.
    next: Bytes,
    stride: Option<Box<Stride>>,
    limit: u32,
    done: bool,
}

impl Pager {
    /// Begins at the range's first key, at whatever the current revision is then.
    #[must_use]
    pub fn new(range: KeyRange, consistency: Consistency) -> Self {
        Self {
            next: range.start().clone(),
            range,
            consistency,
            revision: None,
            stride: None,
            limit: PAGE_KEYS_MAX,
            done: false,
        }
    }

    /// As [`Pager::new`], at a known revision.
    #[must_use]
    pub fn at(range: KeyRange, revision: Revision) -> Self {
        Self {
            revision: Some(revision),
            ..Self::new(range, Consistency::Linearised)
        }
    }

    /// The page to ask for; `None` when the last has come.
    #[must_use]
    pub fn request(&self) -> Option<RangeRequest> {
        (!self.done).then(|| RangeRequest {
            limit: self.limit,
            revision: self.revision,
            consistency: self.consistency,
            ..RangeRequest::new(KeyRange::span(self.next.clone(), self.page_end()))
        })
    }

    /// Where the page to ask for ends: the stride's end, or the range's.
    fn page_end(&self) -> Bytes {
        let end = self.range.end_bytes();
        match self.stride.as_ref().and_then(|stride| stride.after(&self.next)) {
            Some(near) if end.is_empty() || near < end => near,
            _ => end,
        }
    }

    /// Takes a page in and hands its keys out. There may be none although more follow.
    pub fn page(&mut self, page: RangeReply) -> Vec<KeyValue> {
        self.revision.get_or_insert(page.revision);
        let end = self.page_end();
        let keys = page.kvs.len();
        match page.kvs.last() {
            Some(last) if page.more => {
                self.stride = Stride::of(&page.kvs).map(Box::new);
                self.next = KeyRange::key(last.key.clone()).end_bytes();
            }
            // A page that promises more but holds nothing would be asked for again for ever.
            None if page.more => self.done = true,
            _ => {
                self.done = end == self.range.end_bytes();
                self.next = end;
                if let Some(stride) = &mut self.stride {
                    stride.held(keys);
                }
            }
        }
        page.kvs
    }

    /// Every key before this one was shown; `None` once all were.
    #[must_use]
    pub fn reached(&self) -> Option<&Bytes> {
        (!self.done).then_some(&self.next)
    }

    /// Takes a failure in.
    ///
    /// # Errors
    /// The failure itself, unless it is a page too large that can be made smaller.
    pub fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !matches!(error, StoreError::TooLarge { .. }) || self.limit == 1 {
            return Err(error);
        }
        self.limit /= 2;
        Ok(())
    }

    /// The revision that all pages share; 0 before the first.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Commit;

    fn too_large() -> StoreError {
        StoreError::TooLarge {
            reason: "reply".to_owned(),
            commit: Commit::No,
        }
    }

    #[test]
    fn page_too_large_is_halved_down_to_one_key_and_then_an_error() {
        let mut pager = Pager::new(KeyRange::prefix("a"), Consistency::Linearised);
        let mut limits = vec![];
        while pager.failed(too_large()).is_ok() {
            limits.push(pager.request().unwrap().limit);
        }
        assert_eq!(limits, [250, 125, 62, 31, 15, 7, 3, 1]);
    }

    #[test]
    fn pages_after_the_first_are_at_its_revision() {
        let mut pager = Pager::new(KeyRange::prefix("a"), Consistency::Linearised);
        assert_eq!(pager.request().unwrap().revision, None);
        let kv = KeyValue {
            key: "a1".into(),
            value: "".into(),
            mod_revision: 4,
            create_revision: 4,
            version: 1,
        };
        pager.page(RangeReply {
            revision: 7,
            kvs: vec![kv.clone()],
            more: true,
        });
        let second = pager.request().unwrap();
        let next = KeyRange::key(kv.key).end().cloned();
        assert_eq!(
            (second.revision, Some(second.range.start().clone())),
            (Some(7), next.clone())
        );
        assert_eq!(pager.reached().cloned(), next);
        pager.page(RangeReply {
            revision: 9,
            kvs: vec![],
            more: false,
        });
        assert_eq!((pager.request(), pager.revision()), (None, 7));
    }

    /// Reads all of `keys` under a prefix; how many calls that took, and how many keys lay in what was asked for.
    fn read(keys: &BTreeSet<String>, prefix: &'static str) -> (Vec<String>, usize, usize) {
        let mut pager = Pager::new(KeyRange::prefix(prefix), Consistency::Linearised);
        let (mut shown, mut calls, mut walked) = (Vec::new(), 0, 0);
        while let Some(request) = pager.request() {
            let start = String::from_utf8_lossy(request.range.start()).into_owned();
            let found: Vec<&String> = keys
                .range(start..)
                .filter(|key| request.range.contains(key.as_bytes()))
                .collect();
            let limit = usize::try_from(request.limit).unwrap();
            let kv = |key: &&String| KeyValue {
                key: (*key).clone().into(),
                value: "".into(),
                mod_revision: 1,
                create_revision: 1,
                version: 1,
            };
            let page = RangeReply {
                revision: 1,
                kvs: found.iter().take(limit).map(kv).collect(),
                more: found.len() > limit,
            };
            calls += 1;
            walked += found.len();
            shown.extend(
                pager
                    .page(page)
                    .into_iter()
                    .map(|kv| String::from_utf8_lossy(&kv.key).into_owned()),
            );
        }
        (shown, calls, walked)
    }

    #[test]
    fn strides_show_every_key_once_and_walk_over_a_range_a_few_times_only() {
        let hash = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shapes: [fn(u64, u64) -> String; 5] = [
            |_, h| format!("h/k8s-pod-network.{h:016x}{h:016x}"),
            |i, _| format!("h/k8s-pod-network.{i:0>52}"),
            |i, h| format!("h/node-{}-k8s-pod{}-{:x}-eth0", i / 110, i % 7, h % 9973),
            |i, _| format!("h/10.{}.{}.{}-26", i / 1024, i / 4 % 256, i % 4 * 64),
            // Crowds far apart.
            |i, h| {
                format!(
                    "h/{}/{}",
                    "x".repeat(usize::try_from(i / 4000).unwrap()),
                    h % 100_003
                )
            },
        ];
        for (number, shape) in shapes.iter().enumerate() {
            let mut keys: BTreeSet<String> = (0..40_000).map(|i| shape(i, hash(i))).collect();
            let count = keys.len();
            keys.insert("g".to_owned());
            keys.insert("i".to_owned());
            let (shown, calls, walked) = read(&keys, "h/");
            let all: Vec<String> = keys.iter().filter(|k| k.starts_with("h/")).cloned().collect();
            assert_eq!(shown, all, "shape {number}");
            let pages = count / 500;
            assert!(
                calls <= 3 * pages + 20,
                "shape {number}: {calls} calls for {pages} pages"
            );
            assert!(
                walked <= 5 * count || number == 4 && walked <= 16 * count,
                "shape {number}: {walked} keys walked over for {count}"
            );
        }
    }
}

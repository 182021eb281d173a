//! Reading a range page by page at one revision: which page to ask for next. No I/O.

use bytes::Bytes;

use crate::{Consistency, KeyRange, KeyValue, PAGE_KEYS_MAX, RangeReply, RangeRequest, Revision, StoreError};

/// Walks a range in pages at the revision of the first page. Pages of large values that no reply can hold are asked for again
/// with half as many keys.
#[derive(Clone, Debug)]
pub struct Pager {
    range: KeyRange,
    consistency: Consistency,
    revision: Option<Revision>,
    after: Option<Bytes>,
    limit: u32,
    done: bool,
}

impl Pager {
    /// Begins at the range's first key, at whatever the current revision is then.
    #[must_use]
    pub fn new(range: KeyRange, consistency: Consistency) -> Self {
        Self {
            range,
            consistency,
            revision: None,
            after: None,
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
            after: self.after.clone(),
            consistency: self.consistency,
            ..RangeRequest::new(self.range.clone())
        })
    }

    /// Takes a page in and hands its keys out.
    pub fn page(&mut self, page: RangeReply) -> Vec<KeyValue> {
        self.revision.get_or_insert(page.revision);
        if let Some(last) = page.kvs.last() {
            self.after = Some(last.key.clone());
        }
        // A page that promises more but holds nothing would be asked for again for ever.
        self.done = !page.more || page.kvs.is_empty();
        page.kvs
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
        assert_eq!((second.revision, second.after), (Some(7), Some(kv.key)));
        pager.page(RangeReply {
            revision: 9,
            kvs: vec![],
            more: false,
        });
        assert_eq!((pager.request(), pager.revision()), (None, 7));
    }
}

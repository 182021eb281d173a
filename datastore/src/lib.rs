//! The store behind Twill: a trait, an in-memory store with faults, etcd, and a list+watch syncer.
//!
//! The model of data is etcd's: one flat, ordered key space, one revision counter for all of it, and transactions that
//! compare and then write at one revision. Callers are generic over [`Store`]; nothing outside `etcd` knows how etcd is reached.

pub mod client;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod mem;
mod pager;
mod range;
mod store;
pub mod syncer;
#[cfg(feature = "testing")]
pub mod testing;
mod txn;
pub mod updates;
mod watch;

pub use bytes::Bytes;
pub use error::{Commit, StoreError};
pub use pager::Pager;
pub use range::{Consistency, KeyRange, KeyValue, PAGE_KEYS_MAX, RangeReply, RangeRequest, Revision};
pub use store::{DELETE_KEYS_MAX, LIST_KEYS_MAX, Listing, Store};
pub use txn::{
    COMPARES_MAX, Compare, LeaseId, OPS_MAX, Op, OpReply, REQUEST_BYTES_MAX, Target, Txn, TxnReply,
};
pub use watch::{Batch, WATCH_RANGES_MAX, Watch, WatchEvent, WatchItem, WatchRequest};

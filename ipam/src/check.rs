//! What `ipam check` and `ipam show` say, from one pass over the store at one revision.
//!
//! Blocks, affinities and handles tell one story three times; endpoints tell it a fourth time. [`Audit`] takes the
//! keys in one by one, remembers counts rather than values, and names every place where the stories differ, with
//! the key in etcd that holds the fault. All keys are read at one revision, so that a busy cluster has no false
//! alarms.

mod audit;
mod usage;

pub use audit::Audit;
pub use usage::{BlockUsage, PoolUsage, Usage};

use std::fmt;
use std::net::IpAddr;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use twill_datastore::{Consistency, KeyRange, KeyValue, Pager, Revision, Store, StoreError};
use twill_model::ipam::{Attribute, Block};
use twill_model::kind::Kind;
use twill_model::{Key, ResourceKey};

/// Pages read ahead of whoever looks at them.
const PAGES_WAITING: usize = 2;
/// Blocks in a page: 250 full ones are 5 MB. Of what is small a page holds as many as the store allows, because each costs etcd as
/// much as two hundred keys.
const PAGE_BLOCKS: u32 = 250;

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The key in etcd that holds the fault.
    pub key: String,
    /// What kind of fault.
    pub kind: ProblemKind,
    /// The address concerned, if it is one.
    pub address: Option<IpAddr>,
    /// What is wrong, for people.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The value cannot be used at all.
    Unreadable,
    /// A block breaks an invariant that no allocator trips over: an unused attribute, a lost ordinal.
    BlockInvariant,
    /// An allocated address whose handle does not exist.
    MissingHandle,
    /// An address allocated to no handle.
    NoHandle,
    /// A handle that names a block in which it holds nothing, or a block that does not exist.
    HandleWithoutBlock,
    /// A handle that counts another number of addresses than the block holds for it.
    HandleCount,
    /// A confirmed affinity whose block does not exist or belongs to someone else.
    AffinityWithoutBlock,
    /// A block whose owner has no affinity for it.
    BlockWithoutAffinity,
    /// An affinity that is not confirmed although its block belongs to its owner.
    AffinityUnconfirmed,
    /// A block outside every pool.
    OutsidePools,
    /// A workload's address that no endpoint has.
    NoEndpoint,
    /// An endpoint's address that is not allocated.
    NotAllocated,
}

impl ProblemKind {
    /// A word for tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::BlockInvariant => "block-invariant",
            Self::MissingHandle => "missing-handle",
            Self::NoHandle => "no-handle",
            Self::HandleWithoutBlock => "handle-without-block",
            Self::HandleCount => "handle-count",
            Self::AffinityWithoutBlock => "affinity-without-block",
            Self::BlockWithoutAffinity => "block-without-affinity",
            Self::AffinityUnconfirmed => "affinity-unconfirmed",
            Self::OutsidePools => "outside-pools",
            Self::NoEndpoint => "no-endpoint",
            Self::NotAllocated => "not-allocated",
        }
    }
}

/// The outcome of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The revision that all of it was read at.
    pub revision: Revision,
    /// What is wrong, ordered by key.
    pub problems: Vec<Problem>,
    /// How full pools and blocks are.
    pub usage: Usage,
}

/// Reads everything about addresses at one revision and audits it. Holds pages of values and counts of the rest, about 25
/// bytes an address, more only for what is wrong.
///
/// # Errors
/// If the store fails, or compacts the revision away while it is being read (call again).
pub async fn check<S: Store>(store: &S) -> Result<Report, StoreError> {
    let mut audit = Audit::default();
    let pools = [
        ResourceKey::prefix(Kind::IpPool),
        ResourceKey::prefix(Kind::IpReservation),
    ];
    let mut revision = None;
    for prefix in pools {
        let range = KeyRange::prefix(prefix);
        let first = || Pager::new(range.clone(), Consistency::Linearised);
        let pager = revision.map_or_else(first, |at| Pager::at(range.clone(), at));
        revision = Some(read(store, pager, |kv| audit.take(&kv.key, &kv.value)).await?);
    }
    let at = revision.unwrap_or_default();
    let stories = |prefix: String| Pager::at(KeyRange::prefix(prefix), at);
    let blocks = || stories(twill_model::key::BLOCKS.to_owned());
    let handles = || stories(twill_model::key::HANDLES.to_owned());
    read(store, blocks(), |kv| audit.take(&kv.key, &kv.value)).await?;
    let rest = [
        stories(ResourceKey::prefix(Kind::WorkloadEndpoint)),
        handles(),
        stories(twill_model::key::HOST_AFFINITIES.to_owned()),
        stories(twill_model::key::VIRTUAL_AFFINITIES.to_owned()),
    ];
    read_all(store, rest, |kv| audit.take(&kv.key, &kv.value)).await?;
    if audit.is_unclear() {
        read(store, blocks(), |kv| audit.again(&kv.key, &kv.value)).await?;
        read(store, handles(), |kv| audit.again(&kv.key, &kv.value)).await?;
    }
    Ok(audit.finish(at))
}

/// Shows a range key by key and says the revision that it was read at. The next page is on its way meanwhile.
async fn read<S: Store>(
    store: &S,
    pager: Pager,
    show: impl FnMut(&KeyValue),
) -> Result<Revision, StoreError> {
    read_all(store, [pager], show).await
}

/// As [`read`], for ranges in no particular order, all under way at once.
async fn read_all<S: Store>(
    store: &S,
    pagers: impl IntoIterator<Item = Pager>,
    mut show: impl FnMut(&KeyValue),
) -> Result<Revision, StoreError> {
    let (pages, mut arriving) = mpsc::channel(PAGES_WAITING);
    let mut readers: JoinSet<Result<Revision, StoreError>> = JoinSet::new();
    for pager in pagers {
        readers.spawn(turn_pages(store.clone(), pager, pages.clone()));
    }
    drop(pages);
    while let Some(page) = arriving.recv().await {
        page.iter().for_each(&mut show);
    }
    let mut revision = 0;
    while let Some(ended) = readers.join_next().await {
        match ended {
            Ok(read) => revision = revision.max(read?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(revision)
}

async fn turn_pages<S: Store>(
    store: S,
    mut pager: Pager,
    pages: mpsc::Sender<Vec<KeyValue>>,
) -> Result<Revision, StoreError> {
    while let Some(mut request) = pager.request() {
        if request
            .range
            .start()
            .starts_with(twill_model::key::BLOCKS.as_bytes())
        {
            request.limit = request.limit.min(PAGE_BLOCKS);
        }
        match store.range(request).await {
            Ok(page) => {
                if pages.send(pager.page(page)).await.is_err() {
                    // Nobody reads any more: the error is somebody else's.
                    break;
                }
            }
            Err(error) => pager.failed(error)?,
        }
    }
    Ok(pager.revision())
}

/// Who holds one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The block's key.
    pub key: String,
    /// The block's owner, `host:<node>`.
    pub owner: Option<String>,
    /// Handle and attributes; `None` if the address is free.
    pub attribute: Option<Attribute>,
}

/// Finds out who holds `address`; `None` if it is in no block.
///
/// # Errors
/// If the store fails. A block that cannot be read counts as none; [`check`] names it.
pub async fn holder(store: &impl Store, address: IpAddr) -> Result<Option<Holder>, StoreError> {
    let (longest, shortest) = if address.is_ipv4() { (32, 20) } else { (128, 116) };
    let candidates = (shortest..=longest).filter_map(|len| ipnet::IpNet::new(address, len).ok());
    let keys: Vec<(ipnet::IpNet, String)> = candidates
        .map(|net| (net.trunc(), Key::block(net.trunc()).path()))
        .collect();
    let ops = keys
        .iter()
        .map(|(_, key)| twill_datastore::Op::get(key.clone()))
        .collect();
    let reply = store.txn(twill_datastore::Txn::default().then(ops)).await?;
    let found = keys
        .into_iter()
        .zip(&reply.responses)
        .find_map(|((cidr, key), response)| {
            let block = Block::decode(cidr, &response.kvs().first()?.value).ok()?;
            let attribute = block.ordinal(address).and_then(|o| block.attribute(o)).cloned();
            Some(Holder {
                key,
                owner: block.affinity,
                attribute,
            })
        });
    Ok(found)
}

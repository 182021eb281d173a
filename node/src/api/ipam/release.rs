//! Addresses freed by hand, with the datastore locked or not: straight in the blocks, under a compare of their revisions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tonic::Status;
use twill_datastore::{Compare, KeyValue, Op, Store, Txn};
use twill_ipam::block;
use twill_model::ipam::{Block, Handle};
use twill_model::{Key, gojson};
use twill_proto::api::{ReleaseAddress, ReleaseHandle, ReleaseReply, ReleaseRequest};

/// Most addresses and handles of one request.
const MOST: usize = 10_000;
/// Addresses of one block that go in one transaction: each may bring a handle, and 128 operations are possible.
const AT_ONCE: usize = 60;
/// How often a block is written against its owner, who writes it too.
const ATTEMPTS_MAX: u32 = 20;

/// One address as it must be.
struct Wanted {
    address: IpAddr,
    handle: Option<String>,
    sequence: Option<u64>,
}

pub(super) async fn release<S: Store>(store: &S, asked: ReleaseRequest) -> Result<ReleaseReply, Status> {
    if asked.addresses.len() > MOST || asked.handles.len() > MOST {
        return Err(Status::invalid_argument(format!(
            "at most {MOST} addresses and handles in one request"
        )));
    }
    let wanted = asked.addresses.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut reply = ReleaseReply::default();
    let mut by_block: BTreeMap<IpNet, Vec<Wanted>> = BTreeMap::new();
    for one in wanted {
        match block_of(store, one.address).await? {
            Some(cidr) => by_block.entry(cidr).or_default().push(one),
            None => reply.not_released.push(one.address.to_string()),
        }
    }
    for (cidr, wanted) in by_block {
        for some in wanted.chunks(AT_ONCE) {
            if let Err(error) = from_block(store, cidr, some, &mut reply).await {
                reply.errors.push(error.message().to_owned());
            }
        }
    }
    for handle in &asked.handles {
        match delete_handle(store, handle).await {
            Ok(true) => reply.handles_deleted += 1,
            Ok(false) => reply.handles_skipped += 1,
            Err(error) => reply.errors.push(error.message().to_owned()),
        }
    }
    let (released, handles) = (reply.released, reply.handles_deleted);
    tracing::info!(released, handles, "addresses freed for the command line");
    Ok(reply)
}

fn parse(asked: &ReleaseAddress) -> Result<Wanted, Status> {
    let address = asked
        .address
        .parse()
        .map_err(|_| Status::invalid_argument(format!("{:?} is not an IP address", asked.address)))?;
    Ok(Wanted {
        address,
        handle: Some(asked.handle.clone()).filter(|h| !h.is_empty()),
        sequence: asked.sequence_number,
    })
}

async fn block_of<S: Store>(store: &S, address: IpAddr) -> Result<Option<IpNet>, Status> {
    let holder = twill_ipam::check::holder(store, address)
        .await
        .map_err(super::unavailable)?;
    Ok(holder.and_then(|holder| match Key::parse(&holder.key) {
        Key::Block(block) => Some(block),
        _ => None,
    }))
}

/// Frees what is still as named; who frees, and which handles lose how much, is decided anew in each attempt.
async fn from_block<S: Store>(
    store: &S,
    cidr: IpNet,
    wanted: &[Wanted],
    reply: &mut ReleaseReply,
) -> Result<(), Status> {
    let path = Key::block(cidr).path();
    for _ in 0..ATTEMPTS_MAX {
        let Some(kv) = store.get(path.clone()).await.map_err(super::unavailable)? else {
            reply
                .not_released
                .extend(wanted.iter().map(|w| w.address.to_string()));
            return Ok(());
        };
        let unreadable = |e| Status::data_loss(format!("{path} cannot be read: {e}"));
        let mut after = Block::decode(cidr, &kv.value).map_err(unreadable)?;
        let (ordinals, kept): (Vec<_>, Vec<_>) = wanted.iter().partition(|w| fits(&after, w));
        let kept: Vec<String> = kept.into_iter().map(|w| w.address.to_string()).collect();
        let ordinals: Vec<u32> = ordinals
            .into_iter()
            .filter_map(|w| after.ordinal(w.address))
            .collect();
        if ordinals.is_empty() {
            reply.not_released.extend(kept);
            return Ok(());
        }
        let handles = handles(&after, &ordinals);
        block::release(&mut after, &ordinals);
        block::written(&mut after);
        let mut txn = Txn::when(vec![Compare::mod_revision(path.clone(), kv.mod_revision)]);
        txn.then.push(leave_block(&path, &after)?);
        for id in handles {
            let left = block::ordinals_of(&after, &id).len();
            rewrite_handle(store, &mut txn, &id, cidr, left).await?;
        }
        let done = store.txn(txn).await;
        if done.map_err(super::unavailable)?.succeeded {
            reply.released += u64::try_from(ordinals.len()).unwrap_or(u64::MAX);
            reply.not_released.extend(kept);
            return Ok(());
        }
    }
    Err(Status::aborted(format!("{path} keeps being changed by others")))
}

fn fits(block: &Block, wanted: &Wanted) -> bool {
    let Some(ordinal) = block.ordinal(wanted.address) else {
        return false;
    };
    let Some(attribute) = block.attribute(ordinal).filter(|a| a.released_at.is_none()) else {
        return false;
    };
    let numbers = block.sequence_number_for_allocation.as_ref();
    let number = numbers
        .and_then(|n| n.get(&ordinal.to_string()))
        .copied()
        .unwrap_or(0);
    wanted
        .handle
        .as_deref()
        .is_none_or(|handle| attribute.handle() == Some(handle))
        && wanted.sequence.is_none_or(|sequence| sequence == number)
}

fn handles(block: &Block, ordinals: &[u32]) -> Vec<String> {
    let held = ordinals.iter().filter_map(|o| block.attribute(*o)?.handle());
    let mut handles: Vec<String> = held.map(str::to_owned).collect();
    handles.sort();
    handles.dedup();
    handles
}

/// An empty block that nobody owns goes; every other stays.
fn leave_block(path: &str, block: &Block) -> Result<Op, Status> {
    if block.affinity.is_none() && block.host().is_none() && block::is_empty(block) {
        return Ok(Op::delete(path.to_owned()));
    }
    let bytes = gojson::to_vec(block).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Op::put(path.to_owned(), bytes))
}

async fn rewrite_handle<S: Store>(
    store: &S,
    txn: &mut Txn,
    id: &str,
    cidr: IpNet,
    left: usize,
) -> Result<(), Status> {
    let path = handle_path(id);
    let Some(kv) = store.get(path.clone()).await.map_err(super::unavailable)? else {
        return Ok(());
    };
    // A handle that cannot be read is left for the check to name.
    let Ok(mut handle) = Handle::decode(&kv.value) else {
        return Ok(());
    };
    handle.set(&cidr, i64::try_from(left).unwrap_or(i64::MAX));
    txn.compares
        .push(Compare::mod_revision(path.clone(), kv.mod_revision));
    txn.then.push(if handle.block.is_empty() {
        Op::delete(path)
    } else {
        Op::put(
            path,
            gojson::to_vec(&handle).map_err(|e| Status::internal(e.to_string()))?,
        )
    });
    Ok(())
}

fn handle_path(id: &str) -> String {
    format!("{}{id}", twill_model::key::HANDLES)
}

async fn delete_handle<S: Store>(store: &S, asked: &ReleaseHandle) -> Result<bool, Status> {
    let path = handle_path(&asked.id);
    let stored: Option<KeyValue> = store.get(path.clone()).await.map_err(super::unavailable)?;
    let revision = u64::try_from(asked.revision).unwrap_or(0);
    if stored.is_none_or(|kv| kv.mod_revision != revision) {
        return Ok(false);
    }
    let txn = Txn::when(vec![Compare::mod_revision(path.clone(), revision)]).then(vec![Op::delete(path)]);
    Ok(store.txn(txn).await.map_err(super::unavailable)?.succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_datastore::mem::MemStore;

    const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30";
    const TWO: &str = r#"{"cidr":"10.0.0.0/30","affinity":"host:n1","allocations":[0,0,1,null],"unallocated":[3],"attributes":[{"handle_id":"net.a"},{"handle_id":"net.b"}],"sequenceNumber":12,"sequenceNumberForAllocation":{"0":10,"1":10,"2":11},"deleted":false}"#;

    async fn store() -> MemStore {
        let store = MemStore::new();
        store.put(BLOCK, TWO).await.unwrap();
        for (id, count) in [("net.a", 2), ("net.b", 1)] {
            let value = format!(r#"{{"block":{{"10.0.0.0/30":{count}}},"deleted":false}}"#);
            store.put(handle_path(id), value).await.unwrap();
        }
        store
    }

    fn one(address: &str, handle: &str, sequence_number: Option<u64>) -> ReleaseAddress {
        ReleaseAddress {
            address: address.into(),
            handle: handle.into(),
            sequence_number,
        }
    }

    async fn text(store: &MemStore, key: &str) -> Option<String> {
        let kv = store.get(key.to_owned()).await.unwrap()?;
        Some(String::from_utf8(kv.value.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn an_address_goes_with_its_handle_when_that_was_its_last() {
        let store = store().await;
        let asked = ReleaseRequest {
            addresses: vec![one("10.0.0.0", "", None), one("10.0.0.2", "net.b", Some(11))],
            handles: vec![],
        };
        let reply = release(&store, asked).await.unwrap();
        assert_eq!(
            (reply.released, reply.not_released.len(), reply.errors.len()),
            (2, 0, 0)
        );
        let block = text(&store, BLOCK).await.unwrap();
        assert!(
            block.contains(r#""allocations":[null,0,null,null],"unallocated":[3,0,2],"attributes":[{"handle_id":"net.a"}],"sequenceNumber":13,"sequenceNumberForAllocation":{"1":10}"#),
            "{block}"
        );
        assert_eq!(
            text(&store, &handle_path("net.a")).await.unwrap(),
            r#"{"block":{"10.0.0.0/30":1},"deleted":false}"#
        );
        assert_eq!(text(&store, &handle_path("net.b")).await, None);
    }

    #[tokio::test]
    async fn what_has_changed_since_the_report_stays() {
        let store = store().await;
        let asked = ReleaseRequest {
            addresses: vec![
                one("10.0.0.0", "net.b", None),
                one("10.0.0.2", "net.b", Some(9)),
                one("10.0.0.3", "", None),
                one("10.9.9.9", "", None),
            ],
            handles: vec![ReleaseHandle {
                id: "net.a".into(),
                revision: 1,
            }],
        };
        let reply = release(&store, asked).await.unwrap();
        assert_eq!((reply.released, reply.not_released.len()), (0, 4));
        assert_eq!((reply.handles_deleted, reply.handles_skipped), (0, 1));
        assert_eq!(text(&store, BLOCK).await.unwrap(), TWO);
    }

    #[tokio::test]
    async fn a_handle_goes_only_at_its_revision() {
        let store = store().await;
        let kv = store.get(handle_path("net.a")).await.unwrap().unwrap();
        let handles = vec![ReleaseHandle {
            id: "net.a".into(),
            revision: i64::try_from(kv.mod_revision).unwrap(),
        }];
        let asked = ReleaseRequest {
            addresses: vec![],
            handles,
        };
        assert_eq!(release(&store, asked).await.unwrap().handles_deleted, 1);
        assert_eq!(text(&store, &handle_path("net.a")).await, None);
    }
}

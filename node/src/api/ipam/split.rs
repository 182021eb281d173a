//! One pool becomes several of equal size. The blocks stay: each lies in exactly one of the parts.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tonic::Status;
use twill_datastore::client::{Client, Stored, birth};
use twill_datastore::{Compare, Op, Store, Txn};
use twill_model::key::ResourceKey;
use twill_model::net::Net;
use twill_model::resources::IpPool;
use twill_model::{AnyResource, Kind, ObjectMeta, change, initial};
use twill_proto::api::{SplitPool, SplitReply, SplitRequest};

/// Most parts: all of them are made, and the old pool deleted, in one transaction of at most 128 operations.
const PARTS_MAX: u32 = 64;
/// Longest name of an object.
const NAME_MAX: usize = 253;

pub(super) async fn split<S: Store>(client: &Client<S>, asked: &SplitRequest) -> Result<SplitReply, Status> {
    let cluster = ResourceKey::cluster(Kind::ClusterInformation, initial::DEFAULT);
    let lock = client
        .get(&cluster)
        .await
        .map_err(super::super::resources::status)?;
    if !is_locked(&lock) {
        return Err(Status::failed_precondition(
            "datastore is not locked. Run the `twillctl datastore lock` command in order split the IP pools",
        ));
    }
    let old = find(client, asked).await?;
    let AnyResource::IpPool(pool) = &old.object else {
        return Err(Status::data_loss(format!("{} is no pool", old.key)));
    };
    let cidrs = parts(pool.spec.cidr.masked(), asked.parts).map_err(Status::invalid_argument)?;
    let mut compares = vec![
        Compare::mod_revision(cluster.path(), lock.revision),
        Compare::mod_revision(old.key.path(), old.revision),
    ];
    let mut ops = vec![Op::delete(old.key.path())];
    let mut pools = Vec::new();
    for (at, cidr) in cidrs.into_iter().enumerate() {
        let part = part(pool, at, cidr);
        let made = change::create(&part, &birth())
            .map_err(|e| Status::invalid_argument(format!("the part {cidr} would be no pool: {e}")))?;
        let path = made.key().path();
        compares.push(Compare::absent(path.clone()));
        ops.push(Op::put(path, made.encode()));
        pools.push(SplitPool {
            name: made.metadata().name.clone(),
            cidr: cidr.to_string(),
        });
    }
    let done = client.store().txn(Txn::when(compares).then(ops)).await;
    if !done.map_err(super::unavailable)?.succeeded {
        return Err(Status::aborted(
            "nothing was split: the pool, the lock or one of the new names was changed by someone else; try again",
        ));
    }
    tracing::info!(
        pool = pool.metadata.name,
        parts = pools.len(),
        "pool split for the command line"
    );
    Ok(SplitReply {
        old_name: pool.metadata.name.clone(),
        pools,
    })
}

fn is_locked(cluster: &Stored) -> bool {
    matches!(&cluster.object, AnyResource::ClusterInformation(c) if c.spec.datastore_ready == Some(false))
}

async fn find<S: Store>(client: &Client<S>, asked: &SplitRequest) -> Result<Stored, Status> {
    if !asked.name.is_empty() {
        let key = ResourceKey::cluster(Kind::IpPool, asked.name.clone());
        return client
            .get(&key)
            .await
            .map_err(|e| Status::not_found(format!("unable to find IP pool with name {}: {e}", asked.name)));
    }
    let wanted: IpNet = asked
        .cidr
        .parse()
        .map_err(|_| Status::invalid_argument(format!("{:?} is not a CIDR", asked.cidr)))?;
    let pools = client
        .list(Kind::IpPool, None)
        .await
        .map_err(super::unavailable)?;
    let is_it = |stored: &Stored| matches!(&stored.object, AnyResource::IpPool(pool) if pool.spec.cidr.masked() == wanted.trunc());
    pools.items.into_iter().find(is_it).ok_or_else(|| {
        Status::not_found(format!(
            "unable to find an IP pool with the specified CIDR {wanted}"
        ))
    })
}

/// The parts of a CIDR in the order of their addresses.
fn parts(cidr: IpNet, count: u32) -> Result<Vec<IpNet>, String> {
    let failed = |why: String| format!("error splitting the CIDR {cidr} into {count} CIDRs: {why}");
    if count < 2 || !count.is_power_of_two() {
        let why = format!("number to split CIDR into is not a valid power of 2: {count}");
        return Err(failed(why));
    }
    if count > PARTS_MAX {
        return Err(failed(format!(
            "at most {PARTS_MAX} parts are made at once; split the parts again"
        )));
    }
    let bits = u8::try_from(count.trailing_zeros()).unwrap_or(u8::MAX);
    let too_small = || {
        failed(format!(
            "the CIDR {cidr} is not large enough to be split into {count} parts"
        ))
    };
    let len = cidr
        .prefix_len()
        .checked_add(bits)
        .filter(|len| *len <= cidr.max_prefix_len())
        .ok_or_else(too_small)?;
    let step = u32::from(cidr.max_prefix_len().saturating_sub(len));
    let part = |at: u32| -> Option<IpNet> {
        match cidr {
            IpNet::V4(net) => {
                let start = u32::from(net.network()).checked_add(at.checked_shl(step)?)?;
                Some(Ipv4Net::new(start.into(), len).ok()?.into())
            }
            IpNet::V6(net) => {
                let start = u128::from(net.network()).checked_add(u128::from(at).checked_shl(step)?)?;
                Some(Ipv6Net::new(start.into(), len).ok()?.into())
            }
        }
    };
    (0..count).map(|at| part(at).ok_or_else(too_small)).collect()
}

/// The old pool with another CIDR and calicoctl's name for it.
fn part(old: &IpPool, at: usize, cidr: IpNet) -> AnyResource {
    let mut new = old.clone();
    let suffix = format!("-{at}");
    let room = NAME_MAX.saturating_sub("split-".len() + suffix.len());
    let stem: String = old.metadata.name.chars().take(room).collect();
    new.metadata = ObjectMeta {
        labels: old.metadata.labels.clone(),
        annotations: old.metadata.annotations.clone(),
        ..ObjectMeta::named(format!("split-{stem}{suffix}"))
    };
    new.spec.cidr = Net::from(cidr);
    new.spec.disabled = false;
    new.status = None;
    new.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cidr: &str, count: u32, expected: Result<&[&str], &str>) {
        let found = parts(cidr.parse().unwrap(), count);
        match expected {
            Ok(expected) => {
                let found: Vec<_> = found.unwrap().iter().map(ToString::to_string).collect();
                assert_eq!(found, expected);
            }
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn a_cidr_is_split_into_equal_parts_in_order() {
        check("10.244.0.0/16", 2, Ok(&["10.244.0.0/17", "10.244.128.0/17"]));
        check(
            "fd00::/120",
            4,
            Ok(&["fd00::/122", "fd00::40/122", "fd00::80/122", "fd00::c0/122"]),
        );
        check("0.0.0.0/0", 2, Ok(&["0.0.0.0/1", "128.0.0.0/1"]));
        check("::/0", 2, Ok(&["::/1", "8000::/1"]));
        check("10.0.0.0/8", 3, Err("power of 2: 3"));
        check("10.0.0.0/8", 1, Err("power of 2: 1"));
        check("10.0.0.0/8", 0, Err("power of 2: 0"));
        check("10.0.0.0/31", 4, Err("not large enough"));
        check("10.0.0.0/8", 128, Err("at most 64"));
    }

    #[tokio::test]
    async fn a_locked_store_gets_the_parts_and_loses_the_pool() {
        let client = Client::new(twill_datastore::mem::MemStore::new());
        let spec = serde_json::from_str(r#"{"cidr":"10.244.0.0/16","natOutgoing":true}"#).unwrap();
        let pool = IpPool::new(ObjectMeta::named("pool"), spec);
        client.create(&pool.into()).await.unwrap();
        let asked = SplitRequest {
            name: "pool".into(),
            parts: 2,
            ..SplitRequest::default()
        };
        assert!(
            split(&client, &asked).await.is_err(),
            "there is no ClusterInformation"
        );
        client.create(&initial::cluster_information(1)).await.unwrap();
        let open = split(&client, &asked).await.unwrap_err();
        assert_eq!(open.code(), tonic::Code::FailedPrecondition);
        super::super::super::datastore::set_ready(&client, false)
            .await
            .unwrap();
        let reply = split(&client, &asked).await.unwrap();
        let names: Vec<_> = reply.pools.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["split-pool-0", "split-pool-1"]);
        let left = client.list(Kind::IpPool, None).await.unwrap().items;
        assert_eq!(left.len(), 2);
        let AnyResource::IpPool(second) = &left[1].object else {
            panic!("a pool")
        };
        assert_eq!(second.spec.cidr.to_string(), "10.244.128.0/17");
        assert!(second.spec.nat_outgoing && !second.metadata.uid.is_empty());
        assert!(split(&client, &asked).await.is_err(), "the pool is gone");
    }
}

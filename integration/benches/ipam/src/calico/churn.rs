//! What Calico's allocator does when a pool is nearly full, call by call: taking empty blocks away from other nodes, borrowing,
//! giving back, and putting right what somebody who lost a race left on a block of its own. Unlike Calico since 3.32 it takes a
//! block away however young its claim is, as older ones do: the harder neighbour.

use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twill_datastore::Store;
use twill_ipam::Family;

use super::{CalicoNode, RETRIES, block_key};

fn state(state: &str) -> String {
    format!("{{\"state\":\"{state}\",\"deleted\":false}}")
}

fn affinity_key(node: &str, name: &str) -> String {
    format!("/calico/ipam/v2/host/{node}/ipv4/block/{name}")
}

impl<S: Store> CalicoNode<S> {
    /// As the allocator does with an affinity of its own that is not confirmed: pending, the block written once more, so that whoever
    /// would delete it by its revision cannot, and confirmed; without a block of its own the affinity goes.
    pub(super) async fn confirm(
        &mut self,
        affinity: &str,
        at: u64,
        name: &str,
        family: Family,
    ) -> Result<()> {
        let Some(pending) = self.put(affinity, at, state("pending")).await? else {
            return Ok(());
        };
        let key = block_key(name, family);
        let owner = format!("host:{}", self.node());
        match self.get(&key).await? {
            Some((at, mut block)) if block["affinity"] == owner => {
                let number = block["sequenceNumber"].as_u64().unwrap_or(0);
                block["sequenceNumber"] = json!(number + 1);
                if self.put(&key, at, block.to_string()).await?.is_some() {
                    self.put(affinity, pending, state("confirmed")).await?;
                }
            }
            _ => drop(self.delete(affinity, pending).await?),
        }
        Ok(())
    }

    /// Confirms what is left unconfirmed of its own, as the next use of each block would.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn settle(&mut self) -> Result<()> {
        let prefix = affinity_key(self.node(), "");
        for (key, _) in self.list(&prefix).await? {
            let name = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            for _ in 0..RETRIES {
                match self.get(&key).await? {
                    Some((at, value)) if value["state"] != "confirmed" => {
                        self.confirm(&key, at, &name, Family::V4).await?;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// An IPv4 address from a block of its own, a new one, one taken away, or a borrowed one; `None` if the pool is full.
    ///
    /// # Errors
    /// If the store fails, or everything is contended for too long.
    pub async fn assign_somehow(&mut self, handle: &str) -> Result<Option<IpAddr>> {
        let family = Family::V4;
        let prefix = affinity_key(self.node(), "");
        for (key, _) in self.list(&prefix).await? {
            let name = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            if let Some(address) = self.take_from(&key, &name, handle, family).await? {
                return Ok(Some(address));
            }
        }
        let claimed = match self.claim(family).await {
            Ok(name) => Some(name),
            Err(_) => self.take_away().await?,
        };
        if let Some(name) = claimed {
            let key = affinity_key(self.node(), &name);
            if let Some(address) = self.take_from(&key, &name, handle, family).await? {
                return Ok(Some(address));
            }
        }
        for (key, value) in self.list("/calico/ipam/v2/assignment/ipv4/block/").await? {
            let block: Value = serde_json::from_slice(&value)?;
            let is_full = block["unallocated"].as_array().is_none_or(Vec::is_empty);
            let name = key.rsplit('/').next().unwrap_or_default().to_owned();
            // No affinity of ours: a borrower goes straight to the block.
            if !is_full
                && let Some(address) = self
                    .take_from("/calico/ipam/v2/none", &name, handle, family)
                    .await?
            {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Takes an empty block of another node: its affinity `pendingDeletion`, the block deleted as it was read, the affinity deleted,
    /// and then claimed as any free block. Whoever loses a race on the way leaves things as they are.
    async fn take_away(&mut self) -> Result<Option<String>> {
        for (key, value) in self.list("/calico/ipam/v2/assignment/ipv4/block/").await? {
            let block: Value = serde_json::from_slice(&value)?;
            let is_empty = |block: &Value| {
                let all = block["allocations"].as_array().map_or(0, Vec::len);
                block["unallocated"].as_array().map_or(0, Vec::len) == all
            };
            let owner = block["affinity"].as_str().and_then(|a| a.strip_prefix("host:"));
            let Some(owner) = owner.filter(|owner| *owner != self.node() && is_empty(&block)) else {
                continue;
            };
            let name = key.rsplit('/').next().unwrap_or_default().to_owned();
            let affinity = affinity_key(owner, &name);
            let Some((at, now)) = self.get(&key).await?.filter(|(_, now)| is_empty(now)) else {
                continue;
            };
            let Some((held, _)) = self
                .get(&affinity)
                .await?
                .filter(|_| now["affinity"] == block["affinity"])
            else {
                continue;
            };
            let Some(pending) = self.put(&affinity, held, state("pendingDeletion")).await? else {
                continue;
            };
            if self.delete(&key, at).await?.is_none() {
                continue;
            }
            self.delete(&affinity, pending).await?;
            return Ok(self.claim(Family::V4).await.ok());
        }
        Ok(None)
    }

    /// Gives back what a handle holds: the block, then the handle.
    ///
    /// # Errors
    /// If the store fails, or the block is contended for too long.
    pub async fn release(&mut self, handle: &str) -> Result<()> {
        let key = format!("/calico/ipam/v2/handle/{handle}");
        let Some((_, counts)) = self.get(&key).await? else {
            return Ok(());
        };
        let names = counts["block"].as_object().into_iter().flatten();
        for name in names
            .map(|(cidr, _)| cidr.replacen('/', "-", 1))
            .collect::<Vec<_>>()
        {
            self.release_in(&block_key(&name, Family::V4), handle).await?;
        }
        if let Some((at, _)) = self.get(&key).await? {
            self.delete(&key, at).await?;
        }
        Ok(())
    }

    async fn release_in(&mut self, key: &str, handle: &str) -> Result<()> {
        for _ in 0..RETRIES {
            let Some((at, mut block)) = self.get(key).await? else {
                return Ok(());
            };
            if !without(&mut block, handle) {
                return Ok(());
            }
            let is_ownerless = block["affinity"].is_null() && block["attributes"] == json!([]);
            let done = if is_ownerless {
                self.delete(key, at).await?
            } else {
                self.put(key, at, block.to_string()).await?
            };
            if done.is_some() {
                return Ok(());
            }
        }
        bail!("gave up after {RETRIES} attempts");
    }
}

/// Frees what `handle` holds in a block; false if it holds nothing.
fn without(block: &mut Value, handle: &str) -> bool {
    let attributes = block["attributes"].as_array().cloned().unwrap_or_default();
    let Some(gone) = attributes.iter().position(|a| a["handle_id"] == handle) else {
        return false;
    };
    let mut freed = Vec::new();
    for (ordinal, index) in block["allocations"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .enumerate()
    {
        match index.as_u64().and_then(|i| usize::try_from(i).ok()) {
            Some(i) if i == gone => {
                *index = Value::Null;
                freed.push(ordinal);
            }
            Some(i) if i > gone => *index = json!(i - 1),
            _ => {}
        }
    }
    if let Some(attributes) = block["attributes"].as_array_mut() {
        attributes.remove(gone);
    }
    for ordinal in freed {
        if let Some(numbers) = block["sequenceNumberForAllocation"].as_object_mut() {
            numbers.remove(&ordinal.to_string());
        }
        if let Some(free) = block["unallocated"].as_array_mut() {
            free.push(json!(ordinal));
        }
    }
    let number = block["sequenceNumber"].as_u64().unwrap_or(0);
    block["sequenceNumber"] = json!(number + 1);
    true
}

//! An allocation block: the addresses of one CIDR, who holds which, and in what order the rest goes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{IpamDecodeError, decode, null_is_default};

/// Most addresses in one block: Calico's smallest legal `blockSize` is /20 for IPv4 and /116 for IPv6.
pub const BLOCK_ADDRESSES_MAX: usize = 1 << 12;

/// `/calico/ipam/v2/assignment/ipv{4,6}/block/<cidr>`: the unit of compare-and-swap of Calico's IPAM
/// (`model.AllocationBlock`).
///
/// A value of this type that came from [`Block::decode`] satisfies the invariants that keep an address from being
/// given twice; [`Block::problems`] lists the harmless ones that `ipam check` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The block's CIDR, equal to the one in the key.
    pub cidr: IpNet,
    /// Owner: `host:<node>`, `virtual:<name>`, or none once it was released while in use.
    #[serde(default)]
    pub affinity: Option<String>,
    /// When the affinity was claimed (RFC 3339, seconds). Set and removed together with `affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// One entry for each address: `None` is free, otherwise the index of its [`Attribute`].
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals in the order in which they are handed out: taken from the front, given back at the end.
    #[serde(default, deserialize_with = "null_is_default")]
    pub unallocated: Vec<u32>,
    /// Who holds the allocated addresses. A new block prints `null`, an emptied one `[]`, as Go does.
    #[serde(default)]
    pub attributes: Option<Vec<Attribute>>,
    /// Grows by one with each write; starts at the UNIX time in nanoseconds.
    #[serde(default, rename = "sequenceNumber")]
    pub sequence_number: u64,
    /// For each allocated ordinal (decimal), the sequence number before the write that allocated it.
    #[serde(default, rename = "sequenceNumberForAllocation")]
    pub sequence_number_for_allocation: Option<BTreeMap<String, u64>>,
    /// A marker of the Kubernetes backend; always `false` in etcd.
    #[serde(default)]
    pub deleted: bool,
    /// The form of `affinity` before Calico 3.0, kept if found.
    #[serde(default, rename = "hostAffinity", skip_serializing_if = "Option::is_none")]
    pub host_affinity: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Who holds an address (`model.AllocationAttribute`). Addresses with equal attributes share one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The handle, `<network>.<containerID>` for a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// The active owner: `pod`, `namespace`, `node`, `timestamp`, `type`, ...
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub secondary: BTreeMap<String, String>,
    /// The previous or coming owner during a live migration.
    #[serde(
        default,
        rename = "alternateOwnerAttrs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub alternate_owner_attrs: BTreeMap<String, String>,
    /// When the address was released into its cool-down (Calico 3.33 and later; read, never written by Twill).
    #[serde(default, rename = "releasedAt", skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Attribute {
    /// The handle as Calico compares it: what follows a carriage return (a defect of an old migration) is cut.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        self.handle_id
            .as_deref()
            .map(|h| h.split('\r').next().unwrap_or_default())
    }
}

impl Block {
    /// Decodes the value stored under the key of block `key`.
    ///
    /// # Errors
    /// If the JSON is not a block's, or an invariant is broken whose violation could hand an address out twice
    /// or crash a reader: wrong number of allocations, an index beyond the attributes, an ordinal that is free
    /// twice, free and in use, or outside, or a CIDR that is not the key's.
    pub fn decode(key: IpNet, bytes: &[u8]) -> Result<Self, IpamDecodeError> {
        let block: Self = decode(bytes)?;
        if block.cidr != key {
            return Err(IpamDecodeError::CidrMismatch {
                found: block.cidr.to_string(),
                key: key.to_string(),
            });
        }
        check(
            &block.cidr,
            &block.allocations,
            &block.unallocated,
            block.attributes().len(),
        )?;
        Ok(block)
    }

    /// How many addresses `cidr` spans, `None` above [`BLOCK_ADDRESSES_MAX`].
    #[must_use]
    pub fn addresses_in(cidr: &IpNet) -> Option<usize> {
        let host_bits = u32::from(cidr.max_prefix_len().saturating_sub(cidr.prefix_len()));
        1usize
            .checked_shl(host_bits)
            .filter(|n| *n <= BLOCK_ADDRESSES_MAX && host_bits <= 12)
    }

    /// What `ipam check` reports and no allocator trips over: attributes that no address uses, and addresses that
    /// are neither allocated nor free.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        problems_of(&self.allocations, &self.unallocated, self.attributes().len())
    }

    /// The attributes, none if the field is `null`.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        self.attributes.as_deref().unwrap_or_default()
    }

    /// The attribute of the address at `ordinal`, if it is allocated.
    #[must_use]
    pub fn attribute(&self, ordinal: u32) -> Option<&Attribute> {
        let index = (*self.allocations.get(usize::try_from(ordinal).ok()?)?)?;
        self.attributes().get(usize::try_from(index).ok()?)
    }

    /// The node that owns the block, if its affinity is `host:<node>`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        host_of(self.affinity.as_deref(), self.host_affinity.as_deref())
    }

    /// The address at `ordinal`, `None` outside the block.
    #[must_use]
    pub fn address(&self, ordinal: u32) -> Option<IpAddr> {
        if usize::try_from(ordinal).ok()? >= self.allocations.len() {
            return None;
        }
        address_at(&self.cidr, ordinal)
    }

    /// The ordinal of `address`, `None` outside the block.
    #[must_use]
    pub fn ordinal(&self, address: IpAddr) -> Option<u32> {
        if !self.cidr.contains(&address) {
            return None;
        }
        match (self.cidr, address) {
            (IpNet::V4(net), IpAddr::V4(a)) => u32::from(a).checked_sub(u32::from(net.network())),
            (IpNet::V6(net), IpAddr::V6(a)) => {
                u32::try_from(u128::from(a).checked_sub(u128::from(net.network()))?).ok()
            }
            _ => None,
        }
    }
}

/// What keeps an address from being given twice, and a reader from crashing.
pub(super) fn check(
    cidr: &IpNet,
    allocations: &[Option<u32>],
    unallocated: &[u32],
    attributes: usize,
) -> Result<(), IpamDecodeError> {
    let size = Block::addresses_in(cidr).ok_or_else(|| IpamDecodeError::TooLarge(cidr.to_string()))?;
    if allocations.len() != size {
        return Err(IpamDecodeError::AllocationsLength {
            found: allocations.len(),
            expected: size,
        });
    }
    for (ordinal, index) in allocations.iter().enumerate() {
        match index {
            Some(index) if usize::try_from(*index).is_ok_and(|i| i < attributes) => {}
            Some(index) => {
                return Err(IpamDecodeError::AttributeIndex {
                    ordinal,
                    index: *index,
                    attributes,
                });
            }
            None => {}
        }
    }
    let mut seen = vec![false; size];
    for ordinal in unallocated {
        let at = usize::try_from(*ordinal).unwrap_or(usize::MAX);
        match (seen.get_mut(at), allocations.get(at)) {
            (Some(seen), Some(None)) if !*seen => *seen = true,
            (Some(_), Some(None)) => return Err(IpamDecodeError::UnallocatedTwice(*ordinal)),
            (Some(_), Some(Some(_))) => return Err(IpamDecodeError::UnallocatedInUse(*ordinal)),
            _ => return Err(IpamDecodeError::UnallocatedOutside(*ordinal)),
        }
    }
    Ok(())
}

/// See [`Block::problems`].
pub(super) fn problems_of(
    allocations: &[Option<u32>],
    unallocated: &[u32],
    attributes: usize,
) -> Vec<String> {
    let mut used = vec![false; attributes];
    for index in allocations.iter().flatten() {
        if let Some(used) = usize::try_from(*index).ok().and_then(|i| used.get_mut(i)) {
            *used = true;
        }
    }
    let mut found: Vec<String> = (0..used.len())
        .filter(|i| used.get(*i) == Some(&false))
        .map(|i| format!("attribute {i} is used by no address"))
        .collect();
    let free: std::collections::BTreeSet<u32> = unallocated.iter().copied().collect();
    for (ordinal, index) in (0u32..).zip(allocations) {
        if index.is_none() && !free.contains(&ordinal) {
            found.push(format!("ordinal {ordinal} is neither allocated nor free"));
        }
    }
    found
}

/// The node of `host:<node>`, or of the form before Calico 3.0 where there is no affinity.
pub(super) fn host_of<'t>(affinity: Option<&'t str>, old: Option<&'t str>) -> Option<&'t str> {
    match affinity {
        Some(affinity) => affinity.strip_prefix("host:"),
        None => old,
    }
}

/// The `ordinal`-th address of `cidr`, whether it is inside or not.
pub(super) fn address_at(cidr: &IpNet, ordinal: u32) -> Option<IpAddr> {
    Some(match cidr {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()).checked_add(ordinal)?).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()).checked_add(ordinal.into())?).into(),
    })
}

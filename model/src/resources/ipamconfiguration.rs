//! IPAMConfiguration: what users see of the allocator's settings.
//!
//! The allocator obeys the key `/calico/ipam/v2/config` and not this object.

use crate::go::{go_struct, words};
use crate::resource::Resource;

/// Settings of the allocator, named `default`.
pub type IpamConfiguration = Resource<IpamConfigurationSpec>;

words! {
    /// Whether something is on.
    pub enum Switch {
        /// On.
        Enabled = "Enabled",
        /// Off.
        Disabled = "Disabled",
    }
}

go_struct! {
    /// Settings of the allocator.
    #[derive(Default)]
    pub struct IpamConfigurationSpec {
        /// Never take an address from another node's block.
        pub strict_affinity: bool = "strictAffinity" always,
        /// Blocks a node may have; 0 is the default.
        pub max_blocks_per_host: i32 = "maxBlocksPerHost" omitempty,
        /// Nodes claim blocks as they need them.
        pub auto_allocate_blocks: bool = "autoAllocateBlocks" always,
        /// Virtual machines keep their addresses.
        pub kubevirt_vm_address_persistence: Option<Switch> = "kubeVirtVMAddressPersistence" omitempty,
        /// Seconds before a released address may be used again.
        pub ip_cooldown_seconds: i32 = "ipCooldownSeconds" omitempty,
    }
}

//! IPPool: a range of addresses for endpoints.

use serde_json::Value;

use crate::go::{go_struct, words};
use crate::net::Net;
use crate::resource::Resource;

/// A range of addresses for endpoints.
pub type IpPool = Resource<IpPoolSpec>;

words! {
    /// When packets between nodes are encapsulated.
    pub enum EncapMode {
        /// Not at all.
        Never = "Never",
        /// Between any two nodes.
        Always = "Always",
        /// Between nodes in different subnets.
        CrossSubnet = "CrossSubnet",
    }
}

words! {
    /// What the addresses of a pool are for.
    pub enum AllowedUse {
        /// Endpoints.
        Workload = "Workload",
        /// The tunnel devices of nodes.
        Tunnel = "Tunnel",
        /// Services of type LoadBalancer.
        LoadBalancer = "LoadBalancer",
    }
}

words! {
    /// Whether addresses are taken from a pool that nobody asked for.
    pub enum AssignmentMode {
        /// Yes.
        Automatic = "Automatic",
        /// Only on request.
        Manual = "Manual",
    }
}

go_struct! {
    /// A range of addresses and the rules for their use.
    pub struct IpPoolSpec {
        /// The range; never changes.
        pub cidr: Net = "cidr" required,
        /// VXLAN between nodes.
        pub vxlan_mode: Option<EncapMode> = "vxlanMode" omitempty,
        /// IPIP between nodes; IPv4 only.
        pub ipip_mode: Option<EncapMode> = "ipipMode" omitempty,
        /// Masquerade packets to addresses outside all pools.
        pub nat_outgoing: bool = "natOutgoing" omitempty,
        /// No new addresses; those in use stay.
        pub disabled: bool = "disabled" omitempty,
        /// Do not announce.
        pub disable_bgp_export: bool = "disableBGPExport" omitempty,
        /// Prefix length of blocks; 0 is the default of 26 or 122.
        pub block_size: u8 = "blockSize" omitempty,
        /// Nodes that may claim blocks.
        pub node_selector: String = "nodeSelector" omitempty,
        /// Namespaces whose endpoints may take addresses.
        pub namespace_selector: String = "namespaceSelector" omitempty,
        /// What for; empty is workloads and tunnels.
        pub allowed_uses: Vec<AllowedUse> = "allowedUses" omitempty,
        /// Automatic by default.
        pub assignment_mode: Option<AssignmentMode> = "assignmentMode" omitempty,
    }
}

go_struct! {
    /// What controllers say of a pool.
    #[derive(Default)]
    pub struct IpPoolStatus {
        /// Kubernetes conditions.
        pub conditions: Vec<Value> = "conditions" omitempty,
    }
}

//! Node: a host of the fabric, its BGP and tunnel addresses.

use std::net::Ipv4Addr;

use crate::go::{go_struct, whole_fields};
use crate::net::Net;
use crate::number::AsNumber;
use crate::resource::Resource;

/// A host of the fabric.
pub type Node = Resource<NodeSpec>;

go_struct! {
    /// What a node is configured with.
    #[derive(Default)]
    pub struct NodeSpec {
        /// How it speaks BGP; absent, it does not. Never an empty object.
        pub bgp: Option<NodeBgpSpec> = "bgp" omitempty,
        /// Its address on the IPv4 VXLAN device, bare.
        pub ipv4_vxlan_tunnel_addr: Option<Net> = "ipv4VXLANTunnelAddr" omitempty,
        /// The MAC of its VXLAN device.
        pub vxlan_tunnel_mac_addr: String = "vxlanTunnelMACAddr" omitempty,
        /// Its address on the IPv6 VXLAN device, bare.
        pub ipv6_vxlan_tunnel_addr: Option<Net> = "ipv6VXLANTunnelAddr" omitempty,
        /// The MAC of its IPv6 VXLAN device.
        pub vxlan_tunnel_mac_addr_v6: String = "vxlanTunnelMACAddrV6" omitempty,
        /// What orchestrators call it.
        pub orch_refs: Vec<OrchRef> = "orchRefs" omitempty,
        /// Its WireGuard addresses.
        pub wireguard: Option<NodeWireguardSpec> = "wireguard" omitempty,
        /// Further addresses.
        pub addresses: Vec<NodeAddress> = "addresses" omitempty,
        /// Its interfaces and their addresses.
        pub interfaces: Vec<NodeInterface> = "interfaces" omitempty,
    }
}

go_struct! {
    /// A node's side of BGP.
    #[derive(Default)]
    pub struct NodeBgpSpec {
        /// Its AS, if not that of the cluster.
        pub as_number: Option<AsNumber> = "asNumber" omitempty,
        /// Its IPv4 address with the prefix length of its subnet.
        pub ipv4_address: Option<Net> = "ipv4Address" omitempty,
        /// Its IPv6 address with the prefix length of its subnet.
        pub ipv6_address: Option<Net> = "ipv6Address" omitempty,
        /// Its address on the IPIP device, bare.
        pub ipv4_ipip_tunnel_addr: Option<Net> = "ipv4IPIPTunnelAddr" omitempty,
        /// Set for a route reflector, which then leaves the mesh.
        pub route_reflector_cluster_id: Option<ClusterId> = "routeReflectorClusterID" omitempty,
    }
}

/// The cluster id of a route reflector, written as an IPv4 address (RFC 4456 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub Ipv4Addr);

whole_fields!(ClusterId);

go_struct! {
    /// A node's name at an orchestrator.
    #[derive(Default)]
    pub struct OrchRef {
        /// Its name there.
        pub node_name: String = "nodeName" omitempty,
        /// Which orchestrator: `k8s`.
        pub orchestrator: String = "orchestrator" always,
    }
}

go_struct! {
    /// A node's WireGuard addresses.
    #[derive(Default)]
    pub struct NodeWireguardSpec {
        /// On the IPv4 device, bare.
        pub interface_ipv4_address: Option<Net> = "interfaceIPv4Address" omitempty,
        /// On the IPv6 device, bare.
        pub interface_ipv6_address: Option<Net> = "interfaceIPv6Address" omitempty,
    }
}

go_struct! {
    /// An address of a node.
    #[derive(Default)]
    pub struct NodeAddress {
        /// Address or CIDR.
        pub address: String = "address" always,
        /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
        pub address_type: String = "type" omitempty,
    }
}

go_struct! {
    /// An interface of a node.
    #[derive(Default)]
    pub struct NodeInterface {
        /// Its name.
        pub name: String = "name" omitempty,
        /// Its addresses, bare.
        pub addresses: Vec<String> = "addresses" omitempty,
    }
}

go_struct! {
    /// What a node reports. Always stored, also when empty.
    #[derive(Default)]
    pub struct NodeStatus {
        /// Base64 of its key.
        pub wireguard_public_key: String = "wireguardPublicKey" omitempty,
        /// Base64 of its key for IPv6.
        pub wireguard_public_key_v6: String = "wireguardPublicKeyV6" omitempty,
        /// Prefixes that Kubernetes gave it.
        pub pod_cidrs: Vec<String> = "podCIDRs" omitempty,
    }
}

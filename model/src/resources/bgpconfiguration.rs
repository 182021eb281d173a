//! BGPConfiguration: how the cluster (`default`) or one node (`node.<name>`) speaks BGP.

use crate::duration::GoDuration;
use crate::go::{go_struct, words};
use crate::net::Net;
use crate::number::AsNumber;
use crate::resource::Resource;
use crate::resources::bgppeer::BgpPassword;
use crate::resources::ipamconfiguration::Switch;

/// How the cluster or one node speaks BGP.
pub type BgpConfiguration = Resource<BgpConfigurationSpec>;

words! {
    /// Where the speaker listens.
    pub enum BindMode {
        /// On every address.
        None = "None",
        /// On the node's address.
        NodeIp = "NodeIP",
    }
}

go_struct! {
    /// Settings of the speaker.
    #[derive(Default)]
    pub struct BgpConfigurationSpec {
        /// How much to log.
        pub log_severity_screen: String = "logSeverityScreen" omitempty,
        /// Every node peers with every other; true by default.
        pub node_to_node_mesh_enabled: Option<bool> = "nodeToNodeMeshEnabled" omitempty,
        /// The cluster's AS; 64512 by default.
        pub as_number: Option<AsNumber> = "asNumber" omitempty,
        /// Announce load balancer addresses inside these.
        pub service_load_balancer_ips: Vec<CidrBlock> = "serviceLoadBalancerIPs" omitempty,
        /// Announce external addresses of services inside these.
        pub service_external_ips: Vec<CidrBlock> = "serviceExternalIPs" omitempty,
        /// Announce these.
        pub service_cluster_ips: Vec<CidrBlock> = "serviceClusterIPs" omitempty,
        /// Announce load balancer prefixes rather than single addresses.
        pub service_load_balancer_aggregation: Option<Switch> = "serviceLoadBalancerAggregation" omitempty,
        /// Names for communities.
        pub communities: Vec<Community> = "communities" omitempty,
        /// Communities for prefixes.
        pub prefix_advertisements: Vec<PrefixAdvertisement> = "prefixAdvertisements" omitempty,
        /// Port to listen on; 0 is the default, 179.
        pub listen_port: u16 = "listenPort" omitempty,
        /// Password of the mesh.
        pub node_mesh_password: Option<BgpPassword> = "nodeMeshPassword" omitempty,
        /// Graceful restart time of the mesh.
        pub node_mesh_max_restart_time: Option<GoDuration> = "nodeMeshMaxRestartTime" omitempty,
        /// Where to listen.
        pub bind_mode: Option<BindMode> = "bindMode" omitempty,
        /// Interfaces whose routes are none of BGP's business.
        pub ignored_interfaces: Vec<String> = "ignoredInterfaces" omitempty,
        /// Address for workloads that peer with their node.
        pub local_workload_peering_ipv4: String = "localWorkloadPeeringIPV4" omitempty,
        /// IPv6 address for workloads that peer with their node.
        pub local_workload_peering_ipv6: String = "localWorkloadPeeringIPV6" omitempty,
        /// Which routes of the cluster BGP programs on Calico's nodes.
        pub program_cluster_routes: Option<String> = "programClusterRoutes" omitempty,
        /// Metric of IPv4 routes; 1024 by default.
        pub ipv4_normal_route_priority: Option<i32> = "ipv4NormalRoutePriority" omitempty,
        /// Metric of IPv6 routes; 1024 by default.
        pub ipv6_normal_route_priority: Option<i32> = "ipv6NormalRoutePriority" omitempty,
    }
}

go_struct! {
    /// A prefix of service addresses.
    #[derive(Default)]
    pub struct CidrBlock {
        /// The prefix.
        pub cidr: Option<Net> = "cidr" omitempty,
    }
}

go_struct! {
    /// A name for a community.
    #[derive(Default)]
    pub struct Community {
        /// The name.
        pub name: String = "name" omitempty,
        /// `aa:nn` or `aa:nn:mm`.
        pub value: String = "value" omitempty,
    }
}

go_struct! {
    /// Communities that go with a prefix.
    #[derive(Default)]
    pub struct PrefixAdvertisement {
        /// The prefix.
        pub cidr: Option<Net> = "cidr" omitempty,
        /// Names or values of communities.
        pub communities: Vec<String> = "communities" omitempty,
    }
}

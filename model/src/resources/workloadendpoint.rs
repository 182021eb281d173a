//! WorkloadEndpoint: an interface of a container on the fabric.

use serde_json::Value;

use crate::go::go_struct;
use crate::net::Net;
use crate::number::Protocol;
use crate::resource::Resource;

/// An interface of a container on the fabric.
pub type WorkloadEndpoint = Resource<WorkloadEndpointSpec>;

go_struct! {
    /// Whose interface it is, its addresses and its profiles.
    #[derive(Default)]
    pub struct WorkloadEndpointSpec {
        /// `k8s`, `cni`, `libnetwork` or another.
        pub orchestrator: String = "orchestrator" omitempty,
        /// The workload, for other orchestrators than Kubernetes.
        pub workload: String = "workload" omitempty,
        /// The node that it is on.
        pub node: String = "node" omitempty,
        /// The container that the interface was made for.
        pub container_id: String = "containerID" omitempty,
        /// The Kubernetes pod.
        pub pod: String = "pod" omitempty,
        /// The interface's name in the container.
        pub endpoint: String = "endpoint" omitempty,
        /// The Kubernetes service account.
        pub service_account_name: String = "serviceAccountName" omitempty,
        /// Its addresses: /32 and /128. Without any, the endpoint is invisible.
        pub ip_networks: Vec<Net> = "ipNetworks" omitempty,
        /// Floating addresses.
        pub ip_nats: Vec<IpNat> = "ipNATs" omitempty,
        /// Gateway that the container uses.
        pub ipv4_gateway: String = "ipv4Gateway" omitempty,
        /// IPv6 gateway that the container uses.
        pub ipv6_gateway: String = "ipv6Gateway" omitempty,
        /// Names of its profiles, in order.
        pub profiles: Vec<String> = "profiles" omitempty,
        /// The interface's name on the node.
        pub interface_name: String = "interfaceName" omitempty,
        /// The MAC inside the container.
        pub mac: String = "mac" omitempty,
        /// Named ports.
        pub ports: Vec<EndpointPort> = "ports" omitempty,
        /// Further sources that it may send from.
        pub allow_spoofed_source_prefixes: Vec<Net> = "allowSpoofedSourcePrefixes" omitempty,
        /// Limits on its traffic.
        pub qos_controls: Option<QosControls> = "qosControls" omitempty,
    }
}

go_struct! {
    /// A port with a name.
    pub struct EndpointPort {
        /// The name that rules use.
        pub name: String = "name" always,
        /// TCP, UDP or SCTP.
        pub protocol: Protocol = "protocol" required,
        /// The port in the container.
        pub port: u16 = "port" always,
        /// The port on the node, 0 if none.
        pub host_port: u16 = "hostPort" always,
        /// The address on the node, empty for any.
        pub host_ip: String = "hostIP" always,
    }
}

go_struct! {
    /// A floating address.
    #[derive(Default)]
    pub struct IpNat {
        /// The endpoint's own address.
        pub internal_ip: String = "internalIP" always,
        /// The address that others use.
        pub external_ip: String = "externalIP" always,
    }
}

go_struct! {
    /// Limits on traffic; 0 is none. Bandwidths in bits a second, bursts in bits.
    #[derive(Default)]
    #[expect(missing_docs, reason = "the names say it")]
    pub struct QosControls {
        pub ingress_bandwidth: i64 = "ingressBandwidth" omitempty,
        pub ingress_burst: i64 = "ingressBurst" omitempty,
        pub ingress_peakrate: i64 = "ingressPeakrate" omitempty,
        pub ingress_minburst: i64 = "ingressMinburst" omitempty,
        pub egress_bandwidth: i64 = "egressBandwidth" omitempty,
        pub egress_burst: i64 = "egressBurst" omitempty,
        pub egress_peakrate: i64 = "egressPeakrate" omitempty,
        pub egress_minburst: i64 = "egressMinburst" omitempty,
        pub ingress_packet_rate: i64 = "ingressPacketRate" omitempty,
        pub ingress_packet_burst: i64 = "ingressPacketBurst" omitempty,
        pub egress_packet_rate: i64 = "egressPacketRate" omitempty,
        pub egress_packet_burst: i64 = "egressPacketBurst" omitempty,
        pub ingress_max_connections: i64 = "ingressMaxConnections" omitempty,
        pub egress_max_connections: i64 = "egressMaxConnections" omitempty,
        /// A number up to 63 or a name such as `EF`.
        pub dscp: Option<Value> = "dscp" omitempty,
    }
}

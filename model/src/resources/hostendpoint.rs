//! HostEndpoint: an interface of a node, or all of them, under policy.

use crate::go::go_struct;
use crate::number::Protocol;
use crate::resource::Resource;

/// An interface of a node, or all of them, under policy.
pub type HostEndpoint = Resource<HostEndpointSpec>;

go_struct! {
    /// Which interface of which node, and its profiles.
    #[derive(Default)]
    pub struct HostEndpointSpec {
        /// The node.
        pub node: String = "node" omitempty,
        /// The interface, `*` for all, or empty: the one that has one of `expected_ips`.
        pub interface_name: String = "interfaceName" omitempty,
        /// Its addresses, bare; selectors of rules stand for these.
        pub expected_ips: Vec<String> = "expectedIPs" omitempty,
        /// Names of its profiles, in order.
        pub profiles: Vec<String> = "profiles" omitempty,
        /// Named ports.
        pub ports: Vec<HostPort> = "ports" omitempty,
    }
}

go_struct! {
    /// A port with a name.
    pub struct HostPort {
        /// The name that rules use.
        pub name: String = "name" always,
        /// TCP, UDP or SCTP.
        pub protocol: Protocol = "protocol" required,
        /// The port.
        pub port: u16 = "port" always,
    }
}

//! NetworkSet and GlobalNetworkSet: named prefixes that selectors match by their labels.

use crate::go::go_struct;
use crate::net::Net;
use crate::resource::Resource;

/// Prefixes, visible to the policies of its namespace.
pub type NetworkSet = Resource<NetworkSetSpec>;

/// Prefixes, visible to every policy.
pub type GlobalNetworkSet = Resource<GlobalNetworkSetSpec>;

go_struct! {
    /// The prefixes of a network set.
    #[derive(Default)]
    pub struct NetworkSetSpec {
        /// Addresses and prefixes.
        pub nets: Vec<Net> = "nets" omitempty,
    }
}

go_struct! {
    /// The prefixes of a global network set.
    #[derive(Default)]
    pub struct GlobalNetworkSetSpec {
        /// Addresses and prefixes.
        pub nets: Vec<Net> = "nets" omitempty,
    }
}

//! BGPFilter: ordered rules for the routes that go to a peer and come from it.

use crate::go::{go_struct, words};
use crate::number::AsNumber;
use crate::resource::Resource;

/// Ordered rules for routes, by direction and IP version.
pub type BgpFilter = Resource<BgpFilterSpec>;

words! {
    /// How a route's prefix is held against `cidr`.
    pub enum MatchOperator {
        /// It is the same.
        Equal = "Equal",
        /// It is another.
        NotEqual = "NotEqual",
        /// It is the same or inside.
        In = "In",
        /// It is neither.
        NotIn = "NotIn",
    }
}

words! {
    /// Where a route comes from.
    pub enum MatchSource {
        /// Another BGP speaker.
        RemotePeers = "RemotePeers",
    }
}

words! {
    /// The kind of a session.
    pub enum FilterPeerType {
        /// The peer is in another AS.
        Ebgp = "eBGP",
        /// The peer is in our AS.
        Ibgp = "iBGP",
    }
}

go_struct! {
    /// The rules; the first that matches a route decides.
    #[derive(Default)]
    pub struct BgpFilterSpec {
        /// For IPv4 routes to the peer.
        pub export_v4: Vec<FilterRule> = "exportV4" omitempty,
        /// For IPv4 routes from the peer.
        pub import_v4: Vec<FilterRule> = "importV4" omitempty,
        /// For IPv6 routes to the peer.
        pub export_v6: Vec<FilterRule> = "exportV6" omitempty,
        /// For IPv6 routes from the peer.
        pub import_v6: Vec<FilterRule> = "importV6" omitempty,
    }
}

go_struct! {
    /// What a route must be, and what becomes of it. Empty fields match every route.
    #[derive(Default)]
    pub struct FilterRule {
        /// The prefix that the route's is held against.
        pub cidr: String = "cidr" omitempty,
        /// Bounds on the length of the route's prefix.
        pub prefix_length: Option<PrefixLength> = "prefixLength" omitempty,
        /// Where the route comes from.
        pub source: Option<MatchSource> = "source" omitempty,
        /// The interface that the route points to; `*` stands for anything.
        pub interface: String = "interface" omitempty,
        /// How to hold the prefix against `cidr`.
        pub match_operator: Option<MatchOperator> = "matchOperator" omitempty,
        /// Only sessions of this kind.
        pub peer_type: Option<FilterPeerType> = "peerType" omitempty,
        /// Communities that the route has to carry.
        pub communities: Option<CommunityMatch> = "communities" omitempty,
        /// The AS path begins so.
        pub as_path_prefix: Vec<AsNumber> = "asPathPrefix" omitempty,
        /// The route's metric.
        pub priority: Option<i64> = "priority" omitempty,
        /// `Accept` or `Reject`.
        pub action: String = "action" always,
        /// Changes of an accepted route, in order.
        pub operations: Vec<Operation> = "operations" omitempty,
    }
}

go_struct! {
    /// Bounds on the length of a prefix.
    #[derive(Default)]
    pub struct PrefixLength {
        /// The least; that of `cidr` if absent.
        pub min: Option<i32> = "min" omitempty,
        /// The greatest; that of an address if absent.
        pub max: Option<i32> = "max" omitempty,
    }
}

go_struct! {
    /// Communities that a route has to carry.
    #[derive(Default)]
    pub struct CommunityMatch {
        /// Exactly one: `aa:nn` or `aa:nn:mm`.
        pub values: Vec<String> = "values" always,
    }
}

go_struct! {
    /// One change of a route: exactly one field is set.
    #[derive(Default)]
    pub struct Operation {
        /// One more community.
        pub add_community: Option<AddCommunity> = "addCommunity" omitempty,
        /// A longer path.
        pub prepend_as_path: Option<PrependAsPath> = "prependASPath" omitempty,
        /// Another metric.
        pub set_priority: Option<SetPriority> = "setPriority" omitempty,
    }
}

go_struct! {
    /// A community to add.
    #[derive(Default)]
    pub struct AddCommunity {
        /// `aa:nn` or `aa:nn:mm`.
        pub value: Option<String> = "value" always,
    }
}

go_struct! {
    /// AS numbers to put in front of the path.
    #[derive(Default)]
    pub struct PrependAsPath {
        /// The path then begins so.
        pub prefix: Vec<AsNumber> = "prefix" always,
    }
}

go_struct! {
    /// A metric to set.
    #[derive(Default)]
    pub struct SetPriority {
        /// From 1 to 2147483646.
        pub value: Option<i64> = "value" always,
    }
}

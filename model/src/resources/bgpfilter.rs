//! BGPFilter: ordered rules for the routes that go to a peer and come from it.

use ipnet::IpNet;

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

impl FilterRule {
    /// `cidr` as a prefix: an address stands for the prefix of its whole length. `None` without `cidr`, or if it is none.
    #[must_use]
    pub fn prefix(&self) -> Option<IpNet> {
        let address = || self.cidr.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        self.cidr.parse().ok().or_else(address)
    }

    /// The least and the greatest length that a prefix inside `net` may have: with `Equal` and `NotEqual` only its own,
    /// otherwise up to that of an address, all within `prefixLength`. The least may be above the greatest: then nothing
    /// matches.
    #[must_use]
    pub fn lengths(&self, net: IpNet) -> (u8, u8) {
        let own = net.prefix_len();
        let inside = matches!(
            self.match_operator,
            Some(MatchOperator::In | MatchOperator::NotIn)
        );
        let most = if inside { net.max_prefix_len() } else { own };
        let bounds = self.prefix_length.as_ref();
        let bound = |of: fn(&PrefixLength) -> Option<i32>, default: u8| {
            let given = bounds.and_then(of);
            given.map_or(default, |b| u8::try_from(b.max(0)).unwrap_or(u8::MAX))
        };
        (bound(|l| l.min, own).max(own), bound(|l| l.max, most).min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_prefix_within_the_bounds_given() {
        let check = |operator, bounds: Option<(Option<i32>, Option<i32>)>, expected| {
            let rule = FilterRule {
                cidr: "10.0.0.0/8".into(),
                match_operator: Some(operator),
                prefix_length: bounds.map(|(min, max)| PrefixLength {
                    min,
                    max,
                    ..PrefixLength::default()
                }),
                ..FilterRule::default()
            };
            assert_eq!(rule.lengths(rule.prefix().unwrap()), expected);
        };
        check(MatchOperator::Equal, None, (8, 8));
        check(MatchOperator::In, None, (8, 32));
        check(MatchOperator::In, Some((Some(16), Some(24))), (16, 24));
        check(MatchOperator::NotIn, Some((Some(4), None)), (8, 32));
        // Impossible: nothing is equal to it.
        check(MatchOperator::Equal, Some((Some(16), None)), (16, 8));
    }
}

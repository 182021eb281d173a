//! Tier: policies that are evaluated together.

use serde_json::Value;

use crate::go::go_struct;
use crate::number::Order;
use crate::resource::Resource;
use crate::rule::Action;

/// A tier of policies.
pub type Tier = Resource<TierSpec>;

go_struct! {
    /// Where a tier stands and how it ends.
    #[derive(Default)]
    pub struct TierSpec {
        /// Lower first; none is last.
        pub order: Option<Order> = "order" omitempty,
        /// What becomes of a packet that the tier's policies select and no rule matches: Deny or Pass.
        pub default_action: Option<Action> = "defaultAction" omitempty,
    }
}

go_struct! {
    /// What controllers say of a tier. Always stored, also when empty.
    #[derive(Default)]
    pub struct TierStatus {
        /// Kubernetes conditions.
        pub conditions: Vec<Value> = "conditions" omitempty,
    }
}

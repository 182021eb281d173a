//! Profile: rules and labels that endpoints inherit.

use crate::go::go_struct;
use crate::meta::StringMap;
use crate::resource::Resource;
use crate::rule::Rule;

/// Rules that apply where no policy does, and labels, for the endpoints that name it.
pub type Profile = Resource<ProfileSpec>;

go_struct! {
    /// What a profile gives to its endpoints.
    #[derive(Default)]
    pub struct ProfileSpec {
        /// Rules for packets to the endpoint.
        pub ingress: Vec<Rule> = "ingress" omitempty,
        /// Rules for packets from the endpoint.
        pub egress: Vec<Rule> = "egress" omitempty,
        /// Labels that the endpoints inherit; their own win.
        pub labels_to_apply: StringMap = "labelsToApply" omitempty,
    }
}

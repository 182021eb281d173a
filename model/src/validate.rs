//! What may be stored: the rules of Calico's clients, restated kind by kind.
//!
//! For writers, after defaults. Readers of the store take whatever decodes: an object that another component stored
//! under older or newer rules must not vanish. Every problem is reported, not only the first, each with its field.

mod bgp;
mod bgpfilter;
mod bgpsession;
mod config;
mod controllers;
mod endpoint;
mod kubernetes;
mod metadata;
mod node;
mod policy;
mod pool;
mod rule;
pub mod text;

use std::fmt;

use crate::go::Path;
use crate::resource::AnyResource;
use crate::selector::Selector;

/// Most problems that are reported of one object; a hostile one could hold a million.
pub const PROBLEMS_MAX: usize = 50;

/// A type whose values can be wrong in ways that their fields' types allow.
pub trait Validate {
    /// Checks the whole value.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong, up to [`PROBLEMS_MAX`].
    fn validate(&self) -> Result<(), Invalid>;
}

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As in `spec.ingress[0].source.nets[2]`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// All that is wrong with an object; at least one problem when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid(Vec<Problem>);

impl Invalid {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong, in the order of the fields.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub(crate) fn push(&mut self, path: &str, reason: impl Into<String>) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(Problem {
                path: path.to_owned(),
                reason: reason.into(),
            });
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            write!(f, "{comma}field {}: {}", problem.path, problem.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

impl Validate for AnyResource {
    fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        metadata::check(&mut check, self);
        check.field("spec", |check| match self {
            Self::BgpConfiguration(config) => bgp::configuration(check, config),
            Self::BgpFilter(filter) => bgpfilter::check(check, &filter.spec),
            Self::BgpPeer(peer) => bgp::peer(check, &peer.spec),
            Self::BgpSessionPolicy(policy) => bgpsession::check(check, &policy.spec),
            Self::FelixConfiguration(config) => config::felix(check, config),
            Self::GlobalNetworkPolicy(policy) => policy::global(check, &policy.spec),
            Self::GlobalNetworkSet(set) => rule::nets(check, "nets", &set.spec.nets),
            Self::IpamConfiguration(config) => config::ipam(check, &config.spec),
            Self::IpPool(pool) => pool::check(check, &pool.spec),
            Self::NetworkPolicy(policy) => policy::namespaced(check, &policy.spec),
            Self::NetworkSet(set) => rule::nets(check, "nets", &set.spec.nets),
            Self::Node(node) => node::check(check, &node.spec),
            Self::Profile(profile) => policy::profile(check, &profile.spec),
            Self::Tier(tier) => policy::tier(check, &tier.metadata.name, &tier.spec),
            Self::WorkloadEndpoint(endpoint) => endpoint::check(check, endpoint),
            Self::CalicoNodeStatus(status) => node::status(check, &status.spec),
            Self::HostEndpoint(endpoint) => endpoint::host(check, &endpoint.spec),
            Self::KubeControllersConfiguration(config) => controllers::check(check, &config.spec),
            Self::StagedGlobalNetworkPolicy(policy) => policy::staged_global(check, &policy.spec),
            Self::StagedKubernetesNetworkPolicy(policy) => kubernetes::staged(check, &policy.spec),
            Self::StagedNetworkPolicy(policy) => policy::staged(check, &policy.spec),
            // Whatever can be read of a reservation is right.
            Self::ClusterInformation(_) | Self::IpReservation(_) | Self::Opaque(_) => {}
        });
        if check.found.is_empty() {
            Ok(())
        } else {
            Err(check.found)
        }
    }
}

/// Collects problems below a path.
#[derive(Default)]
pub(crate) struct Check {
    path: Path,
    found: Invalid,
}

impl Check {
    /// Runs `f` below the field `name`.
    fn field(&mut self, name: &str, f: impl FnOnce(&mut Self)) {
        let mut path = std::mem::take(&mut self.path);
        path.field(name, |path| self.below(path, f));
        self.path = path;
    }

    /// Runs `f` for each element of the list `name`.
    fn each<T>(&mut self, name: &str, list: &[T], f: impl Fn(&mut Self, &T)) {
        self.field(name, |check| {
            for (i, element) in list.iter().enumerate() {
                let mut path = std::mem::take(&mut check.path);
                path.index(i, |path| check.below(path, |check| f(check, element)));
                check.path = path;
            }
        });
    }

    fn below(&mut self, path: &mut Path, f: impl FnOnce(&mut Self)) {
        self.path = std::mem::take(path);
        f(self);
        *path = std::mem::take(&mut self.path);
    }

    /// Something is wrong here.
    fn wrong(&mut self, reason: impl Into<String>) {
        self.found.push(self.path.as_str(), reason);
    }

    /// Something is wrong with the field `name`.
    fn wrong_field(&mut self, name: &str, reason: impl Into<String>) {
        self.field(name, |check| check.wrong(reason));
    }

    /// The field `name` is wrong if `wrong`.
    fn refuse(&mut self, wrong: bool, name: &str, reason: &str) {
        if wrong {
            self.wrong_field(name, reason);
        }
    }

    /// The text of the field `name`, unless empty, must pass `test`.
    fn text(&mut self, name: &str, text: &str, test: fn(&str) -> bool, wanted: &str) {
        if !text.is_empty() && !test(text) {
            self.wrong_field(name, format!("{text:?} is not {wanted}"));
        }
    }

    /// The text of the field `name`, unless empty, must be one of `words`.
    fn one_of(&mut self, name: &str, text: &str, words: &[&str]) {
        if !text.is_empty() && !words.contains(&text) {
            self.wrong_field(name, format!("{text:?} is none of {}", words.join(", ")));
        }
    }

    /// The text of the field `name`, if there is one, must be one of `words`.
    fn word(&mut self, name: &str, text: Option<&str>, words: &[&str]) {
        if let Some(text) = text
            && !words.contains(&text)
        {
            self.wrong_field(name, format!("{text:?} is none of {}", words.join(", ")));
        }
    }

    /// The text of the field `name`, unless empty, must be a name.
    fn name(&mut self, name: &str, text: &str) {
        self.text(name, text, text::is_subdomain, text::SUBDOMAIN);
    }

    /// The text of the field `name`, unless empty, must be a selector.
    fn selector(&mut self, name: &str, selector: &str) {
        if let Err(error) = Selector::parse(selector) {
            self.wrong_field(name, error.to_string());
        }
    }

    /// A selector that must not hold `global()`.
    fn local_selector(&mut self, name: &str, selector: &str) {
        self.selector(name, selector);
        let reason = "global() stands only in the namespaceSelector of a rule";
        self.refuse(selector.contains("global("), name, reason);
    }
}

#[cfg(test)]
mod tests;

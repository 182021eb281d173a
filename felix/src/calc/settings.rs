//! FelixConfiguration as far as the data plane obeys it: `default`, overridden field by field by `node.<name>`.

use std::collections::BTreeMap;

use twill_model::resources::FelixConfigurationSpec;

use crate::plan::IfName;
use crate::plan::base::{BaseConfig, ToHost};

const DEFAULT: &str = "default";

/// The settings objects that concern this node.
#[derive(Debug)]
pub struct Settings {
    own_name: String,
    specs: BTreeMap<String, FelixConfigurationSpec>,
    dirty: bool,
}

impl Settings {
    /// Of the node with this name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            own_name: format!("node.{node}"),
            specs: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Adds, replaces or removes an object. Returns what of it cannot be used.
    pub fn set(&mut self, name: &str, spec: Option<&FelixConfigurationSpec>) -> Vec<String> {
        if name != DEFAULT && name != self.own_name {
            return Vec::new();
        }
        let before = (self.base(), self.ipv6(), self.spoofing());
        match spec {
            Some(spec) => self.specs.insert(name.to_owned(), spec.clone()),
            None => self.specs.remove(name),
        };
        self.dirty |= before != (self.base(), self.ipv6(), self.spoofing());
        spec.map(problems).unwrap_or_default()
    }

    /// Whether an effective setting changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Whether IPv6 is on.
    #[must_use]
    pub fn ipv6(&self) -> bool {
        self.first(|s| s.ipv6_support).unwrap_or(true)
    }

    /// Whether workloads may send from the networks that their endpoints name (`workloadSourceSpoofing: Any`).
    #[must_use]
    pub fn spoofing(&self) -> bool {
        self.first(|s| {
            let word = s.workload_source_spoofing.as_str();
            (!word.is_empty()).then_some(word == "Any")
        })
        .unwrap_or(false)
    }

    /// The effective settings of the static part of the table. A field that cannot be used counts as not set.
    #[must_use]
    pub fn base(&self) -> BaseConfig {
        let default = BaseConfig::default();
        let vxlan = self
            .first(|s| s.allow_vxlan_packets_from_workloads)
            .unwrap_or(false);
        let vxlan_port = self.first(|s| s.vxlan_port).or(default.drop_vxlan_port);
        BaseConfig {
            prefixes: self
                .first(|s| prefixes(&s.interface_prefix).ok().flatten())
                .unwrap_or(default.prefixes),
            to_host: self
                .first(|s| to_host(&s.default_endpoint_to_host_action).ok().flatten())
                .unwrap_or_default(),
            drop_invalid: !self.first(|s| s.disable_conntrack_invalid_check).unwrap_or(false),
            drop_ipip: !self
                .first(|s| s.allow_ipip_packets_from_workloads)
                .unwrap_or(false),
            drop_vxlan_port: vxlan_port.filter(|_| !vxlan),
        }
    }

    /// The most specific object that sets a field wins.
    fn first<T>(&self, field: impl Fn(&FelixConfigurationSpec) -> Option<T>) -> Option<T> {
        [self.own_name.as_str(), DEFAULT]
            .iter()
            .filter_map(|name| self.specs.get(*name))
            .find_map(field)
    }
}

fn problems(spec: &FelixConfigurationSpec) -> Vec<String> {
    let prefix = prefixes(&spec.interface_prefix)
        .err()
        .map(|e| format!("spec.interfacePrefix: {e}"));
    let host = to_host(&spec.default_endpoint_to_host_action).err();
    prefix
        .into_iter()
        .chain(host.map(|e| format!("spec.defaultEndpointToHostAction: {e}")))
        .collect()
}

/// Prefixes of workload interfaces. One that covers `lo`, or that nf_tables would read as a pattern, would close the
/// node itself: it counts as not set.
fn prefixes(text: &str) -> Result<Option<Vec<IfName>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = |p: &str| {
        p.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let prefix = |p: &str| match IfName::new(p) {
        Ok(_) if !plain(p) => Err(format!(
            "{p:?} has other characters than letters, digits and \"_.-\""
        )),
        Ok(_) if "lo".starts_with(p) => Err(format!("{p:?} would cover the loopback interface")),
        parsed => parsed.map_err(|e| e.to_string()),
    };
    text.split(',')
        .map(|p| prefix(p.trim()))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn to_host(text: &str) -> Result<Option<ToHost>, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "drop" => Ok(Some(ToHost::Drop)),
        "accept" => Ok(Some(ToHost::Accept)),
        "return" => Ok(Some(ToHost::Return)),
        _ => Err(format!("{text:?} is not one of Drop, Accept, Return")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_would_close_the_node_itself_count_as_not_set() {
        for bad in ["*", "l", "lo", "cali,*", "a/b", ","] {
            let spec = FelixConfigurationSpec {
                interface_prefix: bad.into(),
                ..Default::default()
            };
            let mut settings = Settings::new("n1");
            let problems = settings.set(DEFAULT, Some(&spec));
            assert!(
                problems.iter().any(|p| p.starts_with("spec.interfacePrefix")),
                "{bad}: {problems:?}"
            );
            assert_eq!(settings.base().prefixes, BaseConfig::default().prefixes, "{bad}");
        }
        assert_eq!(
            prefixes("cali, tap"),
            Ok(Some(vec![IfName::fixed("cali"), IfName::fixed("tap")]))
        );
    }

    #[test]
    fn the_nodes_own_object_wins_field_by_field() {
        let spec = |prefix: &str, action: &str| FelixConfigurationSpec {
            interface_prefix: prefix.into(),
            default_endpoint_to_host_action: action.into(),
            ..Default::default()
        };
        let mut settings = Settings::new("n1");
        settings.set(DEFAULT, Some(&spec("tap", "Accept")));
        settings.set("node.n1", Some(&spec("", "Return")));
        settings.set("node.n2", Some(&spec("other", "Drop")));
        assert_eq!(settings.base().prefixes, [IfName::fixed("tap")]);
        assert_eq!(settings.base().to_host, ToHost::Return);
    }
}

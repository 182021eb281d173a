//! The two names of a policy, and its tier.
//!
//! The identity of a policy is its key. The name that people see stands in the annotation
//! `projectcalico.org/metadata`, which is written with every policy of the four tiered kinds and shown to nobody.
//! Without it, and in tier `default`, a leading `default.` of the stored name is not shown: stores that were made by
//! Calico 3.31 or older carry the tier in keys and names.

use serde_json::{Value, json};

use crate::gojson;
use crate::kind::Kind;
use crate::resource::AnyResource;

/// Annotation that holds the name that people see.
pub const METADATA_ANNOTATION: &str = "projectcalico.org/metadata";
/// Label that repeats `spec.tier`.
pub const TIER_LABEL: &str = "projectcalico.org/tier";
/// The tier of a policy that names none.
pub const DEFAULT_TIER: &str = "default";

impl AnyResource {
    /// The tier of a policy; `None` for kinds without tiers.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        let tier = match self {
            Self::NetworkPolicy(policy) => &policy.spec.tier,
            Self::GlobalNetworkPolicy(policy) => &policy.spec.tier,
            Self::StagedNetworkPolicy(policy) => &policy.spec.tier,
            Self::StagedGlobalNetworkPolicy(policy) => &policy.spec.tier,
            _ => return None,
        };
        Some(if tier.is_empty() { DEFAULT_TIER } else { tier })
    }

    /// The name that people see.
    #[must_use]
    pub fn shown_name(&self) -> String {
        let meta = self.metadata();
        let Some(tier) = self.tier() else {
            return meta.name.clone();
        };
        let annotated = meta
            .annotations
            .get(METADATA_ANNOTATION)
            .and_then(|json| annotated_name(json));
        annotated.unwrap_or_else(|| match meta.name.strip_prefix("default.") {
            Some(rest) if tier == DEFAULT_TIER && !rest.is_empty() => rest.to_owned(),
            _ => meta.name.clone(),
        })
    }

    /// The object as people see it: with its revision, and of a policy with the name that they gave it, without the
    /// annotation that keeps it, and with the label of its tier.
    #[must_use]
    pub fn presented(&self, revision: i64) -> Self {
        let mut shown = self.clone();
        let (name, tier) = (self.shown_name(), self.tier().map(str::to_owned));
        let meta = shown.metadata_mut();
        meta.resource_version = revision.to_string();
        if let Some(tier) = tier {
            meta.name = name;
            meta.annotations.remove(METADATA_ANNOTATION);
            meta.labels.entry(TIER_LABEL.to_owned()).or_insert(tier);
        }
        shown
    }

    /// Puts the annotation of a policy that is about to be stored; does nothing to other kinds.
    pub fn annotate_name(&mut self) {
        if self.kind().is_tiered() {
            let meta = self.metadata_mut();
            let json = gojson::to_string(&json!({ "name": meta.name })).unwrap_or_default();
            meta.annotations.insert(METADATA_ANNOTATION.to_owned(), json);
        }
    }
}

fn annotated_name(json: &str) -> Option<String> {
    let meta: Value = serde_json::from_str(json).ok()?;
    meta.get("name")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The names under which a policy that people call `name` may be stored: the plain one first, then that of
/// Calico 3.31 and older.
#[must_use]
pub fn stored_names(kind: Kind, tier: &str, name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if kind.is_tiered() && tier == DEFAULT_TIER && !name.starts_with("default.") && !name.starts_with("knp.")
    {
        names.push(format!("default.{name}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::ObjectMeta;
    use crate::resource::{Opaque, Resource};
    use crate::resources::NetworkPolicySpec;

    fn policy(name: &str, tier: &str, annotation: Option<&str>) -> AnyResource {
        let mut meta = ObjectMeta::namespaced("default", name);
        meta.annotations
            .extend(annotation.map(|json| (METADATA_ANNOTATION.to_owned(), json.to_owned())));
        Resource::new(
            meta,
            NetworkPolicySpec {
                tier: tier.into(),
                ..Default::default()
            },
        )
        .into()
    }

    #[test]
    fn the_annotation_names_a_policy_and_else_the_default_tier_is_cut_off() {
        for (name, tier, annotation, shown) in [
            ("allow", "default", Some(r#"{"name":"allow"}"#), "allow"),
            (
                "default.x",
                "default",
                Some(r#"{"name":"default.x"}"#),
                "default.x",
            ),
            ("default.x", "default", None, "x"),
            ("default.x", "", None, "x"),
            ("default.x", "net-sec", None, "default.x"),
            ("net-sec.x", "net-sec", None, "net-sec.x"),
            ("default.x", "default", Some("{"), "x"),
            ("default.x", "default", Some("{}"), "x"),
            ("knp.default.a", "default", None, "knp.default.a"),
        ] {
            assert_eq!(policy(name, tier, annotation).shown_name(), shown);
        }
    }

    #[test]
    fn the_annotation_is_written_as_calico_writes_it_and_not_shown() {
        let mut stored = policy("a<b", "", None);
        stored.annotate_name();
        assert_eq!(
            stored.metadata().annotations[METADATA_ANNOTATION],
            r#"{"name":"a\u003cb"}"#
        );
        let shown = stored.presented(42);
        assert!(shown.metadata().annotations.is_empty());
        assert_eq!(shown.metadata().labels[TIER_LABEL], "default");
        assert_eq!(shown.metadata().resource_version, "42");
    }

    #[test]
    fn other_kinds_keep_their_names() {
        let mut pool: AnyResource = AnyResource::Opaque(std::sync::Arc::new(Opaque::new(
            Kind::LiveMigration,
            ObjectMeta::named("default.x"),
            Value::Null,
        )));
        pool.annotate_name();
        assert_eq!((pool.shown_name().as_str(), pool.tier()), ("default.x", None));
        assert!(pool.metadata().annotations.is_empty());
    }
}

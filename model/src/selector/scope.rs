//! The selectors of policies and rules, rewritten over the labels of endpoints of all namespaces.
//!
//! A policy names endpoints in parts: a selector over their own labels, one over those of their namespace, one over
//! those of their service account. An endpoint inherits the latter two with the prefixes [`NAMESPACE_PREFIX`] and
//! [`SERVICE_ACCOUNT_PREFIX`] from its profiles, so the parts become one selector. The shapes are those that Calico
//! builds (its unique ids depend on them), with one difference: Calico replaces the *text* `all()`, also inside
//! strings; here only the expression is replaced.

use super::{Membership, Node, Selector, SelectorError};

/// Before the names of a namespace's labels.
pub const NAMESPACE_PREFIX: &str = "pcns.";
/// Before the names of a service account's labels.
pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
/// The label that holds an endpoint's namespace.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label that holds the name of an endpoint's service account.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// The endpoints that a NetworkPolicy of `namespace` applies to.
///
/// # Errors
/// One of the selectors does not parse, or the namespace cannot be quoted.
pub fn network_policy(
    namespace: &str,
    selector: &str,
    service_account_selector: &str,
) -> Result<Selector, SelectorError> {
    let own = Node::equal(NAMESPACE_LABEL, quotable(namespace)?);
    let root = if selector.is_empty() {
        own
    } else {
        Node::and(parse(selector)?, own)
    };
    Ok(Selector::new(
        and_prefixed(Some(root), service_account_selector, SERVICE_ACCOUNT_PREFIX)?.unwrap_or(Node::All),
    ))
}

/// The endpoints that a GlobalNetworkPolicy applies to.
///
/// With a namespace selector, each `all()` in it and in the selector means "of any namespace"; with a service
/// account selector, each `all()` that is left means "with a service account".
///
/// # Errors
/// One of the selectors does not parse.
pub fn global_network_policy(
    selector: &str,
    namespace_selector: &str,
    service_account_selector: &str,
) -> Result<Selector, SelectorError> {
    let mut root = if selector.is_empty() {
        None
    } else {
        Some(parse(selector)?)
    };
    for (part, prefix, label) in [
        (namespace_selector, NAMESPACE_PREFIX, NAMESPACE_LABEL),
        (
            service_account_selector,
            SERVICE_ACCOUNT_PREFIX,
            SERVICE_ACCOUNT_LABEL,
        ),
    ] {
        if !part.is_empty() {
            root = and_prefixed(root, part, prefix)?;
            if let Some(root) = &mut root {
                replace_all(root, label);
            }
        }
    }
    Ok(Selector::new(root.unwrap_or(Node::All)))
}

/// The parts by which one side of a rule names endpoints; empty texts are parts that are not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entity<'a> {
    /// The policy's namespace; empty for a GlobalNetworkPolicy or a profile.
    pub policy_namespace: &'a str,
    /// `selector`.
    pub selector: &'a str,
    /// `notSelector`; it is matched apart, but its presence limits the side to the policy's namespace.
    pub not_selector: &'a str,
    /// `namespaceSelector`.
    pub namespace_selector: &'a str,
    /// `serviceAccounts.names`.
    pub service_accounts: &'a [String],
    /// `serviceAccounts.selector`.
    pub service_account_selector: &'a str,
}

/// The endpoints that one side of a rule is about; `None` if it does not restrict them.
///
/// # Errors
/// One of the selectors does not parse, or a name cannot be quoted.
pub fn rule_entity(entity: Entity<'_>) -> Result<Option<Selector>, SelectorError> {
    let own = match (service_accounts(entity)?, entity.selector) {
        (accounts, "") => accounts,
        (None, selector) => Some(parse(selector)?),
        (Some(accounts), selector) => Some(Node::and(accounts, parse(selector)?)),
    };
    let namespace = if !entity.namespace_selector.is_empty() {
        Some(namespaces(entity.namespace_selector)?)
    } else if !entity.policy_namespace.is_empty() && (own.is_some() || !entity.not_selector.is_empty()) {
        Some(Node::equal(NAMESPACE_LABEL, quotable(entity.policy_namespace)?))
    } else {
        None
    };
    let root = match (namespace, own) {
        (Some(namespace), Some(own)) => Some(Node::and(namespace, own)),
        (namespace, own) => namespace.or(own),
    };
    Ok(root.map(Selector::new))
}

/// A rule's namespace selector: `all()` is "of any namespace", `global()` "of none".
fn namespaces(selector: &str) -> Result<Node, SelectorError> {
    let mut root = Selector::parse(selector)?.prefixed(NAMESPACE_PREFIX).root;
    root.visit(&mut |node| match node {
        Node::All => *node = Node::Has(NAMESPACE_LABEL.into()),
        Node::Global => *node = Node::Not(Box::new(Node::Has(NAMESPACE_LABEL.into()))),
        _ => {}
    });
    root.collapse_negations();
    Ok(root)
}

/// A rule's service accounts, by selector, by name, or both.
fn service_accounts(entity: Entity<'_>) -> Result<Option<Node>, SelectorError> {
    let by_label = and_prefixed(None, entity.service_account_selector, SERVICE_ACCOUNT_PREFIX)?;
    if entity.service_accounts.is_empty() {
        return Ok(by_label);
    }
    let names: Result<Vec<Box<str>>, _> = entity
        .service_accounts
        .iter()
        .map(|n| quotable(n).map(Into::into))
        .collect();
    let by_name = Node::member(SERVICE_ACCOUNT_LABEL, Membership::In, names?);
    Ok(Some(match by_label {
        Some(by_label) => Node::and(by_label, by_name),
        None => by_name,
    }))
}

fn and_prefixed(current: Option<Node>, selector: &str, prefix: &str) -> Result<Option<Node>, SelectorError> {
    if selector.is_empty() {
        return Ok(current);
    }
    let added = Selector::parse(selector)?.prefixed(prefix).root;
    Ok(Some(match current {
        Some(current) => Node::and(current, added),
        None => added,
    }))
}

fn replace_all(root: &mut Node, label: &str) {
    root.visit(&mut |node| {
        if *node == Node::All {
            *node = Node::Has(label.into());
        }
    });
}

fn parse(selector: &str) -> Result<Node, SelectorError> {
    super::parse::selector(selector)
}

fn quotable(name: &str) -> Result<&str, SelectorError> {
    if name.contains('"') && name.contains('\'') {
        return Err(SelectorError::Unquotable {
            name: name.to_owned(),
        });
    }
    Ok(name)
}

//! What a FelixConfiguration must not do: call an interface that carries this node's addresses a workload's. Everything
//! through it would be dropped, etcd and ssh with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use twill_model::{AnyResource, Key, Update, Value};

use crate::fabric::Fabric;

/// Why an `interfacePrefix` is not used: it, and the interface that it would close.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Closes {
    prefix: String,
    interface: String,
}

/// Judges an update before anybody takes it in. A FelixConfiguration of this node whose `interfacePrefix` covers one of
/// `interfaces`, those that carry addresses, keeps the prefix that it had before; the sentence says so.
pub(crate) fn guard(
    own: &str,
    fabric: &Fabric,
    update: &mut Update,
    interfaces: impl FnOnce() -> BTreeSet<String>,
) -> Option<String> {
    let (Key::Resource(key), Some(Value::Resource(AnyResource::FelixConfiguration(config)))) =
        (&update.key, &mut update.value)
    else {
        return None;
    };
    let ours = key.name == "default" || key.name.strip_prefix("node.") == Some(own);
    if !ours || config.spec.interface_prefix.is_empty() {
        return None;
    }
    let Closes { prefix, interface } = closes(&config.spec.interface_prefix, &interfaces())?;
    let before = fabric.felix_configurations.get(&key.name);
    let kept = before
        .map(|c| c.spec.interface_prefix.clone())
        .unwrap_or_default();
    let shown = if kept.is_empty() { "the default" } else { &kept };
    let sentence = format!(
        "FelixConfiguration {}: interfacePrefix {prefix:?} is not used: it covers {interface}, which carries an address of this \
         node; {shown} stays",
        key.name
    );
    Arc::make_mut(config).spec.interface_prefix = kept;
    Some(sentence)
}

fn closes(prefixes: &str, interfaces: &BTreeSet<String>) -> Option<Closes> {
    prefixes.split(',').map(str::trim).find_map(|prefix| {
        let interface = interfaces.iter().find(|name| name.starts_with(prefix))?;
        Some(Closes {
            prefix: prefix.to_owned(),
            interface: interface.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use twill_model::Kind;

    use super::*;

    fn update(name: &str, prefix: &str) -> Update {
        let json = format!(
            r#"{{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{"interfacePrefix":"{prefix}"}}}}"#
        );
        let key = Key::cluster(Kind::FelixConfiguration, name);
        let value = Some(Value::decode(&key, &Bytes::from(json)).unwrap());
        Update {
            key,
            value,
            revision: 1,
        }
    }

    fn uplink() -> BTreeSet<String> {
        BTreeSet::from(["eth0".to_owned(), "br-lan".to_owned()])
    }

    #[test]
    fn a_prefix_that_would_close_the_node_gives_way_to_the_one_before() {
        let mut fabric = Fabric::default();
        let mut take = |name: &str, prefix: &str| {
            let mut update = update(name, prefix);
            let said = guard("n1", &fabric, &mut update, uplink);
            fabric.apply("n1", &update);
            let used = fabric.felix_configurations[name].spec.interface_prefix.clone();
            (used, said)
        };
        assert_eq!(take("default", "tap"), ("tap".to_owned(), None));
        let (used, said) = take("default", "cali,eth");
        let said = said.unwrap();
        assert_eq!(used, "tap");
        assert!(
            said.contains("\"eth\"") && said.contains("eth0") && said.contains("tap stays"),
            "{said}"
        );
        assert_eq!(take("default", "cali"), ("cali".to_owned(), None));
        let (used, said) = take("node.n1", "br");
        assert!(used.is_empty() && said.unwrap().contains("the default stays"));
        // Another node's is another node's to judge.
        assert_eq!(take("node.n2", "eth"), ("eth".to_owned(), None));
    }

    #[test]
    fn nothing_else_is_touched() {
        let mut gone = Update {
            value: None,
            ..update("default", "eth")
        };
        assert_eq!(guard("n1", &Fabric::default(), &mut gone, uplink), None);
        assert_eq!(gone.value, None);
    }
}

//! Calico's pod annotations as far as they concern attachment. Every annotation is untrusted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use super::{CniError, code};

const PREFIX: &str = "cni.projectcalico.org/";

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) addresses: Vec<IpAddr>,
    /// `None`: no annotation, the plugin's configuration decides.
    pub(super) ipv4_pools: Option<Vec<String>>,
    pub(super) ipv6_pools: Option<Vec<String>>,
    pub(super) mac: Option<String>,
}

/// # Errors
/// An annotation that cannot be read, or that asks for what is off: code 7.
pub(super) fn parse(annotations: &BTreeMap<String, String>) -> Result<Annotations, CniError> {
    let value = |name: &str| {
        annotations
            .get(&format!("{PREFIX}{name}"))
            .filter(|v| !v.is_empty())
    };
    for off in ["ipAddrsNoIpam", "floatingIPs", "allowedSourcePrefixes"] {
        if value(off).is_some() {
            return Err(refused(off, "asks for a feature that is not enabled"));
        }
    }
    let list = |name: &str| {
        value(name)
            .map(|text| json::<Vec<String>>(name, text))
            .transpose()
    };
    let addresses = value("ipAddrs")
        .map(|text| json::<Vec<IpAddr>>("ipAddrs", text))
        .transpose()?
        .unwrap_or_default();
    for v4 in [true, false] {
        if addresses.iter().filter(|a| a.is_ipv4() == v4).count() > 1 {
            return Err(refused("ipAddrs", "has two addresses of one family"));
        }
    }
    Ok(Annotations {
        addresses,
        ipv4_pools: list("ipv4pools")?,
        ipv6_pools: list("ipv6pools")?,
        mac: value("hwAddr").cloned(),
    })
}

fn json<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, CniError> {
    serde_json::from_str(text)
        .map_err(|e| refused(name, &format!("is {text:?}, no JSON list of the right kind: {e}")))
}

fn refused(name: &str, why: &str) -> CniError {
    CniError::new(
        code::INVALID_CONFIG,
        format_args!("annotation {PREFIX}{name} {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Annotations, CniError> {
        parse(&BTreeMap::from([(format!("{PREFIX}{name}"), value.to_owned())]))
    }

    #[test]
    fn what_is_asked_for_is_read() {
        assert_eq!(
            one("ipAddrs", r#"["10.0.0.1","fd00::1"]"#)
                .unwrap()
                .addresses
                .len(),
            2
        );
        assert_eq!(
            one("ipv4pools", r#"["a","10.0.0.0/8"]"#)
                .unwrap()
                .ipv4_pools
                .unwrap(),
            ["a", "10.0.0.0/8"]
        );
        assert_eq!(
            one("hwAddr", "02:00:00:00:00:01").unwrap().mac.as_deref(),
            Some("02:00:00:00:00:01")
        );
        assert_eq!(
            parse(&BTreeMap::from([("other".into(), "x".into())])).unwrap(),
            Annotations::default()
        );
    }

    #[test]
    fn what_cannot_be_read_or_is_off_is_refused_by_name() {
        for (name, value) in [
            ("ipAddrs", "10.0.0.1"),
            ("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#),
            ("ipAddrs", r#"["ten"]"#),
            ("ipv4pools", "{}"),
            ("floatingIPs", r#"["1.2.3.4"]"#),
            ("ipAddrsNoIpam", r#"["1.2.3.4"]"#),
        ] {
            let error = one(name, value).unwrap_err();
            assert!(error.code == 7 && error.msg.contains(name), "{error:?}");
        }
    }
}

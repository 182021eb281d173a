//! Calico's pod annotations as far as they concern attachment. Every annotation is untrusted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use twill_model::net::Net;
use twill_proto::cni::Add;

use super::{CniError, code};

const PREFIX: &str = "cni.projectcalico.org/";
/// Addresses in one annotation: one a family is what makes sense.
const ADDRESSES_MAX: usize = 2;

/// Networks in one annotation: each is an element of a set in the kernel.
const PREFIXES_MAX: usize = 64;

/// Annotations that the configuration must allow (Calico's `feature_control`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) ip_addrs_no_ipam: bool,
    pub(super) floating_ips: bool,
}

impl From<&Add> for Features {
    fn from(add: &Add) -> Self {
        Self {
            ip_addrs_no_ipam: add.ip_addrs_no_ipam,
            floating_ips: add.floating_ips,
        }
    }
}

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    /// `ipAddrs`: these addresses, out of their pools.
    pub(super) addresses: Vec<IpAddr>,
    /// `ipAddrsNoIpam`: these addresses, which nobody keeps account of.
    pub(super) unmanaged: Vec<IpAddr>,
    /// `allowedSourcePrefixes`: networks that the pod may send from besides, where the node allows that.
    pub(super) source_prefixes: Vec<Net>,
    /// `None`: no annotation, the plugin's configuration decides.
    pub(super) ipv4_pools: Option<Vec<String>>,
    pub(super) ipv6_pools: Option<Vec<String>>,
    /// `ipFamilies`: whether IPv4, whether IPv6.
    pub(super) families: Option<(bool, bool)>,
    pub(super) mac: Option<String>,
}

/// # Errors
/// An annotation that cannot be read, or that asks for what is off or not done: code 7, with its name and value.
pub(super) fn parse(
    annotations: &BTreeMap<String, String>,
    features: Features,
) -> Result<Annotations, CniError> {
    let value = |name: &str| {
        annotations
            .get(&format!("{PREFIX}{name}"))
            .filter(|v| !v.is_empty())
    };
    if let Some(asked) = value("floatingIPs") {
        let why = if features.floating_ips {
            "is not supported: Twill translates no addresses to pods; remove the annotation"
        } else {
            "asks for a feature that is not enabled (feature_control.floating_ips), and that Twill does not have"
        };
        return Err(refused("floatingIPs", &format!("{asked:?} {why}")));
    }
    let list = |name: &str| {
        value(name)
            .map(|text| json::<Vec<String>>(name, text))
            .transpose()
    };
    let addresses = one_a_family("ipAddrs", value("ipAddrs"))?;
    let prefixes = value("allowedSourcePrefixes");
    let source_prefixes = prefixes
        .map(|text| json::<Vec<Net>>("allowedSourcePrefixes", text))
        .transpose()?
        .unwrap_or_default();
    if source_prefixes.len() > PREFIXES_MAX {
        let why = format!(
            "names {} networks, at most {PREFIXES_MAX} are allowed",
            source_prefixes.len()
        );
        return Err(refused("allowedSourcePrefixes", &why));
    }
    let unmanaged = one_a_family("ipAddrsNoIpam", value("ipAddrsNoIpam"))?;
    if !unmanaged.is_empty() && !features.ip_addrs_no_ipam {
        return Err(refused(
            "ipAddrsNoIpam",
            "asks for a feature that is not enabled: set feature_control.ip_addrs_no_ipam in the network configuration",
        ));
    }
    if !unmanaged.is_empty() && !addresses.is_empty() {
        return Err(refused(
            "ipAddrsNoIpam",
            "cannot stand beside ipAddrs: remove one",
        ));
    }
    Ok(Annotations {
        addresses,
        unmanaged,
        source_prefixes,
        ipv4_pools: list("ipv4pools")?,
        ipv6_pools: list("ipv6pools")?,
        families: families(list("ipFamilies")?)?,
        mac: value("hwAddr").cloned(),
    })
}

fn one_a_family(name: &str, value: Option<&String>) -> Result<Vec<IpAddr>, CniError> {
    let Some(text) = value else { return Ok(Vec::new()) };
    let addresses = json::<Vec<IpAddr>>(name, text)?;
    if addresses.is_empty() {
        return Err(refused(name, "is an empty list"));
    }
    for v4 in [true, false] {
        if addresses.len() > ADDRESSES_MAX || addresses.iter().filter(|a| a.is_ipv4() == v4).count() > 1 {
            return Err(refused(
                name,
                &format!("{text:?} has two addresses of one family"),
            ));
        }
    }
    Ok(addresses)
}

fn families(list: Option<Vec<String>>) -> Result<Option<(bool, bool)>, CniError> {
    let Some(list) = list else { return Ok(None) };
    let (mut v4, mut v6) = (false, false);
    for family in &list {
        match family.as_str() {
            "IPv4" => v4 = true,
            "IPv6" => v6 = true,
            other => {
                return Err(refused(
                    "ipFamilies",
                    &format!("has {other:?}, which is neither IPv4 nor IPv6"),
                ));
            }
        }
    }
    Ok(Some((v4, v6)))
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

    const ALL: Features = Features {
        ip_addrs_no_ipam: true,
        floating_ips: true,
    };

    fn with(pairs: &[(&str, &str)], features: Features) -> Result<Annotations, CniError> {
        let full = pairs
            .iter()
            .map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned()));
        parse(&full.collect(), features)
    }

    fn one(name: &str, value: &str) -> Result<Annotations, CniError> {
        with(&[(name, value)], Features::default())
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
            one("ipFamilies", r#"["IPv6"]"#).unwrap().families,
            Some((false, true))
        );
        let prefixes = one("allowedSourcePrefixes", r#"["192.0.2.0/24","2001:db8::1"]"#).unwrap();
        assert_eq!(prefixes.source_prefixes.len(), 2);
        let unmanaged = with(&[("ipAddrsNoIpam", r#"["192.0.2.9"]"#)], ALL).unwrap();
        assert_eq!(unmanaged.unmanaged, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            parse(&BTreeMap::from([("other".into(), "x".into())]), ALL).unwrap(),
            Annotations::default()
        );
    }

    #[test]
    fn what_cannot_be_read_or_is_off_is_refused_by_name() {
        for (name, value) in [
            ("ipAddrs", "10.0.0.1"),
            ("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#),
            ("ipAddrs", r#"["ten"]"#),
            ("ipAddrs", "[]"),
            ("ipv4pools", "{}"),
            ("ipFamilies", r#"["ipv4"]"#),
            ("floatingIPs", r#"["1.2.3.4"]"#),
            ("allowedSourcePrefixes", r#""1.2.3.0/24""#),
            ("allowedSourcePrefixes", r#"["1.2.3.0/33"]"#),
            ("ipAddrsNoIpam", r#"["1.2.3.4"]"#),
        ] {
            let error = one(name, value).unwrap_err();
            assert!(error.code == 7 && error.msg.contains(name), "{error:?}");
        }
        // Allowed by the configuration, and still not to be had.
        assert!(with(&[("floatingIPs", r#"["1.2.3.4"]"#)], ALL).is_err());
        let both = [
            ("ipAddrs", r#"["10.0.0.1"]"#),
            ("ipAddrsNoIpam", r#"["10.0.0.2"]"#),
        ];
        assert!(with(&both, ALL).is_err());
    }
}

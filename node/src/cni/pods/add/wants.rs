//! What a runtime, its configuration and the annotations ask for: addresses and link-layer address.

use std::net::IpAddr;

use twill_ipam::{Family, Want};
use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::Add;

use crate::cni::annotations::Annotations;
use crate::cni::endpoint::Workload;
use crate::cni::{CniError, code};

pub(super) fn wants(add: &Add, wishes: &Annotations) -> Result<Vec<Want>, CniError> {
    let mut asked: Vec<IpAddr> = wishes.addresses.clone();
    for text in &add.requested_ips {
        let ip = text
            .parse()
            .map_err(|_| CniError::new(code::INVALID_ENVIRONMENT, format_args!("{text:?} is no address")))?;
        asked.push(ip);
    }
    asked.dedup();
    if !asked.is_empty() {
        return Ok(asked.into_iter().map(Want::Address).collect());
    }
    let any = |family, annotated: &Option<Vec<String>>, configured: &[String]| Want::Any {
        family,
        pools: annotated.clone().unwrap_or_else(|| configured.to_vec()),
    };
    let (v4, v6) = wishes.families.unwrap_or((add.assign_ipv4, add.assign_ipv6));
    let mut wants = Vec::new();
    if v4 {
        wants.push(any(Family::V4, &wishes.ipv4_pools, &add.ipv4_pools));
    }
    if v6 {
        wants.push(any(Family::V6, &wishes.ipv6_pools, &add.ipv6_pools));
    }
    if wants.is_empty() {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            "ipam: assign_ipv4 and assign_ipv6 are both false",
        ));
    }
    Ok(wants)
}

/// Asked for, kept, or `fresh`: chosen before the commit, so that the endpoint is written once.
pub(super) fn mac(
    add: &Add,
    wishes: &Annotations,
    existing: Option<&WorkloadEndpoint>,
    workload: &Workload,
    fresh: &str,
) -> Result<String, CniError> {
    let asked = wishes.mac.as_deref().unwrap_or(&add.requested_mac);
    if !asked.is_empty() {
        let invalid = |e| CniError::new(code::INVALID_CONFIG, format_args!("the MAC asked for: {e}"));
        let mac = asked.parse::<twill_felix::plan::Mac>().map_err(invalid)?;
        return match mac.0 {
            [0, 0, 0, 0, 0, 0] => Err(CniError::new(
                code::INVALID_CONFIG,
                "the MAC asked for is all zero",
            )),
            [first, ..] if first & 1 == 1 => Err(CniError::new(
                code::INVALID_CONFIG,
                format_args!("the MAC asked for, {mac}, is of a group: an interface needs one of its own"),
            )),
            _ => Ok(mac.to_string()),
        };
    }
    let same = existing.filter(|e| e.spec.container_id == workload.container() && !e.spec.mac.is_empty());
    Ok(same.map_or_else(|| fresh.to_owned(), |e| e.spec.mac.clone()))
}

/// Locally administered, unicast.
pub(super) fn random_mac() -> String {
    let [a, b, c, d, e, f, ..] = uuid::Uuid::new_v4().into_bytes();
    twill_felix::plan::Mac([a & 0xfe | 0x02, b, c, d, e, f]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(v4: bool, v6: bool) -> Add {
        Add {
            assign_ipv4: v4,
            assign_ipv6: v6,
            ipv4_pools: vec!["conf".into()],
            ..Add::default()
        }
    }

    #[test]
    fn what_is_asked_for_beats_what_is_configured() {
        let pool = |want: &Want| match want {
            Want::Any { family, pools } => format!("{family:?} {}", pools.join(",")),
            Want::Address(address) => address.to_string(),
        };
        let check = |add: &Add, wishes: &Annotations, expected: &[&str]| {
            let wants: Vec<String> = wants(add, wishes).unwrap().iter().map(pool).collect();
            assert_eq!(wants, expected);
        };
        check(&add(true, false), &Annotations::default(), &["V4 conf"]);
        check(&add(true, true), &Annotations::default(), &["V4 conf", "V6 "]);
        let annotated = Annotations {
            ipv4_pools: Some(vec!["noted".into()]),
            ..Annotations::default()
        };
        check(&add(true, false), &annotated, &["V4 noted"]);
        let fixed = Annotations {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..Annotations::default()
        };
        check(&add(true, false), &fixed, &["10.0.0.1"]);
        assert_eq!(
            wants(&add(false, false), &Annotations::default())
                .unwrap_err()
                .code,
            code::INVALID_CONFIG
        );
        let nonsense = Add {
            requested_ips: vec!["ten".into()],
            ..add(true, false)
        };
        assert_eq!(
            wants(&nonsense, &Annotations::default()).unwrap_err().code,
            code::INVALID_ENVIRONMENT
        );
    }

    #[test]
    fn a_new_mac_is_local_and_unicast() {
        for _ in 0..100 {
            let mac: twill_felix::plan::Mac = random_mac().parse().unwrap();
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
    }
}

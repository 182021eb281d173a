//! What is printed on success: the result in the form of the version that the configuration asked for.

use serde_json::{Map, Value, json};
use twill_proto::cni::{Attached, Interface, Ip};

use crate::conf::{SpecVersion, VERSIONS};

/// The result of ADD. Up to 0.4.0 an address carries its family; interfaces carry their MTU from 1.1.0.
pub(crate) fn added(version: SpecVersion, attached: &Attached) -> String {
    let interfaces: Vec<Value> = attached
        .interfaces
        .iter()
        .map(|i| interface(version, i))
        .collect();
    let ips: Vec<Value> = attached.ips.iter().map(|ip| address(version, ip)).collect();
    let routes: Vec<Value> = attached
        .routes
        .iter()
        .map(|r| object([("dst", &r.dst), ("gw", &r.gw)]))
        .collect();
    let mut result = Map::new();
    result.insert("cniVersion".into(), version.as_str().into());
    result.insert("interfaces".into(), interfaces.into());
    result.insert("ips".into(), ips.into());
    if !routes.is_empty() {
        result.insert("routes".into(), routes.into());
    }
    result.insert("dns".into(), json!({}));
    Value::Object(result).to_string()
}

fn interface(version: SpecVersion, i: &Interface) -> Value {
    let mut value = object([("name", &i.name), ("mac", &i.mac), ("sandbox", &i.sandbox)]);
    if let (Some(map), true) = (value.as_object_mut(), version >= SpecVersion::V1_1_0 && i.mtu > 0) {
        map.insert("mtu".into(), i.mtu.into());
    }
    value
}

fn address(version: SpecVersion, ip: &Ip) -> Value {
    let mut value = object([("address", &ip.address), ("gateway", &ip.gateway)]);
    if let Some(map) = value.as_object_mut() {
        map.insert("interface".into(), ip.interface.into());
        if version <= SpecVersion::V0_4_0 {
            map.insert(
                "version".into(),
                if ip.address.contains(':') { "6" } else { "4" }.into(),
            );
        }
    }
    value
}

/// Without the empty ones.
fn object<const N: usize>(fields: [(&str, &String); N]) -> Value {
    let full = fields.into_iter().filter(|(_, v)| !v.is_empty());
    Value::Object(
        full.map(|(k, v)| (k.to_owned(), Value::from(v.as_str())))
            .collect(),
    )
}

/// The answer to VERSION.
pub(crate) fn versions(asked: &str) -> String {
    json!({"cniVersion": asked, "supportedVersions": VERSIONS}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::cni::Route;

    fn attached() -> Attached {
        let host = Interface {
            name: "cali1".into(),
            mac: "ee:ee:ee:ee:ee:ee".into(),
            mtu: 1500,
            ..Interface::default()
        };
        let pod = Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            sandbox: "/ns".into(),
            mtu: 1500,
        };
        let ip = Ip {
            address: "10.244.0.1/32".into(),
            gateway: "169.254.1.1".into(),
            interface: 1,
        };
        let route = Route {
            dst: "0.0.0.0/0".into(),
            gw: "169.254.1.1".into(),
        };
        Attached {
            interfaces: vec![host, pod],
            ips: vec![ip],
            routes: vec![route],
        }
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let old: Value = serde_json::from_str(&added(SpecVersion::V0_3_1, &attached())).unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
        let new: Value = serde_json::from_str(&added(SpecVersion::V1_0_0, &attached())).unwrap();
        assert_eq!(
            new,
            json!({"cniVersion":"1.0.0","interfaces":[{"name":"cali1","mac":"ee:ee:ee:ee:ee:ee"},
                {"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/ns"}],
                "ips":[{"address":"10.244.0.1/32","gateway":"169.254.1.1","interface":1}],
                "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{}})
        );
        let newest: Value = serde_json::from_str(&added(SpecVersion::V1_1_0, &attached())).unwrap();
        assert_eq!(newest["interfaces"][1]["mtu"], 1500);
    }
}

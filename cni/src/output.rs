//! What is printed on success: the result in the form of the version that the configuration asked for.

use serde_json::{Map, Value, json};
use twill_proto::cni::{Attached, Interface, Ip, Route};

use crate::conf::{SpecVersion, VERSIONS};

/// The result of ADD: what plugins before this one made, if any, then ours.
///
/// Up to 0.4.0 an address carries its family; interfaces carry their MTU from 1.1.0, and only there a route can be said
/// to be in another table than the main one.
pub(crate) fn added(
    version: SpecVersion,
    attached: &Attached,
    dns: Value,
    previous: Option<&Value>,
) -> String {
    let mut result = match previous {
        Some(Value::Object(previous)) => previous.clone(),
        _ => Map::new(),
    };
    result.insert("cniVersion".into(), version.as_str().into());
    let before = list(&mut result, "interfaces").len();
    let interfaces = attached.interfaces.iter().map(|i| interface(version, i));
    list(&mut result, "interfaces").extend(interfaces);
    let ips = attached.ips.iter().map(|ip| address(version, ip, before));
    list(&mut result, "ips").extend(ips);
    let told = |r: &&Route| r.table == 0 || version >= SpecVersion::V1_1_0;
    let mut routes = attached.routes.iter().filter(told).map(route).peekable();
    if routes.peek().is_some() {
        list(&mut result, "routes").extend(routes);
    }
    result.entry("dns").or_insert(dns);
    Value::Object(result).to_string()
}

/// The list under a key, made if it is absent or no list.
fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = result.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut().expect("it was made a list just above")
}

fn route(r: &Route) -> Value {
    let mut value = object([("dst", &r.dst), ("gw", &r.gw)]);
    if let (Some(map), true) = (value.as_object_mut(), r.table > 0) {
        map.insert("table".into(), r.table.into());
    }
    value
}

fn interface(version: SpecVersion, i: &Interface) -> Value {
    let mut value = object([("name", &i.name), ("mac", &i.mac), ("sandbox", &i.sandbox)]);
    if let (Some(map), true) = (value.as_object_mut(), version >= SpecVersion::V1_1_0 && i.mtu > 0) {
        map.insert("mtu".into(), i.mtu.into());
    }
    value
}

/// `before`: how many interfaces stand in the result before ours.
fn address(version: SpecVersion, ip: &Ip, before: usize) -> Value {
    let mut value = object([("address", &ip.address), ("gateway", &ip.gateway)]);
    if let Some(map) = value.as_object_mut() {
        let index = usize::try_from(ip.interface).unwrap_or(usize::MAX);
        map.insert("interface".into(), index.saturating_add(before).into());
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
            table: 0,
        };
        Attached {
            interfaces: vec![host, pod],
            ips: vec![ip],
            routes: vec![route],
        }
    }

    fn result(version: SpecVersion, attached: &Attached, previous: Option<&Value>) -> Value {
        serde_json::from_str(&added(version, attached, json!({}), previous)).unwrap()
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let old = result(SpecVersion::V0_3_1, &attached(), None);
        assert_eq!(old["ips"][0]["version"], "4");
        let new = result(SpecVersion::V1_0_0, &attached(), None);
        assert_eq!(
            new,
            json!({"cniVersion":"1.0.0","interfaces":[{"name":"cali1","mac":"ee:ee:ee:ee:ee:ee"},
                {"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/ns"}],
                "ips":[{"address":"10.244.0.1/32","gateway":"169.254.1.1","interface":1}],
                "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{}})
        );
        let newest = result(SpecVersion::V1_1_0, &attached(), None);
        assert_eq!(newest["interfaces"][1]["mtu"], 1500);
    }

    #[test]
    fn what_earlier_plugins_made_stays_and_our_index_moves_behind_it() {
        let previous = json!({"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/ns"}],
            "ips":[{"address":"127.0.0.1/8","interface":0}],"dns":{"domain":"x"},"more":1});
        let merged = result(SpecVersion::V1_0_0, &attached(), Some(&previous));
        assert_eq!(merged["interfaces"][0]["name"], "lo");
        assert_eq!(merged["interfaces"][2]["name"], "eth0");
        assert_eq!(
            (&merged["ips"][0]["interface"], &merged["ips"][1]["interface"]),
            (&json!(0), &json!(2))
        );
        assert_eq!(
            (&merged["dns"]["domain"], &merged["more"]),
            (&json!("x"), &json!(1))
        );
        // What is no list cannot be added to, and does not stop us.
        assert_eq!(
            result(SpecVersion::V1_0_0, &attached(), Some(&json!({"ips": 3})))["ips"][0]["interface"],
            1
        );
    }

    #[test]
    fn a_route_of_another_table_is_told_only_where_its_table_can_be() {
        let mut second = attached();
        second.routes[0].table = 1042;
        assert_eq!(
            result(SpecVersion::V1_1_0, &second, None)["routes"][0]["table"],
            1042
        );
        assert_eq!(result(SpecVersion::V1_0_0, &second, None).get("routes"), None);
    }
}

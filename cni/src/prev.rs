//! `prevResult`: what a runtime kept of an ADD (CNI spec 1.1.0, section 5). Only what there is to compare is read.

use serde::Deserialize;
use serde_json::Value;
use twill_proto::cni;

use crate::error::{CniError, code};

/// The parts of a result that CHECK compares. All versions of the spec have them in the same places.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Previous {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: String,
    mtu: u32,
    sandbox: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ip {
    address: String,
    gateway: String,
    interface: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Route {
    dst: String,
    gw: String,
    table: u32,
}

/// # Errors
/// Not a result: code 6.
pub(crate) fn read(previous: &Value) -> Result<Previous, CniError> {
    Previous::deserialize(previous)
        .map_err(|e| CniError::new(code::DECODE, format_args!("prevResult cannot be read: {e}")))
}

/// Whether a result names an interface inside the pod. What cannot be read names none.
pub(crate) fn has_interface(previous: &Value, ifname: &str) -> bool {
    let in_pod = |i: &Interface| i.name == ifname && !i.sandbox.is_empty();
    Previous::deserialize(previous).is_ok_and(|p| p.interfaces.iter().any(in_pod))
}

impl Previous {
    /// The addresses of the pod's interface. One that names no interface of the list is taken for ours.
    pub(crate) fn addresses_of(&self, ifname: &str) -> Vec<String> {
        let ours = |ip: &&Ip| {
            let interface = ip.interface.and_then(|index| self.interfaces.get(index));
            interface.is_none_or(|i| i.name == ifname && !i.sandbox.is_empty())
        };
        let mine = self.ips.iter().filter(ours);
        mine.map(|ip| ip.address.clone()).collect()
    }

    pub(crate) fn interfaces(&self) -> Vec<cni::Interface> {
        let interface = |i: &Interface| cni::Interface {
            name: i.name.clone(),
            mac: i.mac.clone(),
            mtu: i.mtu,
            sandbox: i.sandbox.clone(),
        };
        self.interfaces.iter().map(interface).collect()
    }

    /// The routes; one without a gateway has that of the addresses of its family (spec: `gw`).
    pub(crate) fn routes(&self) -> Vec<cni::Route> {
        let route = |r: &Route| cni::Route {
            dst: r.dst.clone(),
            gw: if r.gw.is_empty() {
                self.gateway(r.dst.contains(':'))
            } else {
                r.gw.clone()
            },
            table: r.table,
        };
        self.routes.iter().map(route).collect()
    }

    fn gateway(&self, v6: bool) -> String {
        let same = |ip: &&Ip| ip.address.contains(':') == v6;
        let ip = self.ips.iter().find(same);
        ip.map_or_else(String::new, |ip| ip.gateway.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chained() -> Value {
        json!({"cniVersion": "1.0.0",
            "interfaces": [{"name": "cali1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/ns"},
                           {"name": "net1", "sandbox": "/ns"}],
            "ips": [{"address": "10.0.0.1/32", "gateway": "169.254.1.1", "interface": 1},
                    {"address": "192.0.2.9/24", "interface": 2}, {"address": "fd00::1/128"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]})
    }

    #[test]
    fn only_addresses_of_the_interface_are_ours_to_check() {
        let previous = read(&chained()).unwrap();
        assert_eq!(previous.addresses_of("eth0"), ["10.0.0.1/32", "fd00::1/128"]);
        assert_eq!(previous.addresses_of("net1"), ["192.0.2.9/24", "fd00::1/128"]);
        assert_eq!(previous.interfaces()[1].mac, "02:00:00:00:00:01");
    }

    #[test]
    fn a_route_without_a_gateway_has_the_addresses_one() {
        let routes = read(&chained()).unwrap().routes();
        let gateways: Vec<_> = routes.iter().map(|r| r.gw.as_str()).collect();
        assert_eq!(gateways, ["169.254.1.1", "192.0.2.1"]);
    }

    #[test]
    fn an_interface_on_the_host_is_not_one_in_the_pod() {
        assert!(has_interface(&chained(), "eth0"));
        assert!(!has_interface(&chained(), "cali1") && !has_interface(&json!([]), "eth0"));
        assert_eq!(read(&json!({"ips": 3})).unwrap_err().code, code::DECODE);
    }
}

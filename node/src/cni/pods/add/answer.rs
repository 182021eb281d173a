//! What the runtime is told of an interface that was made.

use std::net::IpAddr;

use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::{Attached, Attachment, Interface, Ip, Route};

use crate::cni::endpoint::{GATEWAYS, Workload};

pub(super) fn attached(
    a: &Attachment,
    workload: &Workload,
    endpoint: &WorkloadEndpoint,
    addresses: &[IpAddr],
    mtu: u32,
) -> Attached {
    let host = Interface {
        name: workload.interface.clone(),
        mac: twill_felix::plan::Mac::HOST_SIDE.to_string(),
        mtu,
        sandbox: String::new(),
    };
    let pod = Interface {
        name: a.ifname.clone(),
        mac: endpoint.spec.mac.clone(),
        mtu,
        sandbox: a.netns.clone(),
    };
    let [gateway_v4, gateway_v6] = GATEWAYS;
    let gateway = |v4: bool| if v4 { gateway_v4 } else { gateway_v6 }.to_owned();
    let ip = |ip: &IpAddr| Ip {
        address: ipnet::IpNet::from(*ip).to_string(),
        gateway: gateway(ip.is_ipv4()),
        interface: 1,
    };
    let route = |ip: &IpAddr| Route {
        dst: if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.to_owned(),
        gw: gateway(ip.is_ipv4()),
        table: 0,
    };
    Attached {
        interfaces: vec![host, pod],
        ips: addresses.iter().map(ip).collect(),
        routes: addresses.iter().map(route).collect(),
    }
}

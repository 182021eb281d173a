//! CHECK and STATUS: questions that change nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use twill_datastore::Store;
use twill_felix::kernel::pod::{Expected, PodLink};
use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::{Attachment, Check};

use super::super::annotations::{self, Features};
use super::super::{CniError, code};
use super::{Pods, attachment, handles};
use crate::cni::endpoint::GATEWAYS;

/// How long policy may still be on its way: CHECK may follow ADD at once, or a policy's change.
const CONVERGENCE: Duration = Duration::from_secs(5);

impl<S: Store> Pods<S> {
    /// CHECK: everything that ADD made is as it was made, in the datastore, in IPAM and in the kernel on both sides of
    /// the link; what is listed in `prevResult` counts where a chained plugin may have changed it (MTU, routes).
    ///
    /// # Errors
    /// Code 3: no such attachment. Code 101: what differs, all of it.
    pub(in crate::cni) async fn check(&self, check: &Check, fds: Vec<OwnedFd>) -> Result<(), CniError> {
        let attachment = attachment(check.attachment.as_ref())?;
        self.serving()?;
        let endpoint = self.endpoint_of(attachment)?;
        let mut differs = recorded(&endpoint, check);
        // The annotation under which nobody keeps account of the addresses.
        let features = Features {
            ip_addrs_no_ipam: true,
            ..Features::default()
        };
        let unmanaged =
            annotations::parse(&check.annotations, features).is_ok_and(|a| !a.unmanaged.is_empty());
        if !unmanaged {
            differs.extend(self.not_reserved(attachment, &endpoint).await?);
        }
        let fds: Result<[OwnedFd; 2], _> = fds.try_into();
        if let Ok([_, netlink]) = fds {
            let expected = expected(&endpoint, check)?;
            let inspected = self.dataplane.inspect(expected, netlink).await;
            differs.extend(inspected.map_err(|e| CniError::new(code::IO, format_args!("{e:#}")))?);
        } else if !crate::host::has_interface(&endpoint.spec.interface_name) {
            // A plugin older than this daemon brings no descriptors.
            differs.push(format!("{} is gone from the host", endpoint.spec.interface_name));
        }
        let policy = self
            .dataplane
            .programmed(&endpoint.spec.interface_name, 0, CONVERGENCE);
        if let (Err(error), true) = (policy.await, differs.is_empty()) {
            differs.push(format!("policy: {error:#}"));
        }
        if differs.is_empty() {
            return Ok(());
        }
        Err(CniError::new(
            code::NOT_AS_MADE,
            format_args!(
                "{} of container {}: {}; delete the pod, so that it is made anew",
                attachment.ifname,
                attachment.container_id,
                differs.join("; ")
            ),
        ))
    }

    fn endpoint_of(&self, attachment: &Attachment) -> Result<Arc<WorkloadEndpoint>, CniError> {
        let fabric = self.fabric.read();
        let ours = |e: &WorkloadEndpoint| {
            e.spec.container_id == attachment.container_id && e.spec.endpoint == attachment.ifname
        };
        let found = fabric.own_endpoints.values().find(|(e, _)| ours(e));
        found.map(|(e, _)| e.clone()).ok_or_else(|| {
            CniError::new(
                code::UNKNOWN_CONTAINER,
                format_args!(
                    "no endpoint for {} of container {} on this node",
                    attachment.ifname, attachment.container_id
                ),
            )
        })
    }

    /// Addresses of the endpoint that IPAM holds for nobody, or for somebody else.
    async fn not_reserved(
        &self,
        attachment: &Attachment,
        endpoint: &WorkloadEndpoint,
    ) -> Result<Vec<String>, CniError> {
        let ours = handles(attachment);
        let mut differs = Vec::new();
        for net in &endpoint.spec.ip_networks {
            let held = self.holder_of(net.addr()).await?;
            if !held.as_ref().is_some_and(|h| ours.contains(h)) {
                let by = held.unwrap_or_else(|| "nobody".to_owned());
                differs.push(format!(
                    "{} is reserved for {by}, not for {}",
                    net.addr(),
                    ours[0]
                ));
            }
        }
        Ok(differs)
    }

    /// The handle that holds an address.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn holder_of(&self, address: IpAddr) -> Result<Option<String>, CniError> {
        let holder = twill_ipam::check::holder(&self.store, address)
            .await
            .map_err(CniError::try_again)?;
        Ok(holder.and_then(|h| h.attribute).and_then(|a| a.handle_id))
    }

    /// STATUS: ADD would be served.
    ///
    /// # Errors
    /// Code 50 with the reason; code 51 when running pods are affected too, because policy does not reach the kernel.
    pub(in crate::cni) fn status(&self) -> Result<(), CniError> {
        if let Some(error) = self.dataplane.table_error() {
            return Err(CniError::new(
                code::LIMITED,
                format_args!(
                    "policy cannot be written to the kernel, which enforces an older state: {error}"
                ),
            ));
        }
        self.serving()
            .map_err(|e| CniError::new(code::NOT_AVAILABLE, e.msg))?;
        let fabric = self.fabric.read();
        let why = if fabric.pools.values().all(|pool| pool.spec.disabled) {
            Some("there is no enabled IPPool to take addresses from: create one".to_owned())
        } else {
            self.memory.is_exhausted(&fabric.pools)
        };
        why.map_or(Ok(()), |why| Err(CniError::new(code::NOT_AVAILABLE, why)))
    }
}

/// What the endpoint in the datastore lacks of the result.
fn recorded(endpoint: &WorkloadEndpoint, check: &Check) -> Vec<String> {
    let held: BTreeSet<String> = endpoint
        .spec
        .ip_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    let missing = check.ips.iter().filter(|ip| !held.contains(*ip));
    let mut differs: Vec<String> = missing
        .map(|ip| format!("the endpoint in the datastore does not hold {ip}"))
        .collect();
    let host = &endpoint.spec.interface_name;
    let named = check
        .interfaces
        .iter()
        .any(|i| i.name == *host && i.sandbox.is_empty());
    if !check.interfaces.is_empty() && !named {
        differs.push(format!(
            "prevResult does not name {host}, the host side of the link"
        ));
    }
    differs
}

/// The link as it should be: by the endpoint, and by the result where a later plugin may have changed it. The link-layer
/// address is the endpoint's: the host has it as permanent neighbour, so that a plugin that changes it cuts the pod off.
fn expected(endpoint: &WorkloadEndpoint, check: &Check) -> Result<Expected, CniError> {
    let broken = |e: twill_felix::plan::NameError| {
        CniError::new(
            code::NOT_AS_MADE,
            format_args!("the endpoint in the datastore: {e}"),
        )
    };
    let told = check
        .interfaces
        .iter()
        .find(|i| i.name == endpoint.spec.endpoint && !i.sandbox.is_empty());
    let routes = check.routes.iter().filter_map(|r| {
        let (dst, gw): (IpNet, IpAddr) = (r.dst.parse().ok()?, r.gw.parse().ok()?);
        // Other routes were made by other plugins.
        GATEWAYS.contains(&gw.to_string().as_str()).then_some((dst, gw))
    });
    Ok(Expected {
        link: PodLink {
            host: endpoint.spec.interface_name.parse().map_err(broken)?,
            pod: endpoint.spec.endpoint.parse().map_err(broken)?,
            mac: endpoint.spec.mac.parse().map_err(broken)?,
            mtu: told.map_or(0, |i| i.mtu),
            addresses: endpoint.spec.ip_networks.iter().map(|n| n.addr()).collect(),
        },
        routes: routes.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::cni::{Interface, Route};

    fn endpoint() -> WorkloadEndpoint {
        let text = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "n1-cni-c1-eth0", "namespace": "default"},
            "spec": {"node": "n1", "endpoint": "eth0", "interfaceName": "cali1", "mac": "02:00:00:00:00:01",
                     "ipNetworks": ["10.0.0.1/32"]}});
        WorkloadEndpoint::decode(text.to_string().as_bytes()).unwrap()
    }

    fn interface(name: &str, sandbox: &str) -> Interface {
        Interface {
            name: name.into(),
            mac: "02:00:00:00:00:99".into(),
            mtu: 1300,
            sandbox: sandbox.into(),
        }
    }

    #[test]
    fn the_result_counts_where_a_chained_plugin_may_have_changed_the_link() {
        let route = |dst: &str, gw: &str| Route {
            dst: dst.into(),
            gw: gw.into(),
            table: 0,
        };
        let check = Check {
            interfaces: vec![interface("cali1", ""), interface("eth0", "/ns")],
            routes: vec![
                route("0.0.0.0/0", "169.254.1.1"),
                route("10.9.0.0/16", "10.0.0.9"),
            ],
            ..Check::default()
        };
        let expected = expected(&endpoint(), &check).unwrap();
        assert_eq!(expected.link.mac.to_string(), "02:00:00:00:00:01");
        assert_eq!(expected.link.mtu, 1300);
        assert_eq!(
            expected.routes.len(),
            1,
            "a route of another plugin is not ours to check"
        );
        assert_eq!(recorded(&endpoint(), &check), Vec::<String>::new());
    }

    #[test]
    fn a_result_that_is_not_this_endpoints_differs() {
        let check = Check {
            ips: vec!["10.0.0.2/32".into()],
            interfaces: vec![interface("cali2", "")],
            ..Check::default()
        };
        let said = recorded(&endpoint(), &check).join("; ");
        assert!(said.contains("10.0.0.2/32") && said.contains("cali1"), "{said}");
    }
}

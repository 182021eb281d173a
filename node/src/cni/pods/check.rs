//! CHECK and STATUS: questions that change nothing.

use std::collections::BTreeSet;

use twill_datastore::Store;
use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::Check;

use super::super::{CniError, code};
use super::{Pods, attachment};

impl<S: Store> Pods<S> {
    /// CHECK: the endpoint is this container's, has the addresses of the result, and its link is there.
    ///
    /// # Errors
    /// What differs.
    pub(in crate::cni) fn check(&self, check: &Check) -> Result<(), CniError> {
        let attachment = attachment(check.attachment.as_ref())?;
        self.serving()?;
        let fabric = self.fabric.read();
        let ours = |e: &WorkloadEndpoint| {
            e.spec.container_id == attachment.container_id && e.spec.endpoint == attachment.ifname
        };
        let Some((endpoint, _)) = fabric.own_endpoints.values().find(|(e, _)| ours(e)) else {
            return Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                format_args!("no endpoint for container {}", attachment.container_id),
            ));
        };
        let held: BTreeSet<String> = endpoint
            .spec
            .ip_networks
            .iter()
            .map(ToString::to_string)
            .collect();
        if let Some(missing) = check.ips.iter().find(|ip| !held.contains(*ip)) {
            return Err(CniError::new(
                code::IO,
                format_args!("the endpoint does not hold {missing}"),
            ));
        }
        if crate::host::has_interface(&endpoint.spec.interface_name) {
            return Ok(());
        }
        Err(CniError::new(
            code::IO,
            format_args!("interface {} is gone", endpoint.spec.interface_name),
        ))
    }

    /// STATUS: ADD would be served.
    ///
    /// # Errors
    /// Code 50 with the reason.
    pub(in crate::cni) fn status(&self) -> Result<(), CniError> {
        self.serving()
            .map_err(|e| CniError::new(code::NOT_AVAILABLE, e.msg))
    }
}

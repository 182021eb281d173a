//! The part of ADD that needs no addresses, done while the datastore is being asked for them.

use std::net::IpAddr;
use std::sync::Arc;

use twill_datastore::Store;
use twill_felix::kernel::pod::{Made, PodLink};
use twill_ipam::{Family, Want};
use twill_proto::cni::Add;

use super::super::annotations::Annotations;
use super::super::endpoint::Workload;
use super::super::{CniError, code};
use super::{Pods, attachment};
use crate::dataplane::Sandbox;

/// A pair of links that was made before its endpoint was written.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The MAC that it was given inside the pod.
    mac: String,
}

impl<S: Store> Pods<S> {
    /// The pod's link as far as it is known: all but the addresses, unless these are given.
    pub(super) async fn pod_link(
        &self,
        add: &Add,
        workload: &Workload,
        mac: &str,
        addresses: &[IpAddr],
    ) -> Result<PodLink, CniError> {
        let attachment = attachment(add.attachment.as_ref())?;
        let invalid = |e: twill_felix::plan::NameError| CniError::new(code::INVALID_ENVIRONMENT, e);
        Ok(PodLink {
            host: workload.interface.parse().map_err(invalid)?,
            pod: attachment.ifname.parse().map_err(invalid)?,
            mac: mac.parse().map_err(invalid)?,
            addresses: addresses.to_vec(),
            mtu: self.mtu(add).await?,
        })
    }

    /// Makes the pair of a new pod, closed until its endpoint is programmed. `None` when there was one already, or when
    /// none could be made: attaching tries again and says why.
    pub(super) async fn link_ahead(&self, link: PodLink, v6: bool, sandbox: &Arc<Sandbox>) -> Option<Ahead> {
        let mac = link.mac.to_string();
        match self.dataplane.prepare(link, v6, sandbox.clone()).await {
            Ok(prepared) if prepared.made == Made::Now => Some(Ahead { mac }),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "no link ahead of the endpoint");
                None
            }
        }
    }

    /// Gives a pair up whose endpoint was written with another MAC: somebody else had changed the endpoint meanwhile.
    pub(super) async fn drop_unlike(&self, ahead: Option<&Ahead>, workload: &Workload, mac: &str) {
        if ahead.is_some_and(|ahead| ahead.mac != mac) {
            self.detach(&workload.interface).await;
        }
    }

    /// Removes a pair whose endpoint could not be written, unless the same container has one by another request.
    pub(super) async fn drop_unwritten(&self, ahead: Option<&Ahead>, workload: &Workload) {
        let known = self.known_endpoint(&workload.key);
        let in_use = known.is_some_and(|e| e.endpoint.spec.container_id == workload.container());
        if ahead.is_some() && !in_use {
            self.detach(&workload.interface).await;
        }
    }
}

/// Whether IPv6 addresses are among what is asked for.
pub(super) fn wants_v6(wishes: &Annotations, wants: &[Want]) -> bool {
    let v6 = |want: &Want| match want {
        Want::Any { family, .. } => *family == Family::V6,
        Want::Address(ip) => ip.is_ipv6(),
    };
    wishes.unmanaged.iter().any(IpAddr::is_ipv6) || wants.iter().any(v6)
}

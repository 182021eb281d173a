//! ADD: addresses and endpoint in one commit while the link is being made, then its addresses, then policy, then the answer.

mod answer;
mod commit;
mod profile;
mod wants;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use twill_datastore::Store;
use twill_felix::kernel::pod::Routing;
use twill_ipam::Assigned;
use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::{Add, Attached};

use super::ahead::wants_v6;
use super::{Pods, attachment};
use crate::cni::annotations::{self, Features};
use crate::cni::endpoint::Workload;
use crate::cni::{CniError, code};
use crate::dataplane::Sandbox;
use answer::attached;
use wants::{mac, random_mac, wants};

/// How long policy may take to reach the kernel before ADD gives up: an apply takes milliseconds, a resync a second.
const POLICY_DEADLINE: Duration = Duration::from_secs(20);
/// The same when the configuration says how long, in seconds: the plugin itself waits a minute.
const POLICY_SECS_MAX: u32 = 50;
impl<S: Store> Pods<S> {
    /// ADD. Nothing is left behind by one that fails.
    ///
    /// # Errors
    /// What the runtime should see.
    pub(in crate::cni) async fn add(&self, add: &Add, fds: Vec<OwnedFd>) -> Result<Attached, CniError> {
        let attachment = attachment(add.attachment.as_ref())?;
        let [netns, netlink]: [OwnedFd; 2] = fds.try_into().map_err(|fds: Vec<OwnedFd>| {
            CniError::new(
                code::IO,
                format_args!(
                    "ADD brings the namespace and a socket inside it, not {} descriptors",
                    fds.len()
                ),
            )
        })?;
        self.serving()?;
        self.is_this_node(&add.nodename)?;
        self.memory.note(&attachment.network, &add.ignored);
        let prefix = self.interface_prefix();
        let mut workload = Workload::new(&self.node, &prefix, attachment, &timestamp())?;
        let wishes = annotations::parse(&self.annotations(add, &workload), Features::from(add))?;
        let _guard = self.memory.adding(&workload.handle);
        if !workload.is_k8s() || add.policy_type != "k8s" {
            self.ensure_network_profile(&attachment.network, workload.is_k8s())
                .await?;
        }
        self.clear_former(&workload).await;
        let sandbox = Arc::new(Sandbox { netns, netlink });
        let fresh = random_mac();
        let known = self.known_endpoint(&workload.key);
        let mac = mac(
            add,
            &wishes,
            known.as_ref().map(|e| e.endpoint.as_ref()),
            &workload,
            &fresh,
        )?;
        let link = self.pod_link(add, &workload, &mac, &[]).await?;
        let v6 = wants_v6(&wishes, &wants(add, &wishes).unwrap_or_default());
        let (ahead, committed) = tokio::join!(
            self.link_ahead(link, v6, &sandbox),
            self.commit(add, &mut workload, &wishes, &fresh)
        );
        let (assigned, endpoint) = match committed {
            Ok(committed) => committed,
            Err(error) => {
                self.drop_unwritten(ahead.as_ref(), &workload).await;
                if error.code == code::NO_ADDRESS {
                    let pools = self.fabric.read().pools.clone();
                    self.memory.exhausted(&error.msg, pools);
                }
                return Err(error);
            }
        };
        self.memory.has_room();
        self.drop_unlike(ahead.as_ref(), &workload, &endpoint.spec.mac)
            .await;
        let made = self.link(add, &workload, &endpoint, &assigned, sandbox).await;
        match made {
            Ok(attached) => Ok(attached),
            Err(error) => {
                if ahead.is_some() {
                    self.detach(&workload.interface).await;
                }
                if assigned.fresh {
                    self.take_back(&workload).await;
                }
                Err(error)
            }
        }
    }

    /// `nodename` of a configuration that was written for another node would put the pod's endpoint there.
    fn is_this_node(&self, nodename: &str) -> Result<(), CniError> {
        if nodename.is_empty() || nodename == self.node {
            return Ok(());
        }
        Err(CniError::new(
            code::INVALID_CONFIG,
            format_args!(
                "network configuration: nodename {nodename:?} is not this node, {:?}: leave the key out, or install the \
                 configuration that was made for this node",
                self.node
            ),
        ))
    }

    /// What the runtime says, and under it what the endpoint of the pod's name has been given.
    fn annotations(&self, add: &Add, workload: &Workload) -> BTreeMap<String, String> {
        let known = self.known_endpoint(&workload.key);
        let mut all = known.map_or_else(BTreeMap::new, |e| e.endpoint.metadata.annotations.clone());
        all.extend(add.annotations.clone());
        all
    }

    /// The link of the same pod's former sandbox goes before the endpoint is written, so that the wait for the kernel is a
    /// wait for the new link.
    async fn clear_former(&self, workload: &Workload) {
        let known = self.known_endpoint(&workload.key);
        let Some(known) = known else { return };
        if known.endpoint.spec.container_id == workload.container() {
            // A DEL of the same container may have got half-way.
            self.orders.restore(workload.key.clone()).await;
            return;
        }
        if crate::host::has_interface(&workload.interface) {
            self.detach(&workload.interface).await;
        }
        // The addresses stay with the former container until its DEL, which will not find this endpoint any more.
        let addresses = known
            .endpoint
            .spec
            .ip_networks
            .iter()
            .map(|net| net.addr())
            .collect();
        if let Err(error) = self.forget(&addresses).await {
            tracing::warn!(
                error = error.msg,
                "connections of the former container stay until they time out"
            );
        }
    }

    fn interface_prefix(&self) -> String {
        self.fabric
            .read()
            .felix_setting(&self.node, |spec| {
                (!spec.interface_prefix.is_empty()).then(|| spec.interface_prefix.clone())
            })
            .unwrap_or_default()
    }

    async fn link(
        &self,
        add: &Add,
        workload: &Workload,
        endpoint: &WorkloadEndpoint,
        assigned: &Assigned,
        sandbox: Arc<Sandbox>,
    ) -> Result<Attached, CniError> {
        let attachment = attachment(add.attachment.as_ref())?;
        let spec = self
            .pod_link(add, workload, &endpoint.spec.mac, &assigned.addresses)
            .await?;
        let mtu = spec.mtu;
        let link = self
            .dataplane
            .attach(spec, sandbox)
            .await
            .map_err(|e| CniError::new(code::IO, format_args!("{e:#}")))?;
        let limit = policy_deadline(add);
        let waited = self
            .dataplane
            .programmed(&workload.interface, assigned.revision, limit)
            .await;
        if let Err(error) = waited {
            self.detach(&workload.interface).await;
            return Err(CniError::try_again(format_args!("{error:#}")));
        }
        let mut answer = attached(attachment, workload, endpoint, &assigned.addresses, mtu);
        if let Routing::Own(table) = link.routing {
            answer.routes.iter_mut().for_each(|r| r.table = table);
        }
        Ok(answer)
    }
}

fn policy_deadline(add: &Add) -> Duration {
    match add.policy_timeout_secs {
        0 => POLICY_DEADLINE,
        secs => Duration::from_secs(secs.min(POLICY_SECS_MAX).into()),
    }
}

/// Go's default form of a time, which is what Calico's attribute holds.
fn timestamp() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::pods::refusal;
    use twill_ipam::Error as IpamError;
    use twill_proto::cni::Attachment;

    #[test]
    fn errors_of_the_allocator_have_the_codes_a_runtime_acts_on() {
        assert_eq!(refusal(IpamError::Locked).code, code::TRY_AGAIN);
        assert_eq!(
            refusal(IpamError::Datastore {
                reason: "away".into()
            })
            .code,
            code::TRY_AGAIN
        );
        assert_eq!(
            refusal(IpamError::BlockLimit { limit: 20 }).code,
            code::NO_ADDRESS
        );
        assert_eq!(
            refusal(IpamError::BadRequest { limit: 4 }).code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn the_wait_for_policy_is_the_configurations_within_the_plugins_patience() {
        let waits = |policy_timeout_secs| {
            policy_deadline(&Add {
                policy_timeout_secs,
                ..Add::default()
            })
        };
        assert_eq!(waits(0), POLICY_DEADLINE);
        assert_eq!(waits(7), Duration::from_secs(7));
        assert_eq!(waits(u32::MAX), Duration::from_secs(50));
    }

    #[test]
    fn a_request_without_a_container_is_refused() {
        assert_eq!(attachment(None).unwrap_err().code, code::INVALID_ENVIRONMENT);
        assert!(attachment(Some(&Attachment::default())).is_err());
    }
}

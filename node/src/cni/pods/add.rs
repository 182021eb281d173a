//! ADD: addresses and endpoint in one commit while the link is being made, then its addresses, then policy, then the answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use twill_datastore::client::{self, ClientError};
use twill_datastore::{Compare, KeyValue, Op, Store, Txn};
use twill_felix::kernel::pod::Routing;
use twill_ipam::{Assign, Assigned, Error as IpamError, Family, Release, ReleaseTarget, Riders, Want};
use twill_model::resources::WorkloadEndpoint;
use twill_model::resources::ippool::AllowedUse;
use twill_model::{AnyResource, Kind, ResourceKey};
use twill_proto::cni::{Add, Attached, Attachment, Interface, Ip, Route};

use super::super::annotations::{self, Annotations, Features};
use super::super::endpoint::{GATEWAYS, Workload, with_addresses};
use super::super::{CniError, code};
use super::ahead::wants_v6;
use super::{ATTEMPTS_MAX, Pods, attachment, handles, refusal};
use crate::dataplane::Sandbox;

/// How long policy may take to reach the kernel before ADD gives up: an apply takes milliseconds, a resync a second.
const POLICY_DEADLINE: Duration = Duration::from_secs(20);
/// The same when the configuration says how long, in seconds: the plugin itself waits a minute.
const POLICY_SECS_MAX: u32 = 50;
/// How long the datastore may take to commit an ADD: it takes milliseconds, a burst a second. A runtime asks again.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// An endpoint in the store.
#[derive(Clone, Debug)]
pub(super) struct Existing {
    pub(super) endpoint: Arc<WorkloadEndpoint>,
    revision: u64,
}

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
        let former = known.filter(|e| e.endpoint.spec.container_id != workload.container());
        if former.is_some() && crate::host::has_interface(&workload.interface) {
            self.detach(&workload.interface).await;
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

    /// Addresses, handle and endpoint in one transaction.
    async fn commit(
        &self,
        add: &Add,
        workload: &mut Workload,
        wishes: &Annotations,
        fresh: &str,
    ) -> Result<(Assigned, WorkloadEndpoint), CniError> {
        let attachment = attachment(add.attachment.as_ref())?;
        let mut existing = self.known_endpoint(&workload.key);
        let mut gave_way = false;
        for _ in 0..ATTEMPTS_MAX {
            let mac = mac(
                add,
                wishes,
                existing.as_ref().map(|e| e.endpoint.as_ref()),
                workload,
                fresh,
            )?;
            let endpoint = workload.endpoint(add, existing.as_ref().map(|e| e.endpoint.as_ref()), &mac);
            let mut endpoint = identified(endpoint);
            endpoint
                .spec
                .allow_spoofed_source_prefixes
                .clone_from(&wishes.source_prefixes);
            if !wishes.unmanaged.is_empty() {
                match self
                    .put_unmanaged(workload, &endpoint, existing.as_ref(), wishes)
                    .await?
                {
                    Some(committed) => return Ok(committed),
                    None => existing = self.stored_endpoint(&workload.key).await?,
                }
                continue;
            }
            let assign = Assign {
                handle: workload.handle.clone(),
                attributes: workload.attributes.clone(),
                wants: wants(add, wishes)?,
                purpose: AllowedUse::Workload,
                namespace_labels: BTreeMap::new(),
                riders: put_endpoint(&workload.key, &endpoint, existing.as_ref()),
            };
            // Dropped at the deadline, an assignment takes itself back.
            let assigned = tokio::time::timeout(STORE_DEADLINE, self.ipam.assign(assign)).await;
            match assigned.unwrap_or_else(|_| Err(unanswered())) {
                Ok(assigned) if assigned.fresh => {
                    let endpoint = with_addresses(&endpoint, &assigned.addresses);
                    return Ok((assigned, endpoint));
                }
                Ok(assigned) if self.is_of_another(attachment, &assigned.addresses) => {
                    // Another interface of the container joined the same network before.
                    let [_, own] = handles(attachment);
                    workload.handle = own;
                }
                Ok(assigned) => {
                    let endpoint = with_addresses(&endpoint, &assigned.addresses);
                    return self.again(assigned, endpoint, workload).await;
                }
                Err(IpamError::RiderConflict { found, .. }) => {
                    existing = found_endpoint(&workload.key, found.map(|kv| *kv))?
                }
                Err(IpamError::AddressInUse { holder, .. })
                    if !gave_way && former(attachment, existing.as_ref()).contains(&holder) =>
                {
                    gave_way = true;
                    self.free(holder).await?;
                }
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(CniError::try_again(format_args!(
            "others kept changing {}",
            workload.key
        )))
    }

    /// Whether addresses are those of another interface of the same container.
    fn is_of_another(&self, attachment: &Attachment, addresses: &[IpAddr]) -> bool {
        let others = self.addresses_of_others(attachment);
        addresses.iter().any(|a| others.contains(a))
    }

    /// A pod that asks for its address again, in a new sandbox, before the old one was deleted: the old one gives way.
    async fn free(&self, handle: String) -> Result<(), CniError> {
        tracing::info!(
            handle,
            "address asked for again by the same pod, taken from its former container"
        );
        let release = Release {
            target: ReleaseTarget::Handle(handle),
            riders: Riders::default(),
        };
        self.ipam.release(release).await.map(drop).map_err(refusal)
    }

    /// `ipAddrsNoIpam`: the endpoint alone. `None` when somebody changed it meanwhile.
    async fn put_unmanaged(
        &self,
        workload: &Workload,
        endpoint: &WorkloadEndpoint,
        existing: Option<&Existing>,
        wishes: &Annotations,
    ) -> Result<Option<(Assigned, WorkloadEndpoint)>, CniError> {
        let endpoint = with_addresses(endpoint, &wishes.unmanaged);
        let riders = put_endpoint(&workload.key, &endpoint, existing);
        let put = Op::put(workload.key.path(), endpoint.encode());
        let txn = Txn::when(riders.compares).then(vec![put]);
        let reply = self.store.txn(txn).await.map_err(CniError::try_again)?;
        let assigned = Assigned {
            addresses: wishes.unmanaged.clone(),
            revision: reply.revision,
            fresh: true,
        };
        Ok(reply.succeeded.then_some((assigned, endpoint)))
    }

    async fn stored_endpoint(&self, key: &ResourceKey) -> Result<Option<Existing>, CniError> {
        match self.client().get(key).await {
            Ok(stored) => Ok(stored.object.downcast().map(|endpoint| Existing {
                endpoint: endpoint.clone(),
                revision: stored.revision,
            })),
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(CniError::try_again(error)),
        }
    }

    /// The handle had its addresses before: an ADD whose answer was lost. The endpoint may be there, or may not.
    async fn again(
        &self,
        mut assigned: Assigned,
        endpoint: WorkloadEndpoint,
        workload: &Workload,
    ) -> Result<(Assigned, WorkloadEndpoint), CniError> {
        for _ in 0..ATTEMPTS_MAX {
            let (compare, current) = match self.client().get(&workload.key).await {
                Ok(stored) => (
                    Compare::mod_revision(workload.key.path(), stored.revision),
                    stored.object.downcast().cloned(),
                ),
                Err(ClientError::NotFound(_)) => (Compare::absent(workload.key.path()), None),
                Err(error) => return Err(CniError::try_again(error)),
            };
            if let Some(current) =
                current.filter(|c: &Arc<WorkloadEndpoint>| c.spec.container_id == endpoint.spec.container_id)
            {
                return Ok((assigned, WorkloadEndpoint::clone(&current)));
            }
            let put = Op::put(workload.key.path(), endpoint.encode());
            let reply = self
                .store
                .txn(Txn::when(vec![compare]).then(vec![put]))
                .await
                .map_err(CniError::try_again)?;
            if reply.succeeded {
                assigned.revision = reply.revision;
                return Ok((assigned, endpoint));
            }
        }
        Err(CniError::try_again(format_args!(
            "others kept changing {}",
            workload.key
        )))
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

    pub(super) fn known_endpoint(&self, key: &ResourceKey) -> Option<Existing> {
        let fabric = self.fabric.read();
        let namespace = key.namespace.clone().unwrap_or_default();
        let (endpoint, revision) = fabric.own_endpoints.get(&(namespace, key.name.clone()))?;
        Some(Existing {
            endpoint: endpoint.clone(),
            revision: u64::try_from(*revision).unwrap_or(0),
        })
    }

    /// A network without `policy.type: k8s` is one profile, made if absent: all may leave; in come all, or without
    /// Kubernetes those of the same network.
    async fn ensure_network_profile(&self, network: &str, k8s: bool) -> Result<(), CniError> {
        let key = ResourceKey::cluster(Kind::Profile, network);
        if self.fabric.read().profiles.contains(network) {
            return Ok(());
        }
        let source = if k8s {
            serde_json::json!({})
        } else {
            serde_json::json!({"selector": format!("has({network})")})
        };
        let object = serde_json::json!({
            "kind": "Profile", "apiVersion": twill_model::kind::API_VERSION, "metadata": {"name": network},
            "spec": {
                "ingress": [{"action": "Allow", "source": source, "destination": {}}],
                "egress": [{"action": "Allow", "source": {}, "destination": {}}],
                "labelsToApply": {network: ""}
            }
        });
        let profile = AnyResource::decode(Kind::Profile, object.to_string().as_bytes()).map_err(|e| {
            CniError::new(
                code::INVALID_CONFIG,
                format_args!("profile of network {network}: {e}"),
            )
        })?;
        self.client()
            .ensure(&profile)
            .await
            .map_err(|e| CniError::try_again(format_args!("creating {key}: {e}")))?;
        Ok(())
    }
}

fn unanswered() -> IpamError {
    IpamError::Datastore {
        reason: format!("etcd did not answer within {} s", STORE_DEADLINE.as_secs()),
    }
}

fn found_endpoint(key: &ResourceKey, found: Option<KeyValue>) -> Result<Option<Existing>, CniError> {
    let Some(kv) = found else { return Ok(None) };
    match WorkloadEndpoint::decode(&kv.value) {
        Ok(endpoint) => Ok(Some(Existing {
            endpoint: Arc::new(endpoint),
            revision: kv.mod_revision,
        })),
        Err(e) => Err(CniError::new(
            code::IO,
            format_args!("{key} in the datastore cannot be read: {e}"),
        )),
    }
}

fn put_endpoint(key: &ResourceKey, endpoint: &WorkloadEndpoint, existing: Option<&Existing>) -> Riders {
    let path = key.path();
    let compare = match existing {
        Some(existing) => Compare::mod_revision(path.clone(), existing.revision),
        None => Compare::absent(path.clone()),
    };
    let endpoint = endpoint.clone();
    Riders::new(vec![compare], 1, move |addresses| {
        vec![Op::put(
            path.clone(),
            with_addresses(&endpoint, addresses).encode(),
        )]
    })
}

/// uid and creation time for an endpoint that has none.
fn identified(mut endpoint: WorkloadEndpoint) -> WorkloadEndpoint {
    let birth = client::birth();
    if endpoint.metadata.uid.is_empty() {
        endpoint.metadata.uid = birth.uid;
    }
    endpoint.metadata.creation_timestamp.get_or_insert(birth.at);
    endpoint
}

fn wants(add: &Add, wishes: &Annotations) -> Result<Vec<Want>, CniError> {
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
fn mac(
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
fn random_mac() -> String {
    let [a, b, c, d, e, f, ..] = uuid::Uuid::new_v4().into_bytes();
    twill_felix::plan::Mac([a & 0xfe | 0x02, b, c, d, e, f]).to_string()
}

fn policy_deadline(add: &Add) -> Duration {
    match add.policy_timeout_secs {
        0 => POLICY_DEADLINE,
        secs => Duration::from_secs(secs.min(POLICY_SECS_MAX).into()),
    }
}

/// Handles of the container that an endpoint was made for before.
fn former(attachment: &Attachment, existing: Option<&Existing>) -> Vec<String> {
    let before = existing.map(|e| e.endpoint.spec.container_id.clone());
    let before = before.filter(|id| !id.is_empty() && *id != attachment.container_id);
    let as_then = |container_id| Attachment {
        container_id,
        ..attachment.clone()
    };
    before.map_or_else(Vec::new, |id| handles(&as_then(id)).to_vec())
}

fn attached(
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

/// Go's default form of a time, which is what Calico's attribute holds.
fn timestamp() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC")
        .to_string()
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
    fn only_a_former_container_of_the_same_endpoint_gives_way() {
        let attachment = Attachment {
            container_id: "c2".into(),
            ifname: "eth0".into(),
            network: "n".into(),
            ..Attachment::default()
        };
        let existing = |container: &str| {
            let text = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "e", "namespace": "default"}, "spec": {"containerID": container}});
            Existing {
                endpoint: Arc::new(WorkloadEndpoint::decode(text.to_string().as_bytes()).unwrap()),
                revision: 1,
            }
        };
        assert_eq!(former(&attachment, Some(&existing("c1"))), ["n.c1", "n.c1.eth0"]);
        assert!(former(&attachment, Some(&existing("c2"))).is_empty());
        assert!(former(&attachment, None).is_empty());
    }

    #[test]
    fn a_request_without_a_container_is_refused() {
        assert_eq!(attachment(None).unwrap_err().code, code::INVALID_ENVIRONMENT);
        assert!(attachment(Some(&Attachment::default())).is_err());
    }
}

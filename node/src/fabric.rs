//! What the daemon's own parts need of the datastore, typed and by name: the calculation graph of felix keeps its own.
//! State, not history: the view is a function of the keys, in whatever order they came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use twill_model::resources::{
    BgpConfiguration, BgpFilter, BgpPeer, BgpSessionPolicy, ClusterInformation, FelixConfiguration, IpPool,
    Node,
};
use twill_model::resources::{FelixConfigurationSpec, WorkloadEndpoint};
use twill_model::update::Value;
use twill_model::{AnyResource, Key, Update};

/// Which parts of the daemon a batch of updates is news for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Sessions and their policies: nodes, pools, BGP resources.
    pub(crate) bgp: bool,
    /// FelixConfiguration.
    pub(crate) felix: bool,
}

impl Touched {
    /// News of either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            bgp: self.bgp || other.bgp,
            felix: self.felix || other.felix,
        }
    }
}

/// The view, shared: the hub writes, everybody reads, nobody holds it across an await.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedFabric(Arc<RwLock<Fabric>>);

impl SharedFabric {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Fabric> {
        // Taking in a key cannot stop half-way.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Fabric> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything by name. Values are shared with whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fabric {
    /// The first full pass is over.
    pub(crate) in_sync: bool,
    pub(crate) nodes: BTreeMap<String, Arc<Node>>,
    pub(crate) pools: BTreeMap<String, Arc<IpPool>>,
    pub(crate) bgp_configurations: BTreeMap<String, Arc<BgpConfiguration>>,
    pub(crate) bgp_peers: BTreeMap<String, Arc<BgpPeer>>,
    pub(crate) bgp_filters: BTreeMap<String, Arc<BgpFilter>>,
    pub(crate) bgp_session_policies: BTreeMap<String, Arc<BgpSessionPolicy>>,
    pub(crate) felix_configurations: BTreeMap<String, Arc<FelixConfiguration>>,
    pub(crate) cluster: Option<Arc<ClusterInformation>>,
    /// Names of all profiles.
    pub(crate) profiles: BTreeSet<String>,
    /// Endpoints of this node, by namespace and name, with the revision of their key.
    pub(crate) own_endpoints: BTreeMap<(String, String), (Arc<WorkloadEndpoint>, i64)>,
}

impl Fabric {
    /// Takes one key's new state, as seen from node `own`.
    pub(crate) fn apply(&mut self, own: &str, update: &Update) -> Touched {
        match (&update.key, &update.value) {
            (Key::Resource(key), Some(Value::Resource(resource))) => {
                self.put(own, &key.name, resource, update.revision)
            }
            (Key::Resource(key), _) => self.remove(key.kind, key.namespace.as_deref(), &key.name),
            (Key::Block(_) | Key::BlockAffinity(_) | Key::Handle(_) | Key::IpamConfig | Key::Other(_), _) => {
                Touched::default()
            }
        }
    }

    fn put(&mut self, own: &str, name: &str, resource: &AnyResource, revision: i64) -> Touched {
        let name = name.to_owned();
        let bgp = Touched {
            bgp: true,
            ..Touched::default()
        };
        match resource {
            AnyResource::Node(r) => drop(self.nodes.insert(name, r.clone())),
            AnyResource::IpPool(r) => drop(self.pools.insert(name, r.clone())),
            AnyResource::BgpConfiguration(r) => drop(self.bgp_configurations.insert(name, r.clone())),
            AnyResource::BgpFilter(r) => drop(self.bgp_filters.insert(name, r.clone())),
            AnyResource::BgpPeer(r) => drop(self.bgp_peers.insert(name, r.clone())),
            AnyResource::BgpSessionPolicy(r) => {
                self.bgp_session_policies.insert(name, r.clone());
            }
            AnyResource::FelixConfiguration(r) => {
                self.felix_configurations.insert(name, r.clone());
                return Touched {
                    felix: true,
                    ..Touched::default()
                };
            }
            AnyResource::ClusterInformation(r) => {
                if name == "default" {
                    self.cluster = Some(r.clone());
                }
                return Touched::default();
            }
            AnyResource::Profile(_) => {
                self.profiles.insert(name);
                return Touched::default();
            }
            AnyResource::WorkloadEndpoint(r) => {
                let key = (r.metadata.namespace.clone(), name);
                if r.spec.node == own {
                    self.own_endpoints.insert(key, (r.clone(), revision));
                } else {
                    self.own_endpoints.remove(&key);
                }
                return self.touched_by_endpoint();
            }
            _ => return Touched::default(),
        }
        bgp
    }

    fn remove(&mut self, kind: twill_model::Kind, namespace: Option<&str>, name: &str) -> Touched {
        use twill_model::Kind;
        match kind {
            Kind::Node => drop(self.nodes.remove(name)),
            Kind::IpPool => drop(self.pools.remove(name)),
            Kind::BgpConfiguration => drop(self.bgp_configurations.remove(name)),
            Kind::BgpFilter => drop(self.bgp_filters.remove(name)),
            Kind::BgpPeer => drop(self.bgp_peers.remove(name)),
            Kind::BgpSessionPolicy => drop(self.bgp_session_policies.remove(name)),
            Kind::FelixConfiguration => {
                self.felix_configurations.remove(name);
                return Touched {
                    felix: true,
                    ..Touched::default()
                };
            }
            Kind::ClusterInformation => {
                if name == "default" {
                    self.cluster = None;
                }
                return Touched::default();
            }
            Kind::Profile => {
                self.profiles.remove(name);
                return Touched::default();
            }
            Kind::WorkloadEndpoint => {
                self.own_endpoints
                    .remove(&(namespace.unwrap_or_default().to_owned(), name.to_owned()));
                return self.touched_by_endpoint();
            }
            _ => return Touched::default(),
        }
        Touched {
            bgp: true,
            ..Touched::default()
        }
    }

    /// Endpoints matter to BGP where peers are workloads, or where filters look at interfaces.
    fn touched_by_endpoint(&self) -> Touched {
        let peers = self
            .bgp_peers
            .values()
            .any(|p| !p.spec.local_workload_selector.is_empty());
        Touched {
            bgp: peers || !self.bgp_filters.is_empty(),
            ..Touched::default()
        }
    }

    /// A setting of felix: the node's own, else the cluster's.
    pub(crate) fn felix_setting<T>(
        &self,
        own: &str,
        of: impl Fn(&FelixConfigurationSpec) -> Option<T>,
    ) -> Option<T> {
        let names = [format!("node.{own}"), "default".to_owned()];
        names
            .iter()
            .filter_map(|name| self.felix_configurations.get(name))
            .find_map(|c| of(&c.spec))
    }

    /// `datastoreReady` of the cluster: absent means that nobody locked it.
    pub(crate) fn is_locked(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|c| c.spec.datastore_ready == Some(false))
    }
}

#[cfg(test)]
mod tests;

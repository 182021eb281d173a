//! Pods of a lab: a namespace each, attached and detached by the real plugin.

use crate::child;
use crate::cni::{self, Plugin};
use crate::lab::Lab;
use crate::netns;
use crate::state::{Pod, PodName};
use anyhow::{Context, Result, ensure};
use rand::RngCore;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Calico's annotation that asks for given addresses.
const IP_ANNOTATION: &str = "cni.projectcalico.org/ipAddrs";

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Its name.
    pub name: PodName,
    /// The node.
    pub node: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PodSpec {
    /// A pod without labels.
    #[must_use]
    pub fn new(name: PodName, node: &str) -> Self {
        Self {
            name,
            node: node.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// With one label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a given address.
    #[must_use]
    pub fn ip(mut self, address: IpAddr) -> Self {
        self.annotations
            .insert(IP_ANNOTATION.to_owned(), format!("[\"{address}\"]"));
        self
    }
}

impl Lab {
    /// Attaches a pod and returns the CNI result. The Profiles of its Kubernetes namespace are applied before its first pod.
    ///
    /// When ADD fails, DEL follows, as a runtime does, and nothing of the pod is left.
    ///
    /// # Errors
    /// When the pod exists, its namespace cannot be made or ADD fails (a [`cni::CniError`] in the chain).
    pub fn add_pod(&mut self, spec: &PodSpec) -> Result<Value> {
        ensure!(
            self.state.pod(&spec.name).is_err(),
            "pod {}/{} is there already",
            spec.name.namespace,
            spec.name.name
        );
        self.state.topology.node(&spec.node)?;
        self.apply_profiles(&spec.node, &spec.name.namespace)?;
        let pod = self.make_pod(spec)?;
        match self.attach_pod(&pod) {
            Ok(result) => {
                let address = cni::addresses(&result)?.first().copied();
                if let Some(kept) = self
                    .state
                    .pods
                    .iter_mut()
                    .find(|p| p.container_id == pod.container_id)
                {
                    kept.address = address;
                }
                self.state.save()?;
                Ok(result)
            }
            Err(error) => {
                // The ADD's error is the news; what DEL says about a pod that never was is not.
                let _ = self.detach_pod(&pod, true);
                self.forget_pod(&pod)?;
                Err(error)
            }
        }
    }

    /// Makes the pod's network namespace and remembers the pod; nothing is attached.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn make_pod(&mut self, spec: &PodSpec) -> Result<Pod> {
        let mut random = [0_u8; 48];
        rand::rng().fill_bytes(&mut random);
        let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let (container_id, uid) = hex.split_at(64);
        let part = |from: usize, to: usize| uid.get(from..to).unwrap_or_default();
        let pod = Pod {
            namespace: spec.name.namespace.clone(),
            name: spec.name.name.clone(),
            node: spec.node.clone(),
            netns: self.ns(&format!("pod-{}.{}", spec.name.namespace, spec.name.name)),
            container_id: container_id.to_owned(),
            uid: [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            address: None,
        };
        self.state.namespaces.insert(pod.netns.clone());
        self.state.pods.push(pod.clone());
        self.state.save()?;
        netns::create(&pod.netns)?;
        Ok(pod)
    }

    /// Runs ADD for a pod whose namespace is there.
    ///
    /// # Errors
    /// When ADD fails (a [`cni::CniError`] in the chain).
    pub fn attach_pod(&self, pod: &Pod) -> Result<Value> {
        let answer = self
            .plugin(&pod.node)?
            .exec("ADD", &self.ns(&pod.node), pod, &path(pod))?;
        answer
            .outcome
            .with_context(|| format!("ADD of {} on {}", pod.full_name(), pod.node))
    }

    /// Runs DEL for a pod; a late one comes without its namespace.
    ///
    /// # Errors
    /// When DEL fails.
    pub fn detach_pod(&self, pod: &Pod, with_netns: bool) -> Result<()> {
        let path = if with_netns { path(pod) } else { String::new() };
        let answer = self
            .plugin(&pod.node)?
            .exec("DEL", &self.ns(&pod.node), pod, &path)?;
        answer
            .outcome
            .map(drop)
            .with_context(|| format!("DEL of {} on {}", pod.full_name(), pod.node))
    }

    /// Detaches a pod and removes its namespace.
    ///
    /// # Errors
    /// When there is no such pod or DEL fails; the pod then stays, so that it can be tried again.
    pub fn delete_pod(&mut self, name: &PodName) -> Result<()> {
        let pod = self.state.pod(name)?.clone();
        self.detach_pod(&pod, true)?;
        self.forget_pod(&pod)
    }

    /// Removes a pod's namespace and forgets the pod.
    ///
    /// # Errors
    /// When the namespace does not go.
    pub fn forget_pod(&mut self, pod: &Pod) -> Result<()> {
        child::clear(&pod.netns)?;
        netns::remove(&pod.netns)?;
        self.state.namespaces.remove(&pod.netns);
        self.state.pods.retain(|p| p.container_id != pod.container_id);
        self.state.save()
    }

    /// The plugin with a node's configuration.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn plugin(&self, node: &str) -> Result<Plugin> {
        Ok(Plugin::twill(self.bin("twill")?, &self.run_dir(node)))
    }

    /// Applies the Profiles that a controller makes for a Kubernetes namespace, once.
    ///
    /// # Errors
    /// When `twillctl` refuses.
    pub fn apply_profiles(&mut self, node: &str, namespace: &str) -> Result<()> {
        if self.state.profiles.contains(namespace) {
            return Ok(());
        }
        let file = self
            .state
            .member_dir(node)
            .join(format!("profiles-{namespace}.yaml"));
        self.ctl(node)?
            .file("apply", &file, &profiles(namespace))
            .with_context(|| format!("applying the profiles of namespace {namespace}"))?;
        self.state.profiles.insert(namespace.to_owned());
        self.state.save()
    }
}

/// What CNI_NETNS says for a pod that is there.
#[must_use]
pub fn path(pod: &Pod) -> String {
    netns::path(&pod.netns).to_string_lossy().into_owned()
}

/// The two Profiles that a controller makes for a Kubernetes namespace.
fn profiles(namespace: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata:\n  name: kns.{namespace}\nspec:\n  ingress:\n  - action: Allow\n  \
         egress:\n  - action: Allow\n  labelsToApply:\n    pcns.projectcalico.org/name: {namespace}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata:\n  name: ksa.{namespace}.default\nspec:\n  labelsToApply:\n    \
         pcsa.projectcalico.org/name: default\n"
    )
}

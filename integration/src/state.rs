//! What a lab remembers between commands: one plain JSON file, `/run/twill-lab/<lab>/state.json`, written before the thing it speaks
//! of is made, so that a later command can clean up after one that was killed.

use crate::child::{Child, Process};
use crate::topology::Topology;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directory of all labs.
pub const HOME: &str = "/run/twill-lab";
/// A lab's name stands before its members' in namespace names and in socket paths (108 bytes).
const NAME_MAX: usize = 32;

/// The state of one lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The lab's name.
    pub lab: String,
    /// What it is made of.
    pub topology: Topology,
    /// Where `twilld`, `twillctl` and `twill` were taken from.
    pub bin: PathBuf,
    /// The command in charge while a lab comes up or a demo runs; none once it is left running.
    pub owner: Option<Process>,
    /// All namespaces, pods' included.
    pub namespaces: BTreeSet<String>,
    /// All daemons.
    pub children: Vec<Child>,
    /// Pods attached, by `namespace/name`.
    pub pods: Vec<Pod>,
    /// Kubernetes namespaces whose profiles were applied.
    pub profiles: BTreeSet<String>,
}

/// A pod that was attached by the plugin, and all that its DEL needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its network namespace.
    pub netns: String,
    /// 64 hex digits.
    pub container_id: String,
    /// `K8S_POD_UID`.
    pub uid: String,
    /// `args.twill.labels`.
    pub labels: BTreeMap<String, String>,
    /// `args.twill.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Its first address; none until ADD succeeded.
    pub address: Option<IpAddr>,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Sole right to change a lab. The kernel gives it up with the file handle, also when the process is killed.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is starting holds a copy of the handle until its exec.
        let _ = self.file.unlock();
    }
}

/// # Errors
/// When the name cannot stand in a namespace's name.
pub fn check_name(lab: &str) -> Result<()> {
    let plain = lab
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let ends = lab.starts_with(|c: char| c.is_ascii_alphanumeric()) && !lab.ends_with('-');
    ensure!(
        plain && ends && lab.len() <= NAME_MAX,
        "lab name {lab:?}: 1 to {NAME_MAX} lower case letters, digits and hyphens, not at the ends"
    );
    Ok(())
}

/// Directory of a lab.
#[must_use]
pub fn dir(lab: &str) -> PathBuf {
    Path::new(HOME).join(lab)
}

/// Takes the lock of a lab; its directory is made when missing.
///
/// # Errors
/// When another command holds it.
pub fn lock(lab: &str) -> Result<Lock> {
    check_name(lab)?;
    loop {
        let dir = dir(lab);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = dir.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another twill-lab command is at work on lab {lab}; wait for it or stop it")
            }
            Err(TryLockError::Error(e)) => return Err(e).context(format!("locking {}", path.display())),
        }
        // `down` removes the file: a lock on a file that is no longer there excludes nobody.
        if fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|m| m.ino() == now.ino())) {
            return Ok(Lock { file });
        }
    }
}

/// Reads a lab's state; none when there is no such lab.
///
/// # Errors
/// When the file is there but cannot be read.
pub fn load(lab: &str) -> Result<Option<State>> {
    check_name(lab)?;
    let path = dir(lab).join("state.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(format!("reading {}", path.display())),
    };
    let state = serde_json::from_slice(&text);
    Ok(Some(
        state.with_context(|| format!("{} is damaged", path.display()))?,
    ))
}

impl State {
    /// A lab that is about to come up.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn new(lab: &str, topology: Topology, bin: &Path) -> Result<Self> {
        let namespaces = topology.members().iter().map(|m| format!("{lab}-{m}")).collect();
        Ok(Self {
            lab: lab.to_owned(),
            topology,
            bin: bin.to_owned(),
            owner: Some(Process::this()?),
            namespaces,
            children: Vec::new(),
            pods: Vec::new(),
            profiles: BTreeSet::new(),
        })
    }

    /// Writes the file, in one step.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self) -> Result<()> {
        let dir = dir(&self.lab);
        let (path, fresh) = (dir.join("state.json"), dir.join("state.json.new"));
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&fresh, serde_json::to_vec_pretty(self)?))
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Whether somebody still counts on this lab: its owner lives, or it was left running and a daemon lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.owner {
            Some(owner) => owner.is_alive(),
            None => self.children.iter().any(|c| c.process.is_alive()),
        }
    }

    /// The namespace of a member.
    #[must_use]
    pub fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.lab)
    }

    /// Directory of a member's files.
    #[must_use]
    pub fn member_dir(&self, member: &str) -> PathBuf {
        dir(&self.lab).join(member)
    }

    /// A pod by `[namespace/]name`.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn pod(&self, name: &PodName) -> Result<&Pod> {
        let found = self
            .pods
            .iter()
            .find(|p| p.namespace == name.namespace && p.name == name.name);
        found.with_context(|| format!("lab {} has no pod {}/{}", self.lab, name.namespace, name.name))
    }
}

/// `[NS/]POD` as the command line gives it; the namespace is `default` when it is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
}

impl std::str::FromStr for PodName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        for part in [namespace, name] {
            let plain = part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
            let ends = [part.chars().next(), part.chars().last()];
            ensure!(
                plain
                    && ends.iter().all(|c| c.is_some_and(|c| c.is_ascii_alphanumeric()))
                    && part.len() <= 63,
                "{text:?}: a pod is [NAMESPACE/]NAME of lower case letters, digits, '-' and '.'"
            );
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_name_without_namespace_is_in_default() {
        let name: PodName = "web-0".parse().unwrap();
        assert_eq!(
            (name.namespace.as_str(), name.name.as_str()),
            ("default", "web-0")
        );
        assert_eq!("shop/web".parse::<PodName>().unwrap().namespace, "shop");
        for bad in ["", "/", "a/", "/b", "A", "a/b/c", "../x"] {
            assert!(bad.parse::<PodName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lab_names_that_cannot_be_namespaces_are_refused() {
        for good in ["twill", "lab-1", "a"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "a/b", "..", "A", &"a".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}

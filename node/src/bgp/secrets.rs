//! Keys of sessions. `secretKeyRef` names a Kubernetes secret and an entry of it; each is a file
//! `<bgp-secrets-dir>/<name>/<key>`, which is how a secret that is mounted as a volume looks, and how one is made by hand
//! where there is no Kubernetes. Files are read again now and then: a new key comes into force without a reset.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use twill_bgp::config::Secret;
use twill_model::resources::bgppeer::{BgpPassword, SecretKeySelector};

use crate::fabric::Fabric;

/// How soon a changed file is noticed.
pub(crate) const RECHECK: Duration = Duration::from_secs(2);
/// A key has at most 80 octets; more is read only to say that it is too long.
const FILE_BYTES_MAX: u64 = 1024;

/// An entry of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretRef {
    name: String,
    key: String,
}

impl SecretRef {
    pub(crate) fn of(selector: &SecretKeySelector) -> Self {
        Self {
            name: selector.name.clone(),
            key: selector.key.clone(),
        }
    }

    /// The file, if neither part leaves the directory.
    fn path(&self, dir: &Path) -> Option<PathBuf> {
        let legal = |part: &str| {
            let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !part.is_empty()
                && part.len() <= 253
                && !part.starts_with("..")
                && part != "."
                && part.bytes().all(known)
        };
        (legal(&self.name) && legal(&self.key)).then(|| dir.join(&self.name).join(&self.key))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {:?} of secret {:?}", self.key, self.name)
    }
}

/// Every key that resources name, or why there is none.
pub(crate) type Passwords = BTreeMap<SecretRef, Result<Secret, String>>;

/// The keys, as they were read last.
#[derive(Debug)]
pub(crate) struct Secrets {
    dir: PathBuf,
    read: Passwords,
}

impl Secrets {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            read: Passwords::new(),
        }
    }

    /// What was read last.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.read
    }

    /// Reads everything that the resources name, and forgets the rest; whether anything is another than before. The files
    /// are few, small and local, so that the caller may wait for them.
    pub(crate) fn refresh(&mut self, fabric: &Fabric) -> bool {
        let now: Passwords = wanted(fabric)
            .map(|place| {
                let secret = read(&self.dir, &place);
                (place, secret)
            })
            .collect();
        let changed = now != self.read;
        self.read = now;
        changed
    }
}

fn wanted(fabric: &Fabric) -> impl Iterator<Item = SecretRef> {
    let peers = fabric.bgp_peers.values().map(|p| p.spec.password.as_ref());
    let mesh = fabric
        .bgp_configurations
        .get("default")
        .map(|c| c.spec.node_mesh_password.as_ref());
    let named = |p: &BgpPassword| p.secret_key_ref.as_ref().map(SecretRef::of);
    peers.chain(mesh).flatten().filter_map(named)
}

fn read(dir: &Path, place: &SecretRef) -> Result<Secret, String> {
    let path = place
        .path(dir)
        .ok_or_else(|| format!("{place}: not the names of a secret and of an entry"))?;
    let failed = |error: std::io::Error| format!("{place} cannot be read from {}: {error}", path.display());
    let file = std::fs::File::open(&path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    // What an editor puts at the end is no part of a key.
    let key = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, key: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            key: key.into(),
        }
    }

    #[test]
    fn a_key_is_the_content_of_its_file_less_the_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tor")).unwrap();
        std::fs::write(dir.path().join("tor/password"), "s3cret \n").unwrap();
        assert_eq!(
            read(dir.path(), &place("tor", "password")),
            Ok(Secret("s3cret ".into()))
        );
        let error = read(dir.path(), &place("tor", "other")).unwrap_err();
        assert!(
            error.contains("\"other\" of secret \"tor\" cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        for (name, key) in [
            ("..", "passwd"),
            ("a", "../b"),
            ("", "a"),
            ("a/b", "c"),
            (".", "a"),
            ("a", "..data"),
        ] {
            assert_eq!(place(name, key).path(dir.path()), None, "{name} {key}");
        }
        assert!(place("bgp-secrets", "rack.1_pw").path(dir.path()).is_some());
    }
}

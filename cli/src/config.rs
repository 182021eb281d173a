//! Which daemon is asked: flags and environment first, then a context of the configuration file, then the socket of this node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use twill_model::yaml;

use crate::args::Reach;

/// Where the daemon of this node listens.
const SOCKET: &str = "/run/twill/twill.sock";
/// The file that is read when none is named.
const FILE: &str = "/etc/twill/twillctl.yaml";
/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this machine.
    Socket(PathBuf),
    /// Over TCP, each side showing a certificate.
    Server(Server),
}

/// A daemon that serves TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Contexts {
    #[serde(default)]
    current_context: Option<String>,
    contexts: Vec<Entry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: String,
    socket: Option<PathBuf>,
    server: Option<String>,
    certificate_authority: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    server_name: Option<String>,
}

/// Finds the daemon.
///
/// # Errors
/// The file cannot be read, names no such context, or something is missing for TCP.
pub(crate) fn target(reach: &Reach) -> Result<Target> {
    let mut entry = Entry::default();
    let named = reach.socket.is_some() || reach.server.is_some();
    if reach.context.is_some() || reach.config.is_some() || (!named && Path::new(FILE).exists()) {
        let file = reach.config.as_deref().unwrap_or(Path::new(FILE));
        entry = read(file)
            .and_then(|all| all.choose(reach.context.as_deref()))
            .with_context(|| format!("in the configuration {}", file.display()))?;
        entry.relative_to(file.parent().unwrap_or(Path::new("/")));
    }
    entry.overridden(reach).target()
}

fn read(file: &Path) -> Result<Contexts> {
    let size = std::fs::metadata(file)?.len();
    if size > FILE_BYTES_MAX {
        bail!("{size} bytes, at most {FILE_BYTES_MAX} are read");
    }
    parse(&std::fs::read_to_string(file)?)
}

fn parse(text: &str) -> Result<Contexts> {
    let value = yaml::value(text)?;
    if value.get("kind").and_then(serde_json::Value::as_str) == Some("CalicoAPIConfig") {
        bail!(
            "this is a configuration of calicoctl, which opens the datastore itself; twillctl asks the daemon: \
             name its socket by --socket or in a file of contexts"
        );
    }
    Ok(serde_json::from_value(value)?)
}

impl Contexts {
    fn choose(self, asked: Option<&str>) -> Result<Entry> {
        let names: Vec<String> = self.contexts.iter().map(|c| c.name.clone()).collect();
        let wanted = asked.or(self.current_context.as_deref());
        let wanted = match (wanted, names.as_slice()) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => bail!("no current-context is set and --context names none"),
        };
        let found = self.contexts.iter().find(|c| c.name == wanted).cloned();
        found.with_context(|| format!("there is no context {wanted:?}; there are {}", names.join(", ")))
    }
}

impl Entry {
    /// Paths in the file start where the file is.
    fn relative_to(&mut self, dir: &Path) {
        let paths = [
            &mut self.socket,
            &mut self.certificate_authority,
            &mut self.client_certificate,
            &mut self.client_key,
        ];
        for path in paths.into_iter().flatten() {
            *path = dir.join(&*path);
        }
    }

    fn overridden(mut self, reach: &Reach) -> Self {
        if reach.socket.is_some() {
            self.server = None;
            self.socket.clone_from(&reach.socket);
        }
        if reach.server.is_some() {
            self.socket = None;
            self.server.clone_from(&reach.server);
        }
        let or = |mine: &mut Option<PathBuf>, flag: &Option<PathBuf>| {
            if flag.is_some() {
                mine.clone_from(flag);
            }
        };
        or(&mut self.certificate_authority, &reach.ca_file);
        or(&mut self.client_certificate, &reach.cert_file);
        or(&mut self.client_key, &reach.key_file);
        if reach.server_name.is_some() {
            self.server_name.clone_from(&reach.server_name);
        }
        self
    }

    fn target(self) -> Result<Target> {
        let Some(url) = self.server else {
            let socket = self.socket.unwrap_or_else(|| PathBuf::from(SOCKET));
            return Ok(Target::Socket(socket));
        };
        if self.socket.is_some() {
            bail!("context {:?} names both a socket and a server", self.name);
        }
        if !url.starts_with("https://") {
            bail!("server {url:?} is not of the form https://HOST:PORT: daemons serve TCP with TLS only");
        }
        let need = |path: Option<PathBuf>, what: &str| {
            path.with_context(|| format!("server {url}: {what} is needed, for both sides show a certificate"))
        };
        Ok(Target::Server(Server {
            ca_file: need(self.certificate_authority, "--ca-file (certificate-authority)")?,
            cert_file: need(self.client_certificate, "--cert-file (client-certificate)")?,
            key_file: need(self.client_key, "--key-file (client-key)")?,
            name: self.server_name,
            url,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "current-context: here\ncontexts:\n- name: here\n  socket: run/a.sock\n- name: there\n  server: https://a:1\n  certificate-authority: ca.pem\n  client-certificate: c.pem\n  client-key: /k.pem\n";

    fn chosen(text: &str, reach: &Reach) -> Result<Target> {
        let mut entry = parse(text)?.choose(reach.context.as_deref())?;
        entry.relative_to(Path::new("/etc/x"));
        entry.overridden(reach).target()
    }

    fn context(name: &str) -> Reach {
        Reach {
            context: Some(name.into()),
            ..Reach::default()
        }
    }

    #[test]
    fn a_context_is_chosen_by_name_or_by_the_file() {
        assert_eq!(
            chosen(TWO, &Reach::default()).unwrap(),
            Target::Socket("/etc/x/run/a.sock".into())
        );
        let Target::Server(server) = chosen(TWO, &context("there")).unwrap() else {
            panic!("a server")
        };
        assert_eq!(
            (server.ca_file.as_path(), server.key_file.as_path()),
            (Path::new("/etc/x/ca.pem"), Path::new("/k.pem"))
        );
        let error = chosen(TWO, &context("gone")).unwrap_err().to_string();
        assert_eq!(error, "there is no context \"gone\"; there are here, there");
    }

    #[test]
    fn a_flag_wins_over_the_context() {
        let reach = Reach {
            socket: Some("/b.sock".into()),
            ..context("there")
        };
        assert_eq!(chosen(TWO, &reach).unwrap(), Target::Socket("/b.sock".into()));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let error = |text: &str| format!("{:#}", chosen(text, &Reach::default()).unwrap_err());
        assert!(error("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\n").contains("calicoctl"));
        assert!(error("contexts: []\n").contains("no current-context"));
        assert!(error("contexts:\n- name: a\n  sokket: b\n").contains("sokket"));
        assert!(error("contexts:\n- name: a\n  server: http://a:1\n").contains("https"));
        assert!(error("contexts:\n- name: a\n  server: https://a:1\n").contains("--ca-file"));
        assert!(error("contexts:\n- name: a\n  server: https://a:1\n  socket: b\n").contains("both"));
    }

    #[test]
    fn nothing_given_means_the_socket_of_this_node() {
        assert_eq!(
            Entry::default().overridden(&Reach::default()).target().unwrap(),
            Target::Socket(SOCKET.into())
        );
    }
}

//! How etcd is reached.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long one call may take, its retries on other endpoints included, unless said otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take, unless said otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An endpoint, a list of them, or files that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No endpoint at all.
    #[error("no etcd endpoint is given; name at least one, such as http://127.0.0.1:2379")]
    NoEndpoint,
    /// Not `http://HOST:PORT` or `https://HOST:PORT`.
    #[error("etcd endpoint {0:?} is not of the form http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    /// TLS without an authority to trust.
    #[error("etcd endpoint {0:?} speaks TLS: name the authority of its certificate (--etcd-ca-cert-file)")]
    NoAuthority(String),
    /// One of certificate and key without the other.
    #[error(
        "a client certificate for etcd needs both its file and its key's (--etcd-cert-file, --etcd-key-file)"
    )]
    HalfIdentity,
    /// A password without a name, or a name without a password.
    #[error("a user of etcd needs both name and password (--etcd-username, --etcd-password-file)")]
    HalfUser,
}

/// The URL of one member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(String);

impl Endpoint {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Endpoint {
    /// True if it speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// A password of etcd: never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Text(String),
    /// The file that holds it; a newline at the end does not belong to it.
    File(PathBuf),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("(hidden)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Password,
}

/// Files of PEM for TLS. They are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that etcd's comes from.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let url = text.trim().trim_end_matches('/');
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        let address = rest.and_then(|rest| rest.rsplit_once(':'));
        match address {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self(url.to_owned()))
            }
            _ => Err(ConfigError::Endpoint(text.to_owned())),
        }
    }
}

/// How etcd is reached. Parsed once at the edge.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The members, at least one; calls are balanced over them.
    pub endpoints: Vec<Endpoint>,
    /// How long one call may take, its retries on other endpoints included.
    pub call_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Who we are, where etcd asks for it.
    pub user: Option<User>,
    /// What TLS needs.
    pub tls: TlsFiles,
}

impl EtcdConfig {
    /// These endpoints, with the usual deadlines.
    ///
    /// # Errors
    /// [`ConfigError::NoEndpoint`] if the list is empty.
    pub fn new(endpoints: Vec<Endpoint>) -> Result<Self, ConfigError> {
        if endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        Ok(Self {
            endpoints,
            call_timeout: CALL_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            user: None,
            tls: TlsFiles::default(),
        })
    }

    /// What fits together, checked once all of it is known.
    ///
    /// # Errors
    /// [`ConfigError::NoAuthority`] if an endpoint speaks TLS and nobody says whom to trust.
    pub fn check(self) -> Result<Self, ConfigError> {
        match self.endpoints.iter().find(|e| e.is_tls()) {
            Some(endpoint) if self.tls.ca.is_none() => {
                Err(ConfigError::NoAuthority(endpoint.as_str().to_owned()))
            }
            _ => Ok(self),
        }
    }

    /// The files that are read, and read again when they change.
    pub(super) fn files(&self) -> Vec<&Path> {
        let identity = self.tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let password = self.user.iter().filter_map(|user| match &user.password {
            Password::File(path) => Some(path),
            Password::Text(_) => None,
        });
        let all = self.tls.ca.iter().chain(identity).chain(password);
        all.map(PathBuf::as_path).collect()
    }
}

impl FromStr for EtcdConfig {
    type Err = ConfigError;

    /// Reads `URL[,URL...]`.
    fn from_str(list: &str) -> Result<Self, ConfigError> {
        let urls = list.split(',').filter(|url| !url.trim().is_empty());
        Self::new(urls.map(str::parse).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_a_list_of_urls() {
        let config: EtcdConfig = "http://10.0.0.1:2379, http://[::1]:2379/".parse().unwrap();
        let urls: Vec<_> = config.endpoints.iter().map(Endpoint::as_str).collect();
        assert_eq!(urls, ["http://10.0.0.1:2379", "http://[::1]:2379"]);
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused_with_what_was_given() {
        let parse = |text: &str| text.parse::<EtcdConfig>().unwrap_err();
        assert_eq!(parse(" ,"), ConfigError::NoEndpoint);
        let secure: EtcdConfig = "https://a:2379".parse().unwrap();
        assert_eq!(
            secure.check().unwrap_err(),
            ConfigError::NoAuthority("https://a:2379".to_owned())
        );
        for bad in [
            "10.0.0.1:2379",
            "http://a",
            "http://:2379",
            "http://a:port",
            "http://a/b:1",
            "ftp://a:1",
        ] {
            assert_eq!(parse(bad), ConfigError::Endpoint(bad.to_owned()));
        }
    }

    #[test]
    fn password_is_not_shown() {
        let mut config: EtcdConfig = "http://a:1".parse().unwrap();
        config.user = Some(User {
            name: "root".to_owned(),
            password: Password::Text("canary".to_owned()),
        });
        let shown = format!("{config:?}");
        assert!(shown.contains("root") && !shown.contains("canary"), "{shown}");
    }
}

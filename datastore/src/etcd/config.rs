//! How etcd is reached.

use std::str::FromStr;
use std::time::Duration;

/// How long one call may take, its retries on other endpoints included, unless said otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take, unless said otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An endpoint or a list of them that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No endpoint at all.
    #[error("no etcd endpoint is given; name at least one, such as http://127.0.0.1:2379")]
    NoEndpoint,
    /// Not `http://HOST:PORT`.
    #[error("etcd endpoint {0:?} is not of the form http://HOST:PORT")]
    Endpoint(String),
    /// TLS is not built in yet.
    #[error(
        "etcd endpoint {0:?} asks for TLS, which this build does not speak; use http:// on a protected network"
    )]
    Tls(String),
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

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let url = text.trim().trim_end_matches('/');
        if url.starts_with("https://") {
            return Err(ConfigError::Tls(text.to_owned()));
        }
        let address = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
        match address {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self(url.to_owned()))
            }
            _ => Err(ConfigError::Endpoint(text.to_owned())),
        }
    }
}

/// How etcd is reached. Parsed once at the edge.
#[derive(Clone)]
pub struct EtcdConfig {
    /// The members, at least one; calls are balanced over them.
    pub endpoints: Vec<Endpoint>,
    /// How long one call may take, its retries on other endpoints included.
    pub call_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("user", &user)
            .finish_non_exhaustive()
    }
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
        })
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
        assert_eq!(
            parse("https://a:2379"),
            ConfigError::Tls("https://a:2379".to_owned())
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
        config.user = Some(("root".to_owned(), "canary".to_owned()));
        let shown = format!("{config:?}");
        assert!(shown.contains("root") && !shown.contains("canary"), "{shown}");
    }
}

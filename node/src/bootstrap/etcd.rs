//! How etcd is reached: flags of `twilld run`, Calico's variables, keys of the file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use twill_datastore::etcd::{ConfigError, EtcdConfig, Password, User};
use twill_datastore::syncer::COMPARE_EVERY;

/// Where etcd is unless somebody says otherwise.
const ENDPOINT: &str = "http://127.0.0.1:2379";

/// Keys of the file.
pub(super) const KEYS: [&str; 7] = [
    "etcd-endpoints",
    "etcd-ca-cert-file",
    "etcd-cert-file",
    "etcd-key-file",
    "etcd-username",
    "etcd-password-file",
    "etcd-compare-seconds",
];

/// Flags about etcd; the variables are Calico's, but for that of the endpoints, where Calico's counts as well.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EtcdFlags {
    /// Endpoints of etcd, with commas between [default: http://127.0.0.1:2379].
    #[arg(long, env = "TWILL_ETCD_ENDPOINTS", value_name = "URL")]
    pub(super) etcd_endpoints: Option<String>,
    /// Certificates of the authority that etcd's comes from, PEM; needed for https:// endpoints. It is read again when it changes,
    /// and so are the other files.
    #[arg(long, env = "ETCD_CA_CERT_FILE", value_name = "FILE")]
    pub(super) etcd_ca_cert_file: Option<String>,
    /// Our certificate for etcd, PEM.
    #[arg(long, env = "ETCD_CERT_FILE", value_name = "FILE")]
    pub(super) etcd_cert_file: Option<String>,
    /// Key of our certificate for etcd, PEM.
    #[arg(long, env = "ETCD_KEY_FILE", value_name = "FILE")]
    pub(super) etcd_key_file: Option<String>,
    /// User of etcd.
    #[arg(long, env = "ETCD_USERNAME", value_name = "NAME")]
    pub(super) etcd_username: Option<String>,
    /// File with the password of the user; the variable ETCD_PASSWORD may hold the password itself.
    #[arg(long, env = "ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub(super) etcd_password_file: Option<String>,
    /// How often everything in etcd is read and compared with what the watch told; 0 is never [default: 300].
    #[arg(long, env = "TWILL_ETCD_COMPARE_SECONDS", value_name = "SECONDS")]
    pub(super) etcd_compare_seconds: Option<String>,
}

/// What is left to Calico's variables.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    pub(super) endpoints: Option<String>,
    pub(super) password: Option<String>,
}

impl Variables {
    pub(super) fn of_the_process() -> Self {
        Self {
            endpoints: std::env::var("ETCD_ENDPOINTS").ok(),
            password: std::env::var("ETCD_PASSWORD").ok(),
        }
    }
}

/// How etcd is reached, and how often it is compared.
pub(super) fn parse(
    flags: EtcdFlags,
    variables: Variables,
    given: impl Fn(Option<String>, &str) -> Option<String>,
) -> Result<(EtcdConfig, Duration)> {
    let text = |text: Option<String>| text.filter(|t| !t.is_empty());
    let endpoints = given(flags.etcd_endpoints, "etcd-endpoints").or(text(variables.endpoints));
    let endpoints = endpoints.unwrap_or_else(|| ENDPOINT.to_owned());
    let mut config: EtcdConfig = endpoints.parse().context("--etcd-endpoints")?;
    let path = |flag, key: &str| given(flag, key).map(PathBuf::from);
    config.tls.ca = path(flags.etcd_ca_cert_file, "etcd-ca-cert-file");
    config.tls.identity = match (
        path(flags.etcd_cert_file, "etcd-cert-file"),
        path(flags.etcd_key_file, "etcd-key-file"),
    ) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(ConfigError::HalfIdentity.into()),
    };
    let password = path(flags.etcd_password_file, "etcd-password-file").map(Password::File);
    let password = password.or(text(variables.password).map(Password::Text));
    config.user = match (given(flags.etcd_username, "etcd-username"), password) {
        (Some(name), Some(password)) => Some(User { name, password }),
        (None, None) => None,
        _ => return Err(ConfigError::HalfUser.into()),
    };
    let every = match given(flags.etcd_compare_seconds, "etcd-compare-seconds") {
        Some(text) => {
            let secs = text
                .parse()
                .with_context(|| format!("--etcd-compare-seconds {text:?}: not a whole number of seconds"))?;
            Duration::from_secs(secs)
        }
        None => COMPARE_EVERY,
    };
    Ok((config.check()?, every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut EtcdFlags), variables: Variables) -> Result<(EtcdConfig, Duration)> {
        let mut flags = EtcdFlags::default();
        change(&mut flags);
        parse(flags, variables, |flag, _| flag)
    }

    fn secured(flags: &mut EtcdFlags) {
        flags.etcd_endpoints = Some("https://a:2379".into());
        flags.etcd_ca_cert_file = Some("/ca".into());
        flags.etcd_cert_file = Some("/cert".into());
        flags.etcd_key_file = Some("/key".into());
        flags.etcd_username = Some("twill".into());
    }

    #[test]
    fn calicos_variables_count_where_no_flag_does() {
        let variables = Variables {
            endpoints: Some("http://b:1,http://c:1".into()),
            password: Some("canary".into()),
        };
        let (config, every) = parsed(|f| f.etcd_username = Some("u".into()), variables.clone()).unwrap();
        assert_eq!((config.endpoints.len(), every), (2, COMPARE_EVERY));
        assert_eq!(
            config.user.clone().unwrap().password,
            Password::Text("canary".into())
        );
        assert!(!format!("{config:?}").contains("canary"));
        let (config, _) = parsed(secured, variables).unwrap();
        assert_eq!(config.endpoints[0].as_str(), "https://a:2379");
    }

    #[test]
    fn halves_are_refused_by_the_names_of_their_flags() {
        let check = |change: fn(&mut EtcdFlags), named: &str| {
            let error = format!("{:#}", parsed(change, Variables::default()).unwrap_err());
            assert!(error.contains(named), "{error}");
        };
        check(
            |f| f.etcd_endpoints = Some("https://a:1".into()),
            "--etcd-ca-cert-file",
        );
        check(|f| f.etcd_cert_file = Some("/c".into()), "--etcd-key-file");
        check(|f| f.etcd_username = Some("u".into()), "--etcd-password-file");
        check(
            |f| f.etcd_compare_seconds = Some("soon".into()),
            "--etcd-compare-seconds",
        );
        check(secured, "--etcd-password-file");
    }
}

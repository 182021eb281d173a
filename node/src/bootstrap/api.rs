//! Whether the command line is served over TCP as well: flags of `twilld run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::api::Role;

/// Keys of the file.
pub(super) const KEYS: [&str; 5] = [
    "api-listen",
    "api-cert-file",
    "api-key-file",
    "api-client-ca-file",
    "api-default-role",
];

/// Flags about the service of the command line.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ApiFlags {
    /// Serve the command line on this address too, such as 0.0.0.0:9098; both sides show certificates [default: only on the socket].
    #[arg(long, env = "TWILL_API_LISTEN", value_name = "A:PORT")]
    api_listen: Option<String>,
    /// Certificate of that service, PEM. It is read again when it changes, and so are the other files.
    #[arg(long, env = "TWILL_API_CERT_FILE", value_name = "FILE")]
    api_cert_file: Option<String>,
    /// Key of that certificate, PEM.
    #[arg(long, env = "TWILL_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<String>,
    /// Certificates of the authority that clients' certificates come from, PEM: whoever has one may do what its role says
    /// (a URI twill://role/read, write or admin among its alternative names).
    #[arg(long, env = "TWILL_API_CLIENT_CA_FILE", value_name = "FILE")]
    api_client_ca_file: Option<String>,
    /// What a client may do whose certificate names no role: none, read, write or admin [default: read].
    #[arg(long, env = "TWILL_API_DEFAULT_ROLE", value_name = "ROLE")]
    api_default_role: Option<String>,
}

/// A service over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpApi {
    pub(crate) listen: SocketAddr,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) client_ca_file: PathBuf,
    /// What a certificate without a role allows; `None` is nothing.
    pub(crate) default_role: Option<Role>,
}

/// The service, if it is wanted.
pub(super) fn parse(
    flags: ApiFlags,
    given: impl Fn(Option<String>, &str) -> Option<String>,
) -> Result<Option<TcpApi>> {
    let listen = given(flags.api_listen, "api-listen");
    let files = [
        given(flags.api_cert_file, "api-cert-file"),
        given(flags.api_key_file, "api-key-file"),
        given(flags.api_client_ca_file, "api-client-ca-file"),
    ];
    let role = given(flags.api_default_role, "api-default-role");
    match (listen, files) {
        (None, [None, None, None]) if role.is_none() => Ok(None),
        (Some(listen), [Some(cert), Some(key), Some(ca)]) => Ok(Some(TcpApi {
            listen: listen.parse().with_context(|| {
                format!("--api-listen {listen:?}: not an address with a port such as 0.0.0.0:9098")
            })?,
            cert_file: cert.into(),
            key_file: key.into(),
            client_ca_file: ca.into(),
            default_role: default_role(role.as_deref())?,
        })),
        _ => bail!(
            "--api-listen, --api-cert-file, --api-key-file and --api-client-ca-file go together (and only with them \
             --api-default-role): over TCP both sides show certificates"
        ),
    }
}

/// What whoever names no role may do: look, unless the operator says otherwise.
fn default_role(word: Option<&str>) -> Result<Option<Role>> {
    match word {
        None => Ok(Some(Role::Read)),
        Some("none") => Ok(None),
        Some(word) => match word.parse() {
            Ok(role) => Ok(Some(role)),
            Err(()) => bail!("--api-default-role {word:?}: none, read, write or admin"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing_is_given() {
        let parsed = |flags| parse(flags, |flag, _| flag);
        assert_eq!(parsed(ApiFlags::default()).unwrap(), None);
        let whole = ApiFlags {
            api_listen: Some("[::1]:9098".into()),
            api_cert_file: Some("/c".into()),
            api_key_file: Some("/k".into()),
            api_client_ca_file: Some("/a".into()),
            api_default_role: None,
        };
        assert_eq!(parsed(whole.clone()).unwrap().unwrap().listen.port(), 9098);
        let half = ApiFlags {
            api_client_ca_file: None,
            ..whole.clone()
        };
        assert!(
            parsed(half)
                .unwrap_err()
                .to_string()
                .contains("--api-client-ca-file")
        );
        let bad = ApiFlags {
            api_listen: Some("9098".into()),
            ..whole
        };
        assert!(parsed(bad).unwrap_err().to_string().contains("--api-listen"));
        let alone = ApiFlags {
            api_default_role: Some("admin".into()),
            ..ApiFlags::default()
        };
        let refused = parsed(alone).unwrap_err().to_string();
        assert!(refused.contains("--api-default-role"), "{refused}");
    }

    #[test]
    fn who_names_no_role_may_look_unless_the_settings_say_otherwise() {
        assert_eq!(default_role(None).unwrap(), Some(Role::Read));
        assert_eq!(default_role(Some("none")).unwrap(), None);
        assert_eq!(default_role(Some("admin")).unwrap(), Some(Role::Admin));
        let refused = default_role(Some("root")).unwrap_err().to_string();
        assert!(refused.contains("--api-default-role \"root\""), "{refused}");
    }
}

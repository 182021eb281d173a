//! Whether the command line is served over TCP as well: flags of `twilld run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Keys of the file.
pub(super) const KEYS: [&str; 4] = [
    "api-listen",
    "api-cert-file",
    "api-key-file",
    "api-client-ca-file",
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
    /// (a URI twill://role/read, write or admin among its alternative names), or everything if it names none.
    #[arg(long, env = "TWILL_API_CLIENT_CA_FILE", value_name = "FILE")]
    api_client_ca_file: Option<String>,
}

/// A service over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpApi {
    pub(crate) listen: SocketAddr,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) client_ca_file: PathBuf,
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
    match (listen, files) {
        (None, [None, None, None]) => Ok(None),
        (Some(listen), [Some(cert), Some(key), Some(ca)]) => Ok(Some(TcpApi {
            listen: listen.parse().with_context(|| {
                format!("--api-listen {listen:?}: not an address with a port such as 0.0.0.0:9098")
            })?,
            cert_file: cert.into(),
            key_file: key.into(),
            client_ca_file: ca.into(),
        })),
        _ => bail!(
            "--api-listen, --api-cert-file, --api-key-file and --api-client-ca-file go together: over TCP both sides show certificates"
        ),
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
    }
}

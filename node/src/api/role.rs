//! What whoever comes over TCP may do: his certificate says it, by a URI among its alternative names; of one that says nothing
//! the daemon's settings do (`--api-default-role`), and unless they say more it may look.

use std::net::SocketAddr;
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;
use tonic::transport::CertificateDer;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// What the URIs of roles begin with.
const PREFIX: &str = "twill://role/";

/// What somebody may do; the greater may do what the smaller may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    Read,
    /// Write resources.
    Write,
    /// Everything: addresses, sessions, the lock.
    Admin,
}

impl Role {
    /// The word in certificates, settings and messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// What a call needs, by its path: `/twill.v1.Service/Method`. What is not listed needs the most.
    fn needed(path: &str) -> Self {
        match path.strip_prefix("/twill.v1.").unwrap_or_default() {
            "Resources/List" | "Resources/Get" | "Bgp/Peers" | "Bgp/Detail" | "Bgp/Routes" | "Bgp/Watch"
            | "Ipam/Show" | "Ipam/Check" | "Ipam/Report" | "Ipam/Holder" | "Ipam/Configuration"
            | "Node/Status" => Self::Read,
            "Resources/Create" | "Resources/Apply" | "Resources/Replace" | "Resources/Delete" => Self::Write,
            _ => Self::Admin,
        }
    }

    /// The greatest role that a certificate names, or `default` if it names none. One that names an unknown role, or that cannot
    /// be read, may do nothing.
    fn of(certificate: &CertificateDer<'_>, default: Option<Self>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let names = certificate.valid_uri_names();
        let named: Vec<Option<Self>> = names
            .filter_map(|name| name.strip_prefix(PREFIX))
            .map(|word| word.parse().ok())
            .collect();
        match named.as_slice() {
            [] => default,
            named => named.iter().copied().flatten().max(),
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let all = [Self::Read, Self::Write, Self::Admin];
        all.into_iter().find(|role| role.as_str() == word).ok_or(())
    }
}

/// Lets a call pass if the certificate of the connection's other end allows it; what changes something is logged. `default` is
/// what a certificate without a role may do.
pub(super) async fn guard(State(default): State<Option<Role>>, request: Request, next: Next) -> Response {
    let needed = Role::needed(request.uri().path());
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let client: Option<SocketAddr> = info.and_then(|info| info.get_ref().remote_addr());
    let certificates = info.and_then(TlsConnectInfo::peer_certs);
    let role = certificates.and_then(|certificates| Role::of(certificates.first()?, default));
    let client = client.map(tracing::field::display);
    let path = request.uri().path();
    match role {
        Some(role) if role >= needed => {
            if needed > Role::Read {
                tracing::info!(client, path, role = role.as_str(), "call over TCP");
            }
            next.run(request).await
        }
        _ => {
            let has = role.map_or("none", Role::as_str);
            tracing::warn!(client, path, role = has, "call over TCP refused");
            let needed = needed.as_str();
            Status::permission_denied(format!(
                "this needs the role {needed}, and the client's certificate has {has}: it needs the URI {PREFIX}{needed} among its \
                 alternative names (or, for certificates without any role, the daemon --api-default-role {needed})"
            ))
            .into_http()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn role(uris: &[&str], default: Option<Role>) -> Option<Role> {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Role::of(certificate.der(), default)
    }

    #[test]
    fn a_certificate_says_what_its_owner_may_do() {
        for (uris, expected) in [
            (&["twill://role/read"][..], Some(Role::Read)),
            (&["twill://role/write"], Some(Role::Write)),
            (&["twill://role/read", "twill://role/admin"], Some(Role::Admin)),
            (&["twill://role/root"], None),
            (&["twill://role/"], None),
        ] {
            for default in [None, Some(Role::Read), Some(Role::Admin)] {
                assert_eq!(role(uris, default), expected, "{uris:?}");
            }
        }
        let unreadable = CertificateDer::from(vec![0x30, 0x01]);
        assert_eq!(Role::of(&unreadable, Some(Role::Admin)), None);
    }

    #[test]
    fn of_a_certificate_that_names_no_role_the_settings_decide() {
        for default in [None, Some(Role::Read), Some(Role::Write), Some(Role::Admin)] {
            for uris in [&[][..], &["spiffe://example.org/x"]] {
                assert_eq!(role(uris, default), default, "{uris:?}");
            }
        }
    }

    #[test]
    fn what_changes_something_needs_more_than_looking() {
        for (path, expected) in [
            ("/twill.v1.Resources/List", Role::Read),
            ("/twill.v1.Resources/Delete", Role::Write),
            ("/twill.v1.Ipam/Release", Role::Admin),
            ("/twill.v1.Datastore/Lock", Role::Admin),
            ("/twill.v1.Bgp/Reset", Role::Admin),
            ("/twill.v2.Resources/List", Role::Admin),
            ("", Role::Admin),
        ] {
            assert_eq!(Role::needed(path), expected, "{path}");
        }
    }
}

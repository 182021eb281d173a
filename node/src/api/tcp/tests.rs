//! Who is let in, by certificates made for the test.

use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use twill_datastore::mem::MemStore;
use twill_proto::api::resources_client::ResourcesClient;
use twill_proto::api::resources_server::ResourcesServer;
use twill_proto::api::{GetRequest, Resource, WriteRequest};

use super::*;
use crate::api::resources::Resources;

const POOL: &str = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16"}}"#;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
struct Issued {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        Issued {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn with_role(&self, role: &str) -> Issued {
        let uri = format!("twill://role/{role}");
        self.issue(|params| {
            let name = SanType::URI(uri.as_str().try_into().unwrap());
            params.subject_alt_names.push(name);
        })
    }
}

/// A service of resources that lets in whoever has a certificate of `authority`.
struct Service {
    address: SocketAddr,
    authority: Authority,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
    _dir: TempDir,
}

impl Service {
    /// Clients whose certificates name no role may look.
    fn start() -> Self {
        Self::with_default(Some(Role::Read))
    }

    fn with_default(default_role: Option<Role>) -> Self {
        let authority = Authority::new();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let own = authority.issue(|_| ());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpApi {
            listen: address,
            cert_file: file("cert.pem", &own.cert),
            key_file: file("key.pem", &own.key),
            client_ca_file: file("ca.pem", &authority.issuer.pem()),
            default_role,
        };
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            let routes = Routes::new(ResourcesServer::new(Resources::new(MemStore::new())));
            serve_on(&listener, &routes, &tcp, ended).await
        });
        Self {
            address,
            authority,
            stop,
            task,
            _dir: dir,
        }
    }

    async fn client(
        &self,
        trusted: &Authority,
        own: Option<&Issued>,
    ) -> Result<ResourcesClient<Channel>, String> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.issuer.pem()));
        if let Some(own) = own {
            tls = tls.identity(Identity::from_pem(&own.cert, &own.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        let channel = endpoint
            .tls_config(tls)
            .unwrap()
            .timeout(HANDSHAKE_TIMEOUT)
            .connect()
            .await;
        channel.map(ResourcesClient::new).map_err(|e| format!("{e:?}"))
    }

    /// What a client gets for a look at a pool that is not there, and for making it.
    async fn tried(&self, own: Option<&Issued>) -> Result<(Code, Code), String> {
        let mut client = self.client(&self.authority, own).await?;
        let looked = client
            .get(get())
            .await
            .map_or_else(|e| code(&e), |_| Ok(Code::Ok))?;
        let wrote = client
            .create(write())
            .await
            .map_or_else(|e| code(&e), |_| Ok(Code::Ok))?;
        Ok((looked, wrote))
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// The service's own codes; what the transport says is no answer.
fn code(status: &Status) -> Result<Code, String> {
    match status.code() {
        code @ (Code::NotFound | Code::PermissionDenied) => Ok(code),
        other => Err(format!("{other:?}: {status:?}")),
    }
}

fn get() -> GetRequest {
    GetRequest {
        kind: "IPPool".into(),
        namespace: String::new(),
        name: "absent".into(),
    }
}

fn write() -> WriteRequest {
    WriteRequest {
        resource: Some(Resource {
            kind: "IPPool".into(),
            name: "p".into(),
            json: POOL.into(),
            ..Resource::default()
        }),
    }
}

#[tokio::test]
async fn who_shows_a_certificate_of_the_authority_is_let_in_as_far_as_his_role_goes() {
    for (role, expected) in [
        ("read", (Code::NotFound, Code::PermissionDenied)),
        ("write", (Code::NotFound, Code::Ok)),
        ("admin", (Code::NotFound, Code::Ok)),
        ("root", (Code::PermissionDenied, Code::PermissionDenied)),
    ] {
        let service = Service::start();
        let own = service.authority.with_role(role);
        assert_eq!(service.tried(Some(&own)).await.unwrap(), expected, "{role}");
        service.end().await;
    }
}

#[tokio::test]
async fn who_names_no_role_may_look_only_unless_the_settings_say_otherwise() {
    for (default, expected) in [
        (Some(Role::Read), (Code::NotFound, Code::PermissionDenied)),
        (Some(Role::Admin), (Code::NotFound, Code::Ok)),
        (None, (Code::PermissionDenied, Code::PermissionDenied)),
    ] {
        let service = Service::with_default(default);
        let roleless = service.authority.issue(|_| ());
        assert_eq!(
            service.tried(Some(&roleless)).await.unwrap(),
            expected,
            "{default:?}"
        );
        service.end().await;
    }
    let service = Service::start();
    let roleless = service.authority.issue(|_| ());
    let mut client = service.client(&service.authority, Some(&roleless)).await.unwrap();
    let refused = client.create(write()).await.unwrap_err();
    for word in [
        "role write",
        "has read",
        "twill://role/write",
        "--api-default-role",
    ] {
        assert!(refused.message().contains(word), "{}", refused.message());
    }
    service.end().await;
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let service = Service::start();
    let expired = service
        .authority
        .issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = service
        .authority
        .issue(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let strangers = Authority::new().issue(|_| ());
    for (own, who) in [
        (None, "without a certificate"),
        (Some(&strangers), "of another authority"),
        (Some(&expired), "expired"),
        (Some(&early), "not valid yet"),
    ] {
        let tried = service.tried(own).await;
        assert!(tried.is_err(), "{who}: {tried:?}");
    }
    // The service itself is as well as before.
    let good = service.authority.issue(|_| ());
    assert_eq!(
        service.tried(Some(&good)).await.unwrap(),
        (Code::NotFound, Code::PermissionDenied)
    );
    service.end().await;
}

#[tokio::test]
async fn a_client_talks_to_no_service_of_another_authority() {
    let service = Service::start();
    let own = service.authority.issue(|_| ());
    let reached = service.client(&Authority::new(), Some(&own)).await;
    assert!(
        reached.is_err(),
        "the service's certificate is not of the authority trusted"
    );
    service.end().await;
}

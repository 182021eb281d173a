//! TLS and users, with a real etcd and certificates made for the test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use twill_datastore::etcd::{EtcdConfig, EtcdStore, Password, TlsFiles, User};
use twill_datastore::testing::{EtcdServer, ServerTls};
use twill_datastore::{Store, StoreError};

use crate::world::within;

/// An authority, and the directory that its files are in.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a certificate for 127.0.0.1 and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_file, key_file) = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    fn server(&self) -> EtcdServer {
        let (cert, key) = self.issue("server");
        EtcdServer::start_tls(ServerTls {
            cert,
            key,
            client_ca: self.path("ca.pem"),
        })
    }
}

fn config(server: &EtcdServer, ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> EtcdConfig {
    let mut config: EtcdConfig = server.endpoint().parse().unwrap();
    config.tls = TlsFiles {
        ca: Some(ca.to_owned()),
        identity,
    };
    config.check().unwrap()
}

#[tokio::test]
async fn both_sides_show_certificates_and_without_one_nothing_is_answered() {
    let authority = Authority::new();
    let server = authority.server();
    let ca = authority.path("ca.pem");
    let store = EtcdStore::connect(config(&server, &ca, Some(authority.issue("client"))))
        .await
        .unwrap();
    store.put("a", "1").await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");

    let nameless = EtcdStore::connect(config(&server, &ca, None)).await.unwrap();
    assert!(nameless.get("a").await.unwrap_err().is_transient());
    let stranger = Authority::new();
    let mistrusting = config(&server, &stranger.path("ca.pem"), Some(authority.issue("client")));
    let mistrusting = EtcdStore::connect(mistrusting).await.unwrap();
    assert!(mistrusting.get("a").await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_file_that_changes_is_read_again() {
    let authority = Authority::new();
    let server = authority.server();
    let stranger = Authority::new();
    // At first with a certificate that etcd does not accept.
    let (cert, key) = stranger.issue("client");
    let ca = authority.path("ca.pem");
    let store = EtcdStore::connect(config(&server, &ca, Some((cert.clone(), key.clone()))))
        .await
        .unwrap();
    assert!(store.put("a", "1").await.is_err());
    let (good_cert, good_key) = authority.issue("client");
    std::fs::copy(good_key, key).unwrap();
    std::fs::copy(good_cert, cert).unwrap();
    within("the new certificate to be used", async {
        while store.put("a", "1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_file_is_an_error_that_names_it() {
    let authority = Authority::new();
    let server = authority.server();
    let gone = authority.path("gone.pem");
    let error = EtcdStore::connect(config(&server, &gone, None))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("gone.pem"), "{error}");
}

fn with_user(server: &EtcdServer, password: Password) -> EtcdConfig {
    let mut config: EtcdConfig = server.endpoint().parse().unwrap();
    config.user = Some(User {
        name: "root".to_owned(),
        password,
    });
    config
}

#[tokio::test]
async fn a_user_is_known_by_its_password_also_after_etcd_was_restarted() {
    let mut server = EtcdServer::start();
    let _ = server.etcdctl(&["user", "add", "root:canary"]);
    let _ = server.etcdctl(&["user", "grant-role", "root", "root"]);
    let _ = server.etcdctl(&["auth", "enable"]);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "canary\n").unwrap();
    let store = EtcdStore::connect(with_user(&server, Password::File(file)))
        .await
        .unwrap();
    store.put("a", "1").await.unwrap();

    let wrong = Password::Text("wrong".to_owned());
    let error = EtcdStore::connect(with_user(&server, wrong)).await.unwrap_err();
    assert!(matches!(error, StoreError::Auth { .. }), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("wrong"), "{error:?}");
    let nobody = EtcdStore::connect(server.endpoint().parse().unwrap())
        .await
        .unwrap();
    let error = nobody.get("a").await.unwrap_err();
    assert!(matches!(error, StoreError::Auth { .. }), "{error:?}");

    // etcd's tokens do not survive it.
    server.restart();
    within("the user to be known again", async {
        while store.put("a", "2").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_waits_for_an_etcd_that_is_away_at_the_start() {
    let mut server = EtcdServer::start();
    server.kill();
    let password = Password::Text("canary".to_owned());
    let store = EtcdStore::connect(with_user(&server, password)).await.unwrap();
    assert!(store.get("a").await.unwrap_err().is_transient());
}

//! The connections to etcd, made anew when a file with a certificate or password changes, or when etcd forgets who we are.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, WatchClient,
};
use tokio::time::Instant;

use super::config::{Endpoint, EtcdConfig, Password};
use super::status::store_error;
use super::{KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT, MESSAGE_BYTES_MAX};
use crate::{Commit, StoreError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How soon connections may be made anew because etcd refused us: authentication costs the server a bcrypt each time.
const AFRESH_AFTER: Duration = Duration::from_secs(1);
/// Largest file with a certificate, key or password.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The clients of one set of connections.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
}

/// What a file was when it was read.
type Look = (PathBuf, Option<(SystemTime, u64)>);

struct Current {
    clients: Option<Clients>,
    made: Option<Instant>,
    looked: Instant,
    files: Vec<Look>,
}

/// Makes clients and keeps them as long as they are good.
pub(super) struct Source {
    config: EtcdConfig,
    current: Mutex<Current>,
    /// One at a time makes new ones.
    making: tokio::sync::Mutex<()>,
}

impl Source {
    pub(super) fn new(config: EtcdConfig) -> Self {
        let current = Current {
            clients: None,
            made: None,
            looked: Instant::now(),
            files: Vec::new(),
        };
        Self {
            config,
            current: Mutex::new(current),
            making: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        // Its fields are set one after the other from ready values.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients, made if there are none or a file has changed. When new ones cannot be made, the old ones go on.
    ///
    /// # Errors
    /// There are none, and none can be made: a file is bad, or with a user whatever befell the authentication.
    pub(super) async fn clients(&self) -> Result<Clients, StoreError> {
        if let Some(clients) = self.good() {
            return Ok(clients);
        }
        let _one = self.making.lock().await;
        if let Some(clients) = self.good() {
            return Ok(clients);
        }
        let files: Vec<Look> = self.config.files().into_iter().map(look).collect();
        // Boxed: making clients is rare and its future large.
        let made = Box::pin(make(&self.config)).await;
        let mut current = self.current();
        current.looked = Instant::now();
        match (made, &current.clients) {
            (Ok(clients), old) => {
                if old.is_some() {
                    tracing::info!(
                        "connections to the datastore made anew: a certificate or password has changed"
                    );
                }
                current.clients = Some(clients.clone());
                current.made = Some(Instant::now());
                current.files = files;
                Ok(clients)
            }
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "changed certificates or password for the datastore cannot be used; the old connections stay");
                Ok(old.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The clients, unless it is time to look and a file is not what it was.
    fn good(&self) -> Option<Clients> {
        let mut current = self.current();
        let clients = current.clients.clone()?;
        if current.files.is_empty() || current.looked.elapsed() < LOOK_EVERY {
            return Some(clients);
        }
        if current.files.iter().any(|old| look(&old.0) != *old) {
            return None;
        }
        current.looked = Instant::now();
        Some(clients)
    }

    /// etcd refused us: its tokens are void (it was restarted), or the password has changed. True if another try is worth while.
    pub(super) fn refused(&self) -> bool {
        let mut current = self.current();
        let old = current.made.is_none_or(|made| made.elapsed() >= AFRESH_AFTER);
        if self.config.user.is_none() || !old {
            return false;
        }
        current.clients = None;
        true
    }
}

fn look(path: impl AsRef<Path>) -> Look {
    let path = path.as_ref();
    let metadata = std::fs::metadata(path).ok();
    let state = metadata.and_then(|m| Some((m.modified().ok()?, m.len())));
    (path.to_owned(), state)
}

/// Prepares connections. Only with a user does it wait for the server.
async fn make(config: &EtcdConfig) -> Result<Clients, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if config.endpoints.iter().any(Endpoint::is_tls) {
        options = options.with_tls(tls(config)?);
    }
    if let Some(user) = &config.user {
        let password = match &user.password {
            Password::Text(text) => text.clone(),
            Password::File(path) => {
                let text = String::from_utf8(read(path)?)
                    .map_err(|_| StoreError::invalid(format!("{} is not UTF-8", path.display())))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        options = options
            .with_user(&user.name, password)
            .with_auto_token_refresh(true);
    }
    let endpoints: Vec<&str> = config.endpoints.iter().map(Endpoint::as_str).collect();
    let limit = config.call_timeout;
    let client = tokio::time::timeout(limit, Client::connect(endpoints, Some(options)))
        .await
        .map_err(|_| StoreError::Timeout {
            limit,
            commit: Commit::No,
        })?
        .map_err(store_error)?;
    Ok(Clients {
        kv: client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
        watch: client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
        lease: client.lease_client(),
    })
}

fn tls(config: &EtcdConfig) -> Result<TlsOptions, StoreError> {
    let mut tls = TlsOptions::new();
    if let Some(ca) = &config.tls.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let Some((cert, key)) = &config.tls.identity {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

/// Reads a file and says nothing of what is in it.
fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let bad = |why: String| StoreError::Auth {
        reason: format!("reading {}: {why}", path.display()),
    };
    let size = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(bad(format!("{size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read(path).map_err(|e| bad(e.to_string()))
}

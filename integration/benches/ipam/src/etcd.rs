//! A cluster of etcd on loopback, of one member or three. Dropping it kills the members and removes their data.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use twill_datastore::Store;
use twill_datastore::etcd::{EtcdConfig, EtcdStore};

/// How long a cluster may take until it serves, on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running cluster. Start it from the main thread: the kernel kills the members when that thread ends.
pub struct Etcd {
    members: Vec<Child>,
    /// Client ports, by member.
    pub ports: Vec<u16>,
    _data: TempDir,
}

impl Etcd {
    /// Starts `count` members, whose data is on disk under the temporary directory.
    ///
    /// # Errors
    /// If a member cannot be started or the cluster does not serve in time; what members logged is in the message.
    pub async fn start(count: usize) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("twill-ipam-rig-").tempdir()?;
        let ports = free_ports(count * 2)?;
        let (clients, peers) = ports.split_at(count);
        let cluster: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(i, port)| format!("m{i}=http://127.0.0.1:{port}"))
            .collect();
        let mut members = Vec::new();
        for (i, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let log = File::create(data.path().join(format!("m{i}.log")))?;
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--", "etcd", "--name", &format!("m{i}")]);
            command.arg("--data-dir").arg(data.path().join(format!("m{i}")));
            let (client, peer) = (
                format!("http://127.0.0.1:{client}"),
                format!("http://127.0.0.1:{peer}"),
            );
            command.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            command.args([
                "--initial-cluster",
                &cluster.join(","),
                "--initial-cluster-state",
                "new",
            ]);
            command.args(["--quota-backend-bytes", "8589934592"]);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            members.push(command.spawn().context("starting etcd (is it installed?)")?);
        }
        let etcd = Self {
            members,
            ports: clients.to_vec(),
            _data: data,
        };
        etcd.wait().await?;
        Ok(etcd)
    }

    async fn wait(&self) -> Result<()> {
        let store = self.store().await?;
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        while let Err(error) = store.progress().await {
            if tokio::time::Instant::now() > deadline {
                bail!("etcd does not serve: {error}; its log: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn log(&self) -> String {
        let read = |i| std::fs::read_to_string(self.dir().join(format!("m{i}.log"))).unwrap_or_default();
        (0..self.members.len()).map(read).collect()
    }

    fn dir(&self) -> PathBuf {
        self._data.path().to_owned()
    }

    /// The URLs of all members, for clients.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let urls: Vec<String> = self
            .ports
            .iter()
            .map(|p| format!("http://127.0.0.1:{p}"))
            .collect();
        urls.join(",")
    }

    /// A client of all members, with no proxy between.
    ///
    /// # Errors
    /// If the URLs are wrong.
    pub async fn store(&self) -> Result<EtcdStore> {
        let config: EtcdConfig = self.endpoints().parse()?;
        Ok(EtcdStore::connect(config).await?)
    }

    /// As [`Etcd::store`], for whoever measures: a call takes as long as it takes.
    ///
    /// # Errors
    /// If the URLs are wrong.
    pub async fn patient_store(&self) -> Result<EtcdStore> {
        let mut config: EtcdConfig = self.endpoints().parse()?;
        config.call_timeout = START_TIMEOUT;
        Ok(EtcdStore::connect(config).await?)
    }

    /// Process ids of the members.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    /// Makes another member the leader.
    ///
    /// # Errors
    /// If `etcdctl` fails. With one member there is nothing to move.
    pub async fn move_leader(&self) -> Result<()> {
        if self.members.len() < 2 {
            return Ok(());
        }
        let mut leader = None;
        let mut other = None;
        for port in &self.ports {
            let url = format!("http://127.0.0.1:{port}");
            let status = etcdctl(&["--endpoints", &url, "endpoint", "status", "-w", "json"]).await?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let at = |path: &str| status.pointer(path).and_then(serde_json::Value::as_u64);
            let (Some(this), Some(lead)) = (at("/0/Status/header/member_id"), at("/0/Status/leader")) else {
                bail!("etcdctl's status has changed: {status}");
            };
            if this == lead {
                leader = Some(url);
            } else {
                other = Some(this);
            }
        }
        let (Some(leader), Some(other)) = (leader, other) else {
            // An election is under way already.
            return Ok(());
        };
        etcdctl(&["--endpoints", &leader, "move-leader", &format!("{other:x}")]).await?;
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Gone already is as good.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

async fn etcdctl(words: &[&str]) -> Result<String> {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(&words)
            .output()
    })
    .await??;
    if !output.status.success() {
        bail!("etcdctl: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ports that were free a moment ago, all different.
///
/// # Errors
/// If the machine has none.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()?;
    listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect()
}

//! Real etcd servers for tests: one process each, on loopback, in a directory of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it answers; 3.4 needs well under a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often another process may snatch the ports that were found free.
const PORT_ATTEMPTS: usize = 5;
/// How often readiness is asked for.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A running etcd, as a rule of one member. Dropping it kills the process and removes its data; should this process die first, the kernel
/// kills it (the thread that started the server must therefore outlive it).
#[derive(Debug)]
pub struct EtcdServer {
    child: Option<Child>,
    client_port: u16,
    /// The client port that the server began with.
    home_port: u16,
    peer_port: u16,
    health_port: u16,
    /// Its name among the members.
    name: String,
    /// All members with their peers' URLs, as `--initial-cluster` takes them.
    members: String,
    /// Arguments for TLS towards clients.
    tls: Option<ServerTls>,
    dir: TempDir,
}

/// Files of PEM with which a server shows who it is and judges its clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The server's certificate, for 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of clients' certificates.
    pub client_ca: PathBuf,
}

impl EtcdServer {
    /// Starts a server that speaks TLS, and only with clients of the authority.
    ///
    /// # Panics
    /// As [`EtcdServer::start`].
    #[must_use]
    pub fn start_tls(tls: ServerTls) -> Self {
        Self::start_with(Some(&tls))
    }

    /// Starts a server and waits until it serves.
    ///
    /// # Panics
    /// If `etcd` or `setpriv` is not installed, or the server does not come up; what it logged is in the message.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(tls: Option<&ServerTls>) -> Self {
        for attempt in 1.. {
            let mut server = Self::prepared("t".to_owned(), tls);
            server.members = server.member();
            match server.spawn() {
                Ok(()) => return server,
                Err(log) if attempt < PORT_ATTEMPTS && log.contains("address already in use") => {}
                Err(log) => panic!("etcd did not start: {log}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// A server that was never started, a member of no cluster.
    fn prepared(name: String, tls: Option<&ServerTls>) -> Self {
        let [client_port, peer_port, health_port] = free_ports();
        let dir = tempfile::Builder::new()
            .prefix("twill-etcd-")
            .tempdir()
            .expect("a temporary directory");
        Self {
            child: None,
            client_port,
            home_port: client_port,
            peer_port,
            health_port,
            name,
            members: String::new(),
            tls: tls.cloned(),
            dir,
        }
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    fn member(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// Its URL, for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// Runs `etcdctl` towards it; its output.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn etcdctl(&self, words: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint()]);
        let output = command.args(words).output().expect("etcdctl is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "etcdctl {words:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Kills the server and puts it back to a snapshot that `etcdctl snapshot save` made.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restore(&mut self, snapshot: &std::path::Path) {
        self.kill();
        let data = self.dir.path().join("data");
        std::fs::remove_dir_all(&data).expect("the data directory");
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let cluster = format!("t={peer}");
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg("--data-dir")
            .arg(&data)
            .args(["--name", "t", "--initial-cluster", &cluster])
            .args(["--initial-advertise-peer-urls", &peer])
            .output()
            .expect("etcdctl is installed");
        assert!(
            output.status.success(),
            "etcdctl snapshot restore: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.restart();
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills the process (SIGKILL) and waits until it is gone. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if the process has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the killed server again, on its data and ports, and waits until it serves.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        if let Err(log) = self.spawn() {
            panic!("etcd did not start again: {log}");
        }
    }

    /// Kills the server and starts it on its data, for clients on another port: those of the old one do not find it.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart_elsewhere(&mut self) {
        self.kill();
        [self.client_port, ..] = free_ports();
        self.restart();
    }

    /// Kills the server and starts it on its data, on the port that it began with.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart_at_home(&mut self) {
        self.kill();
        self.client_port = self.home_port;
        self.restart();
    }

    fn tls_args(&self) -> Vec<std::ffi::OsString> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let pairs = [
            ("--cert-file", &tls.cert),
            ("--key-file", &tls.key),
            ("--trusted-ca-file", &tls.client_ca),
        ];
        let words = pairs
            .into_iter()
            .flat_map(|(flag, path)| [flag.into(), path.into()]);
        words.chain(["--client-cert-auth".into()]).collect()
    }

    fn spawn(&mut self) -> Result<(), String> {
        self.launch()?;
        self.until_healthy()
    }

    fn launch(&mut self) -> Result<(), String> {
        let client = self.endpoint();
        let peer = self.peer_url();
        let log = self.log();
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| error.to_string())?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", &self.name])
            .args(["--unsafe-no-fsync", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &self.members,
                "--logger",
                "zap",
                "--log-outputs",
                "stderr",
            ])
            // A single member elects itself, at once instead of after a second.
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            // Health is asked for without TLS.
            .args([
                "--listen-metrics-urls",
                &format!("http://127.0.0.1:{}", self.health_port),
            ])
            .args(self.tls_args())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("running setpriv and etcd: {error}"))?;
        self.child = Some(child);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Waits until it has a leader; an error is what it logged.
    fn until_healthy(&mut self) -> Result<(), String> {
        let log = self.log();
        let child = self.child.as_mut().ok_or("it was not launched")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !healthy(self.health_port) {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }
}

/// A running etcd of several members.
#[derive(Debug)]
pub struct EtcdCluster {
    /// The members.
    pub members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts so many members and waits until all have a leader.
    ///
    /// # Panics
    /// As [`EtcdServer::start`].
    #[must_use]
    pub fn start(count: usize) -> Self {
        for attempt in 1.. {
            let prepared = (0..count).map(|n| EtcdServer::prepared(format!("m{n}"), None));
            let mut members: Vec<EtcdServer> = prepared.collect();
            let all: Vec<String> = members.iter().map(EtcdServer::member).collect();
            let all = all.join(",");
            members
                .iter_mut()
                .for_each(|member| member.members.clone_from(&all));
            let launched = members.iter_mut().try_for_each(EtcdServer::launch);
            let up = launched.and_then(|()| members.iter_mut().try_for_each(EtcdServer::until_healthy));
            match up {
                Ok(()) => return Self { members },
                Err(log) if attempt < PORT_ATTEMPTS && log.contains("address already in use") => {}
                Err(log) => panic!("etcd did not start: {log}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// The URLs of all members, parted by commas.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = self.members.iter().map(EtcdServer::endpoint).collect();
        all.join(",")
    }

    /// Which member leads, as the members that run say. `None` while they elect one.
    ///
    /// # Panics
    /// If a running member does not answer.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |member: &EtcdServer| {
            let status = member.etcdctl(&["endpoint", "status", "-w", "fields"]);
            let value = |field: &str| {
                let of_field = |line: &&str| line.starts_with(&format!("\"{field}\""));
                status.lines().find(of_field)?.split_whitespace().next_back()
            };
            value("Leader").is_some_and(|leader| leader != "0" && Some(leader) == value("MemberID"))
        };
        self.members
            .iter()
            .position(|member| member.pid().is_some() && leads(member))
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port on loopback"));
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}

/// True if the server says that it is healthy, which it does once it has a leader.
fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(r#""health":"true""#))
}

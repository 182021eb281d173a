//! Real etcd servers for tests: one process each, on loopback, in a directory of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it answers; 3.4 needs well under a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often another process may snatch the ports that were found free.
const PORT_ATTEMPTS: usize = 5;
/// How often readiness is asked for.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A running etcd with one member. Dropping it kills the process and removes its data; should this process die first, the kernel
/// kills it (the thread that started the server must therefore outlive it).
#[derive(Debug)]
pub struct EtcdServer {
    child: Option<Child>,
    client_port: u16,
    /// The client port that the server began with.
    home_port: u16,
    peer_port: u16,
    dir: TempDir,
}

impl EtcdServer {
    /// Starts a server and waits until it serves.
    ///
    /// # Panics
    /// If `etcd` or `setpriv` is not installed, or the server does not come up; what it logged is in the message.
    #[must_use]
    pub fn start() -> Self {
        for attempt in 1.. {
            let (client_port, peer_port) = free_ports();
            let dir = tempfile::Builder::new()
                .prefix("twill-etcd-")
                .tempdir()
                .expect("a temporary directory");
            let mut server = Self {
                child: None,
                client_port,
                home_port: client_port,
                peer_port,
                dir,
            };
            match server.spawn() {
                Ok(()) => return server,
                Err(log) if attempt < PORT_ATTEMPTS && log.contains("address already in use") => {}
                Err(log) => panic!("etcd did not start: {log}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// Its URL, for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
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
        (self.client_port, _) = free_ports();
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

    fn spawn(&mut self) -> Result<(), String> {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = self.dir.path().join("log");
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| error.to_string())?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", "t", "--unsafe-no-fsync"])
            .arg("--data-dir")
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
                &format!("t={peer}"),
                "--logger",
                "zap",
                "--log-outputs",
                "stderr",
            ])
            // A single member elects itself, at once instead of after a second.
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("running setpriv and etcd: {error}"))?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while !healthy(self.client_port) {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let (first, second) = (bind(), bind());
    let port = |listener: &TcpListener| listener.local_addr().expect("a bound address").port();
    (port(&first), port(&second))
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

//! Two network namespaces joined by a cable: our speaker runs on a thread in one, BIRD in the other. Everything goes with the
//! value, also when a test fails.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;
use twill_bgp::Config;
use twill_bgp::net::{Handle, bind};

/// How long a condition may take to come true, on a machine that is busy building, too.
const PATIENCE: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Lab {
    ours: String,
    theirs: String,
    dir: TempDir,
    bird: Option<Child>,
}

/// A running speaker of ours.
pub(crate) struct Ours {
    pub(crate) handle: Handle,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Lab {
    /// Ours is 10.9.0.1 and fd09::1, BIRD's 10.9.0.2 and fd09::2.
    pub(crate) fn new() -> Self {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("twbgp{}-{n}{side}", std::process::id());
        let lab = Self {
            ours: name('a'),
            theirs: name('b'),
            dir: TempDir::new().unwrap(),
            bird: None,
        };
        ip(&format!("netns add {}", lab.ours));
        ip(&format!("netns add {}", lab.theirs));
        ip(&format!(
            "link add cable netns {} type veth peer name cable netns {}",
            lab.ours, lab.theirs
        ));
        for (ns, end) in [(&lab.ours, 1), (&lab.theirs, 2)] {
            ip(&format!("-n {ns} link set lo up"));
            ip(&format!("-n {ns} addr add 10.9.0.{end}/24 dev cable"));
            ip(&format!("-n {ns} addr add fd09::{end}/64 dev cable nodad"));
            ip(&format!("-n {ns} link set cable up"));
        }
        lab
    }

    /// Starts BIRD with this configuration; what is common is added.
    pub(crate) fn bird(&mut self, config: &str) {
        self.write(config);
        self.start_bird();
    }

    /// Gives a running BIRD another configuration.
    pub(crate) fn reconfigure(&self, config: &str) {
        self.write(config);
        let said = self.birdc("configure");
        assert!(said.contains("econfigur"), "{said}");
    }

    fn write(&self, config: &str) {
        let path = self.dir.path().join("bird.conf");
        let common = "router id 10.9.0.2;\nprotocol device {}\nprotocol direct { ipv4; ipv6; }\n";
        std::fs::write(&path, format!("{common}{config}")).unwrap();
    }

    pub(crate) fn start_bird(&mut self) {
        self.kill_bird();
        let mut bird = Command::new("ip");
        bird.args(["netns", "exec", &self.theirs, "bird", "-f"]);
        bird.arg("-c")
            .arg(self.dir.path().join("bird.conf"))
            .arg("-s")
            .arg(self.dir.path().join("ctl"));
        self.bird = Some(bird.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// SIGKILL: no goodbye.
    pub(crate) fn kill_bird(&mut self) {
        if let Some(mut bird) = self.bird.take() {
            let _ = bird.kill();
            let _ = bird.wait();
        }
    }

    pub(crate) fn birdc(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc
            .arg("-s")
            .arg(self.dir.path().join("ctl"))
            .args(command.split_whitespace());
        String::from_utf8_lossy(&birdc.output().unwrap().stdout).into_owned()
    }

    /// A counter of the kernel's TCP, over both namespaces.
    pub(crate) fn tcp_counter(&self, name: &str) -> u64 {
        let of = |ns: &str| {
            let mut cat = Command::new("ip");
            let out = cat
                .args(["netns", "exec", ns, "cat", "/proc/net/netstat"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let place = names.split_whitespace().position(|n| n == name).unwrap();
            values
                .split_whitespace()
                .nth(place)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        of(&self.ours) + of(&self.theirs)
    }

    /// From now on nothing goes in or out of the other end, as if the cable were cut in the middle: no interface goes down.
    pub(crate) fn cut(&self) {
        let rules = "table inet cut { chain i { type filter hook input priority 0; policy drop; }; \
                     chain o { type filter hook output priority 0; policy drop; }; }";
        self.inside(&["nft", rules]);
    }

    /// Ends [`Lab::cut`].
    pub(crate) fn heal(&self) {
        self.inside(&["nft", "delete", "table", "inet", "cut"]);
    }

    /// Runs a command at the other end; what it says.
    pub(crate) fn inside(&self, command: &[&str]) -> String {
        let mut ip = Command::new("ip");
        let out = ip
            .args(["netns", "exec", &self.theirs])
            .args(command)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// As [`Lab::inside`], for commands that may fail: `None` if it did.
    pub(crate) fn try_inside(&self, command: &[&str]) -> Option<String> {
        let mut ip = Command::new("ip");
        let out = ip
            .args(["netns", "exec", &self.theirs])
            .args(command)
            .output()
            .unwrap();
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// One more address of ours on the cable.
    pub(crate) fn add_address(&self, address: &str) {
        ip(&format!("-n {} addr add {address} dev cable", self.ours));
    }

    /// Takes an address of ours from the cable.
    pub(crate) fn remove_address(&self, address: &str) {
        ip(&format!("-n {} addr del {address} dev cable", self.ours));
    }

    /// Starts a daemon at the other end; it goes with the value that is returned.
    pub(crate) fn daemon(&self, command: &[&str]) -> Daemon {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.theirs]).args(command);
        Daemon(ip.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The index of an interface of ours.
    pub(crate) fn link_index(&self, name: &str) -> u32 {
        let mut ip = Command::new("ip");
        let out = ip
            .args(["-n", &self.ours, "-o", "link", "show", "dev", name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// A directory for the test's own files.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Runs our speaker in its namespace.
    pub(crate) fn ours(&self, config: Config) -> Ours {
        Self::speaker(&self.ours, config)
    }

    /// Runs a speaker of ours at the other end.
    pub(crate) fn theirs(&self, config: Config) -> Ours {
        Self::speaker(&self.theirs, config)
    }

    fn speaker(namespace: &str, config: Config) -> Ours {
        let path = format!("/run/netns/{namespace}");
        let (tx, rx) = std::sync::mpsc::channel();
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let ns = std::fs::File::open(path).unwrap();
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&ns),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (handle, server) = bind(config).unwrap();
                tx.send(handle).unwrap();
                tokio::select! {
                    () = server.run() => {}
                    _ = killed => {}
                }
            });
        });
        Ours {
            handle: rx.recv().unwrap(),
            kill: Some(kill),
            thread: Some(thread),
        }
    }
}

/// A process at the other end.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ours {
    /// Ends it like a SIGKILL would: every socket is closed, nothing is said.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_bird();
        for ns in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
    }
}

/// Waits until the condition holds; says what it last saw when it does not.
pub(crate) async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut seen: impl AsyncFnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = seen().await;
        if holds(&now) {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come true; last seen: {now:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

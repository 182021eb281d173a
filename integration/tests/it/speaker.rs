//! `twilld bgp` alone, with `fib: kernel`, against BIRD: what it learns goes into the kernel, by the way the kernel's other
//! routes lead there, and goes out of it again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use twill_lab::netns;
use twill_lab::run::{COMMAND_TIMEOUT, run, wait_for};

use crate::common;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces joined by two cables, 10.8.1.0/24 and 10.8.2.0/24: ours has .1, BIRD's .2. All goes with the value.
struct World {
    ours: String,
    theirs: String,
    dir: TempDir,
    bird: Option<Child>,
    twilld: Option<Child>,
}

const CONFIG: &str = "
asNumber: 64512
routerId: 10.8.1.1
listen: [{address: 10.8.1.1}, {address: 10.8.2.1}]
fib: kernel
networks: [10.244.0.0/26]
metrics: {address: 127.0.0.1, port: 9179}
groups:
  tor: {asNumber: 64999, families: [ipv4-unicast]}
peers:
  - {address: 10.8.1.2, group: tor, localAddress: 10.8.1.1}
  - {address: 10.8.2.2, group: tor, localAddress: 10.8.2.1}
";

/// What BIRD announces to us: these over both cables, and 198.18.7.0/24 by a next hop that is on none of them.
fn bird(nets: &[&str]) -> String {
    let routes: String = nets.iter().map(|n| format!("route {n} blackhole; ")).collect();
    let peer = |n: u8| {
        format!(
            "protocol bgp t{n} {{ local 10.8.{n}.2 as 64999; neighbor 10.8.{n}.1 as 64512; direct; graceful restart on; \
             graceful restart time 60; connect delay time 1; connect retry time 1; error wait time 1,2; ipv4 {{ import all; \
             export filter {{ if net = 198.18.7.0/24 then bgp_next_hop = 192.0.2.7; \
             if source = RTS_STATIC then accept; reject; }}; }}; }}\n"
        )
    };
    format!(
        "router id 10.8.1.2;\nprotocol device {{}}\nprotocol static nets {{ ipv4; {routes}}}\n{}{}",
        peer(1),
        peer(2)
    )
}

impl World {
    fn new() -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("twfib{}-{n}{side}", std::process::id());
        let world = Self {
            ours: name('a'),
            theirs: name('b'),
            dir: TempDir::new().unwrap(),
            bird: None,
            twilld: None,
        };
        netns::create(&world.ours).unwrap();
        netns::create(&world.theirs).unwrap();
        for n in [1, 2] {
            let far = &world.theirs;
            let lines = format!(
                "link add c{n} type veth peer name c{n} netns {far}\naddress add 10.8.{n}.1/24 dev c{n}\nlink set c{n} up\n"
            );
            netns::ip(&world.ours, &lines).unwrap();
            let lines = format!("address add 10.8.{n}.2/24 dev c{n}\nlink set c{n} up\n");
            netns::ip(far, &lines).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn start(&self, namespace: &str, program: impl AsRef<Path>, words: &[&str], log: &str) -> Child {
        let log = std::fs::File::create(self.path(log)).unwrap();
        let mut command = netns::command(namespace, program.as_ref());
        command.args(words).stdin(Stdio::null());
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn bird(&mut self, nets: &[&str]) {
        let (config, ctl) = (self.path("bird.conf"), self.path("bird.ctl"));
        std::fs::write(&config, bird(nets)).unwrap();
        if self.bird.is_some() {
            self.birdc(&["configure"]);
            return;
        }
        self.bird = Some(self.start(
            &self.theirs,
            "bird",
            &["-f", "-c", &config, "-s", &ctl],
            "bird.log",
        ));
    }

    fn birdc(&self, words: &[&str]) -> String {
        let mut birdc = Command::new("birdc");
        birdc.args(["-s", &self.path("bird.ctl")]).args(words);
        run(&mut birdc, b"", COMMAND_TIMEOUT).unwrap().stdout
    }

    fn twilld(&mut self) {
        let config = self.path("twilld.yaml");
        std::fs::write(&config, CONFIG).unwrap();
        let binary = twill_lab::lab::binary(&common::bin(), "twilld").unwrap();
        self.twilld = Some(self.start(&self.ours, binary, &["bgp", "--config", &config], "twilld.log"));
    }

    fn end_twilld(&mut self, signal: Signal) {
        let mut child = self.twilld.take().unwrap();
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            status.success(),
            signal == Signal::TERM,
            "{status}: {}",
            self.log()
        );
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("twilld.log")).unwrap_or_default()
    }

    fn ours_ip(&self, words: &[&str]) -> String {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.ours]).args(words);
        run(&mut ip, b"", COMMAND_TIMEOUT).unwrap().stdout
    }

    /// The kernel's route of ours to a prefix, on one line; empty if there is none.
    fn route(&self, prefix: &str) -> String {
        self.ours_ip(&["-o", "route", "show", prefix, "proto", "81"])
    }

    fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let look = || {
            ensure!(holds(), "it does not hold");
            Ok(())
        };
        let said = wait_for(what, PATIENCE, look);
        if let Err(error) = said {
            panic!(
                "{error:#}\n{}\n{}\n{}",
                self.ours_ip(&["route"]),
                self.birdc(&["show", "protocols", "all"]),
                self.log()
            );
        }
    }

    fn has(&self, prefix: &str, words: &[&str]) {
        self.eventually(&format!("{prefix} with {words:?}"), || {
            let route = self.route(prefix);
            !route.is_empty() && words.iter().all(|w| route.contains(w))
        });
    }

    fn lacks(&self, prefix: &str) {
        self.eventually(&format!("no {prefix}"), || self.route(prefix).is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [self.twilld.take(), self.bird.take()].iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for namespace in [&self.ours, &self.theirs] {
            let _ = netns::remove(namespace);
        }
    }
}

const ONE: &str = "198.18.0.0/24";
const TWO: &str = "198.18.1.0/24";
const FAR: &str = "198.18.7.0/24";

#[test]
fn best_paths_go_into_the_kernel_and_out_of_it() {
    let mut world = World::new();
    world.ours_ip(&[
        "route",
        "add",
        "203.0.113.0/24",
        "via",
        "10.8.1.2",
        "proto",
        "static",
    ]);
    world.bird(&[ONE, TWO, FAR]);
    world.twilld();
    let both = ["10.8.1.2 dev c1", "10.8.2.2 dev c2"];
    world.has(ONE, &both);
    world.has(TWO, &both);
    assert_eq!(
        world.route("10.244.0.0/26"),
        "",
        "what we announce ourselves is no route"
    );
    // One way less, and back.
    world.birdc(&["disable", "t2"]);
    world.eventually("one way", || !world.route(ONE).contains("10.8.2.2"));
    world.has(ONE, &["10.8.1.2 dev c1"]);
    world.birdc(&["enable", "t2"]);
    world.has(ONE, &both);
    // A withdrawal.
    world.bird(&[ONE, FAR]);
    world.lacks(TWO);
    let foreign = world.ours_ip(&["route", "show", "proto", "static"]);
    assert!(foreign.contains("203.0.113.0/24"), "{foreign}");
    // A clean stop takes ours and nothing else.
    world.end_twilld(Signal::TERM);
    assert_eq!(world.ours_ip(&["route", "show", "proto", "81"]), "");
    assert_eq!(world.ours_ip(&["route", "show", "proto", "static"]), foreign);
}

#[test]
fn a_next_hop_is_followed_through_the_kernels_own_routes() {
    let mut world = World::new();
    world.bird(&[ONE, FAR]);
    world.twilld();
    world.has(ONE, &["10.8.1.2"]);
    assert_eq!(world.route(FAR), "", "nothing leads to 192.0.2.7");
    world.ours_ip(&["route", "add", "192.0.2.0/24", "via", "10.8.2.2"]);
    world.has(FAR, &["via 10.8.2.2 dev c2"]);
    world.ours_ip(&["route", "replace", "192.0.2.0/24", "via", "10.8.1.2"]);
    world.has(FAR, &["via 10.8.1.2 dev c1"]);
    world.ours_ip(&["route", "del", "192.0.2.0/24"]);
    world.lacks(FAR);
}

#[test]
fn a_killed_speaker_leaves_its_routes_and_the_next_one_clears_what_is_stale() {
    let mut world = World::new();
    world.bird(&[ONE, TWO]);
    world.twilld();
    world.has(ONE, &["10.8.1.2"]);
    world.has(TWO, &["10.8.1.2"]);
    world.end_twilld(Signal::KILL);
    assert!(
        !world.route(ONE).is_empty() && !world.route(TWO).is_empty(),
        "nobody tells the kernel"
    );
    world.bird(&[ONE]);
    world.twilld();
    world.lacks(TWO);
    world.has(ONE, &["10.8.1.2", "10.8.2.2"]);
}

#[test]
fn metrics_are_served_where_the_file_says() {
    let mut world = World::new();
    world.bird(&[ONE]);
    world.twilld();
    world.has(ONE, &["10.8.1.2"]);
    let address = "127.0.0.1:9179".parse().unwrap();
    let (ours, mut text) = (world.ours.clone(), String::new());
    for line in [
        "twill_bgp_peer_established{peer=\"10.8.1.2\"} 1",
        "twill_bgp_routes 2",
        "twill_bgp_session_panics_total 0",
        "# EOF",
    ] {
        text = netns::http_get(&ours, address, "/metrics", PATIENCE).unwrap().1;
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert!(!text.contains("twill_cni"), "it is the speaker's own");
}

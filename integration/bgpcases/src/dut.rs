//! The daemons: their configuration in the words of each, their command, their process.

use crate::net;
use crate::roles::{ALL, DUT, DUT_AS, DUT_V6, KEY, NETWORKS, PORT_DIALLED, PREFIXES_MAX, Role};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a daemon may take until it listens.
const START_WAIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Twill,
    Bird,
    Frr,
    /// No daemon at all, but something that takes connections and octets and says nothing. All cases must fail.
    Sink,
}

/// A daemon that runs; it ends with the value.
pub(crate) struct Dut {
    child: Child,
    _dir: TempDir,
    log: PathBuf,
}

impl Dut {
    /// Starts it in a namespace of its own, joined to ours.
    pub(crate) fn start(kind: Kind, binary: Option<&Path>) -> Result<Self> {
        let dir = TempDir::with_prefix("bgpcases-")?;
        let (config, log) = (dir.path().join("config"), dir.path().join("log"));
        fs::write(&config, configuration(kind))?;
        let words = command(kind, binary, dir.path(), &config)?;
        // The cable comes when the namespace is there; the daemon waits for it.
        let script = format!(
            "until ip link show dut >/dev/null 2>&1; do sleep 0.02; done\n\
             ip link set lo up && ip addr add {DUT}/16 dev dut && ip addr add {DUT_V6}/64 dev dut nodad && \
             ip link set dut up && exec setpriv --pdeathsig KILL -- \"$@\""
        );
        let out = File::create(&log)?;
        let child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", &script, "sh"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .context("starting the daemon")?;
        let mut dut = Self {
            child,
            _dir: dir,
            log,
        };
        let ours = fs::read_link("/proc/self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", dut.child.id());
        dut.until("the daemon has no namespace of its own", || {
            fs::read_link(&theirs).is_ok_and(|ns| ns != ours)
        })?;
        net::join(dut.child.id())?;
        dut.until("the daemon does not listen", || {
            net::dial(Role::Observer, net::Guard::default()).is_ok()
        })?;
        Ok(dut)
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_WAIT;
        while !holds() {
            if Instant::now() >= deadline || !self.is_alive() {
                bail!("{what}; it says:\n{}", self.says());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it has logged.
    pub(crate) fn says(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(kind: Kind) -> String {
    match kind {
        Kind::Twill => twill(),
        Kind::Bird => bird(),
        Kind::Frr => frr(),
        Kind::Sink => String::new(),
    }
}

fn command(kind: Kind, binary: Option<&Path>, dir: &Path, config: &Path) -> Result<Vec<String>> {
    let this = std::env::current_exe()?;
    let usual = match kind {
        Kind::Twill => this.with_file_name("twilld"),
        Kind::Bird => "/usr/sbin/bird".into(),
        Kind::Frr => "/usr/lib/frr/bgpd".into(),
        Kind::Sink => this,
    };
    let binary = binary.map_or(usual, Path::to_owned);
    let path = |p: &Path| p.display().to_string();
    let (config, ctl) = (path(config), path(&dir.join("ctl")));
    let mut words = vec![path(&binary)];
    let args: Vec<String> = match kind {
        Kind::Twill => vec!["bgp".into(), "--config".into(), config],
        Kind::Bird => vec!["-f".into(), "-c".into(), config, "-s".into(), ctl],
        Kind::Frr => {
            let fixed = ["-S", "-Z", "-P", "0", "-p", "179", "-f"];
            let pid = path(&dir.join("pid"));
            let own = [config, "-i".into(), pid, "--vty_socket".into(), path(dir)];
            fixed.into_iter().map(String::from).chain(own).collect()
        }
        Kind::Sink => vec!["sink".into()],
    };
    words.extend(args);
    Ok(words)
}

fn twill() -> String {
    let mut out = format!(
        "asNumber: {DUT_AS}\nrouterId: {DUT}\n\
         listen: [{{address: {DUT}, port: 179}}, {{address: \"{DUT_V6}\", port: 179}}]\n\
         routeReflector: {{clusterId: {DUT}}}\nfib: none\nnetworks: [{}, \"{}\"]\n\
         defaults: {{holdTime: 90, connectRetry: 1, families: [ipv4-unicast, ipv6-unicast]}}\npeers:\n",
        NETWORKS[0], NETWORKS[1]
    );
    for role in ALL.into_iter().filter(|r| r.configured()) {
        let more = match role {
            Role::Client => ", routeReflectorClient: true".to_owned(),
            Role::Keyed => format!(", password: \"{KEY}\""),
            Role::Near => ", ttlSecurityHops: 1".to_owned(),
            Role::Limited => format!(", maxPrefixes: {PREFIXES_MAX}"),
            Role::Slow => ", sendHoldTime: 2".to_owned(),
            Role::Paths => ", addPath: {receive: true, send: 4}".to_owned(),
            Role::ViaUs => ", nextHopSelf: true".to_owned(),
            _ => String::new(),
        };
        let how = if role.dialled() {
            format!("port: {PORT_DIALLED}, passive: false")
        } else {
            "port: 179, passive: true".to_owned()
        };
        let _ = writeln!(
            out,
            "  - {{address: \"{}\", {how}, asNumber: {}, description: \"{role:?}\"{more}}}",
            role.address(),
            role.asn()
        );
    }
    out + "  - {range: 10.99.1.0/24, asNumber: 65001, passive: true}\n"
}

fn bird() -> String {
    let mut out = format!(
        "log stderr all;\nrouter id {DUT};\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n\
         protocol static n4 {{ ipv4; route {} blackhole; }}\nprotocol static n6 {{ ipv6; route {} blackhole; }}\n",
        NETWORKS[0], NETWORKS[1]
    );
    for role in ALL {
        let more = match role {
            Role::Client => "rr client;".to_owned(),
            Role::Keyed => format!("password \"{KEY}\";"),
            Role::Near => "ttl security on;".to_owned(),
            _ => String::new(),
        };
        let how = match role {
            _ if role.dialled() => format!("neighbor {} port {PORT_DIALLED} as", role.address()),
            Role::Dynamic => "passive yes; neighbor range 10.99.1.0/24 as".to_owned(),
            Role::Stranger => continue,
            _ => format!("passive yes; neighbor {} as", role.address()),
        };
        let limit = if role == Role::Limited {
            format!("import limit {PREFIXES_MAX} action disable;")
        } else {
            String::new()
        };
        let paths = if role == Role::Paths { "add paths on;" } else { "" };
        let first = if role.internal() {
            ""
        } else {
            "enforce first as on;"
        };
        let hop = if role == Role::ViaUs { "next hop self;" } else { "" };
        let _ = writeln!(
            out,
            "protocol bgp {role:?} {{ local {} as {DUT_AS}; {how} {}; direct; hold time 90; {more} rr cluster id {DUT}; \
             connect delay time 1; connect retry time 1; error wait time 1,1; error forget time 1; enable extended messages on; \
             {first} ipv4 {{ import all; export where source ~ [RTS_BGP, RTS_STATIC]; {limit} {paths} {hop} aigp off; }}; \
             ipv6 {{ import all; export where source ~ [RTS_BGP, RTS_STATIC]; {limit} {paths} {hop} aigp off; next hop address {DUT_V6}; }}; }}",
            role.dut(),
            role.asn()
        );
    }
    // A cluster identifier is for internal sessions only.
    let lines = out.lines().map(|line| {
        if line.contains("as 65000; direct") {
            line.to_owned()
        } else {
            line.replace(&format!("rr cluster id {DUT}; "), "")
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn frr() -> String {
    let mut out = format!(
        // The datacenter's hold time of 9 s is less than the pause that our client makes between KEEPALIVEs.
        "frr defaults datacenter\nlog stdout warnings\nrouter bgp {DUT_AS}\n bgp router-id {DUT}\n bgp cluster-id {DUT}\n \
         timers bgp 30 90\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n coalesce-time 0\n \
         neighbor dynamic peer-group\n neighbor dynamic remote-as 65001\n bgp listen range 10.99.1.0/24 peer-group dynamic\n"
    );
    let known: Vec<Role> = ALL.into_iter().filter(|r| r.configured()).collect();
    for role in &known {
        let who = role.address();
        let _ = writeln!(
            out,
            " neighbor {who} remote-as {}\n neighbor {who} timers connect 1\n neighbor {who} advertisement-interval 0",
            role.asn()
        );
        match role {
            Role::Keyed => {
                let _ = writeln!(out, " neighbor {who} password {KEY}");
            }
            Role::Near => {
                let _ = writeln!(out, " neighbor {who} ttl-security hops 1");
            }
            _ if role.dialled() => {
                let _ = writeln!(out, " neighbor {who} port {PORT_DIALLED}");
            }
            _ => {
                let _ = writeln!(out, " neighbor {who} passive");
            }
        }
    }
    for (family, network) in ["ipv4", "ipv6"].into_iter().zip(NETWORKS) {
        let _ = writeln!(
            out,
            " address-family {family} unicast\n  network {network}\n  neighbor dynamic activate"
        );
        for role in &known {
            let who = role.address();
            let _ = writeln!(out, "  neighbor {who} activate");
            let more = match role {
                Role::Client => "route-reflector-client".to_owned(),
                Role::Limited => format!("maximum-prefix {PREFIXES_MAX}"),
                Role::Paths => "addpath-tx-all-paths".to_owned(),
                Role::ViaUs => "next-hop-self".to_owned(),
                _ => continue,
            };
            let _ = writeln!(out, "  neighbor {who} {more}");
        }
        out += " exit-address-family\n";
    }
    out
}

//! The daemons under test: their configuration, command line and version.

use crate::engine::PeerSpec;
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const DUT_AS: u32 = 65_000;
pub(crate) const DUT_IP: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
pub(crate) const PORT: u16 = 179;

/// The configuration of `twilld bgp`.
const TWILL: &str = include_str!("../examples/twill.yaml.in");

#[derive(Args, Clone, Debug)]
pub(crate) struct DutOptions {
    /// Binary to run instead of the daemon's usual one.
    #[arg(long)]
    pub(crate) bin: Option<PathBuf>,
    /// For `--dut exec`: the command; {config}, {dir}, {ip}, {port}, {as} are filled in.
    #[arg(long)]
    pub(crate) exec_cmd: Option<String>,
    /// For `--dut exec`: the configuration's template (see README).
    #[arg(long)]
    pub(crate) exec_template: Option<PathBuf>,
    /// For `--dut exec`: name to report, instead of `exec`.
    #[arg(long)]
    pub(crate) exec_name: Option<String>,
    /// For `--dut exec`: version to report.
    #[arg(long, default_value = "")]
    pub(crate) exec_version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Twill,
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    Rustybgp,
    /// Copies updates and does no BGP work: the bench's own ceiling.
    Relay,
    /// Any other daemon, by command and configuration template.
    Exec,
}

impl Kind {
    pub(crate) fn name(self, options: &DutOptions) -> String {
        match (self, &options.exec_name) {
            (Kind::Exec, Some(name)) => name.clone(),
            _ => format!("{self:?}").to_lowercase(),
        }
    }

    fn binary(self, options: &DutOptions) -> Result<PathBuf> {
        if let Some(bin) = &options.bin {
            return Ok(bin.clone());
        }
        Ok(match self {
            Kind::Twill => std::env::current_exe()?.with_file_name("twilld"),
            Kind::Bird => "/usr/sbin/bird".into(),
            Kind::Frr => "/usr/lib/frr/bgpd".into(),
            Kind::Gobgp => "/usr/bin/gobgpd".into(),
            Kind::Openbgpd => "/usr/sbin/bgpd".into(),
            Kind::Rustybgp => "rustybgpd".into(),
            Kind::Relay => std::env::current_exe()?,
            Kind::Exec => bail!("the exec daemon has no binary of its own"),
        })
    }

    pub(crate) fn version(self, options: &DutOptions) -> String {
        let flag = match self {
            Kind::Relay => return env!("CARGO_PKG_VERSION").into(),
            Kind::Exec => return options.exec_version.clone(),
            Kind::Openbgpd => "-V",
            _ => "--version",
        };
        let Ok(bin) = self.binary(options) else {
            return String::new();
        };
        let Ok(out) = Command::new(bin).arg(flag).output() else {
            return String::new();
        };
        let text = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    fn config(self, peers: &[PeerSpec], dir: &Path, options: &DutOptions) -> Result<String> {
        match self {
            Kind::Twill => render(TWILL, peers),
            Kind::Bird => bird(peers),
            Kind::Frr => frr(peers),
            Kind::Gobgp | Kind::Rustybgp => gobgp(peers),
            Kind::Openbgpd => openbgpd(peers, dir),
            Kind::Relay => Ok(String::new()),
            Kind::Exec => {
                let path = options
                    .exec_template
                    .as_ref()
                    .context("--exec-template is missing")?;
                let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                render(&text, peers)
            }
        }
    }

    fn command(self, dir: &Path, config: &Path, options: &DutOptions) -> Result<Command> {
        if self == Kind::Exec {
            let line = options.exec_cmd.as_ref().context("--exec-cmd is missing")?;
            let line = line
                .replace("{config}", &config.to_string_lossy())
                .replace("{dir}", &dir.to_string_lossy())
                .replace("{ip}", &DUT_IP.to_string())
                .replace("{port}", &PORT.to_string())
                .replace("{as}", &DUT_AS.to_string());
            let mut cmd = Command::new("/bin/sh");
            cmd.arg("-c").arg(format!("exec {line}"));
            return Ok(cmd);
        }
        let mut cmd = Command::new(self.binary(options)?);
        let ip = DUT_IP.to_string();
        match self {
            Kind::Twill => {
                cmd.arg("bgp").arg("--config").arg(config);
            }
            Kind::Bird => {
                cmd.arg("-f")
                    .arg("-c")
                    .arg(config)
                    .arg("-s")
                    .arg(dir.join("bird.ctl"));
            }
            Kind::Frr => {
                cmd.args(["-S", "-Z", "-A", "127.0.0.1", "-P", "0", "-p", "179", "-l", &ip])
                    .arg("-f")
                    .arg(config)
                    .arg("-i")
                    .arg(dir.join("bgpd.pid"))
                    .arg("--vty_socket")
                    .arg(dir);
            }
            Kind::Gobgp => {
                cmd.arg("-f").arg(config).args(["--api-hosts", "127.0.0.1:50051"]);
            }
            Kind::Rustybgp => {
                cmd.arg("-f").arg(config).args(["--api-hosts", "127.0.0.1:50051"]);
            }
            Kind::Openbgpd => {
                cmd.arg("-d").arg("-f").arg(config);
            }
            Kind::Relay => {
                cmd.args(["relay", "--listen", &format!("{DUT_IP}:{PORT}")])
                    .args(["--asn", &DUT_AS.to_string()]);
            }
            Kind::Exec => unreachable!("handled above"),
        }
        Ok(cmd)
    }
}

fn bird(peers: &[PeerSpec]) -> Result<String> {
    let mut out = format!("router id {DUT_IP};\nprotocol device {{}}\n");
    for (i, p) in peers.iter().enumerate() {
        let rr = if p.ibgp { " rr client;" } else { "" };
        writeln!(
            out,
            "protocol bgp p{i} {{ local {DUT_IP} as {DUT_AS}; neighbor {} as {}; direct; \
             passive yes; hold time 180;{rr} ipv4 {{ import all; export all; }}; }}",
            p.ip, p.asn
        )?;
    }
    Ok(out)
}

/// `coalesce-time 0`: else the first updates wait for 1 s and 50 ms for every peer.
fn frr(peers: &[PeerSpec]) -> Result<String> {
    let mut out = format!(
        "frr defaults datacenter\nlog stdout warnings\nrouter bgp {DUT_AS}\n \
         bgp router-id {DUT_IP}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         coalesce-time 0\n timers bgp 60 180\n"
    );
    for p in peers {
        writeln!(out, " neighbor {} remote-as {}", p.ip, p.asn)?;
        writeln!(out, " neighbor {} passive", p.ip)?;
        writeln!(out, " neighbor {} advertisement-interval 0", p.ip)?;
    }
    out += " address-family ipv4 unicast\n";
    for p in peers {
        writeln!(out, "  neighbor {} activate", p.ip)?;
        if p.ibgp {
            writeln!(out, "  neighbor {} route-reflector-client", p.ip)?;
        }
    }
    out += " exit-address-family\n";
    Ok(out)
}

fn gobgp(peers: &[PeerSpec]) -> Result<String> {
    let mut out = format!(
        "[global.config]\nas = {DUT_AS}\nrouter-id = \"{DUT_IP}\"\nport = {PORT}\n\
         local-address-list = [\"{DUT_IP}\"]\n"
    );
    for p in peers {
        write!(
            out,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.timers.config]\nhold-time = 180\nkeepalive-interval = 60\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
             afi-safi-name = \"ipv4-unicast\"\n",
            p.ip, p.asn
        )?;
        if p.ibgp {
            write!(
                out,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{DUT_IP}\"\n"
            )?;
        }
    }
    Ok(out)
}

fn openbgpd(peers: &[PeerSpec], dir: &Path) -> Result<String> {
    let mut out = format!(
        "AS {DUT_AS}\nrouter-id {DUT_IP}\nlisten on {DUT_IP}\nfib-update no\nholdtime 180\n\
         socket \"{}\"\n",
        dir.join("bgpd.sock").display()
    );
    for p in peers {
        let rr = if p.ibgp { "route-reflector\n" } else { "" };
        write!(
            out,
            "neighbor {} {{\nremote-as {}\npassive\nannounce IPv4 unicast\n{rr}}}\n",
            p.ip, p.asn
        )?;
    }
    out += "allow from any\nallow to any\n";
    Ok(out)
}

/// Fills a template: `{{name}}` values, and one repeat of `{{#peers}} .. {{/peers}}` a peer.
fn render(template: &str, peers: &[PeerSpec]) -> Result<String> {
    const BEGIN: &str = "{{#peers}}";
    const END: &str = "{{/peers}}";
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once(BEGIN) {
        let (block, after) = tail.split_once(END).context("{{#peers}} without {{/peers}}")?;
        out += before;
        for (i, p) in peers.iter().enumerate() {
            out += &block
                .replace("{{peer_index}}", &i.to_string())
                .replace("{{peer_ip}}", &p.ip.to_string())
                .replace("{{peer_as}}", &p.asn.to_string())
                .replace("{{ibgp}}", if p.ibgp { "true" } else { "false" });
        }
        rest = after;
    }
    out += rest;
    Ok(out
        .replace("{{ip}}", &DUT_IP.to_string())
        .replace("{{port}}", &PORT.to_string())
        .replace("{{router_id}}", &DUT_IP.to_string())
        .replace("{{as}}", &DUT_AS.to_string()))
}

/// A running daemon; stopped on drop.
pub(crate) struct Dut {
    child: Child,
}

impl Dut {
    pub(crate) fn start(kind: Kind, peers: &[PeerSpec], dir: &Path, options: &DutOptions) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let config = dir.join("dut.conf");
        fs::write(&config, kind.config(peers, dir, options)?)?;
        if kind == Kind::Openbgpd {
            // It refuses a configuration that others can read or write.
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        }
        let log = File::create(dir.join("dut.log"))?;
        let child = kind
            .command(dir, &config, options)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {kind:?}"))?;
        Ok(Dut { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it is no longer running.
    pub(crate) fn exited(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|s| s.to_string())
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        let stop_by = Instant::now() + Duration::from_secs(10);
        let mut killed = false;
        // A failed signal means that it has ended; try_wait then says so.
        let _ = kill(pid, Signal::SIGTERM);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > stop_by && !killed {
                let _ = self.child.kill();
                killed = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_repeats_its_peer_block() {
        let peers = [1u8, 2].map(|i| PeerSpec {
            ip: Ipv4Addr::new(10, 128, 1, i),
            asn: u32::from(i),
            ibgp: i == 2,
            sender: None,
            receiver: true,
        });
        let text = "as={{as}}\n{{#peers}}{{peer_ip}}/{{peer_as}}/{{ibgp}}\n{{/peers}}end";
        assert_eq!(
            render(text, &peers).unwrap(),
            "as=65000\n10.128.1.1/1/false\n10.128.1.2/2/true\nend"
        );
    }
}

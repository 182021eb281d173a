//! Two network namespaces joined by a veth pair: one for the daemon, one for the bench.

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

pub(crate) struct Net {
    home: File,
    dut: String,
    peers: String,
}

impl Net {
    /// Makes the namespaces and moves this thread into the peers' one.
    pub(crate) fn create(dut_ip: Ipv4Addr, peer_ips: &[Ipv4Addr]) -> Result<Self> {
        let pid = std::process::id();
        let net = Net {
            home: File::open("/proc/self/ns/net")?,
            dut: format!("bench-d{pid}"),
            peers: format!("bench-p{pid}"),
        };
        ip(&["netns", "add", &net.dut], "")?;
        ip(&["netns", "add", &net.peers], "")?;
        let (dut, peers) = (net.dut.as_str(), net.peers.as_str());
        ip(
            &["-n", dut, "-batch", "-"],
            &format!(
                "link set lo up\nlink add veth0 type veth peer name veth0 netns {peers}\n\
             addr add {dut_ip}/16 dev veth0\nlink set veth0 up\n"
            ),
        )?;
        let mut batch = String::from("link set lo up\nlink set veth0 up\n");
        for peer in peer_ips {
            batch += &format!("addr add {peer}/16 dev veth0\n");
        }
        ip(&["-n", peers, "-batch", "-"], &batch)?;
        enter(&net.peers)?;
        Ok(net)
    }

    /// Runs `f` inside the daemon's namespace; children it spawns stay there.
    pub(crate) fn in_dut<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.dut)?;
        let out = f();
        enter(&self.peers)?;
        out
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Err(e) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("cannot return to the first network namespace: {e}");
        }
        for name in [&self.dut, &self.peers] {
            if let Err(e) = ip(&["netns", "del", name], "") {
                eprintln!("cannot delete the namespace {name}: {e:#}");
            }
        }
    }
}

fn enter(name: &str) -> Result<()> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).with_context(|| format!("open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {path}"))
}

fn ip(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip")?;
    child
        .stdin
        .take()
        .context("stdin of ip")?
        .write_all(input.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(
        out.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}

//! One containerd a node: in the node's network namespace (by `nsenter`; `ip netns exec` would hide the cgroups), with root,
//! state and socket of its own, and in mount and process namespaces of its own, so that whatever ends it ends its pods.

use super::cri::Client;
use super::image;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use twill_lab::child::{Child, Life};
use twill_lab::lab::Lab;
use twill_lab::run::{self, wait_for};

/// Debian's plugins that stand behind ours, and the one that CRI needs for `lo`.
const OTHERS: [&str; 3] = ["portmap", "bandwidth", "loopback"];
const CNI_PLUGINS: &str = "/usr/lib/cni";
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Containerd {
    child: Child,
    dir: PathBuf,
    /// Where containerd wants its sockets: held by every containerd of every lab, and removed with the last.
    run: File,
    /// Below each controller's hierarchy.
    cgroup: String,
}

impl Containerd {
    /// Starts it on a node whose daemon runs, with the image, and Twill put in by `twilld install-cni`.
    pub(crate) fn start(lab: &Lab, node: &str) -> Self {
        let dir = lab.state.member_dir(node).join("ctd");
        for name in ["bin", "conf", "run", "etc"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for plugin in OTHERS {
            fs::copy(Path::new(CNI_PLUGINS).join(plugin), dir.join("bin").join(plugin)).unwrap();
        }
        fs::write(dir.join("config.toml"), config(&dir)).unwrap();
        fs::write(dir.join("start.sh"), script(&dir)).unwrap();
        let held = hold(RUN);
        let words = ["-m", "-p", "-f", "--mount-proc", "--kill-child", "sh"];
        let mut args: Vec<String> = words.map(str::to_owned).to_vec();
        args.push(dir.join("start.sh").display().to_string());
        let child = Child::start(
            &format!("containerd {node}"),
            &lab.ns(node),
            Path::new("unshare"),
            &args,
            &dir.join("log"),
            Life::EndsWithUs,
        );
        let containerd = Self {
            child: child.unwrap(),
            dir,
            run: held,
            cgroup: format!("/twill-lab-{}-{node}", lab.state.lab),
        };
        let image = image::write(&containerd.dir);
        wait_for("containerd answers", START_TIMEOUT, || {
            containerd.child.check()?;
            run::output(&mut containerd.ctr(&["version"]), b"")
        })
        .unwrap_or_else(|e| panic!("{e:#}{}", containerd.child.tail()));
        let image = image.display().to_string();
        let import = ["images", "import", "--snapshotter", "native", &image];
        run::output(&mut containerd.ctr(&import), b"").unwrap();
        containerd
    }

    /// Runs `twilld install-cni` for this node.
    pub(crate) fn install(&self, lab: &Lab, node: &str, more: &[&str]) -> run::Finished {
        let mut command = Command::new(lab.bin("twilld").unwrap());
        command
            .arg("install-cni")
            .arg("--bin-dir")
            .arg(self.dir.join("bin"))
            .arg("--conf-dir")
            .arg(self.dir.join("conf"))
            .arg("--run-dir")
            .arg(lab.run_dir(node))
            .args(more);
        run::run(&mut command, b"", START_TIMEOUT).unwrap()
    }

    pub(crate) fn cri(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    pub(crate) fn cgroup(&self) -> String {
        self.cgroup.clone()
    }

    pub(crate) fn conf_dir(&self) -> PathBuf {
        self.dir.join("conf")
    }

    pub(crate) fn tail(&self) -> String {
        self.child.tail()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// `ctr` from outside: what needs the socket alone.
    pub(crate) fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(self.socket())
            .args(["-n", "k8s.io"])
            .args(words);
        command
    }

    /// `ctr` in containerd's own namespaces, where it finds plugins and configuration in their usual places.
    pub(crate) fn ctr_inside(&self, words: &[&str]) -> Command {
        let pid = self.child.process.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let inner = children.split_whitespace().next().unwrap().to_owned();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &inner, "-m", "-p", "-n", "--", "ctr", "-a"])
            .arg(self.socket())
            .args(["-n", "k8s.io"])
            .args(words);
        command
    }
}

/// A directory that is bound over in containerd's own mount namespace, and so must be there outside.
const RUN: &str = "/run/containerd";

/// Makes the directory and holds it, so that nobody removes it.
fn hold(dir: &str) -> File {
    loop {
        fs::create_dir_all(dir).unwrap();
        let Ok(held) = File::open(dir) else { continue };
        held.lock_shared().unwrap();
        if Path::new(dir).exists() {
            return held;
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The last one who holds it takes it away, unless somebody has put something in.
        let _ = self.run.unlock();
        if self.run.try_lock().is_ok() {
            let _ = fs::remove_dir(RUN);
        }
        // The kernel ends every process of its process namespace with it.
        if let Err(error) = self.child.process.kill() {
            eprintln!("containerd is not gone: {error:#}");
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            remove_tree(&hierarchy.path().join(self.cgroup.trim_start_matches('/')));
        }
    }
}

/// A cgroup goes by `rmdir`, children first; its processes may take a moment to be gone.
fn remove_tree(dir: &Path) {
    let children = fs::read_dir(dir).into_iter().flatten().flatten();
    for child in children.filter(|c| c.path().is_dir()) {
        remove_tree(&child.path());
    }
    if dir.is_dir() {
        let gone = wait_for("cgroup", Duration::from_secs(5), || Ok(fs::remove_dir(dir)?));
        if let Err(error) = gone {
            eprintln!("{} is not gone: {error:#}", dir.display());
        }
    }
}

fn config(dir: &Path) -> String {
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
    let dir = dir.display();
    format!(
        "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n[grpc]\naddress = \"{dir}/containerd.sock\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{dir}/opt\"\n\
         {cri}]\nsandbox_image = \"{image}\"\ndisable_tcp_service = true\nstream_server_address = \"127.0.0.1\"\n\
         stream_server_port = \"0\"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n\
         {cri}.containerd]\nsnapshotter = \"native\"\n\
         {cri}.cni]\nbin_dir = \"{dir}/bin\"\nconf_dir = \"{dir}/conf\"\n",
        image = image::NAME
    )
}

/// Puts plugins and configuration where `ctr run --cni` looks, for nobody but this containerd.
fn script(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "set -e\nmount --bind {dir}/run /run/containerd\n\
         mount -t tmpfs tmpfs /opt\nmkdir -p /opt/cni/bin\nmount --bind {dir}/bin /opt/cni/bin\n\
         mount -t tmpfs tmpfs {dir}/etc\nmkdir {dir}/etc/upper {dir}/etc/work\n\
         mount -t overlay overlay -o lowerdir=/etc,upperdir={dir}/etc/upper,workdir={dir}/etc/work /etc\n\
         mkdir -p /etc/cni/net.d\nmount --bind {dir}/conf /etc/cni/net.d\n\
         exec containerd -c {dir}/config.toml\n"
    )
}

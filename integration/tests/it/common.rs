//! Labs for tests: a name of their own, gone again whatever happens.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use twill_lab::child::Life;
use twill_lab::demo::{self, Scene};
use twill_lab::lab::{self, Lab};
use twill_lab::pods::PodSpec;
use twill_lab::probe::Endpoint;
use twill_lab::run::{self, Finished};
use twill_lab::state::PodName;
use twill_lab::topology::Topology;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A lab name that no other test and no other run uses.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new() -> Self {
        lab::check_tools().unwrap();
        Self(format!(
            "t{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// `twill-lab` with this name, to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        run::run(&mut self.command(words), b"", std::time::Duration::from_secs(180)).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twill-lab"));
        command.args(["--name", &self.0]).args(words);
        command
    }

    /// Names of the namespaces of this lab that exist.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}-", self.0);
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        names
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| n.starts_with(&prefix))
            .collect()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = lab::down(&self.0) {
            let left = format!("lab {} is not cleaned up: {error:#}", self.0);
            // A test that fails already has its own news.
            assert!(std::thread::panicking(), "{left}");
            eprintln!("{left}");
        }
    }
}

/// Where the workspace's debug binaries are.
pub(crate) fn bin() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_twill-lab"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A lab without nodes: network, etcd and BIRD.
pub(crate) fn bare(name: &Name) -> Lab {
    Lab::up(&name.0, Topology::one_rack().unwrap(), &bin(), Life::EndsWithUs).unwrap()
}

/// Everything up to step 3: nodes ready and peered, no pods.
pub(crate) fn nodes(name: &Name) -> Scene {
    let options = demo::Options {
        name: name.0.clone(),
        topology: Topology::one_rack().unwrap(),
        bin: bin(),
        keep: false,
        sabotage: false,
    };
    let mut scene = Scene::new(options);
    demo::raise(&mut scene).unwrap();
    demo::fabric::peer(&mut scene).unwrap();
    scene
}

/// Everything up to step 4: six pods.
pub(crate) fn pods(name: &Name) -> Scene {
    let mut scene = nodes(name);
    demo::attach::attach(&mut scene).unwrap();
    scene
}

/// Attaches a pod, `namespace/name`, and says where it is.
pub(crate) fn pod(lab: &mut Lab, name: &str, node: &str) -> Endpoint {
    let name: PodName = name.parse().unwrap();
    lab.add_pod(&PodSpec::new(name.clone(), node)).unwrap();
    let pod = lab.state.pod(&name).unwrap();
    let Some(IpAddr::V4(address)) = pod.address else {
        panic!("{} has no IPv4 address", pod.full_name());
    };
    Endpoint {
        name: pod.full_name(),
        netns: pod.netns.clone(),
        address,
    }
}

/// Keys of the store that name `what`.
pub(crate) fn keys_of(lab: &Lab, what: &str) -> Vec<String> {
    let keys = lab
        .etcdctl(&["get", "--prefix", "/calico/", "--keys-only"])
        .unwrap();
    keys.lines()
        .filter(|k| k.contains(what))
        .map(str::to_owned)
        .collect()
}

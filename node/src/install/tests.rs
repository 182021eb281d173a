//! Every point at which an installation can be stopped, and what a runtime sees then.

use super::*;
use std::collections::BTreeMap;

/// A plugin that answers VERSION and does nothing else.
const SCRIPT: &str =
    "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'\n";
const CALICOS: &str = r#"{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"type":"calico"}]}"#;

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("conf")).unwrap();
        fs::write(host.path("conf/10-calico.conflist"), CALICOS).unwrap();
        fs::write(host.path("conf/87-notes.txt"), "not a configuration").unwrap();
        fs::write(host.path("plugin"), SCRIPT).unwrap();
        fs::set_permissions(host.path("plugin"), fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn job(&self, change: impl FnOnce(&mut Flags)) -> Job {
        let mut flags = Flags {
            bin_dir: self.path("bin"),
            conf_dir: self.path("conf"),
            conf_name: "20-twill.conflist".into(),
            network: "k8s-pod-network".into(),
            plugin: Some(self.path("plugin")),
            run_dir: "/run/twill".into(),
            cni_version: "1.0.0".into(),
            mtu: 0,
            chain: "auto".into(),
            wait: None,
            uninstall: false,
        };
        change(&mut flags);
        Job::new(flags).unwrap()
    }

    fn install(&self) -> Job {
        self.job(|_| ())
    }

    fn uninstall(&self) -> Job {
        self.job(|f| f.uninstall = true)
    }

    /// What a runtime sees: whole files by name.
    fn seen(&self) -> BTreeMap<String, Vec<u8>> {
        let mut seen = BTreeMap::new();
        for name in conflist::names(&self.path("conf")) {
            let bytes = fs::read(self.path("conf").join(&name)).unwrap();
            seen.insert(name, bytes);
        }
        if let Ok(bytes) = fs::read(self.path("bin/twill")) {
            seen.insert("twill".into(), bytes);
        }
        seen
    }

    /// A configuration of ours is whole, and has its binary, whole; what belongs to others is as it was.
    fn check(&self, when: &str) {
        let seen = self.seen();
        assert_eq!(seen["10-calico.conflist"], CALICOS.as_bytes(), "{when}");
        assert!(fs::read(self.path("conf/87-notes.txt")).is_ok(), "{when}");
        if let Some(binary) = seen.get("twill") {
            assert_eq!(binary, SCRIPT.as_bytes(), "{when}");
        }
        if let Some(conf) = seen.get("20-twill.conflist") {
            let conf: serde_json::Value = serde_json::from_slice(conf).unwrap();
            assert_eq!(conf["plugins"][0]["type"], "twill", "{when}");
            assert!(
                seen.contains_key("twill"),
                "{when}: a configuration without its plugin"
            );
        }
        let ours = |n: &String| n.contains("twill") && n != "20-twill.conflist" && n != "twill";
        assert!(!seen.keys().any(ours), "{when}: {:?}", seen.keys());
    }

    fn leftovers(&self) -> usize {
        let staged = |dir: &str| {
            let names = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
            names
                .filter(|e| e.file_name().to_string_lossy().starts_with(STAGED))
                .count()
        };
        staged("bin") + staged("conf")
    }
}

fn all(job: &Job) {
    job.steps().into_iter().for_each(|s| job.perform(s).unwrap());
}

#[test]
fn stopped_anywhere_an_installation_is_never_half_seen_and_the_next_one_completes_it() {
    let steps = Host::new().install().steps().len();
    for done in 0..=steps {
        for torn in [false, true] {
            let host = Host::new();
            let job = host.install();
            for step in job.steps().into_iter().take(done) {
                job.perform(step).unwrap();
                host.check(&format!("after {step:?}"));
            }
            if torn {
                // Stopped in the middle of writing.
                for staged in [job.staged_binary(), job.staged_conf()] {
                    if let Some(dir) = staged.parent().filter(|d| d.exists()) {
                        assert!(dir.is_dir());
                        fs::write(&staged, "{\"plug").unwrap();
                    }
                }
            }
            host.check(&format!("stopped after {done} steps"));
            all(&host.install());
            host.check("completed");
            assert!(host.seen().contains_key("20-twill.conflist"));
            assert_eq!(host.leftovers(), 0, "after {done} steps, torn: {torn}");
        }
    }
}

#[test]
fn the_checker_sees_a_configuration_without_its_plugin() {
    let host = Host::new();
    let job = host.install();
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        job.perform(Step::StageConf).unwrap();
        job.perform(Step::PlaceConf).unwrap();
        host.check("configuration first");
    }));
    assert!(wrong.is_err());
}

#[test]
fn stopped_anywhere_an_uninstallation_takes_the_configuration_first() {
    for done in 0..=Host::new().uninstall().steps().len() {
        let host = Host::new();
        all(&host.install());
        let job = host.uninstall();
        for step in job.steps().into_iter().take(done) {
            job.perform(step).unwrap();
            host.check(&format!("after {step:?}"));
        }
        all(&host.uninstall());
        all(&host.uninstall());
        host.check("uninstalled");
        assert_eq!(host.seen().keys().collect::<Vec<_>>(), ["10-calico.conflist"]);
        assert_eq!(host.leftovers(), 0);
    }
}

#[test]
fn what_belongs_to_others_is_neither_overwritten_nor_removed() {
    let host = Host::new();
    let onto = |f: &mut Flags| f.conf_name = "10-calico.conflist".into();
    let job = host.job(onto);
    let error = job.perform(Step::StageBinary).unwrap_err();
    assert!(error.to_string().contains("10-calico.conflist"), "{error}");
    all(&host.job(|f| {
        onto(f);
        f.uninstall = true;
    }));
    host.check("nothing done");
    // Another network's configuration needs the plugin.
    all(&host.install());
    all(&host.job(|f| f.conf_name = "30-storage.conflist".into()));
    all(&host.uninstall());
    let seen = host.seen();
    assert!(seen.contains_key("twill") && seen.contains_key("30-storage.conflist"));
    assert!(!seen.contains_key("20-twill.conflist"));
}

#[test]
fn a_plugin_that_is_none_is_not_installed() {
    for (what, text) in [
        ("answers nothing", "#!/bin/sh\nexit 0\n"),
        ("is no program", "\u{7f}ELF"),
        (
            "speaks other versions",
            "#!/bin/sh\necho '{\"supportedVersions\":[\"0.2.0\"]}'\n",
        ),
    ] {
        let host = Host::new();
        fs::write(host.path("plugin"), text).unwrap();
        let job = host.install();
        let outcome = job.steps().into_iter().try_for_each(|s| job.perform(s));
        assert!(outcome.is_err(), "{what}");
        assert!(!host.path("bin/twill").exists(), "{what}");
        host.check(what);
    }
}

#[test]
fn without_a_daemon_that_serves_pods_no_configuration_is_written() {
    let host = Host::new();
    let job = host.job(|f| {
        f.wait = Some(0);
        f.run_dir = host.path("run");
    });
    let error = job
        .steps()
        .into_iter()
        .try_for_each(|s| job.perform(s))
        .unwrap_err();
    assert!(format!("{error:#}").contains("cni.sock"), "{error:#}");
    assert!(host.path("bin/twill").exists() && !host.seen().contains_key("20-twill.conflist"));
}

#[test]
fn the_chain_is_what_is_there_or_what_was_asked_for() {
    let host = Host::new();
    fs::create_dir_all(host.path("bin")).unwrap();
    fs::write(host.path("bin/portmap"), SCRIPT).unwrap();
    fs::write(host.path("bin/bandwidth"), SCRIPT.replace(r#","1.0.0"]"#, "]")).unwrap();
    for chained in ["bin/portmap", "bin/bandwidth"] {
        fs::set_permissions(host.path(chained), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let chain = |list: &str| host.job(|f| f.chain = list.into()).chain();
    assert_eq!(chain("auto").unwrap(), ["portmap"]);
    assert_eq!(chain("none").unwrap(), [""; 0]);
    let error = format!("{:#}", chain("portmap,bandwidth").unwrap_err());
    assert!(
        error.contains("bandwidth does not speak version 1.0.0"),
        "{error}"
    );
    fs::remove_file(host.path("bin/bandwidth")).unwrap();
    let error = format!("{:#}", chain("bandwidth").unwrap_err());
    assert!(error.contains("is not there"), "{error}");
    assert!(chain("tuning").is_err());
    let job = host.job(|f| f.mtu = 1400);
    all(&job);
    let conf: serde_json::Value = serde_json::from_slice(&host.seen()["20-twill.conflist"]).unwrap();
    assert_eq!(conf["name"], "k8s-pod-network");
    assert_eq!(
        (&conf["plugins"][0]["mtu"], &conf["plugins"][0]["run_dir"]),
        (&1400.into(), &"/run/twill".into())
    );
    assert_eq!(conf["plugins"][1]["capabilities"]["portMappings"], true);
}

#[test]
fn flags_that_cannot_be_are_refused_by_name() {
    let host = Host::new();
    let base = host.install().flags;
    let check = |change: fn(&mut Flags), named: &str| {
        let mut flags = base.clone();
        change(&mut flags);
        let error = Job::new(flags).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    };
    check(|f| f.conf_name = "twill.txt".into(), "--conf-name");
    check(|f| f.conf_name = "../x.conflist".into(), "--conf-name");
    check(|f| f.conf_name = ".hidden.conflist".into(), "--conf-name");
    check(|f| f.network = "a b".into(), "--network");
    check(|f| f.bin_dir = "bin".into(), "--bin-dir");
}

/// A daemon that serves pods only from the third question on: says then whether `early` was there already, and goes on answering.
fn serve(socket: &Path, early: PathBuf) -> std::sync::mpsc::Receiver<bool> {
    use std::io::Read;
    use twill_proto::cni::{Done, Error, LENGTH_BYTES, Reply, encode, payload_length, reply::Outcome};
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (question, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut prefix = [0; LENGTH_BYTES];
            stream.read_exact(&mut prefix).unwrap();
            let mut payload = vec![0; payload_length(prefix).unwrap()];
            stream.read_exact(&mut payload).unwrap();
            let outcome = if question < 2 {
                Outcome::Error(Error::default())
            } else {
                // The test may have heard it before.
                let _ = tell.send(early.exists());
                Outcome::Done(Done::default())
            };
            let reply = Reply {
                outcome: Some(outcome),
            };
            stream.write_all(&encode(&reply).unwrap()).unwrap();
        }
    });
    told
}

#[tokio::test]
async fn the_daemon_installs_once_it_serves_pods_and_leaves_or_takes_the_configuration_at_its_stop() {
    for (mode, stays) in [("keep", true), ("until-stop", false)] {
        let host = Host::new();
        let text = |name: &str| Some(host.path(name).display().to_string());
        let given = daemon::Given {
            bin_dir: text("bin"),
            conf_dir: text("conf"),
            conf_name: Some("20-twill.conflist".into()),
            plugin: text("plugin"),
            ..daemon::Given::default()
        };
        let wanted = daemon::Wanted::new(mode, given, host.path("run")).unwrap();
        let served = serve(&host.path("run/cni.sock"), host.path("bin"));
        let stop = tokio_util::sync::CancellationToken::new();
        let installs = tokio::spawn(daemon::keep(wanted, stop.clone()));
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        while !host.seen().contains_key("20-twill.conflist") {
            assert!(tokio::time::Instant::now() < end, "no configuration");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!served.recv().unwrap(), "installed before pods were served");
        host.check(mode);
        stop.cancel();
        installs.await.unwrap().unwrap();
        assert_eq!(host.seen().contains_key("20-twill.conflist"), stays, "{mode}");
        assert!(host.path("bin/twill").exists(), "{mode}");
        host.check(mode);
    }
}

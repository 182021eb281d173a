//! The doors: scripts and the command line itself.

use crate::common::Name;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use twill_lab::run;

fn setup() -> String {
    format!("{}/../scripts/setup", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn setup_refuses_everybody_but_root_with_a_clear_sentence() {
    // `nobody` may not be able to read the checkout: the script comes in on standard input.
    let text = fs::read(setup()).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--",
        "sh",
        "-s",
    ]);
    let finished = run::run(command.current_dir("/"), &text, Duration::from_secs(20)).unwrap();
    assert!(!finished.status.success());
    assert!(
        finished.said().contains("must run as root"),
        "{}",
        finished.said()
    );
}

/// Runs the script's install step with an `apt-get` of ours and one package that is missing.
fn install_with(apt_get: &str, directory: &Path) -> run::Finished {
    let script = fs::read_to_string(setup()).unwrap();
    let (definitions, _) = script.split_once("\nif [ \"$(id -u)\"").unwrap();
    let script = format!("{definitions}\npackages=a-package-that-is-missing\ninstall_packages\n");
    fs::write(directory.join("apt-get"), format!("#!/bin/sh\n{apt_get}\n")).unwrap();
    run::output(
        Command::new("chmod").arg("755").arg(directory.join("apt-get")),
        b"",
    )
    .unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display());
    let mut command = Command::new("sh");
    command
        .arg("-s")
        .env("PATH", path)
        .env("POLICY_RC_D", directory.join("policy-rc.d"));
    run::run(
        command.current_dir(directory),
        script.as_bytes(),
        Duration::from_secs(20),
    )
    .unwrap()
}

#[test]
fn services_are_forbidden_while_apt_runs_and_the_users_own_policy_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy-rc.d");
    for (own, apt_get, ends_well) in [
        (None, "sh ./policy-rc.d; echo $? >> seen", true),
        (Some("the user's own"), "sh ./policy-rc.d; echo $? >> seen", true),
        (Some("the user's own"), "exit 100", false),
        (Some("the user's own"), "kill -TERM $PPID; sleep 1", false),
        (None, "exit 100", false),
    ] {
        match own {
            Some(text) => fs::write(&policy, text).unwrap(),
            None => drop(fs::remove_file(&policy)),
        }
        let finished = install_with(apt_get, directory.path());
        assert_eq!(
            finished.status.success(),
            ends_well,
            "{apt_get}: {}",
            finished.said()
        );
        assert_eq!(fs::read_to_string(&policy).ok().as_deref(), own, "{apt_get}");
    }
    // Update and install, twice each.
    assert_eq!(
        fs::read_to_string(directory.path().join("seen")).unwrap(),
        "101\n101\n101\n101\n"
    );
}

#[test]
fn a_policy_that_a_killed_run_left_is_replaced_by_the_users_own() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy-rc.d");
    fs::write(&policy, "the user's own").unwrap();
    let killed = install_with("kill -KILL $PPID; sleep 1", directory.path());
    assert!(!killed.status.success());
    assert_ne!(fs::read_to_string(&policy).unwrap(), "the user's own");
    assert!(install_with("exit 0", directory.path()).status.success());
    assert_eq!(fs::read_to_string(&policy).unwrap(), "the user's own");
}

#[test]
fn a_command_on_a_lab_that_is_not_there_says_how_to_get_one() {
    let name = Name::new();
    for words in [
        &["status"][..],
        &["exec", "n1", "--", "true"],
        &["pod", "add", "n1", "web"],
        &["ctl", "--", "get", "nodes"],
    ] {
        let finished = name.run(words);
        assert!(!finished.status.success());
        assert!(
            finished.stderr.contains("twill-lab up --name"),
            "{words:?}: {}",
            finished.stderr
        );
    }
    let finished = name.run(&["down"]);
    assert!(
        finished.status.success() && finished.stdout.contains("there was none"),
        "{finished:?}"
    );
}

#[test]
fn a_bad_topology_file_is_refused_by_name_and_field() {
    let name = Name::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    fs::write(&file, "asNumber: many\n").unwrap();
    let finished = name.run(&["up", "--topology", &file.to_string_lossy()]);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("bad.yaml") && finished.stderr.contains("asNumber"),
        "{}",
        finished.stderr
    );
    assert!(name.namespaces().is_empty());
}

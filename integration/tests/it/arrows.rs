//! Who may depend on whom: the arrows of ARCHITECTURE.md, checked on the manifests and on what cargo would really build.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use twill_lab::run;

/// Each package and those of ours that it may name in its manifest, for any purpose.
const ARROWS: &[(&str, &[&str])] = &[
    ("twill-model", &[]),
    ("twill-proto", &["twill-model"]),
    ("twill-datastore", &["twill-model"]),
    ("twill-bgp", &[]),
    ("twill-ipam", &["twill-model", "twill-datastore"]),
    ("twill-felix", &["twill-model"]),
    ("twill", &["twill-proto"]),
    ("twillctl", &["twill-proto", "twill-model"]),
    (
        "twilld",
        &[
            "twill-model",
            "twill-proto",
            "twill-datastore",
            "twill-bgp",
            "twill-ipam",
            "twill-felix",
        ],
    ),
    ("bgpbench", &[]),
    ("bgpcases", &[]),
    (
        "twill-ipam-rig",
        &["twill-model", "twill-datastore", "twill-ipam"],
    ),
    (
        "twill-lab",
        &[
            "twill-model",
            "twill-proto",
            "twill-datastore",
            "twill-bgp",
            "twill-ipam",
            "twill-felix",
        ],
    ),
];

/// What must not be built for a package, tests included where the third field says so.
const WITHOUT: &[(&str, &str, &str)] = &[
    ("twill-ipam", "etcd-client", "normal,build,dev"),
    ("twill-model", "tokio", "normal"),
    ("twill", "tonic", "normal"),
    ("twill", "tokio", "normal"),
    ("twill", "twill-model", "normal"),
    ("twillctl", "etcd-client", "normal"),
    ("twillctl", "twill-datastore", "normal"),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    run::output(command.current_dir(directory).args(words), b"").unwrap()
}

/// Every dependency on one of ours that no arrow allows.
fn forbidden(directory: &Path) -> Vec<String> {
    let text = cargo(
        directory,
        &["metadata", "--no-deps", "--format-version", "1", "--offline"],
    );
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = arrows.get(name) else {
            found.push(format!("{name} has no arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if (on.starts_with("twill")) && on != name && !allowed.contains(&on) {
                found.push(format!("{name} -> {on}"));
            }
        }
    }
    found
}

/// Whether cargo would build `crate_name` for `package`.
fn builds(package: &str, crate_name: &str, edges: &str) -> bool {
    let tree = cargo(
        &workspace(),
        &[
            "tree", "--locked", "-p", package, "-e", edges, "--prefix", "none", "--format", "{p}",
        ],
    );
    tree.lines()
        .any(|line| line.split_whitespace().next() == Some(crate_name))
}

#[test]
fn no_manifest_names_a_crate_against_the_arrows() {
    assert_eq!(forbidden(&workspace()), Vec::<String>::new());
}

#[test]
fn a_forged_dependency_fails_the_arrow_check() {
    let copy = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    fs::write(copy.path().join("Cargo.toml"), manifest).unwrap();
    for entry in fs::read_dir(workspace()).unwrap().flatten() {
        let from = entry.path().join("Cargo.toml");
        if from.is_file() {
            copy_package(&entry.path(), &copy.path().join(entry.file_name()));
        }
    }
    assert_eq!(forbidden(copy.path()), Vec::<String>::new());
    let felix = copy.path().join("felix/Cargo.toml");
    let text = fs::read_to_string(&felix).unwrap();
    let forged = text.replacen("[dependencies]", "[dependencies]\ntwill-bgp.workspace = true", 1);
    assert_ne!(text, forged);
    fs::write(&felix, forged).unwrap();
    assert_eq!(forbidden(copy.path()), ["twill-felix -> twill-bgp"]);
}

/// A package's manifest with empty files where its targets are: enough for `cargo metadata --no-deps`.
fn copy_package(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(from.join(&directory)).unwrap().flatten() {
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir_all(to.join(&path)).unwrap();
                directories.push(path);
            } else if path.ends_with("Cargo.toml") {
                fs::copy(entry.path(), to.join(path)).unwrap();
            } else if path.extension().is_some_and(|e| e == "rs") {
                fs::write(to.join(path), "").unwrap();
            }
        }
    }
}

#[test]
fn nobody_builds_what_it_must_do_without() {
    for (package, crate_name, edges) in WITHOUT {
        assert!(
            !builds(package, crate_name, edges),
            "{package} would build {crate_name} ({edges})"
        );
    }
}

#[test]
fn the_look_at_the_tree_sees_what_is_there() {
    assert!(builds("twill-lab", "anyhow", "normal"));
    assert!(!builds("twill-lab", "tempfile", "normal"));
    assert!(builds("twill-lab", "tempfile", "normal,dev"));
}

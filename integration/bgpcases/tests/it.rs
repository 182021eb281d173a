//! The cases against our own daemon, and against what must not pass them. Needs root and `twilld` beside the binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::{Command, Output};

fn cases(words: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bgpcases"));
    let out = command.arg("run").args(words).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out, text)
}

#[test]
fn twilld_passes_every_case() {
    let (out, text) = cases(&["--dut", "twill"]);
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn something_that_says_nothing_passes_no_case() {
    let (out, text) = cases(&["--dut", "sink"]);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("Sink: 0 of "), "{text}");
}

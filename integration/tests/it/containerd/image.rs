//! An image without a registry: one layer with one static program, as an OCI layout in a tar (OCI image-spec 1.0).

use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use twill_lab::run;

/// What the image is called.
pub(crate) const NAME: &str = "localhost/twill-pod:1";
/// One small program, on a machine that is busy.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(120);
/// Size of a header and unit of everything in a tar.
const BLOCK: usize = 512;

/// Writes the image to `dir/image.tar`.
pub(crate) fn write(dir: &Path) -> std::path::PathBuf {
    let program = dir.join("pod");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/images/pod.rs");
    let mut rustc = Command::new("rustc");
    rustc
        .args([
            "--edition",
            "2024",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
            "-C",
            "panic=abort",
        ])
        .args(["-C", "target-feature=+crt-static", "-o"])
        .arg(&program)
        .arg(source);
    let built = run::run(&mut rustc, b"", COMPILE_TIMEOUT).unwrap();
    assert!(built.status.success(), "{}", built.said());
    let layer = tar(&[("pod".into(), std::fs::read(&program).unwrap(), 0o755)]);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/pod"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
    let config = config.to_string().into_bytes();
    let describe = |media: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{media}"), "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", &config), "layers": [describe("layer.v1.tar", &layer)]});
    let manifest = manifest.to_string().into_bytes();
    let mut described = describe("manifest.v1+json", &manifest);
    described["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [described]});
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            0o644,
        ),
        ("index.json".to_owned(), index.to_string().into_bytes(), 0o644),
    ];
    for blob in [layer, config, manifest] {
        files.push((format!("blobs/{}", digest(&blob).replace(':', "/")), blob, 0o644));
    }
    let image = dir.join("image.tar");
    std::fs::write(&image, tar(&files)).unwrap();
    image
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A POSIX ustar archive of plain files.
fn tar(files: &[(String, Vec<u8>, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes, mode) in files {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", bytes.len()).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

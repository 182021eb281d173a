//! The network configuration that is installed, and whose a configuration is that is found.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::PLUGIN;

/// Plugins that may stand behind ours, in the order in which they do.
pub(super) const CHAINABLE: [&str; 2] = ["bandwidth", "portmap"];
/// What runtimes take for configurations.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// Longest configuration looked into.
const BYTES_MAX: u64 = 1 << 20;
/// Most files of a directory looked at: there are a handful.
const FILES_MAX: usize = 1024;

/// What the configuration says.
#[derive(Clone, Debug)]
pub(super) struct Conflist<'a> {
    pub(super) cni_version: &'a str,
    pub(super) network: &'a str,
    pub(super) run_dir: &'a Path,
    pub(super) mtu: u32,
    pub(super) chain: &'a [String],
}

impl Conflist<'_> {
    /// The file.
    pub(super) fn render(&self) -> String {
        let mut ours = json!({
            "type": PLUGIN,
            "run_dir": self.run_dir,
            "policy": {"type": "k8s"},
            "capabilities": {"ips": true, "mac": true, "io.kubernetes.cri.pod-annotations": true},
        });
        if self.mtu > 0 {
            ours["mtu"] = self.mtu.into();
        }
        let chained = self.chain.iter().map(|name| match name.as_str() {
            "portmap" => json!({"type": name, "snat": true, "capabilities": {"portMappings": true}}),
            other => json!({"type": other, "capabilities": {other: true}}),
        });
        let plugins: Vec<Value> = std::iter::once(ours).chain(chained).collect();
        let list = json!({"cniVersion": self.cni_version, "name": self.network, "plugins": plugins});
        format!("{list:#}\n")
    }
}

/// Whom a configuration was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// It is not there.
    Nobodys,
    /// It runs our plugin.
    Ours,
    /// It does not, or is no configuration at all.
    Others,
}

/// # Errors
/// The file is there and cannot be read.
pub(super) fn whose(path: &Path) -> Result<Whose> {
    let size = match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Whose::Nobodys),
        other => other
            .with_context(|| format!("reading {}", path.display()))?
            .len(),
    };
    ensure!(
        size <= BYTES_MAX,
        "{} has {size} bytes, {BYTES_MAX} are possible",
        path.display()
    );
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let conf: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_ours = |plugin: &Value| plugin.get("type").and_then(Value::as_str) == Some(PLUGIN);
    let listed = conf.get("plugins").and_then(Value::as_array);
    let ours = is_ours(&conf) || listed.is_some_and(|plugins| plugins.iter().any(is_ours));
    Ok(if ours { Whose::Ours } else { Whose::Others })
}

/// Names of the configurations in a directory, in the order in which runtimes take them.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(FILES_MAX);
    let mut names: Vec<String> = entries
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| {
            let extension = Path::new(name).extension().and_then(|e| e.to_str());
            extension.is_some_and(|e| EXTENSIONS.contains(&e))
        })
        .collect();
    names.sort();
    names
}

/// A configuration's name without what makes runtimes read it.
pub(super) fn stem(name: &str) -> &str {
    name.strip_suffix(".conflist").unwrap_or(name)
}

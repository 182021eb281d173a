//! `twilld install-cni`: the plugin's binary and the network configuration on this host, and off it again.
//!
//! A runtime takes a configuration as soon as it sees one, so the order is the contract: the binary whole before the
//! configuration, the configuration last, each under another name first and then renamed; on the way out the configuration
//! first. Whoever stops in between leaves a host that either has Twill or has not, and names that only the next run knows.

mod conflist;
pub(crate) mod daemon;
mod ready;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use conflist::{Conflist, Whose};

/// The plugin's name on disk and in configurations.
const PLUGIN: &str = "twill";
/// What files under way are called. Runtimes read `*.conf`, `*.conflist` and `*.json` only.
const STAGED: &str = ".twill-install";
/// A plugin of a few megabytes is usual; what is larger is something else.
const PLUGIN_BYTES_MAX: u64 = 256 << 20;

/// How often, and at what distance, a program that was just written is tried while it counts as open for writing.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Where runtimes look for plugins, where for configurations, and what ours is called there.
const BIN_DIR: &str = "/opt/cni/bin";
const CONF_DIR: &str = "/etc/cni/net.d";
const CONF_NAME: &str = "10-twill.conflist";
/// The network that Calico calls so as well.
const NETWORK: &str = "k8s-pod-network";
/// The versions of the spec that a configuration may have.
const CNI_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What every runtime takes: containerd 1.6 refuses 1.1.0.
const CNI_VERSION: &str = "1.0.0";
/// Whatever fits of what is there.
const CHAIN: &str = "auto";

/// Flags of `twilld install-cni`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Flags {
    /// Where the runtime looks for plugins.
    #[arg(long, value_name = "DIR", default_value = BIN_DIR)]
    bin_dir: PathBuf,
    /// Where the runtime looks for network configurations.
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// File name of the configuration; runtimes take the first by name.
    #[arg(long, value_name = "NAME", default_value = CONF_NAME)]
    conf_name: String,
    /// Name of the network; addresses are kept account of under it.
    #[arg(long, value_name = "NAME", default_value = NETWORK)]
    network: String,
    /// The plugin to install [default: `twill` beside this program].
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The daemon's directory of sockets, as in `twilld run`.
    #[arg(long, env = "TWILL_RUN_DIR", value_name = "DIR", default_value = "/run/twill")]
    run_dir: PathBuf,
    /// `cniVersion` of the configuration: containerd 1.6 refuses 1.1.0.
    #[arg(long, value_name = "VERSION", default_value = CNI_VERSION, value_parser = CNI_VERSIONS)]
    cni_version: String,
    /// MTU of pods' links; 0 follows the uplink.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    mtu: u32,
    /// Plugins behind ours, with commas between: of portmap and bandwidth; `auto` takes those that are in the bin dir, `none` none.
    #[arg(long, value_name = "LIST", default_value = CHAIN)]
    chain: String,
    /// Wait this long for the daemon to serve pods, and fail without writing the configuration when it does not.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
    /// Remove the configuration, then the plugin. What belongs to others stays.
    #[arg(long)]
    uninstall: bool,
}

/// One step. After each of them, and in the middle of each, the host either has Twill whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Removes what an earlier run that was stopped left under way.
    Sweep,
    StageBinary,
    /// The binary runs on this machine and speaks the version of the configuration.
    ProbeBinary,
    PlaceBinary,
    AwaitDaemon,
    StageConf,
    PlaceConf,
    RemoveConf,
    RemoveBinary,
}

/// Installs or uninstalls.
///
/// # Errors
/// What was not possible, and to which file; what was done until then stays and can be done again.
pub(crate) fn run(flags: Flags) -> Result<()> {
    let job = Job::new(flags)?;
    job.steps().into_iter().try_for_each(|step| job.perform(step))
}

/// Checked flags.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    flags: Flags,
    plugin: PathBuf,
}

impl Job {
    fn new(flags: Flags) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let name = &flags.conf_name;
        ensure!(
            name.ends_with(".conflist") && !name.starts_with('.') && name.chars().all(legal),
            "--conf-name {name:?}: a file name of letters, digits, '_', '.', '-' that ends in .conflist"
        );
        let network = &flags.network;
        ensure!(
            network.starts_with(|c: char| c.is_ascii_alphanumeric()) && network.chars().all(legal),
            "--network {network:?}: letters, digits, '_', '.', '-', a letter or digit first"
        );
        for (flag, dir) in [
            ("--bin-dir", &flags.bin_dir),
            ("--conf-dir", &flags.conf_dir),
            ("--run-dir", &flags.run_dir),
        ] {
            ensure!(
                dir.is_absolute(),
                "{flag} {}: not an absolute path",
                dir.display()
            );
        }
        let plugin = match &flags.plugin {
            Some(plugin) => plugin.clone(),
            None => std::env::current_exe()
                .context("finding this program, beside which the plugin is")?
                .with_file_name(PLUGIN),
        };
        Ok(Self { flags, plugin })
    }

    fn steps(&self) -> Vec<Step> {
        if self.flags.uninstall {
            return vec![Step::RemoveConf, Step::RemoveBinary, Step::Sweep];
        }
        vec![
            Step::Sweep,
            Step::StageBinary,
            Step::ProbeBinary,
            Step::PlaceBinary,
            Step::AwaitDaemon,
            Step::StageConf,
            Step::PlaceConf,
        ]
    }

    fn perform(&self, step: Step) -> Result<()> {
        match step {
            Step::Sweep => self.sweep(),
            Step::StageBinary => self.stage_binary(),
            Step::ProbeBinary => self.probe_binary(),
            Step::PlaceBinary => {
                place(&self.staged_binary(), &self.binary())?;
                tracing::info!(path = %self.binary().display(), "plugin installed");
                Ok(())
            }
            Step::AwaitDaemon => self.await_daemon(),
            Step::StageConf => self.stage_conf(),
            Step::PlaceConf => {
                place(&self.staged_conf(), &self.conf())?;
                tracing::info!(path = %self.conf().display(), network = self.flags.network, "network configuration installed");
                self.warn_of_earlier();
                Ok(())
            }
            Step::RemoveConf => self.remove_conf(),
            Step::RemoveBinary => self.remove_binary(),
        }
    }

    fn binary(&self) -> PathBuf {
        self.flags.bin_dir.join(PLUGIN)
    }

    fn staged_binary(&self) -> PathBuf {
        self.flags.bin_dir.join(format!("{STAGED}-bin"))
    }

    fn conf(&self) -> PathBuf {
        self.flags.conf_dir.join(&self.flags.conf_name)
    }

    fn staged_conf(&self) -> PathBuf {
        self.flags
            .conf_dir
            .join(format!("{STAGED}-{}", conflist::stem(&self.flags.conf_name)))
    }

    fn sweep(&self) -> Result<()> {
        for staged in [self.staged_binary(), self.staged_conf()] {
            remove(&staged)?;
        }
        Ok(())
    }

    fn stage_binary(&self) -> Result<()> {
        // Refused before anything is written.
        if let Whose::Others = conflist::whose(&self.conf())? {
            bail!(
                "{} is there and was not written for Twill: choose another --conf-name, or remove it",
                self.conf().display()
            );
        }
        self.chain()?;
        let from = &self.plugin;
        let meta = fs::metadata(from)
            .with_context(|| format!("reading the plugin {}: name it with --plugin", from.display()))?;
        ensure!(
            meta.is_file() && meta.len() <= PLUGIN_BYTES_MAX,
            "{} is no program of at most {PLUGIN_BYTES_MAX} bytes",
            from.display()
        );
        let bytes = fs::read(from).with_context(|| format!("reading the plugin {}", from.display()))?;
        make_dir(&self.flags.bin_dir)?;
        stage(&self.staged_binary(), &bytes, 0o755)
    }

    fn probe_binary(&self) -> Result<()> {
        let staged = self.staged_binary();
        let versions = versions(&staged, &self.flags.cni_version).with_context(|| {
            format!(
                "the plugin {} does not run on this machine",
                self.plugin.display()
            )
        })?;
        ensure!(
            versions.contains(&self.flags.cni_version),
            "{} is no CNI plugin that speaks version {}",
            self.plugin.display(),
            self.flags.cni_version
        );
        Ok(())
    }

    fn await_daemon(&self) -> Result<()> {
        let Some(secs) = self.flags.wait else {
            return Ok(());
        };
        let socket = self.flags.run_dir.join("cni.sock");
        ready::wait(&socket, &self.flags.network, Duration::from_secs(secs.into())).with_context(|| {
            format!("the daemon does not serve pods within {secs} s, so the configuration was not written")
        })
    }

    fn stage_conf(&self) -> Result<()> {
        make_dir(&self.flags.conf_dir)?;
        let text = Conflist {
            cni_version: &self.flags.cni_version,
            network: &self.flags.network,
            run_dir: &self.flags.run_dir,
            mtu: self.flags.mtu,
            chain: &self.chain()?,
        }
        .render();
        stage(&self.staged_conf(), text.as_bytes(), 0o644)
    }

    /// The plugins behind ours: there, and of the configuration's version, or every pod would fail.
    fn chain(&self) -> Result<Vec<String>> {
        let known = conflist::CHAINABLE;
        let version = &self.flags.cni_version;
        let fit = |name: &str| -> Result<()> {
            let path = self.flags.bin_dir.join(name);
            ensure!(path.is_file(), "{} is not there", path.display());
            let versions = versions(&path, version)?;
            ensure!(
                versions.contains(version),
                "{} does not speak version {version}; it speaks {}",
                path.display(),
                versions.join(", ")
            );
            Ok(())
        };
        match self.flags.chain.as_str() {
            "none" | "" => Ok(Vec::new()),
            "auto" => Ok(known
                .into_iter()
                .filter(|name| match fit(name) {
                    Ok(()) => true,
                    Err(why) => {
                        tracing::info!(plugin = name, why = format!("{why:#}"), "left out of the chain");
                        false
                    }
                })
                .map(str::to_owned)
                .collect()),
            list => list
                .split(',')
                .map(str::trim)
                .map(|name| {
                    ensure!(
                        known.contains(&name),
                        "--chain {name:?}: one of {}",
                        known.join(", ")
                    );
                    fit(name).with_context(|| format!("--chain {name}: every pod would fail"))?;
                    Ok(name.to_owned())
                })
                .collect(),
        }
    }

    /// A runtime takes the first configuration by name.
    fn warn_of_earlier(&self) {
        for earlier in conflist::names(&self.flags.conf_dir) {
            if earlier < self.flags.conf_name {
                tracing::warn!(
                    earlier,
                    ours = self.flags.conf_name,
                    "runtimes take the first configuration by name: this one stays in use until it is removed"
                );
            }
        }
    }

    fn remove_conf(&self) -> Result<()> {
        let conf = self.conf();
        match conflist::whose(&conf)? {
            Whose::Nobodys => {}
            Whose::Others => {
                tracing::warn!(path = %conf.display(), "was not written for Twill and stays");
            }
            Whose::Ours => {
                remove(&conf)?;
                sync(&self.flags.conf_dir)?;
                tracing::info!(path = %conf.display(), "network configuration removed");
            }
        }
        Ok(())
    }

    fn remove_binary(&self) -> Result<()> {
        let dir = &self.flags.conf_dir;
        for name in conflist::names(dir) {
            // One that cannot be read may need the plugin as well.
            if !matches!(
                conflist::whose(&dir.join(&name)),
                Ok(Whose::Others | Whose::Nobodys)
            ) {
                tracing::warn!(configuration = name, "still uses the plugin, which stays");
                return Ok(());
            }
        }
        let binary = self.binary();
        if binary.exists() {
            remove(&binary)?;
            sync(&self.flags.bin_dir)?;
            tracing::info!(path = %binary.display(), "plugin removed");
        }
        Ok(())
    }
}

/// The versions of the spec that a plugin says it speaks; none when it says something else.
fn versions(plugin: &Path, asked_in: &str) -> Result<Vec<String>> {
    let spawn = || {
        Command::new(plugin)
            .env_clear()
            .env("CNI_COMMAND", "VERSION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    };
    let mut spawned = spawn();
    // A process that somebody starts at the same time holds a copy of the handle that wrote the file until its exec.
    for _ in 0..BUSY_RETRIES {
        match &spawned {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(BUSY_PAUSE);
                spawned = spawn();
            }
            _ => break,
        }
    }
    let mut child = spawned.with_context(|| format!("running {}", plugin.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let asked = format!("{{\"cniVersion\":\"{asked_in}\"}}");
        // One that reads nothing answers nothing, which the caller judges.
        let _ = stdin.write_all(asked.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("asking {} for its versions", plugin.display()))?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let listed = answer.get("supportedVersions").and_then(|v| v.as_array());
    let texts = listed.into_iter().flatten().filter_map(|v| v.as_str());
    Ok(texts
        .filter(|_| output.status.success())
        .map(str::to_owned)
        .collect())
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

/// Writes a file under the name that nobody looks for.
fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Gives a staged file its name, and makes that survive a power cut.
fn place(staged: &Path, path: &Path) -> Result<()> {
    fs::rename(staged, path)
        .with_context(|| format!("renaming {} to {}", staged.display(), path.display()))?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(dir: &Path) -> Result<()> {
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("syncing {}", dir.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests;

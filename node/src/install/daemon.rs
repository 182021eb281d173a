//! The daemon puts its own plugin in place: `twilld run --install-cni`.
//!
//! The steps are those of `twilld install-cni`, begun when the daemon serves pods, so that a runtime never sees a network that cannot
//! serve it. What cannot be installed now is tried again: pods of a running fabric are worth more than an installation.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use super::{
    BIN_DIR, CHAIN, CNI_VERSION, CNI_VERSIONS, CONF_DIR, CONF_NAME, Flags, Job, NETWORK, Step, ready,
};

/// How often the daemon is asked whether it serves pods.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How soon an installation that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What becomes of the configuration when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It stays: a daemon that is started anew finds its pods, and deletions meanwhile are noted.
    Keep,
    /// It goes, so that a runtime starts no pods here; the binary stays for those that end.
    UntilStop,
}

/// What was given of the flags of `twilld run` that begin with `--cni-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) bin_dir: Option<String>,
    pub(crate) conf_dir: Option<String>,
    pub(crate) conf_name: Option<String>,
    pub(crate) network: Option<String>,
    pub(crate) plugin: Option<String>,
    pub(crate) chain: Option<String>,
    pub(crate) version: Option<String>,
}

/// What the daemon installs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    job: Job,
    stay: Stay,
}

impl Wanted {
    /// Checks what was given. The MTU of the configuration follows the uplink, as pods' links do.
    ///
    /// # Errors
    /// A value that cannot be, named by its flag.
    pub(crate) fn new(stay: &str, given: Given, run_dir: PathBuf) -> Result<Self> {
        let stay = match stay {
            "keep" => Stay::Keep,
            "until-stop" => Stay::UntilStop,
            other => bail!("--install-cni {other:?}: keep or until-stop"),
        };
        let cni_version = given.version.unwrap_or_else(|| CNI_VERSION.to_owned());
        if !CNI_VERSIONS.contains(&cni_version.as_str()) {
            bail!(
                "--cni-version {cni_version:?}: one of {}",
                CNI_VERSIONS.join(", ")
            );
        }
        let flags = Flags {
            bin_dir: given.bin_dir.unwrap_or_else(|| BIN_DIR.to_owned()).into(),
            conf_dir: given.conf_dir.unwrap_or_else(|| CONF_DIR.to_owned()).into(),
            conf_name: given.conf_name.unwrap_or_else(|| CONF_NAME.to_owned()),
            network: given.network.unwrap_or_else(|| NETWORK.to_owned()),
            plugin: given.plugin.map(PathBuf::from),
            run_dir,
            cni_version,
            mtu: 0,
            chain: given.chain.unwrap_or_else(|| CHAIN.to_owned()),
            wait: None,
            uninstall: false,
        };
        let job = Job::new(flags).context("--install-cni (its flags begin with --cni- here)")?;
        Ok(Self { job, stay })
    }
}

/// Installs as soon as the daemon serves pods; on stop takes the configuration away if it is not to stay.
///
/// # Errors
/// None but a panic's: what cannot be installed is logged and tried again.
pub(crate) async fn keep(wanted: Wanted, stop: CancellationToken) -> Result<()> {
    let Wanted { job, stay } = wanted;
    let serves = || {
        let (socket, network) = (job.flags.run_dir.join("cni.sock"), job.flags.network.clone());
        move || ready::wait(&socket, &network, Duration::ZERO)
    };
    while tokio::task::spawn_blocking(serves()).await?.is_err() {
        if stopped_within(&stop, ASK_EVERY).await {
            return Ok(());
        }
    }
    while let Err(error) = perform(&job, job.steps()).await? {
        tracing::warn!(
            error = format!("{error:#}"),
            "the CNI plugin cannot be installed; trying again"
        );
        if stopped_within(&stop, RETRY).await {
            return Ok(());
        }
    }
    stop.cancelled().await;
    if stay == Stay::UntilStop
        && let Err(error) = perform(&job, vec![Step::RemoveConf]).await?
    {
        tracing::warn!(
            error = format!("{error:#}"),
            "the network configuration cannot be removed"
        );
    }
    Ok(())
}

/// Files and programs are not for the runtime's threads. The outer error is a panic's.
async fn perform(job: &Job, steps: Vec<Step>) -> Result<Result<()>> {
    let job = job.clone();
    let work = move || steps.into_iter().try_for_each(|step| job.perform(step));
    Ok(tokio::task::spawn_blocking(work).await?)
}

async fn stopped_within(stop: &CancellationToken, span: Duration) -> bool {
    tokio::time::timeout(span, stop.cancelled()).await.is_ok()
}

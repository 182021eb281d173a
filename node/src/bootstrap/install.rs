//! Whether the daemon installs the CNI plugin itself: flags of `twilld run`.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

use crate::install::daemon::{Given, Wanted};

/// Keys of the file.
pub(super) const KEYS: [&str; 8] = [
    "install-cni",
    "cni-bin-dir",
    "cni-conf-dir",
    "cni-conf-name",
    "cni-network",
    "cni-plugin",
    "cni-chain",
    "cni-version",
];

/// Flags about the installation; without `--install-cni` the others mean nothing.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct InstallFlags {
    /// Install the CNI plugin and its configuration as soon as this daemon serves pods, as `twilld install-cni` does. `keep` leaves
    /// them when the daemon stops, `until-stop` takes the configuration away then.
    #[arg(long, env = "TWILL_INSTALL_CNI", value_name = "keep|until-stop", num_args = 0..=1, default_missing_value = "keep")]
    install_cni: Option<String>,
    /// Where the runtime looks for plugins [default: /opt/cni/bin].
    #[arg(long, env = "TWILL_CNI_BIN_DIR", value_name = "DIR")]
    cni_bin_dir: Option<String>,
    /// Where the runtime looks for network configurations [default: /etc/cni/net.d].
    #[arg(long, env = "TWILL_CNI_CONF_DIR", value_name = "DIR")]
    cni_conf_dir: Option<String>,
    /// File name of the configuration; runtimes take the first by name [default: 10-twill.conflist].
    #[arg(long, env = "TWILL_CNI_CONF_NAME", value_name = "NAME")]
    cni_conf_name: Option<String>,
    /// Name of the network [default: k8s-pod-network].
    #[arg(long, env = "TWILL_CNI_NETWORK", value_name = "NAME")]
    cni_network: Option<String>,
    /// The plugin to install [default: `twill` beside this program].
    #[arg(long, env = "TWILL_CNI_PLUGIN", value_name = "FILE")]
    cni_plugin: Option<String>,
    /// Plugins behind ours: auto, none, or of portmap and bandwidth with commas between [default: auto].
    #[arg(long, env = "TWILL_CNI_CHAIN", value_name = "LIST")]
    cni_chain: Option<String>,
    /// `cniVersion` of the configuration [default: 1.0.0].
    #[arg(long, env = "TWILL_CNI_VERSION", value_name = "VERSION")]
    cni_version: Option<String>,
}

/// What is to be installed, if anything.
pub(super) fn parse(
    flags: InstallFlags,
    run_dir: &Path,
    given: impl Fn(Option<String>, &str) -> Option<String>,
) -> Result<Option<Wanted>> {
    let stay = given(flags.install_cni, "install-cni");
    let rest = Given {
        bin_dir: given(flags.cni_bin_dir, "cni-bin-dir"),
        conf_dir: given(flags.cni_conf_dir, "cni-conf-dir"),
        conf_name: given(flags.cni_conf_name, "cni-conf-name"),
        network: given(flags.cni_network, "cni-network"),
        plugin: given(flags.cni_plugin, "cni-plugin"),
        chain: given(flags.cni_chain, "cni-chain"),
        version: given(flags.cni_version, "cni-version"),
    };
    match stay {
        Some(stay) => Wanted::new(&stay, rest, run_dir.to_owned()).map(Some),
        None if rest == Given::default() => Ok(None),
        None => bail!(
            "--cni-bin-dir and its like say how to install, but not that it is wanted: add --install-cni"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: InstallFlags) -> Result<Option<Wanted>> {
        parse(flags, Path::new("/run/twill"), |flag, _| flag)
    }

    #[test]
    fn nothing_is_installed_unless_asked_for_and_what_cannot_be_is_named() {
        assert!(parsed(InstallFlags::default()).unwrap().is_none());
        for mode in ["keep", "until-stop"] {
            let flags = InstallFlags {
                install_cni: Some(mode.into()),
                ..InstallFlags::default()
            };
            assert!(parsed(flags).unwrap().is_some());
        }
        let check = |change: fn(&mut InstallFlags), named: &str| {
            let mut flags = InstallFlags {
                install_cni: Some("keep".into()),
                ..InstallFlags::default()
            };
            change(&mut flags);
            let error = format!("{:#}", parsed(flags).unwrap_err());
            assert!(error.contains(named), "{error}");
        };
        check(|f| f.install_cni = Some("yes".into()), "--install-cni \"yes\"");
        check(|f| f.cni_version = Some("2.0.0".into()), "--cni-version");
        check(|f| f.cni_bin_dir = Some("bin".into()), "bin-dir");
        check(|f| f.cni_conf_name = Some("x.txt".into()), "conf-name");
        check(
            |f| {
                f.install_cni = None;
                f.cni_network = Some("n".into());
            },
            "add --install-cni",
        );
    }
}

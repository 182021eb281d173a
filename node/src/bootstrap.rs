//! What the daemon must know before it can read the datastore: flags, then environment, then a file, parsed once.
//! Everything else is a resource.

mod api;
mod etcd;
mod install;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::IpNet;
use twill_datastore::etcd::EtcdConfig;

use crate::install::daemon::Wanted;
use api::ApiFlags;
pub(crate) use api::TcpApi;
use etcd::{EtcdFlags, Variables};
use install::InstallFlags;

/// Longest node name: a DNS name, as Kubernetes has it; it is part of etcd keys.
const NODE_NAME_MAX: usize = 253;
/// Largest bootstrap file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const KEYS: [&str; 5] = ["node-name", "node-ip", "run-dir", "bgp-secrets-dir", "take-over"];

/// Flags of `twilld run`; each is also a variable and a key of the file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Flags {
    /// Name of this node in the datastore [default: the host's name].
    #[arg(long, env = "TWILL_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Address of this node with the length of its subnet, one a family: 192.0.2.11/24[,2001:db8::11/64]
    /// [default: what the Node resource says].
    #[arg(long, env = "TWILL_NODE_IP", value_name = "A/LEN")]
    node_ip: Option<String>,
    #[command(flatten)]
    etcd: EtcdFlags,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    install: InstallFlags,
    /// Directory of the sockets [default: /run/twill].
    #[arg(long, env = "TWILL_RUN_DIR", value_name = "DIR")]
    run_dir: Option<String>,
    /// Directory of the keys of BGP sessions: `secretKeyRef` with name N and key K is the file N/K in it
    /// [default: /etc/twill/secrets].
    #[arg(long, env = "TWILL_BGP_SECRETS_DIR", value_name = "DIR")]
    bgp_secrets_dir: Option<String>,
    /// This node was calico-node's: adopt the routes that it left, and remove its rules once Twill's enforce.
    #[arg(long, env = "TWILL_TAKE_OVER", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    take_over: Option<String>,
    /// File of `key: value` lines, keys as the flags without dashes in front.
    #[arg(long, env = "TWILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The parsed bootstrap.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    pub(crate) node_name: String,
    /// At most one address a family, IPv4 first, host bits kept.
    pub(crate) node_ips: Vec<IpNet>,
    pub(crate) etcd: EtcdConfig,
    /// How often everything in etcd is compared with what is known; zero is never.
    pub(crate) etcd_compare_every: Duration,
    /// Where the command line is served over TCP.
    pub(crate) tcp_api: Option<TcpApi>,
    /// The CNI plugin, if the daemon is to install it.
    pub(crate) install: Option<Wanted>,
    pub(crate) run_dir: PathBuf,
    /// Where the keys of BGP sessions are.
    pub(crate) bgp_secrets_dir: PathBuf,
    /// Whether what calico-node left becomes ours.
    pub(crate) take_over: bool,
}

impl Bootstrap {
    /// Reads the file if one is named, and the host's name if nobody says.
    ///
    /// # Errors
    /// A value that cannot be, named by its flag; a file that cannot be read or has an unknown key.
    pub(crate) fn load(flags: Flags) -> Result<Self> {
        let file = match &flags.config {
            Some(path) => file(path)?,
            None => BTreeMap::new(),
        };
        let hostname =
            || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|n| n.trim().to_lowercase());
        Self::parse(flags, &file, Variables::of_the_process(), || {
            hostname().context("reading the host's name")
        })
    }

    fn parse(
        flags: Flags,
        file: &BTreeMap<String, String>,
        variables: Variables,
        hostname: impl FnOnce() -> Result<String>,
    ) -> Result<Self> {
        let given = |flag: Option<String>, key: &str| {
            flag.or_else(|| file.get(key).cloned()).filter(|v| !v.is_empty())
        };
        let node_name = match given(flags.node_name, "node-name") {
            Some(name) => name,
            None => hostname()?,
        };
        check_node_name(&node_name)?;
        let path = |flag, key| given(flag, key).map(PathBuf::from);
        let run_dir = path(flags.run_dir, "run-dir").unwrap_or_else(|| PathBuf::from("/run/twill"));
        if !run_dir.is_absolute() {
            bail!("--run-dir {}: not an absolute path", run_dir.display());
        }
        let bgp_secrets_dir = path(flags.bgp_secrets_dir, "bgp-secrets-dir")
            .unwrap_or_else(|| PathBuf::from("/etc/twill/secrets"));
        let (etcd, etcd_compare_every) = etcd::parse(flags.etcd, variables, given)?;
        let tcp_api = api::parse(flags.api, given)?;
        let take_over = match given(flags.take_over, "take-over").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => bail!("--take-over {other:?}: neither true nor false"),
        };
        let install = install::parse(flags.install, &run_dir, given)?;
        Ok(Self {
            node_name,
            bgp_secrets_dir,
            node_ips: node_ips(given(flags.node_ip, "node-ip"))?,
            etcd,
            etcd_compare_every,
            tcp_api,
            install,
            run_dir,
            take_over,
        })
    }

    /// Socket of the CNI plugin.
    pub(crate) fn cni_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    /// Socket of the command line.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.run_dir.join("twill.sock")
    }

    /// What BGP was derived from, for a start without the datastore.
    pub(crate) fn bgp_cache(&self) -> PathBuf {
        self.run_dir.join("bgp-cache")
    }

    /// Deletions that the plugin noted while no daemon ran.
    pub(crate) fn cni_spool(&self) -> PathBuf {
        self.run_dir.join(twill_proto::cni::spool::SPOOL_DIR)
    }
}

fn check_node_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.len() <= NODE_NAME_MAX
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(legal);
    if good {
        return Ok(());
    }
    bail!(
        "--node-name {name:?}: a node's name is 1 to {NODE_NAME_MAX} lower-case letters, digits, '-' and '.', \
         a letter or digit first and last"
    )
}

fn node_ips(text: Option<String>) -> Result<Vec<IpNet>> {
    let mut ips: Vec<IpNet> = Vec::new();
    for part in text.iter().flat_map(|t| t.split(',')).map(str::trim) {
        let net: IpNet = part.parse().with_context(|| {
            format!("--node-ip {part:?}: not an address with the length of its subnet such as 192.0.2.11/24")
        })?;
        let addr = net.addr();
        if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() {
            bail!("--node-ip {part:?}: not the address of a host");
        }
        if ips.iter().any(|ip| ip.addr().is_ipv4() == addr.is_ipv4()) {
            bail!("--node-ip: two addresses of one family");
        }
        ips.push(net);
    }
    ips.sort_by_key(|ip| ip.addr().is_ipv6());
    Ok(ips)
}

fn file(path: &Path) -> Result<BTreeMap<String, String>> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    if size > FILE_BYTES_MAX {
        bail!(
            "{} has {size} bytes, {FILE_BYTES_MAX} are possible",
            path.display()
        );
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    lines(&text).with_context(|| format!("in {}", path.display()))
}

fn lines(text: &str) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = number + 1;
        let Some((key, value)) = line.split_once(':') else {
            bail!("line {at}: {line:?} is not `key: value`");
        };
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        let known = KEYS
            .iter()
            .chain(&etcd::KEYS)
            .chain(&api::KEYS)
            .chain(&install::KEYS);
        if !known.clone().any(|k| *k == key) {
            let known: Vec<&str> = known.copied().collect();
            bail!(
                "line {at}: key {key:?} is not known; the keys are {}",
                known.join(", ")
            );
        }
        if values.insert(key.to_owned(), value.to_owned()).is_some() {
            bail!("line {at}: key {key:?} stands twice");
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(change: impl FnOnce(&mut Flags)) -> Result<Bootstrap> {
        let mut flags = Flags::default();
        change(&mut flags);
        Bootstrap::parse(
            flags,
            &BTreeMap::new(),
            Variables::default(),
            || Ok("host".into()),
        )
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let bootstrap = flags(|_| ()).unwrap();
        assert_eq!(bootstrap.node_name, "host");
        assert_eq!(bootstrap.etcd.endpoints[0].as_str(), "http://127.0.0.1:2379");
        assert_eq!(bootstrap.api_socket(), Path::new("/run/twill/twill.sock"));
        assert!(bootstrap.node_ips.is_empty());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file =
            lines("# twill\nnode-name: filed\nrun-dir: \"/run/filed\"\n\nnode-ip: fd00::1/64, 10.0.0.1/24\n")
                .unwrap();
        let given = Flags {
            node_name: Some("flagged".into()),
            ..Flags::default()
        };
        let bootstrap = Bootstrap::parse(given, &file, Variables::default(), || Ok("host".into())).unwrap();
        assert_eq!(bootstrap.node_name, "flagged");
        assert_eq!(bootstrap.run_dir, Path::new("/run/filed"));
        assert_eq!(
            bootstrap.node_ips,
            [
                "10.0.0.1/24".parse().unwrap(),
                "fd00::1/64".parse::<IpNet>().unwrap()
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        let check = |change: fn(&mut Flags), named: &str| {
            let error = format!("{:#}", flags(change).unwrap_err());
            assert!(error.contains(named), "{error}");
        };
        check(|f| f.node_name = Some("UPPER".into()), "--node-name");
        check(|f| f.node_name = Some("a/b".into()), "--node-name");
        check(|f| f.node_ip = Some("10.0.0.1.1/24".into()), "--node-ip");
        check(|f| f.node_ip = Some("10.0.0.1".into()), "--node-ip");
        check(|f| f.node_ip = Some("127.0.0.1/8".into()), "--node-ip");
        check(
            |f| f.node_ip = Some("10.0.0.1/24,10.0.0.2/24".into()),
            "--node-ip",
        );
        check(
            |f| f.etcd.etcd_endpoints = Some("127.0.0.1:2379".into()),
            "--etcd-endpoints",
        );
        check(|f| f.run_dir = Some("relative".into()), "--run-dir");
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused_with_its_line() {
        assert!(
            lines("node-name: a\nnodename: b")
                .unwrap_err()
                .to_string()
                .starts_with("line 2: key \"nodename\"")
        );
        assert!(lines("just words").unwrap_err().to_string().starts_with("line 1"));
        assert!(lines("node-name: a\nnode-name: b").is_err());
    }
}

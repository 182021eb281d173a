//! Verbs and flags, calicoctl's where calicoctl has them.

pub(crate) mod bgp;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

/// Talks to the Twill daemon of this node.
#[derive(Debug, Parser)]
#[command(name = "twillctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which daemon, and how: flags, then environment, then a context of the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Reach {
    /// Socket of the daemon [default: /run/twill/twill.sock].
    #[arg(long, global = true, env = "TWILL_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Address of a daemon that serves TCP, such as https://192.0.2.11:9098.
    #[arg(
        long,
        global = true,
        env = "TWILL_SERVER",
        value_name = "URL",
        conflicts_with = "socket"
    )]
    pub(crate) server: Option<String>,
    /// Certificates of the authority that the server's certificate comes from, PEM.
    #[arg(long, global = true, env = "TWILL_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Our certificate, PEM.
    #[arg(long, global = true, env = "TWILL_CERT_FILE", value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Key of our certificate, PEM.
    #[arg(long, global = true, env = "TWILL_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Name in the server's certificate, where it is not that of the address.
    #[arg(long, global = true, env = "TWILL_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// File of contexts [default: /etc/twill/twillctl.yaml, if it is there].
    #[arg(short, long, global = true, env = "TWILLCTL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The context to use [default: the file's current-context].
    #[arg(long, global = true, env = "TWILLCTL_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Accepted as calicoctl accepts it: twillctl works with every version of the daemon.
    #[arg(long, global = true)]
    pub(crate) allow_version_mismatch: bool,
    /// Accepted as calicoctl accepts it: twillctl logs nothing but errors.
    #[arg(short, long, global = true, value_name = "LEVEL", value_parser = ["panic", "fatal", "error", "warn", "info", "debug"])]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show resources, by file or by kind and name.
    Get(Get),
    /// Create or replace resources from a file, a directory or standard input.
    Apply(File),
    /// Create resources from a file, a directory or standard input.
    Create(Create),
    /// Replace resources by those of a file, a directory or standard input.
    Replace(File),
    /// Change some fields of a resource.
    Patch(Patch),
    /// Delete resources, by file or by kind and name.
    Delete(Delete),
    /// Set or remove a label of a resource.
    Label(Label),
    /// Check resources without storing them, and without a daemon.
    Validate(Source),
    /// Ask about this node.
    #[command(subcommand)]
    Node(Node),
    /// Ask the BGP speaker of this node.
    #[command(subcommand)]
    Bgp(bgp::Bgp),
    /// Addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// The datastore as a whole.
    #[command(subcommand)]
    Datastore(Datastore),
    /// Show the versions of this command, of the daemon and of the cluster.
    Version(Version),
    /// Print a script that completes commands in a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) what: Selection,
    /// ps, wide, yaml, json or custom-columns=COLUMN[,COLUMN].
    #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
    pub(crate) output: String,
    /// Every namespace.
    #[arg(short = 'A', long, visible_short_alias = 'a')]
    pub(crate) all_namespaces: bool,
    /// Leave out what belongs to this cluster: namespace, uid, resourceVersion, creationTimestamp. For names only.
    #[arg(long)]
    pub(crate) export: bool,
}

/// Resources named on the command line or in a file.
#[derive(Debug, Default, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["kind", "filename"]))]
pub(crate) struct Selection {
    /// Kind, in singular, plural or short: `ippool`, `np`, `wep`.
    pub(crate) kind: Option<String>,
    /// Names; none means all of the kind.
    #[arg(value_name = "NAME", requires = "kind")]
    pub(crate) names: Vec<String>,
    /// File of YAML or JSON documents, directory of such files, `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Option<PathBuf>,
    /// Also the directories inside the directory.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// A file or directory without resources is no error.
    #[arg(long)]
    pub(crate) skip_empty: bool,
    /// Namespace, `default` if neither this nor the document says.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// Resources in files.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// File of YAML or JSON documents, directory of such files, `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: PathBuf,
    /// Also the directories inside the directory.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// A file or directory without resources is no error.
    #[arg(long)]
    pub(crate) skip_empty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct File {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Namespace for documents that name none.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) file: File,
    /// What exists already is no error.
    #[arg(long)]
    pub(crate) skip_exists: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) what: Selection,
    /// What does not exist is no error.
    #[arg(short, long)]
    pub(crate) skip_not_exists: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// Kind, in singular, plural or short.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// The change, as JSON.
    #[arg(short, long)]
    pub(crate) patch: String,
    /// How the change is to be read.
    #[arg(short = 't', long = "type", default_value = "strategic", value_name = "TYPE")]
    pub(crate) form: Form,
    /// Namespace, `default` unless given.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// How a patch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Maps are merged, lists replaced; `$patch` and `$retainKeys` say otherwise.
    Strategic,
    /// A list of operations (RFC 6902).
    Json,
    /// Maps are merged, lists replaced, null removes (RFC 7386).
    Merge,
}

#[derive(Debug, Args)]
pub(crate) struct Label {
    /// Kind, in singular, plural or short.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// KEY=VALUE, or KEY with --remove.
    pub(crate) label: String,
    /// Another value may be there already.
    #[arg(long, conflicts_with = "remove")]
    pub(crate) overwrite: bool,
    /// Take the label away.
    #[arg(long)]
    pub(crate) remove: bool,
    /// Namespace, `default` unless given.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Health of the daemon and its BGP peers.
    Status,
    /// Ask BGP peers to send a node's traffic elsewhere (RFC 8326), before its pods go.
    Drain {
        /// The node; the daemon's own if none is named.
        name: Option<String>,
    },
    /// End a drain.
    Undrain {
        /// The node; the daemon's own if none is named.
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Use of pools.
    Show(Show),
    /// Look for inconsistencies; exits with 1 if there are any.
    Check(Check),
    /// Free addresses that nobody uses any more.
    Release(Release),
    /// Replace a pool by smaller ones; the datastore must be locked.
    Split(Split),
    /// Change the settings of allocators.
    Configure(Configure),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("only").args(["ip", "show_blocks", "show_borrowed", "show_configuration"]))]
pub(crate) struct Show {
    /// Who has this address.
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<String>,
    /// Also each block.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Addresses used by another node than their block's owner.
    #[arg(long)]
    pub(crate) show_borrowed: bool,
    /// Settings of allocators.
    #[arg(long)]
    pub(crate) show_configuration: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every address that is looked at.
    #[arg(long)]
    pub(crate) show_all_ips: bool,
    /// Print every address with which something is wrong.
    #[arg(long)]
    pub(crate) show_problem_ips: bool,
    /// Write a report for `ipam release --from-report`.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Accepted as calicoctl accepts it: the daemon asks no Kubernetes.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// Free this address.
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<String>,
    /// Free what the report of an `ipam check -o` calls leaked; of several reports what all do.
    #[arg(long, value_name = "REPORT")]
    pub(crate) from_report: Vec<PathBuf>,
    /// Although the datastore is not locked, or another version wrote the report.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Split {
    /// Into how many, a power of two.
    pub(crate) number: String,
    /// CIDR of the pool.
    #[arg(long)]
    pub(crate) cidr: Option<String>,
    /// Name of the pool.
    #[arg(long, value_name = "POOL")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Configure {
    /// Whether a node may use only its own blocks.
    #[arg(long, value_name = "true/false")]
    pub(crate) strictaffinity: Option<String>,
    /// Most blocks of a node; 0 is the default of 20.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) max_blocks_per_host: Option<String>,
    /// Whether virtual machines keep their addresses.
    #[arg(long, value_name = "Enabled|Disabled")]
    pub(crate) kubevirt_ip_persistence: Option<String>,
    /// Seconds before a freed address is given again; needs Calico 3.33 or later everywhere.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ip_cooldown_seconds: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Datastore {
    /// Lock it: no pod is attached or detached, controllers pause, forwarding goes on.
    Lock,
    /// Unlock it.
    Unlock,
    /// calicoctl's names for the same.
    #[command(subcommand)]
    Migrate(Migrate),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Lock the datastore.
    Lock,
    /// Unlock the datastore.
    Unlock,
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Only this command's.
    #[arg(long)]
    pub(crate) client: bool,
    /// Ask again and again, this far apart: 1s, 10m.
    #[arg(long, value_name = "DURATION")]
    pub(crate) poll: Option<String>,
}

/// Reads an address as calicoctl does: the error is printed, and that is the end.
pub(crate) fn address(text: &str) -> anyhow::Result<IpAddr> {
    text.parse()
        .map_err(|_| anyhow::anyhow!("Error executing command: invalid IP address specified: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_where_calicoctl_takes_them() {
        for words in [
            "twillctl --allow-version-mismatch get nodes",
            "twillctl get nodes --allow-version-mismatch -c x --context y",
            "twillctl -l debug get nodes -A -o wide",
            "twillctl get -f x -R --skip-empty --export",
            "twillctl delete ippool a b -s",
            "twillctl delete -f - --skip-not-exists",
            "twillctl create -f x --skip-exists -n y",
            "twillctl patch np a -p {} -t merge -n y",
            "twillctl label nodes n1 a=b --overwrite",
            "twillctl label nodes n1 a --remove",
            "twillctl validate -f x",
            "twillctl ipam show --ip=10.0.0.1",
            "twillctl ipam check --show-all-ips --show-problem-ips -o x --kubeconfig y",
            "twillctl ipam release --from-report=a --from-report=b --force",
            "twillctl ipam split 2 --cidr=10.0.0.0/8",
            "twillctl ipam configure --strictaffinity=true --max-blocks-per-host=-1",
            "twillctl datastore migrate lock",
            "twillctl datastore unlock",
            "twillctl version --client --poll 1s",
            "twillctl completion fish",
        ] {
            Cli::try_parse_from(words.split(' ')).unwrap_or_else(|e| panic!("{words}: {e}"));
        }
        for words in [
            "twillctl get",
            "twillctl get nodes -f x",
            "twillctl apply",
            "twillctl label nodes n1 a=b --overwrite --remove",
            "twillctl ipam show --show-blocks --show-borrowed",
            "twillctl patch node n1",
        ] {
            assert!(Cli::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
    }
}

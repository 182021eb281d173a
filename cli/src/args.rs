//! Verbs and flags, calicoctl's where calicoctl has them.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use twill_model::Kind;

/// Talks to the Twill daemon of this node.
#[derive(Debug, Parser)]
#[command(name = "twillctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Socket of the daemon.
    #[arg(
        long,
        global = true,
        env = "TWILL_SOCKET",
        default_value = "/run/twill/twill.sock",
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show resources.
    Get(Get),
    /// Create or replace resources from a file.
    Apply(File),
    /// Create resources from a file.
    Create(Create),
    /// Replace resources by those of a file.
    Replace(File),
    /// Delete resources by file or by kind and name.
    Delete(Delete),
    /// Ask about this node.
    #[command(subcommand)]
    Node(Node),
    /// Ask the BGP speaker of this node.
    #[command(subcommand)]
    Bgp(Bgp),
    /// Ask about addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Show the versions of this command and of the daemon.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) what: Selection,
    /// ps, wide, yaml or json.
    #[arg(short, long, default_value = "ps")]
    pub(crate) output: Output,
    /// Every namespace.
    #[arg(short = 'A', long, visible_short_alias = 'a', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Leave out what belongs to this cluster: namespace, uid, resourceVersion, creationTimestamp.
    #[arg(long)]
    pub(crate) export: bool,
}

/// Resources named on the command line or in a file.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Kind, in singular, plural or short: `ippool`, `np`, `wep`.
    #[arg(required_unless_present = "filename", conflicts_with = "filename", value_parser = kind)]
    pub(crate) kind: Option<Kind>,
    /// Names; none means all of the kind.
    #[arg(requires = "kind")]
    pub(crate) names: Vec<String>,
    /// File of YAML or JSON documents, `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Option<PathBuf>,
    /// Namespace, `default` if neither this nor the document says.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct File {
    /// File of YAML or JSON documents, `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: PathBuf,
    /// Namespace for documents that name none.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// An empty file is no error.
    #[arg(long)]
    pub(crate) skip_empty: bool,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Health of the daemon and its BGP peers.
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Peers with their sessions and counts.
    Peers,
    /// Routes: own and learned.
    Routes {
        /// Only this prefix.
        prefix: Option<String>,
        /// Also paths that did not win.
        #[arg(long)]
        all_paths: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Use of pools.
    Show {
        /// Also each block.
        #[arg(long, action = ArgAction::SetTrue)]
        show_blocks: bool,
    },
    /// Look for inconsistencies; exits with 1 if there are any.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How resources are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    #[value(alias = "table")]
    Ps,
    Wide,
    #[value(alias = "yml")]
    Yaml,
    Json,
}

fn kind(text: &str) -> Result<Kind, String> {
    text.parse()
        .map_err(|e: twill_model::kind::UnknownKind| e.to_string())
}

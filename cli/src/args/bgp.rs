//! `twillctl bgp ...`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Peers with their sessions and counts.
    Peers {
        #[command(flatten)]
        print: Print,
    },
    /// Everything of one peer: capabilities, timers, graceful restart, counters, policy, what happened last.
    Peer {
        /// Address, name of the BGPPeer or Node, or description.
        peer: String,
        #[command(flatten)]
        print: Print,
    },
    /// Routes: own and learned, and why each path is or is not the best.
    Routes(Routes),
    /// End sessions with a Cease; they come back by themselves.
    Reset {
        /// Address, name or description; `all` for every peer.
        peer: String,
        /// Keep the session: ask for the peer's routes again and send it ours again.
        #[arg(long)]
        soft: bool,
        /// A text for the other operator, sent with the Cease (RFC 9003).
        #[arg(long, value_name = "TEXT", conflicts_with = "soft", default_value = "")]
        message: String,
    },
    /// Print changes of sessions and of best paths as they happen, until interrupted.
    Watch(Watch),
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Print {
    /// ps, wide, yaml or json.
    #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[value(alias = "table")]
    Ps,
    Wide,
    #[value(alias = "yml")]
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Routes {
    /// Only this prefix, with all its paths; an address stands for the longest prefix that has it.
    pub(crate) prefix: Option<String>,
    /// Only those of this peer: address, name or description.
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// What peers sent, whatever became of it.
    #[arg(long, group = "table")]
    pub(crate) received: bool,
    /// What import policy let through.
    #[arg(long, group = "table")]
    pub(crate) accepted: bool,
    /// What the peer was sent.
    #[arg(long, group = "table", requires = "peer")]
    pub(crate) advertised: bool,
    /// Also paths that did not win.
    #[arg(long, group = "table")]
    pub(crate) all_paths: bool,
    #[command(flatten)]
    pub(crate) print: Print,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only this peer.
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// Only sessions.
    #[arg(long, conflicts_with = "routes")]
    pub(crate) sessions: bool,
    /// Only best paths.
    #[arg(long)]
    pub(crate) routes: bool,
    /// End after so many lines.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// ps or json: one line a change.
    #[command(flatten)]
    pub(crate) print: Print,
}

//! BGPSessionPolicy, a kind of Twill's own: what Calico has no field for in the sessions of the fabric.

use crate::duration::GoDuration;
use crate::go::go_struct;
use crate::resource::Resource;

/// How sessions are kept that Calico's kinds ask for.
pub type BgpSessionPolicy = Resource<BgpSessionPolicySpec>;

go_struct! {
    /// Which sessions, and how. Of several objects for one session the first by name that says something of a field decides.
    #[derive(Default)]
    pub struct BgpSessionPolicySpec {
        /// The nodes it is for; empty: all.
        pub node_selector: String = "nodeSelector" omitempty,
        /// Names of BGPPeers whose sessions it is for. Without any, and without `mesh`, it is for every session.
        pub bgp_peers: Vec<String> = "bgpPeers" omitempty,
        /// It is for the node-to-node mesh.
        pub mesh: bool = "mesh" omitempty,
        /// Only what lies in IP pools and service ranges is taken from the peer, or what a BGPFilter accepts; never the default
        /// route unasked. `maxPrefixes` is then 10000 unless it says otherwise.
        pub strict_import: Option<bool> = "strictImport" omitempty,
        /// Prefixes of one family that end the session (Cease 6/1).
        pub max_prefixes: Option<i32> = "maxPrefixes" omitempty,
        /// At so many percent of that a warning is given.
        pub max_prefixes_warn_percent: Option<i32> = "maxPrefixesWarnPercent" omitempty,
        /// When a peer that sent too many may come back.
        pub max_prefixes_restart: Option<GoDuration> = "maxPrefixesRestart" omitempty,
        /// Hold Time offered: 0, or 3 s to 65535 s, whole seconds.
        pub hold_time: Option<GoDuration> = "holdTime" omitempty,
        /// Time between KEEPALIVEs, for sessions whose BGPPeer has no `keepaliveTime`.
        pub keepalive_time: Option<GoDuration> = "keepaliveTime" omitempty,
        /// Time between attempts to connect.
        pub connect_retry_time: Option<GoDuration> = "connectRetryTime" omitempty,
        /// The peer may take nothing for so long (RFC 9687).
        pub send_hold_time: Option<GoDuration> = "sendHoldTime" omitempty,
        /// Graceful restart is offered.
        pub graceful_restart: Option<bool> = "gracefulRestart" omitempty,
        /// Long-lived graceful restart is offered, with this time (RFC 9494).
        pub long_lived_time: Option<GoDuration> = "longLivedTime" omitempty,
        /// After errors the peer is held down, 1 s doubling to 60 s (DampPeerOscillations).
        pub damping: Option<bool> = "damping" omitempty,
        /// BFD runs beside the session.
        pub bfd: Option<BfdSpec> = "bfd" omitempty,
    }
}

go_struct! {
    /// BFD (RFC 5880).
    #[derive(Default)]
    pub struct BfdSpec {
        /// Desired interval between packets sent.
        pub min_tx: Option<GoDuration> = "minTx" omitempty,
        /// Least interval between packets received.
        pub min_rx: Option<GoDuration> = "minRx" omitempty,
        /// Packets that may be missing.
        pub multiplier: Option<i32> = "multiplier" omitempty,
        /// The peer is more than one hop away (RFC 5883).
        pub multihop: bool = "multihop" omitempty,
    }
}

//! BGPPeer: sessions beyond the mesh.

use crate::duration::GoDuration;
use crate::go::{go_struct, words};
use crate::number::AsNumber;
use crate::resource::Resource;

/// A session, or a set of sessions, beyond the mesh.
pub type BgpPeer = Resource<BgpPeerSpec>;

words! {
    /// From which address a session is opened.
    pub enum SourceAddress {
        /// The node's BGP address.
        UseNodeIp = "UseNodeIP",
        /// What the kernel picks.
        None = "None",
    }
}

words! {
    /// What becomes of the next hop on export.
    pub enum NextHopMode {
        /// Self towards eBGP peers, unless it may be kept; kept towards iBGP peers.
        Auto = "Auto",
        /// Always this node.
        Self_ = "Self",
        /// Always kept.
        Keep = "Keep",
    }
}

words! {
    /// Whether the selected peers get the opposite session by themselves.
    pub enum ReversePeering {
        /// Yes.
        Auto = "Auto",
        /// No.
        Manual = "Manual",
    }
}

go_struct! {
    /// Who peers with whom, and how.
    #[derive(Default)]
    pub struct BgpPeerSpec {
        /// Only this node; all if empty.
        pub node: String = "node" omitempty,
        /// Only the nodes that this selects.
        pub node_selector: String = "nodeSelector" omitempty,
        /// The peer: `ip`, `ip:port` or `[ipv6]:port`.
        pub peer_ip: String = "peerIP" omitempty,
        /// The peer's AS; 0 if it is taken from the node.
        pub as_number: AsNumber = "asNumber" omitempty,
        /// Our AS in this session.
        pub local_as_number: Option<AsNumber> = "localASNumber" omitempty,
        /// The peers are the nodes that this selects.
        pub peer_selector: String = "peerSelector" omitempty,
        /// Older name of `nextHopMode: Keep`.
        pub keep_original_next_hop: bool = "keepOriginalNextHop" omitempty,
        /// What becomes of the next hop on export.
        pub next_hop_mode: Option<NextHopMode> = "nextHopMode" omitempty,
        /// TCP MD5.
        pub password: Option<BgpPassword> = "password" omitempty,
        /// From which address.
        pub source_address: Option<SourceAddress> = "sourceAddress" omitempty,
        /// Graceful restart time.
        pub max_restart_time: Option<GoDuration> = "maxRestartTime" omitempty,
        /// Keepalive interval.
        pub keepalive_time: Option<GoDuration> = "keepaliveTime" omitempty,
        /// How often our own AS may stand in a path.
        pub num_allowed_local_as_numbers: Option<i32> = "numAllowedLocalASNumbers" omitempty,
        /// Hops, with GTSM (RFC 5082) on; off if absent.
        pub ttl_security: Option<u8> = "ttlSecurity" omitempty,
        /// Gateway to the peer.
        pub reachable_by: String = "reachableBy" omitempty,
        /// Names of BGPFilters, in order.
        pub filters: Vec<String> = "filters" omitempty,
        /// The peers are the workloads of the node that this selects.
        pub local_workload_selector: String = "localWorkloadSelector" omitempty,
        /// Opposite sessions of selected peers.
        pub reverse_peering: Option<ReversePeering> = "reversePeering" omitempty,
    }
}

go_struct! {
    /// Where a password is.
    #[derive(Default)]
    pub struct BgpPassword {
        /// An entry of a Kubernetes secret.
        pub secret_key_ref: Option<SecretKeySelector> = "secretKeyRef" omitempty,
    }
}

go_struct! {
    /// An entry of a Kubernetes secret.
    #[derive(Default)]
    pub struct SecretKeySelector {
        /// Name of the secret.
        pub name: String = "name" omitempty,
        /// Name of the entry.
        pub key: String = "key" always,
        /// Whether it may be absent.
        pub optional: Option<bool> = "optional" omitempty,
    }
}

//! CalicoNodeStatus: a question to a node about its BGP, and the answer.

use crate::go::{go_struct, words};
use crate::meta::Timestamp;
use crate::resource::Resource;

/// A question to a node about its BGP, and the answer.
pub type CalicoNodeStatus = Resource<CalicoNodeStatusSpec>;

words! {
    /// What can be asked.
    pub enum StatusClass {
        /// The speaker.
        Agent = "Agent",
        /// Its sessions.
        Bgp = "BGP",
        /// Its routes.
        Routes = "Routes",
    }
}

go_struct! {
    /// What is asked, of whom, and how often.
    #[derive(Default)]
    pub struct CalicoNodeStatusSpec {
        /// The node.
        pub node: String = "node" omitempty,
        /// What is asked.
        pub classes: Vec<StatusClass> = "classes" omitempty,
        /// Seconds between two answers; 0 is no further answer.
        pub update_period_seconds: Option<u32> = "updatePeriodSeconds" omitempty,
    }
}

go_struct! {
    /// The answer. Always stored, also when empty.
    #[derive(Default)]
    pub struct CalicoNodeStatusStatus {
        /// When it was given.
        pub last_updated: Option<Timestamp> = "lastUpdated" always,
        /// The speaker.
        pub agent: AgentStatus = "agent" always,
        /// Its sessions.
        pub bgp: BgpStatus = "bgp" always,
        /// Its routes.
        pub routes: RoutesStatus = "routes" always,
    }
}

go_struct! {
    /// The speaker, one a family where BIRD speaks.
    #[derive(Default)]
    pub struct AgentStatus {
        /// For IPv4.
        pub bird_v4: DaemonStatus = "birdV4" always,
        /// For IPv6.
        pub bird_v6: DaemonStatus = "birdV6" always,
    }
}

go_struct! {
    /// A speaker.
    #[derive(Default)]
    pub struct DaemonStatus {
        /// `Ready` or `NotReady`.
        pub state: String = "state" omitempty,
        /// Its version.
        pub version: String = "version" omitempty,
        /// Its router id.
        pub router_id: String = "routerID" omitempty,
        /// When it began.
        pub last_boot_time: String = "lastBootTime" omitempty,
        /// When it was last given a configuration.
        pub last_reconfiguration_time: String = "lastReconfigurationTime" omitempty,
    }
}

go_struct! {
    /// Sessions.
    #[derive(Default)]
    pub struct BgpStatus {
        /// Established over IPv4.
        pub number_established_v4: i64 = "numberEstablishedV4" always,
        /// Others over IPv4.
        pub number_not_established_v4: i64 = "numberNotEstablishedV4" always,
        /// Established over IPv6.
        pub number_established_v6: i64 = "numberEstablishedV6" always,
        /// Others over IPv6.
        pub number_not_established_v6: i64 = "numberNotEstablishedV6" always,
        /// Over IPv4.
        pub peers_v4: Vec<StatusPeer> = "peersV4" omitempty,
        /// Over IPv6.
        pub peers_v6: Vec<StatusPeer> = "peersV6" omitempty,
    }
}

go_struct! {
    /// A session.
    #[derive(Default)]
    pub struct StatusPeer {
        /// The peer's address.
        pub peer_ip: String = "peerIP" omitempty,
        /// `NodeMesh`, `NodePeer` or `GlobalPeer`.
        pub peer_type: String = "type" omitempty,
        /// A state of RFC 4271.
        pub state: String = "state" omitempty,
        /// Since when.
        pub since: String = "since" omitempty,
    }
}

go_struct! {
    /// Routes.
    #[derive(Default)]
    pub struct RoutesStatus {
        /// Of IPv4.
        pub routes_v4: Vec<StatusRoute> = "routesV4" omitempty,
        /// Of IPv6.
        pub routes_v6: Vec<StatusRoute> = "routesV6" omitempty,
    }
}

go_struct! {
    /// A route.
    #[derive(Default)]
    pub struct StatusRoute {
        /// `FIB` or `RIB`.
        pub route_type: String = "type" omitempty,
        /// Where to.
        pub destination: String = "destination" omitempty,
        /// By which router.
        pub gateway: String = "gateway" omitempty,
        /// By which interface.
        pub interface: String = "interface" omitempty,
        /// From whom.
        pub learned_from: LearnedFrom = "learnedFrom" always,
    }
}

go_struct! {
    /// Where a route comes from.
    #[derive(Default)]
    pub struct LearnedFrom {
        /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
        pub source_type: String = "sourceType" omitempty,
        /// The peer's address.
        pub peer_ip: String = "peerIP" omitempty,
    }
}

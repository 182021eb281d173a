//! The specs and statuses of the kinds that Twill works with, in their stored order.

pub mod bgpconfiguration;
pub mod bgpfilter;
pub mod bgppeer;
pub mod bgpsessionpolicy;
pub mod caliconodestatus;
pub mod clusterinformation;
pub mod felixconfiguration;
pub mod hostendpoint;
pub mod ipamconfiguration;
pub mod ippool;
pub mod ipreservation;
pub mod kubecontrollersconfiguration;
pub mod networkset;
pub mod node;
pub mod policy;
pub mod profile;
pub mod stagedkubernetespolicy;
pub mod stagedpolicy;
pub mod tier;
pub mod workloadendpoint;

pub use bgpconfiguration::{BgpConfiguration, BgpConfigurationSpec};
pub use bgpfilter::{BgpFilter, BgpFilterSpec};
pub use bgppeer::{BgpPeer, BgpPeerSpec};
pub use bgpsessionpolicy::{BgpSessionPolicy, BgpSessionPolicySpec};
pub use caliconodestatus::{CalicoNodeStatus, CalicoNodeStatusSpec};
pub use clusterinformation::{ClusterInformation, ClusterInformationSpec};
pub use felixconfiguration::{FelixConfiguration, FelixConfigurationSpec};
pub use hostendpoint::{HostEndpoint, HostEndpointSpec};
pub use ipamconfiguration::{IpamConfiguration, IpamConfigurationSpec};
pub use ippool::{IpPool, IpPoolSpec};
pub use ipreservation::{IpReservation, IpReservationSpec};
pub use kubecontrollersconfiguration::{KubeControllersConfiguration, KubeControllersConfigurationSpec};
pub use networkset::{GlobalNetworkSet, GlobalNetworkSetSpec, NetworkSet, NetworkSetSpec};
pub use node::{Node, NodeSpec};
pub use policy::{GlobalNetworkPolicy, GlobalNetworkPolicySpec, NetworkPolicy, NetworkPolicySpec};
pub use profile::{Profile, ProfileSpec};
pub use stagedkubernetespolicy::{StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec};
pub use stagedpolicy::{
    StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec,
};
pub use tier::{Tier, TierSpec};
pub use workloadendpoint::{WorkloadEndpoint, WorkloadEndpointSpec};

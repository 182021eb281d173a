//! ClusterInformation: the one object `default` that says whose cluster this is and whether it may be written to.

use crate::go::go_struct;
use crate::resource::Resource;

/// Whose cluster this is and whether it may be written to.
pub type ClusterInformation = Resource<ClusterInformationSpec>;

go_struct! {
    /// Facts on the cluster.
    #[derive(Default)]
    pub struct ClusterInformationSpec {
        /// 32 hexadecimal digits.
        pub cluster_guid: String = "clusterGUID" omitempty,
        /// A comma-separated list to which each component appends.
        pub cluster_type: String = "clusterType" omitempty,
        /// Calico's version. Never ours: calicoctl refuses to work with another version than its own.
        pub calico_version: String = "calicoVersion" omitempty,
        /// False while the datastore is locked for migration. Never absent: Calico's CNI plugin and calicoctl crash
        /// without it.
        pub datastore_ready: Option<bool> = "datastoreReady" omitempty,
        /// Calico's product variant.
        pub variant: String = "variant" omitempty,
    }
}

//! The kinds of `projectcalico.org/v3`, their names in keys and on the command line, and their scope.

use std::fmt;
use std::str::FromStr;

/// API group and version of Calico's kinds.
pub const API_VERSION: &str = "projectcalico.org/v3";
/// API group and version of Twill's own kinds, for what Calico has no field for.
pub const TWILL_API_VERSION: &str = "twill.net/v1";

/// A kind that is stored under `/calico/resources/v3/projectcalico.org/`, or, if it is our own, under
/// `/twill/resources/v1/twill.net/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "the names say it; compare Calico's reference of the same name"
)]
pub enum Kind {
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    BgpSessionPolicy,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IpamConfiguration,
    IpPool,
    IpReservation,
    KubeControllersConfiguration,
    LiveMigration,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
    WorkloadEndpoint,
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// Names are unique within a namespace.
    Namespaced,
}

struct Row {
    name: &'static str,
    plural: &'static str,
    scope: Scope,
    /// Accepted on the command line besides name and plural, lower case.
    aliases: &'static [&'static str],
}

const fn row(
    name: &'static str,
    plural: &'static str,
    scope: Scope,
    aliases: &'static [&'static str],
) -> Row {
    Row {
        name,
        plural,
        scope,
        aliases,
    }
}

/// One row a kind, in the order of [`Kind`].
const ROWS: [Row; 24] = [
    row(
        "BGPConfiguration",
        "bgpconfigurations",
        Scope::Cluster,
        &["bgpconfig", "bgpconfigs"],
    ),
    row(
        "BGPFilter",
        "bgpfilters",
        Scope::Cluster,
        &["bgpf", "bgpfs", "bf", "bfs"],
    ),
    row(
        "BGPPeer",
        "bgppeers",
        Scope::Cluster,
        &["bgpp", "bgpps", "bp", "bps"],
    ),
    row(
        "BGPSessionPolicy",
        "bgpsessionpolicies",
        Scope::Cluster,
        &["bgpsp", "bgpsps"],
    ),
    row(
        "CalicoNodeStatus",
        "caliconodestatuses",
        Scope::Cluster,
        &["nodestatus", "nodestatuses"],
    ),
    row(
        "ClusterInformation",
        "clusterinformations",
        Scope::Cluster,
        &["clusterinfo", "clusterinfos"],
    ),
    row(
        "FelixConfiguration",
        "felixconfigurations",
        Scope::Cluster,
        &["felixconfig", "felixconfigs"],
    ),
    row(
        "GlobalNetworkPolicy",
        "globalnetworkpolicies",
        Scope::Cluster,
        &["gnp", "gnps"],
    ),
    row(
        "GlobalNetworkSet",
        "globalnetworksets",
        Scope::Cluster,
        &["gnetset", "gnetsets"],
    ),
    row("HostEndpoint", "hostendpoints", Scope::Cluster, &["hep", "heps"]),
    row(
        "IPAMConfiguration",
        "ipamconfigurations",
        Scope::Cluster,
        &["ipamconfig", "ipamconfigs"],
    ),
    row(
        "IPPool",
        "ippools",
        Scope::Cluster,
        &["ipp", "ipps", "pool", "pools"],
    ),
    row(
        "IPReservation",
        "ipreservations",
        Scope::Cluster,
        &["reservation", "reservations"],
    ),
    row(
        "KubeControllersConfiguration",
        "kubecontrollersconfigurations",
        Scope::Cluster,
        &["kubecontrollersconfig", "kubecontrollersconfigs"],
    ),
    row("LiveMigration", "livemigrations", Scope::Namespaced, &[]),
    row(
        "NetworkPolicy",
        "networkpolicies",
        Scope::Namespaced,
        &["np", "nps", "pol", "pols", "policy", "policies"],
    ),
    row(
        "NetworkSet",
        "networksets",
        Scope::Namespaced,
        &["netset", "netsets"],
    ),
    row("Node", "nodes", Scope::Cluster, &["no", "nos"]),
    row("Profile", "profiles", Scope::Cluster, &["pro", "pros"]),
    row(
        "StagedGlobalNetworkPolicy",
        "stagedglobalnetworkpolicies",
        Scope::Cluster,
        &["sgnp", "sgnps"],
    ),
    row(
        "StagedKubernetesNetworkPolicy",
        "stagedkubernetesnetworkpolicies",
        Scope::Namespaced,
        &["sknp", "sknps", "skpol", "skpols"],
    ),
    row(
        "StagedNetworkPolicy",
        "stagednetworkpolicies",
        Scope::Namespaced,
        &["snp", "snps", "spol", "spols"],
    ),
    row("Tier", "tiers", Scope::Cluster, &[]),
    row(
        "WorkloadEndpoint",
        "workloadendpoints",
        Scope::Namespaced,
        &["wep", "weps"],
    ),
];

impl Kind {
    /// Every kind, in alphabetical order.
    pub const ALL: [Self; 24] = [
        Self::BgpConfiguration,
        Self::BgpFilter,
        Self::BgpPeer,
        Self::BgpSessionPolicy,
        Self::CalicoNodeStatus,
        Self::ClusterInformation,
        Self::FelixConfiguration,
        Self::GlobalNetworkPolicy,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::IpamConfiguration,
        Self::IpPool,
        Self::IpReservation,
        Self::KubeControllersConfiguration,
        Self::LiveMigration,
        Self::NetworkPolicy,
        Self::NetworkSet,
        Self::Node,
        Self::Profile,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::Tier,
        Self::WorkloadEndpoint,
    ];

    fn row(self) -> &'static Row {
        ROWS.get(self as usize)
            .expect("one row a kind, as the tests check")
    }

    /// The name as in an object's `kind`: `IPPool`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The plural in lower case, as in keys: `ippools`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// Twill's own: nothing of Calico's reads it.
    #[must_use]
    pub fn is_own(self) -> bool {
        self == Self::BgpSessionPolicy
    }

    /// The `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        if self.is_own() {
            TWILL_API_VERSION
        } else {
            API_VERSION
        }
    }

    /// The short names of the command line, lower case.
    #[must_use]
    pub fn aliases(self) -> &'static [&'static str] {
        self.row().aliases
    }

    /// Cluster or namespaced.
    #[must_use]
    pub fn scope(self) -> Scope {
        self.row().scope
    }

    /// True if objects of this kind live in a namespace.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        self.scope() == Scope::Namespaced
    }

    /// The four kinds of policy that belong to a tier and carry its label and the metadata annotation.
    #[must_use]
    pub fn is_tiered(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::GlobalNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::StagedGlobalNetworkPolicy
        )
    }

    /// The kind whose plural in a key is `plural`, which is lower case.
    #[must_use]
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Nothing is called that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resource type {0:?} is not known")]
pub struct UnknownKind(pub String);

/// Reads what users write: name, plural or alias in any case.
impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let named = |kind: &Self| {
            let row = kind.row();
            row.name.eq_ignore_ascii_case(text)
                || row.plural.eq_ignore_ascii_case(text)
                || row.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(text))
        };
        Self::ALL
            .into_iter()
            .find(named)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads the exact name only, as in an object.
impl<'de> serde::Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let exact = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        exact.ok_or_else(|| serde::de::Error::custom(UnknownKind(text)))
    }
}

#[cfg(test)]
mod tests;

//! The rules of policies and profiles: what a packet must be, and what becomes of it.

use crate::go::{go_struct, whole_fields, words};
use crate::meta::StringMap;
use crate::net::Net;
use crate::number::{Port, Protocol};

words! {
    /// What a rule does with a packet that it matches.
    pub enum Action {
        /// Accepts it.
        Allow = "Allow",
        /// Drops it.
        Deny = "Deny",
        /// Writes a log line and goes on with the next rule.
        Log = "Log",
        /// Skips the rest of this tier.
        Pass = "Pass",
    }
}

words! {
    /// The direction of a policy, as its endpoint sees it.
    pub enum PolicyType {
        /// Packets to the endpoint.
        Ingress = "Ingress",
        /// Packets from the endpoint.
        Egress = "Egress",
    }
}

/// The IP version of a rule, written as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    /// 4.
    V4,
    /// 6.
    V6,
}

impl serde::Serialize for IpVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::V4 => 4,
            Self::V6 => 6,
        })
    }
}

impl<'de> serde::Deserialize<'de> for IpVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(serde::de::Error::custom(format_args!(
                "an IP version is 4 or 6, not {other}"
            ))),
        }
    }
}

whole_fields!(IpVersion);

go_struct! {
    /// One rule. A packet must match everything that is set.
    pub struct Rule {
        /// What to do on a match.
        pub action: Action = "action" required,
        /// Only this version; without it both, as far as the rest allows.
        pub ip_version: Option<IpVersion> = "ipVersion" omitempty,
        /// Only this protocol.
        pub protocol: Option<Protocol> = "protocol" omitempty,
        /// Only this ICMP type and code.
        pub icmp: Option<Icmp> = "icmp" omitempty,
        /// Any protocol but this.
        pub not_protocol: Option<Protocol> = "notProtocol" omitempty,
        /// Any ICMP type and code but this.
        pub not_icmp: Option<Icmp> = "notICMP" omitempty,
        /// Where the packet comes from; always written (Calico's JSON encoder does not know `omitzero`).
        pub source: EntityRule = "source" always,
        /// Where the packet goes; always written, as `source`.
        pub destination: EntityRule = "destination" always,
        /// HTTP methods and paths; Twill keeps them, nothing in the kernel enforces them.
        pub http: Option<HttpMatch> = "http" omitempty,
        /// Notes on the rule.
        pub metadata: Option<RuleMetadata> = "metadata" omitempty,
    }
}

impl Rule {
    /// A rule that matches every packet.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            icmp: None,
            not_protocol: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: None,
            metadata: None,
            extra: crate::Extra::default(),
        }
    }
}

go_struct! {
    /// One end of a packet: every field that is set must hold.
    #[derive(Default)]
    pub struct EntityRule {
        /// The address is in one of these.
        pub nets: Vec<Net> = "nets" omitempty,
        /// The address belongs to an endpoint or network set that this selects.
        pub selector: String = "selector" omitempty,
        /// Narrows or widens `selector` to the namespaces that this selects.
        pub namespace_selector: String = "namespaceSelector" omitempty,
        /// The address, and for destinations the port, is an endpoint of this Kubernetes service.
        pub services: Option<ServiceMatch> = "services" omitempty,
        /// The port is one of these.
        pub ports: Vec<Port> = "ports" omitempty,
        /// The address is in none of these.
        pub not_nets: Vec<Net> = "notNets" omitempty,
        /// The address belongs to nothing that this selects; true also for unknown addresses.
        pub not_selector: String = "notSelector" omitempty,
        /// The port is none of these.
        pub not_ports: Vec<Port> = "notPorts" omitempty,
        /// The address belongs to an endpoint that runs under one of these.
        pub service_accounts: Option<ServiceAccountMatch> = "serviceAccounts" omitempty,
    }
}

go_struct! {
    /// A Kubernetes service.
    #[derive(Default)]
    pub struct ServiceMatch {
        /// Its name.
        pub name: String = "name" omitempty,
        /// Its namespace; that of the policy if empty.
        pub namespace: String = "namespace" omitempty,
    }
}

go_struct! {
    /// Kubernetes service accounts: those named, of those selected.
    #[derive(Default)]
    pub struct ServiceAccountMatch {
        /// One of these names; any if empty.
        pub names: Vec<String> = "names" omitempty,
        /// A selector over the labels of service accounts.
        pub selector: String = "selector" omitempty,
    }
}

go_struct! {
    /// ICMP type and code.
    #[derive(Default)]
    pub struct Icmp {
        /// 0 to 254.
        pub icmp_type: Option<u8> = "type" omitempty,
        /// 0 to 255, only with a type.
        pub code: Option<u8> = "code" omitempty,
    }
}

go_struct! {
    /// HTTP requests.
    #[derive(Default)]
    pub struct HttpMatch {
        /// One of these methods; any if empty.
        pub methods: Vec<String> = "methods" omitempty,
        /// One of these paths; any if empty.
        pub paths: Vec<HttpPath> = "paths" omitempty,
    }
}

go_struct! {
    /// An HTTP path: one of the two is set.
    #[derive(Default)]
    pub struct HttpPath {
        /// The whole path.
        pub exact: String = "exact" omitempty,
        /// How the path begins.
        pub prefix: String = "prefix" omitempty,
    }
}

go_struct! {
    /// Notes on a rule.
    #[derive(Default)]
    pub struct RuleMetadata {
        /// Free text by key.
        pub annotations: StringMap = "annotations" omitempty,
    }
}

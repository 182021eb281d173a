//! FelixConfiguration: the data plane's settings for the cluster (`default`), for one node (`node.<name>`) or for the
//! nodes that a selector matches.
//!
//! Calico knows about two hundred fields. Those that Twill obeys are typed; the others are kept as they are.

use crate::duration::GoDuration;
use crate::go::go_struct;
use crate::number::Port;
use crate::resource::Resource;

/// Settings of the data plane.
pub type FelixConfiguration = Resource<FelixConfigurationSpec>;

go_struct! {
    /// Settings of the data plane.
    #[derive(Default)]
    pub struct FelixConfigurationSpec {
        /// The nodes that this object is for, where its name does not say so.
        pub node_selector: Option<String> = "nodeSelector" omitempty,
        /// How long the data plane may be silent; 90 s by default.
        pub dataplane_watchdog_timeout: Option<GoDuration> = "dataplaneWatchdogTimeout" omitempty,
        /// IPv6; true by default.
        pub ipv6_support: Option<bool> = "ipv6Support" omitempty,
        /// Resync of routes; 90 s by default.
        pub route_refresh_interval: Option<GoDuration> = "routeRefreshInterval" omitempty,
        /// Resync of interfaces; 90 s by default.
        pub interface_refresh_interval: Option<GoDuration> = "interfaceRefreshInterval" omitempty,
        /// Prefixes of the names of workload interfaces, joined by commas; `cali` by default.
        pub interface_prefix: String = "interfacePrefix" omitempty,
        /// Interfaces that are nobody's addresses, joined by commas.
        pub interface_exclude: String = "interfaceExclude" omitempty,
        /// What becomes of packets from a workload to its own host after its policy: `Drop` (default), `Accept`, `Return`.
        pub default_endpoint_to_host_action: String = "defaultEndpointToHostAction" omitempty,
        /// Prefix of the lines that Log rules write.
        pub log_prefix: String = "logPrefix" omitempty,
        /// How much to log.
        pub log_severity_screen: String = "logSeverityScreen" omitempty,
        /// IPIP whatever the pools say.
        pub ipip_enabled: Option<bool> = "ipipEnabled" omitempty,
        /// MTU of the IPIP device; 0 is automatic.
        pub ipip_mtu: Option<u32> = "ipipMTU" omitempty,
        /// VXLAN whatever the pools say.
        pub vxlan_enabled: Option<bool> = "vxlanEnabled" omitempty,
        /// MTU of the VXLAN device; 0 is automatic.
        pub vxlan_mtu: Option<u32> = "vxlanMTU" omitempty,
        /// MTU of the IPv6 VXLAN device; 0 is automatic.
        pub vxlan_mtu_v6: Option<u32> = "vxlanMTUV6" omitempty,
        /// UDP port of VXLAN; 4789 by default.
        pub vxlan_port: Option<u16> = "vxlanPort" omitempty,
        /// VXLAN network identifier; 4096 by default.
        pub vxlan_vni: Option<u32> = "vxlanVNI" omitempty,
        /// Workloads may send VXLAN; false by default.
        pub allow_vxlan_packets_from_workloads: Option<bool> = "allowVXLANPacketsFromWorkloads" omitempty,
        /// Workloads may send IPIP; false by default.
        pub allow_ipip_packets_from_workloads: Option<bool> = "allowIPIPPacketsFromWorkloads" omitempty,
        /// How often the status key is written; 0 is never.
        pub reporting_interval: Option<GoDuration> = "reportingInterval" omitempty,
        /// How long the status key lives.
        pub reporting_ttl: Option<GoDuration> = "reportingTTL" omitempty,
        /// Status keys for endpoints.
        pub endpoint_reporting_enabled: Option<bool> = "endpointReportingEnabled" omitempty,
        /// Directory of the files that say an endpoint is ready.
        pub endpoint_status_path_prefix: String = "endpointStatusPathPrefix" omitempty,
        /// Let pass what connection tracking calls invalid.
        pub disable_conntrack_invalid_check: Option<bool> = "disableConntrackInvalidCheck" omitempty,
        /// Answer health checks.
        pub health_enabled: Option<bool> = "healthEnabled" omitempty,
        /// Address for health checks.
        pub health_host: Option<String> = "healthHost" omitempty,
        /// Port for health checks; 9099 by default.
        pub health_port: Option<u16> = "healthPort" omitempty,
        /// Serve metrics.
        pub prometheus_metrics_enabled: Option<bool> = "prometheusMetricsEnabled" omitempty,
        /// Address for metrics.
        pub prometheus_metrics_host: String = "prometheusMetricsHost" omitempty,
        /// Port for metrics; 9091 by default.
        pub prometheus_metrics_port: Option<u16> = "prometheusMetricsPort" omitempty,
        /// Ports of the host that no policy closes.
        pub failsafe_inbound_host_ports: Option<Vec<ProtoPort>> = "failsafeInboundHostPorts" omitempty,
        /// Ports that the host can always reach.
        pub failsafe_outbound_host_ports: Option<Vec<ProtoPort>> = "failsafeOutboundHostPorts" omitempty,
        /// Source ports for masquerading.
        pub nat_port_range: Option<Port> = "natPortRange" omitempty,
        /// Source address instead of masquerading.
        pub nat_outgoing_address: String = "natOutgoingAddress" omitempty,
        /// `IPPoolsOnly` (default) or `IPPoolsAndHostIPs`.
        pub nat_outgoing_exclusions: Option<String> = "natOutgoingExclusions" omitempty,
        /// Source hint of workload routes.
        pub device_route_source_address: String = "deviceRouteSourceAddress" omitempty,
        /// Source hint of IPv6 workload routes.
        pub device_route_source_address_ipv6: String = "deviceRouteSourceAddressIPv6" omitempty,
        /// Protocol number of routes; Twill's default is 80.
        pub device_route_protocol: Option<u8> = "deviceRouteProtocol" omitempty,
        /// Remove alien routes from workload interfaces; true by default.
        pub remove_external_routes: Option<bool> = "removeExternalRoutes" omitempty,
        /// Which routes of the cluster Felix programs on Calico's nodes.
        pub program_cluster_routes: Option<String> = "programClusterRoutes" omitempty,
        /// Whether to turn on forwarding: `Enabled` (default) or `Disabled`.
        pub ip_forwarding: String = "ipForwarding" omitempty,
        /// Further hosts that may send tunnelled packets.
        pub external_nodes_list: Option<Vec<String>> = "externalNodesList" omitempty,
        /// `Auto` (default), `Enabled`, `Disabled`.
        pub nftables_mode: Option<String> = "nftablesMode" omitempty,
        /// `Disabled` by default.
        pub nftables_flow_table_offload: Option<String> = "nftablesFlowTableOffload" omitempty,
        /// Resync of tables; 180 s by default.
        pub nftables_refresh_interval: Option<GoDuration> = "nftablesRefreshInterval" omitempty,
        /// What ends an accepted packet: `Accept` (default) or `Return`.
        pub nftables_filter_allow_action: String = "nftablesFilterAllowAction" omitempty,
        /// What Deny does: `Drop` (default) or `Reject`.
        pub nftables_filter_deny_action: String = "nftablesFilterDenyAction" omitempty,
        /// Bits of the packet mark that Felix may use; 0xffff0000 by default.
        pub nftables_mark_mask: Option<u32> = "nftablesMarkMask" omitempty,
        /// Calico's eBPF data plane.
        pub bpf_enabled: Option<bool> = "bpfEnabled" omitempty,
        /// Always stored, also when empty.
        pub bpf_log_level: String = "bpfLogLevel" always,
        /// Old form of the next field, which follows it.
        pub bpf_connect_time_load_balancing_enabled: Option<bool> = "bpfConnectTimeLoadBalancingEnabled" omitempty,
        /// `TCP` by default; for Calico's eBPF data plane, stored always.
        pub bpf_connect_time_load_balancing: Option<String> = "bpfConnectTimeLoadBalancing" omitempty,
        /// `Enabled` by default; for Calico's eBPF data plane, stored always.
        pub bpf_host_networked_nat_without_ctlb: Option<String> = "bpfHostNetworkedNATWithoutCTLB" omitempty,
        /// `CalicoIPAM` (default) or `WorkloadIPs`.
        pub route_source: String = "routeSource" omitempty,
        /// Program no route at all.
        pub route_sync_disabled: Option<bool> = "routeSyncDisabled" omitempty,
        /// Metric of IPv4 routes; 1024 by default.
        pub ipv4_normal_route_priority: Option<i32> = "ipv4NormalRoutePriority" omitempty,
        /// Metric of preferred IPv4 routes; 512 by default.
        pub ipv4_elevated_route_priority: Option<i32> = "ipv4ElevatedRoutePriority" omitempty,
        /// Metric of IPv6 routes; 1024 by default.
        pub ipv6_normal_route_priority: Option<i32> = "ipv6NormalRoutePriority" omitempty,
        /// Metric of preferred IPv6 routes; 512 by default.
        pub ipv6_elevated_route_priority: Option<i32> = "ipv6ElevatedRoutePriority" omitempty,
        /// WireGuard between nodes.
        pub wireguard_enabled: Option<bool> = "wireguardEnabled" omitempty,
        /// WireGuard between nodes over IPv6.
        pub wireguard_enabled_v6: Option<bool> = "wireguardEnabledV6" omitempty,
        /// What becomes of packets to unused service addresses: `Drop` (default), `Reject`, `Disabled`.
        pub service_loop_prevention: String = "serviceLoopPrevention" omitempty,
        /// Whether endpoints may name further sources: `Disabled` (default) or `Any`.
        pub workload_source_spoofing: String = "workloadSourceSpoofing" omitempty,
        /// Regular expression of the interfaces that decide the MTU.
        pub mtu_iface_pattern: String = "mtuIfacePattern" omitempty,
        /// `Disabled` by default.
        pub floating_ips: Option<String> = "floatingIPs" omitempty,
    }
}

go_struct! {
    /// A protocol and port, and optionally the prefix that they are for.
    #[derive(Default)]
    pub struct ProtoPort {
        /// `TCP` or `UDP`, in any case; TCP if empty.
        pub protocol: String = "protocol" omitempty,
        /// The port.
        pub port: u16 = "port" always,
        /// The prefix; everyone if empty.
        pub net: String = "net" omitempty,
    }
}

impl FelixConfigurationSpec {
    /// Fields of Calico's that Twill does not read, but knows to be right, in alphabetical order.
    pub const PASSED_THROUGH: &'static [&'static str] = &[
        "awsSrcDstCheck",
        "bpfAttachType",
        "bpfCTLBLogFilter",
        "bpfConntrackLogLevel",
        "bpfConntrackMode",
        "bpfConntrackTimeouts",
        "bpfDSROptoutCIDRs",
        "bpfDataIfacePattern",
        "bpfDisableGROForIfaces",
        "bpfDisableUnprivileged",
        "bpfEnforceRPF",
        "bpfExcludeCIDRsFromNAT",
        "bpfExportBufferSizeMB",
        "bpfExtToServiceConnmark",
        "bpfExternalServiceMode",
        "bpfForceTrackPacketsFromIfaces",
        "bpfHostConntrackBypass",
        "bpfIPFragTimeout",
        "bpfIPFragmentReassemblyEnabled",
        "bpfJITHardening",
        "bpfKubeProxyHealthzPort",
        "bpfKubeProxyIptablesCleanupEnabled",
        "bpfKubeProxyMinSyncPeriod",
        "bpfL3IfacePattern",
        "bpfLogFilters",
        "bpfMaglevMaxEndpointsPerService",
        "bpfMaglevMaxServices",
        "bpfMapSizeConntrack",
        "bpfMapSizeConntrackCleanupQueue",
        "bpfMapSizeConntrackScaling",
        "bpfMapSizeIPSets",
        "bpfMapSizeIfState",
        "bpfMapSizeNATAffinity",
        "bpfMapSizeNATBackend",
        "bpfMapSizeNATFrontend",
        "bpfMapSizePerCpuConntrack",
        "bpfMapSizeRoute",
        "bpfOverlayHostSourceIP",
        "bpfPSNATPorts",
        "bpfPolicyDebugEnabled",
        "bpfProfiling",
        "bpfRedirectToPeer",
        "cgroupV2Path",
        "chainInsertMode",
        "dataplaneDriver",
        "debugDisableLogDropping",
        "debugHost",
        "debugMemoryProfilePath",
        "debugPort",
        "debugSimulateCalcGraphHangAfter",
        "debugSimulateDataplaneApplyDelay",
        "debugSimulateDataplaneHangAfter",
        "endpointReportingDelay",
        "featureDetectOverride",
        "featureGates",
        "flowLogsCollectorDebugTrace",
        "flowLogsFlushInterval",
        "flowLogsGoldmaneServer",
        "flowLogsLocalReporter",
        "flowLogsPolicyEvaluationMode",
        "genericXDPEnabled",
        "goGCThreshold",
        "goMaxProcs",
        "goMemoryLimitMB",
        "healthTimeoutOverrides",
        "ipsetsRefreshInterval",
        "iptablesBackend",
        "iptablesFilterAllowAction",
        "iptablesFilterDenyAction",
        "iptablesLockProbeInterval",
        "iptablesMangleAllowAction",
        "iptablesMarkMask",
        "iptablesNATOutgoingInterfaceFilter",
        "iptablesPostWriteCheckInterval",
        "iptablesRefreshInterval",
        "istioAmbientMode",
        "istioDSCPMark",
        "kubeNodePortRanges",
        "liveMigrationRouteConvergenceTime",
        "localSubnetL2Reachability",
        "localSubnetL2ReachabilityRefreshInterval",
        "logActionRateLimit",
        "logActionRateLimitBurst",
        "logDebugFilenameRegex",
        "logFilePath",
        "logSeverityFile",
        "logSeveritySys",
        "maxIpsetSize",
        "metadataAddr",
        "metadataPort",
        "netlinkTimeout",
        "nftablesFlowTableDataIfacePattern",
        "nftablesMangleAllowAction",
        "openstackRegion",
        "policySyncPathPrefix",
        "prometheusGoMetricsEnabled",
        "prometheusMetricsCAFile",
        "prometheusMetricsCertFile",
        "prometheusMetricsClientAuth",
        "prometheusMetricsKeyFile",
        "prometheusProcessMetricsEnabled",
        "prometheusWireGuardMetricsEnabled",
        "requireMTUFile",
        "routeTableRange",
        "routeTableRanges",
        "sidecarAccelerationEnabled",
        "usageReportingEnabled",
        "usageReportingInitialDelay",
        "usageReportingInterval",
        "useInternalDataplaneDriver",
        "windowsManageFirewallRules",
        "wireguardHostEncryptionEnabled",
        "wireguardInterfaceName",
        "wireguardInterfaceNameV6",
        "wireguardKeepAlive",
        "wireguardListeningPort",
        "wireguardListeningPortV6",
        "wireguardMTU",
        "wireguardMTUV6",
        "wireguardRoutingRulePriority",
        "wireguardThreadingEnabled",
        "xdpEnabled",
        "xdpRefreshInterval",
    ];
}

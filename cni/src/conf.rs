//! The network configuration on standard input (CNI spec 1.1.0, section 1; Calico's keys where Calico has them).

use std::collections::BTreeMap;
use std::path::PathBuf;

// Named, because the fuzz targets include this file from elsewhere.
#[path = "conf/calico.rs"]
mod calico;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::args;
use crate::error::{CniError, code};

/// Longest configuration read, prevResult included.
pub(crate) const STDIN_MAX: u64 = 1024 * 1024;
/// Longest network name; it is part of an etcd key.
const NETWORK_MAX: usize = 128;
/// The key under which a runtime lists what stays, and as the spec misspelt it once.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
const VALID_ATTACHMENTS_ONCE: &str = "cni.dev/attachments";
/// Longest version repeated in an answer.
const VERSION_MAX: usize = 32;
/// Where the daemon's socket is unless `run_dir` says otherwise.
const RUN_DIR: &str = "/run/twill";

/// Versions of the spec, oldest first.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl SpecVersion {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0]
            .into_iter()
            .find(|v| v.as_str() == text)
    }
}

/// A configuration that is worth asking the daemon about.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) version: SpecVersion,
    pub(crate) raw: RawConf,
    /// Keys that are known and not honoured, each with its reason.
    pub(crate) ignored: Vec<String>,
}

/// The keys as they lie in the JSON. Unknown keys are the runtime's or a chained plugin's and are not judged.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawConf {
    #[serde(rename = "cniVersion")]
    cni_version: String,
    pub(crate) name: String,
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) mtu: u32,
    /// Empty, or the name of the node that this file was written for.
    pub(crate) nodename: String,
    log_level: String,
    pub(crate) policy: Policy,
    pub(crate) policy_setup_timeout_seconds: i64,
    pub(crate) ipam: Ipam,
    pub(crate) container_settings: ContainerSettings,
    pub(crate) feature_control: FeatureControl,
    /// Goes into the result as it is (CNI spec 1.1.0, section 1, "well-known keys").
    pub(crate) dns: Option<Value>,
    pub(crate) args: Args,
    #[serde(rename = "runtimeConfig")]
    pub(crate) runtime: RuntimeConfig,
    #[serde(rename = "prevResult")]
    pub(crate) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) assign_ipv4: Option<Flag>,
    pub(crate) assign_ipv6: Option<Flag>,
    pub(crate) ipv4_pools: Vec<String>,
    pub(crate) ipv6_pools: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerSettings {
    pub(crate) allow_ip_forwarding: Option<Flag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FeatureControl {
    pub(crate) ip_addrs_no_ipam: bool,
    pub(crate) floating_ips: bool,
}

/// A bool, or Calico's strings "true" and "false".
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Flag {
    Bool(bool),
    Text(FlagText),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlagText {
    True,
    False,
}

impl From<Flag> for bool {
    fn from(flag: Flag) -> Self {
        matches!(flag, Flag::Bool(true) | Flag::Text(FlagText::True))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Args {
    pub(crate) twill: TwillArgs,
    pub(crate) cni: CniArgs,
}

/// What Kubernetes would tell of the pod, where nobody else does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TwillArgs {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(rename = "serviceAccount")]
    pub(crate) service_account: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CniArgs {
    pub(crate) ips: Vec<String>,
    pub(crate) labels: Vec<LabelArg>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LabelArg {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Capability arguments: what the runtime fills in because the configuration declares the capability.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeConfig {
    pub(crate) ips: Vec<String>,
    pub(crate) mac: String,
    pub(crate) dns: Option<RuntimeDns>,
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    pub(crate) pod_annotations: BTreeMap<String, String>,
}

/// The `dns` capability, which names its lists otherwise than the result does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeDns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl Conf {
    /// # Errors
    /// Too long or not JSON of the right types: code 6. A version outside [`VERSIONS`]: code 1. A value that is not
    /// supported: code 2. Anything else: code 7.
    pub(crate) fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (object, raw) = decode(stdin)?;
        let version = SpecVersion::parse(&raw.cni_version).ok_or_else(|| {
            let msg = format!(
                "network configuration: cniVersion {:?} is not supported",
                raw.cni_version
            );
            CniError::new(code::INCOMPATIBLE_VERSION, msg)
                .details(format_args!("supported: {}", VERSIONS.join(", ")))
        })?;
        if let Some(reason) = args::bad_name(&raw.name, NETWORK_MAX) {
            return Err(CniError::config(format_args!("name {reason}")));
        }
        if let Some(dir) = raw.run_dir.as_ref().filter(|d| !d.is_absolute()) {
            return Err(CniError::config(format_args!(
                "run_dir {dir:?} is not an absolute path"
            )));
        }
        calico::refuse(&raw)?;
        Ok(Self {
            version,
            raw,
            ignored: calico::ignored(&object),
        })
    }

    /// Whether `log_level` asks for every step on standard error.
    pub(crate) fn is_verbose(&self) -> bool {
        self.raw.log_level.eq_ignore_ascii_case("debug")
    }

    /// The addresses asked for, without prefix lengths: capability arguments before `args` before CNI_ARGS (CNI
    /// conventions, "CNI_ARGS": who understands `args` ignores the equivalent there).
    pub(crate) fn requested_ips(&self, cni_args: &[String]) -> Vec<String> {
        let places = [&self.raw.runtime.ips[..], &self.raw.args.cni.ips[..], cni_args];
        let first = places.into_iter().find(|ips| !ips.is_empty()).unwrap_or_default();
        let bare = |ip: &String| ip.split('/').next().unwrap_or(ip).trim().to_owned();
        first.iter().map(bare).collect()
    }

    /// The pod's annotations: the runtime's word counts more than the configuration's.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        let mut all = self.raw.args.twill.annotations.clone();
        all.extend(self.raw.runtime.pod_annotations.clone());
        all
    }

    /// The pod's labels.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let listed = self.raw.args.cni.labels.iter();
        let mut all: BTreeMap<_, _> = listed.map(|l| (l.key.clone(), l.value.clone())).collect();
        all.extend(self.raw.args.twill.labels.clone());
        all
    }

    /// What GC is to leave; `None` when the runtime does not say.
    pub(crate) fn valid_attachments(&self) -> Option<&[ValidAttachment]> {
        let either = self
            .raw
            .valid_attachments
            .as_ref()
            .or(self.raw.attachments.as_ref());
        either.map(Vec::as_slice)
    }

    /// `dns` of the result.
    pub(crate) fn dns(&self) -> Value {
        let Some(dns) = &self.raw.runtime.dns else {
            return self.raw.dns.clone().unwrap_or_else(|| Map::new().into());
        };
        let lists = [
            ("nameservers", &dns.servers),
            ("search", &dns.searches),
            ("options", &dns.options),
        ];
        let full = lists.into_iter().filter(|(_, list)| !list.is_empty());
        Value::Object(
            full.map(|(k, list)| (k.to_owned(), list.clone().into()))
                .collect(),
        )
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.raw.run_dir.clone().unwrap_or_else(|| PathBuf::from(RUN_DIR))
    }
}

/// `cniVersion` as far as it can be told: errors are printed in the caller's version if at all possible.
pub(crate) fn version_of(stdin: &[u8]) -> &'static str {
    decode(stdin)
        .ok()
        .and_then(|(_, raw)| SpecVersion::parse(&raw.cni_version))
        .unwrap_or(SpecVersion::V1_0_0)
        .as_str()
}

/// `cniVersion` as it was given, for the answer to VERSION, which repeats it whether or not it is supported.
pub(crate) fn version_given(stdin: &[u8]) -> Option<String> {
    let given = decode(stdin).ok()?.1.cni_version;
    Some(given).filter(|v| !v.is_empty() && v.len() <= VERSION_MAX)
}

fn decode(stdin: &[u8]) -> Result<(Map<String, Value>, RawConf), CniError> {
    if u64::try_from(stdin.len()).map_or(true, |len| len > STDIN_MAX) {
        return Err(CniError::new(
            code::DECODE,
            format_args!("network configuration is longer than {STDIN_MAX} bytes"),
        ));
    }
    let unreadable = |e: serde_json::Error| {
        CniError::new(
            code::DECODE,
            format_args!("network configuration cannot be read: {e}"),
        )
    };
    let mut object: Map<String, Value> = serde_json::from_slice(stdin).map_err(unreadable)?;
    // No attachment is valid, which is not the same as no list of them.
    for key in [VALID_ATTACHMENTS, VALID_ATTACHMENTS_ONCE] {
        if let Some(list @ Value::Null) = object.get_mut(key) {
            *list = Value::Array(Vec::new());
        }
    }
    without_null(&mut object);
    let raw = RawConf::deserialize(&object).map_err(unreadable)?;
    Ok((object, raw))
}

/// Runtimes in Go write null for an empty map or list. The JSON reader has bounded how deep this goes.
fn without_null(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    for value in object.values_mut() {
        match value {
            Value::Object(inner) => without_null(inner),
            Value::Array(list) => list
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(without_null),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(stdin: &str) -> u32 {
        Conf::parse(stdin.as_bytes()).unwrap_err().code
    }

    #[test]
    fn the_documented_form_is_read_whole() {
        let conf = Conf::parse(
            br#"{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"twill","run_dir":"/run/x","policy":{"type":"k8s"},
                "mtu":1400,"ipam":{"type":"calico-ipam","assign_ipv4":"true","assign_ipv6":false,"ipv4_pools":["p"]},
                "args":{"twill":{"labels":{"app":"web"},"annotations":{"a":"b"}}},"runtimeConfig":{"mac":"02:00:00:00:00:01"},
                "dns":{"nameservers":[]},"somethingElse":[1]}"#,
        )
        .unwrap();
        assert_eq!(conf.version, SpecVersion::V1_0_0);
        assert_eq!(conf.run_dir(), PathBuf::from("/run/x"));
        assert_eq!(conf.raw.args.twill.labels["app"], "web");
        assert_eq!((conf.raw.mtu, conf.raw.policy.kind.as_str()), (1400, "k8s"));
        assert!(bool::from(conf.raw.ipam.assign_ipv4.unwrap()));
        assert!(!bool::from(conf.raw.ipam.assign_ipv6.unwrap()));
    }

    #[test]
    fn addresses_asked_for_come_from_the_first_place_that_has_any() {
        let asked = |more: &str| {
            let conf =
                Conf::parse(format!(r#"{{"cniVersion":"1.0.0","name":"n"{more}}}"#).as_bytes()).unwrap();
            conf.requested_ips(&["10.0.0.3".to_owned()])
        };
        let args = r#","args":{"cni":{"ips":["10.0.0.2/24"]}}"#;
        assert_eq!(asked(""), ["10.0.0.3"]);
        assert_eq!(asked(args), ["10.0.0.2"]);
        assert_eq!(
            asked(&format!(
                r#"{args},"runtimeConfig":{{"ips":["10.0.0.1/32","fd00::1"]}}"#
            )),
            ["10.0.0.1", "fd00::1"]
        );
    }

    #[test]
    fn what_a_runtime_in_go_writes_for_nothing_is_nothing() {
        let conf = Conf::parse(
            br#"{"cniVersion":"1.1.0","name":"n","ipam":{"ipv4_pools":null},"prevResult":{"ips":null,"interfaces":[{"mac":null}]},
                "runtimeConfig":{"io.kubernetes.cri.pod-annotations":null,"dns":{"servers":null}},
                "cni.dev/valid-attachments":null}"#,
        )
        .unwrap();
        assert!(conf.annotations().is_empty() && conf.raw.ipam.ipv4_pools.is_empty());
        assert_eq!(
            conf.raw.prev_result.as_ref().unwrap(),
            &serde_json::json!({"interfaces": [{}]})
        );
        assert_eq!(conf.valid_attachments().map(<[_]>::len), Some(0));
    }

    #[test]
    fn labels_annotations_and_dns_are_gathered_from_where_runtimes_put_them() {
        let conf = Conf::parse(
            br#"{"cniVersion":"1.0.0","name":"n","dns":{"domain":"x"},
                "args":{"twill":{"annotations":{"a":"conf","b":"conf"},"labels":{"l":"twill"}},
                        "cni":{"labels":[{"key":"l","value":"cni"},{"key":"m","value":"cni"}]}},
                "runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"cri"}}}"#,
        )
        .unwrap();
        assert_eq!(
            (conf.annotations()["a"].as_str(), conf.annotations()["b"].as_str()),
            ("cri", "conf")
        );
        assert_eq!(
            (conf.labels()["l"].as_str(), conf.labels()["m"].as_str()),
            ("twill", "cni")
        );
        assert_eq!(conf.dns(), serde_json::json!({"domain": "x"}));
        let conf = Conf::parse(
            br#"{"cniVersion":"1.0.0","name":"n","dns":{"domain":"x"},"runtimeConfig":{"dns":{"servers":["10.96.0.10"]}}}"#,
        )
        .unwrap();
        assert_eq!(conf.dns(), serde_json::json!({"nameservers": ["10.96.0.10"]}));
    }

    #[test]
    fn each_mistake_has_its_code() {
        assert_eq!(code_of(""), 6);
        assert_eq!(code_of("{"), 6);
        assert_eq!(code_of(r#"{"cniVersion":"1.0.0","name":["x"]}"#), 6);
        assert_eq!(
            code_of(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"assign_ipv4":"maybe"}}"#),
            6
        );
        assert_eq!(
            code_of(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"dhcp"}}"#),
            2
        );
        assert_eq!(code_of(r#"{"name":"n"}"#), 1);
        assert_eq!(code_of(r#"{"cniVersion":"0.2.0","name":"n"}"#), 1);
        assert_eq!(code_of(r#"{"cniVersion":"1.0.0"}"#), 7);
        assert_eq!(code_of(r#"{"cniVersion":"1.0.0","name":"a/b"}"#), 7);
        assert_eq!(
            code_of(r#"{"cniVersion":"1.0.0","name":"n","run_dir":"relative"}"#),
            7
        );
        assert_eq!(code_of(&format!("{{\"name\":\"{}\"}}", "n".repeat(1 << 20))), 6);
    }
}

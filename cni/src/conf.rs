//! The network configuration on standard input (CNI spec 1.1.0, section 1; Calico's keys where Calico has them).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::args;
use crate::error::{CniError, code};

/// Longest configuration read, prevResult included.
pub(crate) const STDIN_MAX: u64 = 1024 * 1024;
/// Longest network name; it is part of an etcd key.
const NETWORK_MAX: usize = 128;
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
    pub(crate) policy: Policy,
    pub(crate) ipam: Ipam,
    pub(crate) args: Args,
    #[serde(rename = "runtimeConfig")]
    pub(crate) runtime: RuntimeConfig,
    #[serde(rename = "prevResult")]
    pub(crate) prev_result: Option<PrevResult>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
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
    pub(crate) assign_ipv4: Option<Flag>,
    pub(crate) assign_ipv6: Option<Flag>,
    pub(crate) ipv4_pools: Vec<String>,
    pub(crate) ipv6_pools: Vec<String>,
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
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeConfig {
    pub(crate) ips: Vec<String>,
    pub(crate) mac: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PrevResult {
    pub(crate) ips: Vec<PrevIp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PrevIp {
    pub(crate) address: String,
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
    /// Too long or not JSON of the right types: code 6. A version outside [`VERSIONS`]: code 1. Anything else: code 7.
    pub(crate) fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let raw = decode(stdin)?;
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
        Ok(Self { version, raw })
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.raw.run_dir.clone().unwrap_or_else(|| PathBuf::from(RUN_DIR))
    }
}

/// `cniVersion` as far as it can be told: errors are printed in the caller's version if at all possible.
pub(crate) fn version_of(stdin: &[u8]) -> &'static str {
    decode(stdin)
        .ok()
        .and_then(|raw| SpecVersion::parse(&raw.cni_version))
        .unwrap_or(SpecVersion::V1_0_0)
        .as_str()
}

fn decode(stdin: &[u8]) -> Result<RawConf, CniError> {
    if u64::try_from(stdin.len()).map_or(true, |len| len > STDIN_MAX) {
        return Err(CniError::new(
            code::DECODE,
            format_args!("network configuration is longer than {STDIN_MAX} bytes"),
        ));
    }
    serde_json::from_slice(stdin).map_err(|e| {
        CniError::new(
            code::DECODE,
            format_args!("network configuration cannot be read: {e}"),
        )
    })
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
                "mtu":1400,"ipam":{"type":"twill","assign_ipv4":"true","assign_ipv6":false,"ipv4_pools":["p"]},
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
    fn each_mistake_has_its_code() {
        assert_eq!(code_of(""), 6);
        assert_eq!(code_of("{"), 6);
        assert_eq!(code_of(r#"{"cniVersion":"1.0.0","name":["x"]}"#), 6);
        assert_eq!(
            code_of(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"assign_ipv4":"maybe"}}"#),
            6
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

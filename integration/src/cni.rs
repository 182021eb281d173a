//! Exec'ing a CNI plugin as a kubelet's runtime does: environment, stdin configuration of spec 1.0.0, result on stdout.

use crate::netns;
use crate::run::Finished;
use crate::state::Pod;
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name that Calico's manifests give the network; addresses are handed out under it.
pub const NETWORK: &str = "k8s-pod-network";
/// Interface inside the pod.
pub const IFNAME: &str = "eth0";

/// A plugin and the configuration it gets.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The executable.
    pub program: PathBuf,
    /// Its stdin configuration, without what belongs to one pod.
    pub config: Value,
}

/// An error as the plugin printed it (CNI spec, section 5, "Error").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// `code`; 11 is "try again later".
    pub code: u64,
    /// `msg` and `details`.
    pub message: String,
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CNI error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for CniError {}

/// What the plugin answered, and how long it took.
#[derive(Debug)]
pub struct Answer {
    /// The result (ADD) or nothing (DEL), or the plugin's error.
    pub outcome: Result<Value, CniError>,
    /// The raw run.
    pub finished: Finished,
}

impl Plugin {
    /// Twill's plugin for a node.
    #[must_use]
    pub fn twill(program: PathBuf, run_dir: &Path) -> Self {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "twill",
            "run_dir": run_dir,
            "policy": {"type": "k8s"},
        });
        Self { program, config }
    }

    /// Runs one command of the plugin for a pod, inside the node's namespace.
    ///
    /// `netns` is what CNI_NETNS says: a runtime leaves it empty on a late DEL.
    ///
    /// # Errors
    /// When the plugin cannot be run or answers neither with a result nor with an error of the spec.
    pub fn exec(&self, verb: &str, node_netns: &str, pod: &Pod, netns: &str) -> Result<Answer> {
        self.exec_as(verb, node_netns, pod, netns, IFNAME)
    }

    /// [`Plugin::exec`] for an interface of another name than `eth0`.
    ///
    /// # Errors
    /// As [`Plugin::exec`].
    pub fn exec_as(
        &self,
        verb: &str,
        node_netns: &str,
        pod: &Pod,
        netns: &str,
        ifname: &str,
    ) -> Result<Answer> {
        let mut command = Command::new(&self.program);
        let directory = self.program.parent().unwrap_or(Path::new("/"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", ifname)
            .env("CNI_PATH", directory)
            .env("CNI_ARGS", arguments(pod));
        let input = serde_json::to_vec(&self.config_for(pod))?;
        let finished = netns::run_inside(node_netns, command, &input)?;
        let outcome = interpret(verb, &finished)
            .with_context(|| format!("{} {verb} of {}", self.program.display(), pod.full_name()))?;
        Ok(Answer { outcome, finished })
    }

    fn config_for(&self, pod: &Pod) -> Value {
        let mut config = self.config.clone();
        let args = json!({"twill": {"labels": pod.labels, "annotations": pod.annotations}});
        if let (Value::Object(config), true) = (&mut config, self.config["type"] == "twill") {
            config.insert("args".to_owned(), args);
        }
        config
    }
}

fn arguments(pod: &Pod) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.container_id, pod.uid
    )
}

fn interpret(verb: &str, finished: &Finished) -> Result<Result<Value, CniError>> {
    let text = finished.stdout.trim();
    if finished.status.success() {
        if text.is_empty() && verb != "ADD" {
            return Ok(Ok(Value::Null));
        }
        return Ok(Ok(
            serde_json::from_str(text).with_context(|| format!("its result is not JSON: {text:?}"))?
        ));
    }
    let error: Value = serde_json::from_str(text).map_err(|_| {
        anyhow!(
            "{} without a CNI error on stdout: {}",
            finished.status,
            finished.said()
        )
    })?;
    let code = error["code"]
        .as_u64()
        .with_context(|| format!("its error has no code: {text}"))?;
    let say = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let message = [say("msg"), say("details")]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    Ok(Err(CniError { code, message }))
}

/// The addresses of an ADD result.
///
/// # Errors
/// When the result holds none.
pub fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"]
        .as_array()
        .with_context(|| format!("the result has no ips: {result}"))?;
    let parse = |ip: &Value| {
        let text = ip["address"].as_str().unwrap_or_default();
        let address = text.split('/').next().unwrap_or_default();
        address
            .parse()
            .with_context(|| format!("{text:?} in the result is not an address"))
    };
    let found: Vec<IpAddr> = ips.iter().map(parse).collect::<Result<_>>()?;
    anyhow::ensure!(!found.is_empty(), "the result has no address: {result}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    fn finished(code: i32, stdout: &str) -> Finished {
        Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.to_owned(),
            stderr: String::new(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn an_error_is_read_with_its_code() {
        let text = r#"{"cniVersion":"1.0.0","code":11,"msg":"try again later","details":"twilld is away"}"#;
        let error = interpret("ADD", &finished(1, text)).unwrap().unwrap_err();
        assert_eq!(
            error,
            CniError {
                code: 11,
                message: "try again later: twilld is away".to_owned()
            }
        );
    }

    #[test]
    fn an_answer_that_is_neither_result_nor_error_is_refused() {
        assert!(interpret("ADD", &finished(0, "")).is_err());
        assert!(interpret("ADD", &finished(1, "panicked")).is_err());
        assert!(interpret("DEL", &finished(0, "")).unwrap().is_ok());
    }

    #[test]
    fn addresses_of_a_result_are_read_without_their_length() {
        let result = json!({"ips": [{"address": "10.244.0.1/32"}, {"address": "fd00::1/128"}]});
        assert_eq!(addresses(&result).unwrap().len(), 2);
        assert!(addresses(&json!({"ips": []})).is_err());
    }
}

//! The environment of one call: CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS, CNI_ARGS (CNI spec 1.1.0,
//! section "Parameters").

use crate::error::CniError;

/// Longest container id taken. Runtimes use 64 hex digits; the id is part of an etcd key and of a file name.
const CONTAINER_ID_MAX: usize = 200;
/// IFNAMSIZ without the terminating NUL.
const IFNAME_MAX: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

/// One interface of one container, and whose pod it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// Empty when the runtime gave none.
    pub(crate) netns: String,
    pub(crate) pod: PodArgs,
}

/// What CNI_ARGS tells of the pod; unknown keys are ignored whether or not IgnoreUnknown is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodArgs {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ips: Vec<String>,
}

/// Reads one variable; not UTF-8 counts as absent.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// # Errors
/// Absent or not a command of the spec: code 4.
pub(crate) fn command(env: Env<'_>) -> Result<Command, CniError> {
    match env("CNI_COMMAND").unwrap_or_default().as_str() {
        "ADD" => Ok(Command::Add),
        "DEL" => Ok(Command::Del),
        "CHECK" => Ok(Command::Check),
        "STATUS" => Ok(Command::Status),
        "GC" => Ok(Command::Gc),
        "VERSION" => Ok(Command::Version),
        "" => Err(CniError::environment(
            "CNI_COMMAND",
            "is not set; this is a CNI plugin, run by a container runtime",
        )),
        other => Err(CniError::environment(
            "CNI_COMMAND",
            format_args!("is {other:?}, which is not supported"),
        )),
    }
}

/// # Errors
/// A malformed or absent variable: code 4. CNI_NETNS may be absent; who needs it says so.
pub(crate) fn target(env: Env<'_>) -> Result<Target, CniError> {
    let container_id = env("CNI_CONTAINERID").unwrap_or_default();
    if let Some(reason) = bad_name(&container_id, CONTAINER_ID_MAX) {
        return Err(CniError::environment("CNI_CONTAINERID", reason));
    }
    let ifname = env("CNI_IFNAME").unwrap_or_default();
    if let Some(reason) = bad_ifname(&ifname) {
        return Err(CniError::environment("CNI_IFNAME", reason));
    }
    let pod = pod_args(&env("CNI_ARGS").unwrap_or_default())?;
    Ok(Target {
        container_id,
        ifname,
        netns: env("CNI_NETNS").unwrap_or_default(),
        pod,
    })
}

/// Why this is no container id or network name: the spec wants a letter or digit, then those and `_ . -`.
pub(crate) fn bad_name(name: &str, max: usize) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.len() > max {
        return Some(format!("is longer than {max} bytes"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(legal) {
        return Some(format!(
            "is {name:?}: only letters, digits, '_', '.', '-' are legal, a letter or digit first"
        ));
    }
    None
}

fn bad_ifname(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.len() > IFNAME_MAX || name == "." || name == ".." {
        return Some(format!("is {name:?}, not a name of 1 to {IFNAME_MAX} bytes"));
    }
    if name
        .chars()
        .any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
    {
        return Some(format!(
            "is {name:?}: '/', ':', white space and control characters are not legal"
        ));
    }
    None
}

fn pod_args(text: &str) -> Result<PodArgs, CniError> {
    let mut pod = PodArgs::default();
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| CniError::environment("CNI_ARGS", format_args!("has {pair:?} without '='")))?;
        match key {
            "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
            "K8S_POD_NAME" => pod.name = value.to_owned(),
            "K8S_POD_UID" => pod.uid = value.to_owned(),
            "IP" if !value.is_empty() => pod.ips = value.split(',').map(|ip| ip.trim().to_owned()).collect(),
            _ => {}
        }
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            pairs
                .iter()
                .find(|(k, _)| *k == name)
                .map(|(_, v)| (*v).to_owned())
        }
    }

    #[test]
    fn pod_arguments_come_in_any_order_and_unknown_ones_are_skipped() {
        let args = "IgnoreUnknown=1;K8S_POD_UID=u;K8S_POD_NAME=web-0;X=y=z;IP=10.0.0.1,fd00::1;K8S_POD_NAMESPACE=prod;";
        let pod = pod_args(args).unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()),
            ("prod", "web-0", "u")
        );
        assert_eq!(pod.ips, ["10.0.0.1", "fd00::1"]);
        assert_eq!(pod_args("K8S_POD_NAME").unwrap_err().code, 4);
    }

    #[test]
    fn names_follow_the_spec() {
        for good in ["c1", "default-k8s-c2", "0a.b_c", &"a".repeat(CONTAINER_ID_MAX)] {
            assert_eq!(bad_name(good, CONTAINER_ID_MAX), None, "{good}");
        }
        for bad in [
            "",
            "-a",
            "a/b",
            "a b",
            "..",
            "\u{e9}",
            &"a".repeat(CONTAINER_ID_MAX + 1),
        ] {
            assert!(bad_name(bad, CONTAINER_ID_MAX).is_some(), "{bad}");
        }
        for bad in ["", "eth0/", "a b", "sixteen_bytes_xx", "..", "a:b", "a\n"] {
            assert!(bad_ifname(bad).is_some(), "{bad}");
        }
        assert_eq!(bad_ifname("fifteen_bytes_x"), None);
    }

    #[test]
    fn each_missing_variable_is_named() {
        let full: &[_] = &[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        assert_eq!(target(&env(full)).unwrap().netns, "");
        assert!(
            target(&env(&[("CNI_IFNAME", "eth0")]))
                .unwrap_err()
                .msg
                .contains("CNI_CONTAINERID")
        );
        assert!(
            target(&env(&[("CNI_CONTAINERID", "c1")]))
                .unwrap_err()
                .msg
                .contains("CNI_IFNAME")
        );
        assert_eq!(command(&env(&[("CNI_COMMAND", "PING")])).unwrap_err().code, 4);
        assert_eq!(command(&env(&[("CNI_COMMAND", "GC")])), Ok(Command::Gc));
    }
}

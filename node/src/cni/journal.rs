//! One line in the log for each request of the plugin: whose pod, which addresses, which interface, how long.

use std::time::Duration;

use twill_proto::cni::{Attachment, reply::Outcome, request::Op};

use super::CniError;

/// Whom a request is about.
pub(super) struct Subject {
    command: &'static str,
    pod: String,
}

impl Subject {
    pub(super) fn of(op: Option<&Op>) -> Self {
        let attachment = match op {
            Some(Op::Add(add)) => add.attachment.as_ref(),
            Some(Op::Del(del)) => del.attachment.as_ref(),
            Some(Op::Check(check)) => check.attachment.as_ref(),
            Some(Op::Status(_) | Op::Gc(_)) | None => None,
        };
        Self {
            command: super::command(op),
            pod: attachment.map(name).unwrap_or_default(),
        }
    }

    pub(super) fn command(&self) -> &'static str {
        self.command
    }

    pub(super) fn say(&self, reply: &Result<Outcome, CniError>, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (command, pod) = (self.command, self.pod.as_str());
        match reply {
            Err(error) => {
                tracing::warn!(
                    command,
                    pod,
                    ms,
                    code = error.code,
                    error = error.msg,
                    "request failed"
                );
            }
            Ok(Outcome::Attached(attached)) => {
                let addresses: Vec<&str> = attached.ips.iter().map(|ip| ip.address.as_str()).collect();
                let interface = attached.interfaces.first().map_or("", |i| i.name.as_str());
                tracing::info!(
                    pod,
                    addresses = addresses.join(","),
                    interface,
                    ms,
                    "pod attached"
                );
            }
            Ok(_) if command == "DEL" => tracing::info!(pod, ms, "pod detached"),
            Ok(_) => tracing::debug!(command, ms, "request answered"),
        }
    }
}

/// The pod, or without Kubernetes the container; and the interface if it is not the first.
fn name(a: &Attachment) -> String {
    let whose = if a.k8s_pod.is_empty() {
        a.container_id.clone()
    } else {
        format!("{}/{}", a.k8s_namespace, a.k8s_pod)
    };
    match a.ifname.as_str() {
        "eth0" | "" => whose,
        other => format!("{whose} {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::cni::Del;

    #[test]
    fn a_request_is_named_by_its_pod_or_else_by_its_container() {
        let subject = |change: fn(&mut Attachment)| {
            let mut attachment = Attachment {
                container_id: "abc".into(),
                ifname: "eth0".into(),
                ..Attachment::default()
            };
            change(&mut attachment);
            let del = Del {
                attachment: Some(attachment),
                ..Del::default()
            };
            Subject::of(Some(&Op::Del(del)))
        };
        assert_eq!(subject(|_| ()).pod, "abc");
        assert_eq!(subject(|_| ()).command(), "DEL");
        let pod = subject(|a| {
            a.k8s_namespace = "demo".into();
            a.k8s_pod = "web".into();
            a.ifname = "net1".into();
        });
        assert_eq!(pod.pod, "demo/web net1");
        assert_eq!(Subject::of(None).pod, "");
    }
}

//! `twillctl ipam configure`: what allocators obey.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail};
use twill_proto::api::ConfigureRequest;
use twill_proto::api::ipam_client::IpamClient;

use super::said;
use crate::args::Configure;
use crate::client;
use crate::config;
use crate::output::out;

pub(super) async fn run(daemon: &config::Target, asked: &Configure) -> Result<ExitCode> {
    let request = request(asked)?;
    let mut client = IpamClient::new(client::connect(daemon).await?);
    let reply = client
        .configure(request.clone())
        .await
        .map_err(|e| said(&e))?
        .into_inner();
    if let Some(on) = request.strict_affinity {
        out!(ln "Successfully set StrictAffinity to: {on}");
    }
    if let Some(most) = request.max_blocks_per_host {
        out!(ln "Successfully set MaxBlocksPerHost to: {most}");
    }
    if let Some(word) = request.kubevirt_vm_address_persistence {
        out!(ln "Successfully set KubeVirtVMAddressPersistence to: {word}");
    }
    if let Some(seconds) = request.ip_cooldown_seconds {
        out!(ln "Successfully set IPCooldownSeconds to: {seconds}");
    }
    for warning in reply.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn request(asked: &Configure) -> Result<ConfigureRequest> {
    let strict_affinity = match asked.strictaffinity.as_deref() {
        None | Some("") => None,
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        Some(_) => bail!("invalid value. Use true or false to set strictaffinity"),
    };
    let persistence = match asked.kubevirt_ip_persistence.as_deref() {
        None | Some("") => None,
        Some(word @ ("Enabled" | "Disabled")) => Some(word.to_owned()),
        Some(_) => bail!("invalid value for --kubevirt-ip-persistence. Use Enabled or Disabled"),
    };
    let request = ConfigureRequest {
        strict_affinity,
        max_blocks_per_host: number(asked.max_blocks_per_host.as_deref(), "maxblockhost")?,
        kubevirt_vm_address_persistence: persistence,
        ip_cooldown_seconds: number(asked.ip_cooldown_seconds.as_deref(), "ip-cooldown-seconds")?,
    };
    if request == ConfigureRequest::default() {
        bail!("at least one configuration option must be specified");
    }
    Ok(request)
}

fn number<T: FromStr>(text: Option<&str>, name: &str) -> Result<Option<T>> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("invalid value for {name}. Use a valid number"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut Configure)) -> Result<ConfigureRequest, String> {
        let mut asked = Configure {
            strictaffinity: None,
            max_blocks_per_host: None,
            kubevirt_ip_persistence: None,
            ip_cooldown_seconds: None,
        };
        change(&mut asked);
        request(&asked).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_read_as_calicoctl_reads_them() {
        assert_eq!(
            asked(|a| a.strictaffinity = Some("T".into()))
                .unwrap()
                .strict_affinity,
            Some(true)
        );
        let most = asked(|a| a.max_blocks_per_host = Some("-1".into())).unwrap();
        assert_eq!(most.max_blocks_per_host, Some(-1));
        for (change, expected) in [
            (
                (|_| ()) as fn(&mut Configure),
                "at least one configuration option must be specified",
            ),
            (
                |a| a.strictaffinity = Some("maybe".into()),
                "invalid value. Use true or false to set strictaffinity",
            ),
            (
                |a| a.max_blocks_per_host = Some("x".into()),
                "invalid value for maxblockhost. Use a valid number",
            ),
            (
                |a| a.kubevirt_ip_persistence = Some("on".into()),
                "invalid value for --kubevirt-ip-persistence. Use Enabled or Disabled",
            ),
        ] {
            assert_eq!(asked(change).unwrap_err(), expected);
        }
    }
}

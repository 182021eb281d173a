//! `twillctl ipam release`: one address, or what reports call leaked.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::Value;
use twill_model::Kind;
use twill_proto::api::ipam_client::IpamClient;
use twill_proto::api::{ReleaseAddress, ReleaseHandle, ReleaseReply, ReleaseRequest};

use super::report::{self, Report};
use super::said;
use crate::args::{Release, address};
use crate::client;
use crate::command::get::{Found, fetch};
use crate::config;
use crate::input;
use crate::output::out;

/// Addresses and handles in one request: a few seconds of work, and far below a message's 4 MiB.
const BATCH: usize = 1000;

pub(super) async fn run(daemon: &config::Target, asked: &Release) -> Result<ExitCode> {
    if !asked.from_report.is_empty() {
        return from_reports(daemon, asked).await;
    }
    let Some(ip) = &asked.ip else {
        return Ok(ExitCode::SUCCESS);
    };
    let ip = address(ip)?.to_string();
    let mut client = IpamClient::new(client::connect(daemon).await?);
    let request = ReleaseRequest {
        addresses: vec![ReleaseAddress {
            address: ip.clone(),
            ..ReleaseAddress::default()
        }],
        handles: vec![],
    };
    let reply = client.release(request).await.map_err(|e| said(&e))?.into_inner();
    if let Some(error) = reply.errors.first() {
        bail!("error: {error}");
    }
    if reply.released == 0 {
        bail!("IP address {ip} is not assigned");
    }
    out!(ln "Successfully released IP address {ip}");
    Ok(ExitCode::SUCCESS)
}

/// What is known of the cluster that a report must fit.
struct Cluster {
    guid: String,
    revision: String,
    locked: bool,
}

async fn cluster(daemon: &config::Target) -> Result<Cluster> {
    let mut client = client::resources(daemon).await?;
    let target = input::Target {
        kind: Kind::ClusterInformation,
        namespace: String::new(),
        name: Some("default".into()),
    };
    let object = match fetch(&mut client, &target).await {
        Ok(Found::One(object)) => object,
        Ok(Found::List(..)) => bail!("the daemon sent a list for one name"),
        Err(refusal) => bail!("{}", refusal.message),
    };
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    Ok(Cluster {
        guid: text("/spec/clusterGUID"),
        revision: text("/metadata/resourceVersion"),
        locked: object.pointer("/spec/datastoreReady") == Some(&Value::Bool(false)),
    })
}

async fn from_reports(daemon: &config::Target, asked: &Release) -> Result<ExitCode> {
    let reports = asked
        .from_report
        .iter()
        .map(|file| Report::read(file))
        .collect::<Result<Vec<_>>>()?;
    let cluster = cluster(daemon).await?;
    for (file, report) in asked.from_report.iter().zip(&reports) {
        for warning in fits(report, &file.display().to_string(), &cluster, asked.force)? {
            out!(ln "WARNING: {warning}");
        }
    }
    if reports
        .iter()
        .all(|r| r.cluster_information_revision != cluster.revision)
    {
        bail!(
            "the provided reports are all stale - at least one should be up-to-date. Please generate a new report while the data store is locked and try again"
        );
    }
    match (cluster.locked, asked.force) {
        (true, _) => {}
        (false, true) => out!(ln "WARNING: Data store is not locked. Ignoring due to --force option"),
        (false, false) => {
            bail!("data store is not locked. Either lock the data store, or re-run with --force")
        }
    }
    let (addresses, handles) = report::leaked_in_all(&reports);
    let addresses = addresses.into_values().map(|a| ReleaseAddress {
        address: a.ip,
        handle: a.handle,
        sequence_number: a.sequence_number,
    });
    let handles = handles.into_values().filter_map(|h| {
        Some(ReleaseHandle {
            id: h.id,
            revision: h.revision.parse().ok()?,
        })
    });
    let failed = release(daemon, addresses.collect(), handles.collect()).await?;
    out!(ln "You may now unlock the data store.");
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Warnings; what makes a report useless is an error.
fn fits(report: &Report, file: &str, cluster: &Cluster, force: bool) -> Result<Vec<String>> {
    if report.cluster_guid != cluster.guid {
        bail!(
            "cluster does not match the provided report ({file}): mismatched cluster GUID. Refusing to release"
        );
    }
    if report.version == env!("CARGO_PKG_VERSION") {
        return Ok(vec![]);
    }
    if !force {
        bail!(
            "the provided report ({file}) was produced using a different version ({}) of twillctl. Refusing to release",
            report.version
        );
    }
    let warning = "Report was produced using a different version of twillctl. Ignoring due to --force option";
    Ok(vec![warning.to_owned()])
}

/// Returns whether something went wrong.
async fn release(
    daemon: &config::Target,
    addresses: Vec<ReleaseAddress>,
    handles: Vec<ReleaseHandle>,
) -> Result<bool> {
    let mut client = IpamClient::new(client::connect(daemon).await?);
    let mut total = ReleaseReply::default();
    let mut requests = Vec::new();
    for chunk in addresses.chunks(BATCH) {
        requests.push(ReleaseRequest {
            addresses: chunk.to_vec(),
            handles: vec![],
        });
    }
    for chunk in handles.chunks(BATCH) {
        requests.push(ReleaseRequest {
            addresses: vec![],
            handles: chunk.to_vec(),
        });
    }
    for request in requests {
        let reply = client.release(request).await.map_err(|e| said(&e))?.into_inner();
        total.released += reply.released;
        total.not_released.extend(reply.not_released);
        total.handles_deleted += reply.handles_deleted;
        total.handles_skipped += reply.handles_skipped;
        total.errors.extend(reply.errors);
    }
    if addresses.is_empty() {
        out!(ln "Report didn't contain any leaked IPs to clean up.");
    } else {
        out!(ln "Releasing {} old IPs...", addresses.len());
        out!(ln "Released {} IPs successfully", total.released);
        if !total.not_released.is_empty() {
            out!(ln
                "{} addresses marked as leaked in the report had already been cleaned up.",
                total.not_released.len()
            );
        }
    }
    if handles.is_empty() {
        out!(ln "Report didn't contain any handles to clean up.");
    } else {
        out!(ln
            "Released {} handles; {} skipped; {} errors.",
            total.handles_deleted,
            total.handles_skipped,
            total.errors.len()
        );
    }
    for error in &total.errors {
        eprintln!("An error occurred while releasing: {error}. Try regenerating the IPAM report and retry.");
    }
    Ok(!total.errors.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_cluster_or_version_is_refused() {
        let cluster = Cluster {
            guid: "g".into(),
            revision: "2".into(),
            locked: true,
        };
        let mut report = Report {
            cluster_guid: "g".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Report::default()
        };
        assert_eq!(fits(&report, "f", &cluster, false).unwrap(), Vec::<String>::new());
        report.version = "v3.32.1".into();
        assert!(fits(&report, "f", &cluster, false).is_err());
        assert_eq!(fits(&report, "f", &cluster, true).unwrap().len(), 1);
        report.cluster_guid = "other".into();
        assert!(
            fits(&report, "f", &cluster, true)
                .unwrap_err()
                .to_string()
                .contains("GUID")
        );
    }
}

//! The report of a check: what `ipam check -o` writes and `ipam release --from-report` reads, in calicoctl's form.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use twill_proto::api::{HandleState, ReportAddress, ReportHandle, ReportSummary};

/// Largest report that is read: a million addresses take half of it.
const BYTES_MAX: u64 = 1 << 30;

/// A whole report. Fields and their order are calicoctl's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) version: String,
    #[serde(rename = "clusterGUID")]
    pub(super) cluster_guid: String,
    pub(super) datastore_locked: bool,
    pub(super) cluster_information_revision: String,
    pub(super) cluster_type: String,
    pub(super) allocations: BTreeMap<String, Vec<Allocation>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) leaked_handles: Vec<Handle>,
}

/// One allocated address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Allocation {
    pub(super) ip: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) handle: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequence_number: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pod: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    node: String,
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    creation_timestamp: String,
    pub(super) in_use: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    borrowed: bool,
    owners: Option<Vec<String>>,
}

/// A handle that no address has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Handle {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "UID")]
    uid: Option<String>,
    pub(super) revision: String,
}

impl Report {
    /// What the summary says of the cluster.
    pub(super) fn describe(&mut self, summary: &ReportSummary) {
        self.version = env!("CARGO_PKG_VERSION").to_owned();
        self.cluster_guid.clone_from(&summary.cluster_guid);
        self.cluster_type.clone_from(&summary.cluster_type);
        self.datastore_locked = summary.datastore_locked;
        self.cluster_information_revision = summary.cluster_information_revision.to_string();
    }

    pub(super) fn add(&mut self, address: &ReportAddress) {
        let attribute = |name: &str| address.attributes.get(name).cloned().unwrap_or_default();
        let owners = (!address.owners.is_empty()).then(|| address.owners.clone());
        let allocation = Allocation {
            ip: address.address.clone(),
            handle: address.handle.clone(),
            sequence_number: Some(address.sequence_number),
            pod: attribute("pod"),
            namespace: attribute("namespace"),
            node: address.node.clone(),
            kind: attribute("type"),
            creation_timestamp: attribute("timestamp"),
            // A freed address in its cool-down is nobody's leak.
            in_use: owners.is_some() || address.released,
            borrowed: address.borrowed,
            owners,
        };
        self.allocations
            .entry(address.address.clone())
            .or_default()
            .push(allocation);
    }

    pub(super) fn add_handle(&mut self, handle: &ReportHandle) {
        if handle.state() == HandleState::Leaked {
            self.leaked_handles.push(Handle {
                id: handle.id.clone(),
                uid: None,
                revision: handle.revision.to_string(),
            });
        }
    }

    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("printing JSON")?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// # Errors
    /// The file cannot be read, or is no report.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let reading = || format!("reading the report {}", file.display());
        let size = std::fs::metadata(file).with_context(reading)?.len();
        if size > BYTES_MAX {
            bail!(
                "the report {} has {size} bytes, at most {BYTES_MAX} are read",
                file.display()
            );
        }
        let text = std::fs::read(file).with_context(reading)?;
        serde_json::from_slice(&text).with_context(reading)
    }
}

/// What all reports call leaked: addresses with what they were then, and handles that have not changed in between.
pub(super) fn leaked_in_all(reports: &[Report]) -> (BTreeMap<String, Allocation>, BTreeMap<String, Handle>) {
    let mut addresses: Option<BTreeMap<String, Allocation>> = None;
    let mut handles: Option<BTreeMap<String, Handle>> = None;
    for report in reports {
        let leaked = report.allocations.values().flatten().filter(|a| !a.in_use);
        let here: BTreeMap<_, _> = leaked
            .filter(|a| addresses.as_ref().is_none_or(|before| before.contains_key(&a.ip)))
            .map(|a| (a.ip.clone(), a.clone()))
            .collect();
        addresses = Some(here);
        let unchanged = |h: &&Handle| {
            let before = handles.as_ref();
            before.is_none_or(|b| b.get(&h.id).is_some_and(|old| old.revision == h.revision))
        };
        let here = report.leaked_handles.iter().filter(unchanged);
        handles = Some(here.map(|h| (h.id.clone(), h.clone())).collect());
    }
    (addresses.unwrap_or_default(), handles.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As calicoctl v3.32.1 writes it.
    const CALICOCTL: &str = r#"{
  "version": "v3.32.1",
  "clusterGUID": "38c23de446f04659824973d7a7702613",
  "datastoreLocked": false,
  "clusterInformationRevision": "2",
  "clusterType": "",
  "allocations": {
    "10.244.241.192": [
      {
        "ip": "10.244.241.192",
        "handle": "net.a",
        "sequenceNumber": 1795244841588754850,
        "pod": "web",
        "namespace": "shop",
        "node": "n1",
        "creationTimestamp": "2026-11-21 07:07:21.588421327 +0000 UTC",
        "inUse": true,
        "owners": [
          "Workload(shop/n1-k8s-web-eth0)"
        ]
      }
    ],
    "10.244.241.193": [
      {
        "ip": "10.244.241.193",
        "handle": "net.b",
        "sequenceNumber": 7,
        "node": "n1",
        "inUse": false,
        "owners": null
      }
    ]
  },
  "leakedHandles": [
    {
      "ID": "net.c",
      "UID": null,
      "Revision": "9"
    }
  ]
}"#;

    #[test]
    fn a_report_of_calicoctl_is_read_and_written_as_it_was() {
        let report: Report = serde_json::from_str(CALICOCTL).unwrap();
        assert_eq!(serde_json::to_string_pretty(&report).unwrap(), CALICOCTL);
    }

    #[test]
    fn only_what_every_report_calls_leaked_is_to_be_freed() {
        let first: Report = serde_json::from_str(CALICOCTL).unwrap();
        let names = |reports: &[Report]| {
            let (addresses, handles) = leaked_in_all(reports);
            let addresses: Vec<_> = addresses.into_keys().collect();
            (addresses, handles.into_keys().collect::<Vec<_>>())
        };
        let both = (vec!["10.244.241.193".to_owned()], vec!["net.c".to_owned()]);
        assert_eq!(names(std::slice::from_ref(&first)), both);
        assert_eq!(names(&[first.clone(), first.clone()]), both);
        let mut used = first.clone();
        used.allocations.get_mut("10.244.241.193").unwrap()[0].in_use = true;
        used.leaked_handles[0].revision = "10".into();
        assert_eq!(names(&[first, used]), (vec![], vec![]));
    }
}

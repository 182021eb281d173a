//! `twillctl delete`: by file, or by kind and names.

use crate::output::out;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tonic::Code;
use twill_proto::api::DeleteRequest;

use super::write::single;
use crate::args::Delete;
use crate::client::{self, Refusal};
use crate::config;
use crate::input::{self, Document};

pub(crate) async fn run(daemon: &config::Target, delete: &Delete) -> Result<ExitCode> {
    let documents = input::targets(&delete.what, false)?
        .into_iter()
        .map(|t| match t.name {
            Some(name) => Ok(Document::named(t.kind, &t.namespace, &name)),
            None => bail!("resource name may not be empty"),
        })
        .collect::<Result<Vec<_>>>()?;
    if documents.is_empty() {
        out!(ln "No resources specified");
        return Ok(ExitCode::SUCCESS);
    }
    let quoted = single(&documents).map_or_else(String::new, |kind| format!("'{kind}' "));
    let mut client = client::resources(daemon).await?;
    let (mut handled, mut failed) = (0, String::new());
    for document in &documents {
        let Document {
            kind,
            namespace,
            name,
            ..
        } = document;
        let request = DeleteRequest {
            kind: kind.as_str().into(),
            namespace: namespace.clone(),
            name: name.clone(),
            resource_version: String::new(),
        };
        match client.delete(request).await {
            Ok(_) => handled += 1,
            Err(status) if status.code() == Code::NotFound && delete.skip_not_exists => handled += 1,
            Err(status) => {
                let refusal = Refusal::new(&status, *kind, namespace, name).message;
                failed.push_str(&format!("Failed to delete {quoted}resource: {refusal}\n"));
            }
        }
    }
    if handled > 0 {
        out!(ln "Successfully deleted {handled} {quoted}resource(s)");
    }
    match failed.as_str() {
        "" => Ok(ExitCode::SUCCESS),
        failed => bail!("{}", failed.trim_end()),
    }
}

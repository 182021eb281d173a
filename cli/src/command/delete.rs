//! `twillctl delete`: by file, or by kind and names.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tonic::Code;
use twill_proto::api::DeleteRequest;
use twill_proto::api::resources_client::ResourcesClient;

use super::write::{Tally, report};
use crate::args::Delete;
use crate::client::{self, Refusal};
use crate::input::{self, Document};

pub(crate) async fn run(socket: &Path, delete: &Delete) -> Result<ExitCode> {
    let documents = input::targets(&delete.what, false)?
        .into_iter()
        .map(|t| match t.name {
            Some(name) => Ok(Document::named(t.kind, &t.namespace, &name)),
            None => bail!("resource name may not be empty"),
        })
        .collect::<Result<Vec<_>>>()?;
    if documents.is_empty() {
        bail!("no resources specified");
    }
    let mut client = ResourcesClient::new(client::connect(socket).await?);
    let mut tally = Tally::default();
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
            Ok(_) => tally.handled += 1,
            Err(status) if status.code() == Code::NotFound && delete.skip_not_exists => tally.handled += 1,
            Err(status) => tally
                .refusals
                .push(Refusal::new(&status, *kind, namespace, name).message),
        }
    }
    report("delete", "deleted", &documents, &tally)
}

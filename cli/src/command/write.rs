//! `twillctl apply`, `create`, `replace`: every document is read and checked before the first is sent.

use crate::output::out;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tonic::Code;
use tonic::transport::Channel;
use twill_proto::api::resources_client::ResourcesClient;
use twill_proto::api::{Resource, WriteReply, WriteRequest};

use crate::args::File;
use crate::client::{self, Refusal};
use crate::input::{self, Document};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Apply,
    Create { skip_exists: bool },
    Replace,
}

impl Verb {
    fn infinitive(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Create { .. } => "create",
            Self::Replace => "replace",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::Create { .. } => "created",
            Self::Replace => "replaced",
        }
    }
}

/// What became of the documents.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) handled: usize,
    pub(crate) refusals: Vec<String>,
}

pub(crate) async fn run(socket: &Path, verb: Verb, file: &File) -> Result<ExitCode> {
    let documents = input::documents(&file.filename, file.namespace.as_deref())?;
    if documents.is_empty() {
        if file.skip_empty {
            out!(ln "No resources specified");
            return Ok(ExitCode::SUCCESS);
        }
        bail!("no resources specified in file {}", file.filename.display());
    }
    let mut client = ResourcesClient::new(client::connect(socket).await?);
    let mut tally = Tally::default();
    for document in &documents {
        match write(&mut client, verb, document).await {
            Ok(warnings) => {
                tally.handled += 1;
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
            }
            Err(refusal) => {
                tally.refusals.push(refusal.message);
                // As calicoctl: replace stops at the first error, the others go on.
                if verb == Verb::Replace {
                    break;
                }
            }
        }
    }
    report(verb.infinitive(), verb.past(), &documents, &tally)
}

async fn write(
    client: &mut ResourcesClient<Channel>,
    verb: Verb,
    document: &Document,
) -> Result<Vec<String>, Refusal> {
    let resource = Resource {
        kind: document.kind.as_str().into(),
        namespace: document.namespace.clone(),
        name: document.name.clone(),
        resource_version: document.resource_version.clone(),
        json: document.json.clone(),
    };
    let request = WriteRequest {
        resource: Some(resource),
    };
    let reply = match verb {
        Verb::Apply => client.apply(request).await,
        Verb::Create { .. } => client.create(request).await,
        Verb::Replace => client.replace(request).await,
    };
    match reply {
        Ok(reply) => {
            let WriteReply { warnings, .. } = reply.into_inner();
            Ok(warnings)
        }
        Err(status)
            if status.code() == Code::AlreadyExists && verb == (Verb::Create { skip_exists: true }) =>
        {
            Ok(vec![])
        }
        Err(status) => Err(Refusal::new(
            &status,
            document.kind,
            &document.namespace,
            &document.name,
        )),
    }
}

/// Prints what was done and fails if not all was, in calicoctl's words.
pub(crate) fn report(
    infinitive: &str,
    past: &str,
    documents: &[Document],
    tally: &Tally,
) -> Result<ExitCode> {
    let (text, all) = summary(infinitive, past, documents, tally);
    if all {
        out!(ln "{text}");
        return Ok(ExitCode::SUCCESS);
    }
    if tally.handled > 0 {
        out!(ln "{text}");
        bail!("hit error: [{}]", tally.refusals.join(", "));
    }
    bail!("{text}")
}

fn summary(infinitive: &str, past: &str, documents: &[Document], tally: &Tally) -> (String, bool) {
    let total = documents.len();
    let first = documents.first().map(|d| d.kind);
    let single = first.filter(|kind| documents.iter().all(|d| d.kind == *kind));
    let refusals = tally.refusals.join(", ");
    let handled = tally.handled;
    let text = match (handled, single) {
        (0, Some(kind)) if total == 1 => {
            return (
                format!("failed to {infinitive} '{kind}' resource: [{refusals}]"),
                false,
            );
        }
        (0, Some(kind)) => format!("failed to {infinitive} any '{kind}' resources: [{refusals}]"),
        (0, None) => format!("failed to {infinitive} any resources: [{refusals}]"),
        (n, Some(kind)) if tally.refusals.is_empty() => {
            return (format!("Successfully {past} {n} '{kind}' resource(s)"), true);
        }
        (n, None) if tally.refusals.is_empty() => {
            return (format!("Successfully {past} {n} resource(s)"), true);
        }
        (n, Some(kind)) => format!("Partial success: {past} {n} out of {total} '{kind}' resources:"),
        (n, None) => format!("Partial success: {past} {n} out of {total} resources:"),
    };
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_model::Kind;

    fn documents(kinds: &[Kind]) -> Vec<Document> {
        let one = |kind: &Kind| Document {
            kind: *kind,
            ..Document::named(Kind::IpPool, "", "p")
        };
        kinds.iter().map(one).collect()
    }

    #[test]
    fn summaries_are_calicoctls() {
        let check = |kinds: &[Kind], handled, refusals: &[&str], expected: &str, all: bool| {
            let tally = Tally {
                handled,
                refusals: refusals.iter().map(|r| (*r).to_owned()).collect(),
            };
            assert_eq!(
                summary("apply", "applied", &documents(kinds), &tally),
                (expected.to_owned(), all)
            );
        };
        check(
            &[Kind::IpPool],
            1,
            &[],
            "Successfully applied 1 'IPPool' resource(s)",
            true,
        );
        check(
            &[Kind::IpPool, Kind::Tier],
            2,
            &[],
            "Successfully applied 2 resource(s)",
            true,
        );
        check(
            &[Kind::IpPool],
            0,
            &["e"],
            "failed to apply 'IPPool' resource: [e]",
            false,
        );
        check(
            &[Kind::IpPool; 2],
            0,
            &["e", "f"],
            "failed to apply any 'IPPool' resources: [e, f]",
            false,
        );
        check(
            &[Kind::IpPool, Kind::Tier],
            0,
            &["e", "f"],
            "failed to apply any resources: [e, f]",
            false,
        );
        check(
            &[Kind::IpPool; 3],
            2,
            &["e"],
            "Partial success: applied 2 out of 3 'IPPool' resources:",
            false,
        );
    }
}

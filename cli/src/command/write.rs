//! `twillctl apply`, `create`, `replace`: every document is read and checked before the first is sent.

use crate::output::out;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tonic::Code;
use tonic::transport::Channel;
use twill_model::Kind;
use twill_proto::api::resources_client::ResourcesClient;
use twill_proto::api::{Resource, WriteReply, WriteRequest};

use crate::args::File;
use crate::client::{self, Refusal};
use crate::config;
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

pub(crate) async fn run(daemon: &config::Target, verb: Verb, file: &File) -> Result<ExitCode> {
    let documents = input::documents(&file.source, file.namespace.as_deref())?;
    if documents.is_empty() {
        out!(ln "No resources specified");
        return Ok(ExitCode::SUCCESS);
    }
    let mut client = client::resources(daemon).await?;
    let mut tally = Tally::default();
    for document in &documents {
        match write(&mut client, verb, document).await {
            Ok(warnings) => {
                tally.handled += 1;
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
            }
            Err(refusal) => tally.refusals.push(refusal.message),
        }
    }
    report(
        verb.infinitive(),
        verb.past(),
        single(&documents),
        documents.len(),
        &tally,
    )
}

/// Sends one document; returns warnings.
///
/// # Errors
/// In calicoctl's words.
pub(crate) async fn write(
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

/// The kind of all documents, if they are of one.
pub(crate) fn single(documents: &[Document]) -> Option<Kind> {
    let first = documents.first().map(|d| d.kind)?;
    documents.iter().all(|d| d.kind == first).then_some(first)
}

/// Prints what was done and fails if not all was, in calicoctl's words.
///
/// # Errors
/// Something was refused.
pub(crate) fn report(
    infinitive: &str,
    past: &str,
    kind: Option<Kind>,
    total: usize,
    tally: &Tally,
) -> Result<ExitCode> {
    let (said, failed) = summary(infinitive, past, kind, total, tally);
    if let Some(said) = said {
        out!(ln "{said}");
    }
    match failed {
        Some(failed) => bail!("{failed}"),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What goes to standard output, and what the command fails with.
fn summary(
    infinitive: &str,
    past: &str,
    kind: Option<Kind>,
    total: usize,
    tally: &Tally,
) -> (Option<String>, Option<String>) {
    let quoted = kind.map_or_else(String::new, |kind| format!("'{kind}' "));
    let refusals = tally.refusals.join(" ");
    let handled = tally.handled;
    if tally.refusals.is_empty() {
        let said = format!("Successfully {past} {handled} {quoted}resource(s)");
        return (Some(said), None);
    }
    if handled == 0 {
        let what = match (kind, total) {
            (Some(kind), 1) => format!("'{kind}' resource"),
            _ => format!("any {quoted}resources"),
        };
        return (None, Some(format!("failed to {infinitive} {what}: [{refusals}]")));
    }
    let said = format!("Partial success: {past} the first {handled} out of {total} {quoted}resources:");
    (Some(said), Some(format!("hit error(s): [{refusals}]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_calicoctls() {
        let check = |kind, total, handled, refusals: &[&str], said: Option<&str>, failed: Option<&str>| {
            let tally = Tally {
                handled,
                refusals: refusals.iter().map(|r| (*r).to_owned()).collect(),
            };
            let (found_said, found_failed) = summary("apply", "applied", kind, total, &tally);
            assert_eq!((found_said.as_deref(), found_failed.as_deref()), (said, failed));
        };
        let pool = Some(Kind::IpPool);
        check(
            pool,
            1,
            1,
            &[],
            Some("Successfully applied 1 'IPPool' resource(s)"),
            None,
        );
        check(None, 2, 2, &[], Some("Successfully applied 2 resource(s)"), None);
        check(
            pool,
            1,
            0,
            &["e"],
            None,
            Some("failed to apply 'IPPool' resource: [e]"),
        );
        check(
            pool,
            2,
            0,
            &["e", "f"],
            None,
            Some("failed to apply any 'IPPool' resources: [e f]"),
        );
        check(
            None,
            2,
            0,
            &["e", "f"],
            None,
            Some("failed to apply any resources: [e f]"),
        );
        check(
            pool,
            3,
            2,
            &["e"],
            Some("Partial success: applied the first 2 out of 3 'IPPool' resources:"),
            Some("hit error(s): [e]"),
        );
    }
}

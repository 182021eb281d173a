//! Read, change, write back: what `patch` and `label` have in common.

use serde_json::Value;
use tonic::Code;
use twill_model::Kind;

use super::get::{Found, fetch};
use super::write::{self, Verb};
use crate::client;
use crate::config;
use crate::input::{self, Document};

/// How often a change is made anew because someone else changed the object in between.
const ATTEMPTS_MAX: u32 = 5;

/// One named resource.
pub(crate) struct Target {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Target {
    /// # Errors
    /// A namespace where none belongs, or no name.
    pub(crate) fn new(kind: Kind, namespace: Option<&str>, name: &str) -> anyhow::Result<Self> {
        if name.is_empty() {
            anyhow::bail!("resource name may not be empty");
        }
        Ok(Self {
            kind,
            namespace: input::namespace_of(kind, namespace)?,
            name: name.to_owned(),
        })
    }
}

/// Why a change was not made.
pub(crate) enum Failed {
    /// There is no such resource, in calicoctl's words.
    Absent(String),
    /// The daemon did not take the changed one.
    Refused(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Changes a resource under a compare of its revision, again from the start when someone else was quicker.
///
/// # Errors
/// As [`Failed`] says.
pub(crate) async fn change(
    daemon: &config::Target,
    target: &Target,
    mut with: impl FnMut(&mut Value) -> anyhow::Result<()>,
) -> Result<(), Failed> {
    let mut client = client::resources(daemon).await?;
    let asked = input::Target {
        kind: target.kind,
        namespace: target.namespace.clone(),
        name: Some(target.name.clone()),
    };
    for attempt in 1..=ATTEMPTS_MAX {
        let found = fetch(&mut client, &asked)
            .await
            .map_err(|refusal| match refusal.code {
                Code::NotFound => Failed::Absent(refusal.message),
                _ => Failed::Other(anyhow::Error::msg(refusal.message)),
            })?;
        let Found::One(mut object) = found else {
            return Err(Failed::Other(anyhow::anyhow!(
                "the daemon sent a list for one name"
            )));
        };
        with(&mut object)?;
        let document = document(&object).map_err(|e| Failed::Refused(format!("{e:#}")))?;
        match write::write(&mut client, Verb::Replace, &document).await {
            Ok(warnings) => {
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
                return Ok(());
            }
            Err(refusal) if refusal.code == Code::Aborted && attempt < ATTEMPTS_MAX => {}
            Err(refusal) => return Err(Failed::Refused(refusal.message)),
        }
    }
    Ok(())
}

/// The changed object, read as strictly as a file.
fn document(object: &Value) -> anyhow::Result<Document> {
    let mut documents = input::parse(&object.to_string(), None)?;
    match documents.pop() {
        Some(document) if documents.is_empty() => Ok(document),
        _ => anyhow::bail!("the change leaves no single resource"),
    }
}

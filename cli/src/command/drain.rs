//! `twillctl node drain` and `undrain`: an annotation of the Node, which its daemon obeys (RFC 8326).

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use twill_model::Kind;
use twill_proto::api::StatusRequest;
use twill_proto::api::node_client::NodeClient;

use super::change;
use crate::client;
use crate::config;
use crate::output::out;

/// On a Node: `true` asks its peers to go elsewhere.
const ANNOTATION: &str = "twill.net/drain";

/// What to do with the traffic of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    Begin,
    End,
}

pub(crate) async fn run(daemon: &config::Target, name: Option<String>, what: Drain) -> Result<ExitCode> {
    let name = match name {
        Some(name) => name,
        None => here(daemon).await?,
    };
    let target = change::Target::new(Kind::Node, None, &name)?;
    let changed = change::change(daemon, &target, |object| annotate(object, what));
    match changed.await {
        Ok(()) => {}
        Err(change::Failed::Absent(_)) => bail!("node {name} not found"),
        Err(change::Failed::Refused(why)) => bail!("node {name} is not changed: {why}"),
        Err(change::Failed::Other(why)) => return Err(why),
    }
    match what {
        Drain::Begin => {
            out!(ln "node {name} is draining: its routes are announced with GRACEFUL_SHUTDOWN and least preference");
        }
        Drain::End => out!(ln "node {name} is no longer draining"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The node of the daemon that we talk to.
async fn here(daemon: &config::Target) -> Result<String> {
    let channel = client::connect(daemon).await?;
    let status = NodeClient::new(channel).status(StatusRequest {}).await;
    Ok(status.context("asking for the node's name")?.into_inner().node)
}

fn annotate(object: &mut Value, what: Drain) -> Result<()> {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let annotations = metadata
        .map(|m| m.entry("annotations").or_insert_with(|| Map::new().into()))
        .and_then(Value::as_object_mut)
        .context("the daemon sent an object without metadata")?;
    match what {
        Drain::Begin => annotations.insert(ANNOTATION.to_owned(), "true".into()),
        Drain::End => annotations.shift_remove(ANNOTATION),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_annotation_comes_and_goes_and_others_stay() {
        let mut node = json!({"metadata": {"name": "n1", "annotations": {"a": "b"}}});
        annotate(&mut node, Drain::Begin).unwrap();
        assert_eq!(
            node["metadata"]["annotations"],
            json!({"a": "b", "twill.net/drain": "true"})
        );
        annotate(&mut node, Drain::End).unwrap();
        assert_eq!(node["metadata"]["annotations"], json!({"a": "b"}));
        assert!(annotate(&mut json!({}), Drain::Begin).is_err());
    }
}

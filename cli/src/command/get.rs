//! `twillctl get`: by kind, by kind and names, or by what a file names.

use crate::output::out;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tonic::transport::Channel;
use twill_model::{Kind, yaml};
use twill_proto::api::resources_client::ResourcesClient;
use twill_proto::api::{GetRequest, ListRequest, Resource};

use crate::args::{Get, Output};
use crate::client::{self, Refusal};
use crate::columns::{self, Width};
use crate::input::{self, Target};
use crate::table;

/// Default AS number of a cluster that does not say.
const DEFAULT_AS: &str = "64512";

/// What one request of the command line yielded.
enum Found {
    One(Box<Value>),
    List(Vec<Value>),
}

pub(crate) async fn run(socket: &Path, get: &Get) -> Result<ExitCode> {
    let targets = input::targets(&get.what, get.all_namespaces)?;
    let mut client = ResourcesClient::new(client::connect(socket).await?);
    let mut found = Vec::new();
    let mut refusals = Vec::new();
    for target in &targets {
        match fetch(&mut client, target).await {
            Ok(values) => found.push((target.kind, values)),
            Err(refusal) => refusals.push(refusal.message),
        }
    }
    if get.export {
        for (_, values) in &mut found {
            strip_cluster_specifics(values);
        }
    }
    print(&mut client, get, found).await?;
    if refusals.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("failed to get resources: [{}]", refusals.join(", "))
}

async fn fetch(client: &mut ResourcesClient<Channel>, target: &Target) -> Result<Found, Refusal> {
    let Target {
        kind,
        namespace,
        name,
    } = target;
    let refused = |s: tonic::Status| Refusal::new(&s, *kind, namespace, name.as_deref().unwrap_or_default());
    let garbled =
        |e: serde_json::Error| refused(tonic::Status::data_loss(format!("the daemon sent no JSON: {e}")));
    if let Some(name) = name {
        let request = GetRequest {
            kind: kind.as_str().into(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let resource = client.get(request).await.map_err(refused)?.into_inner();
        return object(&resource)
            .map(|v| Found::One(Box::new(v)))
            .map_err(garbled);
    }
    let request = ListRequest {
        kind: kind.as_str().into(),
        namespace: namespace.clone(),
    };
    let mut stream = client.list(request).await.map_err(refused)?.into_inner();
    let mut items = Vec::new();
    while let Some(reply) = stream.message().await.map_err(refused)? {
        for resource in &reply.items {
            items.push(object(resource).map_err(garbled)?);
        }
    }
    Ok(Found::List(items))
}

/// The stored object with its resourceVersion, as an API client sees it.
fn object(resource: &Resource) -> Result<Value, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(&resource.json)?;
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(metadata), false) = (metadata, resource.resource_version.is_empty()) {
        metadata.insert(
            "resourceVersion".into(),
            resource.resource_version.as_str().into(),
        );
    }
    Ok(value)
}

fn strip_cluster_specifics(found: &mut Found) {
    // As calicoctl: a list is left as it is.
    if let Found::One(value) = found
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
}

async fn print(client: &mut ResourcesClient<Channel>, get: &Get, found: Vec<(Kind, Found)>) -> Result<()> {
    let width = match get.output {
        Output::Yaml | Output::Json => {
            let mut objects: Vec<Value> = found.into_iter().map(|(kind, f)| whole(kind, f)).collect();
            let printed = if objects.len() == 1 {
                objects.remove(0)
            } else {
                Value::Array(objects)
            };
            if get.output == Output::Yaml {
                out!("{}", yaml::to_string(&printed).context("printing YAML")?);
            } else {
                out!(ln
                    "{}",
                    serde_json::to_string_pretty(&printed).context("printing JSON")?
                );
            }
            return Ok(());
        }
        Output::Ps => Width::Narrow,
        Output::Wide => Width::Wide,
    };
    let inherited = inherited_as(client, width, &found).await;
    for (kind, found) in found {
        let items = match found {
            Found::One(value) => vec![*value],
            Found::List(items) => items,
        };
        let mut headings = columns::headings(kind, width);
        if get.all_namespaces && kind.is_namespaced() {
            headings.insert(0, "NAMESPACE");
        }
        let row = |item: &Value| {
            headings
                .iter()
                .map(|h| columns::cell(kind, h, item, &inherited))
                .collect()
        };
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        out!(ln "{}", table::plain(&headings, &rows));
    }
    Ok(())
}

fn whole(kind: Kind, found: Found) -> Value {
    match found {
        Found::One(value) => *value,
        Found::List(items) => {
            let mut list = Map::new();
            list.insert("apiVersion".into(), "projectcalico.org/v3".into());
            list.insert("items".into(), items.into());
            list.insert("kind".into(), format!("{kind}List").into());
            list.insert("metadata".into(), json!({}));
            Value::Object(list)
        }
    }
}

/// Only the wide table of nodes shows it.
async fn inherited_as(
    client: &mut ResourcesClient<Channel>,
    width: Width,
    found: &[(Kind, Found)],
) -> String {
    if width == Width::Narrow || found.iter().all(|(kind, _)| *kind != Kind::Node) {
        return String::new();
    }
    let target = Target {
        kind: Kind::BgpConfiguration,
        namespace: String::new(),
        name: Some("default".into()),
    };
    match fetch(client, &target).await {
        Ok(Found::One(value)) => value
            .pointer("/spec/asNumber")
            .map_or(DEFAULT_AS.into(), Value::to_string),
        Ok(Found::List(_)) => DEFAULT_AS.into(),
        Err(refusal) if refusal.code == tonic::Code::NotFound => DEFAULT_AS.into(),
        Err(_) => "unknown".into(),
    }
}

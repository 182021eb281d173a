//! `twillctl get`: by kind, by kind and names, or by what a file names.

use crate::output::out;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tonic::transport::Channel;
use twill_model::{Kind, yaml};
use twill_proto::api::resources_client::ResourcesClient;
use twill_proto::api::{GetRequest, ListRequest, Resource};

use crate::args::Get;
use crate::client::{self, Refusal};
use crate::columns::{self, Width};
use crate::config;
use crate::input::{self, Target};
use crate::table;

/// Default AS number of a cluster that does not say.
const DEFAULT_AS: &str = "64512";

/// What one request of the command line yielded.
pub(crate) enum Found {
    One(Box<Value>),
    List(Vec<Value>, i64),
}

/// How resources are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    Table(Width),
    Columns(Vec<String>),
    Yaml,
    Json,
}

impl Output {
    fn parse(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(match (key, text.contains('=')) {
            ("yaml" | "yml", false) => Self::Yaml,
            ("json", false) => Self::Json,
            ("ps", false) => Self::Table(Width::Narrow),
            ("wide", false) => Self::Table(Width::Wide),
            ("custom-columns", _) if value.is_empty() => bail!("need to specify at least one column"),
            ("custom-columns", _) => Self::Columns(value.split(',').map(str::to_owned).collect()),
            ("go-template" | "go-template-file", _) => bail!(
                "output format '{key}' is not offered by twillctl, which has no Go templates; take -o json and a tool such as jq"
            ),
            _ => bail!("unrecognized output format '{text}'"),
        })
    }
}

pub(crate) async fn run(daemon: &config::Target, get: &Get) -> Result<ExitCode> {
    let output = Output::parse(&get.output)?;
    if let Some(kind) = &get.what.kind {
        input::kind(kind).context("failed to get resources")?;
    }
    let targets = input::targets(&get.what, get.all_namespaces)?;
    if let Output::Columns(columns) = &output {
        for kind in targets.iter().map(|t| t.kind) {
            check_columns(kind, columns)?;
        }
    }
    let mut client = client::resources(daemon).await?;
    let mut found = Vec::new();
    let mut refusals = Vec::new();
    for target in &targets {
        match fetch(&mut client, target).await {
            Ok(values) => found.push((target.kind, values)),
            Err(refusal) => refusals.push(refusal.message),
        }
    }
    if get.export && !get.what.names.is_empty() {
        for (_, values) in &mut found {
            strip_cluster_specifics(values);
        }
    }
    let with_namespace = get.all_namespaces || get.what.namespace.is_some();
    print(&mut client, &output, with_namespace, found).await?;
    if refusals.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{}", refusals.join("\n"))
}

fn check_columns(kind: Kind, columns: &[String]) -> Result<()> {
    let known = columns::known(kind);
    match columns.iter().find(|c| !known.contains(&c.as_str())) {
        Some(unknown) => bail!(
            "unknown heading {unknown}, valid values are: {}",
            known.join(", ")
        ),
        None => Ok(()),
    }
}

/// Reads one resource or all of a kind.
///
/// # Errors
/// In calicoctl's words.
pub(crate) async fn fetch(client: &mut ResourcesClient<Channel>, target: &Target) -> Result<Found, Refusal> {
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
    let (mut items, mut revision) = (Vec::new(), 0);
    while let Some(reply) = stream.message().await.map_err(refused)? {
        revision = reply.revision;
        for resource in &reply.items {
            items.push(object(resource).map_err(garbled)?);
        }
    }
    if *kind == Kind::Tier {
        let order = |item: &Value| item.pointer("/spec/order").and_then(Value::as_f64);
        // Tiers in the order in which they act; those without an order last.
        items.sort_by(|a, b| {
            let (a, b) = (
                order(a).unwrap_or(f64::INFINITY),
                order(b).unwrap_or(f64::INFINITY),
            );
            a.total_cmp(&b)
        });
    }
    Ok(Found::List(items, revision))
}

/// The stored object with its resourceVersion, as an API client sees it.
fn object(resource: &Resource) -> Result<Value, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(&resource.json)?;
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(metadata), false) = (metadata, resource.resource_version.is_empty()) {
        let version = resource.resource_version.as_str().into();
        // In Go's order of fields it stands behind the uid.
        let at = metadata.keys().position(|k| k == "uid").map_or_else(
            || {
                let before = ["name", "generateName", "namespace"];
                metadata
                    .keys()
                    .take_while(|k| before.contains(&k.as_str()))
                    .count()
            },
            |at| at + 1,
        );
        metadata.shift_insert(at, "resourceVersion".into(), version);
    }
    for rules in ["/spec/ingress", "/spec/egress"] {
        let rules = value.pointer_mut(rules).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
            // Stored even when empty, and not shown then.
            for side in ["source", "destination"] {
                if rule
                    .get(side)
                    .and_then(Value::as_object)
                    .is_some_and(Map::is_empty)
                {
                    rule.shift_remove(side);
                }
            }
        }
    }
    Ok(value)
}

fn strip_cluster_specifics(found: &mut Found) {
    if let Found::One(value) = found
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        for field in [
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.shift_remove(field);
        }
    }
}

async fn print(
    client: &mut ResourcesClient<Channel>,
    output: &Output,
    with_namespace: bool,
    found: Vec<(Kind, Found)>,
) -> Result<()> {
    match output {
        Output::Yaml => out!("{}", yaml::to_string(&whole(found)).context("printing YAML")?),
        // No line ends here, as with calicoctl.
        Output::Json => out!(
            "{}",
            serde_json::to_string_pretty(&whole(found)).context("printing JSON")?
        ),
        Output::Table(width) => {
            let headings = |kind: Kind| {
                let mut headings = columns::headings(kind, *width);
                if with_namespace && kind.is_namespaced() {
                    headings.insert(0, "NAMESPACE");
                }
                headings
            };
            tables(client, headings, found).await;
        }
        Output::Columns(columns) => {
            let headings = |_| columns.iter().map(String::as_str).collect();
            tables(client, headings, found).await;
        }
    }
    Ok(())
}

/// One value that holds all.
fn whole(found: Vec<(Kind, Found)>) -> Value {
    let mut objects: Vec<Value> = found.into_iter().map(|(kind, f)| listed(kind, f)).collect();
    if objects.len() == 1 {
        objects.remove(0)
    } else {
        Value::Array(objects)
    }
}

fn listed(kind: Kind, found: Found) -> Value {
    match found {
        Found::One(value) => *value,
        Found::List(items, revision) => {
            let mut list = Map::new();
            list.insert("kind".into(), format!("{kind}List").into());
            list.insert("apiVersion".into(), kind.api_version().into());
            list.insert(
                "metadata".into(),
                json!({"resourceVersion": revision.to_string()}),
            );
            list.insert("items".into(), items.into());
            Value::Object(list)
        }
    }
}

async fn tables<'a>(
    client: &mut ResourcesClient<Channel>,
    headings: impl Fn(Kind) -> Vec<&'a str>,
    found: Vec<(Kind, Found)>,
) {
    let needs_as = |kind: Kind| kind == Kind::Node && headings(kind).contains(&"ASN");
    let inherited = match found.iter().any(|(kind, _)| needs_as(*kind)) {
        true => inherited_as(client).await,
        false => String::new(),
    };
    for (kind, found) in found {
        let items = match found {
            Found::One(value) => vec![*value],
            Found::List(items, _) => items,
        };
        let headings = headings(kind);
        let row = |item: &Value| {
            headings
                .iter()
                .map(|h| columns::cell(kind, h, item, &inherited))
                .collect()
        };
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        out!(ln "{}", table::plain(&headings, &rows));
    }
}

async fn inherited_as(client: &mut ResourcesClient<Channel>) -> String {
    let target = Target {
        kind: Kind::BgpConfiguration,
        namespace: String::new(),
        name: Some("default".into()),
    };
    match fetch(client, &target).await {
        Ok(Found::One(value)) => value
            .pointer("/spec/asNumber")
            .map_or(DEFAULT_AS.into(), Value::to_string),
        Ok(Found::List(..)) => DEFAULT_AS.into(),
        Err(refusal) if refusal.code == tonic::Code::NotFound => DEFAULT_AS.into(),
        Err(_) => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_calicoctls() {
        let parse = |text: &str| Output::parse(text).map_err(|e| e.to_string());
        assert_eq!(parse("wide"), Ok(Output::Table(Width::Wide)));
        assert_eq!(parse("yml"), Ok(Output::Yaml));
        let columns = Output::Columns(vec!["NAME".into(), "ASN".into()]);
        assert_eq!(parse("custom-columns=NAME,ASN"), Ok(columns));
        assert_eq!(
            parse("custom-columns"),
            Err("need to specify at least one column".into())
        );
        assert_eq!(parse("xx"), Err("unrecognized output format 'xx'".into()));
        assert!(parse("go-template={{.}}").unwrap_err().contains("jq"));
    }

    #[test]
    fn an_unknown_column_is_refused_with_those_that_are_known() {
        let error = check_columns(Kind::Node, &["NAME".into(), "FOO".into()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown heading FOO, valid values are: NAME, ASN, IPV4, IPV6"
        );
        assert!(
            check_columns(
                Kind::WorkloadEndpoint,
                &["NAMESPACE".into(), "ORCHESTRATOR".into()]
            )
            .is_ok()
        );
    }

    #[test]
    fn empty_sides_of_a_rule_are_not_shown() {
        let json = br#"{"metadata":{},"spec":{"ingress":[{"action":"Allow","source":{},"destination":{"nets":["1.1.1.1/32"]}}]}}"#;
        let resource = Resource {
            json: json.to_vec(),
            ..Resource::default()
        };
        let shown = object(&resource).unwrap().to_string();
        assert!(!shown.contains("source") && shown.contains("nets"), "{shown}");
    }

    #[test]
    fn the_resource_version_stands_where_go_puts_it() {
        let resource = Resource {
            json: br#"{"metadata":{"name":"a","uid":"u","creationTimestamp":"c"}}"#.to_vec(),
            resource_version: "7".into(),
            ..Resource::default()
        };
        assert_eq!(
            object(&resource).unwrap().to_string(),
            r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"7","creationTimestamp":"c"}}"#
        );
    }
}

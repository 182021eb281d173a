//! `twillctl version`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use twill_model::Kind;
use twill_model::duration::GoDuration;
use twill_proto::api::StatusRequest;
use twill_proto::api::node_client::NodeClient;

use super::get::{Found, fetch};
use crate::args::Version;
use crate::client;
use crate::config;
use crate::input;
use crate::output::out;

pub(crate) async fn run(daemon: &config::Target, asked: &Version) -> Result<ExitCode> {
    let every = asked.poll.as_deref().map(duration).transpose()?;
    out!(ln "Client Version:    {}", env!("CARGO_PKG_VERSION"));
    if asked.client {
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = Vec::new();
    loop {
        let said = ask(daemon).await;
        let Some(every) = every.filter(|every| !every.is_zero()) else {
            for line in said? {
                out!(ln "{line}");
            }
            return Ok(ExitCode::SUCCESS);
        };
        match said {
            Ok(lines) => {
                for line in lines.iter().filter(|line| !shown.contains(*line)) {
                    out!(ln "{line}");
                }
                shown = lines;
            }
            Err(error) => {
                eprintln!("{error:#}");
                shown.clear();
            }
        }
        tokio::time::sleep(every).await;
    }
}

fn duration(text: &str) -> Result<Duration> {
    let parsed: GoDuration = text
        .parse()
        .map_err(|_| anyhow::anyhow!("invalid poll duration specified: {text}"))?;
    let nanos = u64::try_from(parsed.nanos()).context("a poll duration cannot be negative")?;
    Ok(Duration::from_nanos(nanos))
}

async fn ask(daemon: &config::Target) -> Result<Vec<String>> {
    let channel = client::connect(daemon).await?;
    let status = NodeClient::new(channel)
        .status(StatusRequest {})
        .await
        .context("asking for the version")?
        .into_inner();
    let mut client = client::resources(daemon).await?;
    let target = input::Target {
        kind: Kind::ClusterInformation,
        namespace: String::new(),
        name: Some("default".into()),
    };
    let cluster = match fetch(&mut client, &target).await {
        Ok(Found::One(object)) => *object,
        Ok(Found::List(..)) => Value::Null,
        Err(refusal) => anyhow::bail!("unable to retrieve Cluster Version or Type: {}", refusal.message),
    };
    let text = |pointer: &str| {
        let value = cluster.pointer(pointer).and_then(Value::as_str);
        value.filter(|v| !v.is_empty()).unwrap_or("unknown").to_owned()
    };
    Ok(vec![
        format!("Daemon Version:    {}", status.version),
        format!("Cluster Version:   {}", text("/spec/calicoVersion")),
        format!("Cluster Type:      {}", text("/spec/clusterType")),
    ])
}

//! `twillctl patch`: some fields of one resource.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::change;
use crate::args::Patch;
use crate::config;
use crate::input;
use crate::output::out;
use crate::patch;

pub(crate) async fn run(daemon: &config::Target, asked: &Patch) -> Result<ExitCode> {
    let kind = input::kind(&asked.kind)?;
    let target = change::Target::new(kind, asked.namespace.as_deref(), &asked.name)?;
    let parsed = patch::Patch::parse(asked.form, &asked.patch).context("hit error")?;
    let changed = change::change(daemon, &target, |object| {
        parsed.apply(object).context("hit error")
    });
    match changed.await {
        Ok(()) => {}
        Err(change::Failed::Absent(why)) => bail!("hit error: {why}"),
        Err(change::Failed::Refused(why)) => bail!("hit error: updating existing resource: {why}"),
        Err(change::Failed::Other(why)) => return Err(why),
    }
    out!(ln "Successfully patched 1 '{kind}' resource");
    Ok(ExitCode::SUCCESS)
}

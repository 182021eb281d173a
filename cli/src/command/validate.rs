//! `twillctl validate`: what would be refused, found without a daemon.

use std::process::ExitCode;

use anyhow::Result;

use super::write::{Tally, report, single};
use crate::args::Source;
use crate::input;
use crate::output::out;

pub(crate) fn run(source: &Source) -> Result<ExitCode> {
    let documents = input::documents(source, None)?;
    if documents.is_empty() {
        out!(ln "No resources specified");
        return Ok(ExitCode::SUCCESS);
    }
    let tally = Tally {
        handled: documents.len(),
        ..Tally::default()
    };
    report(
        "validate",
        "validated",
        single(&documents),
        documents.len(),
        &tally,
    )
}

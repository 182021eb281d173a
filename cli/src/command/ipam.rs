//! `twillctl ipam show` and `twillctl ipam check`.

use crate::output::out;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use twill_proto::api::ipam_client::IpamClient;
use twill_proto::api::{CheckReply, CheckRequest, Grouping, ShowRequest, Usage};

use crate::client;
use crate::table::{self, Align};

pub(crate) async fn show(socket: &Path, blocks: bool) -> Result<ExitCode> {
    let mut client = IpamClient::new(client::connect(socket).await?);
    let usage = client
        .show(ShowRequest { blocks })
        .await
        .context("asking for address use")?
        .into_inner()
        .usage;
    let headings = [
        ("GROUPING", Align::Left),
        ("CIDR", Align::Left),
        ("IPS TOTAL", Align::Right),
        ("IPS IN USE", Align::Right),
        ("IPS RESERVED", Align::Right),
        ("IPS FREE", Align::Right),
    ];
    let rows: Vec<_> = usage.iter().map(row).collect();
    out!("{}", table::boxed(&headings, &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(usage: &Usage) -> Vec<String> {
    let grouping = match usage.grouping() {
        Grouping::IpPool => "IP Pool",
        Grouping::Block => "Block",
        Grouping::Unspecified => "?",
    };
    let part = |n: &str| format!("{} ({})", short(n), percent(n, &usage.total));
    vec![
        grouping.into(),
        usage.cidr.clone(),
        short(&usage.total),
        part(&usage.in_use),
        if usage.reserved.is_empty() || usage.reserved == "0" {
            "0".into()
        } else {
            part(&usage.reserved)
        },
        part(&usage.free),
    ]
}

/// Five significant digits, as C's `%.5g` writes them.
fn short(decimal: &str) -> String {
    let digits = decimal.trim_start_matches('0');
    if digits.len() <= 5 {
        return if digits.is_empty() {
            "0".into()
        } else {
            digits.to_owned()
        };
    }
    let value: f64 = digits.parse().unwrap_or(f64::INFINITY);
    let scientific = format!("{value:.4e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e+{exponent:0>2}")
}

fn percent(part: &str, whole: &str) -> String {
    let parse = |s: &str| s.parse::<f64>().unwrap_or(0.0);
    let whole = parse(whole);
    if whole == 0.0 {
        "0%".into()
    } else {
        format!("{:.0}%", 100.0 * parse(part) / whole)
    }
}

pub(crate) async fn check(socket: &Path, as_json: bool) -> Result<ExitCode> {
    let mut client = IpamClient::new(client::connect(socket).await?);
    let reply = client
        .check(CheckRequest {})
        .await
        .context("checking addresses")?
        .into_inner();
    if as_json {
        out!(ln
            "{}",
            serde_json::to_string_pretty(&report(&reply)).context("printing JSON")?
        );
    } else {
        out!(ln "Checked IPAM at revision {}.", reply.revision);
        out!(ln "Found {} IPAM blocks.", reply.blocks);
        out!(ln "IPAM blocks record {} allocations.", reply.allocations);
        for problem in &reply.problems {
            out!(ln "  {}: {}: {}", problem.kind, problem.key, problem.message);
        }
        out!(ln "Check complete; found {} problems.", reply.problems.len());
    }
    Ok(if reply.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn report(reply: &CheckReply) -> Value {
    let problem = |p: &twill_proto::api::Problem| json!({"kind": p.kind, "key": p.key, "message": p.message});
    json!({
        "ok": reply.problems.is_empty(),
        "revision": reply.revision,
        "blocks": reply.blocks,
        "allocations": reply.allocations,
        "problems": reply.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cut_to_five_digits() {
        for (decimal, expected) in [
            ("0", "0"),
            ("", "0"),
            ("65536", "65536"),
            ("16777216", "1.6777e+07"),
            ("100000", "1e+05"),
            ("18446744073709551616", "1.8447e+19"),
        ] {
            assert_eq!(short(decimal), expected, "{decimal}");
        }
    }

    #[test]
    fn a_pool_has_its_line() {
        let usage = Usage {
            grouping: Grouping::IpPool.into(),
            cidr: "10.244.0.0/16".into(),
            total: "65536".into(),
            in_use: "6".into(),
            reserved: "0".into(),
            free: "65530".into(),
        };
        assert_eq!(
            row(&usage),
            ["IP Pool", "10.244.0.0/16", "65536", "6 (0%)", "0", "65530 (100%)"]
        );
    }
}

//! `twillctl ipam show`: how full pools and blocks are, who has an address, what is borrowed, how allocators are set.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tonic::Code;
use tonic::transport::Channel;
use twill_proto::api::ipam_client::IpamClient;
use twill_proto::api::report_reply::Fact;
use twill_proto::api::{
    ConfigurationRequest, Grouping, HolderRequest, ReportAddress, ReportRequest, ShowRequest, Usage,
};

use super::said;
use crate::args::{Show, address};
use crate::client;
use crate::config;
use crate::output::out;
use crate::table::{self, Align};

pub(super) async fn run(daemon: &config::Target, show: &Show) -> Result<ExitCode> {
    // What cannot be an address is refused before anybody is asked.
    let ip = show.ip.as_deref().map(address).transpose()?;
    let mut client = IpamClient::new(client::connect(daemon).await?);
    if let Some(ip) = ip {
        return holder(&mut client, &ip.to_string()).await;
    }
    if show.show_borrowed {
        return borrowed(&mut client).await;
    }
    if show.show_configuration {
        return configuration(&mut client).await;
    }
    let request = ShowRequest {
        blocks: show.show_blocks,
    };
    let usage = client
        .show(request)
        .await
        .map_err(|e| said(&e))?
        .into_inner()
        .usage;
    usage_table(&usage);
    Ok(ExitCode::SUCCESS)
}

/// calicoctl's columns; the reserved ones only where something is reserved.
fn usage_table(usage: &[Usage]) {
    let mut headings = vec![
        ("GROUPING", Align::Left),
        ("CIDR", Align::Left),
        ("IPS TOTAL", Align::Auto),
        ("IPS IN USE", Align::Left),
        ("IPS FREE", Align::Left),
    ];
    let with_reserved = usage.iter().any(|u| !matches!(u.reserved.as_str(), "" | "0"));
    if with_reserved {
        headings.insert(4, ("IPS RESERVED", Align::Left));
    }
    let rows: Vec<_> = usage.iter().map(|u| row(u, with_reserved)).collect();
    out!("{}", table::boxed(&headings, &rows));
}

fn row(usage: &Usage, with_reserved: bool) -> Vec<String> {
    let grouping = match usage.grouping() {
        Grouping::IpPool => "IP Pool",
        Grouping::Block => "Block",
        Grouping::Unspecified => "?",
    };
    let part = |n: &str| format!("{} ({})", short(n), percent(n, &usage.total));
    let mut row = vec![
        grouping.into(),
        usage.cidr.clone(),
        short(&usage.total),
        part(&usage.in_use),
        part(&usage.free),
    ];
    if with_reserved {
        row.insert(4, part(&usage.reserved));
    }
    row
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

async fn holder(client: &mut IpamClient<Channel>, ip: &str) -> Result<ExitCode> {
    let request = HolderRequest {
        address: ip.to_owned(),
    };
    let reply = match client.holder(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) if status.code() == Code::NotFound => {
            out!(ln "{ip} is not assigned");
            return Ok(ExitCode::SUCCESS);
        }
        Err(status) => return Err(said(&status)),
    };
    out!(ln "IP {ip} is in use");
    let handle = if reply.handle.is_empty() {
        "<none>"
    } else {
        &reply.handle
    };
    out!(ln "Handle ID: {handle}");
    if reply.attributes.is_empty() {
        out!(ln "No Active Owner attributes defined");
    }
    attributes("Active Owner Attributes", &reply.attributes);
    attributes("Alternate Owner Attributes", &reply.alternate_attributes);
    Ok(ExitCode::SUCCESS)
}

fn attributes(title: &str, attributes: &BTreeMap<String, String>) {
    if attributes.is_empty() {
        return;
    }
    out!(ln "{title}:");
    for (key, value) in attributes {
        out!(ln "  {key}: {value}");
    }
}

async fn borrowed(client: &mut IpamClient<Channel>) -> Result<ExitCode> {
    let mut stream = client
        .report(ReportRequest {})
        .await
        .map_err(|e| said(&e))?
        .into_inner();
    let (mut rows, mut unclassified) = (Vec::new(), 0_u64);
    while let Some(reply) = stream.message().await.map_err(|e| said(&e))? {
        let Some(Fact::Block(block)) = reply.fact else {
            continue;
        };
        for address in block.addresses.iter().filter(|a| !a.released) {
            match borrowed_row(&block.cidr, &block.affinity, address) {
                Some(row) => rows.extend(row),
                None => unclassified += 1,
            }
        }
    }
    let headings = [
        "IP",
        "BORROWING-NODE",
        "BLOCK",
        "BLOCK OWNER",
        "TYPE",
        "ALLOCATED-TO",
    ];
    out!("{}", table::boxed(&headings.map(|h| (h, Align::Left)), &rows));
    if unclassified > 0 {
        out!(ln "\nNote: found {unclassified} IP allocations without an explicit node association. Unable to determine if they are borrowed.");
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` if no node is named; no row if the block is the node's own.
fn borrowed_row(cidr: &str, affinity: &str, address: &ReportAddress) -> Option<Option<Vec<String>>> {
    let attribute = |name: &str| address.attributes.get(name).cloned();
    let node = attribute("node")?;
    let owner = affinity.split_once(':').map_or(affinity, |(_, owner)| owner);
    if owner == node {
        return Some(None);
    }
    let of = |name: String| format!("{}/{name}", attribute("namespace").unwrap_or_default());
    let (kind, to) = match (attribute("vmi"), attribute("pod")) {
        (Some(vm), _) => ("vmi".to_owned(), of(vm)),
        (None, Some(pod)) => ("pod".to_owned(), of(pod)),
        (None, None) => (attribute("type").unwrap_or_default(), String::new()),
    };
    Some(Some(vec![
        address.address.clone(),
        node,
        cidr.to_owned(),
        owner.to_owned(),
        kind,
        to,
    ]))
}

async fn configuration(client: &mut IpamClient<Channel>) -> Result<ExitCode> {
    let reply = client
        .configuration(ConfigurationRequest {})
        .await
        .map_err(|e| said(&e))
        .context("asking for the configuration")?
        .into_inner();
    let mut rows = vec![
        vec!["StrictAffinity".to_owned(), reply.strict_affinity.to_string()],
        vec![
            "AutoAllocateBlocks".into(),
            reply.auto_allocate_blocks.to_string(),
        ],
        vec!["MaxBlocksPerHost".into(), reply.max_blocks_per_host.to_string()],
        vec![
            "KubeVirtVMAddressPersistence".into(),
            reply.kubevirt_vm_address_persistence,
        ],
    ];
    if reply.ip_cooldown_seconds != 0 {
        rows.push(vec![
            "IPCooldownSeconds".into(),
            reply.ip_cooldown_seconds.to_string(),
        ]);
    }
    out!(
        "{}",
        table::boxed(&[("PROPERTY", Align::Left), ("VALUE", Align::Auto)], &rows)
    );
    for warning in reply.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
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
    fn a_pool_has_its_line_and_reserved_addresses_their_column_when_there_are_any() {
        let mut usage = Usage {
            grouping: Grouping::IpPool.into(),
            cidr: "10.244.0.0/16".into(),
            total: "65536".into(),
            in_use: "6".into(),
            reserved: "0".into(),
            free: "65530".into(),
        };
        let plain = ["IP Pool", "10.244.0.0/16", "65536", "6 (0%)", "65530 (100%)"];
        assert_eq!(row(&usage, false), plain);
        usage.reserved = "256".into();
        assert_eq!(row(&usage, true)[4], "256 (0%)");
    }

    #[test]
    fn an_address_is_borrowed_when_its_node_is_not_the_blocks_owner() {
        let mut address = ReportAddress {
            address: "10.0.0.1".into(),
            ..Default::default()
        };
        assert_eq!(borrowed_row("c", "host:n1", &address), None);
        let mut set = |key: &str, value: &str| address.attributes.insert(key.into(), value.into());
        set("node", "n1");
        set("namespace", "shop");
        set("pod", "web");
        assert_eq!(borrowed_row("c", "host:n1", &address), Some(None));
        let row = ["10.0.0.1", "n1", "c", "n2", "pod", "shop/web"].map(str::to_owned);
        assert_eq!(borrowed_row("c", "host:n2", &address), Some(Some(row.to_vec())));
        assert_eq!(borrowed_row("c", "", &address).unwrap().unwrap()[3], "");
    }
}

//! `twillctl bgp routes`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use tonic::transport::Channel;
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::{BgpRoute, RouteTable, RoutesRequest};

use super::{said, whole};
use crate::args::bgp::{Format, Routes};
use crate::output::out;
use crate::table;

pub(super) async fn run(mut client: BgpClient<Channel>, asked: Routes) -> Result<ExitCode> {
    let table = match (asked.received, asked.accepted, asked.advertised) {
        (true, ..) => RouteTable::Received,
        (_, true, _) => RouteTable::Accepted,
        (.., true) => RouteTable::Advertised,
        _ => RouteTable::Unspecified,
    };
    let request = RoutesRequest {
        prefix: asked.prefix.unwrap_or_default(),
        all_paths: asked.all_paths,
        peer: asked.peer.unwrap_or_default(),
        table: table.into(),
    };
    let mut stream = client.routes(request).await.map_err(said)?.into_inner();
    let mut routes = Vec::new();
    while let Some(reply) = stream.message().await.map_err(said)? {
        routes.extend(reply.routes);
    }
    let format = asked.print.output;
    if !whole(format, || Value::Array(routes.iter().map(value).collect()))? {
        out!("{}", text(&routes, format == Format::Wide));
    }
    Ok(ExitCode::SUCCESS)
}

fn value(route: &BgpRoute) -> Value {
    json!({
        "prefix": route.prefix,
        "nextHop": route.next_hop,
        "peer": route.peer,
        "pathId": route.path_id,
        "asPath": route.as_path,
        "origin": route.origin,
        "localPref": route.local_pref,
        "med": route.med,
        "communities": route.communities,
        "largeCommunities": route.large_communities,
        "best": route.best,
        "multipath": route.multipath,
        "stale": route.stale,
        "why": route.why,
    })
}

fn text(routes: &[BgpRoute], wide: bool) -> String {
    let mut headings = vec![
        "",
        "PREFIX",
        "NEXTHOP",
        "PEER",
        "LOCALPREF",
        "MED",
        "ASPATH",
        "ORIGIN",
        "WHY",
    ];
    if wide {
        headings.extend(["COMMUNITIES", "LARGECOMMUNITIES", "PATHID"]);
    }
    let rows: Vec<_> = routes.iter().map(|r| row(r, wide)).collect();
    table::plain(&headings, &rows)
}

/// `*` the best, `=` used together with it, `S` stale.
fn row(route: &BgpRoute, wide: bool) -> Vec<String> {
    let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
    let best = match (route.best, route.multipath) {
        (true, _) => "*",
        (_, true) => "=",
        _ => " ",
    };
    let peer = if route.peer.is_empty() {
        "local"
    } else {
        &route.peer
    };
    let mut row = vec![
        format!("{best}{}", if route.stale { "S" } else { "" }),
        route.prefix.clone(),
        route.next_hop.clone(),
        peer.to_owned(),
        number(route.local_pref),
        number(route.med),
        route.as_path.clone(),
        route.origin.clone(),
        route.why.clone(),
    ];
    if wide {
        row.push(route.communities.join(","));
        row.push(route.large_communities.join(","));
        row.push(route.path_id.to_string());
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_why_it_is_or_is_not_the_best() {
        let route = |best, multipath, why: &str| BgpRoute {
            prefix: "10.0.0.0/8".into(),
            why: why.into(),
            best,
            multipath,
            communities: vec!["65001:7".into()],
            ..BgpRoute::default()
        };
        let routes = [
            route(true, true, "best"),
            route(false, true, "higher router id or originator id"),
            route(false, false, "longer AS path"),
        ];
        let lines: Vec<String> = text(&routes, false)
            .lines()
            .map(|l| l.trim_end().to_owned())
            .collect();
        assert!(
            lines[1].starts_with('*') && lines[1].ends_with("best"),
            "{lines:?}"
        );
        assert!(lines[2].starts_with('='), "{lines:?}");
        assert!(
            lines[3].starts_with(' ') && lines[3].ends_with("longer AS path"),
            "{lines:?}"
        );
        assert!(!lines[1].contains("65001:7") && text(&routes, true).contains("65001:7"));
    }
}

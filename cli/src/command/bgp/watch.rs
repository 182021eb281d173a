//! `twillctl bgp watch`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use tonic::transport::Channel;
use twill_proto::api::bgp_client::BgpClient;
use twill_proto::api::notice::What;
use twill_proto::api::{Notice, WatchRequest};

use super::said;
use crate::args::bgp::{Format, Watch};
use crate::output::out;

pub(super) async fn run(mut client: BgpClient<Channel>, asked: Watch) -> Result<ExitCode> {
    let request = WatchRequest {
        peer: asked.peer.unwrap_or_default(),
        sessions: !asked.routes,
        routes: !asked.sessions,
    };
    let mut stream = client.watch(request).await.map_err(said)?.into_inner();
    let mut left = asked.count;
    while left != Some(0) {
        let Some(notice) = stream.message().await.map_err(said)? else {
            anyhow::bail!("the daemon has stopped");
        };
        match asked.print.output {
            Format::Json | Format::Yaml => out!(ln "{}", value(&notice)),
            Format::Ps | Format::Wide => out!(ln "{}", line(&notice)),
        }
        left = left.map(|n| n - 1);
    }
    Ok(ExitCode::SUCCESS)
}

fn clock(unix_ms: i64) -> String {
    let (secs, ms) = (unix_ms.div_euclid(1000), unix_ms.rem_euclid(1000));
    let of_day = secs.rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}.{ms:03}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn line(notice: &Notice) -> String {
    let at = clock(notice.unix_ms);
    match &notice.what {
        Some(What::Session(s)) if s.why.is_empty() => format!("{at} session {} {}", s.peer, s.state),
        Some(What::Session(s)) => format!("{at} session {} {}: {}", s.peer, s.state, s.why),
        Some(What::Route(r)) if r.withdrawn => format!("{at} route {} withdrawn", r.prefix),
        Some(What::Route(r)) => {
            let stale = if r.stale { ", stale" } else { "" };
            format!(
                "{at} route {} via {} from {}{stale}",
                r.prefix,
                r.next_hops.join(" "),
                r.peer
            )
        }
        Some(What::Missed(count)) => format!("{at} {count} changes were missed"),
        None => at,
    }
}

fn value(notice: &Notice) -> Value {
    let mut value = match &notice.what {
        Some(What::Session(s)) => {
            json!({"type": "session", "peer": s.peer, "source": s.source, "state": s.state, "why": s.why})
        }
        Some(What::Route(r)) => json!({
            "type": "route",
            "prefix": r.prefix,
            "withdrawn": r.withdrawn,
            "nextHops": r.next_hops,
            "peer": r.peer,
            "stale": r.stale,
        }),
        Some(What::Missed(count)) => json!({"type": "missed", "count": count}),
        None => json!({}),
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("unixMs".into(), json!(notice.unix_ms));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_proto::api::{RouteNotice, SessionNotice};

    #[test]
    fn a_change_is_a_line() {
        let session = Notice {
            unix_ms: 3_661_042,
            what: Some(What::Session(SessionNotice {
                peer: "192.0.2.1".into(),
                state: "Idle".into(),
                why: "hold timer expired".into(),
                ..SessionNotice::default()
            })),
        };
        assert_eq!(
            line(&session),
            "01:01:01.042 session 192.0.2.1 Idle: hold timer expired"
        );
        let route = Notice {
            unix_ms: 0,
            what: Some(What::Route(RouteNotice {
                prefix: "10.0.0.0/8".into(),
                next_hops: vec!["192.0.2.1".into(), "192.0.2.2".into()],
                peer: "192.0.2.1".into(),
                ..RouteNotice::default()
            })),
        };
        assert_eq!(
            line(&route),
            "00:00:00.000 route 10.0.0.0/8 via 192.0.2.1 192.0.2.2 from 192.0.2.1"
        );
        assert_eq!(value(&route)["nextHops"][1], "192.0.2.2");
    }
}

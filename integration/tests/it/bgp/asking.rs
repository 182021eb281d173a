//! `twillctl bgp peers`, `peer`, `routes`, `reset`, `watch` and `node drain` on a live node.

use std::process::Stdio;

use anyhow::ensure;
use twill_lab::run::wait_for;

use super::{CHANGED, Rack, TOR};

#[test]
fn twillctl_tells_of_peers_and_routes_and_changes_and_drains() {
    let rack = Rack::new();
    rack.up("n1");
    peers(&rack);
    routes(&rack);
    reset(&rack);
    drain(&rack);
}

/// The columns, and that the counts are those of the router.
fn peers(rack: &Rack) {
    let block = rack.block("n1").to_string();
    rack.shows(&["show", "route", &block, "protocol", "n1"], &block, true);
    let exported = || {
        let said = rack.birdc(&["show", "protocols", "all", "n1"]);
        let line = said.lines().find(|l| l.trim_start().starts_with("Routes:"));
        line.unwrap_or_default().trim().to_owned()
    };
    // `Routes: 3 imported, 1 exported, ...`, as the router counts: what it imports we advertise, what it exports we receive.
    let agrees = || {
        let (peer, theirs) = (rack.told(TOR), exported());
        let numbers: Vec<u64> = theirs.split([' ', ',']).filter_map(|w| w.parse().ok()).collect();
        let ours = [&peer["prefixes"]["advertised"], &peer["prefixes"]["received"]].map(|n| n.as_u64());
        let same = numbers.len() >= 2 && ours == [Some(numbers[0]), Some(numbers[1])];
        format!("{same}: {ours:?} here, {theirs:?} there")
    };
    rack.until("counts", agrees, |text| text.starts_with("true"));
    let text = rack.ctl.output(&["bgp", "peers"]).unwrap();
    let heading = text.lines().find(|l| l.starts_with("PEER")).unwrap();
    let columns: Vec<&str> = heading.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "PEER",
            "TYPE",
            "AS",
            "STATE",
            "SINCE",
            "UPTIME",
            "RECEIVED",
            "ACCEPTED",
            "ADVERTISED",
            "SOURCE",
            "INFO",
        ],
        "{text}"
    );
    let row = |of: &str| text.lines().find(|l| l.starts_with(of)).unwrap_or_default();
    let tor = row(TOR);
    assert!(
        tor.contains("64999")
            && tor.contains("Established")
            && tor.contains("tor-n1")
            && tor.contains("node specific"),
        "{text}"
    );
    let mesh = row("172.31.0.2 ");
    assert!(
        mesh.contains("node-to-node mesh") && mesh.contains("Established"),
        "{text}"
    );
    let detail = rack.told(TOR);
    for side in ["sent", "received"] {
        let all = detail["capabilities"][side].as_array().unwrap();
        assert!(all.contains(&"route-refresh".into()), "{detail}");
    }
    assert_eq!(detail["timers"]["holdMs"], 90_000, "{detail}");
    assert!(detail["counters"]["updates_out"].as_u64() > Some(0), "{detail}");
    assert!(!detail["events"].as_array().unwrap().is_empty(), "{detail}");
    assert!(rack.ctl.output(&["bgp", "peer", "nobody"]).is_err());
    // By the name of its resource, too.
    assert_eq!(rack.told("tor-n1")["address"], TOR);
}

/// Why a path is or is not the best: n2's block comes to n1 from n2, and by way of the router, which had it from us.
fn routes(rack: &Rack) {
    let block = rack.block("n2").to_string();
    let all = || rack.routes(&[&block]);
    rack.until("two paths", || all().len() as u64, |n| *n == 2);
    let all = all();
    let of = |peer: &str| all.iter().find(|r| r["peer"] == peer).unwrap();
    let (best, other) = (of("172.31.0.2"), of(TOR));
    assert!(
        best["best"] == true
            && best["why"] == "best"
            && best["asPath"] == ""
            && best["nextHop"] == "172.31.0.2",
        "{best}"
    );
    let why = other["why"].as_str().unwrap();
    assert!(other["best"] == false && why.starts_with("our AS"), "{other}");
    assert_eq!(other["asPath"], "64999 64512");
    let text = rack.ctl.output(&["bgp", "routes", &block]).unwrap();
    let line = text.lines().find(|l| l.starts_with('*')).unwrap();
    assert!(
        line.contains("172.31.0.2") && line.trim_end().ends_with("best"),
        "{text}"
    );
    let own = rack.block("n1").to_string();
    let sent = rack.routes(&["--peer", TOR, "--advertised", &own]);
    assert_eq!(
        (sent.len(), &sent[0]["prefix"]),
        (1, &own.as_str().into()),
        "{sent:?}"
    );
    assert!(
        rack.routes(&["--peer", TOR, "--advertised", "203.0.113.0/24"])
            .is_empty()
    );
}

/// A hard reset ends the session, a soft one does not, and whoever watches sees it.
fn reset(rack: &Rack) {
    let established = || rack.told(TOR)["establishedCount"].as_u64().unwrap_or(0);
    let refreshes = || rack.told(TOR)["counters"]["refreshes_in"].as_u64().unwrap_or(0);
    let (count, asked) = (established(), refreshes());
    rack.ctl.output(&["bgp", "reset", "--soft", TOR]).unwrap();
    // What the router answers begins and ends with a ROUTE-REFRESH of its own.
    rack.until("a route refresh", refreshes, |n| *n > asked);
    assert_eq!(established(), count, "a soft reset ends no session");

    let mut watch = rack.ctl.command(&[
        "bgp",
        "watch",
        "--sessions",
        "--peer",
        TOR,
        "--count",
        "2",
        "-o",
        "json",
    ]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    // Whoever watches sees only what happens from then on: until it has seen enough, the session is reset again.
    wait_for("the end of the watch", CHANGED, || {
        let before = established();
        rack.ctl
            .output(&["bgp", "reset", "--message", "works on the rack", TOR])?;
        rack.until("the session again", established, |n| *n > before);
        ensure!(watch.try_wait()?.is_some(), "the watch has not seen two changes");
        Ok(())
    })
    .unwrap();
    let seen = watch.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let lines: Vec<serde_json::Value> = seen.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|l| l["type"] == "session" && l["peer"] == TOR),
        "{seen}"
    );
    assert!(established() > count);
    // The text has come to the other operator.
    let log = std::fs::read_to_string(rack.lab().state.member_dir("tor").join("bird.log")).unwrap();
    assert!(log.contains("works on the rack"), "{log}");
}

fn drain(rack: &Rack) {
    let (own, other) = (rack.block("n1").to_string(), rack.block("n2").to_string());
    let marked = |block: &str, node: &str, is: bool| {
        rack.shows(&["show", "route", "all", block, "protocol", node], "65535,0", is);
    };
    rack.up("n1");
    rack.shows(&["show", "route", &own, "protocol", "n1"], &own, true);
    marked(&own, "n1", false);
    rack.ctl.output(&["node", "drain"]).unwrap();
    marked(&own, "n1", true);
    marked(&other, "n2", false);
    assert_eq!(rack.session("n1"), "Established", "a drained node is still there");
    rack.ctl.output(&["node", "undrain"]).unwrap();
    marked(&own, "n1", false);
}

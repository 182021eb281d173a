//! Route reflection by cluster ID and selectors, and communities by prefix, as resources ask for them.

use super::{Rack, TOR};

#[test]
fn a_reflector_is_found_by_selector_and_communities_follow_prefixes() {
    let rack = Rack::new();
    for node in ["n1", "n2", "n3"] {
        rack.up(node);
    }
    communities(&rack);
    reflector(&rack);
}

fn communities(rack: &Rack) {
    let seen = |node: &str, what: &str, is: bool| {
        let block = rack.block(node).to_string();
        rack.shows(&["show", "route", "all", &block, "protocol", node], what, is);
    };
    seen("n1", "64512,100", false);
    let config = |name: &str, more: &str| {
        rack.apply(&format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec:\n{more}"
        ));
    };
    let pool = rack.lab().state.topology.pool.cidr;
    config(
        "default",
        &format!(
            "  asNumber: 64512\n  nodeToNodeMeshEnabled: true\n  communities: [{{name: pods, value: '64512:100'}}]\n  \
             prefixAdvertisements: [{{cidr: {pool}, communities: [pods, '64512:7:8']}}]\n"
        ),
    );
    for node in ["n1", "n2"] {
        seen(node, "(64512,100)", true);
        seen(node, "(64512, 7, 8)", true);
    }
    // One node has its own, instead of the cluster's.
    config(
        "node.n2",
        &format!(
            "  communities: [{{name: pods, value: '64512:200'}}]\n  \
             prefixAdvertisements: [{{cidr: {pool}, communities: [pods]}}]\n"
        ),
    );
    seen("n2", "(64512,200)", true);
    seen("n2", "(64512,100)", false);
    seen("n1", "(64512,100)", true);
    seen("n1", "(64512,200)", false);
    rack.ctl
        .output(&["delete", "bgpconfiguration", "node.n2"])
        .unwrap();
    seen("n2", "(64512,100)", true);
}

/// The peers of a node, and whether their sessions are up.
fn peers(rack: &Rack, node: &str) -> String {
    let peers = rack.lab().ctl(node).unwrap().json(&["bgp", "peers"]).unwrap();
    let mut lines: Vec<String> = peers["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            format!(
                "{} {}",
                p["address"].as_str().unwrap(),
                p["state"].as_str().unwrap()
            )
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn reflector(rack: &Rack) {
    let others = rack.block("n2").to_string();
    // What n1 knows of n2's block, but for what comes by way of the router.
    let way = || {
        let routes = rack.routes(&["--received", &others]);
        let internal = routes.iter().filter(|r| r["peer"] != TOR);
        internal.map(|r| r["peer"].to_string()).collect::<String>()
    };
    let up = |node: &str, peers_up: &[&str]| {
        let mut expected: Vec<String> = peers_up.iter().map(|p| format!("{p} Established")).collect();
        expected.sort();
        let expected = expected.join("\n");
        rack.until(
            &format!("the peers of {node} are {peers_up:?}"),
            || peers(rack, node),
            |seen| *seen == expected,
        );
    };
    up("n1", &["172.31.0.2", "172.31.0.3", TOR]);
    rack.until("n2's block of n2", way, |w| w == "\"172.31.0.2\"");
    // Without the mesh, and with a reflector that nobody is: nothing.
    rack.ctl
        .output(&[
            "patch",
            "bgpconfiguration",
            "default",
            "-p",
            r#"{"spec":{"nodeToNodeMeshEnabled":false}}"#,
        ])
        .unwrap();
    rack.apply(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: reflectors}\nspec:\n  nodeSelector: \"!has(reflector)\"\n  \
         peerSelector: has(reflector)\n",
    );
    up("n1", &[TOR]);
    rack.until("nothing of n2's block", way, String::is_empty);
    // n3 becomes one.
    rack.ctl
        .output(&[
            "patch",
            "node",
            "n3",
            "-p",
            r#"{"spec":{"bgp":{"routeReflectorClusterID":"244.0.0.1"}}}"#,
        ])
        .unwrap();
    rack.ctl
        .output(&["label", "nodes", "n3", "reflector=true"])
        .unwrap();
    up("n1", &["172.31.0.3", TOR]);
    up("n3", &["172.31.0.1", "172.31.0.2", TOR]);
    rack.until("n2's block by the reflector", way, |w| w == "\"172.31.0.3\"");
    let route = rack.routes(&["--received", &others, "--peer", "172.31.0.3"]);
    assert_eq!(
        route[0]["nextHop"], "172.31.0.2",
        "a reflector changes no next hop: {route:?}"
    );
    let n3 = rack.lab().ctl("n3").unwrap();
    for node in ["172.31.0.1", "172.31.0.2"] {
        let peer = n3.json(&["bgp", "peer", node]).unwrap();
        assert_eq!(peer["routeReflectorClient"], true, "{peer}");
    }
    let tor = n3.json(&["bgp", "peer", TOR]).unwrap();
    assert_eq!(tor["routeReflectorClient"], false, "{tor}");
}

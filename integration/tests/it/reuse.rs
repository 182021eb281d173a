//! What is gone before an address may be given again.

use crate::common::{Name, nodes, pod};
use std::net::Ipv4Addr;
use std::time::Duration;
use twill_lab::lab::Lab;
use twill_lab::pods::PodSpec;
use twill_lab::probe::{Flow, Server};
use twill_lab::{netns, run};

/// Where n1 still knows an address: connections, rules and sets, routes.
fn traces(lab: &Lab, address: Ipv4Addr) -> Vec<String> {
    let ns = lab.ns("n1");
    let read = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let connections = netns::within(&ns, read).unwrap();
    let said =
        |program: &str, words: &[&str]| run::output(netns::command(&ns, program).args(words), b"").unwrap();
    let everywhere = [
        connections,
        said("nft", &["list", "ruleset"]),
        said("ip", &["route"]),
    ];
    // The block's own prefix is no trace of its first address.
    let is_it = |c: char| !(c.is_ascii_digit() || c == '.' || c == '/');
    let text = address.to_string();
    let lines = everywhere.iter().flat_map(|all| all.lines());
    lines
        .filter(|line| line.split(is_it).any(|word| word == text))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_pod_is_out_of_conntrack_sets_and_routes_before_its_address_is_released() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let lab = scene.lab_mut().unwrap();
    let web = pod(lab, "shop/web", "n1");
    let other = pod(lab, "shop/other", "n1");
    let client = pod(lab, "shop/client", "n2");
    let _servers = [Server::start(&web).unwrap(), Server::start(&other).unwrap()];
    let mut flow = Flow::open(&client, &web).unwrap();
    flow.exchange().unwrap();
    let mut kept = Flow::open(&client, &other).unwrap();
    kept.exchange().unwrap();
    let before = traces(lab, web.address);
    for what in ["tcp", "elements", "dev cali"] {
        assert!(
            before.iter().any(|line| line.contains(what)),
            "no {what} in {before:?}"
        );
    }

    // Nothing can be released while etcd does not answer: what is gone now, goes before.
    let web_pod = lab.state.pod(&"shop/web".parse().unwrap()).unwrap().clone();
    lab.freeze_etcd(true).unwrap();
    lab.detach_pod(&web_pod, true).unwrap();
    let left = traces(lab, web.address);
    lab.freeze_etcd(false).unwrap();
    assert_eq!(left, Vec::<String>::new());
    let others = traces(lab, other.address);
    assert!(
        others.iter().any(|line| line.contains("ESTABLISHED")),
        "{others:?}"
    );
    kept.exchange().unwrap();

    // The deletion was noted, and is carried out; then the address is free for somebody else.
    lab.forget_pod(&web_pod).unwrap();
    run::wait_for("the address is free again", Duration::from_secs(20), || {
        let spec = PodSpec::new("shop/next".parse()?, "n1").ip(web.address.into());
        lab.add_pod(&spec).map(drop)
    })
    .unwrap();
}

//! An unmodified calicoctl beside Twill on one etcd: what each writes the other must read, and both must say the same.

mod kubernetes;
pub mod node;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::child::Life;
use crate::demo;
use crate::lab::Lab;
use crate::netns;
use crate::pods::PodSpec;
use crate::run::{self, COMMAND_TIMEOUT, Finished};
use crate::topology::Topology;
use kubernetes::Stub;

/// Kinds that calicoctl v3.32.1 knows.
const KINDS: [&str; 20] = [
    "bgpconfiguration",
    "bgpfilter",
    "bgppeer",
    "clusterinformation",
    "felixconfiguration",
    "globalnetworkpolicy",
    "globalnetworkset",
    "hostendpoint",
    "ippool",
    "ipreservation",
    "kubecontrollersconfiguration",
    "networkpolicy",
    "networkset",
    "node",
    "profile",
    "stagedglobalnetworkpolicy",
    "stagedkubernetesnetworkpolicy",
    "stagednetworkpolicy",
    "tier",
    "workloadendpoint",
];

/// Two objects that both tools write, in turn.
const OBJECTS: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: both
spec:
  nets: [10.1.0.0/16]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: both
  namespace: shop
spec:
  selector: app == 'web'
  ingress:
  - action: Allow
    source: {selector: app == 'db'}
";

/// Where resources are.
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// The lab and the tool.
struct Both<'a> {
    lab: &'a mut Lab,
    calicoctl: &'a Path,
    kubeconfig: PathBuf,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Calico,
    Twill,
}

use Tool::{Calico, Twill};

/// Brings a lab up, checks everything, removes it.
///
/// # Errors
/// The first thing that is not so.
pub fn run(name: &str, bin: &Path, calicoctl: &Path) -> Result<()> {
    let calicoctl = calicoctl
        .canonicalize()
        .with_context(|| format!("there is no calicoctl at {}", calicoctl.display()))?;
    let mut lab = Lab::up(name, Topology::one_rack()?, bin, Life::EndsWithUs)?;
    let done = raise(&mut lab).and_then(|()| checks(&mut lab, &calicoctl));
    let down = lab.down().context("cleaning up");
    done.and(down)
}

fn raise(lab: &mut Lab) -> Result<()> {
    lab.start_nodes()?;
    lab.configure()?;
    demo::fabric::sessions_up(lab)?;
    Ok(())
}

fn checks(lab: &mut Lab, calicoctl: &Path) -> Result<()> {
    lab.add_pod(&PodSpec::new("shop/web".parse()?, "n1"))?;
    lab.add_pod(&PodSpec::new("shop/db".parse()?, "n2"))?;
    let namespace = lab.ns("etcd");
    let stub = Stub::start(&namespace)?;
    let kubeconfig = lab.run_dir("n1").join("kubeconfig");
    std::fs::write(&kubeconfig, stub.kubeconfig()).context("writing a kubeconfig")?;
    let mut both = Both {
        lab,
        calicoctl,
        kubeconfig,
    };
    type Step = (&'static str, fn(&mut Both<'_>) -> Result<()>);
    let steps: [Step; 9] = [
        ("create, apply, replace, delete", written),
        ("patch, label", changed),
        ("get of every kind", got),
        ("get, replace: bytes stay", kept),
        ("ipam show", shown),
        ("ipam configure", configured),
        ("ipam check", checked),
        ("ipam release", released),
        ("datastore migrate lock, unlock", locked),
    ];
    for (what, step) in steps {
        step(&mut both).with_context(|| format!("calicoctl beside Twill: {what}"))?;
        println!("ok  {what}");
    }
    Ok(())
}

impl Both<'_> {
    fn run(&self, tool: Tool, words: &[&str], input: &str) -> Result<Finished> {
        let mut command = match tool {
            Twill => self.lab.ctl("n1")?.command(words),
            Calico => {
                let mut command = netns::command(&self.lab.ns("etcd"), self.calicoctl);
                command
                    .env("DATASTORE_TYPE", "etcdv3")
                    .env("ETCD_ENDPOINTS", self.lab.state.topology.etcd_endpoint())
                    .env("KUBECONFIG", &self.kubeconfig)
                    .args(words);
                command
            }
        };
        run::run(&mut command, input.as_bytes(), COMMAND_TIMEOUT)
    }

    /// Runs it to success.
    fn ok(&self, tool: Tool, words: &str, input: &str) -> Result<String> {
        let finished = self.run(tool, &words.split(' ').collect::<Vec<_>>(), input)?;
        ensure!(
            finished.status.success(),
            "{tool:?}: {words}: {}",
            finished.said()
        );
        Ok(finished.stdout)
    }

    /// Both must end alike and print the same.
    fn same(&self, words: &str) -> Result<String> {
        let split: Vec<_> = words.split(' ').collect();
        let (calico, twill) = (self.run(Calico, &split, "")?, self.run(Twill, &split, "")?);
        ensure!(
            calico.status.success() == twill.status.success(),
            "{words}: exits differ: {} / {}",
            calico.said(),
            twill.said()
        );
        ensure!(
            calico.stdout.trim_end() == twill.stdout.trim_end(),
            "{words}: calicoctl prints\n{}\nand twillctl\n{}",
            calico.stdout,
            twill.stdout
        );
        Ok(twill.stdout)
    }
}

fn written(both: &mut Both<'_>) -> Result<()> {
    for (first, second) in [(Calico, Twill), (Twill, Calico)] {
        both.ok(first, "create -f -", OBJECTS)?;
        let again = both.run(second, &["create", "-f", "-"], OBJECTS)?;
        ensure!(!again.status.success(), "{second:?} created what was there");
        both.same("get networkpolicy -n shop -o yaml")?;
        both.same("get globalnetworkset both -o yaml")?;
        both.ok(second, "apply -f -", &OBJECTS.replace("10.1.0.0", "10.2.0.0"))?;
        let seen = both.ok(first, "get globalnetworkset both -o yaml", "")?;
        ensure!(
            seen.contains("10.2.0.0/16"),
            "{first:?} does not see the change: {seen}"
        );
        both.ok(first, "replace -f -", OBJECTS)?;
        both.same("get globalnetworkset both -o yaml")?;
        both.ok(second, "delete -f -", OBJECTS)?;
        both.same("get networkpolicy -n shop")?;
        both.same("get globalnetworkset both")?;
    }
    Ok(())
}

fn changed(both: &mut Both<'_>) -> Result<()> {
    both.ok(Calico, "create -f -", OBJECTS)?;
    for (first, second, value) in [(Calico, Twill, "a"), (Twill, Calico, "b")] {
        let patch =
            format!(r#"{{"spec":{{"nets":["10.3.0.0/16"]}},"metadata":{{"labels":{{"p":"{value}"}}}}}}"#);
        both.ok(first, &format!("patch globalnetworkset both -p {patch}"), "")?;
        both.same("get globalnetworkset both -o yaml")?;
        both.ok(
            second,
            &format!("label globalnetworkset both l={value} --overwrite"),
            "",
        )?;
        let seen = both.same("get globalnetworkset both -o yaml")?;
        ensure!(
            seen.contains(&format!("l: {value}")),
            "the label is missing: {seen}"
        );
        both.ok(first, "label globalnetworkset both l --remove", "")?;
    }
    both.ok(Twill, "delete -f -", OBJECTS).map(drop)
}

fn got(both: &mut Both<'_>) -> Result<()> {
    for kind in KINDS {
        both.same(&format!("get {kind} -o wide"))?;
        both.same(&format!("get {kind} -o yaml"))?;
    }
    both.same("get workloadendpoint -A")?;
    both.same("get nodes -o custom-columns=NAME,ASN")?;
    both.same("get ippool nothing").map(drop)
}

/// What calicoctl reads and writes back is, byte for byte, what Twill wrote.
fn kept(both: &mut Both<'_>) -> Result<()> {
    for kind in [
        "ippool",
        "node",
        "tier",
        "profile",
        "felixconfiguration",
        "bgpconfiguration",
    ] {
        let prefix = format!("{RESOURCES}{kind}s/");
        let before = both.lab.etcdctl(&["get", "--prefix", &prefix])?;
        let list = both.ok(Calico, &format!("get {kind} -o json"), "")?;
        let list: Value = serde_json::from_str(&list)?;
        for item in list["items"].as_array().into_iter().flatten() {
            if item["metadata"]["name"] != "projectcalico-default-allow" {
                both.ok(Calico, "replace -f -", &item.to_string())?;
            }
        }
        let after = both.lab.etcdctl(&["get", "--prefix", &prefix])?;
        ensure!(
            before == after,
            "{kind}: stored\n{before}\nand after calicoctl\n{after}"
        );
    }
    Ok(())
}

fn shown(both: &mut Both<'_>) -> Result<()> {
    both.same("ipam show")?;
    both.same("ipam show --show-blocks")?;
    both.same("ipam show --show-borrowed")?;
    both.same(&format!("ipam show --ip={}", address(both)?)).map(drop)
}

fn address(both: &Both<'_>) -> Result<String> {
    let endpoints = both.ok(Calico, "get workloadendpoint -n shop -o json", "")?;
    let endpoints: Value = serde_json::from_str(&endpoints)?;
    let net = endpoints["items"][0]["spec"]["ipNetworks"][0].as_str();
    let address = net.and_then(|n| n.split('/').next());
    Ok(address.context("the pod has no address")?.to_owned())
}

fn configured(both: &mut Both<'_>) -> Result<()> {
    for (first, second, on) in [(Calico, Twill, "true"), (Twill, Calico, "false")] {
        both.ok(first, &format!("ipam configure --strictaffinity={on}"), "")?;
        let seen = both.ok(second, "ipam show --show-configuration", "")?;
        let line = seen.lines().find(|l| l.contains("StrictAffinity"));
        ensure!(
            line.is_some_and(|l| l.contains(on)),
            "{second:?} does not see it: {seen}"
        );
    }
    Ok(())
}

fn checked(both: &mut Both<'_>) -> Result<()> {
    for tool in [Calico, Twill] {
        let said = both.ok(tool, "ipam check", "")?;
        ensure!(said.contains("found 0 problems"), "{tool:?}: {said}");
    }
    Ok(())
}

fn released(both: &mut Both<'_>) -> Result<()> {
    for tool in [Calico, Twill] {
        let pod = both.lab.add_pod(&PodSpec::new("shop/gone".parse()?, "n1"))?;
        let address = pod["ips"][0]["address"].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default().to_owned();
        both.ok(tool, &format!("ipam release --ip={address}"), "")?;
        both.same(&format!("ipam show --ip={address}"))?;
        let again = both.run(tool, &["ipam", "release", &format!("--ip={address}")], "")?;
        ensure!(!again.status.success(), "{tool:?} released it twice");
        both.lab.delete_pod(&"shop/gone".parse()?)?;
    }
    checked(both)
}

fn locked(both: &mut Both<'_>) -> Result<()> {
    for (first, second) in [(Calico, Twill), (Twill, Calico)] {
        both.ok(first, "datastore migrate lock", "")?;
        let refused = both.lab.add_pod(&PodSpec::new("shop/late".parse()?, "n1"));
        ensure!(
            refused.is_err(),
            "a pod was attached although {first:?} had locked the datastore"
        );
        both.ok(second, "datastore migrate unlock", "")?;
    }
    both.lab.add_pod(&PodSpec::new("shop/late".parse()?, "n1"))?;
    both.lab.delete_pod(&"shop/late".parse()?)?;
    checked(both)
}

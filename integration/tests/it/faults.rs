//! Faults that must already be right: the store away, a peer that sends rubbish, a document that is wrong.

use crate::common::{Name, nodes, pods};
use anyhow::Context;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use twill_lab::cni::CniError;
use twill_lab::demo::fabric::sessions_up;
use twill_lab::demo::{Scene, reach};
use twill_lab::lab;
use twill_lab::pods::PodSpec;
use twill_lab::probe::{self, Kind, Stream};
use twill_lab::routes::Watch;
use twill_lab::{bird, netns, run};

fn late(node: &str) -> PodSpec {
    PodSpec::new("demo/late".parse().unwrap(), node).label("app", "late")
}

#[test]
fn without_etcd_forwarding_goes_on_add_fails_clearly_and_recovery_is_automatic() {
    let name = Name::new();
    let mut scene = pods(&name);
    reach::prove(&mut scene).unwrap();
    let stream = Stream::start(
        scene.endpoint("web-1").unwrap(),
        scene.endpoint("web-2").unwrap(),
        100,
    )
    .unwrap();
    scene.lab().unwrap().stop_etcd().unwrap();

    let begun = Instant::now();
    let error = scene.lab_mut().unwrap().add_pod(&late("n1")).unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "ADD took {:?}",
        begun.elapsed()
    );
    let cni = error
        .downcast_ref::<CniError>()
        .unwrap_or_else(|| panic!("no CNI error: {error:#}"));
    let says = cni.message.to_lowercase();
    assert!(
        ["etcd", "datastore", "store"].iter().any(|w| says.contains(w)),
        "{cni}"
    );

    let mesh = probe::full_mesh(&scene.endpoints, &[Kind::Icmp, Kind::Tcp]);
    reach::all_echo(probe::run(&mesh).unwrap()).unwrap();
    sessions_up(scene.lab().unwrap()).unwrap();

    scene.lab_mut().unwrap().restart_etcd().unwrap();
    run::wait_for("ADD succeeds again", Duration::from_secs(30), || {
        scene.lab_mut()?.add_pod(&late("n1"))
    })
    .unwrap();
    let count = stream.finish().unwrap();
    assert!(count.lost.is_empty(), "{count:?}");
    reach::prove(&mut scene).unwrap();
}

/// Waits until n1 has kept what its sessions are derived from, and tells where.
fn kept(scene: &Scene) -> PathBuf {
    let file = scene.lab().unwrap().run_dir("n1").join("bgp-cache");
    let peers = ["n2", "n3", "tor"].map(|n| format!("\"{n}\""));
    let whole = || {
        let text = std::fs::read_to_string(&file)?;
        anyhow::ensure!(peers.iter().all(|n| text.contains(n)), "{text}");
        Ok(())
    };
    run::wait_for(
        "what sessions are derived from is kept",
        Duration::from_secs(30),
        whole,
    )
    .unwrap();
    file
}

#[test]
fn a_daemon_restarted_while_etcd_is_away_speaks_bgp_and_costs_nobody_a_route() {
    let name = Name::new();
    let mut scene = pods(&name);
    reach::prove(&mut scene).unwrap();
    kept(&scene);
    let ends = [("web-1", "web-2"), ("host", "client-1")];
    let stream =
        |(from, to)| Stream::start(scene.endpoint(from).unwrap(), scene.endpoint(to).unwrap(), 50).unwrap();
    let streams = ends.map(stream);
    let watches =
        ["tor", "n1", "n2", "n3"].map(|who| (who, Watch::start(&scene.lab().unwrap().ns(who)).unwrap()));

    let lab = scene.lab_mut().unwrap();
    let node = lab.state.topology.node("n1").unwrap().clone();
    let log = lab.state.member_dir("n1").join("twilld.log");
    let settled = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .matches("BGP route selection is settled")
            .count()
    };
    let before = settled();
    lab.stop_etcd().unwrap();
    lab.kill_node("n1").unwrap();
    lab.start_node(&node).unwrap();
    sessions_up(lab).unwrap();
    run::wait_for("selection is settled", Duration::from_secs(30), || {
        anyhow::ensure!(settled() > before, "not settled");
        Ok(())
    })
    .unwrap();
    assert!(
        lab::readiness(&lab.state, "n1").is_err(),
        "ready without a datastore"
    );
    lab.restart_etcd().unwrap();
    lab.node_ready("n1").unwrap();
    for (who, watch) in watches {
        assert_eq!(
            watch.finish(lab.state.topology.pool.cidr).unwrap(),
            Vec::<String>::new(),
            "{who}"
        );
    }
    for stream in streams {
        let count = stream.finish().unwrap();
        assert!(count.lost.is_empty(), "{count:?}");
    }
    scene.lab_mut().unwrap().add_pod(&late("n1")).unwrap();
    reach::prove(&mut scene).unwrap();
}

#[test]
fn a_daemon_that_kept_nothing_speaks_to_nobody_while_etcd_is_away() {
    let name = Name::new();
    let mut scene = nodes(&name);
    let kept = kept(&scene);
    let lab = scene.lab_mut().unwrap();
    let node = lab.state.topology.node("n1").unwrap().clone();
    lab.stop_etcd().unwrap();
    lab.kill_node("n1").unwrap();
    std::fs::remove_file(kept).unwrap();
    lab.start_node(&node).unwrap();
    let came = run::wait_for("a session", Duration::from_secs(5), || {
        let sessions = bird::sessions(&lab.state, "tor")?;
        let session = sessions.into_iter().find(|s| s.peer == "n1").context("n1")?;
        anyhow::ensure!(session.info == "Established", "{session:?}");
        Ok(())
    });
    assert!(came.is_err());
}

/// A peer of n1 in the router's namespace that speaks just enough BGP (RFC 4271 section 4).
struct Rogue {
    stream: TcpStream,
}

impl Rogue {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 200);
    const AS: u16 = 65000;

    /// Connects and exchanges OPEN and KEEPALIVE.
    fn establish(scene: &Scene) -> anyhow::Result<Self> {
        let lab = scene.lab()?;
        let stream = netns::within(&lab.ns("seg"), || -> anyhow::Result<TcpStream> {
            let to = SocketAddr::from(([172, 31, 0, 1], 179));
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(stream)
        })??;
        let mut rogue = Self { stream };
        let mut open = vec![4];
        open.extend(Self::AS.to_be_bytes());
        open.extend(90_u16.to_be_bytes());
        open.extend(Self::ADDRESS.octets());
        // One optional parameter: capabilities, multiprotocol IPv4 unicast.
        open.extend([8, 2, 6, 1, 4, 0, 1, 0, 1]);
        rogue.send(1, &open)?;
        anyhow::ensure!(rogue.receive()? == 1, "no OPEN");
        rogue.send(4, &[])?;
        anyhow::ensure!(rogue.receive()? == 4, "no KEEPALIVE");
        Ok(rogue)
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut message = vec![0xff; 16];
        message.extend(u16::try_from(19 + body.len())?.to_be_bytes());
        message.push(kind);
        message.extend(body);
        Ok(self.stream.write_all(&message)?)
    }

    /// The type of the next message.
    fn receive(&mut self) -> anyhow::Result<u8> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header)?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
        self.stream.read_exact(&mut body)?;
        Ok(header[18])
    }

    /// Reads until the session ends or is quiet for a while.
    fn drain(&mut self) {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        while self.receive().is_ok() {}
    }
}

/// UPDATE bodies that are wrong in different ways (RFC 4271 section 6.3, RFC 7606).
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let nlri = [24, 198, 51, 100];
    let update = |attributes: &[u8]| {
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        body
    };
    vec![
        ("withdrawn length beyond the message", vec![0xff, 0xff, 0, 0]),
        (
            "attribute length beyond the message",
            vec![0, 0, 0xff, 0xff, 0x40, 1, 1, 0],
        ),
        ("attribute that runs over its end", update(&[0x40, 1, 200, 0])),
        (
            "ORIGIN of a wrong value",
            update(&[0x40, 1, 1, 9, 0x40, 2, 0, 0x40, 3, 4, 172, 31, 0, 200]),
        ),
        (
            "AS_PATH with a segment that runs over its end",
            update(&[
                0x40, 1, 1, 0, 0x40, 2, 4, 2, 9, 0xfd, 0xe8, 0x40, 3, 4, 172, 31, 0, 200,
            ]),
        ),
        (
            "no NEXT_HOP",
            update(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xe8]),
        ),
        ("a prefix longer than 32", vec![0, 0, 0, 0, 99, 1, 2, 3]),
        ("an empty body", vec![]),
    ]
}

#[test]
fn a_malformed_update_costs_at_most_its_session() {
    let name = Name::new();
    let mut scene = pods(&name);
    reach::prove(&mut scene).unwrap();
    {
        let lab = scene.lab().unwrap();
        netns::ip(
            &lab.ns("seg"),
            &format!("addr add {}/24 dev br0\n", Rogue::ADDRESS),
        )
        .unwrap();
        let yaml = format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: rogue\nspec:\n  node: n1\n  peerIP: {}\n  asNumber: {}\n",
            Rogue::ADDRESS,
            Rogue::AS
        );
        lab.ctl("n1")
            .unwrap()
            .file("apply", &lab.state.member_dir("n1").join("rogue.yaml"), &yaml)
            .unwrap();
    }
    let daemon = scene.lab().unwrap().daemon("n1").unwrap();
    let uptime =
        |scene: &Scene| bird::birdc(&scene.lab().unwrap().state, "tor", &["show", "protocols"]).unwrap();
    let before = uptime(&scene);
    let stream = Stream::start(
        scene.endpoint("web-1").unwrap(),
        scene.endpoint("web-2").unwrap(),
        50,
    )
    .unwrap();
    for (what, body) in malformed() {
        let mut rogue = run::wait_for(what, Duration::from_secs(60), || Rogue::establish(&scene)).unwrap();
        rogue.send(2, &body).unwrap();
        rogue.drain();
        daemon.check().unwrap();
    }
    // Every other session is the one that it was, to the millisecond it came up.
    assert_eq!(uptime(&scene), before);
    let count = stream.finish().unwrap();
    assert!(count.lost.is_empty(), "{count:?}");
    reach::prove(&mut scene).unwrap();
}

#[test]
fn a_bad_document_is_named_by_line_field_and_reason_and_applies_nothing() {
    let name = Name::new();
    let scene = nodes(&name);
    let lab = scene.lab().unwrap();
    let ctl = lab.ctl("n1").unwrap();
    let file = lab.state.member_dir("n1").join("bad.yaml");
    let before = lab
        .etcdctl(&["get", "--prefix", "/calico/resources/v3/", "--keys-only"])
        .unwrap();
    for (yaml, says) in [
        (
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: bad\nspec:\n  cidr: 10.9.0.0/33\n",
            &["line 6", "cidr"][..],
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: bad\nspec:\n  cidr: 10.9.0.0/16\n  colour: red\n",
            &["line 7", "colour"],
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: bad\nspec:\n  peerIP: 10.0.0.1\n  asNumber: many\n",
            &["line 7", "asNumber"],
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: bad\nspec:\n  selector: app ==\n",
            &["line 6", "selector"],
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: [bad\n",
            &["line 5"],
        ),
    ] {
        let error = format!("{:#}", ctl.file("apply", &file, yaml).unwrap_err());
        for word in says {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
    }
    assert_eq!(
        lab.etcdctl(&["get", "--prefix", "/calico/resources/v3/", "--keys-only"])
            .unwrap(),
        before
    );
}

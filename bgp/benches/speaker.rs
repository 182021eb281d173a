//! What the speed of a speaker is made of: decoding UPDATEs, the decision, and what a group of peers is sent.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use twill_bgp::config::{Config, PeerConfig};
use twill_bgp::family::{Families, PerFamily};
use twill_bgp::fsm::Session;
use twill_bgp::policy::SessionType;
use twill_bgp::rib::{AttrTable, Path, PeerId, Sources, decision};
use twill_bgp::speaker::{Output, PeerChange, Speaker};
use twill_bgp::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use twill_bgp::wire::nlri::PathIds;
use twill_bgp::wire::update::Decoder;
use twill_bgp::wire::{AttrSet, MESSAGE_MAX, NextHopValue, Routes, UpdateContext};

/// Prefixes of one load.
const PREFIXES: u32 = 50_000;
/// Prefixes that share one attribute set, about as in the Internet's table.
const SHARED: u32 = 8;
const OUR_AS: u32 = 65_000;

fn peer_asn(place: u8) -> u32 {
    4_200_000_000 + u32::from(place)
}

fn peer_address(place: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 128, 1, place)
}

/// The body of an UPDATE: /24 prefixes `from..` with attributes that tell the set and the peer.
fn update(place: u8, from: u32) -> Vec<u8> {
    let set = from / SHARED;
    let mut attrs = Vec::new();
    let path: Vec<u8> = [peer_asn(place), 64_512 + set % 900, 3_356, set]
        .iter()
        .flat_map(|asn| asn.to_be_bytes())
        .collect();
    let communities = [set, 0x00fe_0001]
        .iter()
        .flat_map(|c| c.to_be_bytes())
        .collect::<Vec<u8>>();
    for (flags, code, value) in [
        (TRANSITIVE, code::ORIGIN, vec![0]),
        (TRANSITIVE, code::AS_PATH, [&[2, 4], &path[..]].concat()),
        (TRANSITIVE, code::NEXT_HOP, peer_address(place).octets().to_vec()),
        (OPTIONAL | TRANSITIVE, code::COMMUNITIES, communities),
    ] {
        Attr {
            code,
            flags,
            value: &value,
        }
        .encode(&mut attrs);
    }
    let mut body = vec![0, 0];
    body.extend_from_slice(
        &u16::try_from(attrs.len())
            .expect("a few attributes fit")
            .to_be_bytes(),
    );
    body.extend_from_slice(&attrs);
    for prefix in from..(from + SHARED).min(PREFIXES) {
        let [_, a, b, c] = (prefix + 0x0014_0000).to_be_bytes();
        body.extend_from_slice(&[24, a, b, c]);
    }
    body
}

fn load(place: u8) -> Vec<Vec<u8>> {
    (0..PREFIXES)
        .step_by(SHARED as usize)
        .map(|from| update(place, from))
        .collect()
}

fn context(place: u8) -> UpdateContext {
    UpdateContext {
        session: SessionType::Ebgp,
        peer_asn: peer_asn(place),
        four_octet_as: true,
        families: Families::IPV4,
        path_ids: PerFamily {
            ipv4: PathIds::Absent,
            ipv6: PathIds::Absent,
        },
        extended_next_hop: false,
        enforce_first_as: true,
        own_addresses: vec![Ipv4Addr::new(10, 128, 0, 1).into()],
    }
}

fn decode_all(place: u8, bodies: &[Vec<u8>]) -> Routes {
    let (mut decoder, mut routes) = (Decoder::new(context(place)), Routes::default());
    for body in bodies {
        decoder
            .decode(body, &mut routes)
            .expect("the bodies are well formed");
    }
    routes
}

fn session(place: u8) -> Session {
    Session {
        id: 1,
        kind: SessionType::Ebgp,
        peer_asn: peer_asn(place),
        router_id: peer_address(place),
        local_address: Ipv4Addr::new(10, 128, 0, 1).into(),
        hold_secs: 90,
        families: Families::IPV4,
        four_octet_as: true,
        route_refresh: true,
        enhanced_refresh: true,
        restart: None,
        notification_restart: false,
        message_max: MESSAGE_MAX,
        extended_next_hop: false,
        add_path_in: Families::NONE,
        add_path_out: Families::NONE,
        long_lived: None,
        capabilities: Vec::new(),
        described: Default::default(),
        opens: Default::default(),
    }
}

/// A speaker with so many external peers, all up.
fn speaker(peers: u8) -> (Speaker, Vec<PeerId>) {
    let mut config = Config::new(OUR_AS, Ipv4Addr::new(10, 128, 0, 1));
    config.peers = (1..=peers)
        .map(|place| PeerConfig::new(IpAddr::V4(peer_address(place)), peer_asn(place)))
        .collect();
    let now = Instant::now();
    let (mut speaker, changes) = Speaker::new(now, config).expect("the configuration holds");
    let ids: Vec<PeerId> = changes
        .iter()
        .filter_map(|c| match c {
            PeerChange::Added(id, _) => Some(*id),
            _ => None,
        })
        .collect();
    for (place, id) in (1..=peers).zip(&ids) {
        speaker.up(now, *id, session(place));
    }
    speaker.own_routes_known();
    run(&mut speaker);
    (speaker, ids)
}

/// Works until nothing is left, with sockets that take everything at once; the octets that went out.
fn run(speaker: &mut Speaker) -> usize {
    let (now, mut octets) = (Instant::now(), 0);
    loop {
        let busy = speaker.work(now);
        let mut said = false;
        while let Some(output) = speaker.poll() {
            if let Output::Send { peer, session, batch } = output {
                octets += batch.parts.iter().map(|p| p.len()).sum::<usize>();
                speaker.sent(peer, session);
                said = true;
            }
        }
        if !busy && !said {
            return octets;
        }
    }
}

fn decode(c: &mut Criterion) {
    let bodies = load(1);
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(PREFIXES.into()));
    group.bench_function("50,000 prefixes, 8 a set", |b| {
        b.iter(|| black_box(decode_all(1, &bodies)));
    });
    group.finish();
}

fn decide(c: &mut Criterion) {
    let (mut attrs, mut sources) = (AttrTable::default(), Sources::default());
    let mut paths = Vec::new();
    for place in 1..=8_u8 {
        let value = [&[2, 1][..], &peer_asn(place).to_be_bytes()].concat();
        let set = AttrSet::new(
            NextHopValue::V4(peer_address(place)),
            &[Attr {
                code: code::AS_PATH,
                flags: TRANSITIVE,
                value: &value,
            }],
        );
        *sources.at_mut(PeerId(place.into())) = decision::PathSource {
            from: twill_bgp::policy::LearnedFrom::Ebgp,
            router_id: peer_address(place),
            address: peer_address(place).into(),
            client: false,
            generation: PerFamily::default(),
        };
        paths.push(Path {
            attr: attrs.intern(Arc::new(set)),
            path_id: 0,
            peer: PeerId(place.into()),
            generation: 0,
            flags: 0,
        });
    }
    let mut group = c.benchmark_group("decision");
    for count in [2, 8] {
        let paths = &paths[..count];
        group.bench_function(format!("best of {count}"), |b| {
            b.iter(|| decision::best(black_box(paths), &attrs, &sources));
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let routes = decode_all(1, &load(1));
    let mut group = c.benchmark_group("through");
    group.throughput(Throughput::Elements(PREFIXES.into()));
    for receivers in [1, 10] {
        group.bench_function(format!("50,000 prefixes to {receivers} peers"), |b| {
            b.iter_batched_ref(
                || speaker(receivers + 1),
                |(speaker, ids)| {
                    speaker.routes(Instant::now(), ids[0], 1, &routes);
                    black_box(run(speaker))
                },
                BatchSize::PerIteration,
            );
        });
    }
    let all: Vec<Routes> = (1..=4).map(|place| decode_all(place, &load(place))).collect();
    group.bench_function("50,000 prefixes of 4 peers", |b| {
        b.iter_batched_ref(
            || speaker(8),
            |(speaker, ids)| {
                for (routes, id) in all.iter().zip(ids) {
                    speaker.routes(Instant::now(), *id, 1, routes);
                    run(speaker);
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, decode, decide, encode);
criterion_main!(benches);

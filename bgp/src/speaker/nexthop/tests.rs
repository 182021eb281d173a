use super::*;
use crate::Family;
use crate::config::{Config, PeerConfig};
use crate::family::{Families, PerFamily};
use crate::fsm::Session;
use crate::policy::SessionType;
use crate::prefix::V4;
use crate::rib::PeerId;
use crate::speaker::{Output, PeerChange};
use crate::wire::attr::{Attr, TRANSITIVE};
use crate::wire::header::HEADER_LEN;
use crate::wire::nlri::PathIds;
use crate::wire::update::{Decoder, Op, UpdateContext};
use crate::wire::{NextHopValue, Nlri, Routes};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

const ROUTER: &str = "172.31.0.254";
const NEAR: &str = "172.31.0.2";
const FAR: &str = "172.31.1.1";
const UPLINK: u32 = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node in a mesh with one neighbour in its subnet and one beyond, and an external router on its link.
struct Bench {
    now: Instant,
    speaker: Speaker,
    peers: BTreeMap<IpAddr, PeerId>,
    /// What each peer holds of us, with the next hop.
    sent: BTreeMap<(IpAddr, IpNet), IpAddr>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(64512, Ipv4Addr::new(172, 31, 0, 1));
        config.track_next_hops = true;
        for (address, asn) in [(ROUTER, 64999), (NEAR, 64512), (FAR, 64512)] {
            let mut peer = PeerConfig::new(ip(address), asn);
            peer.shared_subnet = Some("172.31.0.0/24".parse().unwrap());
            config.peers.push(peer);
        }
        change(&mut config);
        let now = Instant::now();
        let (speaker, changes) = Speaker::new(now, config).unwrap();
        let mut bench = Self {
            now,
            speaker,
            peers: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        for change in changes {
            let PeerChange::Added(peer, config) = change else {
                continue;
            };
            bench.peers.insert(config.address, peer);
            bench.speaker.up(now, peer, session(&config));
        }
        bench
    }

    fn announce(&mut self, from: &str, prefix: &str, hop: &str) {
        let IpAddr::V4(hop) = ip(hop) else {
            panic!("IPv4 here")
        };
        let path: &[u8] = if from == ROUTER {
            &[2, 1, 0, 0, 0xfd, 0xe7]
        } else {
            &[]
        };
        let attr = |code, value| Attr {
            code,
            flags: TRANSITIVE,
            value,
        };
        let set = AttrSet::new(NextHopValue::V4(hop), &[attr(1, &[0]), attr(2, path)]);
        let prefix = V4::of_net(prefix.parse().unwrap()).unwrap();
        let routes = Routes {
            ops: vec![Op::Announce(Family::Ipv4Unicast, Arc::new(set), 0..1)],
            v4: vec![Nlri { prefix, path_id: 0 }],
            ..Routes::default()
        };
        self.speaker.routes(self.now, self.peers[&ip(from)], 1, &routes);
    }

    fn say(&mut self, said: &[(&str, Reach)]) {
        let said = said.iter().map(|(a, r)| (ip(a), r.clone())).collect();
        self.speaker.next_hops_reached(&said);
    }

    /// Lets the speaker finish, and takes what it sends.
    fn settle(&mut self) {
        for _ in 0..100 {
            let more = self.speaker.work(self.now);
            while let Some(output) = self.speaker.poll() {
                let Output::Send { peer, session, batch } = output else {
                    continue;
                };
                self.speaker.sent(peer, session);
                let of = *self.peers.iter().find(|(_, p)| **p == peer).unwrap().0;
                self.take(of, &batch.parts.concat());
            }
            if more {
                continue;
            }
            // A prefix that changed often waits a moment.
            match self.speaker.deadline() {
                Some(at) if at <= self.now + std::time::Duration::from_secs(1) => self.now = at,
                _ => return,
            }
        }
        panic!("the speaker does not settle");
    }

    fn take(&mut self, of: IpAddr, mut octets: &[u8]) {
        let mut decoder = Decoder::new(UpdateContext {
            session: if of == ip(ROUTER) {
                SessionType::Ebgp
            } else {
                SessionType::Ibgp
            },
            peer_asn: 64512,
            four_octet_as: true,
            families: Families::IPV4,
            path_ids: PerFamily {
                ipv4: PathIds::Absent,
                ipv6: PathIds::Absent,
            },
            extended_next_hop: false,
            enforce_first_as: false,
            own_addresses: vec![of],
        });
        while octets.len() > HEADER_LEN {
            let len = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
            let mut routes = Routes::default();
            assert_eq!(
                decoder.decode(&octets[HEADER_LEN..len], &mut routes).unwrap(),
                vec![]
            );
            for op in &routes.ops {
                match op {
                    Op::Announce(_, set, range) => {
                        for nlri in &routes.v4[range.clone()] {
                            let hop = set.next_hop().address().unwrap();
                            assert_ne!(hop, of, "a peer is sent itself as next hop");
                            self.sent.insert((of, nlri.prefix.net()), hop);
                        }
                    }
                    Op::Withdraw(_, range) => {
                        for nlri in &routes.v4[range.clone()] {
                            self.sent.remove(&(of, nlri.prefix.net()));
                        }
                    }
                    Op::EndOfRib(_) => {}
                }
            }
            octets = &octets[len..];
        }
    }

    fn holds(&self, peer: &str, prefix: &str) -> Option<IpAddr> {
        self.sent.get(&(ip(peer), prefix.parse().unwrap())).copied()
    }
}

fn session(config: &PeerConfig) -> Session {
    Session {
        id: 1,
        kind: config.session_type(64512),
        peer_asn: config.known_asn(64512).unwrap(),
        router_id: match config.address {
            IpAddr::V4(a) => a,
            IpAddr::V6(_) => panic!("IPv4 here"),
        },
        local_address: ip("172.31.0.1"),
        hold_secs: 90,
        families: Families::IPV4,
        four_octet_as: true,
        route_refresh: true,
        enhanced_refresh: false,
        restart: None,
        notification_restart: false,
        message_max: 4096,
        extended_next_hop: false,
        add_path_in: Families::NONE,
        add_path_out: Families::NONE,
        long_lived: None,
        capabilities: Vec::new(),
        described: Vec::new(),
        opens: Arc::default(),
    }
}

fn on_link() -> Reach {
    Reach::OnLink { link: UPLINK }
}

fn via(link: u32) -> Reach {
    Reach::Via { links: vec![link] }
}

const BLOCK: &str = "10.244.1.0/26";

#[test]
fn a_block_of_a_neighbour_on_the_link_goes_out_with_that_neighbour_as_next_hop() {
    let mut bench = Bench::new(|_| ());
    bench.announce(NEAR, BLOCK, NEAR);
    bench.settle();
    assert_eq!(
        bench.holds(ROUTER, BLOCK),
        None,
        "nobody has spoken of the next hop"
    );
    let wanted = bench.speaker.next_hops_wanted().unwrap();
    assert!(wanted.contains(&ip(NEAR)) && wanted.contains(&ip(ROUTER)));
    assert_eq!(bench.speaker.next_hops_wanted(), None);
    bench.say(&[(NEAR, on_link()), (ROUTER, on_link())]);
    bench.settle();
    assert_eq!(bench.holds(ROUTER, BLOCK), Some(ip(NEAR)));
}

#[test]
fn what_is_forwarded_back_to_the_peers_link_is_not_announced_to_it() {
    let mut bench = Bench::new(|_| ());
    bench.announce(FAR, BLOCK, FAR);
    let check = |bench: &mut Bench, reach: Reach, expected: Option<&str>| {
        bench.say(&[(FAR, reach.clone()), (ROUTER, on_link())]);
        bench.settle();
        assert_eq!(bench.holds(ROUTER, BLOCK), expected.map(ip), "{reach:?}");
    };
    check(&mut bench, via(UPLINK), None);
    check(&mut bench, via(UPLINK + 1), Some("172.31.0.1"));
    check(
        &mut bench,
        Reach::Via {
            links: vec![UPLINK, UPLINK + 1],
        },
        None,
    );
    check(&mut bench, Reach::OnLink { link: UPLINK + 1 }, Some("172.31.0.1"));
    check(&mut bench, Reach::Unreachable, None);
}

#[test]
fn next_hop_self_by_word_and_a_speaker_that_tracks_nothing_announce_it_all_the_same() {
    let mut by_word = Bench::new(|c| c.peers[0].next_hop = NextHopMode::SelfAddress);
    by_word.announce(FAR, BLOCK, FAR);
    by_word.say(&[(FAR, via(UPLINK)), (ROUTER, on_link())]);
    by_word.settle();
    assert_eq!(by_word.holds(ROUTER, BLOCK), Some(ip("172.31.0.1")));
    let mut alone = Bench::new(|c| c.track_next_hops = false);
    alone.announce(FAR, BLOCK, FAR);
    alone.settle();
    assert_eq!(alone.holds(ROUTER, BLOCK), Some(ip("172.31.0.1")));
    assert_eq!(alone.speaker.next_hops_wanted(), None);
}

#[test]
fn a_path_whose_next_hop_is_unreachable_gives_way_and_comes_back() {
    let mut bench = Bench::new(|_| ());
    bench.speaker.subscribe();
    bench.announce(NEAR, BLOCK, NEAR);
    bench.announce(FAR, BLOCK, FAR);
    let best = |bench: &mut Bench, near: Reach, far: Reach| {
        bench.say(&[(NEAR, near), (FAR, far), (ROUTER, on_link())]);
        bench.settle();
        let changes = bench.speaker.best_changes();
        changes.values().next().cloned().flatten().map(|b| b.next_hops)
    };
    let both = Some(vec![ip(NEAR), ip(FAR)]);
    assert_eq!(best(&mut bench, on_link(), via(UPLINK)), both);
    assert_eq!(
        best(&mut bench, Reach::Unreachable, via(UPLINK)),
        Some(vec![ip(FAR)])
    );
    assert_eq!(best(&mut bench, Reach::Unreachable, Reach::Unreachable), None);
    // New paths with a next hop that is known to be unreachable take no part either.
    bench.announce(NEAR, "10.244.9.0/26", NEAR);
    assert!(bench.speaker.best_changes().is_empty());
    assert_eq!(best(&mut bench, on_link(), via(UPLINK)), both);
}

#[test]
fn a_peer_is_not_sent_a_route_that_has_itself_as_next_hop() {
    let mut bench = Bench::new(|_| ());
    let net = "198.51.100.0/24";
    bench.say(&[(ROUTER, on_link())]);
    // The router names a node of ours as next hop: that node alone is not told.
    bench.announce(ROUTER, net, "172.31.0.77");
    bench.settle();
    assert_eq!(bench.holds(NEAR, net), Some(ip("172.31.0.77")));
    bench.announce(ROUTER, net, NEAR);
    bench.settle();
    assert_eq!(bench.holds(NEAR, net), None);
    assert_eq!(bench.holds(FAR, net), Some(ip(NEAR)));
    // Nor is an external peer.
    bench.say(&[(ROUTER, on_link())]);
    bench.announce(FAR, BLOCK, ROUTER);
    bench.settle();
    assert_eq!(bench.holds(ROUTER, BLOCK), None);
    assert_eq!(
        bench.holds(NEAR, BLOCK),
        None,
        "internal peers are sent nothing of other internal peers"
    );
}

#[test]
fn next_hops_that_nobody_uses_any_more_are_forgotten() {
    let mut hops = NextHops {
        tracked: true,
        ..NextHops::default()
    };
    for i in 0..=u16::MAX {
        hops.want(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + u32::from(i))));
    }
    hops.want(ip("192.0.2.1"));
    assert_eq!((hops.known.len(), hops.waiting), (NEXT_HOPS_MAX, NEXT_HOPS_MAX));
    hops.keep(|hop| *hop == ip("10.0.0.1"));
    assert_eq!(
        (hops.known.len(), hops.waiting, hops.collect_at),
        (1, 1, COLLECT_MIN)
    );
}

#[derive(Clone, Debug)]
enum Act {
    Announce(bool, u8),
    Say(bool, u8),
}

fn reach(kind: u8) -> Reach {
    match kind % 4 {
        0 => on_link(),
        1 => via(UPLINK),
        2 => via(UPLINK + 1),
        _ => Reach::Unreachable,
    }
}

fn arb_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (any::<bool>(), 0..4u8).prop_map(|(near, net)| Act::Announce(near, net)),
        (any::<bool>(), 0..4u8).prop_map(|(near, kind)| Act::Say(near, kind)),
    ]
}

proptest! {
    /// What the router holds depends on the last word alone, whatever came before and in whatever order.
    #[test]
    fn what_is_announced_is_a_function_of_the_last_word(script in prop::collection::vec(arb_act(), 0..40)) {
        let mut bench = Bench::new(|_| ());
        bench.say(&[(ROUTER, on_link())]);
        let mut said: BTreeMap<bool, Reach> = BTreeMap::new();
        let mut announced = BTreeSet::new();
        for act in &script {
            match act {
                Act::Announce(near, net) => {
                    bench.announce(if *near { NEAR } else { FAR }, &format!("10.244.{net}.0/26"), if *near { NEAR } else { FAR });
                    announced.insert((*near, *net));
                }
                Act::Say(near, kind) => {
                    bench.say(&[(if *near { NEAR } else { FAR }, reach(*kind))]);
                    // What is not in use yet is not listened to.
                    if announced.iter().any(|(n, _)| n == near) {
                        said.insert(*near, reach(*kind));
                    }
                }
            }
            bench.settle();
        }
        for net in 0..4u8 {
            let usable = |near: &bool| announced.contains(&(*near, net)) && said.get(near) != Some(&Reach::Unreachable);
            // The nearer has the lower router id.
            let best = [true, false].into_iter().find(usable);
            let expected = best.and_then(|near| match said.get(&near) {
                Some(Reach::OnLink { .. }) if near => Some(ip(NEAR)),
                Some(Reach::OnLink { .. }) => Some(ip("172.31.0.1")),
                Some(Reach::Via { links }) if !links.contains(&UPLINK) => {
                    Some(if near { ip(NEAR) } else { ip("172.31.0.1") })
                }
                _ => None,
            });
            prop_assert_eq!(bench.holds(ROUTER, &format!("10.244.{net}.0/26")), expected, "{}", net);
        }
    }
}

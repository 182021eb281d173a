//! The property that export groups rest on: whatever happens, in whatever order, each peer ends up with what a speaker
//! without groups, started afresh with the last state, would send it. Policies change on the way; peers come and go; every
//! message on the way is one that its receiver has nothing to object to.

use crate::config::{AddPath, Config, LocalAs, Origination, PeerConfig, RemovePrivate};
use crate::family::{Families, Family};
use crate::policy::{Action, Condition, Policy, PrefixSet, Term, Verdict};
use crate::speaker::bench::{Bench, Held, OWN_ASN, Route, ip, net};
use crate::wire::RouteRefresh;
use crate::wire::community::{GRACEFUL_SHUTDOWN, NO_EXPORT};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const PEERS: usize = 9;
const V4: Family = Family::Ipv4Unicast;

fn address(peer: usize) -> String {
    format!("10.0.0.{}", peer + 2)
}

fn asn_of(peer: usize) -> u32 {
    [65_002, 65_003, 65_004, 65_005, 65_006]
        .get(peer)
        .copied()
        .unwrap_or(OWN_ASN)
}

fn prefix(n: u8) -> String {
    format!("198.18.{}.0/24", n % 6)
}

/// Two equal external peers, one with two-octet AS numbers, one with several paths, one who renumbers; two clients, two plain
/// internal ones, one of them with several paths.
fn peer(n: usize) -> PeerConfig {
    let asn = asn_of(n);
    let mut peer = PeerConfig::new(ip(&address(n)), asn);
    if matches!(n, 3 | 8) {
        peer.add_path = AddPath {
            receive: Families::IPV4,
            send: Families::IPV4,
            send_max: 3,
        };
    }
    if n == 4 {
        peer.local_as = Some(LocalAs {
            asn: 64_999,
            prepend_received: true,
            replace: false,
        });
        peer.remove_private = RemovePrivate::All;
        peer.as_override = true;
    }
    peer.route_reflector_client = matches!(n, 5 | 6);
    peer
}

fn policy(variant: u8) -> Arc<Policy> {
    let some = PrefixSet::within(["198.18.2.0/23".parse().unwrap()]);
    let terms = match variant % 4 {
        0 => vec![],
        1 => vec![Term::reject("some", vec![Condition::Prefix(some)])],
        2 => vec![Term::change(
            "mark",
            vec![Condition::Prefix(some)],
            vec![
                Action::LocalPref(200),
                Action::AddCommunities(vec![7]),
                Action::Prepend { asn: 9, times: 2 },
            ],
        )],
        _ => vec![Term::change(
            "plain",
            vec![],
            vec![
                Action::SetCommunities(vec![]),
                Action::Med(Some(u32::from(variant))),
            ],
        )],
    };
    Arc::new(Policy {
        terms,
        default: Verdict::Accept,
    })
}

/// A term that matches nothing and tells one peer's policy from another's.
fn alone(policy: &Policy, n: usize) -> Arc<Policy> {
    let mut policy = policy.clone();
    let never = vec![Condition::Community(vec![])];
    policy.terms.push(Term::reject(format!("only for {n}"), never));
    Arc::new(policy)
}

fn route(n: usize, variant: u8) -> Route {
    let mut path: Vec<u32> = Some(asn_of(n)).filter(|a| *a != OWN_ASN).into_iter().collect();
    path.extend(match variant % 5 {
        0 => vec![],
        1 => vec![7],
        2 => vec![64_600, 70_000],
        3 => vec![3; 254],
        _ => vec![65_003, 8],
    });
    let route = match variant % 7 {
        0 => Route::of(&path).communities(&[NO_EXPORT]),
        1 => Route::of(&path).communities(&[GRACEFUL_SHUTDOWN]),
        2 => Route::of(&path).attr(4, &[0, 0, 0, variant]),
        3 => Route::of(&path).attr(32, &vec![1; 12 * 330]),
        _ => Route::of(&path),
    };
    if matches!(n, 3 | 8) {
        route.id(u32::from(variant % 3))
    } else {
        route
    }
}

/// What is meant to hold in the end.
#[derive(Clone, Default)]
struct Last {
    routes: BTreeMap<(usize, String, u32), Route>,
    own: Vec<String>,
    import: [u8; PEERS],
    export: [u8; PEERS],
    drained: bool,
}

impl Last {
    fn config(&self, groups: bool) -> Config {
        let peer = |n: usize| {
            let mut peer = peer(n);
            peer.import = policy(self.import[n]);
            let export = policy(self.export[n]);
            peer.export = if groups { export } else { alone(&export, n) };
            peer
        };
        Config {
            peers: (0..PEERS).map(peer).collect(),
            graceful_shutdown: self.drained,
            ..Config::new(OWN_ASN, Ipv4Addr::new(10, 0, 0, 1))
        }
    }

    fn bench(&self, groups: bool) -> Bench {
        let mut bench = Bench::down(self.config(groups));
        (0..PEERS).for_each(|n| up(&mut bench, n));
        bench
    }

    fn originate(&self, bench: &mut Bench) {
        let own: Vec<(&str, Origination)> = self.own.iter().map(|p| (&**p, Origination::default())).collect();
        bench.originate(&own);
    }

    fn announce(&self, bench: &mut Bench, of: usize) {
        for ((_, prefix, _), route) in self.routes.iter().filter(|((n, ..), _)| *n == of) {
            bench.announce(&address(of), prefix, route);
        }
    }

    /// Answers whoever was asked for its routes.
    fn answer(&self, bench: &mut Bench) {
        bench.settle();
        for n in 0..PEERS {
            let asked = std::mem::take(&mut bench.peers.get_mut(&ip(&address(n))).unwrap().asked);
            if asked.contains(&RouteRefresh::Request(V4)) {
                bench.refresh(&address(n), RouteRefresh::Begin(V4));
                self.announce(bench, n);
                bench.refresh(&address(n), RouteRefresh::End(V4));
            }
        }
    }
}

fn up(bench: &mut Bench, n: usize) {
    bench.up_with(ip(&address(n)), |s| s.four_octet_as = n != 2);
}

fn act(bench: &mut Bench, last: &mut Last, [kind, a, b, c]: [u8; 4]) {
    let n = usize::from(a) % PEERS;
    match kind % 12 {
        0..=4 => {
            let route = route(n, c);
            bench.announce(&address(n), &prefix(b), &route);
            last.routes.insert((n, prefix(b), route.path_id), route);
        }
        5 | 6 => {
            let id = route(n, c).path_id;
            bench.withdraw(&address(n), &prefix(b), id);
            last.routes.remove(&(n, prefix(b), id));
        }
        7 => {
            bench.lose(&address(n));
            if b % 2 == 0 {
                bench.settle();
            }
            if c % 2 == 0 {
                last.routes.retain(|(of, ..), _| *of != n);
            }
            up(bench, n);
            last.announce(bench, n);
            bench.end_of_rib(&address(n), V4);
        }
        8 => {
            match b % 3 {
                0 => last.import[n] = c,
                1 => last.export[n] = c,
                _ => last.drained = c % 2 == 0,
            }
            bench.configure(last.config(true));
            last.answer(bench);
        }
        9 => bench.refresh(&address(n), RouteRefresh::Request(V4)),
        10 => {
            let prefix = prefix(b);
            match last.own.iter().position(|p| *p == prefix) {
                Some(at) => drop(last.own.remove(at)),
                None => last.own.push(prefix),
            }
            last.originate(bench);
        }
        _ => bench.settle(),
    }
}

/// What a peer holds; identifiers of paths depend on history, so only their number counts.
fn holds(bench: &Bench, n: usize) -> Vec<(IpNet, String)> {
    let text = |h: &Held| format!("{:?} {} {:02x?}", h.hop, h.path, h.set.octets());
    let held = bench.peers[&ip(&address(n))].held.iter();
    let mut held: Vec<_> = held.map(|((net, _), h)| (*net, text(h))).collect();
    held.sort();
    held
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn groups_send_each_peer_what_a_speaker_without_them_would(script in prop::collection::vec(any::<[u8; 4]>(), 1..60)) {
        let mut last = Last::default();
        let mut bench = last.bench(true);
        last.originate(&mut bench);
        for step in script {
            act(&mut bench, &mut last, step);
        }
        bench.settle();
        let mut fresh = last.bench(false);
        last.originate(&mut fresh);
        (0..PEERS).for_each(|n| last.announce(&mut fresh, n));
        fresh.settle();
        for n in 0..PEERS {
            prop_assert_eq!(holds(&bench, n), holds(&fresh, n), "peer {}", n);
        }
    }
}

#[test]
fn a_peer_that_missed_something_is_noticed() {
    let mut last = Last::default();
    let mut bench = last.bench(true);
    act(&mut bench, &mut last, [0, 0, 0, 4]);
    bench.settle();
    assert_eq!(holds(&bench, 1).len(), 1);
    bench
        .peers
        .get_mut(&ip(&address(1)))
        .unwrap()
        .held
        .remove(&(net(&prefix(0)), 0));
    let mut fresh = last.bench(false);
    last.announce(&mut fresh, 0);
    fresh.settle();
    assert_ne!(holds(&bench, 1), holds(&fresh, 1));
}

#[test]
fn a_new_prefix_does_not_wait_for_one_whose_number_it_gets() {
    let mut bench = Bench::new(vec![
        PeerConfig::new(ip("10.0.0.2"), 65002),
        PeerConfig::new(ip("10.0.0.3"), 65003),
    ]);
    bench.settle();
    let (first, second) = ("198.18.1.0/24", "198.18.2.0/24");
    let holds = |bench: &Bench, prefix| bench.path("10.0.0.3", prefix).is_some();
    bench.announce("10.0.0.2", first, &Route::of(&[65002]));
    bench.at_once();
    bench.withdraw("10.0.0.2", first, 0);
    bench.at_once();
    // Two changes of the place: a third would wait.
    bench.announce("10.0.0.2", second, &Route::of(&[65002]));
    bench.at_once();
    assert!(holds(&bench, second), "it is sent at once");
    // The first one flaps wherever it is now.
    bench.announce("10.0.0.2", first, &Route::of(&[65002]));
    bench.at_once();
    assert!(!holds(&bench, first), "it waits for the end of its 150 ms");
    bench.settle();
    assert!(holds(&bench, first));
}

use proptest::prelude::*;

use super::*;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn hop(via: Option<&str>, dev: &'static str) -> Hop {
    Hop {
        via: via.map(ip),
        dev: IfName::fixed(dev),
        onlink: false,
        weight: Weight::ONE,
    }
}

fn by(via: &str) -> Forward {
    Forward::Hops(vec![hop(Some(via), "eth0")])
}

fn connected() -> Forward {
    Forward::Hops(vec![hop(None, "eth0")])
}

/// A node of a rack: its subnet, its address, a default route.
fn rack() -> Underlay {
    let mut underlay = Underlay::default();
    underlay.add(net("172.31.0.0/24"), 0, connected());
    underlay.add(net("0.0.0.0/0"), 0, by("172.31.0.254"));
    underlay.add_own(ip("172.31.0.1"));
    underlay
}

#[test]
fn a_neighbour_is_on_its_link_and_what_is_beyond_is_behind_the_gateway() {
    let underlay = rack();
    let on_link = underlay.reach(ip("172.31.0.2"));
    assert_eq!(on_link, Ok(Reached::OnLink(IfName::fixed("eth0"))));
    let beyond = underlay.reach(ip("172.31.1.1")).unwrap();
    assert_eq!(beyond, Reached::Via(vec![hop(Some("172.31.0.254"), "eth0")]));
    let taught = NextHop::via(ip("172.31.1.1"));
    let resolved = beyond.resolve(&taught);
    assert_eq!(resolved.len(), 1);
    assert_eq!(
        (resolved[0].via, resolved[0].dev),
        (ip("172.31.0.254"), Some(IfName::fixed("eth0")))
    );
}

#[test]
fn what_is_not_reached_says_why() {
    let mut underlay = rack();
    underlay.add(net("172.31.9.0/24"), 0, Forward::Refuse);
    let check = |to: &str, expected: Unreached| assert_eq!(underlay.reach(ip(to)), Err(expected), "{to}");
    check("172.31.0.1", Unreached::Own);
    check("172.31.9.9", Unreached::Refused(net("172.31.9.0/24")));
    check("fe80::1", Unreached::LinkLocal);
    check("fd00::1", Unreached::NoRoute);
    let mut v6_only = Underlay::default();
    v6_only.add(net("0.0.0.0/0"), 0, by("fe80::1"));
    assert_eq!(
        v6_only.reach(ip("192.0.2.1")),
        Err(Unreached::Refused(net("0.0.0.0/0")))
    );
    assert_eq!(
        Underlay::default().reach(ip("192.0.2.1")),
        Err(Unreached::NoRoute)
    );
}

#[test]
fn the_lowest_metric_of_a_destination_counts_in_any_order() {
    let routes = [
        (100, by("172.31.0.253")),
        (7, by("172.31.0.254")),
        (7, by("172.31.0.255")),
    ];
    let expected = Ok(Reached::Via(vec![hop(Some("172.31.0.254"), "eth0")]));
    for turn in 0..routes.len() {
        let mut underlay = Underlay::default();
        let order = routes.iter().cycle().skip(turn).take(routes.len());
        order.for_each(|(metric, forward)| underlay.add(net("0.0.0.0/0"), *metric, forward.clone()));
        assert_eq!(underlay.reach(ip("192.0.2.1")), expected);
    }
}

#[test]
fn flows_over_several_gateways_keep_their_shares() {
    let mut underlay = Underlay::default();
    let heavy = Hop {
        weight: Weight::saturating(3),
        ..hop(Some("10.0.0.2"), "eth1")
    };
    underlay.add(
        net("0.0.0.0/0"),
        0,
        Forward::Hops(vec![heavy, hop(Some("10.0.0.1"), "eth0")]),
    );
    let reached = underlay.reach(ip("192.0.2.1")).unwrap();
    let resolved = reached.resolve(&NextHop::via(ip("192.0.2.1")));
    let told: Vec<_> = resolved.iter().map(|h| (h.via, h.weight.rtnh_hops())).collect();
    assert_eq!(told, [(ip("10.0.0.1"), 0), (ip("10.0.0.2"), 2)]);
}

fn arb_net() -> impl Strategy<Value = IpNet> {
    (0..4_u32, prop_oneof![Just(0_u8), 28..=32_u8]).prop_map(|(last, len)| {
        IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + last).into(), len)
            .unwrap()
            .trunc()
    })
}

proptest! {
    /// The naive way: look at every route, take the longest that covers, of these the one with the lowest metric.
    #[test]
    fn the_longest_covering_prefix_decides(
        routes in proptest::collection::vec((arb_net(), 0..3_u32, 0..3_u8), 0..12),
        last in 0..20_u32,
    ) {
        let address: IpAddr = std::net::Ipv4Addr::from(0x0a00_0000 + last).into();
        let forward = |kind: u8| match kind {
            0 => Forward::Refuse,
            1 => connected(),
            _ => by("192.0.2.254"),
        };
        let mut underlay = Underlay::default();
        routes.iter().for_each(|(dst, metric, kind)| underlay.add(*dst, *metric, forward(*kind)));
        let best = routes
            .iter()
            .filter(|(dst, ..)| dst.contains(&address))
            .min_by_key(|(dst, metric, kind)| (32 - dst.prefix_len(), *metric, forward(*kind)));
        let expected = match best {
            None => Err(Unreached::NoRoute),
            Some((dst, _, 0)) => Err(Unreached::Refused(*dst)),
            Some((_, _, 1)) => Ok(Reached::OnLink(IfName::fixed("eth0"))),
            Some(_) => Ok(Reached::Via(vec![hop(Some("192.0.2.254"), "eth0")])),
        };
        prop_assert_eq!(underlay.reach(address), expected);
    }
}

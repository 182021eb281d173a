//! Best paths on their way to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::sync::watch;
use twill_bgp::net::{BestChanges, Closed, Handle};
use twill_bgp::view::Converged;
use twill_bgp::{Best, Families};
use twill_felix::kernel::{self, routes::HeldRoute};
use twill_felix::plan::IfName;
use twill_felix::plan::routes::{NextHop, Route};

use super::Intent;

/// Hands every change of a best path to felix, newest state first, and says when routes of an earlier process that nobody
/// announced again may go: after the paths that were chosen when selection settled, never before. Ends when the speaker does.
pub(super) async fn learn(handle: Handle, kernel: kernel::Handle, intent: watch::Receiver<Intent>) {
    let Ok(mut changes) = handle.best_changes().await else {
        return;
    };
    let mut converged = handle.converged();
    let mut synced = false;
    loop {
        if !synced && settled(*converged.borrow_and_update()) {
            if drain(&mut changes, &kernel, &intent).await.is_err() {
                return;
            }
            tracing::info!("BGP route selection is settled");
            kernel.bgp_synced();
            synced = true;
        }
        tokio::select! {
            batch = changes.next() => match batch {
                Ok(batch) => program(&kernel, &intent, batch),
                Err(_) => return,
            },
            changed = converged.changed(), if !synced => if changed.is_err() {
                return;
            },
        }
    }
}

fn settled(converged: Converged) -> bool {
    converged.ipv4 && converged.ipv6
}

/// Takes every change that is waiting.
async fn drain(
    changes: &mut BestChanges,
    kernel: &kernel::Handle,
    intent: &watch::Receiver<Intent>,
) -> Result<(), Closed> {
    loop {
        let batch = changes.waiting().await?;
        if batch.is_empty() {
            return Ok(());
        }
        program(kernel, intent, batch);
    }
}

fn program(
    kernel: &kernel::Handle,
    intent: &watch::Receiver<Intent>,
    mut batch: BTreeMap<IpNet, Option<Best>>,
) {
    // The way to a peer is what its BGPPeer says, whatever is learned.
    if let Some(derived) = &intent.borrow().derived {
        batch.retain(|net, _| !derived.gateways.contains_key(net));
    }
    kernel.bgp_routes(
        batch
            .into_iter()
            .map(|(net, best)| (net, best.and_then(|best| route(&net, &best, |_| None)))),
    );
}

/// Gateways of the prefix's own family, and of IPv6 for IPv4 (RFC 8950); a link-local one with its link, by what `link` calls
/// it. The kernel takes no others.
pub(crate) fn route(net: &IpNet, best: &Best, link: impl Fn(u32) -> Option<IfName>) -> Option<Route> {
    let hop = |hop: &IpAddr| match *hop {
        IpAddr::V4(_) => net.addr().is_ipv4().then(|| NextHop::via(*hop)),
        IpAddr::V6(v6) => match twill_bgp::link::split(v6) {
            (plain, 0) => Some(NextHop::via(plain.into())),
            (plain, number) => Some(NextHop {
                dev: Some(link(number)?),
                ..NextHop::via(plain.into())
            }),
        },
    };
    Route::bgp(best.next_hops.iter().filter_map(hop))
}

/// Families of the routes that an earlier process left: blackholes of own blocks, and what it learned. The gateway that
/// answers ARP says nothing of BGP.
pub(crate) fn families<'a>(held: impl Iterator<Item = (&'a IpNet, &'a Vec<HeldRoute>)>) -> Families {
    let bgp = |h: &&HeldRoute| matches!(h.route, Some(Route::Bgp(_) | Route::Blackhole));
    let mut found = Families::NONE;
    for (net, _) in held.filter(|(_, routes)| routes.iter().any(|h| bgp(&h))) {
        match net {
            IpNet::V4(_) => found.ipv4 = true,
            IpNet::V6(_) => found.ipv6 = true,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_bgp::policy::SessionType;

    #[test]
    fn a_route_has_the_gateways_that_its_family_can_have() {
        let best = |hops: &[&str]| Best {
            next_hops: hops.iter().map(|h| h.parse().unwrap()).collect(),
            source: "172.31.0.2".parse().unwrap(),
            session: SessionType::Ibgp,
            local_pref: None,
            stale: false,
        };
        let net: IpNet = "10.244.1.0/26".parse().unwrap();
        let expected = Route::bgp([NextHop::via("172.31.0.2".parse().unwrap())]);
        let made = |net: &IpNet, hops: &[&str]| {
            route(net, &best(hops), |link| (link == 7).then(|| IfName::fixed("up0")))
        };
        assert_eq!(made(&net, &["172.31.0.2"]), expected);
        let over_v6 = Route::bgp([NextHop::via("fd00::2".parse().unwrap())]);
        assert_eq!(made(&net, &["fd00::2"]), over_v6);
        let v6: IpNet = "fd44::/64".parse().unwrap();
        assert_eq!(
            (made(&v6, &["fd00::2"]), made(&v6, &["172.31.0.2"])),
            (over_v6, None)
        );
        let linked = |link| twill_bgp::link::scoped("fe80::1".parse().unwrap(), link).to_string();
        let on_link = Route::bgp([NextHop {
            dev: Some(IfName::fixed("up0")),
            ..NextHop::via("fe80::1".parse().unwrap())
        }]);
        assert_eq!(made(&net, &[&linked(7)]), on_link);
        assert_eq!(made(&net, &[&linked(8)]), None, "a link that is not there");
    }

    #[test]
    fn families_are_those_of_blackholes_and_learned_routes() {
        let held = |net: &str, route: Route| {
            let held = HeldRoute {
                protocol: route.protocol(),
                metric: 1024,
                route: Some(route),
            };
            (net.parse::<IpNet>().unwrap(), vec![held])
        };
        let check = |routes: &[(IpNet, Vec<HeldRoute>)], expected| {
            assert_eq!(families(routes.iter().map(|(net, held)| (net, held))), expected);
        };
        check(&[held("10.0.0.0/26", Route::Blackhole)], Families::IPV4);
        check(&[held("169.254.1.1/32", Route::ProxyArpGateway)], Families::NONE);
        check(&[], Families::NONE);
    }
}

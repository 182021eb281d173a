//! Routes to peers behind a gateway (`reachableBy`): the kernel's, as felix programs them, for as long as the peer is there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use twill_felix::kernel;
use twill_felix::plan::routes::{NextHop, Route};

use super::Intent;

/// Keeps the routes to peers until cancelled. They stay in the kernel then, as all routes do.
pub(super) async fn keep(
    mut intent: watch::Receiver<Intent>,
    kernel: kernel::Handle,
    stop: CancellationToken,
) {
    let mut held = BTreeMap::new();
    loop {
        let derived = intent.borrow_and_update().derived.clone();
        if let Some(derived) = derived {
            let changes = changes(&held, &derived.gateways);
            if !changes.is_empty() {
                tracing::info!(
                    routes = derived.gateways.len(),
                    "routes to BGP peers behind gateways change"
                );
                kernel.bgp_routes(changes);
            }
            held.clone_from(&derived.gateways);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = intent.changed() => if changed.is_err() {
                // The hub has ended; the daemon is about to.
                return stop.cancelled().await;
            },
        }
    }
}

fn changes(held: &BTreeMap<IpNet, IpAddr>, wanted: &BTreeMap<IpNet, IpAddr>) -> Vec<(IpNet, Option<Route>)> {
    let gone = held
        .keys()
        .filter(|net| !wanted.contains_key(net))
        .map(|net| (*net, None));
    let new = wanted
        .iter()
        .filter(|(net, via)| held.get(net) != Some(via))
        .map(|(net, via)| (*net, Route::bgp([NextHop::via(*via)])));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_programmed() {
        let map = |list: &[(&str, &str)]| -> BTreeMap<IpNet, IpAddr> {
            list.iter()
                .map(|(n, a)| (n.parse().unwrap(), a.parse().unwrap()))
                .collect()
        };
        let old = map(&[("192.0.2.1/32", "10.0.0.1"), ("192.0.2.2/32", "10.0.0.1")]);
        let new = map(&[("192.0.2.2/32", "10.0.0.1"), ("192.0.2.3/32", "10.0.0.9")]);
        let via = Route::bgp([NextHop::via("10.0.0.9".parse().unwrap())]);
        let expected = [
            ("192.0.2.1/32".parse().unwrap(), None),
            ("192.0.2.3/32".parse().unwrap(), via),
        ];
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&new, &new), []);
    }
}

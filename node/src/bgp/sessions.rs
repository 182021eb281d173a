//! What operators should hear of sessions without asking: how many are up, who is another AS than configured, and what
//! peers send that is refused. Each is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use twill_bgp::PeerStatus;
use twill_bgp::net::Handle;
use twill_bgp::view::{PeerState, RouteQuery, RouteTable};

use super::Intent;
use crate::health::{Component, Health};

/// How often sessions are looked at. A look walks what each export group was sent: milliseconds with a full table.
const INTERVAL: Duration = Duration::from_secs(2);
/// Received routes that are looked through for an example of a refused one.
const LOOKED_MAX: usize = 1000;

/// What was said already.
#[derive(Debug, Default)]
struct Said {
    errors: BTreeMap<IpAddr, String>,
    refused: BTreeSet<IpAddr>,
    /// Prefixes received and accepted when a peer's routes were last looked through.
    looked: BTreeMap<IpAddr, [u64; 4]>,
}

/// Looks at sessions until cancelled or until the speaker ends.
pub(super) async fn watch(
    speaker: Handle,
    intent: Receiver<Intent>,
    health: Health,
    stop: CancellationToken,
) {
    let mut said = Said::default();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Ok(peers) = speaker.peers().await else { return };
        if intent.borrow().derived.is_some() {
            health.detail(Component::Bgp, established(&peers));
        }
        for (peer, why) in said.news(&peers) {
            tracing::warn!(%peer, why, "bgp session cannot be established");
        }
        for peer in said.refusing(&peers) {
            let query = RouteQuery {
                table: RouteTable::Received,
                peer: Some(peer),
                prefix: None,
                limit: LOOKED_MAX,
            };
            let Ok(routes) = speaker.routes(query).await else {
                return;
            };
            let refused: Vec<String> = routes
                .iter()
                .filter(|route| route.why == REFUSED)
                .map(|route| route.prefix.to_string())
                .collect();
            if let Some(prefix) = refused.first() {
                tracing::warn!(
                    %peer,
                    prefix,
                    count = refused.len(),
                    "a bgp peer sends prefixes that import policy refuses: martians, prefixes inside our pools, or what a filter rejects"
                );
                said.refused.insert(peer);
            }
        }
    }
}

/// What the speaker says of a path that import policy turned down.
const REFUSED: &str = twill_bgp::rib::Step::Filtered.text();

fn established(peers: &[PeerStatus]) -> String {
    let up = peers.iter().filter(|p| p.state == PeerState::Established).count();
    format!("{up} of {} peers established", peers.len())
}

impl Said {
    /// Peers whose OPEN cannot be accepted, with the reason, if it is another than was said.
    fn news(&mut self, peers: &[PeerStatus]) -> Vec<(IpAddr, String)> {
        self.errors
            .retain(|address, _| peers.iter().any(|p| p.address == *address));
        self.refused
            .retain(|address| peers.iter().any(|p| p.address == *address));
        self.looked
            .retain(|address, _| peers.iter().any(|p| p.address == *address));
        let mut news = Vec::new();
        for peer in peers {
            if peer.state == PeerState::Established {
                self.errors.remove(&peer.address);
                continue;
            }
            let error = peer.last_error_sent.iter().chain(&peer.last_error_received);
            let Some(error) = error.into_iter().find(|e| is_of_open(e)) else {
                continue;
            };
            let why = format!("{error}; AS {} is configured for it", peer.asn);
            if self.errors.get(&peer.address) != Some(&why) {
                self.errors.insert(peer.address, why.clone());
                news.push((peer.address, why));
            }
        }
        news
    }

    /// Peers of whose routes some take no part, and of which nothing was said.
    fn refusing(&mut self, peers: &[PeerStatus]) -> Vec<IpAddr> {
        let refuses = |p: &&PeerStatus| {
            [p.prefixes.ipv4, p.prefixes.ipv6]
                .iter()
                .any(|counts| counts.received > counts.accepted)
        };
        let mut refusing = Vec::new();
        for peer in peers.iter().filter(refuses) {
            let (v4, v6) = (peer.prefixes.ipv4, peer.prefixes.ipv6);
            let counts = [v4.received, v4.accepted, v6.received, v6.accepted];
            let looked = self.looked.insert(peer.address, counts) == Some(counts);
            if !looked && !self.refused.contains(&peer.address) {
                refusing.push(peer.address);
            }
        }
        refusing
    }
}

/// Errors that will not go away by themselves: something is configured otherwise on the two sides.
fn is_of_open(error: &str) -> bool {
    error.contains("bad peer AS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_configuration_must_mend_is_told() {
        assert!(is_of_open("OPEN message error: bad peer AS"));
        assert!(!is_of_open("connection refused"));
        assert!(REFUSED.contains("import policy"));
        assert_eq!(established(&[]), "0 of 0 peers established");
    }
}

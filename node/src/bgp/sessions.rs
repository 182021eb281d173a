//! What operators should hear of sessions without asking: how many are up, who is another AS than configured, and what
//! peers send that is refused. Each is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use twill_bgp::PeerStatus;
use twill_bgp::net::{Closed, Handle};
use twill_bgp::policy::SessionType;
use twill_bgp::view::{PeerState, RouteQuery, RouteTable};

use super::Intent;
use super::config::Derived;
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
    /// External peers that were named for routes inside our pools.
    intruders: BTreeSet<IpAddr>,
    /// Prefixes received when an external peer's routes were last looked through for those.
    watched: BTreeMap<IpAddr, [u64; 2]>,
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
        let derived = intent.borrow().derived.clone();
        if let Some(derived) = &derived
            && said.intruders(&speaker, &peers, derived).await.is_err()
        {
            return;
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
                    "a bgp peer sends prefixes that import policy refuses: martians, what a filter rejects, or what strict import leaves out"
                );
                said.refused.insert(peer);
            }
        }
    }
}

/// What the speaker says of a path that import policy turned down.
const REFUSED: &str = twill_bgp::rib::Step::Filtered.text();

/// Inside a pool, and originated by none of the fabric's AS numbers.
fn intrudes(prefix: IpNet, as_path: &str, derived: &Derived) -> bool {
    let origin = as_path
        .split_whitespace()
        .next_back()
        .and_then(|asn| asn.parse().ok());
    let ours = origin.is_some_and(|asn: u32| derived.asns.contains(&asn));
    !ours && derived.pools.iter().any(|pool| pool.contains(&prefix))
}

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
        let there = |address: &IpAddr| peers.iter().any(|p| p.address == *address);
        self.intruders.retain(there);
        self.watched.retain(|address, _| there(address));
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
            let why = format!("{error}; {} is configured for it", peer.config.asn);
            if self.errors.get(&peer.address) != Some(&why) {
                self.errors.insert(peer.address, why.clone());
                news.push((peer.address, why));
            }
        }
        news
    }

    /// Says once of each external peer that it announces something inside our pools that no node of ours originated. It is taken
    /// all the same, as calico-node takes it: who wants it otherwise says so by a BGPFilter or a BGPSessionPolicy.
    ///
    /// # Errors
    /// [`Closed`]: the speaker has ended.
    async fn intruders(
        &mut self,
        speaker: &Handle,
        peers: &[PeerStatus],
        derived: &Derived,
    ) -> Result<(), Closed> {
        let external = |p: &&PeerStatus| p.session == SessionType::Ebgp && p.state == PeerState::Established;
        for peer in peers.iter().filter(external) {
            let counts = [peer.prefixes.ipv4.accepted, peer.prefixes.ipv6.accepted];
            let looked = self.watched.insert(peer.address, counts) == Some(counts);
            if looked || counts == [0, 0] || self.intruders.contains(&peer.address) {
                continue;
            }
            let query = RouteQuery {
                table: RouteTable::Accepted,
                peer: Some(peer.address),
                prefix: None,
                limit: LOOKED_MAX,
            };
            let routes = speaker.routes(query).await?;
            if let Some(route) = routes.iter().find(|r| intrudes(r.prefix, &r.as_path, derived)) {
                tracing::warn!(
                    peer = %peer.address,
                    prefix = %route.prefix,
                    as_path = %route.as_path,
                    "an external bgp peer announces a prefix inside our pools that none of our nodes originated; it is used"
                );
                self.intruders.insert(peer.address);
            }
        }
        Ok(())
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
    fn a_stranger_inside_our_pools_is_told_from_a_node() {
        let derived = Derived {
            config: twill_bgp::Config::new(64512, std::net::Ipv4Addr::LOCALHOST),
            sources: BTreeMap::new(),
            gateways: BTreeMap::new(),
            warnings: Vec::new(),
            pools: vec!["10.244.0.0/16".parse().unwrap()],
            asns: BTreeSet::from([64512, 65002]),
        };
        let check = |prefix: &str, path, expected| {
            assert_eq!(
                intrudes(prefix.parse().unwrap(), path, &derived),
                expected,
                "{prefix} {path}"
            );
        };
        check("10.244.1.0/24", "65001 64999", true);
        check("10.244.1.0/24", "", true);
        check("10.244.1.0/24", "65001 65002", false);
        check("192.0.2.0/24", "65001 64999", false);
        check("10.0.0.0/8", "65001 64999", false);
    }

    #[test]
    fn only_what_a_configuration_must_mend_is_told() {
        assert!(is_of_open("OPEN message error: bad peer AS"));
        assert!(!is_of_open("connection refused"));
        assert!(REFUSED.contains("import policy"));
        assert_eq!(established(&[]), "0 of 0 peers established");
    }
}

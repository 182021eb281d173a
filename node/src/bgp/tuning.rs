//! What BGPSessionPolicies, a kind of Twill's own, say of sessions that Calico's kinds ask for: timers, bounds, BFD, what is
//! taken in.

use std::time::Duration;

use twill_bgp::PeerConfig;
use twill_bgp::bfd;
use twill_model::duration::GoDuration;
use twill_model::resources::bgpsessionpolicy::{BfdSpec, BgpSessionPolicySpec};
use twill_model::selector::Selector;

use super::config::{Local, PeerType, Source};

/// Prefixes of one family that a peer may send under strict import, where nobody says otherwise.
const STRICT_PREFIXES_MAX: u32 = 10_000;

/// The policies that are for this node, in order of name, and what is wrong with others.
pub(super) fn here<'a>(local: &Local<'a>, warnings: &mut Vec<String>) -> Vec<&'a BgpSessionPolicySpec> {
    let mut found = Vec::new();
    for (name, policy) in &local.fabric.bgp_session_policies {
        let spec = &policy.spec;
        if spec.node_selector.is_empty() {
            found.push(spec);
            continue;
        }
        match Selector::parse(&spec.node_selector) {
            Ok(selector) if selector.matches(&local.node.metadata.labels) => found.push(spec),
            Ok(_) => {}
            Err(error) => warnings.push(format!(
                "BGPSessionPolicy {name} is not used: nodeSelector: {error}"
            )),
        }
    }
    found
}

/// What holds for one session: of each field what the first policy says that says something.
#[derive(Debug)]
pub(super) struct Tuning<'a>(Vec<&'a BgpSessionPolicySpec>);

impl<'a> Tuning<'a> {
    pub(super) fn of(all: &[&'a BgpSessionPolicySpec], source: &Source) -> Self {
        let meant = |spec: &BgpSessionPolicySpec| match source.kind {
            _ if spec.bgp_peers.is_empty() && !spec.mesh => true,
            PeerType::Mesh => spec.mesh,
            PeerType::Global | PeerType::Node => spec.bgp_peers.contains(&source.name),
        };
        Self(all.iter().filter(|spec| meant(spec)).copied().collect())
    }

    fn first<T>(&self, of: impl Fn(&BgpSessionPolicySpec) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|spec| of(spec))
    }

    /// Only pools and service ranges are taken in.
    pub(super) fn is_strict(&self) -> bool {
        self.first(|s| s.strict_import) == Some(true)
    }

    /// Sets what is said; the rest stays.
    pub(super) fn apply(&self, peer: &mut PeerConfig) {
        let time = |of: fn(&BgpSessionPolicySpec) -> Option<GoDuration>| self.first(of).map(|t| t.to_std());
        let strict = self.is_strict().then_some(STRICT_PREFIXES_MAX);
        let most = self.first(|s| s.max_prefixes).and_then(|n| u32::try_from(n).ok());
        peer.prefixes_max = most.or(strict).or(peer.prefixes_max);
        let percent = self.first(|s| s.max_prefixes_warn_percent);
        if let Some(percent) = percent.and_then(|n| u8::try_from(n).ok()) {
            peer.prefixes_warn_percent = percent;
        }
        peer.prefixes_restart = time(|s| s.max_prefixes_restart).or(peer.prefixes_restart);
        let timers = &mut peer.timers;
        let hold = time(|s| s.hold_time).and_then(|t| u16::try_from(t.as_secs()).ok());
        timers.hold_secs = hold.unwrap_or(timers.hold_secs);
        // Calico's own field says it of one peer, ours of many.
        timers.keepalive = timers.keepalive.or(time(|s| s.keepalive_time));
        timers.connect_retry = time(|s| s.connect_retry_time).unwrap_or(timers.connect_retry);
        timers.send_hold = time(|s| s.send_hold_time).or(timers.send_hold);
        let restart = &mut peer.graceful_restart;
        restart.enabled = self.first(|s| s.graceful_restart).unwrap_or(restart.enabled);
        let long_lived = time(|s| s.long_lived_time).and_then(|t| u32::try_from(t.as_secs()).ok());
        restart.long_lived_secs = long_lived.or(restart.long_lived_secs);
        peer.idle_hold = self.first(|s| s.damping).unwrap_or(peer.idle_hold);
        peer.bfd = self.first(|s| s.bfd.as_ref().map(params)).or(peer.bfd);
    }
}

fn params(spec: &BfdSpec) -> bfd::Params {
    let default = bfd::Params::default();
    let time = |t: Option<GoDuration>, or: Duration| t.map_or(or, |t| t.to_std());
    bfd::Params {
        min_tx: time(spec.min_tx, default.min_tx),
        min_rx: time(spec.min_rx, default.min_rx),
        multiplier: spec
            .multiplier
            .and_then(|n| u8::try_from(n).ok())
            .unwrap_or(default.multiplier),
        multihop: spec.multihop,
    }
}

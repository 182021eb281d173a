//! One session that resources ask for, and what a BGPPeer says of it beyond who the peers are.

use std::net::IpAddr;
use std::time::Duration;

use twill_bgp::config::{NextHopMode as SpeakerNextHop, Secret};
use twill_model::resources::BgpPeer;
use twill_model::resources::bgppeer::{BgpPassword, NextHopMode, SourceAddress};

use super::config::{Local, Source};
use super::secrets::{Passwords, SecretRef};

/// RFC 4724: the restart time has twelve bits.
const RESTART_SECS_MAX: u64 = 4095;
/// What the kernel takes as a TCP MD5 key (RFC 2385).
const PASSWORD_BYTES_MAX: usize = 80;

/// One session that resources ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) asn: u32,
    /// Our AS number in this session, if it is another one.
    pub(super) local_asn: Option<u32>,
    pub(super) passive: bool,
    pub(super) source: Source,
    pub(super) from_node_address: bool,
    pub(super) next_hop: SpeakerNextHop,
    pub(super) own_as_allowed: u8,
    pub(super) ttl_security_hops: Option<u8>,
    pub(super) restart_secs: Option<u16>,
    pub(super) keepalive: Option<Duration>,
    pub(super) route_reflector_client: bool,
    pub(super) password: Option<Secret>,
    /// Names of BGPFilters, in order.
    pub(super) filters: Vec<String>,
    /// The gateway to the peer.
    pub(super) reachable_by: Option<IpAddr>,
}

impl Session {
    pub(super) fn plain(address: IpAddr, port: u16, asn: u32, source: Source) -> Self {
        Self {
            address,
            port,
            asn,
            local_asn: None,
            passive: false,
            source,
            from_node_address: true,
            next_hop: SpeakerNextHop::Auto,
            own_as_allowed: 0,
            ttl_security_hops: None,
            restart_secs: None,
            keepalive: None,
            route_reflector_client: false,
            password: None,
            filters: Vec::new(),
            reachable_by: None,
        }
    }

    /// Our AS number in this session.
    pub(super) fn own_asn(&self, local: &Local<'_>) -> u32 {
        self.local_asn.unwrap_or(local.asn)
    }

    /// Takes over what the BGPPeer says of all its sessions.
    ///
    /// # Errors
    /// Why there is no session as asked for: better none than an open one.
    pub(super) fn apply(&mut self, local: &Local<'_>, peer: &BgpPeer) -> Result<(), String> {
        let spec = &peer.spec;
        self.from_node_address &= spec.source_address != Some(SourceAddress::None);
        self.local_asn = spec
            .local_as_number
            .map(|asn| asn.0)
            .filter(|asn| *asn != 0 && *asn != local.asn);
        self.next_hop = self.next_hop(local, peer);
        self.own_as_allowed = spec
            .num_allowed_local_as_numbers
            .map_or(0, |n| u8::try_from(n).unwrap_or(if n < 0 { 0 } else { u8::MAX }));
        self.ttl_security_hops = spec.ttl_security.filter(|hops| *hops > 0);
        self.restart_secs = spec.max_restart_time.map(|t| restart_secs(t.to_std()));
        self.keepalive = spec
            .keepalive_time
            .map(|t| t.to_std())
            .filter(|t| !t.is_zero())
            .map(|t| t.max(Duration::from_secs(1)));
        self.filters.clone_from(&spec.filters);
        if let Some(missing) = spec
            .filters
            .iter()
            .find(|f| !local.fabric.bgp_filters.contains_key(*f))
        {
            tracing::debug!(
                filter = missing,
                "a BGPPeer names a BGPFilter that does not exist"
            );
        }
        self.password = password("password", spec.password.as_ref(), local.passwords)?;
        self.reachable_by = gateway(&spec.reachable_by, self.address)?;
        Ok(())
    }

    /// `keepOriginalNextHop`, the older field, means external peers only.
    fn next_hop(&self, local: &Local<'_>, peer: &BgpPeer) -> SpeakerNextHop {
        match &peer.spec.next_hop_mode {
            Some(NextHopMode::Self_) => SpeakerNextHop::SelfAddress,
            Some(NextHopMode::Keep) => SpeakerNextHop::Keep,
            Some(NextHopMode::Auto) => SpeakerNextHop::Auto,
            None if peer.spec.keep_original_next_hop && self.asn != self.own_asn(local) => {
                SpeakerNextHop::Keep
            }
            None => SpeakerNextHop::Auto,
        }
    }
}

/// The key that `field` names. `None` without one, and for one that may be absent and is.
///
/// # Errors
/// It cannot be read, or the kernel would not take it.
pub(super) fn password(
    field: &str,
    asked: Option<&BgpPassword>,
    passwords: &Passwords,
) -> Result<Option<Secret>, String> {
    let Some(selector) = asked.and_then(|p| p.secret_key_ref.as_ref()) else {
        return Ok(None);
    };
    let place = SecretRef::of(selector);
    match passwords.get(&place) {
        Some(Ok(secret)) if (1..=PASSWORD_BYTES_MAX).contains(&secret.0.len()) => Ok(Some(secret.clone())),
        Some(Ok(_)) => Err(format!(
            "{field}: {place} has not 1 to {PASSWORD_BYTES_MAX} bytes, which a TCP MD5 key must have"
        )),
        Some(Err(_)) | None if selector.optional == Some(true) => Ok(None),
        Some(Err(reason)) => Err(format!("{field}: {reason}")),
        None => Err(format!("{field}: {place} has not been read")),
    }
}

fn gateway(text: &str, peer: IpAddr) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let gateway: IpAddr = text
        .parse()
        .map_err(|_| format!("reachableBy {text:?} is no address"))?;
    if gateway.is_ipv4() != peer.is_ipv4() {
        return Err(format!(
            "reachableBy {gateway} is not of the IP version of {peer}"
        ));
    }
    // A peer that is its own gateway is on the link.
    Ok(Some(gateway).filter(|g| *g != peer))
}

/// Whole seconds, rounded as confd rounds them, within the twelve bits there are.
pub(super) fn restart_secs(time: Duration) -> u16 {
    let rounded = (time + Duration::from_millis(500)).as_secs();
    u16::try_from(rounded.min(RESTART_SECS_MAX)).unwrap_or(u16::MAX)
}

//! The OPEN that we send, and what ours and the peer's agree on.

use crate::config::PeerConfig;
use crate::family::{Families, PerFamily};
use crate::policy::SessionType;
use crate::wire::nlri::PathIds;
use crate::wire::{Capabilities, HoldTime, Open, OpenError, RestartCapability, UpdateContext};
use std::net::{IpAddr, Ipv4Addr};

/// What all peers' OPENs have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Our AS number.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The Restart State bit.
    pub restarting: bool,
    /// The Forwarding State bits of a first session.
    pub forwarding: Families,
}

/// What an established session agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Counts the peer's sessions; messages between tasks carry it, so that a late one is known.
    pub id: u32,
    /// Internal or external.
    pub kind: SessionType,
    /// The peer's AS number.
    pub peer_asn: u32,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Our end of the connection.
    pub local_address: IpAddr,
    /// The smaller of the two Hold Times; 0 is none.
    pub hold_secs: u16,
    /// Families both offered.
    pub families: Families,
    /// Both know four-octet AS numbers.
    pub four_octet_as: bool,
    /// The peer takes route refresh.
    pub route_refresh: bool,
    /// Both know enhanced route refresh.
    pub enhanced_refresh: bool,
    /// The peer's graceful-restart capability; `None` too if we did not offer it.
    pub restart: Option<RestartCapability>,
    /// Both set the N bit.
    pub notification_restart: bool,
    /// Codes of the peer's capabilities.
    pub capabilities: Vec<u8>,
}

/// Our OPEN for this peer.
pub(super) fn offer(own: &Own, config: &PeerConfig, established_before: bool, hold_time: HoldTime) -> Open {
    let restart = config.graceful_restart;
    let forwarding = |f| own.forwarding.has(f) || established_before;
    let restart = restart.enabled.then(|| RestartCapability {
        restarting: own.restarting,
        notification: restart.notification,
        restart_secs: restart.restart_secs,
        families: PerFamily::from_fn(|f| config.families.has(f).then(|| forwarding(f))),
    });
    let capabilities = Capabilities {
        families: Some(config.families),
        route_refresh: true,
        enhanced_refresh: true,
        four_octet_as: Some(own.asn),
        restart,
        codes: Vec::new(),
    };
    Open {
        asn: own.asn,
        hold_time,
        router_id: own.router_id,
        capabilities,
    }
}

/// What their OPEN and ours agree on.
///
/// # Errors
/// [`OpenError::BadPeerAs`] for another AS than configured, [`OpenError::BadIdentifier`] for our own identifier within our AS.
pub(super) fn negotiate(
    own: &Own,
    config: &PeerConfig,
    open: &Open,
    local_address: IpAddr,
    id: u32,
) -> Result<Session, OpenError> {
    if open.asn != config.asn {
        return Err(OpenError::BadPeerAs(open.asn));
    }
    let kind = if config.asn == own.asn {
        SessionType::Ibgp
    } else {
        SessionType::Ebgp
    };
    if kind == SessionType::Ibgp && open.router_id == own.router_id {
        return Err(OpenError::BadIdentifier(open.router_id));
    }
    let theirs = &open.capabilities;
    let restart = theirs.restart.filter(|_| config.graceful_restart.enabled);
    Ok(Session {
        id,
        kind,
        peer_asn: open.asn,
        router_id: open.router_id,
        local_address,
        hold_secs: config.timers.hold_secs.min(open.hold_time.secs()),
        families: config.families.and(theirs.families()),
        four_octet_as: theirs.four_octet_as.is_some(),
        route_refresh: theirs.route_refresh,
        enhanced_refresh: theirs.enhanced_refresh,
        notification_restart: config.graceful_restart.notification && restart.is_some_and(|r| r.notification),
        restart,
        capabilities: theirs.codes.clone(),
    })
}

impl Session {
    /// What decoding this session's UPDATEs needs.
    pub(super) fn update_context(&self, config: &PeerConfig) -> UpdateContext {
        let mut own_addresses = vec![self.local_address];
        own_addresses.extend(config.next_hop_v4.map(IpAddr::V4));
        own_addresses.extend(config.next_hop_v6.map(IpAddr::V6));
        UpdateContext {
            session: self.kind,
            peer_asn: self.peer_asn,
            four_octet_as: self.four_octet_as,
            families: self.families,
            path_ids: PerFamily {
                ipv4: PathIds::Absent,
                ipv6: PathIds::Absent,
            },
            enforce_first_as: config.enforce_first_as,
            own_addresses,
        }
    }
}

//! The OPEN that we send, and what ours and the peer's agree on.

use crate::config::PeerConfig;
use crate::family::{Families, Family, PerFamily};
use crate::link;
use crate::monitor::Opens;
use crate::policy::SessionType;
use crate::wire::nlri::PathIds;
use crate::wire::{
    AddPathMode, Capabilities, HoldTime, LongLived, LongLivedCapability, MESSAGE_MAX, MESSAGE_MAX_EXTENDED,
    Open, OpenError, RestartCapability, UpdateContext,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

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
    /// Our end of the connection; a link-local one with the index of its interface ([`crate::link`]).
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
    /// The longest message either side may send (RFC 8654).
    pub message_max: usize,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Families in which the peer sends path identifiers (RFC 7911).
    pub add_path_in: Families,
    /// Families in which we do.
    pub add_path_out: Families,
    /// The peer's long-lived graceful-restart capability; `None` too if we did not offer ours, or graceful restart.
    pub long_lived: Option<LongLivedCapability>,
    /// Codes of the peer's capabilities.
    pub capabilities: Vec<u8>,
    /// The peer's capabilities in words.
    pub described: Vec<String>,
    /// Both OPENs, for those who watch.
    pub opens: Arc<Opens>,
}

/// Our OPEN for this peer.
pub(super) fn offer(own: &Own, config: &PeerConfig, established_before: bool, hold_time: HoldTime) -> Open {
    let forwarding = |f| own.forwarding.has(f) || established_before;
    let restart = config.graceful_restart;
    let long_lived = restart.long_lived_secs.filter(|_| restart.enabled);
    let long_lived = long_lived.map(|stale_secs| LongLivedCapability {
        families: PerFamily::from_fn(|f| {
            (stale_secs > 0 && config.families.has(f)).then(|| LongLived {
                preserved: forwarding(f),
                stale_secs,
            })
        }),
    });
    let restart = restart.enabled.then(|| RestartCapability {
        restarting: own.restarting,
        notification: restart.notification,
        restart_secs: restart.restart_secs,
        families: PerFamily::from_fn(|f| config.families.has(f).then(|| forwarding(f))),
    });
    let asn = config.local_asn(own.asn);
    let capabilities = Capabilities {
        families: Some(config.families),
        route_refresh: true,
        enhanced_refresh: true,
        four_octet_as: Some(asn),
        restart,
        extended_next_hop: offers_extended_next_hop(config),
        extended_message: config.extended_messages,
        add_path: PerFamily::from_fn(|f| AddPathMode {
            receive: config.families.has(f) && config.add_path.receive.has(f),
            send: config.families.has(f) && config.add_path.send.has(f),
        }),
        long_lived,
        codes: Vec::new(),
    };
    Open {
        asn,
        hold_time,
        router_id: own.router_id,
        capabilities,
    }
}

/// IPv6 next hops for IPv4 make sense only where IPv6 carries the session.
fn offers_extended_next_hop(config: &PeerConfig) -> bool {
    config.extended_next_hop && config.families.has(Family::Ipv4Unicast) && config.address.is_ipv6()
}

/// What their OPEN and ours agree on.
///
/// # Errors
/// [`OpenError::BadPeerAs`] for an AS that the peer may not have, [`OpenError::BadIdentifier`] for our own identifier within our AS.
pub(super) fn negotiate(
    own: &Own,
    config: &PeerConfig,
    open: &Open,
    local_address: IpAddr,
    id: u32,
) -> Result<Session, OpenError> {
    if !config.admits(open.asn, own.asn) {
        return Err(OpenError::BadPeerAs(open.asn));
    }
    let kind = config.session_type(own.asn);
    if kind == SessionType::Ibgp && open.router_id == own.router_id {
        return Err(OpenError::BadIdentifier(open.router_id));
    }
    let theirs = &open.capabilities;
    let restart = theirs.restart.filter(|_| config.graceful_restart.enabled);
    let families = config.families.and(theirs.families());
    let long_lived = theirs.long_lived.filter(|_| {
        // The capability counts beside that of graceful restart only (RFC 9494 section 3).
        restart.is_some() && config.graceful_restart.long_lived_secs.is_some()
    });
    Ok(Session {
        id,
        kind,
        peer_asn: open.asn,
        router_id: open.router_id,
        local_address,
        hold_secs: config.timers.hold_secs.min(open.hold_time.secs()),
        families,
        message_max: if config.extended_messages && theirs.extended_message {
            MESSAGE_MAX_EXTENDED
        } else {
            MESSAGE_MAX
        },
        extended_next_hop: offers_extended_next_hop(config) && theirs.extended_next_hop,
        add_path_in: PerFamily::from_fn(|f| {
            families.has(f) && config.add_path.receive.has(f) && theirs.add_path.at(f).send
        }),
        add_path_out: PerFamily::from_fn(|f| {
            families.has(f) && config.add_path.send.has(f) && theirs.add_path.at(f).receive
        }),
        long_lived,
        four_octet_as: theirs.four_octet_as.is_some(),
        route_refresh: theirs.route_refresh,
        enhanced_refresh: theirs.enhanced_refresh,
        notification_restart: config.graceful_restart.notification && restart.is_some_and(|r| r.notification),
        restart,
        capabilities: theirs.codes.clone(),
        described: theirs.describe(),
        opens: Arc::default(),
    })
}

impl Session {
    /// What decoding this session's UPDATEs needs.
    pub(super) fn update_context(&self, config: &PeerConfig) -> UpdateContext {
        // A link-local one says with its link on which link next hops of that kind are.
        let mut own_addresses = vec![self.local_address, link::plain(self.local_address)];
        own_addresses.extend(config.next_hop_v4.map(IpAddr::V4));
        own_addresses.extend(config.next_hop_v6.map(IpAddr::V6));
        UpdateContext {
            session: self.kind,
            peer_asn: self.peer_asn,
            four_octet_as: self.four_octet_as,
            families: self.families,
            path_ids: PerFamily::from_fn(|f| {
                if self.add_path_in.has(f) {
                    PathIds::Present
                } else {
                    PathIds::Absent
                }
            }),
            extended_next_hop: self.extended_next_hop,
            enforce_first_as: config.enforce_first_as,
            own_addresses,
        }
    }
}

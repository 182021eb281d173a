//! Dynamic neighbours: a range of addresses from which peers may connect that no entry of their own names. Each becomes a
//! peer when it connects and is forgotten when its last connection is gone.

use super::{PeerAs, PeerConfig};
use ipnet::IpNet;
use std::net::IpAddr;

/// Dynamic neighbours of one range where the configuration names no bound: the fabric's scale is a thousand nodes.
pub const RANGE_PEERS_MAX: u32 = 1024;

/// A range of addresses with what its peers have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeConfig {
    /// From where they may connect.
    pub net: IpNet,
    /// So many of them at once; a connection beyond is closed before a byte is read.
    pub peers_max: u32,
    /// What each is, but for its address: that of the template is the range's own.
    pub template: PeerConfig,
}

impl RangeConfig {
    /// A range whose peers are this template. They never are dialled: nobody knows who is there.
    #[must_use]
    pub fn new(net: IpNet, asn: impl Into<PeerAs>) -> Self {
        Self {
            net: net.trunc(),
            peers_max: RANGE_PEERS_MAX,
            template: PeerConfig {
                passive: true,
                ..PeerConfig::new(net.trunc().addr(), asn)
            },
        }
    }

    /// The peer at this address.
    #[must_use]
    pub fn peer(&self, address: IpAddr) -> PeerConfig {
        PeerConfig {
            address,
            passive: true,
            ..self.template.clone()
        }
    }
}

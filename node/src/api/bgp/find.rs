//! Which peer a person means: by address or interface, by the BGPPeer or Node that it comes from, or by its description.

use std::net::IpAddr;

use tonic::Status;
use twill_bgp::PeerStatus;

use crate::bgp::config::Derived;

/// The peer that is meant.
///
/// # Errors
/// `NOT_FOUND`, and `INVALID_ARGUMENT` where several are meant.
pub(super) fn peer<'a>(
    peers: &'a [PeerStatus],
    derived: &Derived,
    text: &str,
) -> Result<&'a PeerStatus, Status> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let found = peers.iter().find(|p| p.address == address);
        return found.ok_or_else(|| Status::not_found(format!("no BGP peer has the address {address}")));
    }
    let named = |p: &&PeerStatus| {
        let source = derived.sources.get(&p.address);
        source.is_some_and(|s| s.name == text) || p.description == text || p.config.name() == text
    };
    let found: Vec<&PeerStatus> = peers.iter().filter(named).collect();
    match found.as_slice() {
        [] => Err(Status::not_found(format!(
            "no BGP peer has the name or description {text:?}"
        ))),
        [one] => Ok(one),
        several => {
            let addresses: Vec<String> = several.iter().map(|p| p.config.name()).collect();
            Err(Status::invalid_argument(format!(
                "{text:?} is several BGP peers, say which address: {}",
                addresses.join(", ")
            )))
        }
    }
}

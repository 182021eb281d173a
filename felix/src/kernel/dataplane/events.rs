//! Notifications of rtnetlink, sorted into what has to be looked at again.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use crate::kernel::links::{self, LinkState};
use crate::kernel::netlink::{NetlinkError, Protocol, Socket};
use crate::kernel::wire::{self, Message};
use crate::kernel::{foreign, routes, rtnl as r};
use crate::plan::IfName;

const NETCONFA_IFINDEX: u16 = 1;
/// The kernel's own routes: those of addresses.
const RTPROT_KERNEL: u8 = 2;
/// Changes of links that are taken in one by one; after more, all are read again.
const CHANGED_MAX: usize = 64;
/// Bytes of `struct netconfmsg`, padded.
const NETCONFMSG_LEN: usize = 4;

/// What others changed since the last look.
#[derive(Debug, Default)]
pub(super) struct Dirt {
    /// The table was changed by another.
    pub(super) table: bool,
    /// All links must be read again.
    pub(super) links: bool,
    /// What became of single links, in order: gone, or as they are now.
    pub(super) changed: Vec<(u32, Option<(IfName, LinkState)>)>,
    /// Links whose settings, neighbours or addresses changed.
    pub(super) settings: BTreeSet<u32>,
    /// Routes of ours were changed by another, or addresses went that routes may lean on.
    pub(super) routes: bool,
    /// Protocols of others whose routes changed: next hops may be reached another way.
    pub(super) underlay: BTreeSet<u8>,
    /// Something came that may let a failed route succeed.
    pub(super) hope: bool,
    /// Notifications were lost: everything may have changed.
    pub(super) lost: bool,
}

impl Dirt {
    /// Whether others changed what is ours.
    pub(super) fn repairs(&self) -> bool {
        self.table || self.routes || self.lost || !self.settings.is_empty()
    }

    /// Whether anything has to be looked at.
    pub(super) fn any(&self) -> bool {
        self.repairs() || self.links || !self.changed.is_empty() || self.hope || !self.underlay.is_empty()
    }
}

/// The socket that hears of links, addresses, routes, neighbours and settings.
#[derive(Debug)]
pub(super) struct Events {
    socket: Socket,
}

impl Events {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Route)?;
        for group in [
            r::RTNLGRP_LINK,
            r::RTNLGRP_NEIGH,
            r::RTNLGRP_IPV4_IFADDR,
            r::RTNLGRP_IPV6_IFADDR,
            r::RTNLGRP_IPV4_ROUTE,
            r::RTNLGRP_IPV6_ROUTE,
            r::RTNLGRP_IPV4_NETCONF,
            r::RTNLGRP_IPV6_NETCONF,
        ] {
            socket.join(group).map_err(NetlinkError::Socket)?;
        }
        Ok(Self { socket })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes all that waits. `ours` are the ports of our own writers.
    pub(super) fn drain(&mut self, ours: [u32; 2], dirt: &mut Dirt) -> Result<(), NetlinkError> {
        loop {
            match self.socket.notifications(|m| sort(&m, ours, dirt)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) if e.errno() == Some(libc::ENOBUFS) => dirt.lost = true,
                Err(e) => return Err(e),
            }
        }
    }
}

fn sort(m: &Message<'_>, ours: [u32; 2], dirt: &mut Dirt) {
    match m.kind {
        r::RTM_NEWLINK | r::RTM_DELLINK => link(m, dirt),
        _ if ours.contains(&m.port) => {}
        r::RTM_NEWROUTE | r::RTM_DELROUTE => {
            dirt.routes |= routes::concerns(m);
            dirt.underlay.extend(foreign::concerns(m));
            // A foreign route that goes may have stood in our way; one that comes may resolve a gateway.
            dirt.hope = true;
        }
        r::RTM_NEWADDR | r::RTM_DELADDR => {
            dirt.routes |= m.kind == r::RTM_DELADDR;
            dirt.hope = true;
            // Routes may lean on it, and go without a word when it does.
            if m.payload.get(3) != Some(&r::RT_SCOPE_LINK) {
                dirt.underlay.insert(RTPROT_KERNEL);
            }
            dirt.settings.extend(wire::u32_at(m.payload, 4));
        }
        // State REACHABLE, STALE and so on come and go by themselves.
        r::RTM_DELNEIGH | r::RTM_NEWNEIGH if permanent(m) => dirt.settings.extend(wire::u32_at(m.payload, 4)),
        r::RTM_NEWNETCONF => {
            let attrs = m.payload.get(NETCONFMSG_LEN..).unwrap_or_default();
            dirt.settings
                .extend(wire::find(attrs, NETCONFA_IFINDEX).and_then(|p| wire::u32_at(p, 0)));
        }
        _ => {}
    }
}

/// Notes what became of a link. What a bridge says of its port, and what cannot be read, asks for all links.
fn link(m: &Message<'_>, dirt: &mut Dirt) {
    let unspecified = m.payload.first() == Some(&0);
    let index = wire::u32_at(m.payload, 4).filter(|_| unspecified);
    let now = links::parse(m.payload);
    match (index, m.kind, now) {
        _ if dirt.links || dirt.changed.len() >= CHANGED_MAX => {
            dirt.links = true;
            dirt.changed.clear();
        }
        (Some(index), r::RTM_DELLINK, _) => dirt.changed.push((index, None)),
        (Some(index), r::RTM_NEWLINK, Some(now)) => dirt.changed.push((index, Some(now))),
        _ => {
            dirt.links = true;
            dirt.changed.clear();
        }
    }
}

/// A neighbour that is permanent, or that is being deleted (its state then is what became of it).
fn permanent(m: &Message<'_>) -> bool {
    m.kind == r::RTM_DELNEIGH || wire::u16_at(m.payload, 8).is_some_and(|state| state & r::NUD_PERMANENT != 0)
}

//! Host side of workload links: settings, permanent neighbours, the IPv6 gateway's address, up.
//!
//! The device itself is made by `pod`. What is set here is set again whenever the device appears anew and whenever
//! somebody changed it. Links that are not desired are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use super::netlink::{NetlinkError, Protocol, Socket};
use super::wire::{self, NLM_F_CREATE, NLM_F_REPLACE};
use super::{rtnl as r, sysctl};
use crate::plan::links::{Link, NodeSettings, RpFilter};
use crate::plan::name::{IfName, Mac};

/// The IPv6 gateway of every workload: an address of the host side of its link.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Its prefix length.
const GATEWAY_V6_LEN: u8 = 64;

/// So many links are asked for one by one; for more, everything is read once.
const LINKS_ASKED_ALONE_MAX: usize = 8;

/// The links of a namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable {
    by_name: BTreeMap<IfName, LinkState>,
    by_index: BTreeMap<u32, IfName>,
}

/// One link as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Interface index.
    pub index: u32,
    /// Set up by the administrator (`IFF_UP`), whether or not its other side is.
    pub up: bool,
    /// Packets pass: both sides are up and the kernel has activated the queue, which it does some time after setting up.
    pub running: bool,
    /// Link-layer address, when it has one of six bytes.
    pub mac: Option<Mac>,
    /// Largest packet that it takes, in bytes.
    pub mtu: u32,
    /// Index of the other side of a veth, in its own namespace.
    pub peer: Option<u32>,
}

impl LinkTable {
    /// Index of a link.
    #[must_use]
    pub fn index(&self, name: &IfName) -> Option<u32> {
        self.by_name.get(name).map(|l| l.index)
    }

    /// Name of the link with an index.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<IfName> {
        self.by_index.get(&index).copied()
    }

    /// A link by name.
    #[must_use]
    pub fn link(&self, name: &IfName) -> Option<&LinkState> {
        self.by_name.get(name)
    }

    /// All links in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&IfName, &LinkState)> {
        self.by_name.iter()
    }

    /// Takes in what a notification said of the link with this index: its name and state now, or `None` when it is gone.
    pub(super) fn put(&mut self, index: u32, link: Option<(IfName, LinkState)>) {
        if let Some(name) = self.by_index.remove(&index)
            && self.by_name.get(&name).is_some_and(|l| l.index == index)
        {
            self.by_name.remove(&name);
        }
        if let Some((name, link)) = link {
            if let Some(other) = self.by_name.insert(name, link) {
                self.by_index.remove(&other.index);
            }
            self.by_index.insert(index, name);
        }
    }

    /// Whether a later table misses a link, has another in its place, or has one down that was up here.
    #[must_use]
    pub fn lost_to(&self, later: &Self) -> bool {
        self.by_name.iter().any(|(name, was)| {
            later
                .link(name)
                .is_none_or(|is| is.index != was.index || (was.up && !is.up))
        })
    }

    /// Reads the links of the namespace in which the socket was opened.
    ///
    /// # Errors
    /// When the kernel does not let them be read.
    pub fn read(socket: &mut Socket) -> Result<Self, NetlinkError> {
        let lean = |w: &mut wire::Wire| w.attr_u32(r::IFLA_EXT_MASK, r::RTEXT_FILTER_SKIP_STATS);
        socket.dump(
            r::RTM_GETLINK,
            &r::ifinfomsg(0, 0, 0),
            lean,
            |out: &mut Self, m| {
                if let Some((name, link)) = parse(m.payload) {
                    out.by_index.insert(link.index, name);
                    out.by_name.insert(name, link);
                }
            },
        )
    }
}

impl LinkState {
    /// Reads one link of the namespace in which the socket was opened; `None` if it is not there. Unlike [`LinkTable::read`]
    /// it costs the same on a node with many pods.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub fn read(socket: &mut Socket, name: IfName) -> Result<Option<Self>, NetlinkError> {
        let found = socket.query(
            r::RTM_GETLINK,
            &r::ifinfomsg(0, 0, 0),
            |w| {
                w.attr_u32(r::IFLA_EXT_MASK, r::RTEXT_FILTER_SKIP_STATS);
                w.attr_str(r::IFLA_IFNAME, name.as_str());
            },
            |out: &mut Option<Self>, m| *out = parse(m.payload).map(|(_, link)| link),
        );
        match found {
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
            other => other,
        }
    }
}

/// A link as a message of rtnetlink tells it.
pub(super) fn parse(payload: &[u8]) -> Option<(IfName, LinkState)> {
    let attrs = payload.get(r::IFINFOMSG_LEN..)?;
    let name = IfName::new(&wire::text(wire::find(attrs, r::IFLA_IFNAME)?)).ok()?;
    let mac = wire::find(attrs, r::IFLA_ADDRESS)
        .and_then(|a| a.try_into().ok())
        .map(Mac);
    let peer = wire::find(attrs, r::IFLA_LINK).and_then(|p| wire::u32_at(p, 0));
    let flags = wire::u32_at(payload, 8)?;
    let (up, running) = (flags & r::IFF_UP != 0, flags & r::IFF_RUNNING != 0);
    Some((
        name,
        LinkState {
            index: wire::u32_at(payload, 4)?,
            up,
            running,
            mac,
            mtu: wire::find(attrs, r::IFLA_MTU)
                .and_then(|m| wire::u32_at(m, 0))
                .unwrap_or_default(),
            peer,
        },
    ))
}

/// Outcome of an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinksApplied {
    /// Settings, neighbours and addresses that had to be written.
    pub written: usize,
    /// Links that were looked at.
    pub touched: BTreeSet<IfName>,
    /// Links where something failed, with the reason. Worth another try later.
    pub failed: BTreeMap<IfName, String>,
}

/// The one writer of workload links.
#[derive(Debug)]
pub struct LinkWriter {
    socket: Socket,
    /// What was applied, to which incarnation of the link.
    applied: BTreeMap<IfName, (u32, Link)>,
}

/// Permanent neighbours by link and address.
type Neighbours = BTreeMap<(u32, IpAddr), Mac>;
/// Addresses by link.
type Addresses = BTreeSet<(u32, IpAddr)>;

impl LinkWriter {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(Protocol::Route)?,
            applied: BTreeMap::new(),
        })
    }

    /// By which notifications name this writer's changes.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Forgets what is remembered: the next apply looks at every link again.
    pub fn forget(&mut self) {
        self.applied.clear();
    }

    /// Forgets what is remembered of one link.
    pub fn forget_one(&mut self, name: &IfName) {
        self.applied.remove(name);
    }

    /// The links as they are.
    ///
    /// # Errors
    /// When the kernel does not let them be read.
    pub fn table(&mut self) -> Result<LinkTable, NetlinkError> {
        LinkTable::read(&mut self.socket)
    }

    /// One link as it is; `None` if it is not there.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub(super) fn link(&mut self, name: IfName) -> Result<Option<LinkState>, NetlinkError> {
        LinkState::read(&mut self.socket, name)
    }

    /// Makes those links as desired that are there. Policy must be in the kernel before: at the end of this they are up.
    ///
    /// # Errors
    /// When the socket fails. What goes wrong with one link is told in [`LinksApplied::failed`].
    pub fn apply(
        &mut self,
        desired: &BTreeMap<IfName, Link>,
        table: &LinkTable,
    ) -> Result<LinksApplied, NetlinkError> {
        let mut out = LinksApplied::default();
        let current = |name: &IfName, link: &Link, had: &BTreeMap<IfName, (u32, Link)>| {
            let now = table.link(name);
            now.is_some_and(|l| {
                l.up && had
                    .get(name)
                    .is_some_and(|(i, applied)| *i == l.index && applied == link)
            })
        };
        self.applied.retain(|name, _| desired.contains_key(name));
        let todo: Vec<_> = desired
            .iter()
            .filter(|(n, l)| !current(n, l, &self.applied))
            .collect();
        if todo.is_empty() {
            return Ok(out);
        }
        // One pod more is asked for alone; a node that starts asks once for all.
        let all = (todo.len() > LINKS_ASKED_ALONE_MAX)
            .then(|| Ok::<_, NetlinkError>((self.neighbours(None)?, self.addresses(None)?)))
            .transpose()?;
        for (name, link) in todo {
            let Some(state) = table.link(name) else { continue };
            let alone;
            let (neighbours, addresses) = match &all {
                Some(all) => all,
                None => {
                    alone = (
                        self.neighbours(Some(state.index))?,
                        self.addresses(Some(state.index))?,
                    );
                    &alone
                }
            };
            out.touched.insert(*name);
            match self.one(*name, state, link, neighbours, addresses) {
                Ok(written) => {
                    out.written += written;
                    self.applied.insert(*name, (state.index, link.clone()));
                }
                Err(reason) => {
                    self.applied.remove(name);
                    out.failed.insert(*name, reason);
                }
            }
        }
        Ok(out)
    }

    fn one(
        &mut self,
        name: IfName,
        state: &LinkState,
        link: &Link,
        neighbours: &Neighbours,
        addresses: &Addresses,
    ) -> Result<usize, String> {
        let mut written = settings(name, link).map_err(|e| e.to_string())?;
        if !state.up {
            written += 1;
            let up = r::ifinfomsg(state.index, r::IFF_UP, r::IFF_UP);
            self.socket
                .request(r::RTM_NEWLINK, 0, &up, |_| {})
                .map_err(|e| format!("cannot be set up: {e}"))?;
        }
        let gateway = IpAddr::from(GATEWAY_V6);
        if link.gateway_v6 && !addresses.contains(&(state.index, gateway)) {
            written += 1;
            let body = r::ifaddrmsg(gateway, GATEWAY_V6_LEN, r::RT_SCOPE_LINK, state.index);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            let added = self
                .socket
                .request(r::RTM_NEWADDR, flags, &body, |w| r::address_attrs(w, gateway));
            added.map_err(|e| format!("address {gateway}: {e}"))?;
        }
        for (ip, mac) in &link.neighbours {
            if neighbours.get(&(state.index, *ip)) != Some(mac) {
                written += 1;
                add_neighbour(&mut self.socket, state.index, *ip, *mac)
                    .map_err(|e| format!("neighbour {ip}: {e}"))?;
            }
        }
        let of_link =
            (state.index, IpAddr::from([0, 0, 0, 0]))..(state.index + 1, IpAddr::from([0, 0, 0, 0]));
        for ((_, ip), _) in neighbours
            .range(of_link)
            .filter(|((_, ip), _)| !link.neighbours.contains_key(ip))
        {
            written += 1;
            let body = r::ndmsg(r::family(*ip), state.index);
            let gone = self
                .socket
                .request(r::RTM_DELNEIGH, 0, &body, |w| w.attr(r::NDA_DST, &r::octets(*ip)));
            match gone {
                Err(e) if e.errno() != Some(libc::ENOENT) => return Err(format!("neighbour {ip}: {e}")),
                _ => {}
            }
        }
        Ok(written)
    }

    /// Of one link, or of all.
    fn neighbours(&mut self, index: Option<u32>) -> Result<Neighbours, NetlinkError> {
        self.socket.dump(
            r::RTM_GETNEIGH,
            &[0; r::NDMSG_LEN],
            |w| {
                if let Some(index) = index {
                    w.attr_u32(r::NDA_IFINDEX, index);
                }
            },
            |out: &mut Neighbours, m| {
                let permanent = wire::u16_at(m.payload, 8).is_some_and(|s| s & r::NUD_PERMANENT != 0);
                let attrs = m.payload.get(r::NDMSG_LEN..).unwrap_or_default();
                let ip = wire::find(attrs, r::NDA_DST).and_then(r::address);
                let mac = wire::find(attrs, r::NDA_LLADDR)
                    .and_then(|b| b.try_into().ok())
                    .map(Mac);
                if let (true, Some(index), Some(ip), Some(mac)) =
                    (permanent, wire::u32_at(m.payload, 4), ip, mac)
                {
                    out.insert((index, ip), mac);
                }
            },
        )
    }

    /// Of one link, or of all.
    fn addresses(&mut self, index: Option<u32>) -> Result<Addresses, NetlinkError> {
        let [a, b, c, d] = index.unwrap_or_default().to_ne_bytes();
        let body = [r::AF_INET6, 0, 0, 0, a, b, c, d];
        let all = self.socket.dump(
            r::RTM_GETADDR,
            &body,
            |_| {},
            |out: &mut Addresses, m| {
                let attrs = m.payload.get(r::IFADDRMSG_LEN..).unwrap_or_default();
                let ip = wire::find(attrs, r::IFA_ADDRESS).and_then(r::address);
                if let (Some(index), Some(ip)) = (wire::u32_at(m.payload, 4), ip) {
                    out.insert((index, ip));
                }
            },
        );
        match all {
            Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
                Ok(Addresses::new())
            }
            other => other,
        }
    }
}

/// Adds or corrects a permanent neighbour.
pub(super) fn add_neighbour(
    socket: &mut Socket,
    index: u32,
    ip: IpAddr,
    mac: Mac,
) -> Result<(), NetlinkError> {
    let body = r::ndmsg(r::family(ip), index);
    socket.request(r::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body, |w| {
        w.attr(r::NDA_DST, &r::octets(ip));
        w.attr(r::NDA_LLADDR, &mac.0);
    })
}

/// Settings of one link. `proxy_delay` goes before `proxy_arp`: the first request must not wait.
fn settings(name: IfName, link: &Link) -> io::Result<usize> {
    let mut written = 0;
    let (v4, v6) = (format!("ipv4/conf/{name}"), format!("ipv6/conf/{name}"));
    for (setting, value) in [
        (format!("ipv4/neigh/{name}/proxy_delay"), "0"),
        (format!("{v4}/route_localnet"), "0"),
        (format!("{v4}/forwarding"), "1"),
        (format!("{v4}/proxy_arp"), "1"),
    ] {
        written += usize::from(sysctl::set(&setting, value)?);
    }
    for (setting, value) in [("accept_ra", "0"), ("forwarding", "1")] {
        written += usize::from(sysctl::set_if_there(&format!("{v6}/{setting}"), value)?);
    }
    if let Some(rp_filter) = link.rp_filter {
        let value = match rp_filter {
            RpFilter::Off => "0",
            RpFilter::Strict => "1",
            RpFilter::Loose => "2",
        };
        written += usize::from(sysctl::set(&format!("{v4}/rp_filter"), value)?);
    }
    Ok(written)
}

/// Settings of the node as a whole. Only ever turned on.
///
/// # Errors
/// When a setting cannot be read or written.
pub fn node_settings(node: NodeSettings) -> io::Result<usize> {
    let mut written = 0;
    if node.forward_v4 {
        written += usize::from(sysctl::set("ipv4/ip_forward", "1")?);
    }
    if node.forward_v6 {
        written += usize::from(sysctl::set_if_there("ipv6/conf/all/forwarding", "1")?);
    }
    Ok(written)
}

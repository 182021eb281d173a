//! What becomes of a route's attributes on the way to a peer (RFC 4271 sections 5 and 9.1.3, RFC 4456 sections 8 and 10,
//! RFC 6793 section 4.2.2), the same for all peers of an export group.

use crate::config::{Config, LocalAs, NextHopMode, PeerConfig, RemovePrivate};
use crate::family::PerFamily;
use crate::fsm::Session;
use crate::link;
use crate::policy::{Changes, LOCAL_PREF_DEFAULT, LearnedFrom, NextHop, Policy, SessionType};
use crate::rib::PathSource;
use crate::wire::attr::{Attr, OPTIONAL, Scope, TRANSITIVE, code, flags_of};
use crate::wire::check::filtered_at_edge;
use crate::wire::community::GRACEFUL_SHUTDOWN;
use crate::wire::{AttrSet, as_path};
use ipnet::IpNet;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What makes peers equal: those with the same key are sent the same octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportKey {
    pub(super) asn: u32,
    pub(super) cluster_id: Ipv4Addr,
    pub(super) session: SessionType,
    pub(super) client: bool,
    pub(super) four_octet_as: bool,
    pub(super) next_hop: NextHopMode,
    pub(super) self_v4: Option<Ipv4Addr>,
    pub(super) self_v6: Option<Ipv6Addr>,
    /// The subnet shared with the peer.
    pub(super) shared: Option<IpNet>,
    /// The peer, where what is forwarded back to its link is not announced to it.
    pub(super) horizon: Option<IpAddr>,
    pub(super) policy: Arc<Policy>,
    /// How many paths a destination may have (RFC 7911); 0 without add-path.
    pub(super) add_path: PerFamily<u8>,
    /// The longest message that the peer takes.
    pub(super) message_max: usize,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub(super) extended_next_hop: bool,
    /// The peer knows routes that are long stale, and puts them last (RFC 9494).
    pub(super) long_lived: bool,
    /// We are being drained (RFC 8326).
    pub(super) graceful_shutdown: bool,
    pub(super) local_as: Option<LocalAs>,
    /// Replaced by ours in paths: the peer's AS number.
    pub(super) overridden: Option<u32>,
    /// Private AS numbers go, but not this one, the peer's.
    pub(super) private: Option<(RemovePrivate, u32)>,
}

/// Attributes ready for the wire, without NLRI: NEXT_HOP is among them for IPv4, MP_REACH is the packer's.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) attrs: Vec<u8>,
    pub(super) next_hop: IpAddr,
}

impl ExportKey {
    pub(super) fn new(own: &Config, cluster_id: Ipv4Addr, config: &PeerConfig, session: &Session) -> Self {
        let (self_v4, self_v6) = match session.local_address {
            IpAddr::V4(a) => (
                Some(a),
                Some(config.next_hop_v6.unwrap_or_else(|| a.to_ipv6_mapped())),
            ),
            // Over a link without addresses, IPv4 goes by our link-local one, if the peer can take that (RFC 8950).
            IpAddr::V6(a) if link::of(a.into()) != 0 => {
                let v4 = config.next_hop_v4.filter(|_| !session.extended_next_hop);
                (v4, Some(link::split(a).0))
            }
            IpAddr::V6(a) => (config.next_hop_v4, Some(a)),
        };
        let external = session.kind == SessionType::Ebgp;
        Self {
            asn: own.asn,
            cluster_id,
            session: session.kind,
            client: config.route_reflector_client,
            four_octet_as: session.four_octet_as,
            next_hop: config.next_hop,
            self_v4,
            self_v6,
            shared: config.shared_subnet.filter(|_| external),
            horizon: (external && own.keeps_horizon() && config.next_hop == NextHopMode::Auto)
                .then_some(config.address)
                .filter(|_| config.interface.is_none()),
            policy: Arc::clone(&config.export),
            add_path: PerFamily::from_fn(|f| {
                if session.add_path_out.has(f) {
                    config.add_path.send_max
                } else {
                    0
                }
            }),
            message_max: session.message_max,
            extended_next_hop: session.extended_next_hop,
            long_lived: session.long_lived.is_some(),
            graceful_shutdown: own.graceful_shutdown || config.graceful_shutdown,
            local_as: config.local_as.filter(|_| external),
            overridden: (external && config.as_override).then_some(session.peer_asn),
            private: (external && config.remove_private != RemovePrivate::Never)
                .then_some((config.remove_private, session.peer_asn)),
        }
    }

    /// Whether a route from there may go to these peers at all, before policy.
    pub(super) fn permits(&self, source: &PathSource, attrs: &AttrSet) -> bool {
        let scope = match self.session {
            SessionType::Ebgp => Scope::Everywhere,
            SessionType::Ibgp => Scope::OwnAs,
        };
        // Between internal peers only a reflector passes routes on, from or to a client (RFC 4456 section 6).
        let internal = self.session == SessionType::Ibgp && source.from == LearnedFrom::Ibgp;
        let stale = attrs.rank().is_long_stale() && !self.long_lived;
        attrs.rank().scope <= scope && !stale && (!internal || self.client || source.client)
    }

    fn own(&self, v4: bool) -> Option<IpAddr> {
        let v6 = self.self_v6.map(IpAddr::V6);
        if v4 {
            let over_v6 = v6.filter(|_| self.extended_next_hop);
            self.self_v4.map(IpAddr::V4).or(over_v6)
        } else {
            v6
        }
    }

    /// The next hop to send; `None` if we have no address of that family to offer.
    fn next_hop(&self, v4: bool, attrs: &AttrSet, source: &PathSource, changes: &Changes) -> Option<IpAddr> {
        let reflected = self.session == SessionType::Ibgp && source.from == LearnedFrom::Ibgp;
        let default = match (self.next_hop, self.session) {
            (NextHopMode::SelfAddress, _) if !reflected => NextHop::SelfAddress,
            (NextHopMode::Auto, SessionType::Ebgp) => NextHop::ThirdParty,
            _ => NextHop::Keep,
        };
        // A link-local next hop means nothing beyond its link.
        let given = attrs.next_hop().address().filter(|a| match a {
            IpAddr::V4(_) => v4,
            IpAddr::V6(a) => (!v4 || self.extended_next_hop) && !a.is_unicast_link_local(),
        });
        match changes.next_hop.unwrap_or(default) {
            NextHop::Keep => given.or_else(|| self.own(v4)),
            NextHop::SelfAddress => self.own(v4),
            NextHop::ThirdParty => {
                let near = |a: &IpAddr| self.shared.is_some_and(|net| net.contains(a));
                given.filter(near).or_else(|| self.own(v4))
            }
            NextHop::Address(a) if a.is_ipv4() == v4 => Some(a),
            NextHop::Address(_) => given.or_else(|| self.own(v4)),
        }
    }

    /// The attributes for the wire; `None` if there is no next hop to give.
    pub(super) fn export(
        &self,
        v4: bool,
        attrs: &AttrSet,
        source: &PathSource,
        changes: &Changes,
    ) -> Option<Exported> {
        let next_hop = self.next_hop(v4, attrs, source, changes)?;
        let mut drained = Changes::default();
        let changes = if self.graceful_shutdown {
            drained.clone_from(changes);
            drained.add_communities(&[GRACEFUL_SHUTDOWN], attrs);
            drained.local_pref = Some(0);
            &drained
        } else {
            changes
        };
        let mut list = List::default();
        for attr in attrs.iter().filter(|a| self.passes(a.code, source)) {
            match self.narrowed(attr) {
                Some(value) if value.is_empty() => {}
                Some(value) => list.set(attr.code, attr.flags, value),
                None => list.push(attr.code, attr.flags, attr.value),
            }
        }
        if let IpAddr::V4(a) = next_hop {
            list.set(code::NEXT_HOP, TRANSITIVE, a.octets());
        }
        self.path(attrs, changes, &mut list);
        let med = changes
            .med
            .unwrap_or_else(|| attrs.rank().med.filter(|_| self.keeps_med(source)));
        list.remove(code::MED);
        if let Some(med) = med {
            list.set(code::MED, OPTIONAL, med.to_be_bytes());
        }
        for (code, value) in changes.values() {
            list.remove(code);
            if let Some(value) = value {
                list.set(code, flags_of(code), value);
            }
        }
        if self.session == SessionType::Ibgp {
            let value = changes
                .local_pref
                .or(attrs.rank().local_pref)
                .unwrap_or(LOCAL_PREF_DEFAULT);
            list.set(code::LOCAL_PREF, TRANSITIVE, value.to_be_bytes());
            if source.from == LearnedFrom::Ibgp {
                let originator = attrs.rank().originator_id.unwrap_or(source.router_id);
                list.set(code::ORIGINATOR_ID, OPTIONAL, originator.octets());
                let passed = attrs.value(code::CLUSTER_LIST).unwrap_or_default();
                list.set(
                    code::CLUSTER_LIST,
                    OPTIONAL,
                    [&self.cluster_id.octets(), passed].concat(),
                );
            }
        }
        Some(Exported {
            attrs: list.encode(),
            next_hop,
        })
    }

    /// The extended communities that may leave the AS (RFC 4360 section 6, RFC 5701 section 2), where some may not.
    fn narrowed(&self, attr: Attr<'_>) -> Option<Vec<u8>> {
        const NON_TRANSITIVE: u8 = 0x40;
        let octets = match attr.code {
            code::EXTENDED_COMMUNITIES => 8,
            code::IPV6_EXTENDED_COMMUNITIES => 20,
            _ => return None,
        };
        let stays = |c: &&[u8]| c.first().is_some_and(|kind| kind & NON_TRANSITIVE != 0);
        let communities = || attr.value.chunks_exact(octets);
        (self.session == SessionType::Ebgp && communities().any(|c| stays(&c)))
            .then(|| communities().filter(|c| !stays(c)).flatten().copied().collect())
    }

    fn keeps_med(&self, source: &PathSource) -> bool {
        // MED must not be passed on to another AS (RFC 4271 section 5.1.4).
        self.session == SessionType::Ibgp || source.from == LearnedFrom::Local
    }

    fn passes(&self, kind: u8, source: &PathSource) -> bool {
        match (self.session, kind) {
            (SessionType::Ebgp, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST) => false,
            (SessionType::Ebgp, kind) => !filtered_at_edge(kind),
            // From outside these were discarded; from ourselves there are none.
            (SessionType::Ibgp, code::ORIGINATOR_ID | code::CLUSTER_LIST) => source.from == LearnedFrom::Ibgp,
            (SessionType::Ibgp, _) => true,
        }
    }

    /// Our AS numbers in front of the path, the last one first.
    fn own_asns(&self) -> impl Iterator<Item = u32> {
        let (own, local) = match (self.session, self.local_as) {
            (SessionType::Ibgp, _) => (None, None),
            (SessionType::Ebgp, None) => (Some(self.asn), None),
            (SessionType::Ebgp, Some(l)) => (Some(self.asn).filter(|_| !l.replace), Some(l.asn)),
        };
        own.into_iter().chain(local)
    }

    fn path(&self, attrs: &AttrSet, changes: &Changes, list: &mut List<'_>) {
        let mut path = attrs.as_path().to_vec();
        if let Some((mode, peer)) = self.private {
            let instead = (mode == RemovePrivate::Replace).then_some(self.asn);
            path = as_path::map(&path, |a| {
                if as_path::is_private(a) && a != peer {
                    instead
                } else {
                    Some(a)
                }
            });
        }
        if let Some(peer) = self.overridden {
            path = as_path::map(&path, |a| Some(if a == peer { self.asn } else { a }));
        }
        path = changes.prepended(&path).unwrap_or(path);
        for asn in self.own_asns() {
            let mut out = Vec::with_capacity(path.len() + 6);
            as_path::prepend(&path, asn, 1, &mut out);
            path = out;
        }
        if self.four_octet_as {
            list.set(code::AS_PATH, TRANSITIVE, path);
            return;
        }
        let (narrow, lossy) = as_path::narrow(&path);
        list.set(code::AS_PATH, TRANSITIVE, narrow);
        if lossy {
            list.set(code::AS4_PATH, OPTIONAL | TRANSITIVE, path);
        }
        if let Some(value) = attrs.value(code::AGGREGATOR)
            && let Some((asn, address)) = value.split_first_chunk::<4>()
        {
            let asn = u32::from_be_bytes(*asn);
            let fits = u16::try_from(asn);
            let short = fits.unwrap_or(crate::config::AS_TRANS_16).to_be_bytes();
            list.set(
                code::AGGREGATOR,
                OPTIONAL | TRANSITIVE,
                [&short, address].concat(),
            );
            if fits.is_err() {
                list.set(code::AS4_AGGREGATOR, OPTIONAL | TRANSITIVE, value.to_vec());
            }
        }
    }
}

/// Attributes on their way out, by ascending code.
#[derive(Default)]
struct List<'a>(Vec<(u8, u8, Cow<'a, [u8]>)>);

impl<'a> List<'a> {
    fn push(&mut self, code: u8, flags: u8, value: &'a [u8]) {
        self.0.push((code, flags, Cow::Borrowed(value)));
    }

    fn remove(&mut self, code: u8) {
        self.0.retain(|(c, ..)| *c != code);
    }

    fn set(&mut self, code: u8, flags: u8, value: impl Into<Vec<u8>>) {
        let entry = (code, flags, Cow::Owned(value.into()));
        match self.0.binary_search_by_key(&code, |(c, ..)| *c) {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    *place = entry;
                }
            }
            Err(at) => self.0.insert(at, entry),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.iter().map(|(.., v)| v.len() + 4).sum());
        for (code, flags, value) in &self.0 {
            Attr {
                code: *code,
                flags: *flags,
                value,
            }
            .encode(&mut out);
        }
        out
    }
}

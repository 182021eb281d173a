//! The routes that we announce by ourselves.

use super::core::{Shared, Speaker};
use super::plane::Plane;
use crate::config::Origination;
use crate::prefix::{Prefix, V4, V6};
use crate::rib::{Path, PeerId};
use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE, code};
use crate::wire::{AttrSet, NextHopValue};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Speaker {
    /// Replaces the whole set of own routes; what did not change is not touched.
    pub fn originate(&mut self, routes: BTreeMap<IpNet, Origination>) {
        let routes: BTreeMap<IpNet, Origination> =
            routes.into_iter().map(|(net, o)| (net.trunc(), o)).collect();
        let old = std::mem::take(&mut self.originated);
        for net in old.keys().filter(|net| !routes.contains_key(net)) {
            self.v4.retract(&mut self.shared, *net);
            self.v6.retract(&mut self.shared, *net);
        }
        for (net, origination) in routes.iter().filter(|(net, o)| old.get(net) != Some(o)) {
            let set = Arc::new(attributes(origination));
            match net {
                IpNet::V4(_) => self.v4.put(&mut self.shared, V4::of_net(*net), set),
                IpNet::V6(_) => self.v6.put(&mut self.shared, V6::of_net(*net), set),
            }
        }
        self.originated = routes;
    }

    /// The set of own routes is whole: End-of-RIB may be said.
    pub fn own_routes_known(&mut self) {
        self.shared.own_routes_known = true;
    }
}

impl<P: Prefix> Plane<P> {
    fn put(&mut self, shared: &mut Shared, prefix: Option<P>, set: Arc<AttrSet>) {
        let Some(prefix) = prefix else { return };
        let attr = shared.attrs.intern(set);
        self.insert(
            shared,
            prefix,
            Path {
                attr,
                path_id: 0,
                peer: PeerId::LOCAL,
                generation: 0,
                flags: 0,
            },
        );
    }

    fn retract(&mut self, shared: &mut Shared, net: IpNet) {
        if let Some(id) = P::of_net(net).and_then(|p| self.table.find(p)) {
            self.remove(shared, id, PeerId::LOCAL, 0);
        }
    }
}

/// ORIGIN IGP, an empty AS path, and what the owner asked for.
fn attributes(origination: &Origination) -> AttrSet {
    let (med, local_pref) = (
        origination.med.map(u32::to_be_bytes),
        origination.local_pref.map(u32::to_be_bytes),
    );
    let mut communities = origination.communities.clone();
    communities.sort_unstable();
    communities.dedup();
    let communities: Vec<u8> = communities.iter().flat_map(|c| c.to_be_bytes()).collect();
    let mut attrs = vec![
        Attr {
            code: code::ORIGIN,
            flags: TRANSITIVE,
            value: &[0],
        },
        Attr {
            code: code::AS_PATH,
            flags: TRANSITIVE,
            value: &[],
        },
    ];
    if let Some(value) = &med {
        attrs.push(Attr {
            code: code::MED,
            flags: OPTIONAL,
            value,
        });
    }
    if let Some(value) = &local_pref {
        attrs.push(Attr {
            code: code::LOCAL_PREF,
            flags: TRANSITIVE,
            value,
        });
    }
    if !communities.is_empty() {
        attrs.push(Attr {
            code: code::COMMUNITIES,
            flags: OPTIONAL | TRANSITIVE,
            value: &communities,
        });
    }
    AttrSet::new(
        origination
            .next_hop
            .map_or(NextHopValue::SelfAddress, NextHopValue::from),
        &attrs,
    )
}

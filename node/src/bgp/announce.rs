//! What this node announces by itself: its own confirmed blocks whole, and single addresses that it borrows.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use twill_bgp::config::Origination;

use super::config::local_pref;
use crate::fabric::Fabric;

/// What goes out for the prefixes that felix found to be ours.
pub(crate) fn announcements(fabric: &Fabric, ours: &BTreeSet<IpNet>) -> BTreeMap<IpNet, Origination> {
    let origination = |net: &IpNet| Origination {
        local_pref: Some(local_pref(fabric, net)),
        ..Origination::default()
    };
    ours.iter().map(|net| (*net, origination(net))).collect()
}

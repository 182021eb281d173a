//! The MTU of a pod's link: the configuration's, else what the uplink leaves after the encapsulations in use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_datastore::Store;
use twill_model::resources::ippool::EncapMode;
use twill_model::resources::{FelixConfigurationSpec, IpPool};
use twill_proto::cni::Add;

use super::super::{CniError, code};
use super::Pods;
use crate::fabric::Fabric;

/// MTU of Ethernet, where the node's uplink cannot be found.
const UPLINK_DEFAULT: u32 = 1500;
/// Smallest and largest MTU that make sense: IPv6's minimum would refuse IPv4-only links, IPv4's is 68.
const RANGE: std::ops::RangeInclusive<u32> = 68..=65_535;
/// How long the uplink's MTU is remembered: looking costs a walk over all addresses of the node.
const UPLINK_REMEMBERED: Duration = Duration::from_secs(10);
/// Bytes that an encapsulation adds (an outer IPv4 header; with UDP, VXLAN and the inner Ethernet header).
const IPIP_BYTES: u32 = 20;
const VXLAN_BYTES: u32 = 50;
const VXLAN_V6_BYTES: u32 = 70;

/// The uplink's MTU as it was seen last, and when.
#[derive(Debug, Default)]
pub(crate) struct Uplink(Mutex<Option<(Instant, u32)>>);

/// What is used between nodes, with the MTU that FelixConfiguration gives it, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Encapsulations {
    ipip: Option<Option<u32>>,
    vxlan: Option<Option<u32>>,
    vxlan_v6: Option<Option<u32>>,
}

impl Encapsulations {
    fn of<'a>(pools: impl Iterator<Item = &'a Arc<IpPool>>, felix: impl Fn(Setting) -> Option<u32>) -> Self {
        let used = |mode: Option<EncapMode>| mode.is_some_and(|m| m != EncapMode::Never);
        let mut out = Self::default();
        for pool in pools {
            if used(pool.spec.ipip_mode) {
                out.ipip = Some(felix(|s| s.ipip_mtu));
            }
            if used(pool.spec.vxlan_mode) && pool.spec.cidr.is_ipv6() {
                out.vxlan_v6 = Some(felix(|s| s.vxlan_mtu_v6));
            } else if used(pool.spec.vxlan_mode) {
                out.vxlan = Some(felix(|s| s.vxlan_mtu));
            }
        }
        out
    }

    /// The smallest of what they leave (Calico's rule: a configured MTU counts instead of the uplink's less the header).
    fn leave(self, uplink: u32) -> u32 {
        let left = |used: Option<Option<u32>>, bytes: u32| {
            let configured = used?.filter(|mtu| *mtu > 0);
            Some(configured.unwrap_or_else(|| uplink.saturating_sub(bytes)))
        };
        let all = [
            left(self.ipip, IPIP_BYTES),
            left(self.vxlan, VXLAN_BYTES),
            left(self.vxlan_v6, VXLAN_V6_BYTES),
        ];
        all.into_iter().flatten().min().unwrap_or(uplink)
    }
}

type Setting = fn(&FelixConfigurationSpec) -> Option<u32>;

impl<S: Store> Pods<S> {
    /// The MTU of a new link.
    ///
    /// # Errors
    /// The one asked for cannot be: code 7.
    pub(super) async fn mtu(&self, add: &Add) -> Result<u32, CniError> {
        if add.mtu > 0 {
            return asked(add.mtu);
        }
        let (addresses, encapsulations) = {
            let fabric = self.fabric.read();
            let felix = |of: Setting| fabric.felix_setting(&self.node, of);
            let encapsulations = Encapsulations::of(fabric.pools.values(), felix);
            (node_addresses(&fabric, &self.node), encapsulations)
        };
        Ok(encapsulations.leave(self.uplink(addresses).await))
    }

    async fn uplink(&self, addresses: Vec<IpNet>) -> u32 {
        let seen = *self
            .memory
            .uplink
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, mtu)) = seen.filter(|(at, _)| at.elapsed() < UPLINK_REMEMBERED) {
            return mtu;
        }
        let looked = tokio::task::spawn_blocking(move || crate::host::uplink_mtu(&addresses)).await;
        let mtu = looked
            .ok()
            .flatten()
            .filter(|mtu| RANGE.contains(mtu))
            .unwrap_or(UPLINK_DEFAULT);
        *self
            .memory
            .uplink
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), mtu));
        mtu
    }
}

fn node_addresses(fabric: &Fabric, node: &str) -> Vec<IpNet> {
    let bgp = fabric.nodes.get(node).and_then(|n| n.spec.bgp.as_ref());
    let both = bgp.map(|b| [&b.ipv4_address, &b.ipv6_address]);
    both.into_iter()
        .flatten()
        .flatten()
        .map(|net| net.as_written())
        .collect()
}

fn asked(mtu: u32) -> Result<u32, CniError> {
    if RANGE.contains(&mtu) {
        return Ok(mtu);
    }
    Err(CniError::new(
        code::INVALID_CONFIG,
        format_args!("mtu {mtu} is outside {RANGE:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str, ipip: EncapMode, vxlan: EncapMode) -> Arc<IpPool> {
        let text = serde_json::json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p"},
            "spec": {"cidr": cidr, "ipipMode": ipip.as_str(), "vxlanMode": vxlan.as_str()}});
        Arc::new(IpPool::decode(text.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn an_mtu_beyond_all_links_is_refused() {
        assert_eq!(asked(9000), Ok(9000));
        assert_eq!(asked(70_000).unwrap_err().code, code::INVALID_CONFIG);
    }

    #[test]
    fn the_uplink_less_the_largest_header_in_use_is_left() {
        use EncapMode::{Always, CrossSubnet, Never};
        let left = |pools: &[Arc<IpPool>], configured: &FelixConfigurationSpec| {
            Encapsulations::of(pools.iter(), |of| of(configured)).leave(9000)
        };
        let none = FelixConfigurationSpec::default();
        let plain = pool("10.0.0.0/16", Never, Never);
        let ipip = pool("10.1.0.0/16", CrossSubnet, Never);
        let vxlan = pool("10.2.0.0/16", Never, Always);
        let v6 = pool("fd00::/64", Never, Always);
        assert_eq!(left(&[], &none), 9000);
        assert_eq!(left(std::slice::from_ref(&plain), &none), 9000);
        assert_eq!(left(&[plain.clone(), ipip.clone()], &none), 8980);
        assert_eq!(left(&[ipip.clone(), vxlan.clone()], &none), 8950);
        assert_eq!(left(&[v6, vxlan], &none), 8930);
        let configured = FelixConfigurationSpec {
            ipip_mtu: Some(1400),
            ..FelixConfigurationSpec::default()
        };
        assert_eq!(left(&[ipip], &configured), 1400);
        assert_eq!(
            left(&[plain], &configured),
            9000,
            "a setting of what is not used does nothing"
        );
    }
}

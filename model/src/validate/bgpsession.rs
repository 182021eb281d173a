//! BGP sessions, as Twill's own kind has them.

use std::time::Duration;

use super::Check;
use crate::duration::GoDuration;
use crate::resources::bgpsessionpolicy::{BfdSpec, BgpSessionPolicySpec};
use crate::selector::Selector;

/// Sixteen bits of seconds.
const SECS_MAX: u64 = 65_535;
/// Twenty-four bits of seconds (RFC 9494 section 3).
const LONG_LIVED_SECS_MAX: u64 = 0x00ff_ffff;

pub(super) fn check(check: &mut Check, spec: &BgpSessionPolicySpec) {
    if let Err(error) = Selector::parse(&spec.node_selector)
        && !spec.node_selector.is_empty()
    {
        check.refuse(true, "nodeSelector", &error.to_string());
    }
    let outside = |n: Option<i32>, least, most| n.is_some_and(|n| n < least || n > most);
    check.refuse(
        outside(spec.max_prefixes, 1, i32::MAX),
        "maxPrefixes",
        "must be at least 1",
    );
    check.refuse(
        outside(spec.max_prefixes_warn_percent, 0, 100),
        "maxPrefixesWarnPercent",
        "must be from 0 to 100",
    );
    for (name, time, most) in [
        ("maxPrefixesRestart", spec.max_prefixes_restart, SECS_MAX),
        ("holdTime", spec.hold_time, SECS_MAX),
        ("keepaliveTime", spec.keepalive_time, SECS_MAX),
        ("connectRetryTime", spec.connect_retry_time, SECS_MAX),
        ("sendHoldTime", spec.send_hold_time, SECS_MAX),
        ("longLivedTime", spec.long_lived_time, LONG_LIVED_SECS_MAX),
    ] {
        let wrong = time.is_some_and(|t| !whole(t, most));
        check.refuse(wrong, name, &format!("must be whole seconds, from 0s to {most}s"));
    }
    let short = |t: Option<GoDuration>| t.is_some_and(|t| matches!(t.to_std().as_secs(), 1 | 2));
    check.refuse(short(spec.hold_time), "holdTime", "must be 0s, or at least 3s");
    for (name, time) in [
        ("keepaliveTime", spec.keepalive_time),
        ("connectRetryTime", spec.connect_retry_time),
        ("sendHoldTime", spec.send_hold_time),
    ] {
        let zero = time.is_some_and(|t| t.to_std().is_zero());
        check.refuse(zero, name, "must be at least 1s");
    }
    if let Some(bfd) = &spec.bfd {
        check.field("bfd", |check| self::bfd(check, bfd));
    }
}

fn whole(time: GoDuration, most: u64) -> bool {
    if time.nanos() < 0 {
        return false;
    }
    let time = time.to_std();
    time.subsec_nanos() == 0 && time <= Duration::from_secs(most)
}

fn bfd(check: &mut Check, bfd: &BfdSpec) {
    let lawful = Duration::from_millis(10)..=Duration::from_secs(60);
    for (name, time) in [("minTx", bfd.min_tx), ("minRx", bfd.min_rx)] {
        let wrong = time.is_some_and(|t| !lawful.contains(&t.to_std()));
        check.refuse(wrong, name, "must be from 10ms to 60s");
    }
    let wrong = bfd.multiplier.is_some_and(|n| !(1..=255).contains(&n));
    check.refuse(wrong, "multiplier", "must be from 1 to 255");
}

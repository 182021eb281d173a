//! Capabilities in words, for operators.

use super::{Capabilities, LongLived};
use crate::family::{Family, PerFamily};
use std::fmt::Write;

/// Names of codes that we do not act on (IANA).
const OTHERS: [(u8, &str); 8] = [
    (3, "outbound-route-filtering"),
    (8, "multiple-labels"),
    (9, "role"),
    (67, "dynamic-capability"),
    (73, "fqdn"),
    (75, "software-version"),
    (76, "paths-limit"),
    (128, "route-refresh-cisco"),
];
/// Codes that [`Capabilities::describe`] says in detail.
const KNOWN: [u8; 9] = [1, 2, 5, 6, 64, 65, 69, 70, 71];

impl Capabilities {
    /// One phrase a capability, in the order of codes.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut out = Vec::new();
        for family in self.families.iter().flat_map(|f| f.iter()) {
            out.push(format!("multiprotocol {family}"));
        }
        let mut flag = |set: bool, name: &str| out.extend(set.then(|| name.to_owned()));
        flag(self.route_refresh, "route-refresh");
        flag(self.extended_next_hop, "extended-next-hop ipv4-unicast");
        flag(self.extended_message, "extended-message");
        out.extend(self.restart_text());
        out.extend(self.four_octet_as.map(|asn| format!("four-octet-as {asn}")));
        out.extend(self.add_path_text());
        out.extend(self.enhanced_refresh.then(|| "enhanced-route-refresh".to_owned()));
        out.extend(self.long_lived.map(|l| long_lived_text(&l.families)));
        for code in self.codes.iter().filter(|c| !KNOWN.contains(c)) {
            let name = OTHERS.iter().find(|(known, _)| known == code);
            out.push(name.map_or_else(|| format!("code {code}"), |(_, name)| (*name).to_owned()));
        }
        out
    }

    fn restart_text(&self) -> Option<String> {
        let restart = self.restart?;
        let mut text = format!("graceful-restart {} s", restart.restart_secs);
        for family in Family::ALL {
            if let Some(preserved) = restart.families.at(family) {
                let forwarding = if *preserved { " (forwarding)" } else { "" };
                let _ = write!(text, ", {family}{forwarding}");
            }
        }
        text.push_str(if restart.restarting { ", restarting" } else { "" });
        text.push_str(if restart.notification {
            ", notification"
        } else {
            ""
        });
        Some(text)
    }

    fn add_path_text(&self) -> Option<String> {
        let modes = Family::ALL.into_iter().filter_map(|family| {
            let mode = self.add_path.at(family);
            let ways = match (mode.receive, mode.send) {
                (true, true) => "receive and send",
                (true, false) => "receive",
                (false, true) => "send",
                (false, false) => return None,
            };
            Some(format!("{family} {ways}"))
        });
        let modes: Vec<String> = modes.collect();
        (!modes.is_empty()).then(|| format!("add-path {}", modes.join(", ")))
    }
}

fn long_lived_text(families: &PerFamily<Option<LongLived>>) -> String {
    let mut text = "long-lived-graceful-restart".to_owned();
    for family in Family::ALL {
        if let Some(kept) = families.at(family) {
            let forwarding = if kept.preserved { " (forwarding)" } else { "" };
            let _ = write!(text, ", {family} {} s{forwarding}", kept.stale_secs);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Families;
    use crate::wire::{AddPathMode, RestartCapability};

    #[test]
    fn each_capability_is_a_phrase_and_the_unknown_are_numbers() {
        let restart = RestartCapability {
            restart_secs: 120,
            notification: true,
            families: PerFamily {
                ipv4: Some(true),
                ipv6: None,
            },
            ..RestartCapability::default()
        };
        let both = AddPathMode {
            receive: true,
            send: true,
        };
        let capabilities = Capabilities {
            families: Some(Families::IPV4),
            route_refresh: true,
            four_octet_as: Some(65001),
            restart: Some(restart),
            add_path: PerFamily {
                ipv4: both,
                ..PerFamily::default()
            },
            codes: vec![1, 2, 64, 65, 69, 73, 200],
            ..Capabilities::default()
        };
        assert_eq!(
            capabilities.describe(),
            [
                "multiprotocol ipv4-unicast",
                "route-refresh",
                "graceful-restart 120 s, ipv4-unicast (forwarding), notification",
                "four-octet-as 65001",
                "add-path ipv4-unicast receive and send",
                "fqdn",
                "code 200",
            ]
        );
        assert!(Capabilities::default().describe().is_empty());
    }
}

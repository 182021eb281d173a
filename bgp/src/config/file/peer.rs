//! Entries of `peers` and `groups`.

use super::monitor::Bfd;
use super::{Defaults, FamilyName, PORT, families};
use crate::config::{
    AddPath, GracefulRestart, LocalAs, NextHopMode, PeerAs, PeerConfig, RemovePrivate, Secret, Timers,
};
use crate::family::Families;
use ipnet::IpNet;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddPathEntry {
    #[serde(default)]
    receive: bool,
    #[serde(default)]
    send: u8,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalAsEntry {
    as_number: u32,
    #[serde(default)]
    prepend_received: bool,
    #[serde(default)]
    replace: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RemovePrivateName {
    #[default]
    Never,
    All,
    Replace,
}

/// A number, `external` or `internal`.
#[derive(Clone, Copy)]
pub(super) struct AsNumber(pub(super) PeerAs);

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = AsNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number (1 to 4294967295), external or internal")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<AsNumber, E> {
                let number = u32::try_from(number);
                let number = number.map_err(|_| {
                    E::invalid_value(serde::de::Unexpected::Other("a number that large"), &self)
                })?;
                Ok(AsNumber(PeerAs::Number(number)))
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<AsNumber, E> {
                match word {
                    "external" => Ok(AsNumber(PeerAs::External)),
                    "internal" => Ok(AsNumber(PeerAs::Internal)),
                    // Numbers may stand in quotes.
                    _ => match word.parse() {
                        Ok(number) => Ok(AsNumber(PeerAs::Number(number))),
                        Err(_) => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                    },
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An address, or `fe80::1%eth0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) interface: Option<String>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match &self.interface {
            Some(interface) => write!(f, "%{interface}"),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (&*text, None),
        };
        let address = address
            .parse()
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is no address")))?;
        Ok(Self { address, interface })
    }
}

/// One entry, as it stands there: what it does not say its group may say, and then `defaults`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) address: Option<Host>,
    pub(super) range: Option<IpNet>,
    pub(super) group: Option<String>,
    pub(super) max_peers: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) as_number: Option<AsNumber>,
    pub(super) passive: Option<bool>,
    password: Option<String>,
    ttl_security_hops: Option<u8>,
    max_prefixes: Option<u32>,
    route_reflector_client: Option<bool>,
    next_hop_self: Option<bool>,
    local_address: Option<IpAddr>,
    description: Option<String>,
    hold_time: Option<u16>,
    keepalive_time: Option<u16>,
    connect_retry: Option<u16>,
    send_hold_time: Option<u16>,
    families: Option<Vec<FamilyName>>,
    graceful_restart: Option<bool>,
    restart_time: Option<u16>,
    allow_own_as: Option<u8>,
    enforce_first_as: Option<bool>,
    bfd: Option<Bfd>,
    max_prefixes_warn_percent: Option<u8>,
    max_prefixes_restart: Option<u16>,
    delay_open: Option<u16>,
    long_lived_time: Option<u32>,
    add_path: Option<AddPathEntry>,
    extended_messages: Option<bool>,
    extended_next_hop: Option<bool>,
    local_as: Option<LocalAsEntry>,
    as_override: Option<bool>,
    remove_private: Option<RemovePrivateName>,
    graceful_shutdown: Option<bool>,
    honour_graceful_shutdown: Option<bool>,
    pub(super) interface: Option<String>,
    shutdown: Option<String>,
    pub(super) import: Option<String>,
    pub(super) export: Option<String>,
}

impl Peer {
    /// With what its group says where it says nothing itself.
    pub(super) fn or(self, group: &Self) -> Self {
        let group = group.clone();
        Self {
            address: self.address,
            range: self.range,
            group: self.group,
            interface: self.interface,
            max_peers: self.max_peers.or(group.max_peers),
            port: self.port.or(group.port),
            as_number: self.as_number.or(group.as_number),
            passive: self.passive.or(group.passive),
            password: self.password.or(group.password),
            ttl_security_hops: self.ttl_security_hops.or(group.ttl_security_hops),
            max_prefixes: self.max_prefixes.or(group.max_prefixes),
            route_reflector_client: self.route_reflector_client.or(group.route_reflector_client),
            next_hop_self: self.next_hop_self.or(group.next_hop_self),
            local_address: self.local_address.or(group.local_address),
            description: self.description.or(group.description),
            hold_time: self.hold_time.or(group.hold_time),
            keepalive_time: self.keepalive_time.or(group.keepalive_time),
            connect_retry: self.connect_retry.or(group.connect_retry),
            send_hold_time: self.send_hold_time.or(group.send_hold_time),
            families: self.families.or(group.families),
            graceful_restart: self.graceful_restart.or(group.graceful_restart),
            restart_time: self.restart_time.or(group.restart_time),
            allow_own_as: self.allow_own_as.or(group.allow_own_as),
            enforce_first_as: self.enforce_first_as.or(group.enforce_first_as),
            bfd: self.bfd.or(group.bfd),
            max_prefixes_warn_percent: self.max_prefixes_warn_percent.or(group.max_prefixes_warn_percent),
            max_prefixes_restart: self.max_prefixes_restart.or(group.max_prefixes_restart),
            delay_open: self.delay_open.or(group.delay_open),
            long_lived_time: self.long_lived_time.or(group.long_lived_time),
            add_path: self.add_path.or(group.add_path),
            extended_messages: self.extended_messages.or(group.extended_messages),
            extended_next_hop: self.extended_next_hop.or(group.extended_next_hop),
            local_as: self.local_as.or(group.local_as),
            as_override: self.as_override.or(group.as_override),
            remove_private: self.remove_private.or(group.remove_private),
            graceful_shutdown: self.graceful_shutdown.or(group.graceful_shutdown),
            honour_graceful_shutdown: self.honour_graceful_shutdown.or(group.honour_graceful_shutdown),
            shutdown: self.shutdown.or(group.shutdown),
            import: self.import.or(group.import),
            export: self.export.or(group.export),
        }
    }

    /// The peer with this AS number, at its address or on its link; what is wrong with that otherwise.
    pub(super) fn somebody(&self, asn: PeerAs) -> Result<PeerConfig, &'static str> {
        let in_address = self.address.as_ref().and_then(|h| h.interface.as_ref());
        if in_address.is_some() && self.interface.is_some() {
            return Err("its interface stands in the address already");
        }
        let address = self.address.as_ref().map(|h| h.address);
        match (address, in_address.or(self.interface.as_ref())) {
            (Some(address), None) => Ok(PeerConfig::new(address, asn)),
            (Some(IpAddr::V6(v6)), Some(interface)) if v6.is_unicast_link_local() => {
                Ok(PeerConfig::on_link(interface, Some(v6), asn))
            }
            (Some(_), Some(_)) => Err("only a link-local address has an interface"),
            (None, Some(interface)) => Ok(PeerConfig::on_link(interface, None, asn)),
            (None, None) => Err("it has neither address nor range nor interface"),
        }
    }

    /// Says who a peer is: no group can.
    pub(super) const fn names_somebody(&self) -> bool {
        self.address.is_some() || self.range.is_some() || self.group.is_some() || self.interface.is_some()
    }

    pub(super) fn entry(&self, like: PeerConfig, defaults: &Defaults, listen: &[SocketAddr]) -> PeerConfig {
        let own = |v4: bool| {
            let of_family = |a: &IpAddr| a.is_ipv4() == v4 && !a.is_unspecified();
            self.local_address
                .into_iter()
                .chain(listen.iter().map(SocketAddr::ip))
                .find(of_family)
        };
        let secs = |s: u16| Duration::from_secs(s.into());
        PeerConfig {
            port: self.port.unwrap_or(PORT),
            description: self.description.clone().unwrap_or_default(),
            local_address: self.local_address,
            next_hop_v4: own(true).and_then(|a| match a {
                IpAddr::V4(a) => Some(a),
                IpAddr::V6(_) => None,
            }),
            next_hop_v6: own(false).and_then(|a| match a {
                IpAddr::V6(a) => Some(a),
                IpAddr::V4(_) => None,
            }),
            families: families(self.families.as_ref().unwrap_or(&defaults.families)),
            timers: Timers {
                hold_secs: self.hold_time.unwrap_or(defaults.hold_time),
                keepalive: self.keepalive_time.map(secs),
                connect_retry: secs(self.connect_retry.unwrap_or(defaults.connect_retry)),
                send_hold: self.send_hold_time.map(secs),
                delay_open: self.delay_open.map(secs),
            },
            graceful_restart: GracefulRestart {
                enabled: self.graceful_restart.unwrap_or(defaults.graceful_restart),
                restart_secs: self.restart_time.unwrap_or(defaults.restart_time),
                long_lived_secs: self.long_lived_time,
                ..GracefulRestart::default()
            },
            route_reflector_client: self.route_reflector_client.unwrap_or(false),
            next_hop: if self.next_hop_self == Some(true) {
                NextHopMode::SelfAddress
            } else {
                NextHopMode::Auto
            },
            prefixes_max: self.max_prefixes,
            enforce_first_as: self.enforce_first_as.unwrap_or(true),
            own_as_allowed: self.allow_own_as.unwrap_or(0),
            idle_hold: false,
            password: self.password.clone().map(Secret),
            ttl_security_hops: self.ttl_security_hops,
            bfd: self.bfd.as_ref().and_then(Bfd::params),
            prefixes_warn_percent: self.max_prefixes_warn_percent.unwrap_or(80),
            prefixes_restart: self.max_prefixes_restart.map(secs),
            add_path: self.add_path(defaults),
            extended_messages: self.extended_messages.unwrap_or(true),
            extended_next_hop: self.extended_next_hop.unwrap_or(true),
            local_as: self.local_as.map(|l| LocalAs {
                asn: l.as_number,
                prepend_received: l.prepend_received,
                replace: l.replace,
            }),
            as_override: self.as_override.unwrap_or(false),
            remove_private: match self.remove_private.unwrap_or_default() {
                RemovePrivateName::Never => RemovePrivate::Never,
                RemovePrivateName::All => RemovePrivate::All,
                RemovePrivateName::Replace => RemovePrivate::Replace,
            },
            graceful_shutdown: self.graceful_shutdown.unwrap_or(false),
            honour_graceful_shutdown: self.honour_graceful_shutdown.unwrap_or(true),
            shutdown: self.shutdown.clone(),
            ..like
        }
    }
}

impl Peer {
    /// In all families of the session.
    fn add_path(&self, defaults: &Defaults) -> AddPath {
        let all = families(self.families.as_ref().unwrap_or(&defaults.families));
        self.add_path.map_or_else(AddPath::default, |a| AddPath {
            receive: if a.receive { all } else { Families::NONE },
            send: if a.send > 0 { all } else { Families::NONE },
            send_max: a.send,
        })
    }
}

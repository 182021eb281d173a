//! The keys `bfd`, `bmp` and `mrt`.

use super::super::{BmpConfig, MrtConfig};
use crate::bfd::Params;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The port of BMP collectors where none is named: there is no assigned one, and this is what they listen on.
const BMP_PORT: u16 = 11019;
/// Seconds between dumps of the table where no interval is named.
const TABLE_INTERVAL_SECS: u32 = 300;
/// Seconds between statistics where no interval is named.
const STATISTICS_SECS: u32 = 60;

/// `bfd: true`, or its parameters; intervals in milliseconds.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "true, false, or minTx, minRx, multiplier, multihop")]
pub(super) enum Bfd {
    Switch(bool),
    Params(BfdParams),
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BfdParams {
    min_tx: Option<u32>,
    min_rx: Option<u32>,
    multiplier: Option<u8>,
    #[serde(default)]
    multihop: bool,
}

impl Bfd {
    pub(super) fn params(&self) -> Option<Params> {
        let default = Params::default();
        let millis = |m: Option<u32>, or| m.map_or(or, |m| Duration::from_millis(m.into()));
        match self {
            Self::Switch(on) => on.then_some(default),
            Self::Params(p) => Some(Params {
                min_tx: millis(p.min_tx, default.min_tx),
                min_rx: millis(p.min_rx, default.min_rx),
                multiplier: p.multiplier.unwrap_or(default.multiplier),
                multihop: p.multihop,
            }),
        }
    }
}

/// One entry of `bmp`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bmp {
    address: IpAddr,
    port: Option<u16>,
    #[serde(default)]
    routes: BmpRoutes,
    statistics_interval: Option<u32>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BmpRoutes {
    #[default]
    Both,
    PrePolicy,
    PostPolicy,
}

impl Bmp {
    pub(super) fn config(&self) -> BmpConfig {
        let secs = self.statistics_interval.unwrap_or(STATISTICS_SECS);
        BmpConfig {
            address: SocketAddr::new(self.address, self.port.unwrap_or(BMP_PORT)),
            pre_policy: self.routes != BmpRoutes::PostPolicy,
            post_policy: self.routes != BmpRoutes::PrePolicy,
            statistics: Duration::from_secs(secs.into()),
        }
    }
}

/// The key `mrt`; the interval in seconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mrt {
    table: Option<PathBuf>,
    table_interval: Option<u32>,
    updates: Option<PathBuf>,
}

impl Mrt {
    pub(super) fn config(self) -> MrtConfig {
        let every = Duration::from_secs(self.table_interval.unwrap_or(TABLE_INTERVAL_SECS).into());
        MrtConfig {
            table: self.table.map(|file| (file, every)),
            updates: self.updates,
        }
    }
}

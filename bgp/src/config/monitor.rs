//! Who is told what the speaker hears: BMP collectors and MRT files.

use super::{Config, ConfigError};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Collectors of one speaker: each has its own copy of what waits for it.
pub const BMP_MAX: usize = 8;

/// One BMP collector; we connect to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BmpConfig {
    /// Its address.
    pub address: SocketAddr,
    /// Routes as they were received.
    pub pre_policy: bool,
    /// Routes after import policy.
    pub post_policy: bool,
    /// How often it is sent statistics; zero is never.
    pub statistics: Duration,
}

/// Dumps in MRT form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MrtConfig {
    /// The file that the table is dumped into, whole each time, and how often.
    pub table: Option<(PathBuf, Duration)>,
    /// The file that what sessions say is appended to.
    pub updates: Option<PathBuf>,
}

impl Config {
    pub(super) fn check_monitor(&self) -> Result<(), ConfigError> {
        let once: BTreeSet<SocketAddr> = self.bmp.iter().map(|b| b.address).collect();
        let blind = self.bmp.iter().any(|b| !b.pre_policy && !b.post_policy);
        if blind || once.len() < self.bmp.len() || once.len() > BMP_MAX {
            return Err(ConfigError::Bmp);
        }
        let often = |(_, every): &(PathBuf, Duration)| *every < Duration::from_secs(1);
        if self.mrt.table.as_ref().is_some_and(often) {
            return Err(ConfigError::MrtInterval);
        }
        Ok(())
    }
}

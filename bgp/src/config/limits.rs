//! What a speaker may take of the machine, whatever its peers send. Each bound is warned of at [`WARN_PERCENT`] and counted.

/// At so many percent of a bound a warning is given, once until the use falls below again.
pub const WARN_PERCENT: u64 = 80;
/// Routes of all peers where no bound is named: a table of some 90 octets each then has 900 MB.
pub const ROUTES_MAX: u32 = 10_000_000;
/// Octets of attribute sets where no bound is named. A million routes of the Internet have some 20 MB of them; only sets
/// that nobody else sends make more.
pub const ATTRIBUTE_OCTETS_MAX: u64 = 1 << 30;
/// Octets of attributes that we do not know, where no bound is named: RFC 4271 wants them carried, but not at any price.
pub const UNKNOWN_OCTETS_MAX: u64 = 64 << 20;
/// Dynamic neighbours that have connected and said nothing yet, where no bound is named. Each goes after 15 s.
pub const PENDING_MAX: u32 = 256;

/// Connections of one host that carry no session yet, where no bound is named. A peer in trouble has one that waits for its
/// OPEN, perhaps one that is dialled from there at the same time, and four that are being closed.
pub const PENDING_PER_HOST_MAX: u32 = 16;

/// Bounds over all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes of all peers and families. Beyond, the peer that has sent the most is ended with Cease, Out of Resources, and
    /// its routes go; so is whoever sends on when the table is an eighth above the bound.
    pub routes: u32,
    /// Octets of all distinct attribute sets. Beyond, the peer whose routes hold the most of them is ended likewise.
    pub attribute_octets: u64,
    /// Octets of unknown attributes in all distinct attribute sets. What comes beyond is taken without them.
    pub unknown_octets: u64,
    /// Connections of dynamic neighbours whose session is not established yet; further strangers are closed before a byte is
    /// read. Configured peers do not count.
    pub pending: u32,
    /// Connections from one address whose session is not established, those that are being closed among them; further ones from
    /// there are closed before a byte is read. At least 1.
    pub pending_per_host: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: ROUTES_MAX,
            attribute_octets: ATTRIBUTE_OCTETS_MAX,
            unknown_octets: UNKNOWN_OCTETS_MAX,
            pending: PENDING_MAX,
            pending_per_host: PENDING_PER_HOST_MAX,
        }
    }
}

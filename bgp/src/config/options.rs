//! What a session can do beyond plain BGP-4, each as one small value in [`super::PeerConfig`].

use crate::family::Families;

/// Paths of one prefix that are sent to a peer at most (RFC 7911); the bound keeps an anycast service with many origins cheap.
pub const ADD_PATHS_MAX: u8 = 32;

/// Several paths for one prefix (RFC 7911): in which families they are taken and given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    /// Families in which the peer may send several paths.
    pub receive: Families,
    /// Families in which we send several paths.
    pub send: Families,
    /// How many of the best paths are sent at most, 1 to [`ADD_PATHS_MAX`]; those that came from the peer itself do not count.
    pub send_max: u8,
}

/// Another AS number towards one peer (`local-as`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAs {
    /// The number that our OPEN carries and that the peer expects first in our paths.
    pub asn: u32,
    /// Put it in front of what the peer sends, too, so that others see the path as it was.
    pub prepend_received: bool,
    /// In what we send it stands alone; otherwise our true number follows it.
    pub replace: bool,
}

/// What happens to private AS numbers (RFC 6996) in paths to an external peer. The peer's own number always stays: it must
/// find its loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemovePrivate {
    /// They stay.
    #[default]
    Never,
    /// They are taken out.
    All,
    /// Each becomes our number, so that the path keeps its length.
    Replace,
}

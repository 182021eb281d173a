//! The control packet (RFC 5880 section 4.1) and the checks that need no session (section 6.8.6).

use std::fmt;

/// Octets of a control packet without authentication.
pub const PACKET_LEN: usize = LENGTH as usize;
/// The same, as the packet says it.
const LENGTH: u8 = 24;
/// The only version.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The state of a session (RFC 5880 section 4.1, Sta).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by its operator.
    AdminDown,
    /// No word from the peer.
    #[default]
    Down,
    /// The peer is there, but does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why a session left Up (RFC 5880 section 4.1, Diag).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// Control Detection Time Expired.
    pub const DETECTION_TIME: Self = Self(1);
    /// Neighbor Signaled Session Down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Administratively Down.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            other => return write!(f, "diagnostic {other}"),
        };
        f.write_str(name)
    }
}

/// A control packet. Intervals are microseconds, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's state.
    pub state: State,
    /// Why the sender last left Up.
    pub diagnostic: Diagnostic,
    /// The sender wants an answer with [`Packet::is_final`].
    pub poll: bool,
    /// This answers a poll.
    pub is_final: bool,
    /// The sender wants us to be silent while up (section 6.6).
    pub demand: bool,
    /// Detection time in multiples of the sender's interval; not zero.
    pub multiplier: u8,
    /// The sender's discriminator; not zero.
    pub my_discriminator: u32,
    /// Ours, as the sender knows it; zero if it does not.
    pub your_discriminator: u32,
    /// Desired Min TX Interval, microseconds.
    pub desired_min_tx: u32,
    /// Required Min RX Interval, microseconds; zero wants no packets.
    pub required_min_rx: u32,
}

/// Why a packet is dropped (RFC 5880 section 6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not version 1.
    #[error("version {0} is not 1")]
    Version(u8),
    /// Shorter than 24 octets, or its length field says what is not there.
    #[error("the length is wrong")]
    Length,
    /// Detect Mult is zero.
    #[error("the detection multiplier is zero")]
    Multiplier,
    /// The Multipoint bit, which must be zero.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// My Discriminator is zero.
    #[error("the sender's discriminator is zero")]
    MyDiscriminator,
    /// Your Discriminator is zero in a state that is not reached without it.
    #[error("no discriminator of ours in state {0}")]
    YourDiscriminator(State),
    /// It carries authentication, and we have agreed on none.
    #[error("authentication is not in use")]
    Authentication,
}

impl Packet {
    /// Reads the payload of a datagram.
    ///
    /// # Errors
    /// [`PacketError`]: the packet is to be dropped and nothing else follows from it.
    pub fn decode(payload: &[u8]) -> Result<Self, PacketError> {
        let (&[first, flags, multiplier, len], rest) =
            payload.split_first_chunk::<4>().ok_or(PacketError::Length)?;
        if first >> 5 != VERSION {
            return Err(PacketError::Version(first >> 5));
        }
        if usize::from(len) < PACKET_LEN || usize::from(len) > payload.len() {
            return Err(PacketError::Length);
        }
        if multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let (words, _) = rest.as_chunks::<4>();
        let &[mine, yours, tx, rx, _echo, ..] = words else {
            return Err(PacketError::Length);
        };
        let (state, my, your) = (
            State::of(flags >> 6),
            u32::from_be_bytes(mine),
            u32::from_be_bytes(yours),
        );
        if my == 0 {
            return Err(PacketError::MyDiscriminator);
        }
        if your == 0 && matches!(state, State::Init | State::Up) {
            return Err(PacketError::YourDiscriminator(state));
        }
        if flags & AUTHENTICATION != 0 {
            return Err(PacketError::Authentication);
        }
        Ok(Self {
            state,
            diagnostic: Diagnostic(first & 0x1f),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator: my,
            your_discriminator: your,
            desired_min_tx: u32::from_be_bytes(tx),
            required_min_rx: u32::from_be_bytes(rx),
        })
    }

    /// The payload of a datagram. Required Min Echo RX is zero: we echo nothing.
    #[must_use]
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let flag = |set, bit| if set { bit } else { 0 };
        let flags = self.state.bits() << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.demand, DEMAND);
        let head = [
            VERSION << 5 | (self.diagnostic.0 & 0x1f),
            flags,
            self.multiplier,
            LENGTH,
        ];
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            0,
        ];
        let mut out = [0; PACKET_LEN];
        let octets = head
            .into_iter()
            .chain(words.into_iter().flat_map(u32::to_be_bytes));
        out.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            state: State::Up,
            diagnostic: Diagnostic::NEIGHBOR_DOWN,
            poll: true,
            is_final: false,
            demand: false,
            multiplier: 3,
            my_discriminator: 0x0102_0304,
            your_discriminator: 0x0a0b_0c0d,
            desired_min_tx: 300_000,
            required_min_rx: 50_000,
        }
    }

    /// The packet with one octet replaced.
    fn spoilt(place: usize, octet: u8) -> Result<Packet, PacketError> {
        let mut octets = packet().encode();
        octets[place] = octet;
        Packet::decode(&octets)
    }

    #[test]
    fn a_packet_comes_back_octet_by_octet() {
        let octets = packet().encode();
        assert_eq!(octets[..8], [0x23, 0xe0, 3, 24, 1, 2, 3, 4]);
        assert_eq!(Packet::decode(&octets), Ok(packet()));
    }

    #[test]
    fn what_the_rfc_says_to_drop_is_dropped_and_says_why() {
        assert_eq!(spoilt(0, 0x03), Err(PacketError::Version(0)));
        assert_eq!(spoilt(0, 0x43), Err(PacketError::Version(2)));
        assert_eq!(spoilt(1, 0xe1), Err(PacketError::Multipoint));
        assert_eq!(spoilt(1, 0xe4), Err(PacketError::Authentication));
        assert_eq!(spoilt(2, 0), Err(PacketError::Multiplier));
        assert_eq!(spoilt(3, 23), Err(PacketError::Length));
        assert_eq!(spoilt(3, 25), Err(PacketError::Length));
        for len in 0..PACKET_LEN {
            assert_eq!(
                Packet::decode(&packet().encode()[..len]).unwrap_err(),
                PacketError::Length
            );
        }
        let nobodys = Packet {
            my_discriminator: 0,
            ..packet()
        };
        assert_eq!(
            Packet::decode(&nobodys.encode()),
            Err(PacketError::MyDiscriminator)
        );
    }

    #[test]
    fn only_a_session_that_is_not_up_may_lack_our_discriminator() {
        let to_nobody = |state| {
            let packet = Packet {
                your_discriminator: 0,
                state,
                ..packet()
            };
            Packet::decode(&packet.encode()).is_ok()
        };
        assert!(to_nobody(State::Down) && to_nobody(State::AdminDown));
        assert!(!to_nobody(State::Init) && !to_nobody(State::Up));
    }

    #[test]
    fn octets_beyond_its_length_are_ignored() {
        let long = [&packet().encode()[..], &[1, 2, 3]].concat();
        assert_eq!(Packet::decode(&long), Ok(packet()));
    }
}

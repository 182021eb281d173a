//! The only part of the daemon that writes the kernel: nf_tables and rtnetlink by thin encoders of our own,
//! sysctls through `/proc`. Nothing is exec'd.

pub mod netlink;
pub mod netns;
pub mod nft;
mod wire;

pub use netlink::{NetlinkError, Protocol, Socket};

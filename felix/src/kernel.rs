//! The only part of the daemon that writes the kernel: nf_tables and rtnetlink by thin encoders of our own,
//! sysctls through `/proc`. Nothing is exec'd.

pub mod conntrack;
#[cfg(test)]
mod corpus;
pub mod dataplane;
mod foreign;
pub mod handover;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;
pub mod routes;
mod rtnl;
mod sysctl;
#[cfg(test)]
mod testing;
mod wire;

pub use dataplane::{
    Counters, Dataplane, EndpointStatus, Fib, Handle, NotProgrammed, Reach, StartError, Status,
};
pub use netlink::{NetlinkError, Protocol, Socket};

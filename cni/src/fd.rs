//! The pod's network namespace as descriptors. Entering it takes `setns`, which changes the calling thread: it happens
//! on a thread made for it that then ends, and what comes back is a netlink socket that belongs to the namespace.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{CniError, code};

/// The namespace and a route netlink socket inside it.
#[derive(Debug)]
pub(crate) struct PodFds {
    pub(crate) netns: OwnedFd,
    pub(crate) netlink: OwnedFd,
}

/// Opens the namespace at `path`.
///
/// # Errors
/// Code 4: nothing there, or not a network namespace. Code 5: the kernel refuses otherwise.
pub(crate) fn open(path: &str) -> Result<PodFds, CniError> {
    // NONBLOCK: a pipe put in the place of the namespace must not hang us.
    let netns = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|e| CniError::environment("CNI_NETNS", format_args!("{path:?} cannot be opened: {e}")))?;
    let entered = std::thread::scope(|s| s.spawn(|| netlink_inside(&netns)).join());
    let netlink =
        entered.map_err(|_| CniError::new(code::IO, "the thread that enters the namespace panicked"))?;
    match netlink {
        Ok(netlink) => Ok(PodFds { netns, netlink }),
        Err(Errno::INVAL) => Err(CniError::environment(
            "CNI_NETNS",
            format_args!("{path:?} is not a network namespace"),
        )),
        Err(e) => Err(CniError::io(
            format_args!("entering network namespace {path:?}"),
            &e,
        )),
    }
}

fn netlink_inside(netns: &OwnedFd) -> Result<OwnedFd, Errno> {
    move_into_link_name_space(std::os::fd::AsFd::as_fd(netns), Some(LinkNameSpaceType::Network))?;
    // Protocol 0 of this family is NETLINK_ROUTE.
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_an_error_of_the_environment() {
        assert_eq!(open("/nonexistent").unwrap_err().code, 4);
        assert_eq!(open("/dev/null").unwrap_err().code, 4);
    }
}

//! The pod's network namespace as descriptors. Entering it takes `setns`, which changes the calling thread: it happens
//! on a thread made for it that then ends, and what comes back is a netlink socket that belongs to the namespace.

use std::os::fd::OwnedFd;
use std::path::Path;

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

/// What becomes of the pod's own forwarding (Calico's `container_settings.allow_ip_forwarding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// Turned on for both families, before the pod has an interface of ours, so that this one inherits it.
    On,
    /// As the runtime made the namespace: off.
    AsFound,
}

/// Opens the namespace at `path`.
///
/// # Errors
/// Code 4: nothing there, or not a network namespace. Code 5: the kernel refuses otherwise.
pub(crate) fn open(path: &str, forwarding: Forwarding) -> Result<PodFds, CniError> {
    // NONBLOCK: a pipe put in the place of the namespace must not hang us.
    let netns = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|e| CniError::environment("CNI_NETNS", format_args!("{path:?} cannot be opened: {e}")))?;
    let entered = std::thread::scope(|s| s.spawn(|| netlink_inside(&netns, forwarding)).join());
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

fn netlink_inside(netns: &OwnedFd, forwarding: Forwarding) -> Result<OwnedFd, Errno> {
    move_into_link_name_space(std::os::fd::AsFd::as_fd(netns), Some(LinkNameSpaceType::Network))?;
    if forwarding == Forwarding::On {
        // /proc/sys/net is that of the calling thread's namespace.
        for (family, needed) in [("ipv4/ip_forward", true), ("ipv6/conf/all/forwarding", false)] {
            let set = std::fs::write(Path::new("/proc/sys/net").join(family), "1");
            // A kernel without IPv6 has nothing to forward.
            if let (Err(e), true) = (set, needed) {
                return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO));
            }
        }
    }
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
        assert_eq!(open("/nonexistent", Forwarding::AsFound).unwrap_err().code, 4);
        assert_eq!(open("/dev/null", Forwarding::AsFound).unwrap_err().code, 4);
    }
}

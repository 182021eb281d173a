//! Throw-away network namespaces for tests.
//!
//! The daemon itself never enters a namespace: the plugin hands it sockets. Here a closure runs on a thread that was
//! made for it, entered the namespace and then ends; no other thread ever changes its namespace.
#![expect(unsafe_code, reason = "unshare and setns; one of the four modules that may")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A network namespace without a name, held by a descriptor: it is gone when this and every socket in it are, also
/// when a test panics or is killed.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// Makes a new, empty namespace (its `lo` is down).
    ///
    /// # Errors
    /// When the kernel refuses: not root, or too many namespaces.
    pub fn new() -> io::Result<Self> {
        let made = std::thread::spawn(|| {
            // SAFETY: no pointers. It changes the namespace of this thread alone, which ends right after.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let file = made
            .join()
            .map_err(|_| io::Error::other("the thread that makes a namespace panicked"))??;
        Ok(Self { fd: file.into() })
    }

    /// Runs a closure on a new thread inside the namespace. Threads and processes that it starts are inside too.
    ///
    /// # Panics
    /// With the closure's own panic, or when the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                // SAFETY: no pointers, the descriptor is owned by `self` and open.
                // It changes the namespace of this thread alone, which was made for it and then ends.
                let entered = unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) };
                assert!(entered == 0, "setns: {}", io::Error::last_os_error());
                f()
            });
            run.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

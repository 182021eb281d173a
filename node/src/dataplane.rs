//! The door to felix's kernel side: pods' links, and the wait for their policy.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use twill_felix::kernel::Handle;
use twill_felix::kernel::netlink::{Protocol, Socket};
use twill_felix::kernel::pod::{self, Attached, Expected, PodLink, Prepared};
use twill_felix::plan::IfName;

/// A pod's network namespace as the plugin brings it: the namespace, and a netlink socket inside it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) netns: OwnedFd,
    pub(crate) netlink: OwnedFd,
}

impl Sandbox {
    fn sockets(&self) -> Result<(Socket, Socket)> {
        let inside = self.netlink.try_clone().context("the plugin's netlink socket")?;
        Ok((
            Socket::open(Protocol::Route).context("opening a netlink socket")?,
            Socket::from_fd(inside, Protocol::Route).context("the plugin's netlink socket")?,
        ))
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dataplane {
    kernel: Handle,
}

impl Dataplane {
    pub(crate) fn new(kernel: Handle) -> Self {
        Self { kernel }
    }

    /// Makes the pod's pair of links, up and without addresses. Idempotent.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left behind.
    pub(crate) async fn prepare(&self, link: PodLink, v6: bool, sandbox: Arc<Sandbox>) -> Result<Prepared> {
        let prepared = tokio::task::spawn_blocking(move || -> Result<Prepared> {
            let (mut host, mut inside) = sandbox.sockets()?;
            Ok(pod::prepare(
                &mut host,
                &mut inside,
                sandbox.netns.as_fd(),
                &link,
                v6,
            )?)
        });
        prepared.await.context("making a pod's link panicked")?
    }

    /// Makes the pod's link, or completes one that was prepared. Idempotent.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left behind.
    pub(crate) async fn attach(&self, link: PodLink, sandbox: Arc<Sandbox>) -> Result<Attached> {
        let attached = tokio::task::spawn_blocking(move || -> Result<Attached> {
            let (mut host, mut inside) = sandbox.sockets()?;
            Ok(pod::attach(&mut host, &mut inside, sandbox.netns.as_fd(), &link)?)
        });
        attached.await.context("making a pod's link panicked")?
    }

    /// Compares a pod's link with what it should be; what differs, in words.
    ///
    /// # Errors
    /// The kernel does not let something be read.
    pub(crate) async fn inspect(&self, expected: Expected, netlink: OwnedFd) -> Result<Vec<String>> {
        let inspected = tokio::task::spawn_blocking(move || -> Result<Vec<String>> {
            let mut host = Socket::open(Protocol::Route).context("opening a netlink socket")?;
            let mut inside =
                Socket::from_fd(netlink, Protocol::Route).context("the plugin's netlink socket")?;
            Ok(pod::inspect(&mut host, &mut inside, &expected)?)
        });
        inspected.await.context("inspecting a pod's link panicked")?
    }

    /// Why the newest policy is not in the kernel.
    pub(crate) fn table_error(&self) -> Option<String> {
        self.kernel.status().table_error.clone()
    }

    /// Removes a pod's link. Nothing to remove is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn detach(&self, interface: &str) -> Result<()> {
        let name = IfName::new(interface)?;
        let detached = tokio::task::spawn_blocking(move || -> Result<()> {
            let mut host = Socket::open(Protocol::Route).context("opening a netlink socket")?;
            Ok(pod::detach(&mut host, name)?)
        });
        detached.await.context("removing a pod's link panicked")?
    }

    /// Waits until policy, link and routes of an endpoint are in the kernel as of a revision.
    ///
    /// # Errors
    /// What is missing when the time is over.
    pub(crate) async fn programmed(&self, interface: &str, revision: u64, limit: Duration) -> Result<()> {
        Ok(self
            .kernel
            .programmed(IfName::new(interface)?, revision, limit)
            .await?)
    }
}

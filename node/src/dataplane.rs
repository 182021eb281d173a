//! The door to felix's kernel side: pods' links, and the wait for their policy.

mod forget;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use twill_felix::kernel::Handle;
use twill_felix::kernel::netlink::{Protocol, Socket};
use twill_felix::kernel::pod::{self, Attached, Expected, PodLink, Prepared};
use twill_felix::plan::IfName;

use forget::{Forgetter, Noted};

/// How long felix may take to have an endpoint out of the kernel that somebody else deleted.
const NOTED_PATIENCE: Duration = Duration::from_secs(10);

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
    forgetter: Arc<Forgetter>,
    noted: Arc<Noted>,
}

impl Dataplane {
    pub(crate) fn new(kernel: Handle) -> Self {
        Self {
            kernel,
            forgetter: Arc::default(),
            noted: Arc::default(),
        }
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

    /// Waits until an endpoint that was retired is in the kernel no longer: neither its policy, nor its addresses in sets, nor
    /// its routes.
    ///
    /// # Errors
    /// It still is when the time is over.
    pub(crate) async fn removed(&self, interface: &str, limit: Duration) -> Result<()> {
        // An endpoint without a usable name was never there.
        let Ok(name) = IfName::new(interface) else {
            return Ok(());
        };
        Ok(self.kernel.removed(name, 0, limit).await?)
    }

    /// Forgets every connection of these addresses. Calls at the same time share one walk over the table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        self.forgetter.forget(addresses).await
    }

    /// Notes addresses whose endpoint somebody else deleted at `revision`: their connections are forgotten once felix is there.
    pub(crate) fn note_gone(&self, addresses: Vec<IpAddr>, revision: u64) {
        if !addresses.is_empty() {
            self.noted.add(addresses, revision);
        }
    }

    /// Works off what is noted, until cancelled.
    ///
    /// # Errors
    /// None; the signature is that of a subsystem.
    pub(crate) async fn forget_noted(self, stop: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.noted.wait() => {}
            }
            let (addresses, revision) = self.noted.take();
            let mut status = self.kernel.watch();
            let there = status.wait_for(|status| status.revision >= revision);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // Late is better than never.
                _ = tokio::time::timeout(NOTED_PATIENCE, there) => {}
            }
            if let Err(error) = self.forget(&addresses).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    addresses = addresses.len(),
                    "connections of endpoints that are gone stay until they time out"
                );
            }
        }
    }
}

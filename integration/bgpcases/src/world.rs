//! What the cases share: one daemon, two peers that watch, and sessions that live on from case to case while they are sound.

use crate::client::{PATIENCE, Session, withdrawal};
use crate::dut::Dut;
use crate::read::Route;
use crate::roles::Role;
use crate::wire::Prefix;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Prefixes of one case.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    number: u16,
}

impl Own {
    /// The n-th IPv4 prefix, a /28.
    pub(crate) fn v4(&self, n: u8) -> Prefix {
        let [high, low] = self.number.to_be_bytes();
        Prefix::v4([20 + high, low, n >> 4, n << 4], 28)
    }

    /// The n-th IPv6 prefix, a /64.
    pub(crate) fn v6(&self, n: u8) -> Prefix {
        Prefix::v6(
            Ipv6Addr::new(0x2001, 0xdb8, self.number, n.into(), 0, 0, 0, 0),
            64,
        )
    }
}

pub(crate) struct World {
    pub(crate) dut: Dut,
    /// External, AS 65002.
    pub(crate) observer: Session,
    /// Internal, a client of the daemon's reflection.
    pub(crate) client: Session,
    sessions: BTreeMap<Role, Session>,
    numbers: u16,
}

impl World {
    pub(crate) fn new(dut: Dut) -> Result<Self> {
        let observer = Session::establish(Role::Observer).context("the first session of all")?;
        let client = Session::establish(Role::Client)?;
        Ok(Self {
            dut,
            observer,
            client,
            sessions: BTreeMap::new(),
            numbers: 0,
        })
    }

    /// Prefixes that no other case has.
    pub(crate) fn own(&mut self) -> Own {
        self.numbers += 1;
        Own { number: self.numbers }
    }

    /// The session of an honest peer, new unless it lives; the caller gives it back by [`World::keep`] if it is still sound.
    pub(crate) fn session(&mut self, role: Role) -> Result<Session> {
        if let Some(mut session) = self.sessions.remove(&role) {
            session.drain();
            if session.end.is_none() {
                return Ok(session);
            }
        }
        Session::establish(role)
    }

    pub(crate) fn keep(&mut self, session: Session) {
        self.sessions.insert(session.role, session);
    }

    /// Ends the session of this role, if there is one, so that the case can have a connection of its own.
    pub(crate) fn close(&mut self, role: Role) {
        self.sessions.remove(&role);
    }

    /// After a case: watchers that were lost are replaced, so that the next case does not pay for this one.
    pub(crate) fn mend(&mut self) -> Result<()> {
        for watcher in [&mut self.observer, &mut self.client] {
            watcher.drain();
            if watcher.end.is_some() {
                *watcher = Session::establish(watcher.role)?;
            }
            watcher.violation = None;
        }
        Ok(())
    }

    /// The watcher that sees this peer's routes; of an internal one, too, since it is external.
    pub(crate) fn sees(&mut self, prefix: &Prefix) -> Result<Route> {
        self.observer.expect(prefix)
    }

    /// A sound route of this peer, seen by both watchers.
    pub(crate) fn announce(&mut self, session: &mut Session, prefixes: &[&Prefix]) -> Result<()> {
        session.announce(&session.sound(prefixes))?;
        for prefix in prefixes {
            self.observer.expect(prefix)?;
            self.client.expect(prefix)?;
        }
        Ok(())
    }

    /// Lets the daemon finish: two routes go through it, one after the other, and back.
    pub(crate) fn settle(&mut self, session: &mut Session, own: &Own) -> Result<()> {
        for n in [250, 251] {
            let marker = own.v4(n);
            session.announce(&session.sound(&[&marker]))?;
            self.sees(&marker)?;
        }
        for n in [250, 251] {
            session.announce(&withdrawal(&[&own.v4(n)]))?;
        }
        self.observer.expect_gone(&own.v4(251))
    }

    /// Waits until neither watcher has the route.
    pub(crate) fn gone(&mut self, prefix: &Prefix) -> Result<()> {
        self.observer.expect_gone(prefix)?;
        self.client.expect_gone(prefix)
    }

    /// What every case ends with: watchers alive, and nothing unlawful sent to them.
    pub(crate) fn check(&mut self) -> Result<()> {
        ensure!(self.dut.is_alive(), "the daemon has ended: {}", self.dut.says());
        self.observer.alive()?;
        self.client.alive()
    }

    /// The session must end with this NOTIFICATION.
    pub(crate) fn notified(
        session: &mut Session,
        code: u8,
        subcodes: &[u8],
        data: Option<&[u8]>,
    ) -> Result<()> {
        use crate::client::End::Notified;
        let end = session.ended(PATIENCE);
        let right = match &end {
            Some(Notified(c, s, d)) => {
                *c == code && subcodes.contains(s) && data.is_none_or(|data| data == d)
            }
            _ => false,
        };
        ensure!(
            right,
            "NOTIFICATION {code}/{subcodes:?} with data {data:?} and the end of the connection are expected; \
             it ended: {end:?}"
        );
        Ok(())
    }
}

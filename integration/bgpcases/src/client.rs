//! The client's end of one connection: octets, messages, and for an established session the routes that the daemon has told of.

use crate::net::{self, Guard};
use crate::read::{self, Route, SeenOpen, Terms};
use crate::roles::Role;
use crate::wire::{self, Open, Prefix, Update};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// How long an honest peer may have to wait until it is taken again.
const RETURN_WAIT: Duration = Duration::from_secs(8);
/// The longest write to a daemon that reads.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// We say something at least so often.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By this NOTIFICATION: code, subcode, data.
    Notified(u8, u8, Vec<u8>),
    /// Without one.
    Closed,
}

/// A connection, or a session.
pub(crate) struct Session {
    pub(crate) role: Role,
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
    start: usize,
    terms: Terms,
    said_last: Instant,
    /// The daemon's OPEN.
    pub(crate) open: Option<SeenOpen>,
    pub(crate) end: Option<End>,
    /// The connection is closed, too.
    pub(crate) closed: bool,
    pub(crate) keepalives: u32,
    /// Messages since the beginning, by type.
    pub(crate) updates: u32,
    /// ROUTE-REFRESH bodies.
    pub(crate) refreshes: Vec<Vec<u8>>,
    pub(crate) routes: BTreeMap<Prefix, Route>,
    /// How often each prefix was announced.
    pub(crate) announced: BTreeMap<Prefix, u32>,
    /// End-of-RIB of IPv4, of IPv6.
    pub(crate) end_of_rib: (u32, u32),
    /// The first unlawful thing that the daemon sent.
    pub(crate) violation: Option<String>,
}

/// The OPEN of an honest peer.
pub(crate) fn honest(role: Role) -> Open {
    Open {
        version: 4,
        asn: role.asn(),
        hold_secs: 90,
        id: role.id(),
        capabilities: vec![
            (1, vec![0, 1, 0, 1]),
            (1, vec![0, 2, 0, 1]),
            (2, Vec::new()),
            (65, u32::from(role.asn()).to_be_bytes().to_vec()),
        ],
        parameters: None,
    }
}

impl Session {
    /// A bare connection; nothing is said.
    pub(crate) fn connect(role: Role, guard: Guard) -> Result<Self> {
        Self::on(role, net::dial(role, guard)?)
    }

    /// The same over a connection that is there.
    pub(crate) fn on(role: Role, stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WAIT))?;
        Ok(Self {
            role,
            stream,
            inbox: Vec::new(),
            start: 0,
            terms: Terms {
                role,
                four_octet_as: true,
                path_ids: false,
                message_max: 4096,
            },
            said_last: Instant::now(),
            open: None,
            end: None,
            closed: false,
            keepalives: 0,
            updates: 0,
            refreshes: Vec::new(),
            routes: BTreeMap::new(),
            announced: BTreeMap::new(),
            end_of_rib: (0, 0),
            violation: None,
        })
    }

    /// A session as an honest peer has it.
    pub(crate) fn establish(role: Role) -> Result<Self> {
        let mut session = Self::establish_with(role, &honest(role), RETURN_WAIT)?;
        // A KEEPALIVE answers our OPEN. That ours has arrived, too, says the first UPDATE: the daemon has prefixes of its own.
        session.wait(|s| s.updates > 0 || s.end.is_some());
        Ok(session)
    }

    /// A session with this OPEN, tried again until the time is over.
    pub(crate) fn establish_with(role: Role, open: &Open, within: Duration) -> Result<Self> {
        let deadline = Instant::now() + within;
        loop {
            match Self::try_establish(role, open, deadline) {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("no session as {role:?} within {within:?}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn try_establish(role: Role, open: &Open, deadline: Instant) -> Result<Self> {
        let mut session = Self::connect(role, Guard::of(role))?;
        session.handshake(open, deadline)?;
        Ok(session)
    }

    /// OPEN and KEEPALIVE, both ways.
    pub(crate) fn handshake(&mut self, open: &Open, deadline: Instant) -> Result<()> {
        self.say_open(open)?;
        ensure!(
            self.pump(deadline, |s| s.open.is_some()) && self.end.is_none(),
            "no OPEN from the daemon, but {:?}",
            self.end
        );
        self.send(&wire::keepalive())?;
        ensure!(
            self.pump(deadline, |s| s.keepalives > 0) && self.end.is_none(),
            "no KEEPALIVE from the daemon, but {:?}",
            self.end
        );
        Ok(())
    }

    /// Sends an OPEN and reads from now on as it says.
    pub(crate) fn say_open(&mut self, open: &Open) -> Result<()> {
        self.terms.four_octet_as = open.wide();
        self.terms.path_ids = open.path_ids();
        if open.capabilities.iter().any(|(c, _)| *c == 6) {
            self.terms.message_max = 65_535;
        }
        self.send(&open.encode())
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.said_last = Instant::now();
        self.stream
            .write_all(octets)
            .with_context(|| format!("writing as {:?}", self.role))
    }

    /// Sends what may already be unwelcome: the daemon may have closed meanwhile.
    pub(crate) fn try_send(&mut self, octets: &[u8]) {
        let _ = self.send(octets);
    }

    pub(crate) fn announce(&mut self, update: &Update) -> Result<()> {
        self.send(&update.encode())
    }

    /// Takes messages until the condition holds, the connection is closed or the time is over. Whether it holds.
    pub(crate) fn pump(&mut self, until: Instant, mut holds: impl FnMut(&Self) -> bool) -> bool {
        loop {
            while let Some((kind, body)) = self.next_message() {
                self.take(kind, &body);
                if holds(self) {
                    return true;
                }
            }
            if holds(self) {
                return true;
            }
            let now = Instant::now();
            if self.closed || now >= until {
                return false;
            }
            if self.open.is_some() && now.duration_since(self.said_last) > KEEPALIVE {
                self.try_send(&wire::keepalive());
            }
            self.read(until - now);
        }
    }

    /// The same within [`PATIENCE`].
    pub(crate) fn wait(&mut self, holds: impl FnMut(&Self) -> bool) -> bool {
        self.pump(Instant::now() + PATIENCE, holds)
    }

    /// Takes what is there.
    pub(crate) fn drain(&mut self) {
        self.pump(Instant::now() + Duration::from_millis(1), |_| false);
    }

    /// Waits for the end of the connection.
    pub(crate) fn ended(&mut self, within: Duration) -> Option<End> {
        self.pump(Instant::now() + within, |s| s.closed || s.end.is_some());
        // After a NOTIFICATION the daemon must close.
        self.pump(Instant::now() + within, |s| s.closed);
        self.end.clone().filter(|_| self.closed)
    }

    fn read(&mut self, wait: Duration) {
        if self.start > 0 {
            self.inbox.drain(..self.start);
            self.start = 0;
        }
        let wait = wait.max(Duration::from_millis(1)).min(KEEPALIVE);
        let _ = self.stream.set_read_timeout(Some(wait));
        let mut octets = vec![0; 1 << 16];
        match self.stream.read(&mut octets) {
            Ok(0) => self.close(),
            Ok(n) => self.inbox.extend_from_slice(octets.get(..n).unwrap_or_default()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => self.close(),
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.end.get_or_insert(End::Closed);
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let rest = self.inbox.get(self.start..)?;
        let (head, _) = rest.split_first_chunk::<{ wire::HEADER }>()?;
        let len = usize::from(u16::from_be_bytes([head[16], head[17]]));
        if head[..16] != [0xff; 16] || len < wire::HEADER || len > self.terms.message_max {
            self.complain(format!("a header that is none: {head:?}"));
            self.close();
            return None;
        }
        let body = rest.get(wire::HEADER..len)?.to_vec();
        self.start += len;
        Some((head[18], body))
    }

    fn complain(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (wire::OPEN, body) => match read::open(body) {
                Ok(open) => self.open = Some(open),
                Err(what) => self.complain(what),
            },
            (wire::UPDATE, body) => {
                self.updates += 1;
                match read::update(body, self.terms) {
                    Ok(said) => self.learn(said),
                    Err(what) => self.complain(format!("an unlawful UPDATE: {what}: {body:?}")),
                }
            }
            (wire::NOTIFICATION, [code, subcode, data @ ..]) => {
                self.end = Some(End::Notified(*code, *subcode, data.to_vec()));
            }
            (wire::KEEPALIVE, []) => self.keepalives += 1,
            (wire::REFRESH, body) if body.len() == 4 => self.refreshes.push(body.to_vec()),
            (kind, body) => self.complain(format!("message of type {kind}: {body:?}")),
        }
    }

    fn learn(&mut self, said: read::Said) {
        match said.end_of_rib {
            Some(false) => self.end_of_rib.0 += 1,
            Some(true) => self.end_of_rib.1 += 1,
            None => {}
        }
        for prefix in said.withdrawn {
            self.routes.remove(&prefix);
        }
        for prefix in said.announced {
            let mut route = said.route.clone();
            if prefix.v6 || route.next_hop.is_empty() {
                route.next_hop.clone_from(&said.next_hop_v6);
            }
            *self.announced.entry(prefix.clone()).or_default() += 1;
            self.routes.insert(prefix, route);
        }
    }

    /// A sound route of this peer.
    pub(crate) fn sound(&self, prefixes: &[&Prefix]) -> Update {
        sound(self.role, prefixes)
    }

    /// Waits until the daemon has told of this route, and returns it.
    pub(crate) fn expect(&mut self, prefix: &Prefix) -> Result<Route> {
        let there = self.wait(|s| s.routes.contains_key(prefix));
        let route = self.routes.get(prefix).cloned().filter(|_| there);
        route.with_context(|| format!("{prefix:?} does not come to {:?} ({:?})", self.role, self.end))
    }

    /// Waits until the daemon has told that this route is such.
    pub(crate) fn expect_such(
        &mut self,
        prefix: &Prefix,
        what: &str,
        such: impl Fn(&Route) -> bool,
    ) -> Result<Route> {
        self.wait(|s| s.routes.get(prefix).is_some_and(&such));
        match self.routes.get(prefix) {
            Some(route) if such(route) => Ok(route.clone()),
            other => bail!(
                "{:?} has {prefix:?} as {other:?}, and {what} is expected",
                self.role
            ),
        }
    }

    /// Waits until the daemon has taken this route back.
    pub(crate) fn expect_gone(&mut self, prefix: &Prefix) -> Result<()> {
        let gone = self.wait(|s| !s.routes.contains_key(prefix));
        ensure!(gone, "{prefix:?} stays at {:?}", self.role);
        Ok(())
    }

    /// The session must be alive and nothing unlawful have come.
    pub(crate) fn alive(&mut self) -> Result<()> {
        self.drain();
        ensure!(
            self.end.is_none(),
            "the session of {:?} ended: {:?}",
            self.role,
            self.end
        );
        self.lawful()
    }

    pub(crate) fn lawful(&self) -> Result<()> {
        match &self.violation {
            Some(what) => bail!("{:?} was sent {what}", self.role),
            None => Ok(()),
        }
    }
}

/// A sound route of a peer, for both families at once where the prefixes are.
pub(crate) fn sound(role: Role, prefixes: &[&Prefix]) -> Update {
    let mut update = Update::default();
    update.set(0x40, 1, &[0]);
    let path = if role.internal() {
        vec![64_600]
    } else {
        role.path()
    };
    update.set(0x40, 2, &wire::sequence(&path));
    if prefixes.iter().any(|p| !p.v6) {
        update.set(0x40, 3, &role.id().octets());
    }
    if role.internal() {
        update.set(0x40, 5, &100_u32.to_be_bytes());
    }
    let of = |v6: bool| {
        let field = prefixes.iter().filter(|p| p.v6 == v6);
        field.flat_map(|p| p.nlri.clone()).collect::<Vec<u8>>()
    };
    update.nlri = of(false);
    let v6 = of(true);
    if !v6.is_empty() {
        update.set(0x80, 14, &wire::mp_reach(2, 1, &role.v6().octets(), &v6));
    }
    update
}

/// The same prefixes, withdrawn.
pub(crate) fn withdrawal(prefixes: &[&Prefix]) -> Update {
    let of = |v6: bool| {
        let field = prefixes.iter().filter(|p| p.v6 == v6);
        field.flat_map(|p| p.nlri.clone()).collect::<Vec<u8>>()
    };
    let mut update = Update {
        withdrawn: of(false),
        ..Update::default()
    };
    let v6 = of(true);
    if !v6.is_empty() {
        update.set(0x80, 15, &wire::mp_unreach(&v6));
    }
    update
}

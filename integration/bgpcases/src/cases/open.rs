//! OPEN (RFC 4271 section 6.2, RFC 5492, RFC 6286, RFC 6793, RFC 9072).

mod lines;

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, honest, withdrawal};
use crate::roles::{DUT, DUT_AS, Role};
use crate::wire::{self, Open, extended, triples};
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Instant;

use super::header::answered;

/// What becomes of an OPEN.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A session, over which a route is passed on.
    Session,
    /// NOTIFICATION 2/x with one of these subcodes.
    Refused(&'static [u8]),
    /// So, with this data.
    RefusedWith(u8, &'static [u8]),
    /// Any NOTIFICATION.
    Ended,
    /// Any NOTIFICATION, or a session.
    Lives,
}

type Line = (&'static str, &'static str, Role, fn(&mut Open), Fate);

use Fate::{Ended, Lives, Refused, RefusedWith};
use Role::{External, Internal};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, basis, role, change, fate) in [lines::fields(), lines::parameters(), lines::capabilities()]
        .into_iter()
        .flatten()
    {
        cases.push(script(&format!("OPEN: {name}"), basis, move |w| {
            line(w, role, change, fate)
        }));
    }
    cases.push(script(
        "OPEN: the daemon's own is lawful",
        "4271 4.2, 5492",
        its_own,
    ));
    cases.push(script(
        "OPEN: no capabilities: IPv4 only, two-octet AS",
        "4760 8, 6793 4",
        bare,
    ));
    cases.push(script("OPEN: IPv6 only: no IPv4 routes", "4760 8", v6_only));
    cases.push(script("OPEN: of 4,096 octets", "9072 2, 8654 3", of_4096_octets));
    cases
}

fn line(world: &mut World, role: Role, change: fn(&mut Open), fate: Fate) -> Result<()> {
    world.close(role);
    let mut open = honest(role);
    change(&mut open);
    let mut session = answered(role)?;
    session.say_open(&open)?;
    match fate {
        Fate::Session => goes_on(world, session, &open)?,
        Refused(subcodes) => World::notified(&mut session, 2, subcodes, None)?,
        RefusedWith(subcode, data) => World::notified(&mut session, 2, &[subcode], Some(data))?,
        Ended => {
            let end = session.ended(PATIENCE);
            ensure!(
                matches!(end, Some(End::Notified(1 | 2, ..))),
                "NOTIFICATION 1 or 2 is expected, not {end:?}"
            );
        }
        Lives => {
            session.wait(|s| s.keepalives > 0 || s.end.is_some());
            if session.end.is_none() {
                goes_on(world, session, &open)?;
            }
        }
    }
    let after = Session::establish(role)?;
    world.keep(after);
    world.check()
}

/// Finishes the handshake and has a route passed on.
fn goes_on(world: &mut World, mut session: Session, open: &Open) -> Result<()> {
    session.send(&wire::keepalive())?;
    ensure!(
        session.wait(|s| s.keepalives > 0),
        "no KEEPALIVE: {:?}",
        session.end
    );
    let families = open.capabilities.iter().filter(|(c, _)| *c == 1).count();
    let v4 = open.parameters.is_some() || families == 0 || open.capabilities.contains(&(1, vec![0, 1, 0, 1]));
    if v4 {
        let prefix = world.own().v4(0);
        let mut update = session.sound(&[&prefix]);
        if !open.wide() {
            let [a, b] = session.role.asn().to_be_bytes();
            update.value(2, &[2, 1, a, b]);
        }
        session.announce(&update)?;
        world.sees(&prefix)?;
    }
    session.alive()
}

fn its_own(world: &mut World) -> Result<()> {
    for role in [External, Internal] {
        world.close(role);
        let session = answered(role)?;
        let open = session.open.clone();
        let open = open.ok_or_else(|| anyhow::anyhow!("no OPEN"))?;
        ensure!(
            (open.version, u32::from(open.asn), open.id) == (4, DUT_AS, DUT),
            "{open:?}"
        );
        ensure!(open.hold_secs == 90, "hold time {}", open.hold_secs);
        ensure!(
            open.capability(65) == Some(&DUT_AS.to_be_bytes()),
            "four-octet AS: {open:?}"
        );
        ensure!(open.capability(2) == Some(&[]), "route refresh: {open:?}");
        for family in [[0, 1, 0, 1], [0, 2, 0, 1]] {
            let there = open.capabilities.iter().any(|(c, v)| *c == 1 && v[..] == family);
            ensure!(there, "family {family:?}: {open:?}");
        }
    }
    world.check()
}

fn bare(world: &mut World) -> Result<()> {
    world.close(External);
    let mut open = honest(External);
    open.parameters = Some(vec![0]);
    open.capabilities.clear();
    let mut session = Session::establish_with(External, &open, PATIENCE)?;
    let prefix = world.own().v4(0);
    let mut update = session.sound(&[&prefix]);
    update.value(2, &[2, 1, 0xfd, 0xe9]);
    session.announce(&update)?;
    let seen = world.sees(&prefix)?;
    ensure!(seen.path() == [DUT_AS, 65_001], "{seen:?}");
    ensure!(
        session.wait(|s| !s.routes.is_empty()),
        "no routes for a speaker without capabilities"
    );
    session.pump(Instant::now() + PATIENCE / 10, |_| false);
    ensure!(
        session.routes.keys().all(|p| !p.v6),
        "IPv6 routes that were not agreed on"
    );
    session.alive()
}

fn v6_only(world: &mut World) -> Result<()> {
    world.close(External);
    let mut open = honest(External);
    open.capabilities.retain(|c| *c != (1, vec![0, 1, 0, 1]));
    let mut session = Session::establish_with(External, &open, PATIENCE)?;
    ensure!(session.wait(|s| s.routes.keys().any(|p| p.v6)), "no IPv6 routes");
    session.pump(Instant::now() + PATIENCE / 10, |_| false);
    ensure!(
        session.routes.keys().all(|p| p.v6),
        "IPv4 routes that were not agreed on"
    );
    let own = world.own();
    session.announce(&session.sound(&[&own.v6(0)]))?;
    world.sees(&own.v6(0))?;
    session.announce(&withdrawal(&[&own.v6(0)]))?;
    world.gone(&own.v6(0))
}

fn of_4096_octets(world: &mut World) -> Result<()> {
    world.close(External);
    let mut open = honest(External);
    let mut many = open.capabilities.clone();
    let (head, each) = (29 + 4 - 1 + 3, 2 + 200);
    // Header, fixed fields, extended lengths; what is left over goes into one more capability.
    let mut room = 4096 - head - triples(&many).len();
    while room > 2 * each + 2 {
        many.push((222, vec![7; 200]));
        room -= each;
    }
    many.push((223, vec![8; room - each - 2]));
    many.push((224, vec![9; 200]));
    open.parameters = Some(extended(&triples(&many)));
    ensure!(
        open.encode().len() == 4096,
        "it has {} octets",
        open.encode().len()
    );
    let mut session = Session::establish_with(External, &open, PATIENCE)?;
    session.alive()?;
    world.check()
}

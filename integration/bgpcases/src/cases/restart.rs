//! Graceful restart (RFC 4724) and its NOTIFICATIONs (RFC 8538), the daemon as the helper.

use crate::case::{Case, script};
use crate::client::{PATIENCE, Session, honest, withdrawal};
use crate::roles::Role;
use crate::wire::{Open, Prefix, UPDATE, message, mp_unreach, notification, raw};
use crate::world::{Own, World};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Restart State, N bit, Forwarding State.
const RESTARTED: u16 = 0x8000;
const NOTIFIED: u16 = 0x4000;
const PRESERVED: u8 = 0x80;

pub(super) fn cases() -> Vec<Case> {
    vec![
        script("restart: routes stay over a lost connection", "4724 4.2", |w| {
            comes_back(w, PRESERVED, true)
        }),
        script(
            "restart: what does not come again goes at End-of-RIB",
            "4724 4.2",
            not_again,
        ),
        script(
            "restart: back without forwarding state: routes go",
            "4724 4.2",
            |w| comes_back(w, 0, false),
        ),
        script(
            "restart: back without the family: routes go",
            "4724 4.2",
            back_without_family,
        ),
        script(
            "restart: back without the capability: routes go",
            "4724 4.2",
            back_without,
        ),
        script("restart: not back in time: routes go", "4724 4.2", not_back),
        script(
            "restart: a family that was not listed goes at once",
            "4724 4.2",
            one_family,
        ),
        script(
            "restart: a new connection instead of the old one",
            "4724 5",
            replaced,
        ),
        script(
            "restart: our NOTIFICATION without the N bit: routes go",
            "4724 4",
            |w| notified(w, 0, &notification(6, 4, &[]), false),
        ),
        script(
            "restart: our NOTIFICATION with the N bit: routes stay",
            "8538 4",
            |w| notified(w, NOTIFIED, &notification(6, 4, &[]), true),
        ),
        script("restart: our hard reset: routes go", "8538 3", |w| {
            notified(w, NOTIFIED, &notification(6, 9, &[6, 4]), false)
        }),
        script("restart: an error of ours: routes go", "4724 4", |w| {
            mistaken(w, 0)
        }),
        script("restart: without the capability routes go", "4271 8.2.2", without),
        script(
            "restart: the daemon's End-of-RIB of both families",
            "4724 4.1",
            its_end_of_rib,
        ),
        script(
            "restart: End-of-RIB with a stale family twice",
            "4724 4.2",
            end_of_rib_twice,
        ),
    ]
}

fn open(role: Role, flags: u16, secs: u16, families: &[(u8, u8)]) -> Open {
    let mut value = (flags | secs).to_be_bytes().to_vec();
    for (afi, preserved) in families {
        value.extend([0, *afi, 1, *preserved]);
    }
    let mut open = honest(role);
    open.set(64, &value);
    open
}

const BOTH: [(u8, u8); 2] = [(1, PRESERVED), (2, PRESERVED)];

/// A session with graceful restart, its routes, and the watchers that have them.
fn started(world: &mut World, open: &Open) -> Result<(Session, Own)> {
    world.close(Role::External);
    // Whoever was here before may have been without the capability: nothing of it is left.
    let session = Session::establish_with(Role::External, open, PATIENCE * 2)?;
    let own = world.own();
    let mut session = session;
    ensure!(
        session.open.as_ref().is_some_and(|o| o.capability(64).is_some()),
        "the daemon does not offer graceful restart"
    );
    world.announce(&mut session, &[&own.v4(0), &own.v4(1), &own.v6(0)])?;
    session.send(&ends())?;
    Ok((session, own))
}

/// End-of-RIB of both families.
fn ends() -> Vec<u8> {
    let mut update = crate::wire::Update::default();
    update.set(0x80, 15, &mp_unreach(&[]));
    [message(UPDATE, &[0; 4]), update.encode()].concat()
}

fn stay(world: &mut World, prefixes: &[Prefix]) -> Result<()> {
    // A route of somebody else makes the round, so that a withdrawal would have come.
    let own = world.own();
    let mut other = world.session(Role::Second)?;
    world.settle(&mut other, &own)?;
    world.keep(other);
    let there = prefixes
        .iter()
        .all(|p| world.observer.routes.contains_key(p) && world.client.routes.contains_key(p));
    ensure!(there, "routes are gone that should stay");
    Ok(())
}

fn back(open: &Open) -> Result<Session> {
    Session::establish_with(Role::External, open, PATIENCE)
}

/// Ends a case: the peer withdraws all and says so.
fn leave(world: &mut World, mut session: Session, own: &Own) -> Result<()> {
    session.announce(&withdrawal(&[&own.v4(0), &own.v4(1), &own.v6(0)]))?;
    for prefix in [own.v4(0), own.v4(1), own.v6(0)] {
        world.gone(&prefix)?;
    }
    session.alive()?;
    session.send(&notification(6, 9, &[6, 2]))?;
    world.check()
}

fn comes_back(world: &mut World, preserved: u8, stays: bool) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    let all = [own.v4(0), own.v4(1), own.v6(0)];
    drop(session);
    stay(world, &all).context("after the connection was lost")?;
    let again = open(Role::External, RESTARTED, 120, &[(1, preserved), (2, preserved)]);
    let mut session = back(&again)?;
    if stays {
        stay(world, &all).context("after the peer came back")?;
        session.announce(&session.sound(&[&own.v4(0), &own.v4(1), &own.v6(0)]))?;
        session.send(&ends())?;
        stay(world, &all).context("after End-of-RIB")?;
    } else {
        all.iter().try_for_each(|p| world.gone(p))?;
    }
    leave(world, session, &own)
}

fn not_again(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    drop(session);
    let mut session = back(&open(Role::External, RESTARTED, 120, &BOTH))?;
    session.announce(&session.sound(&[&own.v4(0), &own.v6(0)]))?;
    stay(world, &[own.v4(1)]).context("before End-of-RIB")?;
    session.send(&ends())?;
    world.gone(&own.v4(1))?;
    stay(world, &[own.v4(0), own.v6(0)]).context("after End-of-RIB")?;
    leave(world, session, &own)
}

fn back_without_family(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    drop(session);
    let session = back(&open(Role::External, RESTARTED, 120, &[(1, PRESERVED)]))?;
    world.gone(&own.v6(0))?;
    stay(world, &[own.v4(0)])?;
    leave(world, session, &own)
}

fn back_without(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    drop(session);
    let session = back(&honest(Role::External))?;
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    leave(world, session, &own)
}

fn not_back(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 1, &BOTH))?;
    drop(session);
    let begun = Instant::now();
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    let waited = begun.elapsed();
    ensure!(
        waited > Duration::from_millis(800),
        "gone after {waited:?}, the restart time is 1 s"
    );
    world.check()
}

fn one_family(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &[(2, PRESERVED)]))?;
    drop(session);
    world.gone(&own.v4(0))?;
    stay(world, &[own.v6(0)])?;
    let session = back(&open(Role::External, RESTARTED, 120, &BOTH))?;
    leave(world, session, &own)
}

fn replaced(world: &mut World) -> Result<()> {
    let (old, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    let session =
        back(&open(Role::External, RESTARTED, 120, &BOTH)).context("while the old connection stands")?;
    stay(world, &[own.v4(0), own.v4(1), own.v6(0)])?;
    drop(old);
    stay(world, &[own.v4(0), own.v4(1), own.v6(0)])?;
    leave(world, session, &own)
}

fn notified(world: &mut World, flags: u16, octets: &[u8], stays: bool) -> Result<()> {
    let (mut session, own) = started(world, &open(Role::External, flags, 120, &BOTH))?;
    let offered = session
        .open
        .as_ref()
        .and_then(|o| o.capability(64).map(<[u8]>::to_vec));
    let both = offered.is_some_and(|v| v.first().is_some_and(|f| f & 0x40 != 0));
    session.send(octets)?;
    // Closed by us with something of the daemon's unread, the connection would end in a reset, which can overtake the NOTIFICATION.
    ensure!(
        session.wait(|s| s.end.is_some()),
        "the daemon does not close the connection after a NOTIFICATION"
    );
    drop(session);
    if stays && both {
        stay(world, &[own.v4(0), own.v6(0)])?;
        let session = back(&open(Role::External, flags | RESTARTED, 120, &BOTH))?;
        return leave(world, session, &own);
    }
    ensure!(!stays, "the daemon does not offer the N bit");
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    world.check()
}

fn mistaken(world: &mut World, flags: u16) -> Result<()> {
    let (mut session, own) = started(world, &open(Role::External, flags, 120, &BOTH))?;
    session.send(&raw(19, 77, &[]))?;
    World::notified(&mut session, 1, &[3], None)?;
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    world.check()
}

fn without(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let mut session = Session::establish(Role::External)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0), &own.v6(0)])?;
    drop(session);
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    world.check()
}

fn its_end_of_rib(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let mut session = back(&open(Role::External, 0, 120, &BOTH))?;
    ensure!(
        session.wait(|s| s.end_of_rib == (1, 1)),
        "{:?}",
        session.end_of_rib
    );
    session.alive()?;
    session.send(&notification(6, 9, &[6, 2]))?;
    world.check()
}

fn end_of_rib_twice(world: &mut World) -> Result<()> {
    let (session, own) = started(world, &open(Role::External, 0, 120, &BOTH))?;
    drop(session);
    let mut session = back(&open(Role::External, RESTARTED, 120, &BOTH))?;
    session.announce(&session.sound(&[&own.v4(0), &own.v4(1), &own.v6(0)]))?;
    session.send(&[ends(), ends()].concat())?;
    stay(world, &[own.v4(0), own.v4(1), own.v6(0)])?;
    leave(world, session, &own)
}

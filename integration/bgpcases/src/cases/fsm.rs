//! The state machine (RFC 4271 sections 6.6, 6.7, 6.8 and 8, RFC 6608).

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, honest};
use crate::net::{self, Guard};
use crate::roles::Role;
use crate::wire::{self, REFRESH, notification};
use crate::world::World;
use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use super::header::answered;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = unexpected();
    cases.extend([
        script("FSM: NOTIFICATION in OpenSent is not answered", "4271 6.4", |w| {
            told(w, 0)
        }),
        script(
            "FSM: NOTIFICATION in OpenConfirm is not answered",
            "4271 6.4",
            |w| told(w, 1),
        ),
        script(
            "FSM: NOTIFICATION in Established is not answered",
            "4271 6.4",
            |w| told(w, 2),
        ),
        script(
            "FSM: NOTIFICATION of no known code",
            "4271 6.4, CVE-2018-5380",
            |w| says_and_ends(w, &notification(255, 255, &[])),
        ),
        script("FSM: NOTIFICATION with 4,000 octets of data", "4271 6.4", |w| {
            says_and_ends(w, &notification(6, 2, &[0xa5; 4000]))
        }),
        script(
            "FSM: shutdown text longer than it is",
            "9003, CVE-2019-16159",
            |w| says_and_ends(w, &notification(6, 2, &[200, b'b'])),
        ),
        script("FSM: shutdown text that is no UTF-8", "9003", |w| {
            says_and_ends(w, &notification(6, 2, &[3, 0xff, 0xfe, 0xc0]))
        }),
        script("FSM: closed without a word: routes go", "4271 8.2.2", closed),
        script("FSM: reset by TCP: routes go", "4271 8.2.2", tcp_reset),
        script("FSM: silence after connecting blocks nobody", "4271 6.8", silence),
        script(
            "FSM: 16 silent connections block nobody",
            "4271 6.8",
            many_silences,
        ),
        script(
            "FSM: a second connection leaves the session alone",
            "4271 6.8",
            second,
        ),
        script("FSM: collision, our identifier is higher", "4271 6.8", |w| {
            collision(w, Ipv4Addr::new(10, 200, 0, 1))
        }),
        script("FSM: collision, our identifier is lower", "4271 6.8", |w| {
            collision(w, Ipv4Addr::new(10, 1, 0, 1))
        }),
        script("FSM: the daemon dials", "4271 8", dials),
        script("FSM: a stranger gets no session", "4271 8.2.1", stranger),
        script("FSM: a dynamic neighbour", "the issue: range", dynamic),
    ]);
    cases
}

/// Messages in states where they do not belong.
fn unexpected() -> Vec<Case> {
    let update = || wire::message(wire::UPDATE, &[0; 4]);
    let refresh = || wire::message(REFRESH, &[0, 1, 0, 1]);
    let keepalive = wire::keepalive;
    let mut cases = Vec::new();
    for (name, octets, data) in [
        ("UPDATE", update as fn() -> Vec<u8>, 2_u8),
        ("KEEPALIVE", keepalive, 4),
        ("ROUTE-REFRESH", refresh, 5),
    ] {
        for role in [Role::External, Role::Internal] {
            cases.push(script(
                &format!("FSM: {name} in OpenSent ({role:?})"),
                "6608 4",
                move |w| {
                    w.close(role);
                    let mut session = answered(role)?;
                    session.send(&octets())?;
                    World::notified(&mut session, 5, &[1], Some(&[data]))?;
                    w.check()
                },
            ));
        }
    }
    for (name, octets, data) in [
        ("UPDATE", update as fn() -> Vec<u8>, 2_u8),
        ("ROUTE-REFRESH", refresh, 5),
    ] {
        cases.push(script(
            &format!("FSM: {name} in OpenConfirm"),
            "6608 4",
            move |w| {
                let mut session = confirmed(w)?;
                session.send(&octets())?;
                World::notified(&mut session, 5, &[2], Some(&[data]))?;
                w.check()
            },
        ));
    }
    cases.push(script("FSM: OPEN in OpenConfirm", "4271 8.2.2, 6608 4", |w| {
        let mut session = confirmed(w)?;
        session.send(&honest(Role::External).encode())?;
        let end = session.ended(PATIENCE);
        ensure!(
            matches!(end, Some(End::Notified(5, 0 | 2, _) | End::Notified(6, 7, _))),
            "{end:?}"
        );
        w.check()
    }));
    cases.push(script("FSM: OPEN in Established", "6608 4", |w| {
        w.close(Role::External);
        let mut session = Session::establish(Role::External)?;
        let prefix = w.own().v4(0);
        w.announce(&mut session, &[&prefix])?;
        session.send(&honest(Role::External).encode())?;
        World::notified(&mut session, 5, &[0, 3], None)?;
        w.gone(&prefix)?;
        w.check()
    }));
    cases
}

fn confirmed(world: &mut World) -> Result<Session> {
    world.close(Role::External);
    let mut session = answered(Role::External)?;
    session.say_open(&honest(Role::External))?;
    ensure!(
        session.wait(|s| s.keepalives > 0),
        "no KEEPALIVE: {:?}",
        session.end
    );
    Ok(session)
}

fn told(world: &mut World, state: u8) -> Result<()> {
    world.close(Role::External);
    let mut session = match state {
        0 => answered(Role::External)?,
        1 => confirmed(world)?,
        _ => Session::establish(Role::External)?,
    };
    session.send(&notification(6, 4, &[]))?;
    let end = session.ended(PATIENCE);
    ensure!(end == Some(End::Closed), "{end:?}");
    world.keep(Session::establish(Role::External)?);
    world.check()
}

fn says_and_ends(world: &mut World, octets: &[u8]) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    session.send(octets)?;
    let end = session.ended(PATIENCE);
    ensure!(end == Some(End::Closed), "{end:?}");
    world.gone(&prefix)?;
    world.keep(Session::establish(Role::External)?);
    world.check()
}

fn closed(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

fn tcp_reset(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    socket2::SockRef::from(&session.stream).set_linger(Some(Duration::ZERO))?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

fn silence(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let _silent = Session::connect(Role::External, Guard::default())?;
    let session = Session::establish_with(Role::External, &honest(Role::External), Duration::from_secs(1))?;
    world.keep(session);
    world.check()
}

fn many_silences(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let _silent: Vec<_> = (0..16)
        .filter_map(|_| Session::connect(Role::External, Guard::default()).ok())
        .collect();
    let session = Session::establish_with(Role::External, &honest(Role::External), Duration::from_secs(1))?;
    world.keep(session);
    world.check()
}

/// Without graceful restart an established session stays, and the new connection is the one that goes.
fn second(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    let mut other = Session::connect(Role::External, Guard::default())?;
    other.try_send(&honest(Role::External).encode());
    let end = other.ended(PATIENCE);
    ensure!(
        matches!(end, Some(End::Closed | End::Notified(6, 5 | 7, _))),
        "the second connection: {end:?}"
    );
    session.alive()?;
    world.sees(&prefix)?;
    world.keep(session);
    world.check()
}

fn accept(listener: &TcpListener, role: Role) -> Result<Session> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Session::on(role, stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => bail!("the daemon does not dial: {error}"),
        }
    }
}

/// Both sides dial, both connections get as far as an OPEN of the daemon's; then our OPENs come.
fn collision(world: &mut World, id: Ipv4Addr) -> Result<()> {
    let listener = net::listen(Role::Dialled)?;
    let mut theirs = accept(&listener, Role::Dialled)?;
    ensure!(
        theirs.wait(|s| s.open.is_some()),
        "no OPEN on the connection that the daemon dialled"
    );
    let mut ours = Session::connect(Role::Dialled, Guard::default())?;
    let mut open = honest(Role::Dialled);
    open.id = id;
    ours.wait(|s| s.open.is_some() || s.end.is_some());
    ours.try_send(&open.encode());
    ours.wait(|s| s.keepalives > 0 || s.end.is_some());
    theirs.try_send(&open.encode());
    // The daemon's identifier is 10.99.0.1: the side with the higher one keeps the connection that it dialled.
    let (winner, loser) = if u32::from(id) > u32::from(crate::roles::DUT) {
        (&mut ours, &mut theirs)
    } else {
        (&mut theirs, &mut ours)
    };
    let end = loser.ended(PATIENCE);
    ensure!(
        matches!(end, Some(End::Notified(6, 7, _))),
        "the loser ended: {end:?}"
    );
    winner.try_send(&wire::keepalive());
    ensure!(
        winner.wait(|s| s.keepalives > 0),
        "the winner ended: {:?}",
        winner.end
    );
    let prefix = world.own().v4(0);
    winner.announce(&winner.sound(&[&prefix]))?;
    world.sees(&prefix).context("over the connection that is left")?;
    winner.alive()?;
    world.check()
}

fn dials(world: &mut World) -> Result<()> {
    let listener = net::listen(Role::Dialled)?;
    let mut session = accept(&listener, Role::Dialled)?;
    session.handshake(&honest(Role::Dialled), Instant::now() + PATIENCE)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    // It comes back by itself.
    session.send(&notification(6, 4, &[]))?;
    drop(session);
    let mut session = accept(&listener, Role::Dialled)?;
    session.handshake(&honest(Role::Dialled), Instant::now() + PATIENCE)?;
    world.check()
}

fn stranger(world: &mut World) -> Result<()> {
    let Ok(mut session) = Session::connect(Role::Stranger, Guard::default()) else {
        return world.check();
    };
    session.try_send(&honest(Role::Stranger).encode());
    let end = session.ended(PATIENCE);
    ensure!(
        matches!(end, Some(End::Closed | End::Notified(6, 5, _))),
        "{end:?}"
    );
    ensure!(session.open.is_none(), "it was answered by an OPEN");
    world.check()
}

fn dynamic(world: &mut World) -> Result<()> {
    let mut session = Session::establish(Role::Dynamic)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    Session::establish(Role::Dynamic)?;
    world.check()
}

//! Message headers (RFC 4271 section 6.1) in every state that reads them.

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, honest};
use crate::net::Guard;
use crate::roles::Role;
use crate::wire::{self, KEEPALIVE, NOTIFICATION, OPEN, REFRESH, UPDATE, raw};
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Instant;

/// How far a connection is brought before the bad header comes.
#[derive(Clone, Copy, Debug)]
enum State {
    OpenSent,
    OpenConfirm,
    Established,
}

const STATES: [State; 3] = [State::OpenSent, State::OpenConfirm, State::Established];

/// Name, message, and the NOTIFICATION 1/x with its data.
type Line = (&'static str, Vec<u8>, u8, Vec<u8>);

fn lines() -> Vec<Line> {
    let marker = |place: usize| {
        let mut octets = wire::keepalive();
        if let Some(octet) = octets.get_mut(place) {
            *octet = 0;
        }
        octets
    };
    let length = |name, claimed: u16, kind, body: &[u8]| -> Line {
        (name, raw(claimed, kind, body), 2, claimed.to_be_bytes().to_vec())
    };
    vec![
        ("first octet of the marker", marker(0), 1, vec![]),
        ("last octet of the marker", marker(15), 1, vec![]),
        length("length 0", 0, KEEPALIVE, &[]),
        length("length 18", 18, KEEPALIVE, &[]),
        length("length 4,097", 4097, UPDATE, &[]),
        length("length 65,535", 65_535, UPDATE, &[]),
        length("KEEPALIVE of 20 octets", 20, KEEPALIVE, &[0]),
        length("UPDATE of 22 octets", 22, UPDATE, &[0; 3]),
        length("OPEN of 28 octets", 28, OPEN, &[0; 9]),
        ("type 0", raw(19, 0, &[]), 3, vec![0]),
        ("type 6", raw(19, 6, &[]), 3, vec![6]),
        ("type 255", raw(30, 255, &[0; 11]), 3, vec![255]),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, octets, subcode, data) in lines() {
        for state in STATES {
            let (octets, data) = (octets.clone(), data.clone());
            cases.push(script(
                &format!("header: {name} in {state:?}"),
                "4271 6.1",
                move |w| {
                    let mut session = in_state(w, Role::External, state)?;
                    session.send(&octets)?;
                    // The marker's error has no data of its own.
                    let data = (subcode != 1).then_some(&data[..]);
                    if unexpected(&octets, state)
                        && matches!(session.ended(PATIENCE), Some(End::Notified(5, ..)))
                    {
                        return w.check();
                    }
                    World::notified(&mut session, 1, &[subcode], data)?;
                    w.check()
                },
            ));
        }
    }
    cases.push(script("header: NOTIFICATION of 20 octets", "4271 6.1", |w| {
        let mut session = in_state(w, Role::External, State::Established)?;
        session.send(&raw(20, NOTIFICATION, &[6]))?;
        ensure!(session.ended(PATIENCE).is_some(), "the session goes on");
        w.check()
    }));
    cases.push(script("header: ROUTE-REFRESH of 22 octets", "7313 5", |w| {
        let mut session = in_state(w, Role::External, State::Established)?;
        session.send(&raw(22, REFRESH, &[0, 1, 0]))?;
        let end = session.ended(PATIENCE);
        ensure!(
            matches!(end, Some(End::Notified(7, 1, _) | End::Notified(1, 2, _))),
            "{end:?}"
        );
        w.check()
    }));
    cases.push(script("header: internal, type 77", "4271 6.1", |w| {
        let mut session = in_state(w, Role::Internal, State::Established)?;
        session.send(&raw(19, 77, &[]))?;
        World::notified(&mut session, 1, &[3], Some(&[77]))?;
        w.check()
    }));
    cases
}

/// Whether a message of this type is an error in this state whatever its length (section 6.6): of two errors either may be named.
fn unexpected(octets: &[u8], state: State) -> bool {
    match (octets.get(18), state) {
        (Some(&OPEN), State::OpenSent) => false,
        (Some(&OPEN), _) => true,
        (Some(&(KEEPALIVE | UPDATE)), State::OpenSent) | (Some(&UPDATE), State::OpenConfirm) => true,
        _ => false,
    }
}

fn in_state(world: &mut World, role: Role, state: State) -> Result<Session> {
    world.close(role);
    if matches!(state, State::Established) {
        return Session::establish(role);
    }
    let mut session = answered(role)?;
    if matches!(state, State::OpenConfirm) {
        session.say_open(&honest(role))?;
        ensure!(
            session.wait(|s| s.keepalives > 0),
            "no KEEPALIVE: {:?}",
            session.end
        );
    }
    Ok(session)
}

/// A connection on which the daemon has said its OPEN and we have said nothing.
pub(super) fn answered(role: Role) -> Result<Session> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut session = Session::connect(role, Guard::of(role))?;
        if session.pump(deadline, |s| s.open.is_some()) {
            return Ok(session);
        }
        ensure!(
            Instant::now() < deadline,
            "no OPEN as {role:?}: {:?}",
            session.end
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

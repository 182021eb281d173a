//! Timers: hold, keepalive, send hold, connect retry. They take seconds, so each has peers of its own and all run side by side.

use crate::case::{Case, alone};
use crate::client::{End, Session, honest};
use crate::net;
use crate::roles::Role;
use crate::wire::{self, keepalive};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const HOLD_SECS: u16 = 3;

pub(super) fn cases() -> Vec<Case> {
    vec![
        alone(
            "timers: hold time runs out, keepalives until then",
            "4271 6.5, 4.4",
            hold,
        ),
        alone(
            "timers: octets that are no whole message do not keep it alive",
            "4271 6.5",
            trickle,
        ),
        alone(
            "timers: hold time 0: silence both ways, for ever",
            "4271 4.4",
            none,
        ),
        alone(
            "timers: the daemon dials again and again",
            "4271 8.2.2, the issue: connectRetry",
            retry,
        ),
    ]
}

fn session(role: Role, hold_secs: u16) -> Result<Session> {
    let mut open = honest(role);
    open.hold_secs = hold_secs;
    Session::establish_with(role, &open, Duration::from_secs(5))
}

fn runs_out(session: &mut Session, begun: Instant) -> Result<()> {
    let end = session.ended(Duration::from_secs(6));
    let after = begun.elapsed();
    ensure!(
        matches!(end, Some(End::Notified(4, ..))),
        "{end:?} after {after:?}"
    );
    let hold = Duration::from_secs(HOLD_SECS.into());
    ensure!(
        after + Duration::from_millis(300) > hold && after < hold * 2,
        "after {after:?}"
    );
    Ok(())
}

fn hold() -> Result<()> {
    let mut session = session(Role::Idle, HOLD_SECS)?;
    let begun = Instant::now();
    runs_out(&mut session, begun)?;
    ensure!(
        (2..=6).contains(&session.keepalives),
        "{} keepalives in {HOLD_SECS} s",
        session.keepalives
    );
    session.lawful()
}

fn trickle() -> Result<()> {
    let mut session = session(Role::IdleToo, HOLD_SECS)?;
    session.send(&keepalive())?;
    let begun = Instant::now();
    let message = wire::message(wire::UPDATE, &[0; 400]);
    for octet in message.iter().take(60) {
        if session.end.is_some() {
            break;
        }
        session.try_send(&[*octet]);
        session.pump(Instant::now() + Duration::from_millis(100), |s| s.end.is_some());
    }
    runs_out(&mut session, begun)
}

fn none() -> Result<()> {
    let mut session = session(Role::IdleInternal, 0)?;
    let before = session.keepalives;
    session.pump(Instant::now() + Duration::from_secs(5), |s| s.end.is_some());
    ensure!(
        session.keepalives == before,
        "{} keepalives",
        session.keepalives - before
    );
    session.alive()
}

fn retry() -> Result<()> {
    let listener = net::listen(Role::DialledToo)?;
    for _ in 0..3 {
        let deadline = Instant::now() + Duration::from_secs(6);
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if Instant::now() >= deadline => return Err(error).context("it does not dial"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut session = Session::on(Role::DialledToo, stream)?;
        ensure!(session.wait(|s| s.open.is_some()), "it dials and says no OPEN");
    }
    Ok(())
}

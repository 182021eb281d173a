//! What guards a session: TCP MD5 (RFC 2385), TTL security (RFC 5082), limits, and coming back after all of it.

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, honest};
use crate::net::Guard;
use crate::roles::{KEY, PREFIXES_MAX, Role};
use crate::wire::{Prefix, notification, raw};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// How soon a peer must be taken again, whatever it did.
const RETURN: Duration = Duration::from_secs(1);

pub(super) fn cases() -> Vec<Case> {
    vec![
        script("MD5: the right key", "2385", right_key),
        script("MD5: a wrong key", "2385", |w| {
            no_session(
                w,
                Role::Keyed,
                Guard {
                    key: Some("another"),
                    ttl: None,
                },
            )
        }),
        script("MD5: no key", "2385", |w| {
            no_session(w, Role::Keyed, Guard::default())
        }),
        script("MD5: a key where none is configured", "2385", |w| {
            no_session(
                w,
                Role::External,
                Guard {
                    key: Some(KEY),
                    ttl: None,
                },
            )
        }),
        script("TTL security: 255", "5082 3", near),
        script("TTL security: 254", "5082 3", |w| {
            no_session(
                w,
                Role::Near,
                Guard {
                    key: None,
                    ttl: Some(254),
                },
            )
        }),
        script("TTL security: 64", "5082 3", |w| {
            no_session(
                w,
                Role::Near,
                Guard {
                    key: None,
                    ttl: Some(64),
                },
            )
        }),
        script("TTL security: 1", "5082 3", |w| {
            no_session(
                w,
                Role::Near,
                Guard {
                    key: None,
                    ttl: Some(1),
                },
            )
        }),
        script(
            "TTL security: a far stranger does not lock the peer out",
            "5082 3",
            lockout,
        ),
        script(
            "TTL security: far segments into a session do no harm",
            "5082 3",
            far_segments,
        ),
        script(
            "limit: 40,000 prefixes",
            "4271 6.7, the issue: maxPrefixes",
            |w| limit(w, PREFIXES_MAX, false),
        ),
        script("limit: 40,001 prefixes", "4486 4, the issue: maxPrefixes", |w| {
            limit(w, PREFIXES_MAX + 1, true)
        }),
        script("return: after a NOTIFICATION of ours", "the issue: 1 s", |w| {
            returns(w, |s| s.try_send(&notification(6, 4, &[])))
        }),
        script("return: after a bad header", "the issue: 1 s", |w| {
            returns(w, |s| s.try_send(&raw(19, 77, &[])))
        }),
        script("return: after a lost connection", "the issue: 1 s", |w| {
            returns(w, |_| ())
        }),
        script("return: after 1,000 resets", "the issue: 1 s", thousand_resets),
        script(
            "return: after 200 sessions with a bad UPDATE",
            "the issue: 1 s",
            bad_updates,
        ),
    ]
}

fn right_key(world: &mut World) -> Result<()> {
    let mut session = Session::establish(Role::Keyed)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

/// No connection, or one over which nothing of ours is taken: no KEEPALIVE answers our OPEN.
fn no_session(world: &mut World, role: Role, guard: Guard) -> Result<()> {
    world.close(role);
    if let Ok(mut session) = Session::connect(role, guard) {
        session.try_send(&honest(role).encode());
        session.pump(Instant::now() + PATIENCE / 8, |s| {
            s.open.is_some() || s.end.is_some()
        });
        ensure!(session.keepalives == 0, "its OPEN is taken");
        ensure!(guard.ttl.is_some() || session.open.is_none(), "it gets an OPEN");
    }
    world.check()
}

fn near(world: &mut World) -> Result<()> {
    let mut session = Session::establish(Role::Near)?;
    let prefix = world.own().v4(0);
    world.announce(&mut session, &[&prefix])?;
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

fn lockout(world: &mut World) -> Result<()> {
    let far = Guard {
        key: None,
        ttl: Some(64),
    };
    // Whatever becomes of these connections, they stay while the true peer comes.
    let _held: Vec<_> = (0..4)
        .filter_map(|_| Session::connect(Role::Near, far).ok())
        .collect();
    let session = Session::establish_with(Role::Near, &honest(Role::Near), RETURN);
    session.context("with four far connections standing")?;
    world.check()
}

fn far_segments(world: &mut World) -> Result<()> {
    let mut session = Session::establish(Role::Near)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0)])?;
    // From now on what we send comes from too far away: it must not be taken.
    session.stream.set_ttl(64)?;
    session.try_send(&session.sound(&[&own.v4(1)]).encode());
    world.observer.pump(Instant::now() + PATIENCE / 10, |_| false);
    ensure!(
        !world.observer.routes.contains_key(&own.v4(1)),
        "a far segment was taken"
    );
    session.stream.set_ttl(255)?;
    world.sees(&own.v4(1)).context("sent again from near")?;
    session.alive()?;
    drop(session);
    world.gone(&own.v4(0))?;
    world.check()
}

/// As many /24s of 16.0.0.0/8 and beyond.
fn many(count: usize) -> Vec<Prefix> {
    let of = |n: usize| {
        let [_, a, b, c] = u32::try_from(n).unwrap_or(0).to_be_bytes();
        Prefix::v4([100 + a, b, c, 0], 24)
    };
    (0..count).map(of).collect()
}

fn limit(world: &mut World, count: usize, over: bool) -> Result<()> {
    let mut session = Session::establish(Role::Limited)?;
    let all = many(count);
    for part in all.chunks(900) {
        session.try_send(&session.sound(&part.iter().collect::<Vec<_>>()).encode());
    }
    if over {
        World::notified(&mut session, 6, &[1], None)?;
        let begun = Instant::now();
        drop(session);
        let back = Session::establish_with(Role::Limited, &honest(Role::Limited), RETURN);
        back.with_context(|| format!("after {:?}", begun.elapsed()))?;
    } else {
        let last = all.last().context("some prefixes")?;
        world
            .observer
            .pump(Instant::now() + PATIENCE * 2, |s| s.routes.contains_key(last));
        world.sees(last)?;
        session.alive()?;
        drop(session);
    }
    let left = |s: &Session| {
        s.routes
            .keys()
            .any(|p| all.first() == Some(p) || all.last() == Some(p))
    };
    ensure!(world.observer.wait(|s| !left(s)), "routes stay");
    ensure!(world.client.wait(|s| !left(s)), "routes stay");
    world.check()
}

fn returns(world: &mut World, end: fn(&mut Session)) -> Result<()> {
    for role in [Role::External, Role::Internal] {
        let mut session = world.session(role)?;
        end(&mut session);
        drop(session);
        let begun = Instant::now();
        let session = Session::establish_with(role, &honest(role), RETURN);
        world.keep(session.with_context(|| format!("{:?} after the end", begun.elapsed()))?);
    }
    world.check()
}

fn thousand_resets(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let mut connected = 0;
    for n in 0..1000_u16 {
        let Ok(mut session) = Session::connect(Role::External, Guard::default()) else {
            continue;
        };
        connected += 1;
        match n % 3 {
            0 => session.try_send(&raw(19, 77, &[])),
            1 => session.try_send(&notification(6, 4, &[])),
            _ => socket2::SockRef::from(&session.stream).set_linger(Some(Duration::ZERO))?,
        }
    }
    let session = Session::establish_with(Role::External, &honest(Role::External), RETURN);
    world.keep(session.with_context(|| format!("after {connected} connections"))?);
    world.check()
}

fn bad_updates(world: &mut World) -> Result<()> {
    world.close(Role::External);
    for _ in 0..200 {
        let mut session = Session::establish_with(Role::External, &honest(Role::External), RETURN)?;
        session.send(&crate::wire::message(crate::wire::UPDATE, &[0xff, 0xff, 0, 0]))?;
        let end = session.ended(PATIENCE);
        ensure!(matches!(end, Some(End::Notified(3, 1, _))), "{end:?}");
    }
    let session = Session::establish_with(Role::External, &honest(Role::External), RETURN)?;
    world.keep(session);
    world.check()
}

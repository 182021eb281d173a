//! Much of it: many routes, many messages, peers that read slowly.

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, withdrawal};
use crate::roles::Role;
use crate::wire::{Prefix, Update, sequence};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const MANY: u32 = 100_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        script(
            "load: 100,000 prefixes come and go",
            "the issue",
            hundred_thousand,
        ),
        script(
            "load: 100,000 prefixes go with their session",
            "the issue",
            with_session,
        ),
        script(
            "load: 20,000 tiny UPDATEs of one prefix",
            "the issue: flaps",
            flood,
        ),
        script("load: 20,000 UPDATEs of as many paths", "the issue", many_paths),
        script(
            "load: a peer that does not read delays nobody",
            "the issue",
            slow_reader,
        ),
        script("load: a peer that does not read is ended", "9687 3", no_reader),
        script("load: 5,000 malformed UPDATEs", "7606 2", malformed),
    ]
}

fn prefix(n: u32) -> Prefix {
    let [_, a, b, c] = n.to_be_bytes();
    Prefix::v4([150 + a, b, c, 0], 24)
}

fn all() -> Vec<Prefix> {
    (0..MANY).map(prefix).collect()
}

/// Announces all, the watchers reading meanwhile.
fn announce(world: &mut World, session: &mut Session, all: &[Prefix]) -> Result<()> {
    for part in all.chunks(900) {
        session.announce(&session.sound(&part.iter().collect::<Vec<_>>()))?;
        world.observer.drain();
        world.client.drain();
    }
    let deadline = Instant::now() + Duration::from_secs(15);
    let has = |s: &Session| s.routes.range(prefix(0)..=prefix(MANY - 1)).count() == all.len();
    for watcher in [&mut world.observer, &mut world.client] {
        let last = all.last();
        watcher.pump(deadline, |s| last.is_none_or(|p| s.routes.contains_key(p)));
        ensure!(watcher.wait(has), "not all came");
    }
    Ok(())
}

fn none_left(world: &mut World) -> Result<()> {
    for watcher in [&mut world.observer, &mut world.client] {
        let left = |s: &Session| s.routes.range(prefix(0)..=prefix(MANY - 1)).next().is_some();
        let gone = watcher.pump(Instant::now() + Duration::from_secs(15), |s| !left(s));
        ensure!(gone, "some stay");
    }
    Ok(())
}

fn hundred_thousand(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let all = all();
    announce(world, &mut session, &all)?;
    for part in all.chunks(900) {
        session.announce(&withdrawal(&part.iter().collect::<Vec<_>>()))?;
        world.observer.drain();
        world.client.drain();
    }
    none_left(world)?;
    session.alive()?;
    world.keep(session);
    world.check()
}

fn with_session(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::Internal)?;
    announce(world, &mut session, &all())?;
    drop(session);
    none_left(world)?;
    world.check()
}

fn flood(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let own = world.own();
    let flapping = own.v4(0);
    let (up, down) = (
        session.sound(&[&flapping]).encode(),
        withdrawal(&[&flapping]).encode(),
    );
    let before = world.observer.updates;
    let begun = Instant::now();
    for _ in 0..100 {
        session.send(&[&up[..], &down].concat().repeat(100))?;
    }
    session.send(&up)?;
    world.settle(&mut session, &own)?;
    world.sees(&flapping)?;
    let (seen, took) = (world.observer.updates - before, begun.elapsed());
    session.alive()?;
    session.announce(&withdrawal(&[&flapping]))?;
    world.gone(&flapping)?;
    world.keep(session);
    ensure!(seen < 4000, "{seen} UPDATEs for 20,000 of one prefix in {took:?}");
    world.check()
}

fn many_paths(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let mut octets = Vec::new();
    for n in 0..20_000 {
        let mut update: Update = session.sound(&[&prefix(n)]);
        update.value(2, &sequence(&[65_001, 1 + n]));
        octets.extend(update.encode());
    }
    for part in octets.chunks(1 << 16) {
        session.send(part)?;
        world.observer.drain();
        world.client.drain();
    }
    world
        .observer
        .pump(Instant::now() + Duration::from_secs(10), |s| {
            s.routes.contains_key(&prefix(19_999))
        });
    let route = world.sees(&prefix(19_999))?;
    ensure!(route.path() == [65_000, 65_001, 20_000], "{route:?}");
    drop(session);
    none_left(world)?;
    world.check()
}

fn slow_reader(world: &mut World) -> Result<()> {
    let slow = world.session(Role::Second)?;
    socket2::SockRef::from(&slow.stream).set_recv_buffer_size(4096)?;
    let mut session = world.session(Role::External)?;
    let begun = Instant::now();
    announce(world, &mut session, &all()).context("while somebody does not read")?;
    ensure!(begun.elapsed() < PATIENCE * 4, "it took {:?}", begun.elapsed());
    drop(session);
    none_left(world)?;
    drop(slow);
    world.check()
}

/// Its send hold time is 2 s; its routes go with it, and everybody else's stay.
fn no_reader(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut slow = world.session(Role::Slow)?;
    world.announce(&mut slow, &[&own.v4(0)])?;
    let mut session = world.session(Role::External)?;
    announce(world, &mut session, &all())?;
    world.observer.pump(Instant::now() + PATIENCE * 3, |s| {
        !s.routes.contains_key(&own.v4(0))
    });
    world.gone(&own.v4(0)).context("of the peer that does not read")?;
    session.alive()?;
    let end = slow.ended(PATIENCE);
    ensure!(matches!(end, Some(End::Notified(8, ..) | End::Closed)), "{end:?}");
    drop(session);
    none_left(world)?;
    world.check()
}

fn malformed(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let own = world.own();
    let mut bad = session.sound(&[&own.v4(0)]);
    bad.value(1, &[9]);
    let octets = bad.encode().repeat(100);
    for _ in 0..50 {
        session.send(&octets)?;
    }
    world.announce(&mut session, &[&own.v4(1)])?;
    session.alive()?;
    session.announce(&withdrawal(&[&own.v4(1)]))?;
    world.gone(&own.v4(1))?;
    world.keep(session);
    world.check()
}

//! Two-octet speakers (RFC 6793), long messages (RFC 8654), several paths (RFC 7911), framing.

use crate::case::{Case, script};
use crate::client::{PATIENCE, Session, honest, withdrawal};
use crate::read::Route;
use crate::roles::{DUT_AS, Role};
use crate::wire::{self, Prefix, Update, raw, sequence};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = two_octets();
    cases.extend([
        script("two octets: what the daemon sends", "6793 4.2.2", narrow_out),
        script("long messages: an UPDATE of 65,535 octets", "8654 4", |w| {
            long(w, 65_535)
        }),
        script("long messages: an UPDATE of 5,000 octets", "8654 4", |w| {
            long(w, 5000)
        }),
        script("long messages: 4,097 octets, not agreed on", "8654 4", not_agreed),
        script("long messages: an OPEN of 5,000 octets", "8654 4", long_open),
        script(
            "long messages: no route that does not fit",
            "8654 4",
            does_not_fit,
        ),
        script("framing: one octet at a time", "4271 8", octet_by_octet),
        script("framing: 19 octets at a time", "4271 8", by_headers),
        script("framing: 100 messages at once", "4271 8", all_at_once),
        script("framing: OPEN, KEEPALIVE and UPDATE at once", "4271 8", eager),
        script("add-path: two paths of one peer", "7911 3", paths_in),
        script("add-path: two paths to one peer", "7911 3", paths_out),
        script(
            "add-path: an identifier cut short",
            "7911 3, 7606 5.3",
            path_id_cut,
        ),
    ]);
    cases
}

/// Name, AS_PATH in two octets, AGGREGATOR, AS4_PATH, AS4_AGGREGATOR, what comes of it.
type Merge = (
    &'static str,
    &'static [u8],
    Option<&'static [u8]>,
    Option<&'static [u8]>,
    Option<&'static [u8]>,
    &'static [u32],
);

const THEIR: [u8; 2] = [0xfd, 0xe9];
const TRANS: [u8; 2] = [0x5b, 0xa0];

fn two_octets() -> Vec<Case> {
    let lines: Vec<Merge> = vec![
        (
            "AS4_PATH is merged",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            None,
            Some(&[2, 1, 0, 1, 0x11, 0x70]),
            None,
            &[65_001, 70_000],
        ),
        (
            "no AS4_PATH",
            &[2, 2, THEIR[0], THEIR[1], 0, 7],
            None,
            None,
            None,
            &[65_001, 7],
        ),
        (
            "AS4_PATH longer than AS_PATH is ignored",
            &[2, 1, THEIR[0], THEIR[1]],
            None,
            Some(&[2, 2, 0, 1, 0x11, 0x70, 0, 0, 0, 7]),
            None,
            &[65_001],
        ),
        (
            "AS4_PATH as long as AS_PATH",
            &[2, 1, THEIR[0], THEIR[1]],
            None,
            Some(&[2, 1, 0, 0, 0xfd, 0xe9]),
            None,
            &[65_001],
        ),
        (
            "AS4_PATH broken is ignored",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            None,
            Some(&[2, 9, 0]),
            None,
            &[65_001, 23_456],
        ),
        (
            "AS4_PATH with a confederation segment is ignored",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            None,
            Some(&[3, 1, 0, 1, 0x11, 0x70]),
            None,
            &[65_001, 23_456],
        ),
        (
            "AS4_PATH loses its confederation segment",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            None,
            Some(&[3, 1, 0, 1, 0x11, 0x70, 2, 1, 0, 1, 0x11, 0x70]),
            None,
            &[65_001, 70_000],
        ),
        (
            "AS4_PATH of no octets is ignored",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            None,
            Some(&[]),
            None,
            &[65_001, 23_456],
        ),
        (
            "AGGREGATOR without AS_TRANS: AS4_PATH is ignored",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            Some(&[0, 7, 10, 0, 0, 9]),
            Some(&[2, 1, 0, 1, 0x11, 0x70]),
            Some(&[0, 1, 0x11, 0x70, 10, 0, 0, 9]),
            &[65_001, 23_456],
        ),
        (
            "AGGREGATOR with AS_TRANS: AS4_PATH counts",
            &[2, 2, THEIR[0], THEIR[1], TRANS[0], TRANS[1]],
            Some(&[TRANS[0], TRANS[1], 10, 0, 0, 9]),
            Some(&[2, 1, 0, 1, 0x11, 0x70]),
            Some(&[0, 1, 0x11, 0x70, 10, 0, 0, 9]),
            &[65_001, 70_000],
        ),
        (
            "AGGREGATOR of eight octets is discarded",
            &[2, 2, THEIR[0], THEIR[1], 0, 7],
            Some(&[0, 0, 0, 7, 10, 0, 0, 9]),
            None,
            None,
            &[65_001, 7],
        ),
        (
            "AS4_AGGREGATOR of six octets is discarded",
            &[2, 2, THEIR[0], THEIR[1], 0, 7],
            Some(&[TRANS[0], TRANS[1], 10, 0, 0, 9]),
            None,
            Some(&[0, 7, 10, 0, 0, 9]),
            &[65_001, 7],
        ),
    ];
    lines
        .into_iter()
        .map(|line| {
            script(&format!("two octets: {}", line.0), "6793 4.2.3, 6", move |w| {
                merged(w, &line)
            })
        })
        .collect()
}

fn two_octet_session(world: &mut World) -> Result<Session> {
    world.close(Role::External);
    let mut open = honest(Role::External);
    open.without(65);
    Session::establish_with(Role::External, &open, PATIENCE)
}

fn merged(world: &mut World, line: &Merge) -> Result<()> {
    let (_, path, aggregator, as4_path, as4_aggregator, expected) = *line;
    let mut session = two_octet_session(world)?;
    let prefix = world.own().v4(0);
    let mut update = session.sound(&[&prefix]);
    update.value(2, path);
    for (code, value) in [(7, aggregator), (17, as4_path), (18, as4_aggregator)] {
        if let Some(value) = value {
            update.set(0xc0, code, value);
        }
    }
    session.announce(&update)?;
    let route = world.sees(&prefix)?;
    ensure!(
        route.path().get(1..) == Some(expected),
        "{:?} is expected: {route:?}",
        expected
    );
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

/// A wide path and a wide aggregator to a two-octet speaker.
fn narrow_out(world: &mut World) -> Result<()> {
    let mut internal = world.session(Role::Internal)?;
    let own = world.own();
    let mut update = internal.sound(&[&own.v4(0)]);
    update.value(2, &sequence(&[64_600, 70_000]));
    update.set(0xc0, 7, &[0, 1, 0x11, 0x70, 10, 0, 0, 9]);
    internal.announce(&update)?;
    let mut session = two_octet_session(world)?;
    let route = session.expect(&own.v4(0))?;
    let short: Vec<u8> = [2, 3, 0xfd, 0xe8, 0xfc, 0x58, TRANS[0], TRANS[1]].into();
    ensure!(route.value(2) == Some(&short), "AS_PATH: {route:?}");
    let wide = route.value(17).context("no AS4_PATH")?;
    ensure!(
        wide == sequence(&[DUT_AS, 64_600, 70_000]) || wide == sequence(&[64_600, 70_000]),
        "{route:?}"
    );
    ensure!(
        route.value(7) == Some(&[TRANS[0], TRANS[1], 10, 0, 0, 9]),
        "AGGREGATOR: {route:?}"
    );
    ensure!(
        route.value(18) == Some(&[0, 1, 0x11, 0x70, 10, 0, 0, 9]),
        "AS4_AGGREGATOR: {route:?}"
    );
    // A path that fits has no AS4_PATH.
    internal.announce(&internal.sound(&[&own.v4(1)]))?;
    let route = session.expect(&own.v4(1))?;
    ensure!(route.attr(17).is_none(), "{route:?}");
    session.alive()?;
    internal.announce(&withdrawal(&[&own.v4(0), &own.v4(1)]))?;
    world.keep(internal);
    world.check()
}

fn long_session(world: &mut World) -> Result<Session> {
    world.close(Role::External);
    let mut open = honest(Role::External);
    open.set(6, &[]);
    Session::establish_with(Role::External, &open, PATIENCE)
}

/// As many /24 as fill a message of this length.
fn filled(session: &Session, octets: usize) -> (Update, usize) {
    let mut update = session.sound(&[]);
    update.set(0x40, 3, &session.role.id().octets());
    let room = octets - update.encode().len();
    let count = room / 4;
    for n in 0..count {
        let [_, _, high, low] = u32::try_from(n).unwrap_or(0).to_be_bytes();
        update.nlri.extend([24, 13, high, low]);
    }
    // What is left over is a sound shorter prefix.
    match room % 4 {
        1 => update.nlri.push(0),
        2 => update.nlri.extend([8, 14]),
        3 => update.nlri.extend([16, 14, 1]),
        _ => {}
    }
    (update, count)
}

fn long(world: &mut World, octets: usize) -> Result<()> {
    let mut session = long_session(world)?;
    let agreed = session.open.as_ref().is_some_and(|o| o.capability(6).is_some());
    ensure!(agreed, "the daemon does not offer long messages");
    let (update, count) = filled(&session, octets);
    ensure!(update.encode().len() == octets, "{}", update.encode().len());
    session.announce(&update)?;
    let [_, _, high, low] = u32::try_from(count - 1)?.to_be_bytes();
    world.sees(&Prefix::v4([13, 0, 0, 0], 24))?;
    world.sees(&Prefix::v4([13, high, low, 0], 24))?;
    session.alive()?;
    drop(session);
    world.gone(&Prefix::v4([13, high, low, 0], 24))?;
    world.check()
}

fn not_agreed(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let mut session = Session::establish(Role::External)?;
    let (update, _) = filled(&session, 4097);
    session.try_send(&update.encode());
    World::notified(&mut session, 1, &[2], Some(&[0x10, 1]))?;
    world.check()
}

fn long_open(world: &mut World) -> Result<()> {
    world.close(Role::External);
    let mut session = super::header::answered(Role::External)?;
    session.try_send(&raw(5000, wire::OPEN, &[0; 5000 - wire::HEADER]));
    World::notified(&mut session, 1, &[2], Some(&[0x13, 0x88]))?;
    world.check()
}

/// Communities of 5,600 octets came in a long message; the observer takes 4,096.
fn does_not_fit(world: &mut World) -> Result<()> {
    let mut session = long_session(world)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0)])?;
    let mut update = session.sound(&[&own.v4(0)]);
    update.set(0xc0, 8, &[1, 2, 3, 4].repeat(800));
    let wide: Vec<u8> = (0..200_u32)
        .flat_map(|n| [65_001, 7, n])
        .flat_map(u32::to_be_bytes)
        .collect();
    update.set(0xc0, 32, &wide);
    session.announce(&update)?;
    world
        .gone(&own.v4(0))
        .context("a version that its watchers cannot take")?;
    world.announce(&mut session, &[&own.v4(1)])?;
    session.alive()?;
    drop(session);
    world.gone(&own.v4(1))?;
    world.check()
}

fn pieces(world: &mut World, octets: usize) -> Result<()> {
    world.close(Role::External);
    let prefix = world.own().v4(0);
    let mut session = super::header::answered(Role::External)?;
    let update = session.sound(&[&prefix]).encode();
    let all = [honest(Role::External).encode(), wire::keepalive(), update].concat();
    for piece in all.chunks(octets) {
        session.send(piece)?;
        std::thread::sleep(Duration::from_micros(200));
    }
    world.sees(&prefix)?;
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

fn octet_by_octet(world: &mut World) -> Result<()> {
    pieces(world, 1)
}

fn by_headers(world: &mut World) -> Result<()> {
    pieces(world, wire::HEADER)
}

fn all_at_once(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let own = world.own();
    let all: Vec<Prefix> = (0..100).map(|n| own.v4(n)).collect();
    let messages: Vec<u8> = all.iter().flat_map(|p| session.sound(&[p]).encode()).collect();
    session.send(&messages)?;
    all.iter().try_for_each(|p| world.sees(p).map(drop))?;
    session.announce(&withdrawal(&all.iter().collect::<Vec<_>>()))?;
    world.gone(&own.v4(99))?;
    world.keep(session);
    world.check()
}

fn eager(world: &mut World) -> Result<()> {
    pieces(world, 1 << 20)
}

fn paths_session(world: &mut World) -> Result<Session> {
    world.close(Role::Paths);
    let mut open = honest(Role::Paths);
    open.set(69, &[0, 1, 1, 3]);
    let session = Session::establish_with(Role::Paths, &open, PATIENCE)?;
    let agreed = session
        .open
        .as_ref()
        .and_then(|o| o.capability(69).map(<[u8]>::to_vec));
    ensure!(
        agreed.is_some_and(|v| v.starts_with(&[0, 1, 1, 3])),
        "the daemon does not offer add-path both ways"
    );
    Ok(session)
}

fn one_path(session: &Session, prefix: &Prefix, path: &[u32]) -> Update {
    let mut update = session.sound(&[prefix]);
    update.nlri = prefix.with_path_id();
    update.value(2, &sequence(path));
    update
}

fn paths_in(world: &mut World) -> Result<()> {
    let mut session = paths_session(world)?;
    let prefix = world.own().v4(0);
    session.announce(&one_path(&session, &prefix.with_id(1), &[65_001, 7, 8]))?;
    session.announce(&one_path(&session, &prefix.with_id(2), &[65_001, 7]))?;
    let path = |path: &'static [u32]| move |r: &Route| r.path().get(1..) == Some(path);
    world
        .observer
        .expect_such(&prefix, "the shorter path", path(&[65_001, 7]))?;
    let gone = Update {
        withdrawn: prefix.with_id(2).with_path_id(),
        ..Update::default()
    };
    session.announce(&gone)?;
    world
        .observer
        .expect_such(&prefix, "the path that is left", path(&[65_001, 7, 8]))?;
    session.alive()?;
    drop(session);
    world.gone(&prefix)?;
    world.check()
}

fn paths_out(world: &mut World) -> Result<()> {
    let mut open = honest(Role::Paths);
    world.close(Role::Paths);
    open.set(69, &[0, 1, 1, 1]);
    let mut session = Session::establish_with(Role::Paths, &open, PATIENCE)?;
    let prefix = world.own().v4(0);
    let mut internal = world.session(Role::Internal)?;
    let mut second = world.session(Role::Plain)?;
    world.announce(&mut internal, &[&prefix])?;
    world.announce(&mut second, &[&prefix])?;
    let there = |s: &Session| s.routes.keys().filter(|p| p.nlri == prefix.nlri).count();
    ensure!(session.wait(|s| there(s) == 2), "{} paths", there(&session));
    internal.announce(&withdrawal(&[&prefix]))?;
    ensure!(session.wait(|s| there(s) == 1), "{} paths", there(&session));
    second.announce(&withdrawal(&[&prefix]))?;
    ensure!(session.wait(|s| there(s) == 0), "{} paths", there(&session));
    session.alive()?;
    [internal, second].into_iter().for_each(|s| world.keep(s));
    world.check()
}

fn path_id_cut(world: &mut World) -> Result<()> {
    let mut session = paths_session(world)?;
    let prefix = world.own().v4(0);
    let mut update = one_path(&session, &prefix.with_id(1), &[65_001]);
    update.nlri.extend([0, 0, 1]);
    session.announce(&update)?;
    World::notified(&mut session, 3, &[1, 10], None)?;
    world.check()
}

//! Route refresh (RFC 2918) and enhanced route refresh (RFC 7313).

use crate::case::{Case, script};
use crate::client::{End, PATIENCE, Session, honest, withdrawal};
use crate::roles::Role;
use crate::wire::{REFRESH, message, refresh};
use crate::world::World;
use anyhow::{Result, ensure};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        script("refresh: IPv4 routes come again", "2918 4", |w| again(w, 1)),
        script("refresh: IPv6 routes come again", "2918 4", |w| again(w, 2)),
        script("refresh: enhanced, begin and end around it", "7313 4.1", enhanced),
        script(
            "refresh: what we do not repeat is gone at its end",
            "7313 4.2",
            stale,
        ),
        script("refresh: too short, enhanced", "7313 5", too_short),
        script("refresh: twenty at once", "2918 4", twenty),
    ];
    for (name, body) in [
        ("subtype 3", vec![0_u8, 1, 3, 1]),
        ("subtype 255", vec![0, 1, 255, 1]),
        ("a family not agreed on", vec![0, 25, 0, 70]),
        ("no such family", vec![0xff, 0xff, 0, 0xff]),
        ("end without begin", vec![0, 1, 2, 1]),
        (
            "ORF entries that nobody asked for",
            vec![0, 1, 0, 1, 1, 64, 0, 5, 0, 0, 0, 0, 0],
        ),
        ("ORF header at the very end", vec![0, 1, 0, 1, 1]),
        (
            "ORF entries longer than they are",
            vec![0, 1, 0, 1, 1, 64, 0, 200, 0x80],
        ),
    ] {
        cases.push(script(
            &format!("refresh: {name}, ignored"),
            "2918 4, 7313 5, 5291",
            move |w| ignored(w, &message(REFRESH, &body)),
        ));
    }
    cases
}

fn again(world: &mut World, afi: u16) -> Result<()> {
    let own = world.own();
    let mut second = world.session(Role::Second)?;
    world.announce(&mut second, &[&own.v4(0), &own.v6(0)])?;
    let mut session = world.session(Role::Internal)?;
    let (wanted, other) = if afi == 1 {
        (own.v4(0), own.v6(0))
    } else {
        (own.v6(0), own.v4(0))
    };
    session.expect(&wanted)?;
    session.expect(&other)?;
    let times = |s: &Session| s.announced.get(&wanted).copied().unwrap_or(0);
    let before = (times(&session), session.announced.get(&other).copied());
    session.send(&refresh(afi, 0))?;
    ensure!(session.wait(|s| times(s) > before.0), "it does not come again");
    ensure!(
        session.announced.get(&other).copied() == before.1,
        "the other family came, too"
    );
    session.alive()?;
    second.announce(&withdrawal(&[&own.v4(0), &own.v6(0)]))?;
    [session, second].into_iter().for_each(|s| world.keep(s));
    world.check()
}

fn enhanced_session(world: &mut World) -> Result<Session> {
    world.close(Role::External);
    let mut open = honest(Role::External);
    open.set(70, &[]);
    let session = Session::establish_with(Role::External, &open, PATIENCE)?;
    let agreed = session.open.as_ref().is_some_and(|o| o.capability(70).is_some());
    ensure!(agreed, "the daemon does not offer enhanced refresh");
    Ok(session)
}

fn enhanced(world: &mut World) -> Result<()> {
    let mut session = enhanced_session(world)?;
    // A request amid the first round is answered by that round.
    session.wait(|s| s.end_of_rib.0 > 0 || s.updates > 1);
    session.send(&refresh(1, 0))?;
    ensure!(
        session.wait(|s| s.refreshes.len() >= 2),
        "no begin and end, but {:?}",
        session.refreshes
    );
    ensure!(
        session.refreshes == [[0, 1, 1, 1], [0, 1, 2, 1]],
        "{:?}",
        session.refreshes
    );
    session.alive()?;
    world.check()
}

fn stale(world: &mut World) -> Result<()> {
    let mut session = enhanced_session(world)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0), &own.v4(1)])?;
    session.send(&refresh(1, 1))?;
    world.announce(&mut session, &[&own.v4(0)])?;
    session.send(&refresh(1, 2))?;
    world.gone(&own.v4(1))?;
    world.sees(&own.v4(0))?;
    session.alive()?;
    drop(session);
    world.gone(&own.v4(0))?;
    world.check()
}

fn too_short(world: &mut World) -> Result<()> {
    let mut session = enhanced_session(world)?;
    let bad = message(REFRESH, &[0, 1, 0]);
    session.send(&bad)?;
    let end = session.ended(PATIENCE);
    // 7/1 is for begin and end; this is neither, and shorter than any message of its type.
    ensure!(
        matches!(&end, Some(End::Notified(7, 1, data)) if *data == bad)
            || matches!(end, Some(End::Notified(1, 2, _))),
        "{end:?}"
    );
    world.check()
}

fn twenty(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::Internal)?;
    let all: Vec<u8> = (0..20).flat_map(|n| refresh(1 + n % 2, 0)).collect();
    session.send(&all)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0)])?;
    session.announce(&withdrawal(&[&own.v4(0)]))?;
    session.alive()?;
    world.keep(session);
    world.check()
}

fn ignored(world: &mut World, octets: &[u8]) -> Result<()> {
    let mut session = enhanced_session(world)?;
    session.send(octets)?;
    let own = world.own();
    world.announce(&mut session, &[&own.v4(0)])?;
    session.alive()?;
    drop(session);
    world.gone(&own.v4(0))?;
    world.check()
}

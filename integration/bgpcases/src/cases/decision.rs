//! The decision process (RFC 4271 section 9.1.2.2), step by step, as a third peer sees it.

use crate::case::{Case, script};
use crate::client::{Session, withdrawal};
use crate::roles::{DUT_AS, Role};
use crate::wire::{Update, sequence};
use crate::world::World;
use anyhow::{Result, ensure};

/// How two peers' versions of one route differ, the better one first.
type Line = (
    &'static str,
    &'static str,
    [Role; 2],
    fn(&mut Update),
    fn(&mut Update),
);

const EXTERNALS: [Role; 2] = [Role::External, Role::Second];
const INTERNALS: [Role; 2] = [Role::Internal, Role::Plain];

fn lines() -> Vec<Line> {
    vec![
        (
            "LOCAL_PREF",
            "4271 9.1.1",
            INTERNALS,
            |u| u.value(5, &[0, 0, 0, 200]),
            |u| u.value(2, &[]),
        ),
        (
            "shorter AS_PATH",
            "4271 9.1.2.2 a",
            EXTERNALS,
            |_| (),
            |u| u.value(2, &sequence(&[65_001, 7])),
        ),
        (
            "a set counts as one",
            "4271 9.1.2.2 a",
            EXTERNALS,
            |u| {
                u.value(
                    2,
                    &[
                        &sequence(&[65_001])[..],
                        &[1, 3, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9],
                    ]
                    .concat(),
                )
            },
            |u| u.value(2, &sequence(&[65_001, 7, 8])),
        ),
        (
            "ORIGIN",
            "4271 9.1.2.2 b",
            EXTERNALS,
            |_| (),
            |u| u.value(1, &[1]),
        ),
        (
            "MED of the same AS",
            "4271 9.1.2.2 c",
            EXTERNALS,
            |u| u.set(0x80, 4, &[0, 0, 0, 1]),
            |u| u.set(0x80, 4, &[0, 0, 0, 2]),
        ),
        (
            "no MED is MED 0",
            "4271 9.1.2.2 c",
            EXTERNALS,
            |_| (),
            |u| u.set(0x80, 4, &[0, 0, 0, 1]),
        ),
        (
            "external before internal",
            "4271 9.1.2.2 d",
            [Role::Second, Role::Internal],
            |_| (),
            |u| u.value(2, &sequence(&[65_001])),
        ),
        ("lower identifier", "4271 9.1.2.2 f", EXTERNALS, |_| (), |_| ()),
        (
            "ORIGINATOR_ID counts as identifier",
            "4456 9",
            INTERNALS,
            |u| u.set(0x80, 9, &[10, 0, 0, 1]),
            |u| u.set(0x80, 9, &[10, 0, 0, 2]),
        ),
        (
            "shorter CLUSTER_LIST",
            "4456 9",
            INTERNALS,
            |u| {
                u.set(0x80, 9, &[10, 0, 0, 1]);
                u.set(0x80, 10, &[1; 4]);
            },
            |u| {
                u.set(0x80, 9, &[10, 0, 0, 1]);
                u.set(0x80, 10, &[1; 8]);
            },
        ),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, basis, roles, better, worse) in lines() {
        cases.push(script(
            &format!("decision: {name}, the better one first"),
            basis,
            move |w| line(w, roles, better, worse, true),
        ));
        cases.push(script(
            &format!("decision: {name}, the worse one first"),
            basis,
            move |w| line(w, roles, better, worse, false),
        ));
    }
    cases.push(script(
        "decision: the second best takes over",
        "4271 9.1.2",
        takes_over,
    ));
    cases
}

fn line(
    world: &mut World,
    roles: [Role; 2],
    better: fn(&mut Update),
    worse: fn(&mut Update),
    better_first: bool,
) -> Result<()> {
    let own = world.own();
    let prefix = own.v4(0);
    let mut sessions = [world.session(roles[0])?, world.session(roles[1])?];
    let mut updates = [sessions[0].sound(&[&prefix]), sessions[1].sound(&[&prefix])];
    better(&mut updates[0]);
    worse(&mut updates[1]);
    // A community tells whose version is seen.
    updates[0].set(0xc0, 8, &[0, 0, 0, 1]);
    updates[1].set(0xc0, 8, &[0, 0, 0, 2]);
    let order = if better_first { [0, 1] } else { [1, 0] };
    for place in order {
        let session = &mut sessions[place];
        session.announce(&updates[place])?;
        world.settle(session, &own)?;
    }
    let won = |r: &crate::read::Route| r.value(8) == Some(&[0, 0, 0, 1]);
    world.observer.expect_such(&prefix, "the better version", won)?;
    world.client.expect_such(&prefix, "the better version", won)?;
    for mut session in sessions {
        session.announce(&withdrawal(&[&prefix]))?;
        session.alive()?;
        world.keep(session);
    }
    world.gone(&prefix)?;
    world.check()
}

fn takes_over(world: &mut World) -> Result<()> {
    let prefix = world.own().v4(0);
    let mut best: Session = world.session(Role::External)?;
    let mut second = world.session(Role::Second)?;
    world.announce(&mut best, &[&prefix])?;
    let mut longer = second.sound(&[&prefix]);
    longer.value(2, &sequence(&[65_001, 7]));
    second.announce(&longer)?;
    drop(best);
    let such = |r: &crate::read::Route| r.path() == [DUT_AS, 65_001, 7];
    world.observer.expect_such(&prefix, "the second path", such)?;
    second.announce(&withdrawal(&[&prefix]))?;
    world.gone(&prefix)?;
    ensure!(second.end.is_none(), "{:?}", second.end);
    world.keep(second);
    world.check()
}

//! Cases, and the rows of the tables that become cases: an UPDATE with one thing wrong, and what becomes of it.

use crate::client::{PATIENCE, Session, sound};
use crate::read::Route;
use crate::roles::Role;
use crate::wire::{Prefix, Update, sequence};
use crate::world::{Own, World};
use anyhow::{Context, Result, bail, ensure};

/// Another AS number in the path shows which version of a route is seen.
pub(crate) const MARK_AS: u32 = 64_700;

type Script = Box<dyn Fn(&mut World) -> Result<()>>;
type Change = Box<dyn Fn(&mut Update)>;

/// One case.
pub(crate) struct Case {
    /// Group, name and kind of session.
    pub(crate) name: String,
    /// Where it is written.
    pub(crate) basis: &'static str,
    pub(crate) run: Run,
}

/// How a case is run.
pub(crate) enum Run {
    /// One after the other, in the shared world.
    Shared(Script),
    /// It waits for timers and has peers of its own: all these run beside the others.
    Alone(fn() -> Result<()>),
}

pub(crate) fn script(
    name: &str,
    basis: &'static str,
    run: impl Fn(&mut World) -> Result<()> + 'static,
) -> Case {
    Case {
        name: name.to_owned(),
        basis,
        run: Run::Shared(Box::new(run)),
    }
}

pub(crate) fn alone(name: &str, basis: &'static str, run: fn() -> Result<()>) -> Case {
    Case {
        name: name.to_owned(),
        basis,
        run: Run::Alone(run),
    }
}

/// Over which sessions a row is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    External,
    Internal,
    Both,
    /// Both, and both over IPv6, too.
    Four,
}

impl Over {
    const fn roles(self) -> &'static [Role] {
        match self {
            Self::External => &[Role::External],
            Self::Internal => &[Role::Internal],
            Self::Both => &[Role::External, Role::Internal],
            Self::Four => &[Role::External, Role::Internal, Role::External6, Role::Internal6],
        }
    }
}

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Observer,
    Client,
}

/// What becomes of an UPDATE.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// The session stays, and all routes of the UPDATE are withdrawn.
    Withdrawn,
    /// The session stays, and the IPv6 routes of the UPDATE are withdrawn.
    Withdrawn6,
    /// The session stays, and the new routes are passed on.
    Passed,
    /// So, without this attribute.
    Without(u8),
    /// So, with this attribute of these flags and this value; who sees it.
    With(At, u8, u8, Vec<u8>),
    /// So, with this path behind the daemon's own AS.
    Path(Vec<u32>),
    /// The session stays, the routes are withheld from external peers and go to internal ones.
    Inside,
    /// The session stays, and that is all that is asked.
    Stays,
    /// The session stays or ends, the daemon lives, and what was not touched survives where it stays.
    Lives,
    /// The session ends with this code and one of these subcodes.
    Reset(u8, &'static [u8]),
    /// The session ends with this code and one of these subcodes, or stays with the routes withdrawn.
    ResetOrWithdrawn(u8, &'static [u8]),
}

/// One line of a table.
pub(crate) struct Row {
    name: &'static str,
    basis: &'static str,
    over: Over,
    change: Change,
    fate: Fate,
}

pub(crate) fn row(
    name: &'static str,
    basis: &'static str,
    over: Over,
    change: impl Fn(&mut Update) + 'static,
    fate: Fate,
) -> Row {
    Row {
        name,
        basis,
        over,
        change: Box::new(change),
        fate,
    }
}

/// A case for each session of each row.
pub(crate) fn cases(group: &str, rows: Vec<Row>) -> Vec<Case> {
    let mut cases = Vec::new();
    for row in rows {
        let row = std::rc::Rc::new(row);
        for role in row.over.roles() {
            let (row, role) = (std::rc::Rc::clone(&row), *role);
            let name = format!("{group}: {} ({role:?})", row.name);
            cases.push(script(&name, row.basis, move |w| update(w, role, &row)));
        }
    }
    cases
}

/// A good route G and the routes P of both families stand; the UPDATE says something about P.
fn update(world: &mut World, role: Role, row: &Row) -> Result<()> {
    let own = world.own();
    let mut session = world.session(role)?;
    let (good, v4, v6) = (own.v4(0), own.v4(1), own.v6(1));
    world.announce(&mut session, &[&good])?;
    world.announce(&mut session, &[&v4, &v6])?;
    let mut update = sound(role, &[&v4, &v6]);
    let head = if role.internal() {
        64_600
    } else {
        role.asn().into()
    };
    update.value(2, &sequence(&[head, MARK_AS]));
    let touched = Touched {
        before: update.clone(),
        v4,
        v6,
    };
    (row.change)(&mut update);
    session.announce(&update)?;
    let stays = judge(world, &mut session, &own, &row.fate, &touched, &update)
        .with_context(|| format!("after {:?}", update.encode()))?;
    if stays {
        let later = own.v4(2);
        world
            .announce(&mut session, &[&later])
            .context("a sound route afterwards")?;
        ensure!(
            world.observer.routes.contains_key(&good) && world.client.routes.contains_key(&good),
            "the good route beside it is gone"
        );
        session.alive()?;
        // What was announced stays: nothing of it matters to another case.
        world.keep(session);
    } else {
        drop(session);
        for prefix in [&good, &touched.v4, &touched.v6] {
            world
                .gone(prefix)
                .context("a route of a session that has ended")?;
        }
    }
    world.check()
}

/// What the UPDATE was before it was changed, and its routes.
struct Touched {
    before: Update,
    v4: Prefix,
    v6: Prefix,
}

impl Touched {
    /// The route's family is still in the UPDATE as it was.
    fn holds(&self, v6: bool, update: &Update) -> bool {
        if v6 {
            let of = |u: &Update| u.attributes.iter().find(|(c, _)| *c == 14).cloned();
            of(update) == of(&self.before)
        } else {
            update.nlri == self.before.nlri
        }
    }
}

/// Waits for the fate; whether the session stays.
fn judge(
    world: &mut World,
    session: &mut Session,
    own: &Own,
    fate: &Fate,
    touched: &Touched,
    update: &Update,
) -> Result<bool> {
    let families = [(&touched.v4, false), (&touched.v6, true)];
    let there: Vec<&Prefix> = families
        .into_iter()
        .filter(|(_, v6)| touched.holds(*v6, update))
        .map(|(prefix, _)| prefix)
        .collect();
    match fate {
        Fate::Withdrawn => there.iter().try_for_each(|p| world.gone(p))?,
        Fate::Withdrawn6 => world.gone(&touched.v6)?,
        Fate::Passed => passed(world, &there, At::Observer, "the new route", |_| true)?,
        Fate::Without(code) => {
            for at in [At::Observer, At::Client] {
                passed(world, &there, at, "no such attribute", |r| {
                    r.attr(*code).is_none()
                })?;
            }
        }
        Fate::With(at, flags, code, value) => {
            let such = |r: &Route| {
                r.attr(*code)
                    .is_some_and(|a| a.flags & 0xe0 == *flags && a.value == *value)
            };
            passed(world, &there, *at, "that attribute", such)?;
        }
        Fate::Path(path) => {
            for prefix in there {
                let such = |r: &Route| r.path().get(1..) == Some(path);
                world.observer.expect_such(prefix, "that path", such)?;
            }
        }
        Fate::Inside => {
            passed(world, &there, At::Client, "the new route", |_| true)?;
            there.iter().try_for_each(|p| world.observer.expect_gone(p))?;
        }
        Fate::Stays => world.settle(session, own)?,
        Fate::Lives => {
            session.pump(std::time::Instant::now() + PATIENCE / 20, |s| s.end.is_some());
            if session.end.is_some() {
                return Ok(false);
            }
            world.settle(session, own)?;
        }
        Fate::Reset(code, subcodes) => {
            World::notified(session, *code, subcodes, None)?;
            return Ok(false);
        }
        Fate::ResetOrWithdrawn(code, subcodes) => return either(world, session, *code, subcodes, &there),
    }
    if session.end.is_some() {
        bail!("the session ended: {:?}", session.end);
    }
    Ok(true)
}

fn either(
    world: &mut World,
    session: &mut Session,
    code: u8,
    subcodes: &[u8],
    there: &[&Prefix],
) -> Result<bool> {
    there.iter().try_for_each(|p| world.gone(p))?;
    session.drain();
    if session.end.is_none() {
        return Ok(true);
    }
    World::notified(session, code, subcodes, None)?;
    Ok(false)
}

/// The version with the mark has come, and is such.
fn passed(
    world: &mut World,
    prefixes: &[&Prefix],
    at: At,
    what: &str,
    such: impl Fn(&Route) -> bool,
) -> Result<()> {
    let watcher = match at {
        At::Observer => &mut world.observer,
        At::Client => &mut world.client,
    };
    for prefix in prefixes {
        let marked = |r: &Route| r.path().contains(&MARK_AS) && such(r);
        watcher.expect_such(prefix, what, marked)?;
    }
    Ok(())
}

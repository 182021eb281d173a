//! What becomes of sound routes on their way through (RFC 4271 sections 5 and 9, RFC 4456).

use crate::case::{Case, script};
use crate::client::{PATIENCE, Session, sound, withdrawal};
use crate::roles::{DUT, DUT_AS, DUT_V6, NETWORKS, Role};
use crate::wire::{Prefix, Update, octets, sequence};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::time::Instant;

pub(super) fn cases() -> Vec<Case> {
    vec![
        script(
            "routes: originated ones reach every peer",
            "4271 5, the issue: networks",
            originated,
        ),
        script("routes: External to Observer", "4271 5.1", |w| {
            across(w, Role::External)
        }),
        script("routes: External6 to Observer", "4760", |w| {
            across(w, Role::External6)
        }),
        script("routes: External to Client", "4271 5.1.3, 5.1.5", |w| {
            inside(w, Role::External)
        }),
        script("routes: External6 to Client", "4760", |w| {
            inside(w, Role::External6)
        }),
        script("routes: Internal to Observer", "4271 5.1", |w| {
            across(w, Role::Internal)
        }),
        script("routes: Internal6 to Observer", "4760", |w| {
            across(w, Role::Internal6)
        }),
        script(
            "routes: Internal to Client is reflected",
            "4456 6, 8, 10",
            reflected,
        ),
        script("routes: Client to Internal is reflected", "4456 6", from_client),
        script(
            "routes: Internal to Plain is not reflected",
            "4456 6, 4271 9.2.1",
            not_reflected,
        ),
        script(
            "routes: none goes back to whom it came from",
            "4271 9.1.3, 4456 6",
            not_back,
        ),
        script("routes: nextHopSelf", "the issue: nextHopSelf", next_hop_self),
        script("routes: MED does not leave the AS", "4271 5.1.4", med_stays),
        script(
            "routes: an implicit withdrawal is one announcement",
            "4271 3.1",
            implicit,
        ),
        script(
            "routes: the same again is nothing new",
            "4271 9.2",
            the_same_again,
        ),
        script(
            "routes: withdrawn and announced at once",
            "4271 4.3",
            both_at_once,
        ),
        script("routes: a new peer gets all, then End-of-RIB", "4724 4", newcomer),
        script("routes: every length of prefix", "4271 4.3", lengths),
        script("routes: every length of IPv6 prefix", "4760 5", lengths_v6),
        script("routes: 1,000 in one message", "4271 4.3", thousand),
    ]
}

fn originated(world: &mut World) -> Result<()> {
    let nets = NETWORKS.map(net);
    for role in [Role::External, Role::Internal, Role::External6, Role::Internal6] {
        let mut session = world.session(role)?;
        for prefix in &nets {
            let route = session.expect(prefix)?;
            let path: &[u32] = if role.internal() { &[] } else { &[DUT_AS] };
            ensure!(route.path() == path, "{route:?}");
            ensure!(
                route.next_hop.get(..octets(hop(prefix.v6)).len()) == Some(&octets(hop(prefix.v6))[..]),
                "{route:?}"
            );
        }
        world.keep(session);
    }
    world.check()
}

/// The daemon's address of a family.
fn hop(v6: bool) -> IpAddr {
    if v6 { DUT_V6.into() } else { DUT.into() }
}

fn net(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap_or((text, "32"));
    let len = len.parse().unwrap_or(32);
    match address.parse() {
        Ok(IpAddr::V6(a)) => Prefix::v6(a, len),
        Ok(IpAddr::V4(a)) => Prefix::v4(a.octets(), len),
        Err(_) => Prefix::v4([0; 4], 0),
    }
}

fn across(world: &mut World, role: Role) -> Result<()> {
    let own = world.own();
    let mut session = world.session(role)?;
    world.announce(&mut session, &[&own.v4(0), &own.v6(0)])?;
    for prefix in [own.v4(0), own.v6(0)] {
        let route = world.sees(&prefix)?;
        let path = if role.internal() {
            vec![DUT_AS, 64_600]
        } else {
            vec![DUT_AS, role.asn().into()]
        };
        ensure!(route.path() == path, "{route:?}");
        // Our next hops lie in the subnet that all share: the daemon may leave them or put its own.
        let own_hop = if prefix.v6 {
            octets(role.v6().into())
        } else {
            octets(role.id().into())
        };
        let hops = [octets(hop(prefix.v6)), own_hop];
        ensure!(hops.iter().any(|h| route.next_hop.starts_with(h)), "{route:?}");
    }
    session.announce(&withdrawal(&[&own.v4(0), &own.v6(0)]))?;
    world.gone(&own.v4(0))?;
    world.gone(&own.v6(0))?;
    world.keep(session);
    world.check()
}

fn inside(world: &mut World, role: Role) -> Result<()> {
    let own = world.own();
    let mut session = world.session(role)?;
    world.announce(&mut session, &[&own.v4(0), &own.v6(0)])?;
    for prefix in [own.v4(0), own.v6(0)] {
        let route = world.client.expect(&prefix)?;
        ensure!(route.path() == [u32::from(role.asn())], "{route:?}");
        ensure!(route.number(5) == Some(100), "LOCAL_PREF: {route:?}");
        let kept = if prefix.v6 {
            octets(role.v6().into())
        } else {
            octets(role.id().into())
        };
        ensure!(
            route.next_hop.starts_with(&kept),
            "next hop is not kept: {route:?}"
        );
        ensure!(
            route.attr(9).is_none() && route.attr(10).is_none(),
            "it was not reflected: {route:?}"
        );
    }
    session.announce(&withdrawal(&[&own.v4(0), &own.v6(0)]))?;
    world.gone(&own.v4(0))?;
    world.keep(session);
    world.check()
}

fn reflected(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::Internal)?;
    let prefix = own.v4(0);
    world.announce(&mut session, &[&prefix])?;
    let route = world.client.expect(&prefix)?;
    ensure!(
        route.value(9) == Some(&Role::Internal.id().octets()),
        "ORIGINATOR_ID: {route:?}"
    );
    ensure!(route.value(10) == Some(&DUT.octets()), "CLUSTER_LIST: {route:?}");
    ensure!(
        route.next_hop == Role::Internal.id().octets(),
        "next hop: {route:?}"
    );
    session.announce(&withdrawal(&[&prefix]))?;
    world.gone(&prefix)?;
    world.keep(session);
    world.check()
}

fn from_client(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::Internal)?;
    let prefix = own.v4(0);
    let update = sound(Role::Client, &[&prefix]);
    world.client.announce(&update)?;
    let route = session.expect(&prefix)?;
    ensure!(route.value(9) == Some(&Role::Client.id().octets()), "{route:?}");
    world.sees(&prefix)?;
    world.client.announce(&withdrawal(&[&prefix]))?;
    session.expect_gone(&prefix)?;
    world.keep(session);
    world.check()
}

fn not_reflected(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::Internal)?;
    let mut plain = world.session(Role::Plain)?;
    world.announce(&mut session, &[&own.v4(0)])?;
    // What comes behind it has come: so would it have.
    let mut external = world.session(Role::External)?;
    world.announce(&mut external, &[&own.v4(1)])?;
    plain.expect(&own.v4(1))?;
    ensure!(
        !plain.routes.contains_key(&own.v4(0)),
        "it was reflected between two that are no clients"
    );
    for s in [&mut session, &mut external] {
        s.announce(&withdrawal(&[&own.v4(0), &own.v4(1)]))?;
    }
    [session, plain, external].into_iter().for_each(|s| world.keep(s));
    world.check()
}

fn not_back(world: &mut World) -> Result<()> {
    let own = world.own();
    for role in [Role::External, Role::Internal] {
        let mut session = world.session(role)?;
        let n = role.number();
        world.announce(&mut session, &[&own.v4(n)])?;
        world.settle(&mut session, &own)?;
        session.pump(Instant::now() + PATIENCE / 40, |_| false);
        ensure!(
            !session.routes.contains_key(&own.v4(n)),
            "{role:?} gets its own route back"
        );
        session.announce(&withdrawal(&[&own.v4(n)]))?;
        world.keep(session);
    }
    world.check()
}

fn next_hop_self(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    let mut via = world.session(Role::ViaUs)?;
    world.announce(&mut session, &[&own.v4(0), &own.v6(0)])?;
    let route = via.expect(&own.v4(0))?;
    ensure!(route.next_hop == DUT.octets(), "{route:?}");
    let route = via.expect(&own.v6(0))?;
    ensure!(route.next_hop.starts_with(&DUT_V6.octets()), "{route:?}");
    [session, via].into_iter().for_each(|s| world.keep(s));
    world.check()
}

fn med_stays(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    let mut update = session.sound(&[&own.v4(0)]);
    update.set(0x80, 4, &[0, 0, 0, 9]);
    session.announce(&update)?;
    let route = world.sees(&own.v4(0))?;
    ensure!(route.attr(4).is_none(), "{route:?}");
    let route = world.client.expect(&own.v4(0))?;
    ensure!(route.number(4) == Some(9), "{route:?}");
    world.keep(session);
    world.check()
}

fn implicit(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    let prefix = own.v4(0);
    world.announce(&mut session, &[&prefix])?;
    let mut update = session.sound(&[&prefix]);
    update.value(2, &sequence(&[65_001, 7, 8]));
    session.announce(&update)?;
    let such = |r: &crate::read::Route| r.path() == [DUT_AS, 65_001, 7, 8];
    world.observer.expect_such(&prefix, "the new path", such)?;
    let times = world.observer.announced.get(&prefix).copied();
    ensure!(times == Some(2), "announced {times:?} times");
    session.announce(&withdrawal(&[&prefix]))?;
    world.gone(&prefix)?;
    world.keep(session);
    world.check()
}

fn the_same_again(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    let prefix = own.v4(0);
    world.announce(&mut session, &[&prefix])?;
    for _ in 0..20 {
        session.announce(&session.sound(&[&prefix]))?;
    }
    world.settle(&mut session, &own)?;
    let times = world.observer.announced.get(&prefix).copied();
    ensure!(times == Some(1), "announced {times:?} times");
    world.keep(session);
    world.check()
}

fn both_at_once(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    let mut old: Vec<Prefix> = (0..4).map(|n| own.v4(n)).collect();
    world.announce(&mut session, &old.iter().collect::<Vec<_>>())?;
    let kept = old.split_off(2);
    let new = own.v4(9);
    let mut update: Update = session.sound(&[&new]);
    update.withdrawn = withdrawal(&old.iter().collect::<Vec<_>>()).withdrawn;
    session.announce(&update)?;
    world.sees(&new)?;
    old.iter().try_for_each(|p| world.gone(p))?;
    ensure!(
        kept.iter().all(|p| world.observer.routes.contains_key(p)),
        "others went, too"
    );
    world.keep(session);
    world.check()
}

fn newcomer(world: &mut World) -> Result<()> {
    let own = world.own();
    let mut session = world.session(Role::External)?;
    world.announce(&mut session, &[&own.v4(0), &own.v6(0)])?;
    world.close(Role::Plain);
    let mut open = crate::client::honest(Role::Plain);
    open.set(64, &[0, 120]);
    let mut plain = Session::establish_with(Role::Plain, &open, PATIENCE)?;
    ensure!(
        plain.wait(|s| s.end_of_rib.0 > 0 && s.end_of_rib.1 > 0),
        "no End-of-RIB: {:?}",
        plain.end_of_rib
    );
    let there = plain.routes.contains_key(&own.v4(0)) && plain.routes.contains_key(&own.v6(0));
    ensure!(there, "End-of-RIB came before the routes");
    plain.alive()?;
    world.keep(session);
    world.check()
}

fn lengths(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let lawful = |len: &u32| !(2..=4).contains(len);
    // 0.0.0.0/2 to /4 of these bits: daemons differ on them.
    let all: Vec<Prefix> = (0..=32_u32)
        .filter(lawful)
        .map(|len| {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            Prefix::v4(
                (0x0b55_5555 & mask).to_be_bytes(),
                u8::try_from(len).unwrap_or(32),
            )
        })
        .collect();
    each_comes_and_goes(world, &mut session, &all)?;
    world.keep(session);
    world.check()
}

fn lengths_v6(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let all: Vec<Prefix> = (0..=128_u32)
        .map(|len| {
            let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
            let address = 0x2a02_5555_5555_5555_5555_5555_5555_5555_u128 & mask;
            Prefix::v6(address.into(), u8::try_from(len).unwrap_or(128))
        })
        .collect();
    // Under six bits such a prefix holds what no route may be for (::/8, multicast): daemons differ there.
    each_comes_and_goes(world, &mut session, all.get(8..).unwrap_or_default())?;
    world.keep(session);
    world.check()
}

fn each_comes_and_goes(world: &mut World, session: &mut Session, all: &[Prefix]) -> Result<()> {
    let refs: Vec<&Prefix> = all.iter().collect();
    session.announce(&session.sound(&refs))?;
    for prefix in all {
        world.sees(prefix)?;
    }
    session.announce(&withdrawal(&refs))?;
    all.iter().try_for_each(|p| world.gone(p))
}

fn thousand(world: &mut World) -> Result<()> {
    let mut session = world.session(Role::External)?;
    let all: Vec<Prefix> = (0..1000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            Prefix::v4([12, high, low, 0], 16 + 8)
        })
        .collect();
    let update = session.sound(&all.iter().collect::<Vec<_>>());
    // 4 octets a prefix: as long as a message may be, less a few.
    ensure!(
        (4000..=4096).contains(&update.encode().len()),
        "{} octets",
        update.encode().len()
    );
    session.announce(&update)?;
    all.iter()
        .try_for_each(|p| world.sees(p).map(drop))
        .context("of a full message")?;
    session.announce(&withdrawal(&all.iter().collect::<Vec<_>>()))?;
    all.iter().try_for_each(|p| world.gone(p))?;
    world.keep(session);
    world.check()
}

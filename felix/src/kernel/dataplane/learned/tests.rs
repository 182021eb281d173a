//! What goes to the kernel change by change against what a comparison of everything would have made of it.

use proptest::prelude::*;

use super::*;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::routes::{HeldRoute, note};
use crate::plan::IfName;
use crate::plan::routes::{METRIC, NextHop, PROTOCOL_BGP, Weight};
use crate::plan::underlay::{Forward, Hop, Underlay};

/// Turns after which a kernel that refuses nothing holds everything.
const TURNS_MAX: usize = 4;

/// Who is reached: of the three next hops those whose bits are set, on one link or another.
fn underlay(bits: u8) -> Underlay {
    let mut underlay = Underlay::default();
    for i in (0..3).filter(|i| bits & (1 << i) != 0) {
        let dev = if bits & 8 == 0 { "up0" } else { "up1" };
        let hop = Hop {
            via: None,
            dev: IfName::fixed(dev),
            onlink: false,
            weight: Weight::ONE,
        };
        let net = format!("172.31.{i}.0/24").parse().unwrap();
        underlay.add(net, 0, Forward::Hops(vec![hop]));
    }
    underlay
}

fn dst(i: u8) -> IpNet {
    format!("10.0.{i}.0/24").parse().unwrap()
}

/// A route by the next hops whose bits are set.
fn route(bits: u8) -> Option<Route> {
    let hops = (0..3).filter(|i| bits & (1 << i) != 0);
    Route::bgp(hops.map(|i| NextHop::via(format!("172.31.{i}.1").parse().unwrap())))
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Learn(u8, u8),
    Underlay(u8),
    /// A turn whose writes fail where a bit is set, by the destination.
    Turn {
        refused: u8,
        sweep: bool,
    },
    /// A turn whose socket fails after so many writes.
    Broken(usize),
    /// A stranger changes a route, and we hear of it.
    Stranger(u8, u8),
    Retry,
    Clear,
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8_u8, 0..8_u8).prop_map(|(dst, hops)| Step::Learn(dst, hops)),
        1 => (0..16_u8).prop_map(Step::Underlay),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(refused, sweep)| Step::Turn { refused, sweep }),
        1 => (0..4_usize).prop_map(Step::Broken),
        1 => (0..8_u8, 0..8_u8).prop_map(|(dst, hops)| Step::Stranger(dst, hops)),
        1 => Just(Step::Retry),
        1 => Just(Step::Clear),
    ]
}

/// The speaker's side with what it believes, and the kernel's.
struct World {
    learned: Learned,
    hops: Hops,
    believed: Option<Held>,
    kernel: Held,
    bits: u8,
}

impl World {
    fn new(left: &[(u8, u8)]) -> Self {
        let mut world = Self {
            learned: Learned::default(),
            hops: Hops::default(),
            believed: None,
            kernel: Held::new(),
            bits: 7,
        };
        world.hops.set_underlay(underlay(7));
        left.iter().for_each(|(dst, hops)| world.put(*dst, *hops));
        world
    }

    /// A stranger, or an earlier process.
    fn put(&mut self, i: u8, hops: u8) {
        let held = route(hops).map(|route| HeldRoute {
            protocol: PROTOCOL_BGP,
            metric: METRIC,
            route: Some(route),
        });
        match held {
            Some(held) => drop(self.kernel.insert(dst(i), vec![held])),
            None => drop(self.kernel.remove(&dst(i))),
        }
    }

    /// The kernel takes a change, or refuses it.
    fn carry_out(&mut self, change: &Change, refused: u8) -> Result<(), NetlinkError> {
        let no = |errno| {
            Err(NetlinkError::Refused {
                errno,
                message: None,
                offset: None,
            })
        };
        let bit = (0..8).find(|i| dst(*i) == change.dst()).unwrap();
        if refused & (1 << bit) != 0 {
            return no(libc::ENETUNREACH);
        }
        match change {
            Change::Add(dst, _) if self.kernel.contains_key(dst) => return no(libc::EEXIST),
            Change::Add(dst, route) | Change::Replace(dst, route) => {
                let held = HeldRoute {
                    protocol: PROTOCOL_BGP,
                    metric: METRIC,
                    route: Some(route.clone()),
                };
                self.kernel.insert(*dst, vec![held]);
            }
            Change::Delete(dst, ..) if self.kernel.remove(dst).is_none() => return no(libc::ESRCH),
            Change::Delete(..) => {}
        }
        Ok(())
    }

    /// As `Fib::turn`; how many changes were asked for.
    fn turn(&mut self, refused: u8, sweep: bool, broken: Option<usize>) -> usize {
        if self.believed.is_none() {
            self.learned.doubt_all();
        }
        let held = self.believed.get_or_insert_with(|| self.kernel.clone());
        let changes = self.learned.changes(&mut self.hops, held, sweep);
        let mut applied = RoutesApplied::default();
        let count = changes.len();
        for (i, change) in changes.into_iter().enumerate() {
            if broken == Some(i) {
                self.believed = None;
                self.learned.doubt_all();
                return count;
            }
            let result = self.carry_out(&change, refused);
            note(&mut self.believed, change, result, &mut applied);
        }
        self.learned.applied(&applied);
        count
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Learn(i, hops) => self.learned.learn(dst(i), route(hops)),
            Step::Underlay(bits) => {
                self.bits = bits;
                if self.hops.set_underlay(underlay(bits)) {
                    self.learned.doubt_all();
                }
            }
            Step::Turn { refused, sweep } => drop(self.turn(refused, sweep, None)),
            Step::Broken(after) => drop(self.turn(0, true, Some(after))),
            Step::Stranger(i, hops) => {
                self.put(i, hops);
                self.believed = None;
            }
            Step::Retry => self.learned.retry(),
            Step::Clear => self.learned.clear(),
        }
    }

    /// What a kernel should hold that was written in one go, and what is kept back.
    fn naive(&self) -> (Routes, Withheld) {
        let mut hops = Hops::default();
        hops.set_underlay(underlay(self.bits));
        hops.resolve(self.learned.routes())
    }

    /// Turns without failures until nothing is left to do; whether the kernel then holds what it should.
    fn settles(&mut self) -> bool {
        for _ in 0..TURNS_MAX {
            self.learned.retry();
            if self.turn(0, true, None) == 0 && self.learned.failed().is_empty() {
                break;
            }
        }
        let may = Sweep {
            own: false,
            bgp: true,
        };
        let (routes, withheld) = self.naive();
        delta(&routes, &self.kernel, may).is_empty() && self.learned.withheld(&mut self.hops) == withheld
    }
}

proptest! {
    #[test]
    fn any_sequence_of_changes_failures_and_resyncs_ends_in_the_table_of_a_whole_comparison(
        left in proptest::collection::vec((0..8_u8, 0..8_u8), 0..4),
        steps in proptest::collection::vec(arb_step(), 0..60),
    ) {
        let mut world = World::new(&left);
        steps.iter().for_each(|step| world.step(step));
        prop_assert!(world.settles(), "kernel {:?}, naive {:?}", world.kernel, world.naive());
        // And nothing of that depends on what is remembered: all compared once more changes nothing.
        world.believed = None;
        prop_assert_eq!(world.turn(0, true, None), 0);
    }
}

#[test]
fn a_stranger_that_nobody_told_of_is_seen_only_by_a_whole_comparison() {
    let mut world = World::new(&[]);
    world.step(&Step::Learn(1, 1));
    assert!(world.settles());
    world.put(1, 2);
    assert!(!world.settles(), "the comparison can fail");
    world.believed = None;
    assert!(world.settles());
}

#[test]
fn a_change_costs_what_changed() {
    let mut world = World::new(&[]);
    for i in 0..8 {
        world.step(&Step::Learn(i, 1));
    }
    assert_eq!(world.turn(0, true, None), 8);
    assert!(matches!(&world.learned.doubt, Doubt::Some(open) if open.is_empty()));
    world.step(&Step::Learn(3, 2));
    assert!(matches!(&world.learned.doubt, Doubt::Some(open) if open.len() == 1));
    assert_eq!(world.turn(0, true, None), 1);
    // The same again, and what was taken back before it was written, are no changes.
    world.step(&Step::Learn(3, 2));
    world.step(&Step::Learn(4, 2));
    world.step(&Step::Learn(4, 1));
    assert_eq!(world.turn(0, true, None), 0);
}

#[test]
fn what_is_refused_waits_for_the_next_try() {
    let mut world = World::new(&[]);
    world.step(&Step::Learn(1, 1));
    assert_eq!(world.turn(2, true, None), 1);
    assert_eq!(world.learned.failed().len(), 1);
    assert_eq!(world.turn(0, true, None), 0, "nobody asked");
    world.step(&Step::Retry);
    assert_eq!(world.turn(0, true, None), 1);
    assert!(world.learned.failed().is_empty());
}

#[test]
fn an_underlay_that_moves_no_next_hop_is_no_reason_to_compare_everything() {
    let mut world = World::new(&[]);
    world.step(&Step::Learn(1, 1));
    assert!(world.settles());
    world.step(&Step::Underlay(5));
    assert!(
        matches!(world.learned.doubt, Doubt::Some(_)),
        "172.31.1.0/24 carries nothing"
    );
    world.step(&Step::Underlay(4));
    assert!(matches!(world.learned.doubt, Doubt::All), "172.31.0.0/24 does");
    assert!(world.settles());
    assert!(world.kernel.is_empty());
}

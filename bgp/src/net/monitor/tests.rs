//! A watcher subscribes, then fetches the table, then follows: whatever happens between, it ends with the table as it is.

use super::*;
use crate::config::PeerConfig;
use crate::monitor::View;
use crate::speaker::bench::{Bench, Route, ip};
use crate::wire::as_path;
use ipnet::IpNet;
use proptest::prelude::*;

const PEER: &str = "10.0.0.2";
const FAMILY: Family = Family::Ipv4Unicast;

/// A peer in session, the RIB task's end, and what a collector was told: for each prefix the AS path.
struct World {
    bench: Bench,
    monitor: Monitor,
    told: BTreeMap<IpNet, String>,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new(vec![PeerConfig::new(ip(PEER), 65002)]);
        let mut monitor = Monitor::new();
        let peer = &bench.peers[&ip(PEER)];
        let (id, session) = (peer.id, peer.session.clone().unwrap());
        monitor.up(id, &session, (0, 0), &mut bench.speaker);
        Self {
            bench,
            monitor,
            told: BTreeMap::new(),
        }
    }

    /// The peer announces one of five prefixes by one of three paths, or withdraws it.
    fn change(&mut self, (prefix, path): (u8, u8)) {
        let net = format!("198.18.{prefix}.0/24");
        match path {
            0 => self.bench.withdraw(PEER, &net, 0),
            _ => self
                .bench
                .announce(PEER, &net, &Route::of(&[65002, u32::from(path)])),
        }
        self.monitor.publish(&mut self.bench.speaker);
    }

    fn ask<T>(&mut self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (tx, mut rx) = oneshot::channel();
        self.monitor.answer(request(tx), &mut self.bench.speaker, |_| 0);
        rx.try_recv().unwrap()
    }

    fn subscribe(&mut self) -> Subscription {
        self.ask(|answer| Request::Subscribe {
            ask_again: false,
            answer,
        })
    }

    fn table(&mut self) -> BTreeMap<IpNet, String> {
        let slice = self.ask(|answer| Request::Walk(FAMILY, 0, answer));
        let path = |entry: &crate::monitor::TableEntry| as_path::text(entry.paths[0].attrs.as_path());
        slice.entries.iter().map(|e| (e.prefix, path(e))).collect()
    }

    /// The collector takes everything that waits.
    fn follow(&mut self, subscription: &mut Subscription) {
        while let Ok(batch) = subscription.batches.try_recv() {
            for event in &batch.1 {
                let Event::Routes(_, change) = event else { continue };
                for (net, _) in change.nlri.iter().filter(|_| change.view == View::PostPolicy) {
                    match &change.attrs {
                        Some(attrs) => drop(self.told.insert(*net, as_path::text(attrs.as_path()))),
                        None => drop(self.told.remove(net)),
                    }
                }
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((0..5_u8, 0..4_u8), 0..12)
}

proptest! {
    #[test]
    fn nothing_between_subscription_and_table_is_lost_and_what_is_told_twice_changes_nothing(
        [before, between, after] in [changes(), changes(), changes()],
    ) {
        let mut world = World::new();
        before.into_iter().for_each(|c| world.change(c));
        let mut subscription = world.subscribe();
        between.into_iter().for_each(|c| world.change(c));
        world.told = world.table();
        after.into_iter().for_each(|c| world.change(c));
        world.follow(&mut subscription);
        prop_assert_eq!(world.told.clone(), world.table());
    }
}

#[test]
fn the_other_way_round_a_change_would_be_lost() {
    let mut world = World::new();
    world.change((1, 1));
    world.told = world.table();
    world.change((1, 2));
    let mut subscription = world.subscribe();
    world.follow(&mut subscription);
    assert_ne!(world.told.clone(), world.table());
    world.change((1, 3));
    world.follow(&mut subscription);
    assert_eq!(world.told.clone(), world.table());
}

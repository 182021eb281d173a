//! The table against the kernel, in a namespace.

use super::*;
use crate::kernel::netns::Netns;
use crate::kernel::testing::{eventually, run};
use crate::plan::routes::NextHop;

/// A namespace with an uplink to 172.31.0.0/24.
fn router(test: impl FnOnce(Fib) + Send) {
    Netns::new().unwrap().run(|| {
        for command in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip address add 172.31.0.9/24 dev up0",
            "ip link set up0 up",
            "ip link set up1 up",
        ] {
            run(command);
        }
        test(Fib::open().unwrap());
    });
}

fn net(i: usize) -> IpNet {
    format!("10.{}.{}.0/24", i / 256, i % 256).parse().unwrap()
}

fn via(last: u8) -> Option<Route> {
    Route::bgp([NextHop::via(format!("172.31.0.{last}").parse().unwrap())])
}

/// Routes of ours that the kernel has, by its own word.
fn in_kernel() -> Vec<String> {
    let said = run("ip route show proto 81");
    said.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.nth(1)?))
        })
        .collect()
}

#[test]
fn a_prefix_that_changes_is_the_only_one_that_is_written() {
    router(|mut fib| {
        fib.learn((0..300).map(|i| (net(i), via(1))));
        assert_eq!(fib.turn(true).unwrap().applied.written, 300);
        fib.learn([(net(7), via(2)), (net(8), None), (net(9), via(1))]);
        let turn = fib.turn(true).unwrap().applied;
        assert_eq!((turn.written, turn.deleted), (1, 1));
        let expected: Vec<_> = (0..300)
            .filter(|i| *i != 8)
            .map(|i| format!("{} 172.31.0.{}", net(i), if i == 7 { 2 } else { 1 }))
            .collect();
        assert_eq!(in_kernel(), expected);
        assert_eq!(fib.turn(true).unwrap().applied, RoutesApplied::default());
    });
}

#[test]
fn whatever_a_stranger_does_to_a_route_is_undone_and_his_own_stay() {
    router(|mut fib| {
        fib.learn((0..3).map(|i| (net(i), via(1))));
        fib.turn(true).unwrap();
        run("ip route del 10.0.1.0/24 proto 81");
        run("ip route replace 10.0.2.0/24 via 172.31.0.66 metric 1024 proto 81");
        eventually("both are put right", || {
            fib.turn(true).unwrap();
            in_kernel()
                == [
                    "10.0.0.0/24 172.31.0.1",
                    "10.0.1.0/24 172.31.0.1",
                    "10.0.2.0/24 172.31.0.1",
                ]
        });
        // A destination that he holds with our metric is his until he gives it up.
        run("ip route add 10.0.9.0/24 via 172.31.0.66 metric 1024");
        fib.learn([(net(9), via(1))]);
        eventually("it is refused", || fib.turn(true).unwrap().refused == 1);
        run("ip route del 10.0.9.0/24");
        eventually("it is written when he is gone", || {
            fib.turn(true).unwrap();
            in_kernel().contains(&"10.0.9.0/24 172.31.0.1".to_owned())
        });
    });
}

#[test]
fn routes_follow_their_next_hop_and_their_link() {
    router(|mut fib| {
        fib.learn([
            (net(0), via(1)),
            (net(1), Route::bgp([NextHop::via([192, 0, 2, 1].into())])),
        ]);
        let turn = fib.turn(true).unwrap();
        assert_eq!((turn.applied.written, turn.withheld.routes), (1, 1));
        run("ip route add 192.0.2.0/24 via 172.31.0.5");
        eventually("the second has a way", || {
            fib.turn(true).unwrap().withheld.routes == 0
        });
        assert_eq!(in_kernel(), ["10.0.0.0/24 172.31.0.1", "10.0.1.0/24 172.31.0.5"]);
        run("ip link set up0 down");
        eventually("nothing has", || fib.turn(true).unwrap().withheld.routes == 2);
        assert!(in_kernel().is_empty());
        run("ip link set up0 up");
        eventually("the first has a way again", || {
            fib.turn(true).unwrap();
            in_kernel() == ["10.0.0.0/24 172.31.0.1"]
        });
    });
}

#[test]
fn what_changed_while_notifications_were_lost_is_found_by_comparing_everything() {
    router(|mut fib| {
        fib.learn((0..50).map(|i| (net(i), via(1))));
        fib.turn(true).unwrap();
        run("ip route del 10.0.7.0/24 proto 81");
        let ours = [fib.routes.port(), fib.links.port()];
        fib.events.drain(ours, &mut Dirt::default()).unwrap();
        fib.learn([(net(8), None)]);
        let turn = fib.turn(true).unwrap().applied;
        assert_eq!((turn.written, turn.deleted), (0, 1), "nobody told of the other");
        fib.dirt.lost = true;
        fib.learn([(net(9), via(2))]);
        assert_eq!(fib.turn(true).unwrap().applied.written, 2);
        assert!(in_kernel().contains(&"10.0.7.0/24 172.31.0.1".to_owned()));
    });
}

#[test]
fn what_an_earlier_process_left_goes_only_when_it_may() {
    router(|mut fib| {
        fib.learn([(net(0), via(1)), (net(1), via(1))]);
        fib.turn(true).unwrap();
        drop(fib);
        let mut fib = Fib::open().unwrap();
        assert_eq!(fib.held().map(Held::len), Some(2));
        fib.learn([(net(1), via(1))]);
        assert_eq!(fib.turn(false).unwrap().applied, RoutesApplied::default());
        fib.learn([(net(1), None)]);
        assert_eq!(
            fib.turn(false).unwrap().applied.deleted,
            0,
            "nor what went meanwhile"
        );
        assert_eq!(fib.turn(true).unwrap().applied.deleted, 2);
        assert!(in_kernel().is_empty());
    });
}

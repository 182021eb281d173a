//! Simulation in virtual time: some routers, each the real FSMs and the real speaker, joined by a network that delays, splits,
//! partitions and resets; routers crash and restart. When the faults are over, every router must hold exactly the best paths
//! that a naive model of path-vector routing computes, and its FIB must say the same.

mod oracle;
mod world;

use world::{Router, World};

/// Seeds of one test run.
const SEEDS: u64 = 1000;

/// A seed to look at alone: `SIM_SEED=17 cargo test -p twill-bgp sim`.
fn seeds() -> Vec<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIM_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn every_run_converges_to_the_naive_best_paths() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| World::random(seed).run());
        if run.is_err() {
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "failing seeds: {failed:?} (SIM_SEED=n runs one)"
    );
}

#[test]
fn a_wrong_oracle_is_noticed() {
    let mut world = World::random(1);
    world.run();
    world.spoil();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check())).is_err());
}

#[test]
fn a_graceful_restart_costs_no_peer_a_route() {
    for seed in 0..50 {
        let mut world = World::mesh(seed, 4);
        world.settle();
        world.watch_losses();
        world.kill(0);
        world.sleep(5);
        world.start(0, Router::Restarted);
        world.settle();
        world.check();
        assert_eq!(world.losses(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_restart_without_preserved_forwarding_does_cost_routes() {
    let mut world = World::mesh(1, 4);
    world.settle();
    world.watch_losses();
    world.kill(0);
    world.sleep(5);
    world.start(0, Router::Rebooted);
    world.settle();
    world.check();
    assert!(!world.losses().is_empty());
}

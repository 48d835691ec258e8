//! The whole cluster by its public API: users, the leader's reconcilers, and workers that pull, run, fail, fall silent and
//! come back late. Whatever happens, what DESIGN.md section 7 calls invariants holds after every transaction; and once
//! nothing more happens, the cluster comes to what was asked for, and leaves nothing behind.
//!
//! `PROPTEST_CASES` says how many cases are run; a failed one is printed with its events.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod checks;
mod manager;
mod random;
mod user;
mod worker;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use user::{Event, event, order};
use world::World;

/// How long a healed cluster has to come to what was asked for: pulls of 4 s, stops of 3 s, updates of one task at a time
/// that are watched for 3 s, and one task that is waited for a minute; then moves to nodes that came back, one after the other.
const CONVERGES_WITHIN: Duration = Duration::from_secs(420);

/// Of 30 s for all.
const CASES: u32 = 100;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(CASES), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_cluster_comes_to_what_it_is_asked_for(
        seed: u64, orders in prop::collection::vec(order(), 3), events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(seed);
        (0..2).for_each(|index| world.happen(&Event::CreateNetwork(index)));
        world.happen(&Event::CreateSecret(0));
        orders.into_iter().enumerate().for_each(|(index, order)| world.happen(&Event::Create { index, order }));
        events.iter().for_each(|event| world.happen(event));
        world.heal();
        world.pass(CONVERGES_WITHIN);
        world.has_converged();
        world.clear();
        world.pass(CONVERGES_WITHIN);
        world.is_empty();
    }
}

#[test]
fn a_service_of_each_mode_runs_and_goes() {
    let mut world = World::new(1);
    for (index, kind) in user::Kind::ALL.into_iter().enumerate() {
        world.happen(&Event::CreateNetwork(index));
        world.happen(&Event::CreateSecret(index));
        world.happen(&Event::Create { index, order: user::Order { kind, ..user::Order::default() } });
    }
    world.pass(Duration::from_secs(60));
    world.has_converged();
    assert_eq!(world.manager.store.services().count(), 4);
    world.clear();
    world.pass(Duration::from_secs(60));
    world.is_empty();
}

#[test]
fn what_waits_for_room_gets_it_when_there_is_some() {
    let minute = Duration::from_secs(60);
    let mut world = World::new(1);
    // Three nodes with room for ten tasks each.
    for (index, replicas) in [(0, 30), (1, 3)] {
        world.happen(&Event::Create { index, order: user::Order { replicas, ..user::Order::default() } });
        world.pass(minute);
    }
    assert_eq!(world.manager.store.tasks_pending().count(), 3);
    world.happen(&Event::Scale(0, 20));
    world.pass(minute);
    world.has_converged();
}

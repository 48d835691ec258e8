//! Tests of clusters that are long, and take turns: each run has every third of them, by a seed, so that runs add up to all; `make soak`
//! has all at once. Called by [`super::Maker::under_test`].

use std::sync::OnceLock;

use crate::sample;

/// One of so many runs has a test.
const RUNS: usize = 3;

const LONG: &[&str] = &[
    "mesh_explain::what_is_decided_is_told",
    "mesh_priority::a_worker_that_joins_and_returns_gets_its_share",
    "mesh_scale::a_service_follows_its_cpu_use_also_under_another_leader",
    "mesh_layers::each_layer_is_fetched_once_for_all",
    "mesh_explain::tasks_and_nodes_are_explained",
    "mesh_proxy::an_update_under_load_fails_no_request",
    "mesh_layers::a_node_that_gives_wrong_bytes_is_told_and_left_out",
    "mesh_layers::the_registry_is_gone",
    "mesh_scale::a_service_follows_its_requests",
    "mesh_full::a_manager_of_three_has_no_room",
    "mesh_explain::a_stack_is_simulated_and_nothing_is_changed",
    "mesh_layers::a_node_is_killed_while_it_gives",
    "mesh_proxy::a_killed_relay_and_a_killed_agent",
    "mesh_explain::prometheus_reads_the_cluster",
    "mesh_proxy::tasks_are_told_who_connects",
];

/// Why the test is not of this run.
#[must_use]
pub fn not_now(name: &str) -> Option<String> {
    // One for all tests of a run.
    static SEED: OnceLock<usize> = OnceLock::new();
    if sample::takes_all() {
        return None;
    }
    let number = LONG.iter().position(|it| *it == name)?;
    let seed = *SEED.get_or_init(sample::seed);
    (number % RUNS != seed % RUNS).then(|| {
        let (taken, all) = (LONG.len() / RUNS, LONG.len());
        format!("{taken} of {all} long tests are run, by the seed {seed}: KETCH_SWEEP_SEED={number} has this one, KETCH_SOAK_CYCLES=1 all")
    })
}

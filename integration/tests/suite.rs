//! The privileged end-to-end tests: one module per topic, each of small tests that drive the runtime under test.
//!
//! Run by `make integration [RUNTIME=...] [LAYOUT=native|v2] [FILTER=...]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests: a failure ends the test, and the rules on threads and paths bind the runtime"
)]

use std::process::ExitCode;

use ketch_integration::Caller;
use ketch_integration::suite::{self, Module, Time};

/// Who runs a module: root, or (`--as user`) a user without rights.
macro_rules! callers {
    () => {
        &[Caller::Root]
    };
    (waits) => {
        &[Caller::Root]
    };
    (both) => {
        &[Caller::Root, Caller::User]
    };
    (user) => {
        &[Caller::User]
    };
}

/// Whether a module's tests mostly wait.
macro_rules! time {
    (waits) => {
        Time::Waits
    };
    ($($callers:ident)?) => {
        Time::Works
    };
}

macro_rules! modules {
    ($($name:ident $(($mark:ident))?),* $(,)?) => {
        $(mod $name;)*
        const MODULES: &[Module] = &[
            $(Module { name: stringify!($name), tests: $name::TESTS, callers: callers!($($mark)?), time: time!($($mark)?) }),*
        ];
    };
}

modules![
    lifecycle(both),
    run(both),
    hooks(both),
    namespaces(both),
    joined_pid,
    userns,
    mounts(both),
    paths(both),
    devices(both),
    terminal(both),
    descriptors(both),
    pidfd(both),
    process(both),
    sysctl(both),
    lsm,
    net_devices,
    memory_policy,
    seccomp(both),
    exec(both),
    cgroup_v1,
    cgroup_v2,
    cgroup_v2_limits,
    cgroup_systemd,
    systemd_names,
    pause(both),
    kill(both),
    list_ps(both),
    update,
    events,
    intel_rdt,
    checkpoint,
    checkpoint_failures,
    checkpoint_streams,
    checkpoint_systemd,
    bad_input(both),
    cli(both),
    features,
    concurrency(both),
    bundles,
    kill_sweep,
    kill_sweep_init,
    fault_sweep,
    landlock,
    callers_containerd,
    callers_dockerd,
    callers_features,
    callers_podman,
    shim_bootstrap,
    shim_task,
    shim_io,
    shim_checkpoint,
    shim_faults,
    shim_hangs,
    shim_ctr,
    shim_cri,
    shim_cri_users,
    shim_idmap,
    shim_dockerd,
    shim_takeover,
    shim_sandbox,
    shim_leaks,
    ketchd_api,
    ketchd_run,
    ketchd_containers,
    ketchd_copy,
    ketchd_checkpoint,
    ketchd_criu,
    ketchd_systemd,
    ketchd_security,
    ketchd_streams,
    ketchd_images,
    ketchd_registry_access,
    ketchd_registry_manifests,
    ketchd_registry_transfer,
    ketchd_hostile,
    ketchd_images_in_use,
    ketchd_build,
    ketchd_networks,
    ketchd_network_settings,
    ketchd_endpoints,
    ketchd_ports,
    ketchd_names,
    ketchd_userns,
    ketchd_volumes,
    ketchd_image_mounts,
    ketchd_life,
    ketchd_sweep,
    ketchd_leaks,
    ketchd_races,
    ketchd_takeover,
    ketchd_full,
    ketchd_instances,
    ketchd_alone,
    ketchd_compose,
    ketchd_dockerpy,
    ketchd_differential,
    mesh_priority(waits),
    mesh_explain(waits),
    mesh_labels(waits),
    mesh_scale(waits),
    mesh_attach(waits),
    mesh_attacks(waits),
    mesh_ca(waits),
    mesh_cli(waits),
    mesh_cluster(waits),
    mesh_onehost(waits),
    mesh_full(waits),
    mesh_foreign(waits),
    mesh_layers(waits),
    mesh_ports(waits),
    mesh_proxy(waits),
    mesh_recovery(waits),
    mesh_traffic(waits),
    soak,
    attack_image(both),
    attack_inside(both),
    attack_label,
    attack_sysctl(both),
    attack_host,
    attack_pid,
    attack_restore,
    attack_proof,
    rootless(user),
    userns_settings(user),
];

fn main() -> ExitCode {
    suite::main(MODULES)
}

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

use ketch_integration::suite::{self, Module};

macro_rules! modules {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*
        const MODULES: &[Module] = &[$(Module { name: stringify!($name), tests: $name::TESTS }),*];
    };
}

modules![
    lifecycle,
    run,
    hooks,
    namespaces,
    userns,
    mounts,
    paths,
    devices,
    terminal,
    descriptors,
    process,
    sysctl,
    seccomp,
    exec,
    cgroup_v1,
    cgroup_v2,
    pause,
    kill,
    list_ps,
    update,
    events,
    intel_rdt,
    bad_input,
    cli,
    concurrency,
    bundles,
    kill_sweep,
    kill_sweep_init,
    callers_containerd,
    callers_dockerd,
    callers_podman,
    soak,
    attack_image,
    attack_inside,
];

fn main() -> ExitCode {
    suite::main(MODULES)
}

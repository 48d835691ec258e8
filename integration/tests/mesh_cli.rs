//! The swarm commands of the docker command line, init to leave: what each says and its exit code, as dockerd 28.5 says it.
//!
//! The transcripts are in `integration/mesh`, whose README says how they are written. `KETCHD=peer` holds dockerd itself to them.

use ketch_integration::mesh::Mesh;
use ketch_integration::mesh::script::Script;
use ketch_integration::{Case, tests};

tests![
    before,
    swarm,
    locks,
    nodes,
    services,
    flags,
    modes,
    updates,
    logs,
    secrets,
    configs,
    stacks,
    networks,
    ports,
    wrong,
    members,
];

/// Without a cluster.
fn before(case: &Case) {
    run(case, "before", 1);
}

/// init, update, join-token, ca, leave.
fn swarm(case: &Case) {
    run(case, "swarm", 1);
}

/// Autolock: unlock-key, unlock.
fn locks(case: &Case) {
    run(case, "locks", 1);
}

fn nodes(case: &Case) {
    run(case, "nodes", 1);
}

/// create, ls, ps, inspect, scale, rm.
fn services(case: &Case) {
    run(case, "services", 1);
}

/// What the flags of a service become.
fn flags(case: &Case) {
    run(case, "flags", 1);
}

/// Global services and both kinds of jobs.
fn modes(case: &Case) {
    run(case, "modes", 1);
}

/// update and rollback.
fn updates(case: &Case) {
    run(case, "updates", 1);
}

fn logs(case: &Case) {
    run(case, "logs", 1);
}

fn secrets(case: &Case) {
    run(case, "secrets", 1);
}

fn configs(case: &Case) {
    run(case, "configs", 1);
}

fn stacks(case: &Case) {
    run(case, "stacks", 1);
}

/// Overlay networks, and what a service's VIP is; no packet goes by one here.
fn networks(case: &Case) {
    run(case, "networks", 1);
}

/// Published ports as they are told; dockerd can't serve the mesh's here, which has no IPVS.
fn ports(case: &Case) {
    run(case, "ports", 1);
}

/// Wrong input of every kind.
fn wrong(case: &Case) {
    run(case, "wrong", 1);
}

/// Three nodes: join, promote, demote, drain, leave, rm.
fn members(case: &Case) {
    run(case, "members", 3);
}

fn run(case: &Case, name: &str, nodes: usize) {
    let script = Script::read(name);
    let mut mesh = Mesh::start(case, nodes);
    script.run(&mut mesh);
    mesh.end();
}

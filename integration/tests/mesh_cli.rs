//! The swarm commands of the docker command line, init to leave: what each says and its exit code, as dockerd 28.5 says it.
//!
//! The transcripts are in `integration/mesh`, whose README says how they are written. `KETCHD=peer` holds dockerd itself to them.

use ketch_integration::mesh::Mesh;
use ketch_integration::mesh::script::Script;
use ketch_integration::{Case, tests};

tests![lifecycle, services, contents, networks, members, wrong];

/// The cluster itself, init to leave, and its lock.
fn lifecycle(case: &Case) {
    run(case, 1, &["swarm", "locks"]);
}

/// Services of all four modes, and their updates.
fn services(case: &Case) {
    run(case, 1, &["services", "modes", "updates"]);
}

/// What the flags of a service become, secrets and configs in it, its logs.
fn contents(case: &Case) {
    run(case, 1, &["flags", "secrets", "configs", "logs"]);
}

/// Overlay networks and published ports as they are told: dockerd's VIPs and mesh need IPVS, which is not here, so that no packet is
/// sent to one. Stacks, whose networks are overlays.
fn networks(case: &Case) {
    run(case, 1, &["networks", "ports", "stacks"]);
}

/// Three nodes: join, promote, demote, drain, leave, rm.
fn members(case: &Case) {
    run(case, 3, &["members"]);
}

/// No cluster, a node's own affairs, and wrong input of every kind.
fn wrong(case: &Case) {
    run(case, 1, &["before", "nodes", "wrong"]);
}

/// Runs transcripts one after the other, each in a cluster of its own on the same engines. `KETCH_MESH` names one to be run alone.
fn run(case: &Case, nodes: usize, names: &[&str]) {
    let only = std::env::var("KETCH_MESH").ok();
    let names: Vec<&str> = names.iter().copied().filter(|name| only.as_deref().is_none_or(|only| only == *name)).collect();
    case.needs(!names.is_empty(), "another transcript is asked for (KETCH_MESH)");
    let mut mesh = Mesh::start(case, nodes);
    let failures: Vec<String> = names.iter().filter_map(|name| Script::read(name).run(&mut mesh).err()).collect();
    mesh.end();
    assert!(failures.is_empty(), "- as recorded, + as seen:\n{}", failures.concat());
}

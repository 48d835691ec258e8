//! Engines of the other kind: a ketchd that is told to join a Docker swarm, and a dockerd that is told to join a ketch cluster, each say
//! so, and are of no cluster then.

use ketch_integration::ketchd::Maker;
use ketch_integration::mesh::Mesh;
use ketch_integration::{Case, tests};

tests![neither_joins_the_other];

const STATE: &str = "info --format '{{.Swarm.LocalNodeState}}'";

fn neither_joins_the_other(case: &Case) {
    let mesh = Mesh::of(case, &[Maker::under_test(case), Maker::Docker], &[]);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: both are of one kind");

    let _ = mesh.docker(2, "swarm init --advertise-addr 10.99.0.2").ok();
    let token = mesh.token(2, "worker");
    // The time for it: a client waits no longer.
    let line = format!("timeout 5 docker swarm join --advertise-addr 10.99.0.1 --token {token} 10.99.0.2:2377");
    mesh.node(1).engine.sh(&line).refuses(&["10.99.0.2:2377 is not a manager of a ketch cluster"]);
    assert_eq!(mesh.docker(1, STATE).ok().text(), "inactive");
    assert_eq!(mesh.docker(2, "node ls --quiet").ok().text().lines().count(), 1);
    let _ = mesh.docker(2, "swarm leave --force").ok();

    let _ = mesh.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
    // dockerd itself tries five times, two seconds apart, before it says what it was told.
    mesh.join(2, &mesh.token(1, "worker"), 1)
        .refuses(&["this is a manager of a ketch cluster, not of a Docker swarm"]);
    let _ = mesh.wait_output(2, STATE, |text| text == "inactive");
    assert_eq!(mesh.docker(1, "node ls --quiet").ok().text().lines().count(), 1);
    mesh.end();
}

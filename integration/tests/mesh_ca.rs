//! Who belongs to a real cluster, and how that outlives its keys, its machines and its addresses: the move to another root, the
//! log's key, copied and restored folders.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ketch_integration::mesh::{Mesh, node_of};
use ketch_integration::runtime::Output;
use ketch_integration::{Case, tests, wait_within};

tests![
    a_root_is_rotated_while_a_node_is_away,
    a_rotation_ends_with_its_root,
    a_root_of_ones_own_takes_the_place_of_the_clusters,
    the_key_of_the_log_changes_with_the_unlock_key,
    a_folder_on_two_machines_is_told,
    a_managers_folder_is_restored,
    a_new_cluster_at_another_address,
    a_worker_at_another_address,
];

const SOON: Duration = Duration::from_secs(90);

/// A service of so many on these nodes, and what runs of it.
fn serve(mesh: &Mesh<'_>, replicas: usize, flags: &str) -> Vec<String> {
    let line = format!(
        "service create -q -d --name web --endpoint-mode dnsrr --replicas {replicas} {flags} 10.99.0.254:5000/busybox:1 sleep 1000"
    );
    let _ = mesh.docker(1, &line).ok();
    mesh.wait_running(1, "web", replicas, |_| true)
}

/// The folder of a node.
fn folder(mesh: &Mesh<'_>, number: usize) -> PathBuf {
    mesh.node(number).engine.site.path("data/swarm")
}

/// The roots that a node trusts, as its disk has them.
fn roots(mesh: &Mesh<'_>, number: usize) -> String {
    fs::read_to_string(folder(mesh, number).join("certificates/swarm-root-ca.crt")).unwrap_or_default()
}

/// What each node's certificate is of, by its host name: `Ready` is the present root.
fn tls(mesh: &Mesh<'_>) -> Output {
    mesh.docker(1, "node ls --format '{{.Hostname}} {{.TLSStatus}}'")
}

fn a_root_is_rotated_while_a_node_is_away(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 2);
    let before = serve(&mesh, 4, "--constraint node.hostname!=node5");
    let (old_root, old_token) = (mesh.docker(1, "swarm ca").ok().text().to_owned(), mesh.token(1, "worker"));
    mesh.node_mut(5).kill_agent();
    let _ = mesh.docker(2, "swarm ca --rotate --detach").ok();
    let key = "{{json .Swarm.Cluster.TLSInfo.CertIssuerPublicKey}}";
    let next = mesh.docker(1, &format!("info --format '{key}'")).ok().text().to_owned();
    let issuers =
        "node inspect node1 node2 node3 node4 --format '{{json .Description.TLSInfo.CertIssuerPublicKey}}'";
    let _ = mesh.wait_output_within(SOON, 1, issuers, |text| text.lines().all(|line| line == next));
    // Until the last one has moved both are trusted, and the old token is good.
    assert_eq!(roots(&mesh, 1).matches("BEGIN CERTIFICATE").count(), 2, "{}", tls(&mesh));
    assert_eq!(mesh.token(1, "worker"), old_token);
    assert_eq!(mesh.wait_running(1, "web", 4, |_| true), before, "tasks run while certificates are renewed");

    mesh.node_mut(5).come_back();
    mesh.wait_ready(1, &[1, 2, 3, 4, 5]);
    let new_root = wait_within(SOON, "the old root's end", || {
        let out = mesh.docker(3, "swarm ca");
        let is_alone = (1..=5).all(|number| roots(&mesh, number).trim() == out.text().trim());
        if out.code == 0 && out.text() != old_root && is_alone {
            Ok(out.text().to_owned())
        } else {
            Err(format!("{out}{}", tls(&mesh)))
        }
    });
    assert_eq!(new_root.matches("BEGIN CERTIFICATE").count(), 1);
    let _ = mesh
        .wait_output(1, "node ls --format '{{.TLSStatus}}'", |text| text.lines().all(|line| line == "Ready"));
    assert_eq!(mesh.wait_running(1, "web", 4, |_| true), before, "nothing is moved by it");
    // Tokens name the root.
    let new_token = mesh.token(2, "worker");
    assert_ne!(new_token, old_token);
    let _ = mesh.docker(4, "swarm leave").ok();
    mesh.join(4, &old_token, 1).refuses(&["remote CA does not match fingerprint. Expected: "]);
    let _ = mesh.join(4, &new_token, 1).ok();
    // A manager that starts again comes back by what it has on its disk.
    mesh.node_mut(2).kill_agent();
    mesh.node_mut(2).come_back();
    let _ = mesh.wait_output(2, "node ls --filter name=node2 --format '{{.Status}}'", |text| text == "Ready");
    mesh.end();
}

fn a_rotation_ends_with_its_root(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let old = mesh.docker(1, "swarm ca").ok().text().to_owned();
    let client = mesh.node(1).engine.client().args(["swarm", "ca", "--rotate", "--cert-expiry", "2h"]).spawn();
    let _ = mesh.wait_output_within(SOON, 1, "swarm ca", |text| text != old);
    let out = client.wait().ok();
    // How far it is, is shown as often as the client looks, which may be once.
    assert!(out.text().contains("desired root digest: sha256:"), "{out}");
    let shown = mesh.docker(1, "swarm ca").ok().text().to_owned();
    assert!(out.text().ends_with(&shown) && shown != old, "the new root at the end: {out}");
    let _ = mesh.wait_output(1, "info --format '{{.Swarm.Cluster.Spec.CAConfig.NodeCertExpiry}}'", |text| {
        text == "2h0m0s"
    });
    mesh.end();
}

fn a_root_of_ones_own_takes_the_place_of_the_clusters(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let before = serve(&mesh, 2, "");
    let make = "set -e; for name in mine other; do
        openssl ecparam -name prime256v1 -genkey -noout -out $name.key
        openssl req -x509 -new -key $name.key -days 3650 -subj \"/O=Our Own/CN=$name\" -out $name.crt
        done; cat mine.crt other.crt > both.crt";
    let folder = mesh.node(1).engine.site.path("own");
    fs::create_dir_all(&folder).expect("make a folder for a root");
    let at = |script: &str| mesh.node(1).engine.sh(&format!("cd {} && {{ {script}; }}", folder.display()));
    let _ = at(make).ok();
    for (flags, text) in [
        ("--ca-cert mine.crt --ca-key other.key", "certificate key mismatch"),
        ("--ca-cert mine.crt", "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well"),
        ("--ca-cert both.crt --ca-key mine.key", "the desired CA certificate cannot contain multiple certificates"),
    ] {
        at(&format!("docker swarm ca --rotate --detach {flags}")).refuses(&[text]);
    }
    let token = mesh.token(1, "worker");
    let _ = at("timeout 120 docker swarm ca --rotate --ca-cert mine.crt --ca-key mine.key").ok();
    let mine = fs::read_to_string(folder.join("mine.crt")).expect("read a root");
    assert_eq!(mesh.docker(1, "swarm ca").ok().text().trim(), mine.trim());
    wait_within(SOON, "the new root alone", || {
        let all = (1..=2).map(|number| roots(&mesh, number)).collect::<Vec<_>>();
        if all.iter().all(|text| text.trim() == mine.trim()) { Ok(()) } else { Err(all.concat()) }
    });
    assert_eq!(mesh.running(1, "web"), before, "nothing is moved by it");
    let next = mesh.token(1, "worker");
    assert_ne!(next, token);
    let _ = mesh.docker(2, "swarm leave").ok();
    mesh.join(2, &token, 1).refuses(&["remote CA does not match fingerprint. Expected: "]);
    let _ = mesh.join(2, &next, 1).ok();
    mesh.end();
}

/// The keys of a node as they lie on its disk.
fn keys(mesh: &Mesh<'_>, number: usize) -> String {
    fs::read_to_string(folder(mesh, number).join("certificates/swarm-node.pem")).unwrap_or_default()
}

fn the_key_of_the_log_changes_with_the_unlock_key(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 0);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: its keys are elsewhere");
    let before = serve(&mesh, 3, "");
    let clear = keys(&mesh, 2);
    assert!(clear.contains("-----BEGIN KETCH RAFT KEY-----"), "in the clear until it is locked");
    let _ = mesh.docker(1, "swarm update --autolock=true").ok();
    let is_done = |mesh: &Mesh<'_>, known: &[String]| {
        wait_within(SOON, "managers with another key, sealed", || {
            let all: Vec<_> = (1..=3).map(|number| keys(mesh, number)).collect();
            let is_so = |text: &String| {
                text.contains("SEALED KETCH RAFT KEY")
                    && !text.contains("NEXT RAFT KEY")
                    && !known.contains(text)
            };
            if all.iter().all(is_so) { Ok(all) } else { Err(all.concat()) }
        })
    };
    let sealed = is_done(&mesh, &[]);
    let key = mesh.docker(1, "swarm unlock-key --rotate --quiet").ok().text().to_owned();
    let _ = is_done(&mesh, &sealed);
    mesh.node_mut(3).kill_agent();
    mesh.node_mut(3).come_back();
    let _ = mesh.wait_output(3, "info --format '{{.Swarm.LocalNodeState}}'", |text| text == "locked");
    let _ = mesh.node(3).engine.sh(&format!("echo {key} | docker swarm unlock")).ok();
    let _ = mesh.wait_output(
        3,
        "node ls --filter name=node3 --format '{{.Status}} {{.ManagerStatus}}'",
        |text| text == "Ready Reachable",
    );
    assert_eq!(mesh.wait_running(3, "web", 3, |_| true).len(), before.len());
    mesh.end();
}

fn a_folder_on_two_machines_is_told(case: &Case) {
    let mut mesh = Mesh::start(case, 3);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: both take turns");
    let _ = mesh.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
    let _ = mesh.join(2, &mesh.token(1, "worker"), 1).ok();
    mesh.wait_ready(1, &[1, 2]);
    mesh.node_mut(3).kill_agent();
    copied(&folder(&mesh, 2), &folder(&mesh, 3));
    mesh.node_mut(3).come_back();
    wait_within(SOON, "one of both is told", || {
        let logs = [2, 3].map(|number| mesh.node(number).engine.log());
        if logs.iter().any(|log| log.contains("its folder was copied")) { Ok(()) } else { Err(logs.concat()) }
    });
    // The other one goes on, and is not replaced again.
    let list = "node ls --format '{{.Hostname}} {{.Status}}'";
    let is_settled = |text: &str| text.lines().count() == 2 && text.lines().all(|line| line.ends_with(" Ready"));
    let seen = mesh.wait_output(1, list, is_settled);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(mesh.docker(1, list).ok().text(), seen);
    }
    mesh.end();
}

fn a_managers_folder_is_restored(case: &Case) {
    let mut mesh = Mesh::formed(case, 1, 1);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: its folder is restored otherwise");
    let before = serve(&mesh, 2, "--constraint node.role==worker");
    let _ = mesh.node(1).engine.sh("printf one | docker secret create one -").ok();
    // As the README says: the agent is stopped, the folder copied.
    mesh.node_mut(1).engine.stop();
    let (live, backup) = (folder(&mesh, 1), mesh.node(1).engine.site.path("backup"));
    copied(&live, &backup);
    mesh.node_mut(1).come_back();
    mesh.wait_ready(1, &[1, 2]);
    let _ = mesh.node(1).engine.sh("printf two | docker secret create two -").ok();
    // The machine is lost, and comes back with the copy alone.
    mesh.node_mut(1).kill_all();
    fs::remove_dir_all(&live).expect("remove a node's folder");
    copied(&backup, &live);
    mesh.node_mut(1).come_back();
    let out = mesh.docker(1, "swarm init --force-new-cluster --advertise-addr 10.99.0.1").ok();
    assert!(out.text().starts_with("Swarm initialized: current node ("), "{out}");
    mesh.wait_ready(1, &[1, 2]);
    assert_eq!(mesh.docker(1, "secret ls --format '{{.Name}}'").ok().text(), "one");
    assert_eq!(mesh.wait_running(1, "web", 2, |number| number == 2), before, "what runs is known still");
    let _ = mesh.docker(1, "service scale -d web=3").ok();
    let _ = mesh.wait_running(1, "web", 3, |number| number == 2);
    mesh.end();
}

/// With its owners and modes.
fn copied(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("run cp");
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

fn a_new_cluster_at_another_address(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let before = serve(&mesh, 1, "--constraint node.role==manager");
    assert_eq!(before.iter().filter_map(|line| node_of(line)).collect::<Vec<_>>(), [1]);
    let move_it = "ip addr del 10.99.0.1/24 dev mesh0; ip addr add 10.99.0.11/24 dev mesh0; ip route replace default via 10.99.0.254";
    let _ = mesh.node(1).engine.sh(move_it).ok();
    let out = mesh.docker(1, "swarm init --force-new-cluster --advertise-addr 10.99.0.11").ok();
    assert!(out.text().starts_with("Swarm initialized: current node ("), "{out}");
    let _ = mesh.wait_output(1, "info --format '{{.Swarm.NodeAddr}}'", |text| text == "10.99.0.11");
    let _ = mesh.wait_output(
        1,
        "node inspect self --format '{{.ManagerStatus.Addr}} {{.Status.Addr}}'",
        |text| text == "10.99.0.11:2377 10.99.0.11",
    );
    // Its workers looked for it elsewhere: they join again.
    let _ = mesh.docker(2, "swarm leave --force");
    let token = mesh.token(1, "worker");
    let _ = mesh
        .docker(2, &format!("swarm join --advertise-addr 10.99.0.2 --token {token} 10.99.0.11:2377"))
        .ok();
    let _ =
        mesh.wait_output(1, "node ls --filter role=worker --format '{{.Hostname}} {{.Status}}'", |text| {
            text.contains("node2 Ready")
        });
    mesh.end();
}

fn a_worker_at_another_address(case: &Case) {
    let mut mesh = Mesh::start(case, 2);
    let _ = mesh.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
    let _ = mesh.docker(2, &format!("swarm join --token {} 10.99.0.1:2377", mesh.token(1, "worker"))).ok();
    mesh.wait_ready(1, &[1, 2]);
    let before = serve(&mesh, 2, "--constraint node.role==worker");
    mesh.node_mut(2).kill_agent();
    let move_it = "ip addr del 10.99.0.2/24 dev mesh0; ip addr add 10.99.0.12/24 dev mesh0; ip route replace default via 10.99.0.254";
    let _ = mesh.node(2).engine.sh(move_it).ok();
    mesh.node_mut(2).come_back();
    let _ = mesh.wait_output_within(
        SOON,
        1,
        "node inspect node2 --format '{{.Status.State}} {{.Status.Addr}}'",
        |text| text == "ready 10.99.0.12",
    );
    let _ = mesh.wait_output(2, "info --format '{{.Swarm.NodeAddr}}'", |text| text == "10.99.0.12");
    assert_eq!(mesh.wait_running(1, "web", 2, |number| number == 2).len(), before.len());
    mesh.end();
}

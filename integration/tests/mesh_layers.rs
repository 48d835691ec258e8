//! Layers between nodes (`cluster-layer-sharing`): what one node of the cluster has is not fetched from the registry again, whoever
//! lies, dies or is not there any more. On a real cluster, by the stock client; what the registry was asked for is in its own log.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ketch_integration::mesh::{Mesh, REGISTRY};
use ketch_integration::wait::wait_within;
use ketch_integration::{Case, tests};

tests![
    each_layer_is_fetched_once_for_all,
    off_unless_asked_for,
    the_registry_is_gone,
    a_node_that_gives_wrong_bytes_is_told_and_left_out,
    a_node_is_killed_while_it_gives,
];

/// Of an image's file that does not compress.
const MEBIBYTES: usize = 12;
/// A hundred containers on a busy machine.
const LONG: Duration = Duration::from_secs(300);
const SHARING: &str = "--cluster-layer-sharing";

/// A cluster whose registry has `big:1`, which no node has.
fn formed<'a>(case: &'a Case, (managers, count): (usize, usize), flags: &[&str]) -> Mesh<'a> {
    let mesh = Mesh::with_flags(case, count, flags);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd's nodes fetch from registries only");
    let script = format!(
        "set -e; docker run --name maker --network none {REGISTRY}/busybox:1 dd if=/dev/urandom of=/big bs=1M count={MEBIBYTES} 2>/dev/null
         docker commit --change 'STOPSIGNAL KILL' --change 'CMD [\"sleep\", \"1000000\"]' maker {REGISTRY}/big:1; docker rm maker
         docker push -q {REGISTRY}/big:1; docker rmi -f {REGISTRY}/big:1 {REGISTRY}/busybox:1"
    );
    let _ = mesh.node(1).engine.sh(&script).ok();
    mesh.form(managers);
    mesh
}

fn create(mesh: &Mesh<'_>, flags: &str) {
    let _ = mesh.docker(1, &format!("service create -q -d --name web {flags} {REGISTRY}/big:1")).ok();
}

/// The digests of `big:1`'s layers.
fn layers(mesh: &Mesh<'_>) -> Vec<String> {
    let accept = "application/vnd.docker.distribution.manifest.v2+json,application/vnd.oci.image.manifest.v1+json";
    let line = format!("curl -s -H 'Accept: {accept}' http://{REGISTRY}/v2/big/manifests/1");
    let out = mesh.node(1).engine.sh(&line).ok();
    let manifest: serde_json::Value = serde_json::from_str(out.text()).expect("a manifest");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// How often the registry was asked for each layer of `big:1`.
fn fetched(mesh: &Mesh<'_>) -> BTreeMap<String, usize> {
    let asked = mesh.registry().asked();
    let count = |layer: &str| asked.iter().filter(|line| **line == format!("GET /v2/big/blobs/{layer}")).count();
    layers(mesh).into_iter().map(|layer| (layer.clone(), count(&layer))).collect()
}

/// The layers' files on a node, the largest last.
fn blobs(mesh: &Mesh<'_>, node: usize, folder: &str) -> Vec<(u64, PathBuf)> {
    let folder = mesh.node(node).engine.site.path("data").join(folder);
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<_> = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.path()))).collect();
    all.sort();
    all
}

fn each_layer_is_fetched_once_for_all(case: &Case) {
    let mesh = formed(case, (3, 4), &[SHARING]);
    create(&mesh, "--replicas 100");
    let running = mesh.wait_running_within(LONG, 1, "web", 100, |_| true);
    for node in 1..=4 {
        let name = format!(" node{node} ");
        assert!(running.iter().any(|line| line.contains(&name)), "nothing runs on node{node}");
    }
    let fetched = fetched(&mesh);
    assert!(fetched.len() >= 2 && fetched.values().all(|count| *count == 1), "{fetched:#?}\n{:#?}", mesh.registry().asked());
    // The larger layer has come to all nodes but one from others, and they say so.
    let told = |direction| {
        let name = format!("ketch_layer_bytes_total{{direction=\"{direction}\"}}");
        (1..=4).map(|node| mesh.node(node).engine.metric(&name)).sum::<f64>()
    };
    let (given, received) = (told("given"), told("received"));
    let least = (3 * (MEBIBYTES << 20)) as f64;
    assert!(given >= least && received >= least, "{given} given and {received} received, of {least}");
    mesh.end();
}

fn off_unless_asked_for(case: &Case) {
    let mesh = formed(case, (1, 3), &[]);
    create(&mesh, "--mode global");
    let _ = mesh.wait_running(1, "web", 3, |_| true);
    let fetched = fetched(&mesh);
    assert!(fetched.values().all(|count| *count == 3), "{fetched:#?}");
    let listening = mesh.node(2).engine.sh("ss -Hltn").ok();
    assert!(!listening.text().contains(":7947"), "{listening}");
    mesh.end();
}

fn the_registry_is_gone(case: &Case) {
    let mut mesh = formed(case, (1, 3), &[SHARING]);
    create(&mesh, "--replicas 1 --replicas-max-per-node 1");
    let _ = mesh.wait_running(1, "web", 1, |_| true);
    mesh.stop_registry();
    let _ = mesh.docker(1, "service scale -d web=3").ok();
    let _ = mesh.wait_running(1, "web", 3, |_| true);
    mesh.end();
}

fn a_node_that_gives_wrong_bytes_is_told_and_left_out(case: &Case) {
    let mut mesh = formed(case, (1, 4), &[SHARING]);
    create(&mesh, "--replicas 2 --constraint node.hostname!=node4 --constraint node.role==worker --replicas-max-per-node 1");
    let _ = mesh.wait_running(1, "web", 2, |node| node == 2 || node == 3);
    // Some bytes in each piece that it gives.
    let (size, file) = blobs(&mesh, 2, "image/blobs").pop().expect("a layer's file");
    assert!(size > (MEBIBYTES as u64) << 20, "{size}");
    let mut bytes = fs::read(&file).expect("read the layer");
    bytes.iter_mut().skip(500_000).step_by(1 << 20).for_each(|byte| *byte = !*byte);
    fs::write(&file, bytes).expect("write the layer");
    mesh.stop_registry();
    let _ = mesh.docker(1, "service update -q -d --constraint-rm node.hostname!=node4 --replicas 3 web").ok();
    let id = mesh.docker(1, "node inspect --format '{{.ID}}' node2").ok().text().to_owned();
    let told = "events --since 1h --until 0s --filter event=wrong-layer --format '{{.Type}} {{.Actor.ID}} {{.Actor.Attributes.layer}}'";
    let told = mesh.wait_output_within(LONG, 4, told, |text| text.contains(&id));
    let name = file.file_name().and_then(|name| name.to_str()).expect("a digest").to_owned();
    assert!(told.lines().all(|line| line == format!("node {id} sha256:{name}")), "{told}");
    assert!(mesh.node(4).engine.metric("ketch_layer_wrong_total") >= 1.0);
    wait_within(LONG, "web on node4", || {
        let out = mesh.docker(4, "ps --quiet --filter label=com.docker.swarm.service.name=web");
        if out.text().is_empty() { Err(format!("{out}\n{}", mesh.docker(1, "service ps --no-trunc web"))) } else { Ok(()) }
    });
    mesh.end();
}

fn a_node_is_killed_while_it_gives(case: &Case) {
    // Twelve seconds for the larger layer.
    let mut mesh = formed(case, (1, 3), &[SHARING, "--cluster-layer-rate", "1m"]);
    create(&mesh, "--replicas 1 --constraint node.hostname==node2");
    let _ = mesh.wait_running(1, "web", 1, |node| node == 2);
    let _ = mesh.docker(1, "service update -q -d --constraint-rm node.hostname==node2 --constraint-add node.hostname==node3 --update-order start-first web").ok();
    wait_within(LONG, "a part of the layer on node3", || {
        let largest = blobs(&mesh, 3, "image/staging").pop().map_or(0, |(size, _)| size);
        if largest > 1 << 20 { Ok(()) } else { Err(format!("{largest} bytes\n{}", mesh.docker(1, "service ps --no-trunc web"))) }
    });
    mesh.node_mut(2).kill_all();
    wait_within(LONG, "web on node3", || {
        let out = mesh.docker(3, "ps --quiet --filter label=com.docker.swarm.service.name=web");
        if out.text().is_empty() { Err(format!("{out}\n{}", mesh.docker(1, "service ps --no-trunc web"))) } else { Ok(()) }
    });
    mesh.node_mut(2).come_back();
    mesh.wait_ready(1, &[1, 2, 3]);
    mesh.end();
}

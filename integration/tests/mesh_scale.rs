//! Services that follow their load (`ketch.scale.*`) on a real cluster, by the stock client: CPU that tasks burn, requests by the routing
//! mesh, a leader that is killed in the middle, and what is said when it can't be told.
//!
//! Loads are many times what is needed, or none: however busy the machine is, a step is a step.

use std::fs;
use std::time::Duration;

use ketch_integration::mesh::{IMAGE, Mesh};
use ketch_integration::{Case, tests, wait_within};

tests![
    labels_that_can_not_be_are_refused,
    a_stack_that_says_no_replicas_leaves_them_to_the_load,
    a_service_follows_its_cpu_use_also_under_another_leader,
    a_service_follows_its_requests,
];

/// Window, looks, tasks that begin and end, on a machine that does other things as well.
const SETTLES: Duration = Duration::from_secs(120);
/// It burns once there is a file, and uses next to nothing otherwise. What it gets on a machine with twenty others at work, 4% of a CPU, is
/// many times what each task should have.
const WORK: &str =
    "sh -c 'while true; do if test -e /burn; then i=0; while test $i -lt 20000; do i=$((i+1)); done; else sleep 3; fi; done'";

fn scaled(by: &str) -> String {
    format!("--label ketch.scale.min=1 --label ketch.scale.max=3 --label ketch.scale.window=20s --label ketch.scale.{by}")
}

#[track_caller]
fn wait_replicas(mesh: &Mesh<'_>, seen_by: usize, service: &str, wanted: &str) {
    let line = format!("service inspect --format '{{{{.Spec.Mode.Replicated.Replicas}}}}' {service}");
    let _ = mesh.wait_output_within(SETTLES, seen_by, &line, |text| text == wanted);
}

/// What the leader has told of services.
fn events(mesh: &Mesh<'_>, leader: usize) -> String {
    let format = "{{.Action}} {{index .Actor.Attributes \"name\"}} {{index .Actor.Attributes \"replicas.old\"}} \
        {{index .Actor.Attributes \"replicas.new\"}} {{index .Actor.Attributes \"ketch.scale\"}}";
    let line = format!("events --since 10m --until 0s --filter type=service --format '{format}'");
    mesh.docker(leader, &line).ok().text().to_owned()
}

#[track_caller]
fn wait_told(mesh: &Mesh<'_>, leader: usize, wanted: &str) {
    wait_within(SETTLES, &format!("an event: {wanted}"), || {
        let told = events(mesh, leader);
        if told.lines().any(|line| line.contains(wanted)) { Ok(()) } else { Err(told) }
    });
}

fn a_service_follows_its_cpu_use_also_under_another_leader(case: &Case) {
    let mut mesh = Mesh::formed_of_ketch(case, 3, 1);
    let flags = format!("--name work --stop-grace-period 1s --reserve-cpu 0.01 --constraint node.hostname==node4 {}", scaled("cpu=50"));
    mesh.create(&flags, WORK);
    let _ = mesh.wait_running(1, "work", 1, |number| number == 4);
    let leads = mesh.leader(1, SETTLES);
    let id = mesh.wait_output(4, "ps --quiet --filter label=com.docker.swarm.service.name=work", |text| !text.is_empty());
    let _ = mesh.docker(4, &format!("exec {id} touch /burn")).ok();
    wait_replicas(&mesh, 1, "work", "3");
    let _ = mesh.wait_running(1, "work", 3, |number| number == 4);
    wait_told(&mesh, leads, "update work 1 ");
    wait_told(&mesh, leads, "scale_max work");
    // Nobody has updated it: there is nothing to roll back, and no task was replaced.
    assert!(mesh.docker(4, &format!("inspect --format '{{{{.State.Running}}}}' {id}")).ok().text() == "true");
    mesh.docker(1, "service rollback -q -d work").refuses(&["does not have a previous spec"]);
    // The next leader holds at first, and goes on from there.
    mesh.node_mut(leads).kill_agent();
    let other = if leads == 1 { 2 } else { 1 };
    let next = wait_within(SETTLES, "another leader", || match mesh.leader(other, SETTLES) {
        number if number == leads => Err(format!("node{number}")),
        number => Ok(number),
    });
    wait_told(&mesh, next, "scale_max work");
    wait_replicas(&mesh, other, "work", "3");
    let _ = mesh.docker(4, &format!("exec {id} rm /burn")).ok();
    wait_replicas(&mesh, other, "work", "1");
    let _ = mesh.wait_running(other, "work", 1, |number| number == 4);
    wait_told(&mesh, next, "update work 3 1");
    mesh.end();
}

fn a_service_follows_its_requests(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    let serve = "sh -c 'mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www'";
    mesh.create(&format!("--name web --publish 8080:80 --stop-grace-period 1s {}", scaled("requests=1")), serve);
    let _ = mesh.wait_running(1, "web", 1, |_| true);
    let site = mesh.wire().site();
    let asks = "for i in $(seq 20); do curl --silent --output /dev/null --max-time 2 http://10.99.0.2:8080/; done";
    let replicas = "service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web";
    wait_within(SETTLES, "three replicas", || {
        drop(site.run("sh", &["-c", asks]));
        let out = mesh.docker(1, replicas);
        if out.text() == "3" { Ok(()) } else { Err(out.to_string()) }
    });
    // It is told once it is written.
    wait_told(&mesh, mesh.leader(1, SETTLES), "by the requests of its tasks");
    wait_replicas(&mesh, 1, "web", "1");
    mesh.end();
}

fn labels_that_can_not_be_are_refused(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    let create_with = |flags: &str| mesh.docker(1, &format!("service create -q -d --name x {flags} {IMAGE} sleep 1000"));
    for (flags, told) in [
        (scaled("cpu=many"), "label ketch.scale.cpu: \"many\" is no number from 1 to 1000"),
        (scaled("cpu=50 --label ketch.scale.max=0"), "label ketch.scale.max: \"0\" is no number"),
        (scaled("cpu=50 --label ketch.scale.min=4"), "label ketch.scale.max: 3 is less than ketch.scale.min, which is 4"),
        (scaled("memory=50"), "label ketch.scale.memory: the service reserves no memory"),
        (scaled("cpu=50 --mode global"), "label ketch.scale.min: only replicated services are scaled"),
        (scaled("cpu=50 --mode replicated-job"), "label ketch.scale.min: only replicated services are scaled"),
        (scaled("requests=5 --network host"), "label ketch.scale.requests: what comes to tasks that have the network of their nodes"),
        ("--label ketch.scale.cpu=50".to_owned(), "label ketch.scale.cpu: there is no ketch.scale.min beside it"),
    ] {
        create_with(&flags).refuses(&[told]);
    }
    // Bounds hold at once; where no task runs, nothing is known, and that is said.
    let _ = create_with(&format!("--constraint node.hostname==nowhere --replicas 9 {}", scaled("cpu=50"))).ok();
    wait_replicas(&mesh, 1, "x", "3");
    wait_told(&mesh, mesh.leader(1, SETTLES), "scale_hold x");
    mesh.docker(1, "service update -q -d --label-add ketch.scale.window=never x").refuses(&["label ketch.scale.window:"]);
    mesh.end();
}

/// Its task has no node, so that nothing but what is deployed decides.
const STACK: &str = r#"
services:
  web:
    image: IMAGE
    command: sleep 1000
    deploy:
      placement: {constraints: ["node.hostname==nowhere"]}
      labels: {ketch.scale.min: "2", ketch.scale.max: "5", ketch.scale.cpu: "50", deployed: "FIRST"}
"#;

fn a_stack_that_says_no_replicas_leaves_them_to_the_load(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 0);
    let file = mesh.node(1).engine.site.path("shop.yml");
    let deploy = |deployed: &str| {
        fs::write(&file, STACK.replace("IMAGE", IMAGE).replace("FIRST", deployed)).expect("write the stack");
        let line = format!("stack deploy --detach=true --resolve-image never -c {} shop", file.display());
        let _ = mesh.docker(1, &line).ok();
        let label = "service inspect --format '{{.Spec.Labels.deployed}}' shop_web";
        let _ = mesh.wait_output_within(SETTLES, 1, label, |text| text == deployed);
    };
    deploy("first");
    wait_replicas(&mesh, 1, "shop_web", "2");
    let _ = mesh.docker(1, "service scale -d shop_web=4").ok();
    deploy("second");
    wait_replicas(&mesh, 1, "shop_web", "4");
    let _ = mesh.docker(1, "service scale -d shop_web=0").ok();
    deploy("third");
    wait_replicas(&mesh, 1, "shop_web", "0");
    mesh.end();
}

//! What labels of a service ask for beyond Docker: start order (`ketch.depends_on`), updates by changed configs and secrets
//! (`ketch.roll_on_change`), scheduled jobs (`ketch.schedule`). On a real cluster, by the stock client.

use std::fs;
use std::time::Duration;

use ketch_integration::mesh::{IMAGE, Mesh};
use ketch_integration::{Case, tests};

tests![a_service_waits_for_another, a_changed_secret_rolls_its_service, a_job_runs_by_its_schedule, labels_that_can_not_be_are_refused];

/// A minute may have just begun, and the tasks take a moment.
const A_MINUTE: Duration = Duration::from_secs(90);

fn a_service_waits_for_another(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    mesh.create("--name web --replicas 2 --label ketch.depends_on=db:healthy", "sleep 1000");
    let told = "service ps --no-trunc --format '{{.CurrentState}} {{.Error}}' web";
    let waits = |why: &str| {
        let _ = mesh.wait_output(2, told, |text| {
            text.lines().count() == 2 && text.lines().all(|line| line.starts_with("New") && line.contains(why))
        });
    };
    waits("waiting for service db, which does not exist");
    let health = "--health-cmd 'test -e /ready' --health-interval 200ms --health-retries 1000 --constraint node.hostname==node4";
    mesh.create(&format!("--name db {health}"), "sleep 1000");
    waits("waiting for service db to be healthy");
    let id = mesh.wait_output(4, "ps --quiet --filter label=com.docker.swarm.service.name=db", |text| !text.is_empty());
    let _ = mesh.docker(4, &format!("exec {id} touch /ready")).ok();
    let _ = mesh.wait_running(2, "web", 2, |_| true);
    // A circle is refused, and a restart waits for nobody.
    mesh.docker(1, &format!("service create -q -d --name a --label ketch.depends_on=a {IMAGE} true"))
        .refuses(&["label ketch.depends_on: the service would wait for itself: a, a"]);
    let _ = mesh.docker(1, "service rm db").ok();
    let _ = mesh.docker(1, "service update -q -d --force web").ok();
    let _ = mesh.wait_running(2, "web", 2, |_| true);
    mesh.end();
}

fn a_changed_secret_rolls_its_service(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    let file = mesh.node(1).engine.site.path("secret.txt");
    let with = |data: &str, line: &str| {
        fs::write(&file, data).expect("write the data");
        mesh.docker(1, &format!("{line} {}", file.display()))
    };
    let _ = with("one", "secret create key").ok();
    mesh.create("--name plain --secret key --constraint node.hostname==node2", "sleep 1000");
    mesh.docker(1, "secret rm key").refuses(&["secret 'key' is in use by the following service: plain"]);
    let _ = mesh.docker(1, "service rm plain").ok();
    let flags = "--name web --secret key --label ketch.roll_on_change=true --constraint node.hostname==node2 --stop-grace-period 1s";
    mesh.create(flags, "sleep 1000");
    let reads = |data: &str| {
        let _ = mesh.wait_output(2, "ps --quiet --filter label=com.docker.swarm.service.name=web", |text| {
            let one = !text.is_empty() && !text.contains('\n');
            one && mesh.docker(2, &format!("exec {text} cat /run/secrets/key")).text() == data
        });
    };
    reads("one");
    let _ = mesh.docker(1, "secret rm key").ok();
    reads("one");
    let _ = with("two", "secret create key").ok();
    reads("two");
    let _ = mesh.docker(1, "service rollback -q -d web").ok();
    reads("one");
    mesh.end();
}

fn a_job_runs_by_its_schedule(case: &Case) {
    let mut mesh = Mesh::formed_of_ketch(case, 3, 1);
    let flags = "--name tick --mode replicated-job --label ketch.schedule='* * * * *' --label ketch.schedule.zone=Europe/Berlin";
    mesh.create(flags, "true");
    let told = "service ps --format '{{.CurrentState}}' tick";
    let done = |text: &str| text.lines().filter(|line| line.starts_with("Complete")).count();
    let _ = mesh.wait_output_within(A_MINUTE, 1, told, |text| done(text) == 1);
    // The next one is the next leader's.
    let leads = mesh.leader(1, Duration::from_secs(30));
    mesh.node_mut(leads).kill_agent();
    let other = if leads == 1 { 2 } else { 1 };
    let _ = mesh.wait_output_within(A_MINUTE + A_MINUTE, other, told, |text| done(text) == 2);
    mesh.end();
}

fn labels_that_can_not_be_are_refused(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    for (label, told) in [
        ("ketch.schedule=never", "label ketch.schedule:"),
        ("ketch.roll_on_change=1", "label ketch.roll_on_change: \"1\" is neither true nor false"),
        ("ketch.depends_on=a:b", "label ketch.depends_on: \"a:b\" is not a service's name"),
        ("ketch.unknown=1", "label ketch.unknown: is not known"),
    ] {
        mesh.docker(1, &format!("service create -q -d --name x --label {label} {IMAGE} true")).refuses(&[told]);
    }
    mesh.create("--name x", "sleep 1000");
    mesh.docker(1, "service update -q -d --label-add ketch.depends_on=x x").refuses(&["label ketch.depends_on: the service would wait"]);
    mesh.end();
}

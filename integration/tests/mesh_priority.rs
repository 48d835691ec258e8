//! Who has room when there is not enough (`ketch.priority`), and who moves when there is more (`ketch.rebalance`). On a real cluster, by
//! the stock client.

use std::time::Duration;

use ketch_integration::mesh::{IMAGE, Mesh};
use ketch_integration::{Case, tests};

tests![
    a_higher_priority_takes_room_and_says_so,
    a_worker_that_joins_and_returns_gets_its_share,
    labels_that_can_not_be_are_refused,
];

/// A node is left alone for 30 s after it came, twice as long after it went; then one task moves after the other.
const MOVES: Duration = Duration::from_secs(180);

/// What clients show of a service's tasks: `web.1 Running Running 3 seconds ago node4 ...`.
fn told(service: &str) -> String {
    let format = "{{.Name}} {{.DesiredState}} {{.CurrentState}} {{.Node}} {{.Error}}";
    format!("service ps --no-trunc --format '{format}' {service}")
}

/// More than half of what a node has, as `--reserve-cpu` takes it.
fn most_of(mesh: &Mesh<'_>, node: usize) -> String {
    let line = format!("node inspect --format '{{{{.Description.Resources.NanoCPUs}}}}' node{node}");
    let nanos: u64 = mesh.docker(1, &line).ok().text().parse().expect("a number");
    let most = nanos * 6 / 10;
    format!("{}.{:03}", most / 1_000_000_000, most % 1_000_000_000 / 1_000_000)
}

fn a_higher_priority_takes_room_and_says_so(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 3, 1);
    let there = format!("--constraint node.hostname==node4 --reserve-cpu {} --stop-grace-period 3s", most_of(&mesh, 4));
    // It does not stop on the signal: its grace period is waited for.
    mesh.create(&format!("--name low {there}"), "sh -c 'trap \"\" TERM; while true; do sleep 1; done'");
    let _ = mesh.wait_running(1, "low", 1, |number| number == 4);

    // These would have room made anywhere but where they may be: none of them keeps another one from it.
    for number in 1..=5 {
        let nowhere = "--constraint node.labels.is==nowhere --label ketch.priority=10";
        mesh.create(&format!("--name nowhere{number} {nowhere}"), "sleep 1000");
    }
    let _ = mesh.wait_output(1, &told("nowhere5"), |text| text.contains("scheduling constraints not satisfied on 4 nodes"));

    // Without a priority there is no room.
    mesh.create(&format!("--name equal {there}"), "sleep 1000");
    let _ = mesh.wait_output(2, &told("equal"), |text| {
        text.starts_with("equal.1 Running Pending") && text.contains("insufficient resources on 1 node")
    });
    mesh.create(&format!("--name high --label ketch.priority=10 {there}"), "sleep 1000");
    let _ = mesh.wait_running(2, "high", 1, |number| number == 4);
    let _ = mesh.wait_output(3, &told("low"), |text| {
        let went = |line: &str| {
            line.contains("Shutdown Shutdown")
                && line.contains("preempted on node4 by high.1 of priority 10: its own is 0")
        };
        let waits = |line: &str| {
            line.starts_with("low.1 Running Pending") && line.contains("insufficient resources on 1 node")
        };
        text.lines().count() == 2 && text.lines().any(went) && text.lines().any(waits)
    });
    let format = "{{.Action}} {{index .Actor.Attributes \"name\"}} {{index .Actor.Attributes \"ketch.priority\"}}";
    let events = format!("events --since 10m --until 0s --filter type=service --format '{format}'");
    let leads = mesh.leader(1, MOVES);
    let _ = mesh.wait_output(leads, &events, |text| {
        text.contains("preempt low preempted on node4 by high.1 of priority 10: its own is 0")
    });

    // An equal one takes nothing; what was preempted comes back when there is room.
    mesh.create(&format!("--name peer --label ketch.priority=10 {there}"), "sleep 1000");
    let _ = mesh.wait_output(1, &told("peer"), |text| text.contains("insufficient resources on 1 node"));
    let _ = mesh.docker(1, "service rm peer").ok();
    let _ = mesh.docker(1, "service rm equal").ok();
    let _ = mesh.docker(1, "service rm high").ok();
    let _ = mesh.wait_running(2, "low", 1, |number| number == 4);
    let engine = &mesh.node(2).engine;
    let explained = engine.program(engine.command_line().0).args(["cluster", "explain", "low"]).run();
    let why = "moved: the one before was asked to leave node node4: preempted on node4 by high.1 of priority 10: its own is 0";
    assert!(explained.stdout.contains(why), "{explained}");
    mesh.end();
}

/// How many tasks of a service run on each of the four nodes.
fn counts(text: &str) -> [usize; 4] {
    let on = |node: &str| text.lines().filter(|line| line.split_whitespace().any(|word| word == node)).count();
    ["node1", "node2", "node3", "node4"].map(on)
}

fn a_worker_that_joins_and_returns_gets_its_share(case: &Case) {
    let mut mesh = Mesh::start(case, 4);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd does not know these labels");
    let _ = mesh.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
    for number in [2, 3] {
        let _ = mesh.join(number, &mesh.token(1, "manager"), 1).ok();
    }
    mesh.wait_ready(1, &[1, 2, 3]);
    let flags = "--replicas 6 --stop-grace-period 1s";
    mesh.create(&format!("--name plain {flags}"), "sleep 1000");
    mesh.create(&format!("--name even --label ketch.rebalance=true --update-order start-first {flags}"), "sleep 1000");
    let _ = mesh.wait_running(1, "plain", 6, |_| true);
    let _ = mesh.wait_running(1, "even", 6, |_| true);

    let _ = mesh.join(4, &mesh.token(1, "worker"), 1).ok();
    mesh.wait_ready(1, &[1, 2, 3, 4]);
    let running = |service: &str| {
        format!("service ps --filter desired-state=running --format '{{{{.Node}}}} {{{{.CurrentState}}}}' {service}")
    };
    let is_even = |text: &str| {
        let counts = counts(text);
        text.lines().all(|line| line.contains("Running")) && counts.iter().sum::<usize>() == 6 && !counts.contains(&0)
    };
    let _ = mesh.wait_output_within(MOVES, 2, &running("even"), is_even);
    let _ = mesh.wait_output(2, &told("even"), |text| {
        let moved = |line: &&str| line.contains("Shutdown Shutdown") && line.contains(" to node4 to spread service even: 2 of its tasks were on ");
        text.lines().filter(moved).count() == 1
    });
    let text = mesh.docker(1, &running("plain")).ok();
    assert_eq!(counts(text.text()), [2, 2, 2, 0], "a service without the label stays where it is");

    // It goes, its tasks are made elsewhere; and when it is back, some move again.
    mesh.node_mut(4).kill_all();
    let _ = mesh.wait_output_within(mesh.pace().replacement, 1, &running("even"), |text| {
        text.lines().all(|line| line.contains("Running")) && counts(text) == [2, 2, 2, 0]
    });
    mesh.node_mut(4).come_back();
    mesh.wait_ready(1, &[1, 2, 3, 4]);
    let _ = mesh.wait_output_within(MOVES, 2, &running("even"), is_even);
    mesh.end();
}

fn labels_that_can_not_be_are_refused(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 1, 0);
    mesh.create("--name x", "sleep 1000");
    for (label, told) in [
        ("ketch.priority=high", "label ketch.priority: \"high\" is no whole number from -1000 to 1000"),
        ("ketch.priority=1001", "label ketch.priority: \"1001\" is no whole number from -1000 to 1000"),
        ("ketch.rebalance=1", "label ketch.rebalance: \"1\" is neither true nor false"),
    ] {
        mesh.docker(1, &format!("service create -q -d --name y --label {label} {IMAGE} true")).refuses(&[told]);
        mesh.docker(1, &format!("service update -q -d --label-add {label} x")).refuses(&[told]);
    }
    let told = "label ketch.rebalance: is for services of the mode replicated";
    for mode in ["global", "replicated-job", "global-job"] {
        mesh.docker(1, &format!("service create -q -d --name y --mode {mode} --label ketch.rebalance=true {IMAGE} true"))
            .refuses(&[told]);
    }
    mesh.create("--name g --mode global", "sleep 1000");
    mesh.docker(1, "service update -q -d --label-add ketch.rebalance=true g").refuses(&[told]);
    mesh.end();
}

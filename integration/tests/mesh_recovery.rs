//! Two managers of three are killed at each step of a rolling update, and come back: the update goes on to its end, or is paused,
//! and what is told of it is what runs.
//!
//! The steps are those that a user sees: so many tasks replaced, watched after the last one, paused, rolled back; each with each
//! pair of managers. Sampled here, with the size printed; all of them in `make soak`.

use std::time::Duration;

use ketch_integration::mesh::Mesh;
use ketch_integration::sample::Sample;
use ketch_integration::{Case, tests, wait_within};

tests![two_managers_of_three_killed_at_each_step_of_an_update];

const REPLICAS: usize = 4;
/// Whoever is killed; the third one is asked meanwhile.
const PAIRS: [[usize; 2]; 3] = [[1, 2], [2, 3], [1, 3]];
/// How long an update has after the managers' return.
const ENDS: Duration = Duration::from_secs(150);

/// Where an update is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many tasks are of the new spec; 0: the update was just asked for.
    Replaced(usize),
    /// All are, and the last one is watched.
    Watched,
    /// New tasks fail, and it has stopped for that.
    Paused,
    /// New tasks fail, and it goes back.
    RollingBack,
}

const STEPS: [Step; 7] = [
    Step::Replaced(0),
    Step::Replaced(1),
    Step::Replaced(2),
    Step::Replaced(3),
    Step::Watched,
    Step::Paused,
    Step::RollingBack,
];

impl Step {
    /// Of the update.
    fn flags(self) -> &'static str {
        match self {
            Self::Replaced(_) | Self::Watched => "--image 10.99.0.254:5000/busybox:2",
            Self::Paused => "--update-failure-action pause --args false",
            Self::RollingBack => "--update-failure-action rollback --rollback-delay 1s --args false",
        }
    }

    fn is_reached(self, state: &str, replaced: usize) -> bool {
        match self {
            // One that was quicker than whoever looks is at its end.
            Self::Replaced(_) | Self::Watched if state == "completed" => true,
            Self::Replaced(count) => state == "updating" && replaced >= count,
            Self::Watched => state == "updating" && replaced == REPLICAS,
            Self::Paused => state == "paused",
            Self::RollingBack => state.starts_with("rollback"),
        }
    }

    /// States that it may come to, and stays in. With failing tasks it must not be told as completed.
    fn ends(self) -> &'static [&'static str] {
        match self {
            Self::Replaced(_) | Self::Watched => &["completed", "paused"],
            Self::Paused => &["paused"],
            Self::RollingBack => &["rollback_completed", "rollback_paused"],
        }
    }
}

fn two_managers_of_three_killed_at_each_step_of_an_update(case: &Case) {
    let sample = Sample::of(case, STEPS.len() * PAIRS.len(), 7);
    let mut mesh = Mesh::formed(case, 3, 2);
    let mut hit = 0;
    for number in sample.numbers() {
        // Neighbouring steps are of different pairs.
        let (step, pair) = (STEPS[number % STEPS.len()], PAIRS[number / STEPS.len()]);
        println!("mesh: {step:?}, managers {pair:?}");
        killed_at(&mut mesh, step, pair);
        hit += 1;
    }
    sample.tell(hit);
    mesh.end();
}

fn killed_at(mesh: &mut Mesh<'_>, step: Step, pair: [usize; 2]) {
    let left = (1..=3).find(|manager| !pair.contains(manager)).expect("one of three");
    let _ = mesh.docker(left, &format!("service create -q -d --name web --endpoint-mode dnsrr --constraint node.role==worker --replicas {REPLICAS} --restart-delay 100ms --update-delay 1s --update-monitor 2s --rollback-monitor 2s 10.99.0.254:5000/busybox:1 sleep 1000")).ok();
    let _ = mesh.wait_running(left, "web", REPLICAS, |number| number > 3);
    let _ = mesh.docker(left, &format!("service update -q -d {} web", step.flags())).ok();
    wait_within(Duration::from_secs(60), &format!("the update is at {step:?}"), || {
        let (state, replaced) = (state(mesh, left), replaced(mesh, left));
        if step.is_reached(&state, replaced) { Ok(()) } else { Err(format!("{state}, {replaced} replaced")) }
    });
    pair.iter().for_each(|manager| mesh.node_mut(*manager).kill_agent());
    // Whoever is left says that it can't tell, and does not tell what is old.
    wait_within(mesh.pace().lost_quorum, "one of three refuses to be read", || {
        let out = mesh.node(left).engine.program("timeout").args(["30", "docker", "service", "inspect", "web"]).run();
        let refuses = out.code != 0 && out.code != 124 && out.stderr.contains("does not have a leader");
        if refuses { Ok(()) } else { Err(out.to_string()) }
    });
    pair.iter().for_each(|manager| mesh.node_mut(*manager).come_back());
    let told = wait_within(ENDS, &format!("the update ends that was killed at {step:?}"), || {
        let out = mesh.docker(left, "service inspect --format '{{.UpdateStatus.State}}' web");
        let is_end = out.code == 0 && step.ends().contains(&out.text());
        if is_end { Ok(out.text().to_owned()) } else { Err(format!("{out}\n{}", mesh.docker(left, "service ps web"))) }
    });
    is_true(mesh, left, &told);
    let _ = mesh.docker(left, "service rm web").ok();
    let _ = mesh.wait_output(left, "service ls -q", str::is_empty);
    for node in 4..=5 {
        let _ = mesh.wait_output(node, "ps --quiet --filter label=com.docker.swarm.task", str::is_empty);
    }
}

/// What is told of the update is what the workers run.
fn is_true(mesh: &Mesh<'_>, asked: usize, told: &str) {
    let wanted = match told {
        "completed" => "10.99.0.254:5000/busybox:2",
        "rollback_completed" => "10.99.0.254:5000/busybox:1",
        // Paused: why it is must be told, and each slot is still tried.
        _ => {
            let out = mesh.docker(asked, "service inspect --format '{{.UpdateStatus.Message}}' web").ok();
            assert!(out.text().contains("paused due to failure"), "{out}");
            return;
        }
    };
    let _ = mesh.wait_running(asked, "web", REPLICAS, |number| number > 3);
    for node in 4..=5 {
        let line = "ps --filter label=com.docker.swarm.service.name=web --format '{{.Image}}'";
        let _ = mesh.wait_output(node, line, |text| !text.is_empty() && text.lines().all(|image| image.starts_with(wanted)));
    }
}

/// Of the update; empty before the first word of it.
fn state(mesh: &Mesh<'_>, node: usize) -> String {
    let line = "service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' web";
    mesh.docker(node, line).text().to_owned()
}

/// How many tasks that are to run are of the new image.
fn replaced(mesh: &Mesh<'_>, node: usize) -> usize {
    let line = "service ps --filter desired-state=running --format '{{.Image}}' web";
    mesh.docker(node, line).text().lines().filter(|image| image.contains("busybox:2")).count()
}

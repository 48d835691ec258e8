//! pause and resume, and what a paused container allows.

use ketch_integration::probe::read;
use ketch_integration::{Case, tests};

tests![
    pause_freezes_and_resume_thaws,
    pause_twice_is_refused,
    resume_of_a_running_container_is_refused,
    kill_of_a_paused_container,
    delete_force_of_a_paused_container,
    pause_of_a_stopped_container_is_refused,
];

fn frozen(case: &Case, bundle: &ketch_integration::Bundle<'_>) -> bool {
    if case.layout.is_v2() {
        read(bundle.cgroup("").join("cgroup.events")).contains("frozen 1")
    } else {
        read(bundle.cgroup("freezer").join("freezer.state")) == "FROZEN"
    }
}

fn pause_freezes_and_resume_thaws(case: &Case) {
    case.needs_own_cgroup();
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let _ = container.command("pause", &[]).run().ok();
    assert_eq!(container.status(), "paused");
    assert!(frozen(case, &bundle));
    let _ = container.command("resume", &[]).run().ok();
    assert_eq!(container.status(), "running");
    assert!(!frozen(case, &bundle));
}

fn pause_twice_is_refused(case: &Case) {
    case.needs_own_cgroup();
    let container = case.bundle().sleeper().start();
    let _ = container.command("pause", &[]).run().ok();
    container.command("pause", &[]).run().refuses(&["container not running"]);
}

fn resume_of_a_running_container_is_refused(case: &Case) {
    let container = case.bundle().sleeper().start();
    container.command("resume", &[]).run().refuses(&["container not paused"]);
}

fn kill_of_a_paused_container(case: &Case) {
    case.needs_own_cgroup();
    let container = case.bundle().sleeper().start();
    let _ = container.command("pause", &[]).run().ok();
    let _ = container.kill("KILL").ok();
    if container.case.is_runc_before(1, 2) && !case.layout.is_v2() {
        // An old runc leaves it frozen on v1, where a frozen process does not die.
        let _ = container.command("resume", &[]).run();
    }
    container.wait_status("stopped");
}

fn delete_force_of_a_paused_container(case: &Case) {
    case.needs_own_cgroup();
    let container = case.bundle().sleeper().start();
    let _ = container.command("pause", &[]).run().ok();
    let _ = case.ketch().args(["delete", "--force", &container.id]).run().ok();
    assert_eq!(container.status(), "gone");
}

fn pause_of_a_stopped_container_is_refused(case: &Case) {
    let container = case.bundle().start();
    container.wait_status("stopped");
    container.command("pause", &[]).run().refuses(&["container not running"]);
}

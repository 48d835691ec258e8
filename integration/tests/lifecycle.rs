//! create, start, state, kill, delete, run: one container from nothing to nothing.

use ketch_integration::{Case, tests};
use serde_json::json;

tests![
    created_then_running_then_stopped_then_gone,
    state_shows_the_fields_of_runc,
    start_twice_is_refused,
    delete_of_a_running_container_is_refused,
    delete_force_of_a_running_container,
    delete_force_of_an_unknown_container_succeeds,
    delete_of_a_created_container,
    create_of_a_taken_id_is_refused,
    run_detached,
    run_keep_leaves_the_stopped_container,
    pid_file_holds_the_pid,
    the_command_runs_only_after_start,
    annotations_are_kept,
];

fn created_then_running_then_stopped_then_gone(case: &Case) {
    let container = case.bundle().sleeper().create();
    assert_eq!(container.status(), "created");
    let _ = container.start().ok();
    assert_eq!(container.status(), "running");
    let _ = container.kill("KILL").ok();
    container.wait_status("stopped");
    assert_eq!(container.state()["pid"], 0);
    let _ = container.delete().ok();
    assert_eq!(container.status(), "gone");
}

fn state_shows_the_fields_of_runc(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let state = container.state();
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(state["bundle"], json!(bundle.dir));
    assert_eq!(state["rootfs"], json!(bundle.rootfs()));
    // runc has the key in `state`, but fills it only in `list`.
    assert!(state["owner"].is_string(), "{state}");
    assert!(state["ociVersion"].is_string() && state["created"].is_string(), "{state}");
}

fn start_twice_is_refused(case: &Case) {
    let container = case.bundle().sleeper().start();
    container.start().refuses(&["cannot start an already running container"]);
}

fn delete_of_a_running_container_is_refused(case: &Case) {
    let container = case.bundle().sleeper().start();
    container.delete().refuses(&["cannot delete container", "that is not stopped: running"]);
    assert_eq!(container.status(), "running");
}

fn delete_force_of_a_running_container(case: &Case) {
    let container = case.bundle().sleeper().start();
    let _ = case.ketch().args(["delete", "--force", &container.id]).run().ok();
    assert_eq!(container.status(), "gone");
}

fn delete_force_of_an_unknown_container_succeeds(case: &Case) {
    let _ = case.ketch().args(["delete", "--force", "no-such-container"]).run().ok();
    case.ketch().args(["delete", "no-such-container"]).run().refuses(&["container does not exist"]);
}

fn delete_of_a_created_container(case: &Case) {
    let container = case.bundle().sleeper().create();
    let _ = container.delete().ok();
    assert_eq!(container.status(), "gone");
}

fn create_of_a_taken_id_is_refused(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    bundle.create_command().arg(&bundle.id).run().refuses(&["container with given ID already exists"]);
    assert_eq!(container.status(), "running");
}

fn run_detached(case: &Case) {
    let bundle = case.bundle().sleeper();
    let _ = bundle.run_command().arg("--detach").arg(&bundle.id).run().ok();
    let container = ketch_integration::Container::adopt(case, &bundle.id);
    assert_eq!(container.status(), "running");
    container.stop();
}

fn run_keep_leaves_the_stopped_container(case: &Case) {
    case.needs_runc(1, 2, "run --keep leaves the cgroup too");
    let bundle = case.bundle();
    let _ = bundle.run_command().arg("--keep").arg(&bundle.id).run().ok();
    let container = ketch_integration::Container::adopt(case, &bundle.id);
    assert_eq!(container.status(), "stopped");
    let _ = container.delete().ok();
}

fn pid_file_holds_the_pid(case: &Case) {
    let bundle = case.bundle().sleeper();
    let file = case.dir.join("pid");
    let _ = bundle.create_command().arg("--pid-file").arg(&file).arg(&bundle.id).run().ok();
    let container = ketch_integration::Container::adopt(case, &bundle.id);
    assert_eq!(std::fs::read_to_string(file).expect("read the pid file"), container.pid().to_string());
}

fn the_command_runs_only_after_start(case: &Case) {
    let bundle = case.bundle().script("echo started > /mark");
    let container = bundle.create();
    assert!(!bundle.rootfs().join("mark").exists());
    let _ = container.start().ok();
    container.wait_status("stopped");
    assert!(bundle.rootfs().join("mark").exists());
}

fn annotations_are_kept(case: &Case) {
    let bundle = case.bundle().sleeper().set("/annotations", json!({ "org.example.key": "a value" }));
    let container = bundle.create();
    assert_eq!(container.state()["annotations"]["org.example.key"], "a value");
}

//! `--systemd-cgroup`: units of a name that is taken, was taken, or makes no sense. Other tests of scopes are in
//! `cgroup_systemd`.

use std::process::{Child, Command};

use ketch_integration::wait::wait_until;
use ketch_integration::{Bundle, Case, tests};
use serde_json::json;

use crate::cgroup_systemd::{SLICE, in_slice, property, refused, start, unit};

tests![
    a_failed_unit_makes_place_and_goes_with_its_container,
    a_taken_cgroup_is_refused,
    a_taken_name_is_left_alone,
    a_later_unit_of_the_same_name_is_left_alone,
    names_that_make_no_sense_are_refused,
];

/// A process in a scope of the container's name that is not the container's.
pub(crate) fn scope(bundle: &Bundle<'_>, slice: &str, properties: &[&str]) -> Child {
    let unit = format!("--unit={}", unit(bundle));
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--scope", "--slice", slice, &unit]).args(properties).args(["sleep", "1000"]);
    run.spawn().expect("spawn systemd-run")
}

pub(crate) fn wait_unit(bundle: &Bundle<'_>, state: &str) {
    wait_until(&format!("a unit that is {state}"), || {
        let now = property(&unit(bundle), "ActiveState");
        if now == state { Ok(()) } else { Err(now) }
    });
}

fn a_failed_unit_makes_place_and_goes_with_its_container(case: &Case) {
    case.needs_runc(1, 2, "a failed unit stays");
    let annotations = json!({
        "org.systemd.property.RuntimeMaxSec": "1", "org.systemd.property.TimeoutStopSec": "1",
    });
    let bundle = in_slice(case, SLICE).command(&["/bin/sleep", "1000"]).set("/annotations", annotations);
    let container = start(&bundle);
    wait_unit(&bundle, "failed");
    container.wait_status("stopped");
    let _ = container.delete().ok();
    assert_eq!(property(&unit(&bundle), "LoadState"), "not-found");

    // One that nobody has removed.
    let mut other = scope(&bundle, "system.slice", &["--property=RuntimeMaxSec=1", "--property=TimeoutStopSec=1"]);
    wait_unit(&bundle, "failed");
    let _ = other.wait();
    drop(start(&bundle));
}

fn a_taken_cgroup_is_refused(case: &Case) {
    case.needs_runc(1, 2, "it is shared");
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    let second = case.bundle().sleeper().set("/linux/cgroupsPath", bundle.spec["linux"]["cgroupsPath"].clone());
    refused(&second, &["cgroup is not empty"]);
    assert_eq!(container.status(), "running");
}

fn a_taken_name_is_left_alone(case: &Case) {
    case.not_on_runc("before 1.2 it goes on without the unit, since then it stops the other's");
    let bundle = in_slice(case, SLICE);
    let mut other = scope(&bundle, "system.slice", &[]);
    wait_unit(&bundle, "active");
    refused(&bundle, &["already"]);
    let state = property(&unit(&bundle), "ActiveState");
    let _ = other.kill();
    let _ = other.wait();
    assert_eq!(state, "active");
}

fn a_later_unit_of_the_same_name_is_left_alone(case: &Case) {
    case.not_on_runc("stops it, and kills what is in it");
    // Of a container without a pid namespace, processes may have outlived the first one: they are looked for in its cgroup.
    let bundle = in_slice(case, SLICE).without_namespace("pid");
    let container = start(&bundle);
    container.stop();
    wait_unit(&bundle, "inactive");
    let mut other = scope(&bundle, SLICE, &[]);
    wait_unit(&bundle, "active");
    let deleted = container.delete();
    let state = property(&unit(&bundle), "ActiveState");
    let runs = other.try_wait().expect("wait for systemd-run").is_none();
    let _ = other.kill();
    let _ = other.wait();
    let _ = deleted.ok();
    assert_eq!((container.status(), state.as_str(), runs), ("gone".to_owned(), "active", true));
}

fn names_that_make_no_sense_are_refused(case: &Case) {
    for (path, text) in [
        ("/a/b", "expected cgroupsPath to be of format"),
        ("a--b.slice:kit:x", "invalid slice name: a--b.slice"),
        ("a/b.slice:kit:x", "invalid slice name: a/b.slice"),
        ("nothing:kit:x", "invalid slice name: nothing"),
    ] {
        refused(&in_slice(case, SLICE).set("/linux/cgroupsPath", json!(path)), &[text]);
    }
    refused(&in_slice(case, SLICE).set("/linux/cgroupsPath", json!("machine.slice:kit:a/../../b")), &["b"]);
}

//! checkpoint and restore with `--systemd-cgroup`: the scope goes with what is saved, and is made anew around what is
//! restored, with its limits. Their other tests are in `checkpoint`; those of scopes in `cgroup_systemd`.

use std::fs;
use std::path::Path;

use ketch_integration::probe::read;
use ketch_integration::runtime::Invocation;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::json;

use crate::cgroup_systemd::{SLICE, cgroup, in_slice, property, unit};
use crate::checkpoint::{checkpoint, count, needs_criu, wait_count};
use crate::systemd_names::{scope, wait_unit};

tests![
    a_scope_is_made_again_with_its_limits,
    a_container_moves_into_another_scope,
    a_failed_restore_leaves_no_scope,
    a_scope_of_that_name_is_left_alone,
];

/// A container that counts in its memory, in a scope.
fn counting(case: &Case) -> Bundle<'_> {
    needs_criu(case);
    let script = crate::checkpoint::counting(case).spec["process"]["args"].clone();
    in_slice(case, SLICE)
        .set("/process/args", script)
        .set("/linux/resources/pids", json!({ "limit": 20 }))
        .set("/linux/resources/memory", json!({ "limit": 67_108_864 }))
}

/// A command with the flag, streams at /dev/null.
fn systemd(bundle: &Bundle<'_>, args: &[&str]) -> Invocation {
    bundle.write();
    let command = bundle.case.ketch().arg("--systemd-cgroup").args(args).arg("--bundle").arg(&bundle.dir);
    command.arg(&bundle.id)
}

fn start<'a>(bundle: &Bundle<'a>) -> Container<'a> {
    let log = bundle.dir.join("run.log").display().to_string();
    let run = systemd(bundle, &["--log", &log, "run", "--detach"]);
    let out = run.through_shell("exec \"$@\" </dev/null >/dev/null 2>&1").run();
    assert_eq!(out.code, 0, "run: {}", fs::read_to_string(&log).unwrap_or_default());
    Container::adopt(bundle.case, &bundle.id)
}

fn restore(bundle: &Bundle<'_>, images: &Path, flags: &[&str]) -> Invocation {
    let images = images.display().to_string();
    systemd(bundle, &[&["restore", "--detach", "--image-path", images.as_str()], flags].concat())
}

/// The container is in its scope, and confined.
fn is_confined(bundle: &Bundle<'_>, container: &Container<'_>) {
    let scope = unit(bundle);
    assert_eq!(property(&scope, "ActiveState"), "active");
    assert_eq!(property(&scope, "ControlGroup"), format!("/{SLICE}/{scope}"));
    for (name, file, value) in [("TasksMax", "pids.max", "20"), ("MemoryMax", "memory.max", "67108864")] {
        assert_eq!(property(&scope, name), value, "{name}");
        assert_eq!(read(cgroup(bundle).join(file)), value, "{file}");
    }
    let inside = read(cgroup(bundle).join("cgroup.procs"));
    assert!(inside.lines().any(|pid| pid == container.pid().to_string()), "{inside}");
    for pid in inside.lines() {
        // One of them may have ended.
        assert_ne!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim(), "criu");
    }
}

fn has_no_scope(bundle: &Bundle<'_>) {
    assert_eq!(property(&unit(bundle), "LoadState"), "not-found");
    assert!(!cgroup(bundle).exists());
}

fn a_scope_is_made_again_with_its_limits(case: &Case) {
    let bundle = counting(case);
    case.needs_controller("memory");
    let container = start(&bundle);
    let before = wait_count(&bundle, 5);
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert_eq!(container.status(), "gone");
    has_no_scope(&bundle);

    let images = bundle.dir.join("images");
    let _ = restore(&bundle, &images, &[]).run().ok();
    assert_eq!(container.status(), "running");
    assert!(count(&bundle) >= before, "it did not begin anew");
    is_confined(&bundle, &container);
    assert_eq!(container.sh("cat /proc/self/cgroup | grep ^0:"), "0::/");
    let _ = case.ketch().args(["update", "--pids-limit", "30"]).arg(&bundle.id).run().ok();
    assert_eq!((property(&unit(&bundle), "TasksMax"), read(cgroup(&bundle).join("pids.max"))), ("30".into(), "30".into()));

    // And once more, with a process that has come since.
    let _ = container.sh("sleep 1000 </dev/null >/dev/null 2>&1 &");
    let _ = checkpoint(&bundle, &[]).run().ok();
    let _ = restore(&bundle, &images, &[]).run().ok();
    is_confined(&bundle, &container);
    assert!(container.sh("ps").contains("sleep 1000"));
    container.stop();
    let _ = container.delete().ok();
    has_no_scope(&bundle);
}

fn a_container_moves_into_another_scope(case: &Case) {
    case.needs_runc(1, 2, "--manage-cgroups-mode ignore");
    let bundle = counting(case);
    case.needs_controller("memory");
    let container = start(&bundle);
    let before = wait_count(&bundle, 5);
    let _ = checkpoint(&bundle, &["--manage-cgroups-mode", "ignore"]).run().ok();
    drop(container);

    let mut other = Bundle { case, dir: bundle.dir.clone(), spec: bundle.spec.clone(), id: case.fresh_id() };
    other.spec["linux"]["cgroupsPath"] = json!(format!("{SLICE}:kit:{}", other.id));
    let container = Container::adopt(case, &other.id);
    let _ = restore(&other, &bundle.dir.join("images"), &["--manage-cgroups-mode", "ignore"]).run().ok();
    assert!(count(&other) >= before);
    is_confined(&other, &container);
    has_no_scope(&bundle);
}

fn a_failed_restore_leaves_no_scope(case: &Case) {
    let bundle = counting(case);
    let container = start(&bundle);
    wait_count(&bundle, 2);
    let _ = checkpoint(&bundle, &[]).run().ok();
    let images = bundle.dir.join("images");
    let core = fs::read_dir(&images).unwrap().flatten().map(|file| file.path());
    let mut core = core.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-")));
    let core = core.next().unwrap();
    let kept = fs::read(&core).unwrap();
    fs::write(&core, &kept[..kept.len() / 2]).unwrap();
    restore(&bundle, &images, &[]).run().refuses(&["criu failed: type"]);
    assert_eq!(container.status(), "gone");
    has_no_scope(&bundle);
    fs::write(&core, kept).unwrap();
    let _ = restore(&bundle, &images, &[]).run().ok();
    assert_eq!(container.status(), "running");
}

fn a_scope_of_that_name_is_left_alone(case: &Case) {
    case.not_on_runc("before 1.2 it goes on without the unit, since then it stops the other's");
    let bundle = counting(case);
    let container = start(&bundle);
    wait_count(&bundle, 2);
    let _ = checkpoint(&bundle, &[]).run().ok();
    let mut other = scope(&bundle, "system.slice", &[]);
    wait_unit(&bundle, "active");
    restore(&bundle, &bundle.dir.join("images"), &[]).run().refuses(&["already"]);
    let state = property(&unit(&bundle), "ActiveState");
    let _ = other.kill();
    let _ = other.wait();
    assert_eq!((state.as_str(), container.status().as_str()), ("active", "gone"));
}

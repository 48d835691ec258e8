//! checkpoint and restore that fail: what is said, and what is left. Their other tests are in `checkpoint`.

use std::fs;
use std::path::PathBuf;

use ketch_integration::probe::read;
use ketch_integration::runtime::Kind;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::json;

use crate::checkpoint::{checkpoint, counting, needs_criu, restore, start, wait_count};

tests![
    a_failed_checkpoint_leaves_the_container_running,
    a_failed_restore_leaves_nothing,
    flags_are_checked,
    what_could_not_come_back_is_not_ended,
    without_criu_it_says_so,
];

fn a_failed_checkpoint_leaves_the_container_running(case: &Case) {
    needs_criu(case);
    // Its standard output is a file of the host's, which criu can't find in the container.
    let bundle = counting(case);
    let container = bundle.start();
    let before = wait_count(&bundle, 5);
    let log = bundle.dir.join("images/dump.log");
    let failed = checkpoint(&bundle, &[]).run();
    if matches!(case.runtime.kind, Kind::Ketch) {
        failed.refuses(&["criu failed: type DUMP errno", &format!("log file: {}", log.display()), "Error (criu/"]);
    } else {
        failed.refuses(&["criu failed: type"]);
    }
    assert_eq!(container.status(), "running");
    wait_count(&bundle, before + 1);

    let created = case.bundle().sleeper().create();
    case.ketch().args(["checkpoint", &created.id]).run().refuses(&["Container cannot be checkpointed in created state"]);
    case.ketch().args(["checkpoint", "no-such"]).run().refuses(&["container does not exist"]);
}

/// The images of a counting container that is gone.
fn images_of(case: &Case) -> (Bundle<'_>, PathBuf) {
    let bundle = counting(case);
    let container = start(&bundle);
    wait_count(&bundle, 2);
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert_eq!(container.status(), "gone");
    let images = bundle.dir.join("images");
    (bundle, images)
}

fn a_failed_restore_leaves_nothing(case: &Case) {
    needs_criu(case);
    let (bundle, images) = images_of(case);
    let core = fs::read_dir(&images).unwrap().flatten().map(|file| file.path());
    let core = core.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-"))).unwrap();
    let kept = fs::read(&core).unwrap();
    fs::write(&core, &kept[..kept.len() / 2]).unwrap();
    let shown = if case.is_runc_before(9, 9) { "log file" } else { "Error (criu/" };
    restore(&bundle, &[]).run().refuses(&["criu failed: type", shown]);
    let (id, cgroup) = (bundle.id.clone(), bundle.cgroup("pids"));
    let nothing_left = || {
        assert_eq!(Container::adopt(case, &id).status(), "gone");
        assert!(!case.state_root().join(&id).exists());
        assert!(!cgroup.exists());
        let mounts = read("/proc/self/mountinfo");
        assert!(!mounts.contains("criu-root"), "{mounts}");
    };
    nothing_left();
    fs::write(&core, kept).unwrap();
    // A hook that fails ends it as well, when processes are there already.
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 3"] }]);
    let spec = bundle.spec.clone();
    let bundle = bundle.set("/hooks/prestart", hook);
    bundle.write();
    restore(&bundle, &[]).run().refuses(&["hook #0", "exit status 3"]);
    nothing_left();
    // And it was none of them that is at fault.
    let bundle = bundle.edit(|config| *config = spec);
    bundle.write();
    let _ = restore(&bundle, &[]).run().ok();
    let container = Container::adopt(case, &bundle.id);
    assert_eq!(container.status(), "running");
}

fn flags_are_checked(case: &Case) {
    let bundle = case.bundle().sleeper();
    let _container = bundle.start();
    let refused = |flags: &[&str], texts: &[&str]| checkpoint(&bundle, flags).run().refuses(texts);
    refused(&["--page-server", "1234"], &["Use --page-server ADDRESS:PORT to specify page server"]);
    refused(&["--empty-ns", "pid"], &["namespace", "is not supported"]);
    if !case.is_runc_before(1, 2) {
        refused(&["--page-server", "host:x"], &["Invalid port number"]);
        case.needs(case.has_program("criu"), "no criu (package criu)");
        refused(&["--manage-cgroups-mode", "some"], &["invalid manage-cgroups-mode value"]);
    }
    assert_eq!(case.ketch().args(["checkpoint", "--help"]).run().code, 0);
    let out = case.ketch().args(["restore", "--lsm-mount-context"]).run();
    let said = format!("{}{}", out.stdout, out.stderr);
    assert!(out.code != 0 && said.contains("flag needs an argument"), "podman looks for this: {out}");
}

/// criu is not even looked for.
fn what_could_not_come_back_is_not_ended(case: &Case) {
    case.not_on_runc("it ends them, and can't restore them");
    let landlock = json!({ "org.ketch.landlock": r#"{"ruleset":{"handledAccessFS":["make_block"]},"bestEffort":true}"# });
    let joined = json!({ "type": "cgroup", "path": "/proc/self/ns/cgroup" });
    let with_rules = case.bundle().sleeper().set("/annotations", landlock);
    let in_anothers = case.bundle().sleeper().edit(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(joined);
    });
    for (bundle, why) in [(with_rules, "the annotation org.ketch.landlock"), (in_anothers, "another's cgroup namespace")] {
        let container = bundle.start();
        checkpoint(&bundle, &[]).run().refuses(&[why, "can't be restored, so it is not ended: --leave-running"]);
        assert_eq!(container.status(), "running");
        assert!(!bundle.dir.join("images").exists());
        container.stop();
        let _ = container.delete().ok();
        restore(&bundle, &[]).run().refuses(&[why, "can't be restored"]);
        assert_eq!(container.status(), "gone");
        assert!(!bundle.cgroup("pids").exists());
    }
}

fn without_criu_it_says_so(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let empty = case.folder("empty");
    checkpoint(&bundle, &[]).env("PATH", &empty).run().refuses(&["criu", "executable file not found in $PATH"]);
    assert_eq!(container.status(), "running");
    case.not_on_runc("its other texts");
    let other = case.bundle();
    other.write();
    let folder = case.folder("images");
    let restore = case.ketch().args(["restore", "--bundle"]).arg(&other.dir).arg("--image-path").arg(folder);
    let restore = restore.arg("--detach").arg(&other.id).env("PATH", &empty);
    restore.run().refuses(&["criu", "executable file not found in $PATH"]);
    assert!(!case.state_root().join(&other.id).exists());
    // Something else of that name.
    let other = empty.join("criu");
    fs::copy("/bin/true", &other).unwrap();
    checkpoint(&bundle, &[]).env("PATH", &empty).run().refuses(&["criu ended before it was done (exit code 0)"]);
}

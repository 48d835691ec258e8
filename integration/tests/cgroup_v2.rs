//! Limits on pure cgroup v2: what can be had without controllers, and hugetlb.

use std::fs;
use std::path::Path;

use ketch_integration::probe::read;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::{Value, json};

tests![
    the_container_is_in_its_cgroup,
    hugetlb_limit,
    device_program_refuses_and_allows,
    a_missing_controller_is_named,
    unified_sets_the_file,
    an_unknown_unified_file_is_named,
    a_nested_path_is_made_and_its_leaf_removed,
    an_occupied_cgroup_is_refused,
    kill_all_reaches_every_process,
    the_view_inside_is_its_own_root,
    removed_with_what_was_made_below,
    exec_where_only_the_leaves_take_processes,
];

fn limited<'a>(case: &'a Case, resources: &Value) -> Bundle<'a> {
    case.v2_only("v2 control files");
    case.bundle().sleeper().edit(|spec| {
        for (key, value) in resources.as_object().expect("resources") {
            spec["linux"]["resources"][key] = value.clone();
        }
    })
}

fn the_container_is_in_its_cgroup(case: &Case) {
    let bundle = limited(case, &json!({}));
    let container = bundle.start();
    let pids = read(bundle.cgroup("").join("cgroup.procs"));
    assert!(pids.lines().any(|pid| pid == container.pid().to_string()), "{pids}");
}

fn hugetlb_limit(case: &Case) {
    case.needs_controller("hugetlb");
    let bundle = limited(case, &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }));
    let _container = bundle.start();
    assert_eq!(read(bundle.cgroup("").join("hugetlb.2MB.max")), (4 << 20).to_string());
}

fn device_program_refuses_and_allows(case: &Case) {
    let device = json!([{ "path": "/dev/unused", "type": "c", "major": 240, "minor": 77 }]);
    let bundle = limited(case, &json!({})).script("cat /dev/unused; cat /dev/null && echo null works");
    let out = bundle.set("/linux/devices", device.clone()).run();
    assert!(out.stdout.contains("null works"), "{out}");
    assert!(out.stderr.contains("Operation not permitted"), "{out}");
    let rules = json!({ "devices": [
        { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 240, "minor": 77, "access": "rw" }
    ] });
    let out = limited(case, &rules).script("cat /dev/unused").set("/linux/devices", device).run();
    assert!(out.stderr.contains("No such device or address"), "{out}");
}

fn a_missing_controller_is_named(case: &Case) {
    case.v2_only("v2 control files");
    case.needs(!case.layout.has_controller("memory"), "the memory controller is there");
    limited(case, &json!({ "memory": { "limit": 64 << 20 } })).run().refuses(&["memory"]);
    limited(case, &json!({ "pids": { "limit": 7 } })).run().refuses(&["pids"]);
}

fn unified_sets_the_file(case: &Case) {
    case.needs_controller("hugetlb");
    let bundle = limited(case, &json!({ "unified": { "hugetlb.2MB.max": "8388608" } }));
    let _container = bundle.start();
    assert_eq!(read(bundle.cgroup("").join("hugetlb.2MB.max")), "8388608");
}

fn an_unknown_unified_file_is_named(case: &Case) {
    limited(case, &json!({ "unified": { "hugetlb.no_such": "1" } })).run().refuses(&["hugetlb.no_such"]);
    limited(case, &json!({ "unified": { "../escape": "1" } })).run().refuses(&["escape"]);
}

fn a_nested_path_is_made_and_its_leaf_removed(case: &Case) {
    let parent = format!("/{}parent", case.tag);
    let bundle = limited(case, &json!({})).set("/linux/cgroupsPath", json!(format!("{parent}/leaf")));
    let container = bundle.start();
    let pids = read(bundle.cgroup("").join("cgroup.procs"));
    assert!(pids.lines().any(|pid| pid == container.pid().to_string()), "{pids}");
    container.stop();
    let _ = container.delete().ok();
    assert!(!bundle.cgroup("").exists());
    // The parent stays, as runc leaves it: others may be using it. It is this test's to remove.
    fs::remove_dir(case.layout.cgroup_dir("", &parent)).expect("remove the parent");
}

fn an_occupied_cgroup_is_refused(case: &Case) {
    case.needs_runc(1, 2, "warns only");
    let first = limited(case, &json!({}));
    let _container = first.start();
    let path = first.spec["linux"]["cgroupsPath"].clone();
    limited(case, &json!({})).set("/linux/cgroupsPath", path).run().refuses(&["container's cgroup is not empty"]);
}

fn kill_all_reaches_every_process(case: &Case) {
    case.needs_runc(1, 2, "kill without --all reaches the first process only");
    let bundle = limited(case, &json!({})).without_namespace("pid").script("setsid sleep 1000 & setsid sleep 1000 & wait");
    let container = bundle.start();
    let cgroup = bundle.cgroup("").join("cgroup.procs");
    ketch_integration::wait_until("three processes", || {
        let seen = read(&cgroup);
        if seen.lines().count() == 3 { Ok(()) } else { Err(seen) }
    });
    container.stop();
    let _ = container.delete().ok();
    assert!(!cgroup.exists());
}

fn the_view_inside_is_its_own_root(case: &Case) {
    let bundle = limited(case, &json!({})).script("cat /proc/self/cgroup | grep ^0:; test -e /sys/fs/cgroup/cgroup.freeze && echo not the root");
    assert_eq!(bundle.prints(), "0::/\nnot the root");
}

fn removed_with_what_was_made_below(case: &Case) {
    let bundle = limited(case, &json!({}));
    let container = bundle.start();
    fs::create_dir_all(bundle.cgroup("").join("below/deeper")).expect("make cgroups below");
    container.stop();
    let _ = container.delete().ok();
    assert!(!bundle.cgroup("").exists());
}

fn exec_where_only_the_leaves_take_processes(case: &Case) {
    case.needs_controller("hugetlb");
    let bundle = with_a_leaf(limited(case, &json!({})));
    exec_meets_the_leaves(&bundle.start(), &bundle.cgroup(""));
}

/// A container that does what systemd does at its start: it moves itself into a leaf and gives the controllers to those below.
pub(crate) fn with_a_leaf(bundle: Bundle<'_>) -> Bundle<'_> {
    let own = "/sys/fs/cgroup";
    let delegate = format!(
        "mkdir {own}/init && echo 1 >{own}/init/cgroup.procs && echo +hugetlb >{own}/cgroup.subtree_control && exec sleep 1000"
    );
    bundle.script(&delegate).edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }
        }
    })
}

pub(crate) fn exec_meets_the_leaves(container: &Container<'_>, cgroup: &Path) {
    let control = cgroup.join("cgroup.subtree_control");
    ketch_integration::wait_until("the controllers of those below", || {
        let seen = read(&control);
        if seen.contains("hugetlb") { Ok(()) } else { Err(seen) }
    });
    assert_eq!(container.sh("grep ^0: /proc/self/cgroup"), "0::/init");
    let _ = container.exec_with(&["--cgroup", "/no-such"], &["/bin/true"]).refuses(&["no-such"]);
    // Who asks for that very cgroup gets no other.
    let asked = container.exec_with(&["--cgroup", "/"], &["/bin/true"]);
    let _ = asked.refuses(&["adding pid ", " to cgroups", "evice or resource busy"]);
}

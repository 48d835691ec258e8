//! Intel RDT: a container's group in resctrl; and what is said where the machine has none.

use std::fs;
use std::path::PathBuf;

use ketch_integration::{Case, probe, tests};
use serde_json::json;

tests![
    refused_without_resctrl,
    an_update_without_resctrl_is_refused,
    features_tell_of_it,
    a_group_comes_and_goes_with_its_container,
    a_class_of_service_stays,
    new_schemata,
];

/// Where resctrl is mounted.
fn resctrl() -> Option<PathBuf> {
    let mounts = probe::read("/proc/self/mountinfo");
    let of_resctrl = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    of_resctrl.split(' ').nth(4).map(PathBuf::from)
}

fn needs_resctrl(case: &Case) -> PathBuf {
    let Some(mountpoint) = resctrl() else { case.skip("no resctrl mounted (a CPU with Intel RDT or its like)") };
    // Its groups are the whole machine's.
    case.native_only("resctrl is the same in both layouts");
    mountpoint
}

fn refused_without_resctrl(case: &Case) {
    case.needs(resctrl().is_none(), "resctrl is mounted");
    case.needs_runc(1, 3, "says it otherwise, or not at all");
    let out = case.bundle().set("/linux/intelRdt", json!({ "closID": "gold" })).run();
    let text = "intelRdt is specified in config, but Intel RDT is not enabled";
    assert!(out.code == 1 && out.stderr.contains(text), "{out}");
}

fn an_update_without_resctrl_is_refused(case: &Case) {
    case.needs(resctrl().is_none(), "resctrl is mounted");
    let container = case.bundle().sleeper().start();
    let update = |flag: &str, schema: &str| {
        case.ketch().args(["update", flag, schema, &container.id]).run()
    };
    let out = update("--l3-cache-schema", "L3:0=f");
    assert!(out.code == 1 && out.stderr.contains("Intel RDT/CAT: l3 cache schema is not enabled"), "{out}");
    let out = update("--mem-bw-schema", "MB:0=10");
    assert!(out.code == 1 && out.stderr.contains("Intel RDT/MBA: memory bandwidth schema is not enabled"), "{out}");
    let _ = update("--l3-cache-schema", "").ok();
}

fn features_tell_of_it(case: &Case) {
    case.needs_runc(1, 4, "features has no intelRdt");
    let features = case.bare().arg("features").run().ok().json();
    assert_eq!(features["linux"]["intelRdt"]["enabled"], true);
}

fn a_group_comes_and_goes_with_its_container(case: &Case) {
    let resctrl = needs_resctrl(case);
    case.not_on_runc("forgets that it made the group");
    let bundle = case.bundle().sleeper().set("/linux/intelRdt", json!({ "enableMonitoring": true }));
    let container = bundle.start();
    let group = resctrl.join(&container.id);
    let tasks = |folder: &PathBuf| probe::read(folder.join("tasks"));
    let pid = container.pid().to_string();
    let watched = group.join("mon_groups").join(&container.id);
    assert!(tasks(&watched).lines().any(|task| task == pid), "the first process is not in its groups");
    let state = probe::read(case.state_root().join(&container.id).join("state.json"));
    assert!(state.contains(&format!("\"intel_rdt_path\":{:?}", group.display().to_string())), "{state}");
    let sample = case.ketch().args(["events", "--stats", &container.id]).run().ok().json();
    assert!(sample["data"]["intel_rdt"]["schemata"].is_array(), "{sample}");
    drop(container);
    assert!(!group.exists(), "the group stays");
}

fn a_class_of_service_stays(case: &Case) {
    let resctrl = needs_resctrl(case);
    let class = resctrl.join(&case.tag);
    let rdt = json!({ "closID": case.tag });
    let out = case.bundle().set("/linux/intelRdt", rdt.clone()).run();
    assert!(out.code == 1 && out.stderr.contains("must be pre-created"), "{out}");
    fs::create_dir(&class).expect("make a class");
    let out = case.bundle().set("/linux/intelRdt", rdt).run();
    let stays = class.exists();
    fs::remove_dir(&class).expect("remove the class");
    assert!(out.code == 0 && stays, "{out}");
}

fn new_schemata(case: &Case) {
    let resctrl = needs_resctrl(case);
    case.needs(resctrl.join("info/MB").exists(), "no memory bandwidth allocation");
    case.not_on_runc("forgets that it made the group");
    let container = case.bundle().sleeper().set("/linux/intelRdt", json!({ "memBwSchema": "MB:0=50" })).start();
    let update = |schema: &str| case.ketch().args(["update", "--mem-bw-schema", schema, &container.id]).run();
    let _ = update("MB:0=20").ok();
    let schemata = || probe::read(resctrl.join(&container.id).join("schemata"));
    assert!(schemata().contains("0=20") || schemata().contains("0= 20"), "{}", schemata());
    let out = update("MB:0=nonsense");
    assert!(out.code == 1 && out.stderr.contains("last_cmd_status"), "{out}");
}

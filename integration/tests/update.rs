//! update: by flags and by a file, on what each layout has.

use ketch_integration::probe::read;
use ketch_integration::{Case, tests};
use serde_json::json;

tests![
    memory_by_flag,
    resources_on_standard_input,
    resources_from_a_file,
    cpu_by_flags,
    pids_by_flag,
    hugetlb_is_left_alone,
    of_an_unknown_container,
    of_a_stopped_container,
    a_malformed_size_is_refused,
    a_limit_below_the_usage_is_named,
    device_rules_stay_as_they_were,
];

fn memory_by_flag(case: &Case) {
    case.v1_only("the memory controller is on v1 here");
    let bundle = case.bundle().sleeper().set("/linux/resources/memory", json!({ "limit": 32 << 20 }));
    let container = bundle.start();
    let _ = case.ketch().args(["update", "--memory", "67108864", &container.id]).run().ok();
    assert_eq!(read(bundle.cgroup("memory").join("memory.limit_in_bytes")), "67108864");
    let _ = case.ketch().args(["update", "--memory", "50M", &container.id]).run().ok();
    assert_eq!(read(bundle.cgroup("memory").join("memory.limit_in_bytes")), (50 << 20).to_string());
    let _ = case.ketch().args(["update", "--memory-reservation", "30M", &container.id]).run().ok();
    assert_eq!(read(bundle.cgroup("memory").join("memory.soft_limit_in_bytes")), (30 << 20).to_string());
}

fn resources_on_standard_input(case: &Case) {
    case.v1_only("the controllers are on v1 here");
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let _ = container.update(&json!({ "pids": { "limit": 33 }, "cpu": { "shares": 100 } })).ok();
    assert_eq!(read(bundle.cgroup("pids").join("pids.max")), "33");
    assert_eq!(read(bundle.cgroup("cpu").join("cpu.shares")), "100");
}

fn resources_from_a_file(case: &Case) {
    case.v1_only("the controllers are on v1 here");
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let file = case.dir.join("resources.json");
    std::fs::write(&file, r#"{"pids":{"limit":44}}"#).expect("write");
    let _ = case.ketch().arg("update").arg("-r").arg(&file).arg(&container.id).run().ok();
    assert_eq!(read(bundle.cgroup("pids").join("pids.max")), "44");
}

fn cpu_by_flags(case: &Case) {
    case.v1_only("the cpu controller is on v1 here");
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let flags = ["update", "--cpu-period", "200000", "--cpu-quota", "100000", "--cpu-share", "300"];
    let _ = case.ketch().args(flags).arg(&container.id).run().ok();
    let file = |name| read(bundle.cgroup("cpu").join(name));
    assert_eq!(file("cpu.cfs_period_us"), "200000");
    assert_eq!(file("cpu.cfs_quota_us"), "100000");
    assert_eq!(file("cpu.shares"), "300");
}

fn pids_by_flag(case: &Case) {
    case.v1_only("the pids controller is on v1 here");
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let _ = case.ketch().args(["update", "--pids-limit", "10", &container.id]).run().ok();
    assert_eq!(read(bundle.cgroup("pids").join("pids.max")), "10");
    let _ = case.ketch().args(["update", "--pids-limit", "-1", &container.id]).run().ok();
    assert_eq!(read(bundle.cgroup("pids").join("pids.max")), "max");
}

fn hugetlb_is_left_alone(case: &Case) {
    case.v2_only("hugetlb is on v2 here");
    case.needs_controller("hugetlb");
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let bundle = case.bundle().sleeper().set("/linux/resources/hugepageLimits", limits);
    let container = bundle.start();
    let _ = container.update(&json!({ "cpu": {} })).ok();
    assert_eq!(read(bundle.cgroup("").join("hugetlb.2MB.max")), (4 << 20).to_string());
}

fn of_an_unknown_container(case: &Case) {
    case.ketch().args(["update", "--pids-limit", "10", "no-such"]).run().refuses(&["container does not exist"]);
}

fn of_a_stopped_container(case: &Case) {
    let container = case.bundle().start();
    container.wait_status("stopped");
    case.ketch().args(["update", "--pids-limit", "10", &container.id]).run().refuses(&["container not running"]);
}

fn a_malformed_size_is_refused(case: &Case) {
    let container = case.bundle().sleeper().start();
    case.ketch().args(["update", "--memory", "many", &container.id]).run().refuses(&["invalid value for memory"]);
}

fn a_limit_below_the_usage_is_named(case: &Case) {
    case.v1_only("the memory controller is on v1 here");
    let container = case.bundle().script("dd if=/dev/zero of=/dev/shm/f bs=1M count=40; echo full; exec sleep 1000");
    let container = container.set("/linux/resources/memory", json!({ "limit": 100 << 20 })).start();
    container.wait_stdout("full");
    let out = case.ketch().args(["update", "--memory", "1M", &container.id]).run();
    // v1 may swap the pages out instead, where there is swap.
    assert!(out.code == 0 || out.stderr.contains("memory"), "{out}");
}

fn device_rules_stay_as_they_were(case: &Case) {
    let device = json!([{ "path": "/dev/unused", "type": "c", "major": 240, "minor": 77 }]);
    let container = case.bundle().sleeper().set("/linux/devices", device).start();
    let _ = container.update(&json!({ "cpu": {} })).ok();
    let out = container.exec(&["/bin/cat", "/dev/unused"]);
    assert!(out.stderr.contains("Operation not permitted"), "{out}");
    assert_eq!(container.sh("cat /dev/null && echo works"), "works");
}

//! Limits on the machine's v1 controllers, seen in their files and felt by the processes.

use ketch_integration::probe::read;
use ketch_integration::{Bundle, Case, tests};
use serde_json::{Value, json};

tests![
    memory_files,
    memory_limit_is_enforced,
    a_tiny_memory_limit_still_starts,
    pids_file_and_limit,
    cpu_files,
    cpuset_files,
    device_list,
    blkio_weight_where_there_is_one,
    hugetlb_where_there_is_one,
    every_controller_is_joined,
    a_nested_path_is_made_and_its_leaf_removed,
    a_path_is_made_up_when_there_is_none,
    an_occupied_cgroup_is_refused,
    a_value_the_kernel_refuses_is_named,
    unified_is_refused_on_v1,
    removed_with_what_was_made_below,
];

fn limited<'a>(case: &'a Case, resources: &Value) -> Bundle<'a> {
    case.v1_only("v1 control files");
    case.bundle().sleeper().edit(|spec| {
        for (key, value) in resources.as_object().expect("resources") {
            spec["linux"]["resources"][key] = value.clone();
        }
    })
}

fn memory_files(case: &Case) {
    let mib = 1 << 20;
    let bundle = limited(case, &json!({ "memory": { "limit": 64 * mib, "reservation": 32 * mib, "swappiness": 10 } }));
    let _container = bundle.start();
    let file = |name| read(bundle.cgroup("memory").join(name));
    assert_eq!(file("memory.limit_in_bytes"), (64 * mib).to_string());
    assert_eq!(file("memory.soft_limit_in_bytes"), (32 * mib).to_string());
    assert_eq!(file("memory.swappiness"), "10");
}

fn memory_limit_is_enforced(case: &Case) {
    let resources = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    let bundle = limited(case, &resources);
    case.needs(bundle_has_swap_accounting(case), "no swap accounting");
    let out = bundle.command(&["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]).run();
    let _ = out.exits(137);
}

fn bundle_has_swap_accounting(case: &Case) -> bool {
    case.layout.cgroup_dir("memory", "/").join("memory.memsw.limit_in_bytes").exists()
}

fn a_tiny_memory_limit_still_starts(case: &Case) {
    case.not_sanitised("takes more memory than the limit");
    case.not_on_runc("a Go runtime's init does not fit into 512 KiB");
    let bundle = limited(case, &json!({ "memory": { "limit": 512 << 10 } }));
    let _ = bundle.command(&["/bin/true"]).run().ok();
}

fn pids_file_and_limit(case: &Case) {
    let bundle = limited(case, &json!({ "pids": { "limit": 7 } }));
    {
        let _container = bundle.start();
        assert_eq!(read(bundle.cgroup("pids").join("pids.max")), "7");
    }
    let bundle = limited(case, &json!({ "pids": { "limit": 7 } }));
    let out = bundle.script("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done").run();
    assert!(out.code != 0 && out.stderr.contains("can't fork"), "{out}");
}

fn cpu_files(case: &Case) {
    let bundle = limited(case, &json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 } }));
    let _container = bundle.start();
    let file = |name| read(bundle.cgroup("cpu").join(name));
    assert_eq!(file("cpu.shares"), "512");
    assert_eq!(file("cpu.cfs_quota_us"), "50000");
    assert_eq!(file("cpu.cfs_period_us"), "100000");
}

fn cpuset_files(case: &Case) {
    case.needs_controller("cpuset");
    let bundle = limited(case, &json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    let container = bundle.start();
    assert_eq!(read(bundle.cgroup("cpuset").join("cpuset.cpus")), "0");
    assert_eq!(container.sh("grep Cpus_allowed_list /proc/self/status | cut -f2"), "0");
}

fn device_list(case: &Case) {
    let bundle = limited(case, &json!({}));
    let _container = bundle.start();
    let list = read(bundle.cgroup("devices").join("devices.list"));
    for rule in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 5:0 rwm", "c 136:* rwm", "c 5:2 rwm"] {
        assert!(list.lines().any(|line| line == rule), "{rule} in {list}");
    }
    assert!(!list.contains("a *:* rwm"), "{list}");
}

fn blkio_weight_where_there_is_one(case: &Case) {
    case.v1_only("v1 control files");
    let weight = ["blkio.weight", "blkio.bfq.weight"]
        .into_iter()
        .find(|name| case.layout.cgroup_dir("blkio", "/").join(name).exists());
    let Some(weight) = weight else { case.skip("the kernel has no blkio weight") };
    let bundle = limited(case, &json!({ "blockIO": { "weight": 300 } }));
    let _container = bundle.start();
    assert_eq!(read(bundle.cgroup("blkio").join(weight)), "300");
}

fn hugetlb_where_there_is_one(case: &Case) {
    case.v1_only("v1 control files");
    case.needs_controller("hugetlb");
    let bundle = limited(case, &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }));
    let _container = bundle.start();
    assert_eq!(read(bundle.cgroup("hugetlb").join("hugetlb.2MB.limit_in_bytes")), (4 << 20).to_string());
}

fn every_controller_is_joined(case: &Case) {
    let bundle = limited(case, &json!({}));
    let container = bundle.start();
    let table = read(container.proc("cgroup"));
    for controller in ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"] {
        let line = table.lines().find(|line| line.split(':').nth(1) == Some(controller));
        let Some(line) = line else { panic!("no {controller} in {table}") };
        assert!(line.ends_with(&bundle.id), "{line}");
    }
}

fn a_nested_path_is_made_and_its_leaf_removed(case: &Case) {
    let parent = format!("/{}parent", case.tag);
    let bundle = limited(case, &json!({})).set("/linux/cgroupsPath", json!(format!("{parent}/leaf")));
    let container = bundle.start();
    let pids = read(bundle.cgroup("pids").join("cgroup.procs"));
    assert!(pids.lines().any(|pid| pid == container.pid().to_string()), "{pids}");
    container.stop();
    let _ = container.delete().ok();
    assert!(!bundle.cgroup("pids").exists());
    // The parents stay, as runc leaves them: others may be using them. They are this test's to remove.
    for controller in std::fs::read_dir("/sys/fs/cgroup").expect("list the hierarchies").flatten() {
        let folder = controller.path().join(parent.trim_start_matches('/'));
        if folder.exists() {
            std::fs::remove_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
    }
}

fn a_path_is_made_up_when_there_is_none(case: &Case) {
    let bundle = limited(case, &json!({})).edit(|spec| {
        spec["linux"].as_object_mut().expect("an object").remove("cgroupsPath");
    });
    let container = bundle.start();
    let table = read(container.proc("cgroup"));
    let line = table.lines().find(|line| line.contains(":pids:")).expect("the pids hierarchy");
    assert!(line.ends_with(&format!("/{}", bundle.id)), "{line}");
}

fn an_occupied_cgroup_is_refused(case: &Case) {
    case.needs_runc(1, 2, "warns only");
    let first = limited(case, &json!({}));
    let _container = first.start();
    let path = first.spec["linux"]["cgroupsPath"].clone();
    let out = limited(case, &json!({})).set("/linux/cgroupsPath", path).run();
    out.refuses(&["container's cgroup is not empty"]);
}

fn a_value_the_kernel_refuses_is_named(case: &Case) {
    let bundle = limited(case, &json!({ "cpu": { "cpus": "4000" } }));
    bundle.run().refuses(&["cpuset.cpus"]);
    let bundle = limited(case, &json!({ "cpu": { "quota": 1 } }));
    bundle.run().refuses(&["cpu.cfs_quota_us"]);
}

fn unified_is_refused_on_v1(case: &Case) {
    let bundle = limited(case, &json!({ "unified": { "memory.max": "1000000" } }));
    bundle.run().refuses(&["cannot use unified on cgroup v1"]);
}

fn removed_with_what_was_made_below(case: &Case) {
    let bundle = limited(case, &json!({}));
    let container = bundle.start();
    std::fs::create_dir(bundle.cgroup("pids").join("below")).expect("make a cgroup below");
    container.stop();
    let _ = container.delete().ok();
    assert!(!bundle.cgroup("pids").exists());
}

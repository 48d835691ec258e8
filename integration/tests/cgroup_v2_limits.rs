//! Limits on cgroup v2 where the controllers are: what the kernel's files say, what is enforced, and `update`.
//!
//! A hybrid machine has none on its v2 tree, so these run where systemd booted v2: `make vm-test`.

use std::fs;
use std::path::Path;

use ketch_integration::probe::read;
use ketch_integration::runtime::Kind;
use ketch_integration::{Bundle, Case, Container, tests, wait_until};
use serde_json::{Value, json};

tests![
    memory_files,
    memory_limit_is_enforced,
    a_tiny_memory_limit_is_refused_or_starts,
    unlimited_memory,
    cpu_files,
    cpu_weight_ends_of_the_range,
    cpu_idle,
    cpuset_files,
    a_scheduler_finds_the_limits,
    pids_file_and_limit,
    io_throttle,
    io_weight,
    unified_files_of_controllers,
    oom_group_kills_all,
    a_pressure_threshold_is_checked_and_watched,
    controllers_reach_a_nested_path,
    update_memory_and_swap,
    update_cpu_and_cpuset,
    update_pids,
    update_by_file,
    update_below_the_usage,
    an_oom_kill_is_told,
    stats_have_each_controller,
    the_systems_own_cgroups_stay,
];

fn limited<'a>(case: &'a Case, controller: &str, resources: &Value) -> Bundle<'a> {
    case.v2_only("v2 control files");
    case.needs_controller(controller);
    case.bundle().sleeper().edit(|spec| {
        for (key, value) in resources.as_object().expect("resources") {
            spec["linux"]["resources"][key] = value.clone();
        }
    })
}

const MIB: u64 = 1 << 20;

fn file(bundle: &Bundle<'_>, name: &str) -> String {
    read(bundle.cgroup("").join(name))
}

fn memory_files(case: &Case) {
    let memory = json!({ "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB });
    let bundle = limited(case, "memory", &json!({ "memory": memory }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "memory.max"), (64 * MIB).to_string());
    assert_eq!(file(&bundle, "memory.low"), (32 * MIB).to_string());
    // The specification's swap is memory and swap together; the kernel's is swap alone.
    assert_eq!(file(&bundle, "memory.swap.max"), (32 * MIB).to_string());
}

fn memory_limit_is_enforced(case: &Case) {
    let memory = json!({ "limit": 32 * MIB, "swap": 32 * MIB });
    let bundle = limited(case, "memory", &json!({ "memory": memory }));
    let _ = bundle.command(&["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]).run().exits(137);
}

fn a_tiny_memory_limit_is_refused_or_starts(case: &Case) {
    let bundle = limited(case, "memory", &json!({ "memory": { "limit": 4096 } }));
    let out = bundle.create_command().arg(&bundle.id).run();
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    assert!(out.code == 0 || out.stderr.contains("memory"), "the refusal does not name its cause: {out}");
}

fn unlimited_memory(case: &Case) {
    let bundle = limited(case, "memory", &json!({ "memory": { "limit": -1, "swap": -1 } }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "memory.max"), "max");
    assert_eq!(file(&bundle, "memory.swap.max"), "max");
}

fn cpu_files(case: &Case) {
    let bundle = limited(case, "cpu", &json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "cpu.max"), "50000 100000");
    let bundle = limited(case, "cpu", &json!({ "cpu": { "quota": -1, "period": 200_000 } }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "cpu.max"), "max 200000");
}

/// Between the ends the peers convert differently, by age.
fn cpu_weight_ends_of_the_range(case: &Case) {
    for (shares, weight) in [(2, "1"), (262_144, "10000")] {
        let bundle = limited(case, "cpu", &json!({ "cpu": { "shares": shares } }));
        let _container = bundle.start();
        assert_eq!(file(&bundle, "cpu.weight"), weight, "{shares} shares");
    }
}

fn cpu_idle(case: &Case) {
    case.needs_runc(1, 2, "does not know cpu.idle");
    let bundle = limited(case, "cpu", &json!({ "cpu": { "idle": 1 } }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "cpu.idle"), "1");
}

fn cpuset_files(case: &Case) {
    let bundle = limited(case, "cpuset", &json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    let container = bundle.start();
    assert_eq!(file(&bundle, "cpuset.cpus"), "0");
    assert_eq!(file(&bundle, "cpuset.mems"), "0");
    let seen = container.sh("grep Cpus_allowed_list /proc/self/status");
    assert!(seen.ends_with("\t0"), "{seen}");
}

/// A deadline can't be promised to a process that a cpuset keeps from some CPUs. The process could be faster than the limit,
/// which the runtime writes meanwhile; here each of its writes takes long.
fn a_scheduler_finds_the_limits(case: &Case) {
    case.needs_runc(1, 2, "no scheduler");
    case.not_on_runc("its process does not wait for the limits");
    case.needs(case.has_program("strace"), "no strace program");
    case.v2_only("v2 control files");
    case.needs_controller("cpuset");
    let cpus = read("/sys/fs/cgroup/cpuset.cpus.effective");
    case.needs(cpus != "0", "the machine has one CPU");
    let with_deadline = |resources| {
        let deadline = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000 });
        limited(case, "cpuset", &resources).command(&["/bin/true"]).set("/process/scheduler", deadline)
    };
    let run = |bundle: Bundle<'_>| {
        let run = bundle.run_command().arg(&bundle.id);
        let slow = ["-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:delay_enter=100000"];
        let out = case.program("/usr/bin/strace").args(slow).arg(&run.program).args(run.args).run();
        drop(Container::adopt(case, &bundle.id));
        out
    };
    let _ = run(with_deadline(json!({}))).ok();
    let limited = with_deadline(json!({ "cpu": { "cpus": "0" } }));
    run(limited).refuses(&["process scheduler can't be used together with AllowedCPUs"]);
}

fn pids_file_and_limit(case: &Case) {
    let bundle = limited(case, "pids", &json!({ "pids": { "limit": 12 } }));
    let container = bundle.start();
    assert_eq!(file(&bundle, "pids.max"), "12");
    let _ = container.exec(&["/bin/sh", "-c", "for i in $(seq 20); do sleep 5 & done 2>&1; kill $(jobs -p)"]);
    let events = file(&bundle, "pids.events");
    assert!(!events.ends_with("max 0"), "no fork was refused: {events}");
    let bundle = limited(case, "pids", &json!({ "pids": { "limit": -1 } }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "pids.max"), "max");
}

/// A whole disk of the machine, as major and minor number.
fn disk(case: &Case) -> (u32, u32) {
    let found = ["vda", "sda", "nvme0n1"].iter().find_map(|name| {
        let text = fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    found.unwrap_or_else(|| case.skip("no disk"))
}

fn io_throttle(case: &Case) {
    let (major, minor) = disk(case);
    let device = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let block = json!({
        "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
        "throttleReadIOPSDevice": device(300), "throttleWriteIOPSDevice": device(400)
    });
    let bundle = limited(case, "io", &json!({ "blockIO": block }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "io.max"), format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=300 wiops=400"));
}

fn io_weight(case: &Case) {
    let bundle = limited(case, "io", &json!({ "blockIO": { "weight": 500 } }));
    let cgroup = bundle.cgroup("");
    let _container = bundle.start();
    // BFQ takes the weight as it is; io.weight has another range.
    if Path::new(&cgroup.join("io.bfq.weight")).exists() {
        assert_eq!(file(&bundle, "io.bfq.weight"), "default 500");
    } else {
        assert_eq!(file(&bundle, "io.weight"), "default 4950");
    }
}

fn unified_files_of_controllers(case: &Case) {
    let unified = json!({ "memory.high": "50331648", "cpu.weight": "77", "pids.max": "33" });
    let bundle = limited(case, "memory", &json!({ "unified": unified }));
    let _container = bundle.start();
    assert_eq!(file(&bundle, "memory.high"), "50331648");
    assert_eq!(file(&bundle, "cpu.weight"), "77");
    assert_eq!(file(&bundle, "pids.max"), "33");
}

/// The kernel kills the whole container when one of its processes takes too much.
fn oom_group_kills_all(case: &Case) {
    let unified = json!({ "memory.oom.group": "1", "memory.max": "33554432", "memory.swap.max": "0" });
    let bundle = limited(case, "memory", &json!({ "unified": unified }));
    let bundle = bundle.script("sleep 1000 & dd if=/dev/zero of=/dev/null bs=96M count=1; sleep 1000");
    let cgroup = bundle.cgroup("");
    let container = bundle.start();
    container.wait_status("stopped");
    let events = read(cgroup.join("memory.events"));
    assert!(events.lines().any(|line| line == "oom_group_kill 1"), "{events}");
}

/// A trigger of the kernel's (psi.rst) is as good as the descriptor that it was written by: `create` has the kernel check it, and
/// `events` keeps it.
fn a_pressure_threshold_is_checked_and_watched(case: &Case) {
    let trigger = "some 100000 1000000";
    let bundle = limited(case, "memory", &json!({ "unified": { "memory.high": "16777216", "memory.pressure": trigger } }));
    case.needs(fs::read_to_string("/proc/pressure/memory").is_ok(), "a kernel without PSI");
    // More in memory than is to stay there, looked at again and again.
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=48 2>/dev/null; while :; do cat /dev/shm/held >/dev/null; done";
    let bundle = bundle.script(script).edit(|spec| {
        let shm = spec["mounts"].as_array_mut().expect("mounts").iter_mut().find(|mount| mount["destination"] == "/dev/shm");
        shm.expect("/dev/shm")["options"] = json!(["nosuid", "mode=1777", "size=65536k"]);
    });
    let container = bundle.start();
    if case.runtime.kind == Kind::Ketch {
        let events = case.ketch().arg("events").arg(&container.id).spawn();
        let told = json!({ "type": "pressure", "id": container.id, "data": { "file": "memory.pressure", "threshold": trigger } });
        wait_until("the pressure", || {
            let seen = events.stdout_now();
            let found = seen.lines().any(|line| serde_json::from_str::<Value>(line).is_ok_and(|event| event == told));
            if found { Ok(()) } else { Err(file(&bundle, "memory.pressure") + &events.stderr_now()) }
        });
        container.stop();
        let _ = events.wait().ok();
    } else {
        container.stop();
    }

    let bundle = limited(case, "memory", &json!({ "unified": { "memory.pressure": "some 5 1" } }));
    let out = bundle.run();
    out.refuses(&["unable to set unified resource \"memory.pressure\"", "invalid argument"]);
}

fn controllers_reach_a_nested_path(case: &Case) {
    let bundle = limited(case, "memory", &json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 9 } }));
    let parent = format!("/{}parent", case.tag);
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("{parent}/middle/leaf")));
    let container = bundle.start();
    assert_eq!(file(&bundle, "memory.max"), (64 * MIB).to_string());
    assert_eq!(file(&bundle, "pids.max"), "9");
    container.stop();
    let _ = container.delete().ok();
    for folder in [format!("{parent}/middle"), parent] {
        let _ = fs::remove_dir(case.layout.cgroup_dir("", &folder));
    }
}

fn update_memory_and_swap(case: &Case) {
    let bundle = limited(case, "memory", &json!({ "memory": { "limit": 64 * MIB, "swap": 96 * MIB } }));
    let container = bundle.start();
    let update = |args: &[&str]| case.ketch().arg("update").args(args).arg(&container.id).run();
    let _ = update(&["--memory", "128M", "--memory-swap", "256M"]).ok();
    assert_eq!(file(&bundle, "memory.max"), (128 * MIB).to_string());
    assert_eq!(file(&bundle, "memory.swap.max"), (128 * MIB).to_string());
    let _ = update(&["--memory-reservation", "16M"]).ok();
    assert_eq!(file(&bundle, "memory.low"), (16 * MIB).to_string());
    assert_eq!(file(&bundle, "memory.max"), (128 * MIB).to_string());
    let _ = update(&["--memory", "-1", "--memory-swap", "-1"]).ok();
    assert_eq!(file(&bundle, "memory.max"), "max");
    assert_eq!(file(&bundle, "memory.swap.max"), "max");
}

fn update_cpu_and_cpuset(case: &Case) {
    let bundle = limited(case, "cpu", &json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let container = bundle.start();
    let update = |args: &[&str]| case.ketch().arg("update").args(args).arg(&container.id).run();
    let _ = update(&["--cpu-quota", "30000"]).ok();
    assert_eq!(file(&bundle, "cpu.max"), "30000 100000");
    let _ = update(&["--cpu-period", "200000", "--cpu-quota", "40000"]).ok();
    assert_eq!(file(&bundle, "cpu.max"), "40000 200000");
    let _ = update(&["--cpuset-cpus", "0", "--cpuset-mems", "0"]).ok();
    assert_eq!(file(&bundle, "cpuset.cpus"), "0");
}

fn update_pids(case: &Case) {
    let bundle = limited(case, "pids", &json!({ "pids": { "limit": 12 } }));
    let container = bundle.start();
    let _ = case.ketch().args(["update", "--pids-limit", "34"]).arg(&container.id).run().ok();
    assert_eq!(file(&bundle, "pids.max"), "34");
}

fn update_by_file(case: &Case) {
    let bundle = limited(case, "memory", &json!({}));
    let container = bundle.start();
    let _ = container.update(&json!({ "memory": { "limit": 48 * MIB }, "pids": { "limit": 21 } })).ok();
    assert_eq!(file(&bundle, "memory.max"), (48 * MIB).to_string());
    assert_eq!(file(&bundle, "pids.max"), "21");
}

/// Without the check the kernel would kill what is over the new limit.
fn update_below_the_usage(case: &Case) {
    case.needs_runc(1, 2, "does not check the usage before an update");
    let bundle = limited(case, "memory", &json!({ "memory": { "checkBeforeUpdate": true } }));
    let container = bundle.script("dd if=/dev/zero of=/dev/shm/held bs=1M count=20; echo held; exec sleep 1000").start();
    container.wait_stdout("held");
    let change = json!({ "memory": { "limit": 8 * MIB, "checkBeforeUpdate": true } });
    container.update(&change).refuses(&["memory"]);
    assert_eq!(container.status(), "running");
}

fn an_oom_kill_is_told(case: &Case) {
    let memory = json!({ "limit": 32 * MIB, "swap": 32 * MIB });
    let bundle = limited(case, "memory", &json!({ "memory": memory }));
    let script = "while [ ! -e /go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=96M count=1; exec sleep 1000";
    let bundle = bundle.script(script);
    let container = bundle.start();
    let events = case.ketch().arg("events").arg(&container.id).spawn();
    wait_until("the first statistics", || {
        let seen = events.stdout_now();
        if seen.contains("\"stats\"") { Ok(()) } else { Err(events.stderr_now()) }
    });
    fs::write(bundle.rootfs().join("go"), "").expect("let it go on");
    wait_until("the event", || {
        let seen = events.stdout_now();
        if seen.contains("\"oom\"") { Ok(()) } else { Err(seen) }
    });
    container.stop();
    events.signal(rustix::process::Signal::TERM);
    let _ = events.wait();
}

fn stats_have_each_controller(case: &Case) {
    let bundle = limited(case, "memory", &json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 12 } }));
    let container = bundle.start();
    let stats = case.ketch().args(["events", "--stats"]).arg(&container.id).run().ok().json();
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 * MIB), "{stats}");
    assert_eq!(data["pids"]["limit"], json!(12), "{stats}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "{stats}");
}

/// A container beside systemd's own cgroups: they keep their processes and their controllers.
fn the_systems_own_cgroups_stay(case: &Case) {
    case.v2_only("v2 control files");
    case.needs(Path::new("/sys/fs/cgroup/init.scope").exists(), "no systemd");
    let seen = || (read("/sys/fs/cgroup/init.scope/cgroup.procs"), read("/sys/fs/cgroup/cgroup.procs"));
    let before = seen().0;
    let container = limited(case, "memory", &json!({ "memory": { "limit": 64 * MIB } })).start();
    assert_eq!(seen().0, before);
    container.stop();
}

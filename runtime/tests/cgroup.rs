//! The cgroup layer against the kernel, as root: natively (v1 or hybrid here), and on a pure cgroup2 mounted in a private
//! mount namespace, where this program runs itself again. Skips with a printed reason where it can't.
//!
//! Every cgroup is called /ketch-test-* and removed at the end.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they share")]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use ketch::cgroup::{Cgroup, CgroupError, FreezerState, OomEvent, SubCgroups};
use ketch::plan::cgroup::devices::default_rules;
use ketch::plan::cgroup::{
    CgroupLayout, CgroupMode, CgroupPlan, CgroupRequest, Devices, Driver, Privilege, UserNamespace, plan,
};
use ketch::spec::Resources;
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned, ExitStatus};

/// In a private mount namespace with cgroup2 at /sys/fs/cgroup.
const INNER: &str = "KETCH_TEST_CGROUP_V2";

fn skip(reason: &str) {
    println!("SKIP: {reason}");
}

fn is_root() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nUid:\t0\t0"));
    if !root {
        skip("needs root");
    }
    root
}

/// Runs one test of this file again on cgroup2, and shows what it says.
fn again_on_v2(test: &str) {
    let me = std::env::current_exe().unwrap();
    let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\" --exact --nocapture \"$1\"";
    let status =
        Command::new("unshare").args(["-m", "sh", "-c", script]).arg(me).arg(test).env(INNER, "1").status();
    match status {
        Ok(status) => assert!(status.success(), "{test} on cgroup2"),
        Err(error) => skip(&format!("no unshare(1): {error}")),
    }
}

/// Runs `test` here, and on cgroup2.
fn everywhere(name: &str, test: impl Fn(&CgroupLayout)) {
    if !is_root() {
        return;
    }
    let read = |path| std::fs::read_to_string(path).unwrap();
    test(&CgroupLayout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")));
    if std::env::var_os(INNER).is_none() {
        again_on_v2(name);
    }
}

fn planned(layout: &CgroupLayout, name: &str, resources: &str) -> CgroupPlan {
    let resources: Resources = serde_json::from_str(resources).unwrap();
    let path = format!("/ketch-test-{}-{name}", std::process::id());
    let defaults = default_rules(&[]);
    let request = CgroupRequest {
        id: "id",
        cgroups_path: Some(&path),
        resources: &resources,
        devices: Devices::Controlled { defaults: &defaults },
        privilege: Privilege::Root,
        user_namespace: UserNamespace::Initial,
        driver: Driver::Cgroupfs,
    };
    plan(&request, layout).unwrap()
}

const DENY_ALL: &str = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;

/// A child that is born in the cgroup, and that `work` runs in.
fn spawn(cgroup: &Cgroup, work: impl FnOnce() -> i32) -> process::Child {
    let files = cgroup.child_join().unwrap();
    let options =
        CloneOptions { namespaces: 0, into_cgroup: cgroup.clone_into_fd(), parent: CloneParent::Caller };
    match process::clone3(&options).unwrap() {
        Cloned::Child => {
            let code = if files.iter().all(|file| file.join().is_ok()) { work() } else { 99 };
            process::exit_now(code)
        }
        Cloned::Parent(child) => child,
    }
}

fn sleep_forever() -> i32 {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn life_of_a_cgroup() {
    everywhere("life_of_a_cgroup", |layout| {
        let plan = planned(layout, "life/below", DENY_ALL);
        let cgroup = Cgroup::create(&plan).unwrap();
        cgroup.set(&plan.limits).unwrap();
        let child = spawn(&cgroup, sleep_forever);
        let own = format!("/proc/{}/cgroup", child.pid);
        let path = plan.groups[0].path.strip_prefix(&plan.groups[0].mountpoint).unwrap().to_owned();
        eventually("the child is everywhere", || {
            let text = std::fs::read_to_string(&own).unwrap();
            plan.groups.iter().all(|group| {
                text.lines().any(|line| {
                    let mut fields = line.splitn(3, ':').skip(1);
                    let names: Vec<_> = fields.next().unwrap().split(',').collect();
                    names.contains(&group.controllers[0].as_str()) && fields.next() == Some(&path)
                })
            })
        });
        assert_eq!(cgroup.pids().unwrap(), [child.pid]);

        // Everything that follows works from the paths of state.json as well.
        let opened = Cgroup::open(&cgroup.paths());
        assert_eq!((opened.mode(), opened.paths()), (layout.mode, cgroup.paths()));
        assert!(opened.exists().unwrap());
        assert!(matches!(Cgroup::create(&plan), Err(CgroupError::NotEmpty { count: 1 })));

        opened.freeze().unwrap();
        assert!(opened.is_frozen().unwrap());
        opened.thaw().unwrap();
        assert_eq!(opened.freezer_state().unwrap(), FreezerState::Thawed);

        // A frozen process dies too.
        opened.freeze().unwrap();
        opened.kill_all().unwrap();
        assert_eq!(process::wait(&child.pidfd).unwrap(), ExitStatus::Signaled(9));
        opened.delete().unwrap();
        assert!(!opened.exists().unwrap());
        assert!(matches!(opened.kill_all(), Err(CgroupError::NotExist)));
        opened.delete().unwrap();
        remove_parents(&plan);
    });
}

/// A plan's parent directories outlive the container, as with runc.
fn remove_parents(plan: &CgroupPlan) {
    for group in &plan.groups {
        let parent = std::path::Path::new(&group.path).parent().unwrap();
        std::fs::remove_dir(parent).unwrap();
    }
}

#[test]
fn sub_cgroups_go_with_the_container() {
    everywhere("sub_cgroups_go_with_the_container", |layout| {
        let plan = planned(layout, "sub", "{}");
        let cgroup = Cgroup::create(&plan).unwrap();
        for group in &plan.groups {
            for below in ["a", "a/b", "c"] {
                std::fs::create_dir(format!("{}/{below}", group.path)).unwrap();
            }
        }
        if layout.mode != CgroupMode::Unified {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read_to_string(format!("{}/{file}", plan.groups[0].path)).unwrap();
                assert_ne!(value.trim(), "");
                for below in ["a", "a/b"] {
                    std::fs::write(format!("{}/{below}/{file}", plan.groups[0].path), value.trim()).unwrap();
                }
            }
        }
        let sub = SubCgroups::parse(&["a/b"]).unwrap();
        let join = cgroup.exec_join(&sub, || None).unwrap();
        let options = CloneOptions {
            namespaces: 0,
            into_cgroup: join.clone_into.as_ref().map(|fd| fd.as_fd()),
            parent: CloneParent::Caller,
        };
        let child = match process::clone3(&options).unwrap() {
            Cloned::Child => {
                if !join.files.iter().all(|file| file.join().is_ok()) {
                    process::exit_now(99);
                }
                process::exit_now(sleep_forever())
            }
            Cloned::Parent(child) => child,
        };
        eventually("the child is below", || {
            let text = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
            text.lines().filter(|line| line.ends_with("-sub/a/b")).count() == plan.groups.len()
        });
        assert_eq!(cgroup.pids().unwrap(), [child.pid]);
        cgroup.kill_all().unwrap();
        // Not reaped: the zombie must not keep the directories.
        cgroup.delete().unwrap();
        process::wait(&child.pidfd).unwrap();
        for group in &plan.groups {
            assert!(!std::path::Path::new(&group.path).exists());
        }
    });
}

#[test]
fn exec_paths() {
    everywhere("exec_paths", |layout| {
        let plan = planned(layout, "exec", "{}");
        let cgroup = Cgroup::create(&plan).unwrap();
        let join = |argument: &str| {
            let sub = SubCgroups::parse(&[argument]).unwrap();
            cgroup.exec_join(&sub, || None).map(|join| join.files.len())
        };
        let chain = |error: CgroupError| {
            let mut texts = vec![error.to_string()];
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                texts.push(error.to_string());
                source = error.source();
            }
            texts.join(": ")
        };
        assert!(join("/").is_ok());
        assert_eq!(chain(join("..").unwrap_err()), "bad sub cgroup path: ..");
        let missing = chain(join("nonexistent").unwrap_err());
        assert!(missing.ends_with("no such file or directory"), "{missing}");
        if layout.mode == CgroupMode::Unified {
            assert!(missing.starts_with("can't open cgroup: "), "{missing}");
        } else {
            assert!(missing.starts_with("error adding pid 0 to cgroups: "), "{missing}");
        }
        assert_eq!(chain(join("whaaat:/").unwrap_err()), "unknown controller whaaat in SubCgroupPaths");
        cgroup.delete().unwrap();
    });
}

#[test]
fn devices_are_denied_and_allowed_again() {
    everywhere("devices_are_denied_and_allowed_again", |layout| {
        let plan = planned(layout, "dev", DENY_ALL);
        let cgroup = Cgroup::create(&plan).unwrap();
        let can_open = |path: &'static str| {
            let child = spawn(&cgroup, || i32::from(std::fs::File::open(path).is_err()));
            process::wait(&child.pidfd).unwrap() == ExitStatus::Exited(0)
        };
        assert!(can_open("/dev/kmsg"));
        cgroup.set(&plan.limits).unwrap();
        assert!(!can_open("/dev/kmsg"));
        assert!(can_open("/dev/null"));
        let kmsg = r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
        cgroup.set(&planned(layout, "dev", kmsg).limits).unwrap();
        assert!(can_open("/dev/kmsg"));
        cgroup.set(&plan.limits).unwrap();
        assert!(!can_open("/dev/kmsg"));
        cgroup.set(&planned(layout, "dev", r#"{"devices":[{"allow":true,"access":"rwm"}]}"#).limits).unwrap();
        assert!(can_open("/dev/kmsg"));
        cgroup.delete().unwrap();
    });
}

#[test]
fn v1_limits_are_written() {
    everywhere("v1_limits_are_written", |layout| {
        if layout.mode == CgroupMode::Unified {
            return;
        }
        let resources = r#"{"memory":{"limit":41943040,"swap":83886080,"reservation":20971520,"swappiness":50},
            "cpu":{"shares":512,"quota":50000,"period":100000,"burst":1000,"cpus":"0","mems":"0"},
            "pids":{"limit":7},"blockIO":{"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}]}}"#;
        // Below a directory that is new as well.
        let plan = planned(layout, "limits/below", resources);
        let cgroup = Cgroup::create(&plan).unwrap();
        cgroup.set(&plan.limits).unwrap();
        let read = |controller: &str, file: &str| {
            let path = cgroup.path(controller).unwrap().join(file);
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        assert_eq!(read("memory", "memory.limit_in_bytes"), "41943040");
        assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "83886080");
        assert_eq!(read("memory", "memory.soft_limit_in_bytes"), "20971520");
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.cfs_burst_us"), "1000");
        assert_eq!(read("cpuset", "cpuset.cpus"), "0");
        assert_eq!(read("pids", "pids.max"), "7");
        assert_eq!(read("blkio", "blkio.throttle.read_bps_device"), "254:0 1048576");

        // Both ways past the kernel's "memory <= memory and swap".
        for (limit, swap) in [(209_715_200_u64, 419_430_400_u64), (10_485_760, 20_971_520)] {
            let update = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
            cgroup.set(&planned(layout, "limits", &update).limits).unwrap();
            assert_eq!(read("memory", "memory.limit_in_bytes"), limit.to_string());
            assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), swap.to_string());
        }
        cgroup.set(&planned(layout, "limits", r#"{"memory":{"limit":-1}}"#).limits).unwrap();
        assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "9223372036854771712");

        let refused = cgroup.set(&planned(layout, "limits", r#"{"cpu":{"quota":1}}"#).limits).unwrap_err();
        assert_eq!(refused.to_string(), "cannot set cpu limit");
        let source = std::error::Error::source(&refused).unwrap().to_string();
        assert!(
            source.starts_with("failed to write \"1\" to ") && source.ends_with("/cpu.cfs_quota_us"),
            "{source}"
        );
        let missing =
            cgroup.set(&planned(layout, "limits", r#"{"network":{"classID":5}}"#).limits).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "cannot set net_cls limit: container could not join or create cgroup"
        );
        cgroup.delete().unwrap();
        remove_parents(&plan);
    });
}

#[test]
fn v2_limits_are_written() {
    everywhere("v2_limits_are_written", |layout| {
        if layout.mode != CgroupMode::Unified {
            return;
        }
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        if let Some(missing) =
            ["cpu", "cpuset", "memory", "pids"].iter().find(|name| !controllers.contains(**name))
        {
            skip(&format!("no {missing} controller on cgroup2 here"));
            return;
        }
        let resources = r#"{"memory":{"limit":41943040,"swap":83886080,"reservation":20971520},
            "cpu":{"shares":3333,"quota":50000,"period":100000,"burst":1000,"cpus":"0","mems":"0"},
            "pids":{"limit":0},"unified":{"memory.high":"31457280"}}"#;
        let plan = planned(layout, "limits/below", resources);
        let cgroup = Cgroup::create(&plan).unwrap();
        cgroup.set(&plan.limits).unwrap();
        let dir = cgroup.path("").unwrap();
        let read =
            |file: &str| std::fs::read_to_string(dir.join(file)).map(|content| content.trim().to_owned());
        let is = |file: &str, value: &str| assert_eq!(read(file).unwrap(), value, "{file}");
        is("memory.max", "41943040");
        is("memory.low", "20971520");
        is("memory.high", "31457280");
        is("cpu.max", "50000 100000");
        is("cpu.max.burst", "1000");
        is("cpu.weight", "256");
        is("cpuset.cpus", "0");
        is("pids.max", "1");
        if read("memory.swap.max").is_ok() {
            is("memory.swap.max", "41943040");
        }
        let set = |resources: &str| cgroup.set(&planned(layout, "limits", resources).limits);
        // A burst above the old quota, and one that no quota is given for.
        set(r#"{"cpu":{"quota":90000,"burst":80000},"pids":{"limit":-1}}"#).unwrap();
        is("cpu.max.burst", "80000");
        is("pids.max", "max");
        assert_eq!(set(r#"{"cpu":{"burst":200000}}"#).unwrap_err().to_string(), "cannot set cpu limit");
        set(r#"{"memory":{"limit":-1},"cpu":{"quota":-1,"idle":1}}"#).unwrap();
        is("memory.max", "max");
        is("cpu.max", "max 100000");
        is("cpu.idle", "1");

        let child = spawn(&cgroup, || {
            MEMORY[..16 << 20].iter().step_by(4096).for_each(|byte| byte.store(1, Ordering::Relaxed));
            sleep_forever()
        });
        eventually("memory is in use", || cgroup.stats().unwrap().memory.usage.usage > 12 << 20);
        let check = r#"{"memory":{"limit":1048576,"checkBeforeUpdate":true}}"#;
        let refused = set(check).unwrap_err().to_string();
        assert!(refused.starts_with("rejecting memory limit 1048576 <= usage "), "{refused}");
        let check = r#"{"memory":{"limit":900000,"swap":1048576,"checkBeforeUpdate":true}}"#;
        let refused = set(check).unwrap_err().to_string();
        assert!(refused.starts_with("rejecting memory+swap limit 1048576 <= usage "), "{refused}");
        println!("{}", serde_json::to_string(&cgroup.stats().unwrap()).unwrap());
        cgroup.kill_all().unwrap();
        process::wait(&child.pidfd).unwrap();
        cgroup.delete().unwrap();
        remove_parents(&plan);
    });
}

#[test]
fn v2_limits_name_what_is_missing() {
    everywhere("v2_limits_name_what_is_missing", |layout| {
        if layout.mode != CgroupMode::Unified {
            return;
        }
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        let cgroup = Cgroup::create(&planned(layout, "limits", "{}")).unwrap();
        let own = std::fs::read_to_string(cgroup.path("").unwrap().join("cgroup.controllers")).unwrap();
        assert_eq!(own, controllers);
        let refused = |resources: &str| cgroup.set(&planned(layout, "limits", resources).limits).unwrap_err();
        if controllers.contains("hugetlb") {
            let limit = r#"{"hugepageLimits":[{"pagesize":"2MB","limit":2097152}],"unified":{"hugetlb.2MB.max":"4194304"}}"#;
            cgroup.set(&planned(layout, "limits", limit).limits).unwrap();
            let max = std::fs::read_to_string(cgroup.path("").unwrap().join("hugetlb.2MB.max")).unwrap();
            assert_eq!(max.trim(), "4194304");
        }
        assert_eq!(
            refused(r#"{"unified":{"nothing":"1"}}"#).to_string(),
            r#"unified resource "nothing" must be in the form CONTROLLER.PARAMETER"#
        );
        assert_eq!(
            refused(r#"{"unified":{"nothere.max":"1"}}"#).to_string(),
            r#"unified resource "nothere.max" can't be set: controller "nothere" not available"#
        );
        if !controllers.contains("memory") {
            assert_eq!(refused(r#"{"memory":{"limit":5000000}}"#).to_string(), "cannot set memory limit");
        }
        cgroup.delete().unwrap();
    });
}

/// More than the limit below. Not from the heap: its lock may be held by another test's thread at the clone.
static MEMORY: [AtomicU8; 64 << 20] = [const { AtomicU8::new(0) }; 64 << 20];

#[test]
fn running_out_of_memory_is_told() {
    everywhere("running_out_of_memory_is_told", |layout| {
        let plan = planned(layout, "oom", r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
        let cgroup = Cgroup::create(&plan).unwrap();
        if layout.mode == CgroupMode::Unified && cgroup.oom_kill_count().is_err() {
            skip("no memory controller on cgroup2 here");
            cgroup.delete().unwrap();
            return;
        }
        cgroup.set(&plan.limits).unwrap();
        let mut watch = cgroup.watch_oom().unwrap();
        let child = spawn(&cgroup, || {
            MEMORY.iter().step_by(4096).for_each(|byte| byte.store(1, Ordering::Relaxed));
            0
        });
        assert_eq!(process::wait(&child.pidfd).unwrap(), ExitStatus::Signaled(9));
        let ready = process::poll_readable(&[watch.as_fd()], Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ready, [true]);
        assert_eq!(watch.take().unwrap(), OomEvent::OutOfMemory);
        assert!(cgroup.oom_kill_count().unwrap() >= 1);
        cgroup.delete().unwrap();
        process::poll_readable(&[watch.as_fd()], Some(Duration::from_secs(10))).unwrap();
        assert_eq!(watch.take().unwrap(), OomEvent::Ended);
    });
}

#[test]
fn a_failed_creation_leaves_nothing() {
    everywhere("a_failed_creation_leaves_nothing", |layout| {
        let mut plan = planned(layout, "failed/below", "{}");
        let last = plan.groups.len() - 1;
        plan.groups[last].join = ketch::plan::cgroup::Join::Required;
        plan.groups[last].path.push_str("/x\0y");
        assert!(Cgroup::create(&plan).is_err());
        for group in &plan.groups[..last] {
            let parent = std::path::Path::new(&group.path).parent().unwrap();
            assert!(!parent.exists(), "{}", parent.display());
        }
    });
}

#[test]
fn paths_that_are_no_cgroups_are_refused() {
    if !is_root() {
        return;
    }
    let dir = format!("/tmp/ketch-test-nocgroup-{}", std::process::id());
    std::fs::create_dir(&dir).unwrap();
    let cgroup = Cgroup::open(&BTreeMap::from([(String::new(), dir.clone())]));
    assert!(!cgroup.exists().unwrap());
    assert!(matches!(cgroup.pids(), Err(CgroupError::Open { .. })));
    std::fs::remove_dir(&dir).unwrap();
}

#[test]
fn statistics() {
    everywhere("statistics", |layout| {
        let plan = planned(layout, "stats", "{}");
        let cgroup = Cgroup::create(&plan).unwrap();
        let child = spawn(&cgroup, sleep_forever);
        eventually("the child is counted", || cgroup.stats().unwrap().pids.current == 1);
        let stats = cgroup.stats().unwrap();
        let json = serde_json::to_value(&stats).unwrap();
        println!("{json}");
        if layout.mode == CgroupMode::Unified {
            assert!(json["cpu"]["psi"]["some"].is_object() || json["cpu"]["psi"].is_object());
        } else {
            assert!(json["memory"]["usage"]["limit"].as_u64().unwrap() > 0);
            assert!(json["memory"]["raw"]["cache"].is_u64());
            assert!(!stats.cpuset.cpus.is_empty());
            assert_eq!(stats.cpu.usage.percpu.len(), stats.cpu.usage.percpu_user.len());
        }
        cgroup.kill_all().unwrap();
        process::wait(&child.pidfd).unwrap();
        cgroup.delete().unwrap();
    });
}

/// What a container's cgroups cost: create, join by a child, remove.
#[test]
fn the_cost_of_cgroups() {
    everywhere("the_cost_of_cgroups", |layout| {
        let plan = planned(layout, "cost", DENY_ALL);
        let mut times: Vec<[Duration; 4]> = Vec::new();
        for _ in 0..30 {
            let start = Instant::now();
            let cgroup = Cgroup::create(&plan).unwrap();
            let created = start.elapsed();
            let child = spawn(&cgroup, || 0);
            assert_eq!(process::wait(&child.pidfd).unwrap(), ExitStatus::Exited(0));
            let joined = start.elapsed();
            cgroup.set(&plan.limits).unwrap();
            let set = start.elapsed();
            cgroup.delete().unwrap();
            times.push([created, joined - created, set - joined, start.elapsed() - set]);
        }
        let median = |index: usize| {
            let mut column: Vec<_> = times.iter().map(|row| row[index]).collect();
            column.sort();
            column[column.len() / 2]
        };
        println!(
            "{:?}, {} groups: create {:?}, fork+join+wait {:?}, devices {:?}, remove {:?}",
            layout.mode,
            plan.groups.len(),
            median(0),
            median(1),
            median(2),
            median(3)
        );
    });
}

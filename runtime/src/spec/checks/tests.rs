//! Each check: what it lets pass, and the text with which it refuses the rest.

use super::*;
use crate::spec::facts::{IntelRdtFact, RootfsFact};
use crate::spec::user_namespace::IdMappings;
use crate::spec::{IdMapping, validate_with};

fn context() -> ValidationContext {
    ValidationContext::new("/bundle")
}

fn valid() -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.3.0",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    })
}

/// The valid configuration with the value at `pointer` replaced.
fn with(pointer: &str, value: serde_json::Value) -> serde_json::Value {
    let mut json = valid();
    set(&mut json, pointer, value);
    json
}

fn set(json: &mut serde_json::Value, pointer: &str, value: serde_json::Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.into(), value);
}

fn run(
    json: &serde_json::Value,
    context: &ValidationContext,
    facts: &SpecFacts,
) -> Result<Vec<String>, String> {
    let spec = Spec::from_slice(json.to_string().as_bytes()).unwrap();
    match validate_with(spec, context, facts) {
        Ok(valid) => Ok(valid.warnings().to_vec()),
        Err(error) => Err(error.to_string()),
    }
}

/// The text of the refusal.
fn refusal(pointer: &str, value: serde_json::Value) -> String {
    run(&with(pointer, value), &context(), &SpecFacts::default()).unwrap_err()
}

fn accepted(pointer: &str, value: serde_json::Value) {
    assert_eq!(run(&with(pointer, value), &context(), &SpecFacts::default()), Ok(vec![]), "{pointer}");
}

macro_rules! json { ($($json:tt)+) => { serde_json::json!($($json)+) }; }

#[test]
fn the_table_lists_every_check_in_order() {
    let source = include_str!("mod.rs");
    let list = source.split("const CHECKS").nth(1).unwrap().split("];").next().unwrap();
    let listed: Vec<_> = list
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once("::"))
        .map(|(_, name)| name)
        .collect();
    let table: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(table, listed);
    assert_eq!(listed.len(), CHECKS.len());
}

#[test]
fn process() {
    assert_eq!(run(&valid(), &context(), &SpecFacts::default()), Ok(vec![]));
    assert_eq!(refusal("/process", json!(null)), "process property must not be empty");
    assert_eq!(refusal("/process/cwd", json!("")), "Cwd property must not be empty");
    assert_eq!(refusal("/process/cwd", json!("tmp")), "Cwd must be an absolute path");
    assert_eq!(refusal("/process/args", json!([])), "args must not be empty");
    assert_eq!(refusal("/process/args", json!(["a\0b"])), "process.args contains null byte");
    assert_eq!(refusal("/process/cwd", json!("/\0")), "process.cwd contains null byte");
    let facts = SpecFacts { selinux: false, ..SpecFacts::default() };
    assert_eq!(
        run(&with("/process/selinuxLabel", json!("l")), &context(), &facts).unwrap_err(),
        "selinux label is specified in config, but selinux is disabled or not supported"
    );
}

#[test]
fn root() {
    assert_eq!(refusal("/root", json!(null)), "root must be specified");
    let missing =
        SpecFacts { rootfs: RootfsFact::Missing("no such file or directory".into()), ..SpecFacts::default() };
    assert_eq!(
        run(&valid(), &context(), &missing).unwrap_err(),
        "invalid rootfs: stat /bundle/rootfs: no such file or directory"
    );
    let link = SpecFacts { rootfs: RootfsFact::Symlink, ..SpecFacts::default() };
    assert_eq!(
        run(&valid(), &context(), &link).unwrap_err(),
        "invalid rootfs: not an absolute path, or a symlink"
    );
    accepted("/linux/rootfsPropagation", json!("rslave"));
    assert_eq!(refusal("/linux/rootfsPropagation", json!("ro")), "rootfsPropagation=ro is not supported");
    let no_pivot = ValidationContext { no_pivot: true, ..context() };
    assert_eq!(
        run(&with("/linux/rootfsPropagation", json!("private")), &no_pivot, &SpecFacts::default())
            .unwrap_err(),
        "rootfsPropagation of [r]private is not safe without pivot_root"
    );
    assert_eq!(
        refusal("/linux", json!({"maskedPaths": ["/proc/kcore"]})),
        "unable to restrict sys entries without a private MNT namespace"
    );
}

#[test]
fn mounts() {
    let mount = |mount: serde_json::Value| with("/mounts", json!([mount]));
    let refused = |value| run(&mount(value), &context(), &SpecFacts::default()).unwrap_err();
    assert_eq!(
        refused(json!({"destination": "/a", "source": "x\0"})),
        "invalid mount /a: mount field contains null byte"
    );
    assert_eq!(
        refused(json!({"destination": "/a", "source": "/b", "options": ["rbind", "size=1"]})),
        "invalid mount /a: bind mounts cannot have any filesystem-specific options applied"
    );
    let ids = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    assert_eq!(
        refused(json!({"destination": "/a", "type": "tmpfs", "uidMappings": ids, "gidMappings": ids})),
        "invalid mount /a: id-mapped mounts are only supported for bind-mounts"
    );
    assert_eq!(
        refused(json!({"destination": "/a", "options": ["bind"], "uidMappings": ids})),
        "invalid mount /a: id-mapped mounts must have both uid and gid mappings specified"
    );
    // Without a user namespace there is nothing that "idmap" could take its mappings from.
    assert_eq!(
        refused(json!({"destination": "/a", "options": ["bind", "idmap"]})),
        "invalid mount /a: id-mapped mounts must have both uid and gid mappings specified"
    );
    let whole =
        mount(json!({"destination": "/a", "options": ["bind"], "uidMappings": ids, "gidMappings": ids}));
    assert_eq!(run(&whole, &context(), &SpecFacts::default()), Ok(vec![]));
    let warnings = run(&mount(json!({"destination": "a"})), &context(), &SpecFacts::default()).unwrap();
    assert!(warnings[0].starts_with("mount destination a is not absolute."), "{warnings:?}");
}

#[test]
fn names_and_namespaces() {
    assert_eq!(refusal("/hostname", json!("h")), "unable to set hostname without a private UTS namespace");
    assert_eq!(
        refusal("/domainname", json!("d")),
        "unable to set domainname without a private UTS namespace"
    );
    assert_eq!(refusal("/linux/namespaces", json!([{"type": "net"}])), "namespace \"net\" does not exist");
    assert_eq!(
        refusal("/linux/namespaces", json!([{"type": "pid"}, {"type": "pid", "path": "/x"}])),
        "malformed spec file: duplicated ns \"pid\""
    );
    let facts = SpecFacts { missing_namespaces: vec![NamespaceType::Time], ..SpecFacts::default() };
    assert_eq!(
        run(&valid(), &context(), &facts).unwrap_err(),
        "time namespaces aren't enabled in the kernel"
    );
    let offsets = json!({"monotonic": {"secs": 1}});
    assert_eq!(
        refusal("/linux/timeOffsets", offsets.clone()),
        "time namespace offsets specified, but time namespace isn't enabled in the config"
    );
    let mut both = with("/linux/timeOffsets", offsets);
    set(&mut both, "/linux/namespaces", json!([{"type": "time", "path": "/x"}]));
    assert_eq!(
        run(&both, &context(), &SpecFacts::default()).unwrap_err(),
        "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
    );
}

#[test]
fn user_namespaces() {
    let ids = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 10}]);
    // runc looks at mappings only when there is a user namespace.
    assert!(run(&with("/linux/uidMappings", ids(0)), &context(), &SpecFacts::default()).is_ok());
    let user = |uid: serde_json::Value, gid: serde_json::Value, path: &str| {
        let namespaces = json!([{"type": "user", "path": path}]);
        with("/linux", json!({"namespaces": namespaces, "uidMappings": uid, "gidMappings": gid}))
    };
    let check = |json, facts: &SpecFacts| run(&json, &context(), facts);
    let none = SpecFacts::default();
    assert_eq!(check(user(ids(5), ids(5), ""), &none), Ok(vec![]));
    assert_eq!(
        check(user(json!([]), ids(5), ""), &none).unwrap_err(),
        "user namespaces enabled, but no uid mappings found"
    );
    assert_eq!(
        check(user(ids(5), json!([{"containerID": 1, "hostID": 1, "size": 1}]), ""), &none).unwrap_err(),
        "user namespaces enabled, but no mapping found for gid 0"
    );
    let joined = |host_id| {
        let mappings = vec![IdMapping { container_id: 0, host_id, size: 10 }];
        let joined = IdMappings { uid: mappings.clone(), gid: mappings };
        SpecFacts { joined_mappings: Some(Ok(joined)), ..SpecFacts::default() }
    };
    assert_eq!(check(user(json!([]), json!([]), "/ns"), &joined(5)), Ok(vec![]));
    let warnings = check(user(ids(5), ids(5), "/ns"), &joined(5)).unwrap();
    assert!(warnings[0].contains("both a userns path to join and a matching userns mapping"));
    assert!(
        check(user(ids(5), ids(5), "/ns"), &joined(6))
            .unwrap_err()
            .contains("namespace path and non-matching mapping")
    );
    let broken = SpecFacts { joined_mappings: Some(Err("open: nope".into())), ..SpecFacts::default() };
    assert_eq!(
        check(user(json!([]), json!([]), "/ns"), &broken).unwrap_err(),
        "failed to cache mappings for userns: /ns: open: nope"
    );
}

#[test]
fn rootless() {
    let rootless = ValidationContext { rootless: true, ..context() };
    let check = |json| run(&json, &rootless, &SpecFacts::default());
    assert_eq!(check(valid()).unwrap_err(), "rootless container requires user namespaces");
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let linux = json!({"namespaces": [{"type": "user"}], "uidMappings": ids, "gidMappings": ids});
    let mut json = with("/linux", linux);
    assert_eq!(check(json.clone()), Ok(vec![]));
    set(&mut json, "/mounts", json!([{"destination": "/dev/pts", "type": "devpts", "options": ["gid=5"]}]));
    assert_eq!(
        check(json.clone()).unwrap_err(),
        "cannot specify gid=5 mount option for rootless container: user namespaces enabled, but no mapping found \
         for gid 5"
    );
    set(&mut json, "/mounts", json!([{"destination": "/a", "options": ["bind", "idmap"]}]));
    assert_eq!(
        check(json).unwrap_err(),
        "invalid mount /a: id-mapped mounts are not supported for rootless containers"
    );
}

#[test]
fn sysctls() {
    let linux = |kinds: &[&str], key: &str| {
        let namespaces: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        with("/linux", json!({"namespaces": namespaces, "sysctl": {key: "1"}}))
    };
    let check =
        |kinds: &[&str], key: &str| run(&linux(kinds, key), &context(), &SpecFacts::default()).map(|_| ());
    assert_eq!(check(&["ipc"], "kernel.shmmax"), Ok(()));
    assert_eq!(check(&["ipc"], "fs/mqueue/msg_max"), Ok(()));
    assert_eq!(
        check(&[], "kernel.shmmax").unwrap_err(),
        "sysctl \"kernel.shmmax\" is not allowed in the hosts ipc namespace"
    );
    assert_eq!(check(&["network"], "net/ipv4/conf/eno2.100/rp_filter"), Ok(()));
    assert_eq!(
        check(&[], "net.ipv4.ip_forward").unwrap_err(),
        "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
    );
    let own = SpecFacts { joins_own_network: Ok(true), ..SpecFacts::default() };
    assert_eq!(
        run(&linux(&["network"], "net.core.somaxconn"), &context(), &own).unwrap_err(),
        "sysctl \"net.core.somaxconn\" not allowed in host network namespace"
    );
    assert_eq!(check(&["uts"], "kernel.domainname"), Ok(()));
    assert_eq!(
        check(&["uts"], "kernel.hostname").unwrap_err(),
        "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field"
    );
    assert_eq!(
        check(&[], "kernel.domainname").unwrap_err(),
        "sysctl \"kernel.domainname\" is not in a separate kernel namespace"
    );
    assert_eq!(
        check(&["ipc"], "user.max_user_namespaces").unwrap_err(),
        "setting ucounts without a user namespace not allowed: user.max_user_namespaces"
    );
    assert_eq!(
        check(&["ipc"], "vm/swappiness").unwrap_err(),
        "sysctl \"vm.swappiness\" is not in a separate kernel namespace"
    );
}

#[test]
fn devices_and_cgroups() {
    accepted("/linux/devices", json!([{"path": "/dev/x", "type": "u", "major": 1, "minor": 3}]));
    assert_eq!(
        refusal("/linux/devices", json!([{"path": "/dev/x", "type": "x"}])),
        "invalid device type \"x\""
    );
    accepted("/linux/cgroupsPath", json!("/a/b"));
    let systemd = ValidationContext { systemd_cgroup: true, ..context() };
    let check = |path| run(&with("/linux/cgroupsPath", json!(path)), &systemd, &SpecFacts::default());
    assert_eq!(check("system.slice:docker:1"), Ok(vec![]));
    assert_eq!(
        check("/a/b").unwrap_err(),
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead"
    );
}

#[test]
fn net_devices() {
    let devices = |name: &str, inside: &str| {
        with("/linux", json!({"namespaces": [{"type": "network"}], "netDevices": {name: {"name": inside}}}))
    };
    let check = |json| run(&json, &context(), &SpecFacts::default());
    assert_eq!(check(devices("dummy0", "eth0")), Ok(vec![]));
    assert_eq!(check(devices("a/b", "")).unwrap_err(), "invalid network device name \"a/b\"");
    assert_eq!(
        check(devices("eth0", "sixteen-letters-")).unwrap_err(),
        "invalid network device name \"sixteen-letters-\""
    );
    assert_eq!(
        refusal("/linux/netDevices", json!({"eth0": {}})),
        "unable to move network devices without a NET namespace"
    );
    let rootless = ValidationContext { rootless_cgroups: true, ..context() };
    assert_eq!(
        run(&devices("eth0", ""), &rootless, &SpecFacts::default()).unwrap_err(),
        "network devices are not supported for rootless containers"
    );
}

#[test]
fn memory_policy() {
    let check = |mode: &str, nodes: &str, flags: &[&str]| {
        let policy = json!({"mode": mode, "nodes": nodes, "flags": flags});
        run(&with("/linux/memoryPolicy", policy), &context(), &SpecFacts::default())
    };
    assert_eq!(check("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES"]), Ok(vec![]));
    assert_eq!(check("MPOL_PREFERRED", "", &[]), Ok(vec![]));
    assert_eq!(check("", "", &[]).unwrap_err(), "invalid memory policy mode \"\"");
    assert_eq!(check("MPOL_BIND", "0", &["badflag"]).unwrap_err(), "invalid memory policy flag \"badflag\"");
    assert_eq!(
        check("MPOL_BIND", "0-9876543210", &[]).unwrap_err(),
        "invalid memory policy nodes \"0-9876543210\": invalid number \"9876543210\""
    );
    assert_eq!(
        check("MPOL_DEFAULT", "0-7", &[]).unwrap_err(),
        "memory policy mode requires 0 nodes but got 8"
    );
    assert_eq!(
        check("MPOL_INTERLEAVE", "", &[]).unwrap_err(),
        "memory policy mode requires at least one node but got 0"
    );
}

#[test]
fn scheduling() {
    let check = |scheduler| run(&with("/process/scheduler", scheduler), &context(), &SpecFacts::default());
    assert_eq!(check(json!({"policy": "SCHED_BATCH", "nice": 19})), Ok(vec![]));
    assert_eq!(check(json!({})).unwrap_err(), "scheduler policy is required");
    assert_eq!(
        check(json!({"policy": "SCHED_OTHER", "nice": 20})).unwrap_err(),
        "invalid scheduler.nice: 20 when scheduler.policy is SCHED_OTHER"
    );
    assert_eq!(
        check(json!({"policy": "SCHED_OTHER", "priority": 1})).unwrap_err(),
        "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
    );
    assert_eq!(
        check(json!({"policy": "SCHED_FIFO", "runtime": 1})).unwrap_err(),
        "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
    );
    assert_eq!(check(json!({"policy": "X"})).unwrap_err(), "invalid scheduler policy: X");
    assert_eq!(
        check(json!({"policy": "SCHED_RR", "flags": ["X"]})).unwrap_err(),
        "invalid scheduler flag: X"
    );
    let io = |class: &str, priority: i64| {
        refusal("/process/ioPriority", json!({"class": class, "priority": priority}))
    };
    assert_eq!(io("IOPRIO_CLASS_BE", 8), "invalid ioPriority.Priority: 8");
    assert_eq!(io("IOPRIO_CLASS_NONE", 0), "invalid ioPriority.Class: \"IOPRIO_CLASS_NONE\"");
    assert_eq!(
        refusal("/process/rlimits", json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}])),
        "wrong rlimit value: RLIMIT_X"
    );
    assert_eq!(
        refusal("/process/execCPUAffinity", json!({"initial": "0-"})),
        "bad CPUAffinity.Initial: invalid number \"\""
    );
}

#[test]
fn personality() {
    accepted("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(refusal("/linux/personality", json!({"domain": "BSD"})), "invalid personality domain BSD");
    let flags = with("/linux/personality", json!({"domain": "LINUX", "flags": ["A", "B"]}));
    let warnings = run(&flags, &context(), &SpecFacts::default()).unwrap();
    assert!(warnings[0].starts_with("ignoring unsupported personality flags: [A B]"), "{warnings:?}");
}

#[test]
fn intel_rdt() {
    let check = |rdt, facts| {
        let facts = SpecFacts { intel_rdt: facts, ..SpecFacts::default() };
        run(&with("/linux/intelRdt", rdt), &context(), &facts)
    };
    let all = SpecFacts::default().intel_rdt;
    let bare = IntelRdtFact { mountpoint: all.mountpoint.clone(), ..IntelRdtFact::default() };
    assert_eq!(check(json!({"closID": "/"}), all.clone()), Ok(vec![]));
    assert_eq!(
        check(json!({}), IntelRdtFact::default()).unwrap_err(),
        "intelRdt is specified in config, but Intel RDT is not enabled"
    );
    assert_eq!(check(json!({"closID": "a/b"}), all).unwrap_err(), "invalid intelRdt.ClosID \"a/b\"");
    assert_eq!(
        check(json!({"l3CacheSchema": "L3:0=f"}), bare.clone()).unwrap_err(),
        "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled"
    );
    assert_eq!(
        check(json!({"memBwSchema": "MB:0=10"}), bare).unwrap_err(),
        "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled"
    );
}

//! Namespaces: made, joined by path, or the caller's; time offsets; names inside them.

use std::fs;

use ketch_integration::probe::namespace_of;
use ketch_integration::{Bundle, Caller, Case, tests, wait_until};
use rustix::process::Signal;
use serde_json::json;

tests![
    asked_for_namespaces_are_new,
    namespaces_not_asked_for_are_the_callers,
    network_namespace_by_path,
    pid_namespace_by_path,
    ipc_and_uts_namespaces_by_path,
    cgroup_namespace_by_path,
    user_namespace_by_path,
    a_new_user_namespace_joins_what_the_host_owns,
    time_namespace_with_offsets,
    time_namespace_by_path,
    a_missing_path_is_named,
    a_path_of_the_wrong_kind_is_refused,
    a_namespace_twice_is_refused,
    an_unknown_namespace_is_refused,
    hostname_is_set_in_the_new_namespace,
    hostname_needs_a_uts_namespace,
    domainname_is_set,
    loopback_is_up_in_a_new_network_namespace,
    sysfs_shows_the_new_network_namespace,
];

const FILES: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

fn asked_for_namespaces_are_new(case: &Case) {
    let container = case.bundle().sleeper().start();
    let pid = container.pid();
    for (_, file) in FILES {
        let same = namespace_of(pid, file) == namespace_of(own_pid(), file);
        assert_eq!(same, case.caller == Caller::User && file == "net", "{file}");
    }
    let same = namespace_of(pid, "user") == namespace_of(own_pid(), "user");
    assert_eq!(same, case.caller == Caller::Root);
}

fn namespaces_not_asked_for_are_the_callers(case: &Case) {
    case.root_only("mqueue is only mounted in an ipc namespace of the user's own");
    let bundle = ["network", "ipc", "uts", "cgroup"].iter().fold(case.bundle().sleeper(), |b, kind| {
        b.without_namespace(kind)
    });
    // Without a network namespace of its own a container may not mount sysfs, and a hostname needs one of uts.
    let bundle = bundle.edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let container = bundle.start();
    for file in ["net", "ipc", "uts", "cgroup"] {
        assert_eq!(namespace_of(container.pid(), file), namespace_of(own_pid(), file), "{file}");
    }
}

/// A user's container owns its namespaces, and has no right to those of another one.
const OWNED: &str = "joins what another container's user namespace owns";

fn joined(case: &Case, kinds: &[(&str, &str)], change: impl Fn(Bundle<'_>) -> Bundle<'_>) {
    case.root_only(OWNED);
    let holder = change(case.bundle().sleeper()).start();
    let pid = holder.pid();
    let bundle = kinds.iter().fold(case.bundle().sleeper(), |bundle, (kind, file)| {
        bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")))
    });
    let container = bundle.edit(|spec| drop(spec.as_object_mut().unwrap().remove("hostname"))).start();
    for (_, file) in kinds {
        assert_eq!(namespace_of(container.pid(), file), namespace_of(pid, file), "{file}");
    }
}

fn network_namespace_by_path(case: &Case) {
    joined(case, &[("network", "net")], |bundle| bundle);
}

fn pid_namespace_by_path(case: &Case) {
    case.needs_runc(1, 2, "delete --force kills the first process only, and the cgroup stays");
    joined(case, &[("pid", "pid")], |bundle| bundle);
}

fn ipc_and_uts_namespaces_by_path(case: &Case) {
    joined(case, &[("ipc", "ipc"), ("uts", "uts")], |bundle| bundle);
}

fn cgroup_namespace_by_path(case: &Case) {
    joined(case, &[("cgroup", "cgroup")], |bundle| bundle);
}

fn user_namespace_by_path(case: &Case) {
    let holder = case.bundle().sleeper().user_namespace(100_000).start();
    let pid = holder.pid();
    let bundle = case.bundle().sleeper().user_namespace(100_000).edit(|spec| {
        // An old runc wants them even for a namespace that has them.
        if case.is_runc_before(1, 2) {
            return;
        }
        spec["linux"].as_object_mut().unwrap().remove("uidMappings");
        spec["linux"].as_object_mut().unwrap().remove("gidMappings");
    });
    let container = bundle.namespace("user", Some(&format!("/proc/{pid}/ns/user"))).start();
    assert_eq!(namespace_of(container.pid(), "user"), namespace_of(pid, "user"));
    assert_eq!(container.sh("id -u"), "0");
}

fn a_new_user_namespace_joins_what_the_host_owns(case: &Case) {
    case.root_only("a user may not join what the host owns");
    case.needs_runc(1, 3, "exec enters the user namespace first, and may not join the rest from there");
    let holder = case.program("/usr/bin/unshare").args(["--net", "--ipc", "--uts", "sleep", "1000"]).spawn();
    wait_until("the holder's namespaces", || {
        let seen = namespace_of(holder.pid(), "net");
        if seen == namespace_of(own_pid(), "net") { Err(seen) } else { Ok(()) }
    });
    let of_holder = |file| format!("/proc/{}/ns/{file}", holder.pid());
    let bundle = case.bundle().sleeper().user_namespace(100_000);
    let bundle = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
        .into_iter()
        .fold(bundle, |bundle, (kind, file)| bundle.namespace(kind, Some(&of_holder(file))));
    let bundle = bundle.edit(|spec| {
        // They can be mounted where the user namespace owns the network and ipc namespaces only.
        spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "mqueue");
        spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let container = bundle.start();
    for file in ["net", "ipc", "uts"] {
        assert_eq!(namespace_of(container.pid(), file), namespace_of(holder.pid(), file), "{file}");
    }
    assert_ne!(namespace_of(container.pid(), "user"), namespace_of(holder.pid(), "user"));
    assert_eq!(container.sh("id -u"), "0");
    holder.signal(Signal::KILL);
    let _ = holder.wait();
}

fn time_namespace_with_offsets(case: &Case) {
    case.needs_runc(1, 2, "no time namespaces");
    let bundle = case.bundle().command(&["/bin/cat", "/proc/self/timens_offsets"]).namespace("time", None);
    let offsets = json!({ "monotonic": { "secs": 7881, "nanosecs": 2_718_281 }, "boottime": { "secs": 1337 } });
    let seen = bundle.set("/linux/timeOffsets", offsets).prints();
    let words: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "7881", "2718281", "boottime", "1337", "0"]);
}

fn time_namespace_by_path(case: &Case) {
    case.root_only(OWNED);
    case.needs_runc(1, 2, "no time namespaces");
    let holder = case.bundle().sleeper().namespace("time", None);
    let holder = holder.set("/linux/timeOffsets", json!({ "boottime": { "secs": 4242 } })).start();
    let path = format!("/proc/{}/ns/time", holder.pid());
    let container = case.bundle().sleeper().namespace("time", Some(&path)).start();
    assert_eq!(namespace_of(container.pid(), "time"), namespace_of(holder.pid(), "time"));
}

fn a_missing_path_is_named(case: &Case) {
    let bundle = case.bundle().namespace("network", Some("/no/such/netns"));
    bundle.run().refuses(&["/no/such/netns"]);
}

fn a_path_of_the_wrong_kind_is_refused(case: &Case) {
    let _ = case.bundle().namespace("network", Some("/proc/self/ns/uts")).run().exits(1);
}

fn a_namespace_twice_is_refused(case: &Case) {
    let bundle = case.bundle().edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }));
    });
    bundle.run().refuses(&["malformed spec file: duplicated ns"]);
}

fn an_unknown_namespace_is_refused(case: &Case) {
    case.bundle().namespace("no-such-kind", None).run().refuses(&["namespace", "no-such-kind", "does not exist"]);
}

fn hostname_is_set_in_the_new_namespace(case: &Case) {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("read the hostname");
    assert_eq!(case.bundle().command(&["/bin/hostname"]).prints(), "ketch");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("read the hostname"), before);
}

fn hostname_needs_a_uts_namespace(case: &Case) {
    let bundle = case.bundle().without_namespace("uts");
    bundle.run().refuses(&["unable to set hostname without a private UTS namespace"]);
}

fn domainname_is_set(case: &Case) {
    case.needs_runc(1, 2, "no domainname");
    let bundle = case.bundle().command(&["/bin/cat", "/proc/sys/kernel/domainname"]);
    assert_eq!(bundle.set("/domainname", json!("ketch.example")).prints(), "ketch.example");
}

fn loopback_is_up_in_a_new_network_namespace(case: &Case) {
    assert!(case.bundle().script("ip addr show dev lo").prints().contains("127.0.0.1/8"));
}

/// Wherever sysfs stands among the mounts, and where there is none.
fn sysfs_shows_the_new_network_namespace(case: &Case) {
    case.root_only("a user's container has the network namespace of its caller");
    let links = "cut -d: -sf1 /proc/self/net/dev | tr -d ' ' | sort | tr '\\n' ' '; ls /sys/class/net | sort | tr '\\n' ' '";
    for place in ["first", "in its place", "last"] {
        let bundle = case.bundle().script(&format!("{links}; readlink /proc/self/ns/net")).edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            let sysfs = mounts.iter().position(|mount| mount["type"] == "sysfs").expect("a sysfs");
            mounts[sysfs]["destination"] = json!("/sys");
            match place {
                "first" => mounts.swap(0, sysfs),
                "last" => {
                    mounts.retain(|mount| mount["type"] != "cgroup");
                    mounts[sysfs..].rotate_left(1);
                }
                _ => {}
            }
        });
        let printed = bundle.prints();
        let (names, namespace) = printed.split_once("net:[").expect("a namespace");
        let (by_proc, by_sys) = names.trim_end().split_at(names.trim_end().len() / 2);
        assert_eq!(by_proc.trim(), by_sys.trim(), "{place}");
        assert!(by_proc.contains("lo"), "{place}: {by_proc}");
        assert_ne!(format!("net:[{namespace}"), namespace_of(own_pid(), "net"), "{place}");
    }
    let bare = case.bundle().script("readlink /proc/self/ns/net; ip addr show dev lo").edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    });
    let printed = bare.prints();
    assert!(printed.contains("127.0.0.1/8"), "{printed}");
    assert_ne!(printed.lines().next(), Some(namespace_of(own_pid(), "net").as_str()));
}

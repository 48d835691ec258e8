//! `--systemd-cgroup`: scopes, their slices and properties, and what becomes of them; a bus that is not there, or hangs. Names that are
//! taken are in `systemd_names`.
//!
//! Needs systemd as the first process, as in the VM (integration/vm). Limits need the controllers as well.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ketch_integration::probe::read;
use ketch_integration::wait::wait_until;
use ketch_integration::runtime::Invocation;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::json;

use crate::cgroup_v2::{exec_meets_the_leaves, with_a_leaf};

tests![
    the_container_is_in_its_scope,
    slices_are_nested_by_their_names,
    without_a_path_the_scope_is_called_after_the_container,
    annotations_become_properties,
    devices_are_confined_by_systemd_and_by_us,
    limits_are_properties_and_files,
    update_tells_systemd,
    a_weight_of_unified_outlasts_a_reload,
    exec_pause_ps_and_kill,
    a_user_namespace_and_a_writable_cgroup,
    exec_where_only_the_leaves_take_processes,
    delete_leaves_no_unit,
    a_wrong_property_is_named,
    a_bus_that_is_not_there,
    a_bus_that_hangs,
    a_bus_that_hangs_with_a_scope_under_way,
    a_bus_that_hangs_is_asked_once_by_delete,
    a_scope_that_vanishes,
    a_users_scope_is_in_the_users_manager,
    a_user_without_a_bus,
    without_systemd_the_flag_is_refused,
];

pub(crate) const SLICE: &str = "machine.slice";

fn needs_systemd(case: &Case) {
    case.native_only("systemd has the machine's own cgroups");
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    case.needs(first.trim() == "systemd", "the first process is not systemd");
    case.needs(case.layout.is_v2(), "systemd with cgroup v1");
}

/// A bundle whose scope is `kit-<id>.scope` in `slice`.
pub(crate) fn in_slice<'a>(case: &'a Case, slice: &str) -> Bundle<'a> {
    needs_systemd(case);
    let bundle = case.bundle().sleeper();
    let path = format!("{slice}:kit:{}", bundle.id);
    bundle.set("/linux/cgroupsPath", json!(path))
}

pub(crate) fn unit(bundle: &Bundle) -> String {
    format!("kit-{}.scope", bundle.id)
}

pub(crate) fn cgroup(bundle: &Bundle) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(SLICE).join(unit(bundle))
}

pub(crate) fn start<'a>(bundle: &Bundle<'a>) -> Container<'a> {
    bundle.write();
    let run = bundle.case.ketch().arg("--systemd-cgroup").args(["run", "--detach", "--bundle"]).arg(&bundle.dir);
    let _ = run.arg(&bundle.id).run().ok();
    Container::adopt(bundle.case, &bundle.id)
}

pub(crate) fn refused(bundle: &Bundle, texts: &[&str]) {
    bundle.write();
    let run = bundle.case.ketch().arg("--systemd-cgroup").args(["run", "--bundle"]).arg(&bundle.dir);
    run.arg(&bundle.id).run().refuses(texts);
    drop(Container::adopt(bundle.case, &bundle.id));
}

fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().expect("run systemctl");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A property of a unit, as systemctl shows it.
pub(crate) fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

fn the_container_is_in_its_scope(case: &Case) {
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    assert_eq!(property(&unit(&bundle), "Slice"), SLICE);
    assert_eq!(property(&unit(&bundle), "Delegate"), "yes");
    assert_eq!(property(&unit(&bundle), "ControlGroup"), format!("/{SLICE}/{}", unit(&bundle)));
    let pids = read(cgroup(&bundle).join("cgroup.procs"));
    assert!(pids.lines().any(|pid| pid == container.pid().to_string()), "{pids}");
    assert_eq!(container.sh("cat /proc/self/cgroup | grep ^0:"), "0::/");
    let state: serde_json::Value =
        serde_json::from_str(&read(case.state_root().join(&bundle.id).join("state.json"))).expect("JSON");
    assert_eq!(state["config"]["cgroups"]["parent"], SLICE);
    assert_eq!(state["config"]["cgroups"]["scope_prefix"], "kit");
    assert_eq!(state["config"]["cgroups"]["Systemd"], true);
    assert_eq!(state["cgroup_paths"][""], cgroup(&bundle).to_str().expect("UTF-8"));
}

fn slices_are_nested_by_their_names(case: &Case) {
    let bundle = in_slice(case, "machine-kit.slice");
    let _container = start(&bundle);
    let path = format!("/sys/fs/cgroup/{SLICE}/machine-kit.slice/{}", unit(&bundle));
    assert!(Path::new(&path).is_dir(), "{path}");
}

fn without_a_path_the_scope_is_called_after_the_container(case: &Case) {
    let bundle = in_slice(case, SLICE).set("/linux/cgroupsPath", json!(""));
    let _container = start(&bundle);
    let name = format!("runc-{}.scope", bundle.id);
    assert_eq!(property(&name, "ControlGroup"), format!("/system.slice/{name}"));
}

fn annotations_become_properties(case: &Case) {
    let annotations = json!({
        "org.systemd.property.TimeoutStopUSec": "uint64 123456789",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.RuntimeMaxSec": "600",
        "org.systemd.property.Before": "['kit-nothing.service']",
        "org.example": "left alone",
    });
    let bundle = in_slice(case, SLICE).set("/annotations", annotations);
    let _container = start(&bundle);
    for (name, value) in [
        ("TimeoutStopUSec", "2min 3.456789s"),
        ("CollectMode", "inactive-or-failed"),
        ("RuntimeMaxUSec", "10min"),
        ("Before", "kit-nothing.service"),
    ] {
        assert_eq!(property(&unit(&bundle), name), value, "{name}");
    }
}

fn devices_are_confined_by_systemd_and_by_us(case: &Case) {
    let devices = json!([{ "path": "/dev/unused", "type": "c", "major": 240, "minor": 77 }]);
    let bundle = in_slice(case, SLICE)
        .script("cat /dev/unused; cat /dev/null && echo null works; sleep 1000")
        .set("/linux/devices", devices);
    bundle.write();
    let run = case.ketch().arg("--systemd-cgroup").args(["run", "--detach", "--bundle"]).arg(&bundle.dir);
    let out = run.arg(&bundle.id).run().ok();
    let _container = Container::adopt(case, &bundle.id);
    wait_until("the container's words", || {
        let said = out.stdout_now();
        if said.contains("null works") { Ok(()) } else { Err(said) }
    });
    assert!(out.stderr_now().contains("Operation not permitted"), "{}", out.stderr_now());
    assert_eq!(property(&unit(&bundle), "DevicePolicy"), "strict");
    let allowed = property(&unit(&bundle), "DeviceAllow");
    assert!(allowed.contains("/dev/char/1:3 rwm"), "{allowed}");
    assert!(allowed.contains("char-* m"), "{allowed}");
}

fn limited<'a>(case: &'a Case) -> Bundle<'a> {
    needs_systemd(case);
    for controller in ["cpu", "cpuset", "memory", "pids"] {
        case.needs_controller(controller);
    }
    in_slice(case, SLICE).edit(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20 });
        resources["pids"] = json!({ "limit": 20 });
        resources["cpu"] = json!({ "shares": 1024, "quota": 12_345, "period": 100_000, "cpus": "0" });
        resources["unified"] = json!({ "memory.high": "60000000" });
    })
}

fn limits_are_properties_and_files(case: &Case) {
    let bundle = limited(case);
    let _container = start(&bundle);
    let file = |name: &str| read(cgroup(&bundle).join(name));
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "60000000"),
        ("TasksMax", "20"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("AllowedCPUs", "0"),
    ] {
        assert_eq!(property(&unit(&bundle), name), value, "{name}");
    }
    assert_eq!(property(&unit(&bundle), "CPUWeight"), file("cpu.weight"));
    assert_eq!(file("memory.max"), "67108864");
    assert_eq!(file("pids.max"), "20");
    // systemd counts in hundredths of a CPU: what is written is the same.
    let quota = if case.is_runc_before(1, 3) { 12_345 } else { 13_000 };
    assert_eq!(file("cpu.max"), format!("{quota} 100000"));
}

fn update_tells_systemd(case: &Case) {
    let bundle = limited(case);
    let container = start(&bundle);
    let flags = ["update", "--memory", "100M", "--pids-limit", "-1", "--cpu-quota", "50000"];
    let _ = case.ketch().args(flags).arg(&container.id).run().ok();
    for (name, value) in [("MemoryMax", "104857600"), ("TasksMax", "infinity"), ("CPUQuotaPerSecUSec", "500ms")] {
        assert_eq!(property(&unit(&bundle), name), value, "{name}");
    }
    assert_eq!(read(cgroup(&bundle).join("memory.max")), "104857600");
    assert_eq!(read(cgroup(&bundle).join("pids.max")), "max");
    container.update(&json!({ "unified": { "memory.low": "lots" } })).refuses(&["memory.low"]);
}

/// What systemd has not been told of it replaces by its own.
fn a_weight_of_unified_outlasts_a_reload(case: &Case) {
    case.not_on_runc("only writes it");
    let bundle = in_slice(case, SLICE).edit(|spec| {
        spec["linux"]["resources"]["unified"] = json!({ "io.weight": "default 300" });
    });
    let _container = start(&bundle);
    assert_eq!(property(&unit(&bundle), "IOWeight"), "300");
    let _ = systemctl(&["daemon-reload"]);
    assert_eq!(read(cgroup(&bundle).join("io.weight")), "default 300");
}

fn exec_pause_ps_and_kill(case: &Case) {
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    let _ = container.exec_with(&["--detach"], &["sleep", "1000"]).ok();
    assert!(read(cgroup(&bundle).join("cgroup.procs")).lines().count() >= 3);
    let listed = case.ketch().args(["ps", "--format", "json"]).arg(&container.id).run().ok();
    assert!(listed.json().as_array().is_some_and(|pids| pids.len() >= 3), "{listed}");
    let _ = container.command("pause", &[]).run().ok();
    assert_eq!(container.status(), "paused");
    let _ = container.command("resume", &[]).run().ok();
    container.stop();
    wait_until("the end of the scope", || {
        let state = property(&unit(&bundle), "ActiveState");
        if state == "inactive" { Ok(()) } else { Err(state) }
    });
    let _ = container.delete().ok();
}

fn a_user_namespace_and_a_writable_cgroup(case: &Case) {
    let bundle = in_slice(case, SLICE).user_namespace(100_000).edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").expect("the cgroup mount");
        cgroup["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
    });
    let container = start(&bundle);
    assert_eq!(container.sh("stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs"), "0\n0");
    assert_eq!(container.sh("mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs && echo in"), "in");
}

fn exec_where_only_the_leaves_take_processes(case: &Case) {
    let bundle = with_a_leaf(in_slice(case, SLICE));
    case.needs_controller("hugetlb");
    exec_meets_the_leaves(&start(&bundle), &cgroup(&bundle));
}

fn delete_leaves_no_unit(case: &Case) {
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    let _ = case.ketch().args(["delete", "--force"]).arg(&container.id).run().ok();
    assert!(!cgroup(&bundle).exists());
    assert_eq!(property(&unit(&bundle), "LoadState"), "not-found");
    // The name is free at once.
    drop(start(&bundle));
}

fn a_wrong_property_is_named(case: &Case) {
    let with = |name: &str, value: &str| {
        let annotation = format!("org.systemd.property.{name}");
        in_slice(case, SLICE).set("/annotations", json!({ annotation: value }))
    };
    refused(&with("TimeoutStopSec", "soon"), &["org.systemd.property.TimeoutStopSec"]);
    refused(&with("No-Name", "5"), &["org.systemd.property.No-Name"]);
    refused(&with("NoSuchProperty", "5"), &["unable to start unit", "NoSuchProperty"]);
}

fn with_bus<'a>(bundle: &Bundle<'a>, address: &str) -> ketch_integration::Output {
    bundle.write();
    let run = bundle.case.ketch().arg("--systemd-cgroup").args(["run", "--bundle"]).arg(&bundle.dir);
    run.arg(&bundle.id).env("DBUS_SYSTEM_BUS_ADDRESS", address).run()
}

fn a_bus_that_is_not_there(case: &Case) {
    case.not_on_runc("goes to systemd's own socket then");
    let bundle = in_slice(case, SLICE);
    with_bus(&bundle, "unix:path=/nonexistent/bus").refuses(&["cannot connect to D-Bus at /nonexistent/bus"]);
    with_bus(&bundle, "tcp:host=localhost").refuses(&["no usable D-Bus address in \"tcp:host=localhost\""]);
}

fn a_bus_that_hangs(case: &Case) {
    case.not_on_runc("waits without end");
    let bundle = in_slice(case, SLICE);
    let socket = case.dir.join("bus");
    let _listener = UnixListener::bind(&socket).expect("bind a socket");
    let out = with_bus(&bundle, &format!("unix:path={}", socket.display()));
    out.refuses(&["no answer from D-Bus within 30 s"]);
}

/// The bus passes everything on until it was asked for a scope, and then nothing back: systemd makes the scope, and nobody hears of it.
fn a_bus_that_hangs_with_a_scope_under_way(case: &Case) {
    case.not_on_runc("waits without end");
    let bundle = in_slice(case, SLICE);
    let socket = case.dir.join("bus");
    let listener = UnixListener::bind(&socket).expect("bind a socket");
    let asked = Arc::new(AtomicBool::new(false));
    let relay = {
        let asked = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let bus = UnixStream::connect("/run/dbus/system_bus_socket").expect("connect to the bus");
                let (of_client, of_bus) = (client.try_clone().expect("a socket"), bus.try_clone().expect("a socket"));
                let (asks, answers) = (Arc::clone(&asked), Arc::clone(&asked));
                let _ = thread::spawn(move || pass(of_client, bus, |bytes| {
                    if bytes.windows(18).any(|part| part == b"StartTransientUnit") {
                        asks.store(true, Ordering::SeqCst);
                    }
                    true
                }));
                let _ = thread::spawn(move || pass(of_bus, client, |_| !answers.load(Ordering::SeqCst)));
            }
        })
    };
    let out = with_bus(&bundle, &format!("unix:path={}", socket.display()));
    out.refuses(&["no answer from D-Bus within 30 s"]);
    assert!(asked.load(Ordering::SeqCst), "no scope was asked for");
    drop(relay);
    // The process for which it was made has been ended, and the scope with it.
    wait_until("the end of the scope", || {
        let state = systemctl(&["show", "--property", "ActiveState", "--value", &unit(&bundle)]);
        if state.trim() == "active" || cgroup(&bundle).exists() { Err(state) } else { Ok(()) }
    });
    assert_eq!(case.ketch().args(["list", "-q"]).run().ok().text(), "");
}

/// Passes on what comes, as long as `may` says so, until one end is closed.
fn pass(mut from: UnixStream, mut to: UnixStream, mut may: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if may(&buffer[..length]) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Which run of the unit it is and the unit's end are two questions; the container goes without an answer to either.
fn a_bus_that_hangs_is_asked_once_by_delete(case: &Case) {
    case.not_on_runc("waits without end");
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    let socket = case.dir.join("bus");
    let listener = UnixListener::bind(&socket).expect("bind a socket");
    let delete = case.ketch().args(["delete", "--force"]).arg(&container.id);
    let out = delete.env("DBUS_SYSTEM_BUS_ADDRESS", &format!("unix:path={}", socket.display())).run().ok();
    assert!(out.stderr.contains("is not asked again"), "{out}");
    assert!(!cgroup(&bundle).exists());
    listener.set_nonblocking(true).expect("set up the socket");
    let asked = std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(asked, 1);
}

/// What systemd does with a scope that its administrator stops.
fn a_scope_that_vanishes(case: &Case) {
    let bundle = in_slice(case, SLICE);
    let container = start(&bundle);
    let _ = systemctl(&["stop", &unit(&bundle)]);
    container.wait_status("stopped");
    assert!(!cgroup(&bundle).exists());
    assert_eq!(case.ketch().args(["ps", "--format", "json"]).arg(&container.id).run().ok().text(), "null");
    let _ = container.delete().ok();
}

/// The user of the VM, who has a manager.
const USER: &str = "ketch";
const USER_ID: u32 = 1000;

/// The command line that runs what follows it as the user, below the user's manager.
const IN_SESSION: [&str; 7] =
    ["--user", "--machine=ketch@.host", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec"];

/// A bundle of the user's, in a user namespace of its own.
fn users_bundle(case: &Case) -> Bundle<'_> {
    let bundle = in_slice(case, SLICE);
    let entry = format!("{USER}:x:{USER_ID}:");
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default().lines().any(|line| line.starts_with(&entry));
    case.needs(known, "no user with a manager, as the VM has");
    std::os::unix::fs::chown(case.state_root(), Some(USER_ID), None).expect("chown the state root");
    let own = json!([{ "containerID": 0, "hostID": USER_ID, "size": 1 }]);
    bundle
        .without_namespace("network")
        .namespace("user", None)
        .set("/linux/uidMappings", own.clone())
        .set("/linux/gidMappings", own)
        .edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/dev/pts" && mount["destination"] != "/sys");
            mounts.retain(|mount| mount["destination"] != "/dev/mqueue" && mount["type"] != "cgroup");
        })
}

/// A command of the runtime that the user gives.
fn as_user(case: &Case, more: &[&str]) -> Invocation {
    let ketch = case.ketch();
    let args = IN_SESSION.iter().chain(more).map(|arg| (*arg).into()).chain([ketch.program.into()]).chain(ketch.args);
    Invocation { program: "systemd-run".into(), args: args.collect(), ..ketch }
}

/// As a user would do it who asks for more than may be had: the scope, its limits, and a process that comes later from
/// another cgroup.
fn a_users_scope_is_in_the_users_manager(case: &Case) {
    let bundle = users_bundle(case).set("/linux/resources", json!({ "pids": { "limit": 20 } }));
    case.needs_controller("pids");
    bundle.write();
    let run = as_user(case, &[]).args(["--systemd-cgroup", "run", "--detach", "--bundle"]).arg(&bundle.dir);
    let _ = run.arg(&bundle.id).run().ok();
    let show = |name: &str| {
        let machine = format!("--machine={USER}@.host");
        systemctl(&["--user", &machine, "show", "--value", "--property", name, &unit(&bundle)])
    };
    let place = show("ControlGroup");
    assert!(place.starts_with(&format!("/user.slice/user-{USER_ID}.slice/user@{USER_ID}.service/")), "{place}");
    assert!(place.ends_with(&format!("/{SLICE}/{}", unit(&bundle))), "{place}");
    assert_eq!(show("TasksMax"), "20");
    let file = |name: &str| read(Path::new("/sys/fs/cgroup").join(place.trim_start_matches('/')).join(name));
    assert_eq!(file("pids.max"), "20");

    let before = file("cgroup.procs").lines().count();
    let _ = as_user(case, &[]).args(["exec", "--detach", &bundle.id, "sleep", "1000"]).run().ok();
    assert_eq!(file("cgroup.procs").lines().count(), before + 1);
    let _ = as_user(case, &[]).args(["update", "--pids-limit", "30", &bundle.id]).run().ok();
    assert_eq!((show("TasksMax"), file("pids.max")), ("30".to_owned(), "30".to_owned()));
    let _ = as_user(case, &[]).args(["delete", "--force", &bundle.id]).run().ok();
    assert_eq!(show("LoadState"), "not-found");
}

fn a_user_without_a_bus(case: &Case) {
    let bundle = users_bundle(case);
    bundle.write();
    let nothing = ["--property=UnsetEnvironment=DBUS_SESSION_BUS_ADDRESS XDG_RUNTIME_DIR"];
    let run = as_user(case, &nothing).args(["--systemd-cgroup", "run", "--bundle"]).arg(&bundle.dir);
    run.arg(&bundle.id).run().refuses(&["DBUS_SESSION_BUS_ADDRESS"]);
}

fn without_systemd_the_flag_is_refused(case: &Case) {
    case.needs(!Path::new("/run/systemd/system").is_dir(), "systemd is there");
    let bundle = case.bundle().set("/linux/cgroupsPath", json!("system.slice:kit:x"));
    refused(&bundle, &["systemd not running on this host"]);
}

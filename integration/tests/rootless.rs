//! Without root: what only concerns a caller without rights. The other modules run as this user as well (`--as user`).

use std::fs;
use std::os::unix::fs::MetadataExt;

use ketch_integration::probe::{self, namespace_of};
use ketch_integration::runtime::{Invocation, Running};
use ketch_integration::user::{COUNT, FIRST_GID, FIRST_UID, ID};
use ketch_integration::{Bundle, Case, Container, Delegation, tests, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

tests![
    the_own_id_is_mapped_without_a_tool,
    subordinate_ids_are_mapped,
    a_range_that_is_not_granted_is_named,
    a_missing_tool_is_named,
    what_a_user_can_not_have_is_refused,
    additional_groups_are_refused,
    an_unmapped_user_is_refused,
    the_state_root_is_below_the_runtime_folder,
    a_runtime_folder_of_somebody_else_is_named,
    limits_without_a_cgroup_are_refused,
    a_cgroup_path_without_rights_is_refused,
    rootless_false_wants_its_cgroup,
    a_delegated_cgroup_is_used,
    a_delegated_cgroup_by_its_path,
    a_limit_in_a_delegated_cgroup,
    a_delegated_cgroup_that_is_gone,
    kill_reaches_all_in_a_delegated_cgroup,
    the_hosts_cgroups_stay_read_only,
    devices_are_the_hosts,
    the_oom_score_goes_up_only,
    a_hard_limit_is_not_raised,
    a_created_container_is_its_users,
    exec_keeps_to_the_mapped_ids,
    a_user_and_network_namespace_by_path,
    a_foreign_network_namespace_is_refused,
    a_time_namespace_of_its_own,
    a_network_from_slirp4netns,
    groups_stay_the_users,
    root_of_a_user_namespace,
    root_of_a_user_namespace_on_an_overlay,
    root_of_a_user_namespace_on_a_fuse_overlay,
    a_user_namespace_in_a_user_namespace,
    no_more_user_namespaces,
];

const MAPS: &str = "cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn the_own_id_is_mapped_without_a_tool(case: &Case) {
    let bundle = case.bundle().script(MAPS);
    let out = bundle.run_command().arg(&bundle.id).env("PATH", "/nonexistent").run().ok();
    let own = ID.to_string();
    assert_eq!(words(&out.stdout), ["0", &own, "1", "0", &own, "1", "deny"]);
}

fn subordinate_ids_are_mapped(case: &Case) {
    let bundle = case.bundle().several_ids().capabilities(&["CAP_CHOWN"]);
    let bundle = bundle.script(&format!("{MAPS}; touch /mine; chown 5:6 /mine"));
    let out = bundle.run().ok();
    let [own, uid, gid, count] = [ID, FIRST_UID, FIRST_GID, COUNT].map(|number| number.to_string());
    let expected = ["0", &own, "1", "1", &uid, &count, "0", &own, "1", "1", &gid, &count, "allow"];
    assert_eq!(words(&out.stdout), expected);
    let file = bundle.rootfs().join("mine").metadata().expect("the file");
    assert_eq!((file.uid(), file.gid()), (FIRST_UID + 4, FIRST_GID + 5));
}

fn a_range_that_is_not_granted_is_named(case: &Case) {
    let bundle = case.bundle().several_ids().set("/linux/uidMappings/1/size", json!(COUNT + 1));
    let out = bundle.run().exits(1);
    assert!(out.stderr.contains("newuidmap") && out.stderr.contains("not allowed"), "{out}");
    if !matches!(case.runtime.kind, ketch_integration::runtime::Kind::Runc { .. }) {
        let has = format!("user {ID} has {FIRST_UID}-{} in /etc/subuid", FIRST_UID + COUNT - 1);
        let lacks = format!("not granted: {FIRST_UID}-{}", FIRST_UID + COUNT);
        out.refuses(&[&has, &lacks]);
    }
}

fn a_missing_tool_is_named(case: &Case) {
    case.not_on_runc("says only that there is no mapping tool");
    let bundle = case.bundle().several_ids();
    bundle.run_command().arg(&bundle.id).env("PATH", "/nonexistent").run().refuses(&["newuidmap", "not on PATH"]);
}

fn what_a_user_can_not_have_is_refused(case: &Case) {
    case.bundle().without_namespace("user").run().refuses(&["rootless container requires user namespaces"]);
    for kind in ["uid", "gid"] {
        let bundle = case.bundle().set(&format!("/linux/{kind}Mappings"), json!([]));
        bundle.run().refuses(&[&format!("namespaces enabled, but no {kind} mappings found")]);
    }
    for option in ["uid=7", "gid=7"] {
        let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option] });
        let kind = option.split('=').next().unwrap_or_default();
        let out = case.bundle().mount(mount).run();
        // runc of 1.1 says "cannot specify uid= mount options for unmapped uid".
        out.refuses(&[&format!("cannot specify {kind}="), "mount option", "for", "rootless container"]);
    }
    let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["uid=0"] });
    let _ = case.bundle().mount(mount).run().ok();
    case.needs_runc(1, 2, "no id-mapped mounts");
    let map = json!([{ "containerID": 0, "hostID": ID, "size": 1 }]);
    let mount = json!({ "destination": "/mnt", "type": "bind", "source": case.folder("shared"), "options": ["bind"],
                        "uidMappings": map, "gidMappings": map });
    case.bundle().mount(mount).run().refuses(&["id-mapped mounts are not supported for rootless containers"]);
}

fn additional_groups_are_refused(case: &Case) {
    const REFUSAL: &str = "cannot set any additional groups in a rootless container";
    let user = json!({ "uid": 0, "gid": 0, "additionalGids": [5] });
    case.bundle().several_ids().set("/process/user", user).run().refuses(&[REFUSAL]);
    let container = case.bundle().sleeper().start();
    container.exec_with(&["--additional-gids", "5"], &["/bin/true"]).refuses(&[REFUSAL]);
}

fn an_unmapped_user_is_refused(case: &Case) {
    let user = json!({ "uid": 5, "gid": 0 });
    case.bundle().set("/process/user", user).run().refuses(&["unable to setup user: cannot set", "unmapped"]);
}

fn the_state_root_is_below_the_runtime_folder(case: &Case) {
    let folder = case.folder("xdg");
    let bundle = case.bundle();
    bundle.write();
    let command = |args: &[&str]| case.bare().env("XDG_RUNTIME_DIR", &folder).args(args);
    let dir = bundle.dir.to_str().expect("a path");
    let _ = command(&["create", "--bundle", dir, &bundle.id]).run().ok();
    let root = folder.join("runc");
    assert!(root.join(&bundle.id).is_dir());
    assert_eq!(root.metadata().expect("the root").mode() & 0o7777, 0o1700);
    assert_eq!(command(&["list", "-q"]).run().ok().text(), bundle.id);
    let _ = command(&["delete", "--force", &bundle.id]).run().ok();
}

fn a_runtime_folder_of_somebody_else_is_named(case: &Case) {
    let out = case.bare().env("XDG_RUNTIME_DIR", "/sys").arg("list").run();
    out.refuses(&["the path in $XDG_RUNTIME_DIR must be writable by the user", "mkdir /sys/runc"]);
}

fn limits_without_a_cgroup_are_refused(case: &Case) {
    let bundle = case.bundle().set("/linux/resources", json!({ "pids": { "limit": 50 } }));
    if case.layout.is_v2() && !case.layout.has_controller("pids") {
        case.not_on_runc("counts the limits of controllers that are there");
    }
    let out = bundle.run();
    let text = if case.layout.is_v2() {
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
    } else {
        "cannot set pids limit: container could not join or create cgroup"
    };
    out.refuses(&[text]);
}

fn a_cgroup_path_without_rights_is_refused(case: &Case) {
    let bundle = case.bundle().set("/linux/cgroupsPath", json!(format!("/{}", case.tag)));
    bundle.run().refuses(&["permission denied"]);
}

fn rootless_false_wants_its_cgroup(case: &Case) {
    let bundle = case.bundle();
    let dir = bundle.write();
    let args = ["--rootless", "false", "run", "--bundle"];
    case.ketch().args(args).arg(dir).arg(&bundle.id).run().refuses(&["permission denied"]);
    case.ketch().args(["--rootless", "perhaps", "run", "--bundle"]).arg(dir).arg(&bundle.id).run().refuses(&["perhaps"]);
}

/// A bundle that names its cgroup in the delegated one.
fn sleeper_in<'a>(delegation: &Delegation, case: &'a Case) -> Bundle<'a> {
    let bundle = case.bundle().sleeper();
    let path = format!("{}/{}", delegation.path, bundle.id);
    bundle.set("/linux/cgroupsPath", json!(path))
}

fn create_inside(delegation: &Delegation, bundle: &Bundle<'_>) {
    let _ = delegation.inside(bundle.create_command().arg(&bundle.id)).run().ok();
}

/// What a cgroup of its own is good for.
fn use_its_cgroup(case: &Case, delegation: &Delegation, id: &str) {
    let container = Container::adopt(case, id);
    let _ = container.start().ok();
    let cgroup = delegation.container(case, "pids", id);
    let pid = container.pid().to_string();
    assert!(probe::read(cgroup.join("cgroup.procs")).lines().any(|line| line == pid));
    let command = |args: &[&str]| delegation.inside(case.ketch().args(args)).run();
    let listed = command(&["ps", "--format", "json", id]).ok().json();
    assert!(listed.as_array().expect("a list").contains(&json!(container.pid())), "{listed}");
    let _ = command(&["pause", id]).ok();
    assert_eq!(container.status(), "paused");
    let _ = command(&["resume", id]).ok();
    let _ = command(&["events", "--stats", id]).ok();
    let own = command(&["exec", id, "/bin/cat", "/proc/self/cgroup"]).ok();
    let inits = fs::read_to_string(container.proc("cgroup")).expect("init's cgroups");
    // Its own cgroup is the root of its cgroup namespace, in each hierarchy that was delegated.
    let at_root = own.stdout.lines().filter(|line| line.ends_with(":/")).count();
    let expected = inits.lines().filter(|line| line.ends_with(&format!("/{id}"))).count();
    assert!(expected > 0 && at_root >= expected, "{own}\n{inits}");
    container.stop();
    let _ = command(&["delete", id]).ok();
    assert!(!cgroup.exists());
}

fn a_delegated_cgroup_is_used(case: &Case) {
    let delegation = Delegation::new(case);
    let bundle = case.bundle().sleeper();
    create_inside(&delegation, &bundle);
    use_its_cgroup(case, &delegation, &bundle.id);
}

fn a_delegated_cgroup_by_its_path(case: &Case) {
    let delegation = Delegation::new(case);
    let bundle = sleeper_in(&delegation, case);
    create_inside(&delegation, &bundle);
    use_its_cgroup(case, &delegation, &bundle.id);
}

fn a_limit_in_a_delegated_cgroup(case: &Case) {
    case.needs_controller("pids");
    let delegation = Delegation::new(case);
    let bundle = sleeper_in(&delegation, case);
    let bundle = bundle.set("/linux/resources", json!({ "pids": { "limit": 50 } }));
    create_inside(&delegation, &bundle);
    let container = Container::adopt(case, &bundle.id);
    let limit = delegation.container(case, "pids", &bundle.id).join("pids.max");
    assert_eq!(probe::read(&limit), "50");
    let _ = case.ketch().args(["update", "--pids-limit", "60", &bundle.id]).run().ok();
    assert_eq!(probe::read(&limit), "60");
    container.stop();
}

/// Whoever gave it to the user has taken it back: before a container is made in it, and after its container has ended.
fn a_delegated_cgroup_that_is_gone(case: &Case) {
    let delegation = Delegation::new(case);
    let bundle = sleeper_in(&delegation, case);
    create_inside(&delegation, &bundle);
    let container = Container::adopt(case, &bundle.id);
    let _ = case.ketch().args(["kill", &bundle.id, "KILL"]).run().ok();
    container.wait_status("stopped");
    delegation.take_back(&bundle.id);
    let _ = case.ketch().args(["delete", &bundle.id]).run().ok();
    bundle.run().refuses(&[&format!("{}: permission denied", case.tag)]);
    assert_eq!(case.ketch().args(["list", "-q"]).run().ok().text(), "");
}

fn kill_reaches_all_in_a_delegated_cgroup(case: &Case) {
    case.needs_runc(1, 2, "kill without --all reaches the first process only");
    let delegation = Delegation::new(case);
    let bundle = case.bundle().without_namespace("pid").script("setsid sleep 1000 & echo $!; wait");
    // Without a pid namespace there is no procfs of its own.
    let bundle = bundle.edit(|spec| {
        spec["mounts"][0] = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
    });
    let output = delegation.inside(bundle.create_command().arg(&bundle.id)).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let _ = container.start().ok();
    wait_until("the other process", || {
        let seen = output.stdout_now();
        if seen.contains('\n') { Ok(()) } else { Err(seen) }
    });
    let other: i32 = output.stdout_now().trim().parse().expect("a pid");
    container.stop();
    wait_until("the other process's end", || if probe::is_dead(other) { Ok(()) } else { Err("alive".into()) });
}

/// CVE-2023-25809: through /sys/fs/cgroup a container could change cgroups of the host that are its user's.
fn the_hosts_cgroups_stay_read_only(case: &Case) {
    let delegation = Delegation::new(case);
    // Of v1 the folder of all hierarchies is a tmpfs of the container's own.
    let places = if case.layout.is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*" };
    let script = format!(
        "for d in {places} {places}{}; do mkdir $d/fell && echo fell && rmdir $d/fell; done 2>/dev/null; echo done",
        delegation.path
    );
    let run = |bundle: Bundle<'_>| {
        let bundle = bundle.script(&script);
        delegation.inside(bundle.run_command().arg(&bundle.id)).run().ok().stdout
    };
    assert_eq!(run(case.bundle()), "done\n", "with a cgroup namespace");
    assert_eq!(run(case.bundle().without_namespace("cgroup")), "done\n", "without a cgroup namespace");
    // The attack itself works: without the mount of cgroups, what is below a read-only /sys is not read-only.
    let uncovered = case.bundle().without_namespace("cgroup").edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    });
    assert!(run(uncovered).contains("fell"));
}

fn devices_are_the_hosts(case: &Case) {
    let script = "stat -c '%t:%T' /dev/null /dev/zero /dev/tty /dev/fuse; echo x >/dev/null; mknod /dev/new c 1 3 || echo none";
    let device = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }]);
    let bundle = case.bundle().capabilities(&["CAP_MKNOD"]).script(script);
    let out = bundle.set("/linux/devices", device).run().ok();
    assert_eq!(words(&out.stdout), ["1:3", "1:5", "5:0", "a:e5", "none"]);
    case.not_on_runc("binds whatever has the path");
    let device = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 200 }]);
    case.bundle().set("/linux/devices", device).run().refuses(&["/dev/fuse"]);
}

fn the_oom_score_goes_up_only(case: &Case) {
    let score = |score: i32| {
        case.bundle().command(&["/bin/cat", "/proc/self/oom_score_adj"]).set("/process/oomScoreAdj", json!(score)).run()
    };
    assert_eq!(score(500).ok().text(), "500");
    score(-500).refuses(&["/proc/self/oom_score_adj", "ermission denied"]);
    case.not_on_runc("gives the process of exec the container's score");
    let container = case.bundle().sleeper().start();
    let file = container.process_file(|process| {
        process["args"] = json!(["/bin/cat", "/proc/self/oom_score_adj"]);
        process["oomScoreAdj"] = json!(600);
    });
    let exec = case.ketch().arg("exec").arg("--process").arg(file).arg(&container.id).run().ok();
    assert_eq!(exec.text(), "600");
}

fn a_hard_limit_is_not_raised(case: &Case) {
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 1_000_000_000 }]);
    let out = case.bundle().set("/process/rlimits", limit).run();
    out.refuses(&["error setting rlimits for ready process: error setting rlimit type", "operation not permitted"]);
}

fn a_created_container_is_its_users(case: &Case) {
    let container = case.bundle().sleeper().namespace("network", None).create();
    assert_eq!(container.sh("id -u"), "0");
    // What slirp4netns and its like need, before the start.
    let file = container.proc("ns/net");
    let _ = case.as_user("/usr/bin/readlink").arg(&file).run().ok();
    let _ = container.start().ok();
    assert_eq!(container.status(), "running");
}

fn exec_keeps_to_the_mapped_ids(case: &Case) {
    let container = case.bundle().sleeper().start();
    let own = ID.to_string();
    assert_eq!(words(&container.sh("id -u; cat /proc/self/uid_map")), ["0", "0", &own, "1"]);
    container.exec_with(&["--user", "5:0"], &["/bin/true"]).refuses(&["unmapped"]);
    let container = case.bundle().several_ids().sleeper().start();
    let out = container.exec_with(&["--user", "33:44"], &["/bin/id"]).ok();
    assert_eq!(out.text(), "uid=33(www) gid=44");
}

/// A process that holds new namespaces, the user namespace among them.
fn holder(case: &Case, flags: &[&str]) -> Running {
    let unshare = case.as_user("/usr/bin/unshare").args(["--user", "--map-root-user"]).args(flags);
    let holder = unshare.args(["sleep", "1000"]).spawn();
    let own = i32::try_from(std::process::id()).expect("a pid");
    wait_until("the holder's namespaces", || {
        let maps = fs::read_to_string(format!("/proc/{}/uid_map", holder.pid())).unwrap_or_default();
        let seen = namespace_of(holder.pid(), "user");
        if seen == namespace_of(own, "user") || !maps.contains(&ID.to_string()) { Err(seen) } else { Ok(()) }
    });
    holder
}

fn end(holder: Running) {
    holder.signal(Signal::KILL);
    let _ = holder.wait();
}

fn a_user_and_network_namespace_by_path(case: &Case) {
    let holder = holder(case, &["--net"]);
    let file = |name: &str| format!("/proc/{}/ns/{name}", holder.pid());
    let bundle = case.bundle().sleeper();
    let bundle = bundle.namespace("user", Some(&file("user"))).namespace("network", Some(&file("net")));
    let container = bundle
        .edit(|spec| {
            // An old runc wants them even for a namespace that has them.
            if !case.is_runc_before(1, 2) {
                spec["linux"].as_object_mut().unwrap().remove("uidMappings");
                spec["linux"].as_object_mut().unwrap().remove("gidMappings");
            }
        })
        .start();
    for name in ["user", "net"] {
        assert_eq!(namespace_of(container.pid(), name), namespace_of(holder.pid(), name), "{name}");
    }
    assert_eq!(container.sh("id -u"), "0");
    end(holder);
}

fn a_foreign_network_namespace_is_refused(case: &Case) {
    let holder = holder(case, &["--net"]);
    let bundle = case.bundle().namespace("network", Some(&format!("/proc/{}/ns/net", holder.pid())));
    let out = bundle.run();
    assert!(out.code != 0 && out.stderr.to_lowercase().contains("operation not permitted"), "{out}");
    end(holder);
}

fn a_time_namespace_of_its_own(case: &Case) {
    case.needs_runc(1, 2, "no time namespaces");
    let bundle = case.bundle().command(&["/bin/cat", "/proc/self/timens_offsets"]).namespace("time", None);
    let seen = bundle.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1337 } })).prints();
    assert_eq!(words(&seen), ["monotonic", "0", "0", "boottime", "1337", "0"]);
}

/// What podman and rootlesskit do between `create` and `start`.
fn a_network_from_slirp4netns(case: &Case) {
    case.needs(case.has_program("slirp4netns"), "no slirp4netns (package slirp4netns)");
    // slirp4netns sets the address, its mask and the route one after another.
    let script = "until ip route | grep -q ^default; do sleep 0.1; done; ip -o addr show dev tap0; ip route";
    let bundle = case.bundle().namespace("network", None).script(script);
    let container = bundle.create();
    let pid = container.pid().to_string();
    let slirp = case.as_user("/usr/bin/slirp4netns").args(["--configure", "--disable-host-loopback", &pid, "tap0"]);
    let slirp = slirp.spawn();
    let _ = container.start().ok();
    container.wait_stdout("default via 10.0.2.2 dev tap0");
    assert!(container.stdout().contains("10.0.2.100/24"));
    container.wait_status("stopped");
    end(slirp);
}

/// runc never drops them for a user, mapped or not: they give access to what they are there for.
fn groups_stay_the_users(case: &Case) {
    let bundle = case.bundle().several_ids().script("grep Groups /proc/self/status");
    let dir = bundle.write();
    let ids = [format!("--reuid={ID}"), format!("--regid={ID}"), format!("--groups={ID},4712")];
    let run = case.program("/usr/bin/setpriv").args(ids).args(["--inh-caps=-all", "--"]).arg(&case.runtime.path);
    let run = run.arg("--root").arg(case.state_root()).args(["run", "--bundle"]).arg(dir).arg(&bundle.id);
    // The group is not mapped, so it shows as the one that stands for all such.
    assert_eq!(words(&run.run().ok().stdout), ["Groups:", "0", "65534"]);
}

/// The runtime as root of a user namespace with a mount namespace of its own: podman's and Docker's way without root.
fn nested(case: &Case, setup: &str, bundle: &Bundle<'_>) -> Invocation {
    bundle.write();
    let script = format!("{setup} exec \"$@\"");
    let unshare = case.as_user("/usr/bin/unshare").args(["--user", "--map-root-user", "--map-auto", "--mount"]);
    let command = unshare.args(["/bin/sh", "-c", &script, "sh"]).arg(&case.runtime.path);
    command.arg("--root").arg(case.state_root()).args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id)
}

/// The spec of a container without a user namespace: it uses its caller's.
fn plain(spec: &mut Value) {
    let linux = spec["linux"].as_object_mut().expect("linux is an object");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"].as_array_mut().expect("a list").retain(|entry| entry["type"] != "user");
}

fn root_of_a_user_namespace(case: &Case) {
    let user = json!({ "uid": 33, "gid": 44, "additionalGids": [5, 6] });
    let bundle = case.bundle().edit(plain).set("/process/user", user).set("/process/oomScoreAdj", json!(500));
    let bundle = bundle.script("id; cat /proc/self/oom_score_adj; echo x >/dev/null; stat -c %t:%T /dev/null");
    let out = nested(case, "", &bundle).run().ok();
    assert_eq!(out.text(), "uid=33(www) gid=44 groups=5,6\n500\n1:3");
    // Below the mount namespace of the nested root, nothing is asked of the host's.
    let bundle = case.bundle().edit(plain).set("/linux/resources", json!({ "pids": { "limit": 50 } }));
    let out = nested(case, "", &bundle).run();
    assert!(out.code != 0 && out.stderr.contains("cgroup"), "{out}");
}

fn root_of_a_user_namespace_on_an_overlay(case: &Case) {
    on_an_overlay(case, "this kernel mounts no overlay in a user namespace", |root, options| {
        format!("mount -t overlay overlay -o {options} {root} || exit 77;")
    });
}

fn root_of_a_user_namespace_on_a_fuse_overlay(case: &Case) {
    case.needs(case.has_program("fuse-overlayfs"), "no fuse-overlayfs (package fuse-overlayfs)");
    on_an_overlay(case, "this machine gives a user no FUSE", |root, options| {
        format!(
            "fuse-overlayfs -f -o {options} {root} & fuse=$!; \
             until mountpoint -q {root}; do kill -0 $fuse || exit 77; sleep 0.05; done; \
             \"$@\"; code=$?; kill $fuse; wait $fuse; exit $code;"
        )
    });
}

/// A container whose root is an overlay that `setup` mounts, or exits with 77 when it can't: what it writes is in the upper layer.
fn on_an_overlay(case: &Case, lacking: &str, setup: impl Fn(&str, &str) -> String) {
    let bundle = case.bundle().edit(plain).script("echo written >/mine; cat /mine");
    let layers = case.folder("layers");
    for name in ["upper", "work"] {
        fs::create_dir(layers.join(name)).expect("make a layer");
        case.give(layers.join(name));
    }
    let (root, layers) = (bundle.rootfs(), layers.display().to_string());
    let shown = root.display().to_string();
    let options = format!("lowerdir={shown},upperdir={layers}/upper,workdir={layers}/work");
    let out = nested(case, &setup(&shown, &options), &bundle).run();
    case.needs(out.code != 77, lacking);
    assert_eq!(out.ok().text(), "written");
    assert!(!root.join("mine").exists());
    assert_eq!(probe::read(format!("{layers}/upper/mine")), "written");
}

fn a_user_namespace_in_a_user_namespace(case: &Case) {
    // Ids of the outer namespace, which is the runtime's.
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1000 }]);
    let bundle = case.bundle().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let bundle = bundle.script("id -u; cat /proc/self/uid_map");
    let own = bundle.rootfs().display().to_string();
    let setup = format!("chown -R 1000:1000 {own};");
    let out = nested(case, &setup, &bundle).run().ok();
    assert_eq!(words(&out.stdout), ["0", "0", "1000", "1000"]);
}

fn no_more_user_namespaces(case: &Case) {
    case.not_on_runc("says only what the kernel did");
    let bundle = case.bundle();
    let out = nested(case, "echo 0 >/proc/sys/user/max_user_namespaces;", &bundle).run();
    out.refuses(&["cannot create a user namespace (user.max_user_namespaces is 0)", "no space left on device"]);
}

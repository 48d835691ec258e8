//! Mounts: binds, tmpfs, propagation, options, and what is refused.

use std::fs;

use ketch_integration::{Caller, Case, tests};
use serde_json::{Value, json};

tests![
    bind_shows_the_source,
    bind_of_a_file_makes_its_target,
    bind_target_folders_are_made,
    bind_read_only,
    bind_with_flags_keeps_the_others,
    relative_bind_source_is_the_bundles,
    rbind_brings_the_mounts_below,
    plain_bind_leaves_the_mounts_below,
    a_missing_bind_source_is_named,
    tmpfs_with_its_options,
    tmpfs_keeps_the_mode_of_what_it_covers,
    tmpcopyup_fills_the_tmpfs,
    a_symlinked_target_stays_inside,
    mount_order_is_the_specs,
    rootfs_propagation_slave_lets_mounts_in,
    bind_propagation_is_set,
    read_only_root,
    proc_over_a_symlink_is_refused,
    cgroup_mount_shows_the_own_cgroup,
    recursive_read_only,
    idmapped_bind,
    private_and_slave_root,
    unknown_type_is_refused,
];

fn bind(source: impl serde::Serialize, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

fn host_folder(case: &Case) -> std::path::PathBuf {
    let folder = case.folder("host");
    fs::write(folder.join("file"), "from the host").expect("write");
    folder
}

/// The mountinfo fields of a mount point inside: options, then the optional fields.
fn mountinfo_script(point: &str) -> String {
    format!("awk '$5 == \"{point}\" {{ print $6, $7, $8 }}' /proc/self/mountinfo")
}

fn bind_shows_the_source(case: &Case) {
    let bundle = case.bundle().script("cat /mnt/file; echo new > /mnt/new");
    let folder = host_folder(case);
    assert_eq!(bundle.mount(bind(&folder, "/mnt", &["bind"])).prints(), "from the host");
    assert_eq!(fs::read_to_string(folder.join("new")).expect("written inside"), "new\n");
}

fn bind_of_a_file_makes_its_target(case: &Case) {
    let bundle = case.bundle().script("cat /made/of/file");
    let file = host_folder(case).join("file");
    assert_eq!(bundle.mount(bind(file, "/made/of/file", &["rbind"])).prints(), "from the host");
}

fn bind_target_folders_are_made(case: &Case) {
    let bundle = case.bundle().script("cat /a/b/c/file");
    assert_eq!(bundle.mount(bind(host_folder(case), "/a/b/c", &["rbind"])).prints(), "from the host");
}

fn bind_read_only(case: &Case) {
    let bundle = case.bundle().script("touch /mnt/new");
    let out = bundle.mount(bind(host_folder(case), "/mnt", &["rbind", "ro"])).run();
    assert!(out.code != 0 && out.stderr.contains("Read-only file system"), "{out}");
}

fn bind_with_flags_keeps_the_others(case: &Case) {
    let options = ["rbind", "nosuid", "nodev", "noexec"];
    let bundle = case.bundle().script(&mountinfo_script("/mnt")).mount(bind(host_folder(case), "/mnt", &options));
    let seen = bundle.prints();
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(seen.contains(option), "{option} in {seen}");
    }
}

fn relative_bind_source_is_the_bundles(case: &Case) {
    let bundle = case.bundle().script("cat /mnt/file");
    fs::create_dir_all(bundle.dir.join("beside")).expect("make");
    fs::write(bundle.dir.join("beside/file"), "beside").expect("write");
    assert_eq!(bundle.mount(bind("beside", "/mnt", &["rbind"])).prints(), "beside");
}

/// A folder with a tmpfs in it, in a mount namespace that only the runtime shares.
fn with_submount(case: &Case, options: &[&str]) -> ketch_integration::Output {
    case.root_only("makes a mount of the host's");
    let folder = host_folder(case);
    fs::create_dir_all(folder.join("sub")).expect("make");
    let bundle = case.bundle().script("ls /mnt/sub").mount(bind(&folder, "/mnt", options));
    bundle.write();
    let script = format!(
        "mount -t tmpfs none {0}/sub && touch {0}/sub/below && exec {1} --root {2} run --bundle {3} {4}",
        folder.display(),
        case.runtime.path.display(),
        case.state_root().display(),
        bundle.dir.display(),
        bundle.id
    );
    let args = ["--mount", "--propagation", "private", "/bin/sh", "-c", &script];
    case.program("/usr/bin/unshare").args(args).run()
}

fn rbind_brings_the_mounts_below(case: &Case) {
    assert_eq!(with_submount(case, &["rbind"]).ok().text(), "below");
}

fn plain_bind_leaves_the_mounts_below(case: &Case) {
    assert_eq!(with_submount(case, &["bind"]).ok().text(), "");
}

fn a_missing_bind_source_is_named(case: &Case) {
    case.bundle().mount(bind("/no/such/source", "/mnt", &["rbind"])).run().refuses(&["/no/such/source", "no such file"]);
}

fn tmpfs_with_its_options(case: &Case) {
    case.needs_runc(1, 2, "puts the mode of what is covered over the option");
    let bundle = case.bundle().script("df -k /mnt | tail -1 | awk '{ print $2 }'; stat -c %a /mnt");
    let bundle = bundle.mount(json!({
        "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=1024k", "mode=1710"]
    }));
    assert_eq!(bundle.prints(), "1024\n1710");
}

fn tmpfs_keeps_the_mode_of_what_it_covers(case: &Case) {
    use std::os::unix::fs::PermissionsExt;
    let bundle = case.bundle().script("stat -c %a /mnt");
    fs::set_permissions(bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o710)).expect("chmod");
    assert_eq!(bundle.mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" })).prints(), "710");
}

fn tmpcopyup_fills_the_tmpfs(case: &Case) {
    let bundle = case.bundle().script("cat /mnt/below; echo x > /mnt/below");
    fs::write(bundle.rootfs().join("mnt/below"), "copied").expect("write");
    case.give(bundle.rootfs().join("mnt/below"));
    let bundle = bundle.mount(json!({
        "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]
    }));
    assert_eq!(bundle.prints(), "copied");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("mnt/below")).expect("read"), "copied");
}

fn a_symlinked_target_stays_inside(case: &Case) {
    let outside = case.folder("outside");
    let bundle = case.bundle().script("ls /inside");
    // Seen from inside the link leads to /inside; followed on the host it would lead elsewhere.
    std::os::unix::fs::symlink("/inside", bundle.rootfs().join("link")).expect("link");
    let bundle = bundle.mount(bind(host_folder(case), "/link", &["rbind"]));
    assert_eq!(bundle.prints(), "file");
    assert_eq!(fs::read_dir(outside).expect("read").count(), 0);
    assert!(!std::path::Path::new("/inside").exists());
}

fn mount_order_is_the_specs(case: &Case) {
    let bundle = case.bundle().script("ls /mnt; ls /mnt/in");
    let bundle = bundle
        .mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }))
        .mount(bind(host_folder(case), "/mnt/in", &["rbind"]));
    assert_eq!(bundle.prints(), "in\nfile");
}

fn rootfs_propagation_slave_lets_mounts_in(case: &Case) {
    let bundle = case.bundle().script(&mountinfo_script("/")).set("/linux/rootfsPropagation", json!("slave"));
    // On a private parent there is no master to be a slave of: what counts is that it is not shared.
    assert!(!bundle.prints().contains("shared:"));
}

fn bind_propagation_is_set(case: &Case) {
    let bundle = case.bundle().script(&mountinfo_script("/mnt"));
    let seen = bundle.mount(bind(host_folder(case), "/mnt", &["rbind", "rshared"])).prints();
    assert!(seen.contains("shared:"), "{seen}");
}

fn read_only_root(case: &Case) {
    let bundle = case.bundle().script("touch /new 2>&1; touch /dev/shm/new && echo tmpfs is writable");
    let seen = bundle.set("/root/readonly", json!(true)).prints();
    assert!(seen.contains("Read-only file system") && seen.contains("tmpfs is writable"), "{seen}");
}

fn proc_over_a_symlink_is_refused(case: &Case) {
    let bundle = case.bundle();
    fs::remove_dir(bundle.rootfs().join("proc")).expect("rmdir");
    fs::create_dir(bundle.rootfs().join("elsewhere")).expect("mkdir");
    std::os::unix::fs::symlink("elsewhere", bundle.rootfs().join("proc")).expect("link");
    bundle.run().refuses(&["must be mounted on ordinary directory"]);
}

fn cgroup_mount_shows_the_own_cgroup(case: &Case) {
    if case.caller == Caller::User {
        case.needs_runc(1, 2, "covers /sys/fs/cgroup where the user has no cgroup");
    }
    let file = if case.layout.is_v2() { "cgroup.procs" } else { "pids/cgroup.procs" };
    let bundle = case.bundle().script(&format!("grep -c '^1$' /sys/fs/cgroup/{file}"));
    assert_eq!(bundle.prints(), "1");
}

fn recursive_read_only(case: &Case) {
    case.needs_runc(1, 2, "mount option rro is taken as data");
    let out = with_submount_and(case, &["rbind", "rro"], "touch /mnt/sub/new");
    assert!(out.code != 0 && out.stderr.contains("Read-only file system"), "{out}");
}

fn with_submount_and(case: &Case, options: &[&str], command: &str) -> ketch_integration::Output {
    let folder = host_folder(case);
    fs::create_dir_all(folder.join("sub")).expect("make");
    let bundle = case.bundle().script(command).mount(bind(&folder, "/mnt", options));
    bundle.write();
    let script = format!(
        "mount -t tmpfs none {0}/sub && exec {1} --root {2} run --bundle {3} {4}",
        folder.display(),
        case.runtime.path.display(),
        case.state_root().display(),
        bundle.dir.display(),
        bundle.id
    );
    case.program("/usr/bin/unshare").args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script]).run()
}

fn idmapped_bind(case: &Case) {
    case.needs_runc(1, 2, "no idmapped mounts");
    let bundle = case.bundle().script("stat -c '%u %g' /mnt/file").user_namespace(100_000);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mut mount = bind(host_folder(case), "/mnt", &["rbind"]);
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    // Root's file on the host is root's file inside, though the container's root is another id.
    assert_eq!(bundle.mount(mount).prints(), "0 0");
}

fn private_and_slave_root(case: &Case) {
    for propagation in ["private", "rprivate", "slave", "rslave"] {
        let bundle = case.bundle().script("echo up").set("/linux/rootfsPropagation", json!(propagation));
        assert_eq!(bundle.prints(), "up", "{propagation}");
    }
}

fn unknown_type_is_refused(case: &Case) {
    let mount = json!({ "destination": "/mnt", "type": "no-such-fs", "source": "none" });
    case.bundle().mount(mount).run().refuses(&["/mnt", "no such device"]);
}

//! The root file system against hostile images: each scenario runs in a process and a mount namespace of its own.
//!
//! Needs root (it says so and passes otherwise). Canaries lie in the scenario's own scratch directory; nothing outside
//! of it is written. `harness = false`, because namespaces and the root are changed by single-threaded processes only.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests: a failure ends the scenario, and the rule on paths inside a rootfs binds the runtime"
)]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::panic::RefUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ketch::plan::rootfs::{RootEntry, RootfsOptions, RootfsPlan, plan};
use ketch::procfs::{Contents, ProcFs};
use ketch::rootfs::joined_procfs::{create, open_context, open_inside};
use ketch::rootfs::{
    self, CgroupAccess, CgroupHierarchy, CgroupView, ContainerRoot, LastLink, Missing, PrepareContext,
    Prepared, RootDir, RootfsError,
};
use ketch::spec::Spec;
use ketch_sys::mount::{self, Extent, Parameter};
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned, ExitStatus};
use ketch_sys::{Errno, namespace, path, stat};

/// One scenario: its name, and what it does in its scratch directory.
type Scenario = (&'static str, fn(&Scratch));

const SCENARIOS: &[Scenario] = &[
    ("a_default_container", a_default_container),
    ("proc_and_sys_are_no_links", proc_and_sys_are_no_links),
    ("mounts_over_proc_are_refused", mounts_over_proc_are_refused),
    ("targets_behind_links_stay_inside", targets_behind_links_stay_inside),
    ("a_swapped_target_never_reaches_the_host", a_swapped_target_never_reaches_the_host),
    ("dev_may_be_a_link_to_the_host", dev_may_be_a_link_to_the_host),
    ("a_false_null_masks_nothing", a_false_null_masks_nothing),
    ("a_false_null_is_no_stream", a_false_null_is_no_stream),
    ("console_ignores_links", console_ignores_links),
    ("a_false_ptmx_is_refused", a_false_ptmx_is_refused),
    ("procfs_sees_what_lies_over_it", procfs_sees_what_lies_over_it),
    ("a_working_directory_outside_is_seen", a_working_directory_outside_is_seen),
    ("bind_flags", bind_flags),
    ("recursive_attributes", recursive_attributes),
    ("tmpfs_modes_and_copies", tmpfs_modes_and_copies),
    ("long_options_take_the_old_way", long_options_take_the_old_way),
    ("propagation_of_the_root", propagation_of_the_root),
    ("without_pivot_the_hosts_procfs_is_covered", without_pivot_the_hosts_procfs_is_covered),
    ("without_a_mount_namespace", without_a_mount_namespace),
    ("a_cgroup_view_as_of_a_new_mount", a_cgroup_view_as_of_a_new_mount),
    ("a_unified_cgroup_view_as_of_a_new_mount", a_unified_cgroup_view_as_of_a_new_mount),
    ("mapped_owners", mapped_owners),
    ("user_namespaces_bind_devices", user_namespaces_bind_devices),
    ("errors_name_the_mount", errors_name_the_mount),
    ("another_pid_namespace_is_shown", another_pid_namespace_is_shown),
    ("no_other_file_system_is_taken_for_its_procfs", no_other_file_system_is_taken_for_its_procfs),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if let (Some(run), Some(name)) = (args.next(), args.next())
        && run == "run-scenario"
    {
        let (name, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).unwrap();
        scenario(&Scratch::of(name));
        return ExitCode::SUCCESS;
    }
    if ketch_sys::credential::effective_uid() != 0 {
        println!("rootfs: skipped: needs root for mount namespaces");
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let exe = std::env::current_exe().unwrap();
    let mut failed = 0;
    for (name, _) in SCENARIOS.iter().filter(|(name, _)| name.contains(&filter)) {
        let scratch = Scratch::of(name);
        let _ = fs::remove_dir_all(&scratch.0);
        fs::create_dir(&scratch.0).unwrap();
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--fork", "--pid", "--ipc", "--uts"])
            .arg(&exe)
            .args(["run-scenario", name])
            .env("KETCH_TEST_SCRATCH", std::process::id().to_string())
            .status()
            .unwrap();
        println!("rootfs: {name}: {}", if status.success() { "ok" } else { "FAILED" });
        failed += u32::from(!status.success());
        fs::remove_dir_all(&scratch.0).unwrap();
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A directory of the scenario's own, with the bundle and its canaries.
struct Scratch(PathBuf);

impl Scratch {
    fn of(name: &str) -> Self {
        let run = std::env::var("KETCH_TEST_SCRATCH").unwrap_or_else(|_| std::process::id().to_string());
        Self(std::env::temp_dir().join(format!("ketch-rootfs-{run}-{name}")))
    }

    /// A root with the usual empty directories.
    fn root(&self) -> PathBuf {
        let root = self.0.join("rootfs");
        if !root.exists() {
            fs::create_dir(&root).unwrap();
            for name in ["proc", "sys", "dev", "tmp", "etc"] {
                fs::create_dir(root.join(name)).unwrap();
            }
        }
        root
    }

    /// An empty directory of the host that attacks aim at.
    fn canary(&self) -> PathBuf {
        let canary = self.0.join("canary");
        if !canary.exists() {
            fs::create_dir(&canary).unwrap();
        }
        canary
    }

    fn canary_is_untouched(&self) -> bool {
        fs::read_dir(self.canary()).unwrap().next().is_none() && !is_mount_point(&self.canary())
    }

    fn plan(&self, json: &str) -> RootfsPlan {
        self.plan_with(json, RootEntry::PivotRoot)
    }

    fn plan_with(&self, json: &str, entry: RootEntry) -> RootfsPlan {
        self.root();
        let spec = Spec::from_slice(json.as_bytes()).unwrap();
        plan(&spec, &RootfsOptions { bundle: &self.0, entry }).unwrap()
    }
}

fn is_mount_point(path: &Path) -> bool {
    let id = |path: &Path| stat::mount_id(File::open(path).unwrap()).unwrap();
    id(path) != id(path.parent().unwrap())
}

fn no_source(_: usize) -> Result<OwnedFd, String> {
    Err(String::from("no parent here"))
}

fn prepare(plan: &RootfsPlan) -> Result<Prepared, RootfsError> {
    let cgroups = CgroupView::Legacy(Vec::new());
    prepare_with(
        plan,
        &mut PrepareContext { request_source: Some(&mut no_source), cgroups: &cgroups, pid_namespace: None },
    )
}

/// The tests are in their network namespace from the start.
fn prepare_with(plan: &RootfsPlan, context: &mut PrepareContext<'_>) -> Result<Prepared, RootfsError> {
    rootfs::prepare(plan, context, || Ok(()))
}

fn enter(plan: &RootfsPlan) -> ContainerRoot {
    prepare(plan).unwrap_or_else(|error| panic!("{}", chain(&error))).enter(plan).unwrap()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// The fields of mountinfo for the topmost mount at `place`: its flags, optional fields, type, source and options.
fn mount_info(place: &str) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().rfind(|line| line.split(' ').nth(4) == Some(place)).map(str::to_owned)
}

const DEFAULT_MOUNTS: &str = r#"
    {"destination":"/proc","type":"proc","source":"proc"},
    {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
    {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
    {"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
    {"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
    {"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]}"#;

fn default_spec(extra_mounts: &str, linux: &str) -> String {
    let comma = if extra_mounts.is_empty() { "" } else { "," };
    let linux_comma = if linux.is_empty() { "" } else { "," };
    format!(
        r#"{{"root":{{"path":"rootfs","readonly":true}},"mounts":[{DEFAULT_MOUNTS}{comma}{extra_mounts}],
            "linux":{{"namespaces":[{{"type":"mount"}}]{linux_comma}{linux}}}}}"#
    )
}

fn spec(mounts: &str) -> String {
    format!(
        r#"{{"root":{{"path":"rootfs"}},"mounts":[{mounts}],"linux":{{"namespaces":[{{"type":"mount"}}]}}}}"#
    )
}

fn a_default_container(scratch: &Scratch) {
    let root = scratch.root();
    fs::write(root.join("etc/secret"), "secret").unwrap();
    fs::create_dir(root.join("etc/hidden")).unwrap();
    fs::write(root.join("etc/hidden/file"), "secret").unwrap();
    let before = open_descriptors();
    let plan = scratch.plan(&default_spec(
        "",
        r#""maskedPaths":["/etc/secret","/etc/hidden","/proc/kcore","/nowhere"],
           "readonlyPaths":["/proc/sys","/proc/nowhere"]"#,
    ));
    let entered = enter(&plan);
    let console = rootfs::open_console(entered.root(), None).unwrap();
    console.mount_on_dev_console(entered.root()).unwrap();
    drop(console);
    rootfs::make_working_dir(entered.root(), Path::new("/tmp/a/b")).unwrap();
    rootfs::finalize(&plan, entered).unwrap_or_else(|error| panic!("{}", chain(&error)));
    rootfs::verify_working_dir().unwrap();

    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
    assert!(Path::new("/tmp/a/b").is_dir());
    for (name, number) in [
        ("null", (1, 3)),
        ("zero", (1, 5)),
        ("full", (1, 7)),
        ("random", (1, 8)),
        ("urandom", (1, 9)),
        ("tty", (5, 0)),
    ] {
        let meta = fs::metadata(Path::new("/dev").join(name)).unwrap();
        assert!(meta.file_type().is_char_device());
        assert_eq!(stat::major_and_minor(meta.rdev()), number, "{name}");
        assert_eq!(meta.mode() & 0o7777, 0o666);
    }
    assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
    assert_eq!(fs::read_link("/dev/fd").unwrap(), Path::new("/proc/self/fd"));
    assert!(fs::metadata("/dev/console").unwrap().file_type().is_char_device());
    assert_eq!(fs::read("/etc/secret").unwrap(), b"");
    assert_eq!(fs::read_dir("/etc/hidden").unwrap().count(), 0);
    assert!(fs::write("/etc/hidden/x", "").is_err());
    let refused = fs::write("/proc/sys/kernel/domainname", "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EROFS as i32));
    assert_eq!(fs::write("/new", "").unwrap_err().raw_os_error(), Some(Errno::EROFS as i32));
    assert!(mount_info("/sys").unwrap().contains(" ro,nosuid,nodev,noexec,relatime"));
    assert!(mount_info("/dev").unwrap().contains("rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755"));
    assert!(mount_info("/dev/pts").unwrap().contains("gid=5,mode=620,ptmxmode=666"));
    assert!(mount_info("/proc").unwrap().ends_with("- proc proc rw"));
    let top = mount_info("/").unwrap();
    assert!(top.contains(" / ro,") && !top.contains("shared:") && !top.contains("master:"), "{top}");
    // Nothing of the host is left open, and nothing of the host's tree is left mounted.
    assert_eq!(open_descriptors(), before);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kcore = usize::from(Path::new("/proc/kcore").exists());
    assert_eq!(table.lines().count(), 11 + kcore, "{table}");
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn proc_and_sys_are_no_links(scratch: &Scratch) {
    // CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let root = scratch.root();
        fs::remove_dir(root.join(name)).unwrap();
        for target in ["/bad", &scratch.canary().to_string_lossy(), "nowhere"] {
            symlink(target, root.join(name)).unwrap();
            let plan = scratch
                .plan(&spec(&format!(r#"{{"destination":"/{name}","type":"{kind}","source":"{kind}"}}"#)));
            let text = chain(&prepare(&plan).unwrap_err());
            assert_eq!(
                text,
                format!(
                    "error mounting \"{kind}\" to rootfs at \"/{name}\": filesystem \"{kind}\" must be mounted on \
                     ordinary directory"
                )
            );
            fs::remove_file(root.join(name)).unwrap();
        }
        fs::write(root.join(name), "").unwrap();
        let plan =
            scratch.plan(&spec(&format!(r#"{{"destination":"/{name}","type":"{kind}","source":"{kind}"}}"#)));
        assert!(chain(&prepare(&plan).unwrap_err()).contains("ordinary directory"));
    }
    assert!(scratch.canary_is_untouched());
}

fn mounts_over_proc_are_refused(scratch: &Scratch) {
    // CVE-2019-16884, CVE-2019-19921.
    let root = scratch.root();
    symlink("proc", root.join("link")).unwrap();
    fs::create_dir(root.join("proc/sys")).unwrap();
    let proc = r#"{"destination":"/proc","type":"proc","source":"proc"},"#;
    let canary = scratch.canary();
    let canary = canary.to_string_lossy();
    let file = scratch.0.join("file");
    fs::write(&file, "x").unwrap();
    let file = file.to_string_lossy();
    let refused = |first: &str, mount: &str, reason: &str| {
        let plan = scratch.plan(&spec(&format!("{first}{mount}")));
        let text = chain(&prepare(&plan).unwrap_err());
        assert!(text.ends_with(reason), "{text}");
    };
    let bind = |to: &str| format!(r#"{{"destination":"{to}","source":"{canary}","options":["bind"]}}"#);
    let tmpfs = |to: &str| format!(r#"{{"destination":"{to}","type":"tmpfs","source":"tmpfs"}}"#);
    let not_proc = "cannot be mounted because it is not of type proc";
    let inside = "cannot be mounted because it is inside /proc";
    for to in ["/proc", "/link", "//proc/.", "/tmp/../proc"] {
        refused("", &bind(to), not_proc);
        refused("", &tmpfs(to), not_proc);
        refused(proc, &tmpfs(to), not_proc);
    }
    for to in ["/proc/sys", "/link/sys", "/proc/self/attr"] {
        refused(proc, &tmpfs(to), inside);
    }
    refused("", &tmpfs("/proc/sys"), inside);
    let plan = scratch.plan(&spec(&format!(
        r#"{proc}{{"destination":"/proc/uptime","source":"{file}","options":["bind"]}},
           {{"destination":"/tmp","type":"bind","source":"/proc","options":["rbind"]}}"#
    )));
    prepare(&plan).unwrap();
    let on_root = scratch.plan(&spec(&tmpfs("/tmp/..")));
    assert!(chain(&prepare(&on_root).unwrap_err()).contains("is on the top of rootfs"));
}

fn targets_behind_links_stay_inside(scratch: &Scratch) {
    // CVE-2019-18837 and the class that it began.
    let root = scratch.root();
    let canary = scratch.canary();
    fs::write(scratch.0.join("file"), "from the host").unwrap();
    symlink(canary.join("hosts"), root.join("etc/hosts")).unwrap();
    symlink("../../../../../../../../..", root.join("up")).unwrap();
    symlink(&canary, root.join("dir")).unwrap();
    let below = canary.to_string_lossy();
    let plan = scratch.plan(&spec(&format!(
        r#"{{"destination":"/etc/hosts","source":"file","options":["bind","ro"]}},
           {{"destination":"/up{below}/file","source":"file","options":["bind"]}},
           {{"destination":"/dir/new/tmpfs","type":"tmpfs","source":"tmpfs"}}"#
    )));
    let prepared = prepare(&plan).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(scratch.canary_is_untouched());
    let inside = root.join(canary.strip_prefix("/").unwrap());
    assert_eq!(fs::read(inside.join("hosts")).unwrap(), b"from the host");
    assert_eq!(fs::read(inside.join("file")).unwrap(), b"from the host");
    assert!(inside.join("new/tmpfs").is_dir());
    drop(prepared);
}

fn a_swapped_target_never_reaches_the_host(scratch: &Scratch) {
    // CVE-2021-30465, CVE-2024-45310: another process swaps a directory and a symlink all the time.
    let root = scratch.root();
    let canary = scratch.canary();
    fs::create_dir(root.join("a")).unwrap();
    symlink(&canary, root.join("b")).unwrap();
    let options = CloneOptions { namespaces: 0, into_cgroup: None, parent: CloneParent::Caller };
    let swapper = match process::clone3(&options).unwrap() {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            process::set_parent_death_signal(9).unwrap();
            loop {
                // A three-way turn, as std has no RENAME_EXCHANGE: "a" is a directory, a symlink or nothing.
                let _ = fs::rename(root.join("a"), root.join("c"));
                let _ = fs::rename(root.join("b"), root.join("a"));
                let _ = fs::rename(root.join("a"), root.join("b"));
                let _ = fs::rename(root.join("c"), root.join("a"));
            }
        }
    };
    let handle = RootDir::new(path::open_host(&root, path::PATH | path::DIRECTORY).unwrap());
    let (mut made, mut mounted) = (0, 0);
    let began = std::time::Instant::now();
    for round in 0.. {
        if began.elapsed() > std::time::Duration::from_secs(2) {
            break;
        }
        let target = PathBuf::from(format!("/a/{}/x", round % 50));
        let Ok(found) = handle.resolve_or_create(&target, Missing::Directory, LastLink::Follow) else {
            continue;
        };
        made += 1;
        if round % 20 == 0 {
            let context = mount::open_fs("tmpfs").unwrap();
            mount::configure(&context, Parameter::Text("mode", "700")).unwrap();
            let tmpfs = mount::create(&context, "tmpfs", 0).unwrap();
            mount::attach(&tmpfs, &found.fd).unwrap();
            mounted += 1;
            // Taken away again by its own descriptor's place, wherever that is.
            path::change_dir_to(&tmpfs).unwrap();
            mount::detach_here().unwrap();
            std::env::set_current_dir("/").unwrap();
        }
    }
    process::pidfd_send_signal(&swapper.pidfd, 9).unwrap();
    assert!(matches!(process::wait(&swapper.pidfd).unwrap(), ExitStatus::Signaled(9)));
    assert!(made > 100 && mounted > 5, "{made} made, {mounted} mounted");
    assert!(scratch.canary_is_untouched());
}

fn dev_may_be_a_link_to_the_host(scratch: &Scratch) {
    // CVE-2026-41579, CVE-2026-47766.
    let root = scratch.root();
    fs::remove_dir(root.join("dev")).unwrap();
    symlink(scratch.canary(), root.join("dev")).unwrap();
    let plan = scratch.plan(&spec(""));
    prepare(&plan).unwrap();
    assert!(scratch.canary_is_untouched());
    let inside = root.join(scratch.canary().strip_prefix("/").unwrap());
    assert!(fs::metadata(inside.join("null")).unwrap().file_type().is_char_device());
    assert!(fs::symlink_metadata(inside.join("ptmx")).unwrap().is_symlink());
}

fn a_false_null_masks_nothing(scratch: &Scratch) {
    // CVE-2025-31133: the image's /dev/null would be bound over what is to be hidden.
    let root = scratch.root();
    fs::write(root.join("etc/secret"), "secret").unwrap();
    let plan = scratch.plan(
        r#"{"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["/etc/secret"]}}"#,
    );
    let prepared = prepare(&plan).unwrap();
    fs::remove_file(root.join("dev/null")).unwrap();
    symlink("/etc/attackers-file", root.join("dev/null")).unwrap();
    fs::write(root.join("etc/attackers-file"), "x").unwrap();
    let entered = prepared.enter(&plan).unwrap();
    let text = chain(&rootfs::finalize(&plan, entered).unwrap_err());
    assert!(text.starts_with("can't mask paths: container's /dev/null is invalid"), "{text}");
}

fn a_false_null_is_no_stream(scratch: &Scratch) {
    // CVE-2026-88265's kind: stdio re-opened from the image.
    let root = scratch.root();
    let procfs = ProcFs::private(Contents::Processes).unwrap();
    path::duplicate_onto_standard_stream(File::open("/dev/null").unwrap(), 0).unwrap();
    let plan = scratch.plan(&spec(""));
    let prepared = prepare(&plan).unwrap();
    let entered = prepared.enter(&plan).unwrap();
    rootfs::reopen_null_streams(entered.root(), &procfs).unwrap();
    let stdin = std::io::stdin();
    let null = fs::metadata("/dev/null").unwrap();
    assert_eq!(stat::status(stdin.as_fd()).unwrap().inode, null.ino(), "it is the container's own now");
    assert_eq!(stat::status(stdin.as_fd()).unwrap().device, null.dev());

    fs::remove_file("/dev/null").unwrap();
    symlink("/etc/file", "/dev/null").unwrap();
    fs::write("/etc/file", "kept").unwrap();
    let error = rootfs::reopen_null_streams(entered.root(), &procfs).unwrap_err();
    assert!(matches!(error, RootfsError::DevNull(_)), "{error}");
    assert_eq!(fs::read("/etc/file").unwrap(), b"kept");
    drop(root);
}

fn console_ignores_links(scratch: &Scratch) {
    // CVE-2025-52565, CVE-2026-88264's kind.
    let root = scratch.root();
    let canary = scratch.canary();
    let plan = scratch.plan(&default_spec("", ""));
    let prepared = prepare(&plan).unwrap();
    let pts = root.join("dev/pts");
    assert!(is_mount_point(&pts));
    symlink(canary.join("file"), root.join("dev/console")).unwrap();
    let console = rootfs::open_console(prepared.root(), None).unwrap();
    let error = console.mount_on_dev_console(prepared.root()).unwrap_err();
    assert!(chain(&error).contains("too many levels of symbolic links"), "{}", chain(&error));
    assert!(scratch.canary_is_untouched());
    fs::remove_file(root.join("dev/console")).unwrap();
    console.mount_on_dev_console(prepared.root()).unwrap();
    let peer = stat::status(&console.peer).unwrap();
    assert_eq!(fs::metadata(root.join("dev/console")).unwrap().rdev(), peer.special_device);
    assert_eq!(stat::major_and_minor(peer.special_device).0, 136);
}

fn a_false_ptmx_is_refused(scratch: &Scratch) {
    let root = scratch.root();
    let plan = scratch.plan(&default_spec("", ""));
    let prepared = prepare(&plan).unwrap();
    // A device of the host's own over the container's ptmx: its inode on devpts is not the one that is opened.
    let host = mount::clone_host_tree(Path::new("/dev/null"), Extent::Single).unwrap();
    let over = path::open_host(&root.join("dev/pts/ptmx"), path::PATH).unwrap();
    mount::attach(&host, &over).unwrap();
    let error = rootfs::open_console(prepared.root(), None).unwrap_err();
    assert!(chain(&error).contains("invalid cross-device link"), "{}", chain(&error));
    // No devpts at all.
    let plain = scratch.plan(&spec(r#"{"destination":"/dev/pts","type":"tmpfs","source":"tmpfs"}"#));
    let prepared = prepare(&plain).unwrap();
    fs::write(root.join("dev/pts/ptmx"), "").unwrap();
    let error = rootfs::open_console(prepared.root(), None).unwrap_err();
    assert!(matches!(error, RootfsError::FalsePtmx(_)), "{error}");
}

fn procfs_sees_what_lies_over_it(scratch: &Scratch) {
    // CVE-2025-52881: a write to a label or sysctl is led elsewhere by a mount.
    let canary = scratch.0.join("file");
    fs::write(&canary, "").unwrap();
    let private = ProcFs::private(Contents::Everything).unwrap();
    let own = process::own_pid();
    for covered in [format!("/proc/{own}/attr/current"), String::from("/proc/sys/kernel/domainname")] {
        let Ok(at) = path::open_host(Path::new(&covered), path::PATH) else { continue };
        mount::attach(mount::clone_host_tree(&canary, Extent::Single).unwrap(), at).unwrap();
    }
    let host = ProcFs::host().unwrap();
    let error = host.write_sysctl("kernel.domainname", "x").unwrap_err();
    assert_eq!(error.errno, Errno::EXDEV);
    // A UTS namespace of our own: the value is nobody else's.
    private.write_sysctl("kernel.domainname", "seen").unwrap();
    let mut text = String::new();
    File::from(private.open(Path::new("sys/kernel/domainname"), path::READ).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text.trim(), "seen");
    assert_eq!(fs::read(&canary).unwrap(), b"");

    let over = path::open_host(Path::new("/proc"), path::PATH | path::DIRECTORY).unwrap();
    mount::attach(mount::clone_host_tree(&scratch.0, Extent::Single).unwrap(), over).unwrap();
    assert_eq!(ProcFs::host().unwrap_err().errno, Errno::ENOTSUP);
    private.write_self("oom_score_adj", b"0").unwrap();
}

fn a_working_directory_outside_is_seen(scratch: &Scratch) {
    // CVE-2024-21626: a descriptor of the host leads out.
    let host = path::open_host(Path::new("/"), path::PATH | path::DIRECTORY).unwrap();
    let plan = scratch.plan(&default_spec("", ""));
    let entered = enter(&plan);
    rootfs::finalize(&plan, entered).unwrap();
    rootfs::verify_working_dir().unwrap();
    path::change_dir_to(&host).unwrap();
    assert!(matches!(rootfs::verify_working_dir().unwrap_err(), RootfsError::OutsideWorkingDir));
}

fn bind_flags(scratch: &Scratch) {
    fs::create_dir(scratch.0.join("src")).unwrap();
    let plan = scratch.plan(&spec(
        r#"{"destination":"/proc","type":"proc","source":"proc"},
           {"destination":"/plain","source":"src","options":["bind"]},
           {"destination":"/ro","source":"src","options":["rbind","ro","nosuid","rprivate"]},
           {"destination":"/noatime","source":"src","options":["bind","noatime","nodev"]},
           {"destination":"/shared","source":"src","options":["bind","shared"]},
           {"destination":"/slave","source":"src","options":["bind","shared","rslave"]},
           {"destination":"/plain/below","type":"tmpfs","source":"x","options":["ro","noexec","size=4k"]},
           {"destination":"/again","source":"rootfs/ro","options":["bind"]}"#,
    ));
    let entered = enter(&plan);
    rootfs::finalize(&plan, entered).unwrap();
    let flags = |place: &str| {
        let line = mount_info(place).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert_eq!(flags("/ro"), "ro,nosuid,relatime");
    assert_eq!(flags("/noatime"), "rw,nodev,noatime");
    assert_eq!(flags("/plain/below"), "ro,noexec,relatime");
    assert!(mount_info("/plain/below").unwrap().contains("- tmpfs x rw,size=4k"));
    // A later bind shows what an earlier step mounted, flags included.
    assert_eq!(flags("/again"), "ro,nosuid,relatime");
    assert!(mount_info("/shared").unwrap().contains(" shared:"));
    assert!(!mount_info("/ro").unwrap().contains(" shared:"));
    let source = scratch.0.join("src/below");
    assert!(!source.exists(), "the host's tree is gone");
}

fn recursive_attributes(scratch: &Scratch) {
    let source = scratch.0.join("src");
    fs::create_dir_all(source.join("sub")).unwrap();
    let context = mount::open_fs("tmpfs").unwrap();
    let tmpfs = mount::create(&context, "tmpfs", 0).unwrap();
    mount::attach(&tmpfs, path::open_host(&source.join("sub"), path::PATH).unwrap()).unwrap();
    let plan = scratch.plan(&spec(
        r#"{"destination":"/proc","type":"proc","source":"proc"},
           {"destination":"/ro","source":"src","options":["rbind","ro"]},
           {"destination":"/rro","source":"src","options":["rbind","rro","rnosuid","rnoatime"]},
           {"destination":"/rstrictatime","source":"src","options":["rbind","rstrictatime"]},
           {"destination":"/one","source":"src","options":["bind"]}"#,
    ));
    enter(&plan);
    let flags = |place: &str| mount_info(place).map(|line| line.split(' ').nth(5).unwrap().to_owned());
    assert_eq!(flags("/ro/sub").unwrap(), "rw,relatime");
    assert!(fs::write("/ro/sub/file", "").is_ok());
    assert_eq!(flags("/rro/sub").unwrap(), "ro,nosuid,noatime");
    assert_eq!(flags("/rstrictatime/sub").unwrap(), "rw");
    assert_eq!(flags("/one/sub"), None);
}

fn tmpfs_modes_and_copies(scratch: &Scratch) {
    let root = scratch.root();
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o710)).unwrap();
    fs::set_permissions(root.join("dir/sub"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(root.join("dir/file"), "contents").unwrap();
    let plan = scratch.plan(&spec(
        r#"{"destination":"/proc","type":"proc","source":"proc"},
           {"destination":"/dir","type":"tmpfs","source":"tmpfs","options":["tmpcopyup","ro"]},
           {"destination":"/etc","type":"tmpfs","source":"tmpfs","options":["mode=1500"]},
           {"destination":"/new/deep","type":"tmpfs","source":"tmpfs"}"#,
    ));
    let entered = enter(&plan);
    rootfs::finalize(&plan, entered).unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode("/dir"), 0o710);
    assert_eq!(mode("/dir/sub"), 0o777);
    assert_eq!(fs::read("/dir/file").unwrap(), b"contents");
    assert_eq!(fs::write("/dir/x", "").unwrap_err().raw_os_error(), Some(Errno::EROFS as i32));
    assert_eq!(mode("/etc"), 0o1500);
    assert_eq!(mode("/new/deep"), 0o1777);
    assert!(mount_info("/dir").unwrap().contains("mode=710"));
}

fn long_options_take_the_old_way(scratch: &Scratch) {
    // fsconfig(2) takes values of 255 bytes; an overlay of many layers has more.
    let root = scratch.root();
    let mut lower = Vec::new();
    for number in 0..8 {
        let layer = scratch.0.join(format!("layer-with-a-quite-long-name-for-its-kind-{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("file{number}")), "").unwrap();
        lower.push(layer.to_string_lossy().into_owned());
    }
    let lower = lower.join(":");
    assert!(lower.len() > 255);
    let plan = scratch.plan(&spec(&format!(
        r#"{{"destination":"/proc","type":"proc","source":"proc"}},
           {{"destination":"/layers","type":"overlay","source":"overlay","options":["ro","nosuid","lowerdir={lower}"]}}"#
    )));
    let before = std::env::current_dir().unwrap();
    let prepared = prepare(&plan).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(std::env::current_dir().unwrap(), before);
    assert!(root.join("layers/file7").exists());
    prepared.enter(&plan).unwrap();
    assert!(mount_info("/layers").unwrap().contains(" ro,nosuid,"));
}

/// What `wanted` says of the line of `/` in the mount table of a container with that rootfsPropagation.
fn root_propagates(scratch: &Scratch, name: &str, wanted: impl Fn(&str) -> bool + RefUnwindSafe) {
    let options =
        CloneOptions { namespaces: namespace::NEW_MOUNT, into_cgroup: None, parent: CloneParent::Caller };
    match process::clone3(&options).unwrap() {
        Cloned::Parent(child) => {
            assert_eq!(process::wait(&child.pidfd).unwrap(), ExitStatus::Exited(0), "{name}");
        }
        Cloned::Child => {
            let result = std::panic::catch_unwind(|| {
                let json = format!(
                    r#"{{"root":{{"path":"rootfs"}},
                        "mounts":[{{"destination":"/proc","type":"proc","source":"proc"}},
                                  {{"destination":"/x","type":"tmpfs","source":"tmpfs"}}],
                        "linux":{{"namespaces":[{{"type":"mount"}}],"rootfsPropagation":"{name}"}}}}"#
                );
                let plan = scratch.plan(&json);
                enter(&plan);
                let line = mount_info("/").unwrap();
                assert!(wanted(&line), "{name}: {line}");
            });
            process::exit_now(i32::from(result.is_err()));
        }
    }
}

fn propagation_of_the_root(scratch: &Scratch) {
    for (name, fields) in [
        ("shared", " shared:"),
        ("rshared", " shared:"),
        ("unbindable", " unbindable"),
        ("private", " "),
        ("slave", " "),
    ] {
        root_propagates(scratch, name, |line| line.contains(fields));
    }
    // A shared host gives a slave when asked for one, and nothing of ours spreads to it.
    mount::set_propagation_of_path(Path::new("/"), Extent::Tree, mount::Propagation::Shared).unwrap();
    let lines = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = lines();
    for (name, fields) in [("slave", " master:"), ("rslave", " master:"), ("", " / rw,")] {
        root_propagates(scratch, name, |line| {
            line.contains(fields) && !line.contains("shared:") && line.contains("master:") != name.is_empty()
        });
        assert_eq!(lines(), before, "{name}");
    }
}

fn without_pivot_the_hosts_procfs_is_covered(scratch: &Scratch) {
    let plan = scratch.plan_with(&default_spec("", ""), RootEntry::MoveMount);
    let entered = enter(&plan);
    rootfs::finalize(&plan, entered).unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(table.lines().filter(|line| line.contains(" - proc ")).count(), 1, "{table}");
    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
}

fn without_a_mount_namespace(scratch: &Scratch) {
    // 1.5.3 of runc: the host's propagation is not the container's to change. (The scenario's own namespace is the host
    // here.)
    mount::set_propagation_of_path(Path::new("/"), Extent::Tree, mount::Propagation::Shared).unwrap();
    let host = mount_info("/").unwrap();
    let plan = scratch.plan(
        r#"{"root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],"linux":{}}"#,
    );
    assert_eq!(plan.entry, RootEntry::Chroot);
    enter(&plan);
    let own = mount_info("/").unwrap();
    assert!(!own.contains("shared:"), "{own}");
    let host_fields: Vec<_> = host.split(' ').take(7).collect();
    assert!(host_fields[6].starts_with("shared:"), "{host}");
}

fn a_cgroup_view_as_of_a_new_mount(scratch: &Scratch) {
    // Joins no cgroup: the namespace's root is the cgroup that the test runs in.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let Some(line) = own.lines().find(|line| line.split(':').nth(1) == Some("pids")) else {
        println!("rootfs: a_cgroup_view_as_of_a_new_mount: skipped: no v1 pids hierarchy");
        return;
    };
    let below = line.split(':').nth(2).unwrap().trim_start_matches('/');
    let dir = Path::new("/sys/fs/cgroup/pids").join(below);
    let view = CgroupView::Legacy(vec![
        CgroupHierarchy { name: String::from("pids"), own: dir.clone() },
        CgroupHierarchy { name: String::from("also,pids2"), own: dir },
    ]);
    namespace::unshare(namespace::NEW_CGROUP).unwrap();
    let json = format!(
        r#"{{"root":{{"path":"rootfs"}},"mounts":[{DEFAULT_MOUNTS},
            {{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]}},
            {{"destination":"/new","type":"cgroup1","source":"cgroup","options":["nosuid","nodev","noexec","pids"]}}],
            "linux":{{"namespaces":[{{"type":"mount"}},{{"type":"cgroup"}}]}}}}"#
    );
    // The new mount is made by hand, as runc would: the file system's name for v1 is "cgroup".
    let mut plan = scratch.plan(&json);
    plan.mounts.last_mut().unwrap().kind = ketch::plan::rootfs::MountKind::Filesystem(String::from("cgroup"));
    let prepared = prepare_with(
        &plan,
        &mut PrepareContext { request_source: Some(&mut no_source), cgroups: &view, pid_namespace: None },
    )
    .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let entered = prepared.enter(&plan).unwrap();
    rootfs::finalize(&plan, entered).unwrap();
    let fields = |place: &str| {
        let line = mount_info(place).unwrap();
        let fields: Vec<_> = line.split(' ').map(str::to_owned).collect();
        // Device number, root and what follows the separator but for the source.
        let tail = line.split(" - ").nth(1).unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>();
        (fields[2].clone(), fields[3].clone(), tail[0].clone(), tail[2].clone())
    };
    assert_eq!(fields("/sys/fs/cgroup/pids"), fields("/new"));
    assert_eq!(fields("/new").1, "/");
    assert!(mount_info("/sys/fs/cgroup/pids").unwrap().contains(" ro,nosuid,nodev,noexec"));
    assert!(mount_info("/sys/fs/cgroup").unwrap().contains(" ro,nosuid,nodev,noexec"));
    assert_eq!(fs::read_link("/sys/fs/cgroup/pids2").unwrap(), Path::new("also,pids2"));
    let names = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("/sys/fs/cgroup/pids"), names("/new"));
}

fn a_unified_cgroup_view_as_of_a_new_mount(scratch: &Scratch) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let Some(line) = table.lines().find(|line| line.contains(" - cgroup2 ")) else {
        println!("rootfs: a_unified_cgroup_view_as_of_a_new_mount: skipped: no cgroup2 is mounted");
        return;
    };
    let mountpoint = PathBuf::from(line.split(' ').nth(4).unwrap());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let below = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    let view = CgroupView::Unified { own: mountpoint.join(below), mountpoint, access: CgroupAccess::Full };
    namespace::unshare(namespace::NEW_CGROUP).unwrap();
    let json = format!(
        r#"{{"root":{{"path":"rootfs"}},"mounts":[{DEFAULT_MOUNTS},
            {{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]}},
            {{"destination":"/new","type":"cgroup2","source":"cgroup","options":["nosuid","nodev","noexec","relatime","ro"]}}],
            "linux":{{"namespaces":[{{"type":"mount"}},{{"type":"cgroup"}}]}}}}"#
    );
    let plan = scratch.plan(&json);
    let mut context =
        PrepareContext { request_source: Some(&mut no_source), cgroups: &view, pid_namespace: None };
    let prepared = prepare_with(&plan, &mut context).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let entered = prepared.enter(&plan).unwrap();
    rootfs::finalize(&plan, entered).unwrap();
    let fields = |place: &str| {
        let line = mount_info(place).unwrap();
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let mount: Vec<_> = mount.split(' ').map(str::to_owned).collect();
        let file_system: Vec<_> = file_system.split(' ').map(str::to_owned).collect();
        // All but the ids, the place and the source.
        (mount[2].clone(), mount[3].clone(), mount[5].clone(), file_system[0].clone(), file_system[2].clone())
    };
    assert_eq!(fields("/sys/fs/cgroup"), fields("/new"));
    assert_eq!(fields("/new").1, "/");
    assert_eq!(fs::metadata("/sys/fs/cgroup").unwrap().ino(), fs::metadata("/new").unwrap().ino());
}

fn mapped_owners(scratch: &Scratch) {
    let source = scratch.0.join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let json = spec(
        r#"{"destination":"/mapped","source":"src","options":["rbind","ridmap"],
            "uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],
            "gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]},
           {"destination":"/too","source":"src","options":["bind"],
            "uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],
            "gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]}"#,
    );
    let plan = scratch.plan(&json);
    // The scenario is parent and child in one: it asks itself.
    let mut opener = rootfs::source::SourceOpener::new().unwrap();
    let me = process::pidfd_open(process::own_pid()).unwrap();
    let steps = plan.mounts.clone();
    let mut request = |index: usize| opener.open(&steps[index], me.as_fd()).map_err(|error| chain(&error));
    let cgroups = CgroupView::Legacy(Vec::new());
    let prepared = prepare_with(
        &plan,
        &mut PrepareContext { request_source: Some(&mut request), cgroups: &cgroups, pid_namespace: None },
    );
    match prepared {
        Err(error) if chain(&error).contains("maybe the filesystem used doesn't support idmap") => {
            println!("rootfs: mapped_owners: skipped: {}", chain(&error));
        }
        Err(error) => panic!("{}", chain(&error)),
        Ok(prepared) => {
            prepared.enter(&plan).unwrap();
            let meta = fs::metadata("/mapped/file").unwrap();
            assert_eq!((meta.uid(), meta.gid()), (100_000, 100_000));
            assert_eq!(fs::metadata("/too/file").unwrap().uid(), 100_000);
        }
    }
}

fn user_namespaces_bind_devices(scratch: &Scratch) {
    let root = scratch.root();
    let hidden = scratch.0.join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("file"), "from the parent").unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    for path in [
        root.clone(),
        root.join("proc"),
        root.join("sys"),
        root.join("dev"),
        root.join("tmp"),
        root.join("etc"),
    ] {
        std::os::unix::fs::chown(&path, Some(100_000), Some(100_000)).unwrap();
    }
    // So that the user namespace may walk to the root.
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    let plan = scratch.plan(&format!(
        r#"{{"root":{{"path":"rootfs"}},"mounts":[{DEFAULT_MOUNTS},
            {{"destination":"/etc/file","source":"hidden/file","options":["bind","ro"]}}],
            "linux":{{"namespaces":[{{"type":"mount"}},{{"type":"user"}}],
              "maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],
              "uidMappings":[{{"containerID":0,"hostID":100000,"size":65536}}],
              "gidMappings":[{{"containerID":0,"hostID":100000,"size":65536}}]}}}}"#
    ));
    let mut opener = rootfs::source::SourceOpener::new().unwrap();
    let (ask, answer) = ketch_sys::socket::pair(ketch_sys::socket::SocketKind::SeqPacket).unwrap();
    let options = CloneOptions {
        namespaces: namespace::NEW_USER
            | namespace::NEW_MOUNT
            | namespace::NEW_PID
            | namespace::NEW_IPC
            | namespace::NEW_NET,
        into_cgroup: None,
        parent: CloneParent::Caller,
    };
    let child = match process::clone3(&options).unwrap() {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            drop(answer);
            let result = std::panic::catch_unwind(|| {
                let mut buffer = [0_u8; 64];
                ketch_sys::socket::receive(&ask, &mut buffer).unwrap();
                ketch_sys::credential::set_gid(0).unwrap();
                ketch_sys::credential::set_uid(0).unwrap();
                let mut request = |index: usize| {
                    ketch_sys::socket::send(&ask, index.to_string().as_bytes(), &[]).unwrap();
                    let mut buffer = [0_u8; 256];
                    let (length, mut fds) = ketch_sys::socket::receive(&ask, &mut buffer).unwrap();
                    fds.pop().ok_or_else(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
                };
                let cgroups = CgroupView::Legacy(Vec::new());
                let mut context = PrepareContext {
                    request_source: Some(&mut request),
                    cgroups: &cgroups,
                    pid_namespace: None,
                };
                let prepared =
                    prepare_with(&plan, &mut context).unwrap_or_else(|error| panic!("{}", chain(&error)));
                let entered = prepared.enter(&plan).unwrap();
                rootfs::finalize(&plan, entered).unwrap_or_else(|error| panic!("{}", chain(&error)));
                assert_eq!(fs::read("/etc/file").unwrap(), b"from the parent");
                assert!(mount_info("/etc/file").unwrap().contains(" ro,"));
                assert_eq!(stat::major_and_minor(fs::metadata("/dev/null").unwrap().rdev()), (1, 3));
                assert!(mount_info("/dev/null").is_some());
                fs::write("/dev/null", "x").unwrap();
            });
            process::exit_now(i32::from(result.is_err()));
        }
    };
    drop(ask);
    // The scenario has a pid namespace of its own, and /proc is that of the machine: the child's number is not in it.
    let private = ProcFs::private(Contents::Processes).unwrap();
    for map in ["uid_map", "gid_map"] {
        private.write(Path::new(&format!("{}/{map}", child.pid)), b"0 100000 65536\n").unwrap();
    }
    ketch_sys::socket::send(&answer, b"go", &[]).unwrap();
    let mut asked = 0;
    loop {
        let mut buffer = [0_u8; 64];
        let (length, _) = match ketch_sys::socket::receive(&answer, &mut buffer) {
            Ok(received) if received.0 > 0 => received,
            _ => break,
        };
        asked += 1;
        let index: usize = std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap();
        match opener.open(&plan.mounts[index], child.pidfd.as_fd()) {
            Ok(tree) => ketch_sys::socket::send(&answer, b"ok", &[tree.as_fd()]).unwrap(),
            Err(error) => ketch_sys::socket::send(&answer, chain(&error).as_bytes(), &[]).unwrap(),
        }
    }
    assert_eq!(process::wait(&child.pidfd).unwrap(), ExitStatus::Exited(0));
    assert_eq!(asked, 1);
    assert!(root.join("etc/file").exists(), "the parent is back in its own tree");
}

fn errors_name_the_mount(scratch: &Scratch) {
    let text = |mounts: &str| chain(&prepare(&scratch.plan(&spec(mounts))).unwrap_err());
    assert_eq!(
        text(r#"{"destination":"/x","source":"/no/such","options":["bind","ro"]}"#),
        "error mounting \"/no/such\" to rootfs at \"/x\": mount src=/no/such, dst=/x, flags=MS_RDONLY|MS_BIND: \
         open_tree /no/such: no such file or directory"
    );
    let unknown = text(r#"{"destination":"/x","type":"nofs","source":"nofs"}"#);
    assert!(unknown.ends_with("fsopen nofs: no such device"), "{unknown}");
    let option = text(r#"{"destination":"/x","type":"tmpfs","source":"tmpfs","options":["nonsense=1"]}"#);
    assert!(option.contains("nonsense=1") && option.ends_with("invalid argument"), "{option}");
}

/// By the kernel's option, and by a process that is born there, as before Linux 6.17.
fn another_pid_namespace_is_shown(scratch: &Scratch) {
    let options =
        CloneOptions { namespaces: namespace::NEW_PID, into_cgroup: None, parent: CloneParent::Caller };
    let inside = match process::clone3(&options).unwrap() {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            let _ = process::set_parent_death_signal(ketch_sys::signal::KILL);
            let _ = process::poll_readable(&[], None);
            process::exit_now(0)
        }
    };
    let procfs = ProcFs::private(Contents::Processes).unwrap();
    let namespace = procfs.open_namespace(inside.pid, "pid").unwrap();
    for context in [open_context(namespace.as_fd()), open_inside(namespace.as_fd())] {
        let mounted = create(&context.unwrap(), 0).unwrap();
        let numbers = path::list_dir(&mounted).unwrap();
        let numbers: Vec<i32> = numbers.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        assert_eq!(numbers, [1]);
    }
    // An option that only mount(2) takes, which would mount this process's own, is none.
    let plan = scratch
        .plan(&spec(&format!(r#"{{"destination":"/proc","type":"proc","source":"{}"}}"#, "x".repeat(300))));
    let cgroups = CgroupView::Legacy(Vec::new());
    let pid_namespace = Some(namespace.as_fd());
    let mut context = PrepareContext { request_source: None, cgroups: &cgroups, pid_namespace };
    assert!(chain(&prepare_with(&plan, &mut context).unwrap_err()).contains("proc"));
    process::pidfd_send_signal(&inside.pidfd, ketch_sys::signal::KILL).unwrap();
    process::wait(&inside.pidfd).unwrap();
    assert_eq!(open_inside(namespace.as_fd()).unwrap_err().errno, Errno::ENOMEM);
}

fn no_other_file_system_is_taken_for_its_procfs(_: &Scratch) {
    let context = mount::open_fs("tmpfs").unwrap();
    assert_eq!(create(&context, 0).unwrap_err().errno, Errno::ENOTSUP);
}

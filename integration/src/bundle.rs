//! A bundle in a temporary folder: a busybox rootfs, and a spec that starts from what `runc spec` writes.
//!
//! The spec is plain JSON, so that a test can write what no type would let it. Called by the tests through
//! `Case::bundle`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::case::Case;
use crate::container::Container;
use crate::runtime::{Invocation, Output};
use crate::user::{self, Caller};

const BUSYBOX: &str = "/bin/busybox";

/// A folder with `config.json` and `rootfs`.
#[derive(Debug)]
pub struct Bundle<'a> {
    pub case: &'a Case,
    pub dir: PathBuf,
    pub spec: Value,
    pub id: String,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        let id = case.fresh_id();
        // Its name is the id, as in containerd's folder of bundles: the Go shim's `delete` goes by that.
        let dir = case.folder(&format!("bundles/{id}"));
        make_rootfs(&dir.join("rootfs"));
        let mut spec = default_spec(&format!("/{id}"));
        if case.caller == Caller::User {
            walk(&dir).iter().for_each(|entry| user::own(entry));
            user::rootless(&mut spec);
        }
        Self { case, dir, spec, id }
    }

    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// The command of the container.
    #[must_use]
    pub fn command(mut self, args: &[&str]) -> Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// A shell script as the command of the container.
    #[must_use]
    pub fn script(self, script: &str) -> Self {
        self.command(&["/bin/sh", "-c", script])
    }

    /// A command that ends only when it is killed, and at once by any signal that it can catch.
    #[must_use]
    pub fn sleeper(self) -> Self {
        self.script("trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    }

    /// Sets the value at a JSON pointer; its parent must be there or be an object to grow.
    ///
    /// # Panics
    /// When the pointer leads through something that is no object.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.spec;
        for key in pointer.trim_start_matches('/').split('/') {
            at = match at {
                Value::Array(list) => &mut list[key.parse::<usize>().expect("an index into a list")],
                other => &mut other[key],
            };
        }
        *at = value;
        self
    }

    /// Changes the spec in place.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().expect("mounts is a list").push(mount);
        self
    }

    /// Adds a variable to the container's environment.
    #[must_use]
    pub fn env(mut self, assignment: &str) -> Self {
        self.spec["process"]["env"].as_array_mut().expect("env is a list").push(json!(assignment));
        self
    }

    /// Asks for a new namespace, or for the one at `path`.
    #[must_use]
    pub fn namespace(mut self, kind: &str, path: Option<&str>) -> Self {
        self = self.without_namespace(kind);
        let mut entry = json!({ "type": kind });
        if let Some(path) = path {
            entry["path"] = json!(path);
        }
        self.spec["linux"]["namespaces"].as_array_mut().expect("namespaces is a list").push(entry);
        self
    }

    /// Leaves the container in the caller's namespace of that kind.
    #[must_use]
    pub fn without_namespace(mut self, kind: &str) -> Self {
        let list = self.spec["linux"]["namespaces"].as_array_mut().expect("namespaces is a list");
        list.retain(|entry| entry["type"] != kind);
        self
    }

    /// A user namespace whose root is host id `first`, 65,536 ids long; the rootfs is given to it.
    ///
    /// # Panics
    /// When the rootfs cannot be given away.
    #[must_use]
    pub fn user_namespace(self, first: u32) -> Self {
        self.case.root_only("maps ids that are not the user's");
        for entry in walk(&self.rootfs()) {
            std::os::unix::fs::lchown(&entry, Some(first), Some(first)).expect("chown the rootfs");
        }
        let mapping = json!([{ "containerID": 0, "hostID": first, "size": 65_536 }]);
        self.namespace("user", None)
            .set("/linux/uidMappings", mapping.clone())
            .set("/linux/gidMappings", mapping)
    }

    /// Ids beside root's: a user's container gets those that are subordinate to the user.
    #[must_use]
    pub fn several_ids(self) -> Self {
        if self.case.caller == Caller::Root {
            return self;
        }
        let map = |own, first| {
            json!([{ "containerID": 0, "hostID": own, "size": 1 },
                   { "containerID": 1, "hostID": first, "size": user::COUNT }])
        };
        self.set("/linux/uidMappings", map(user::ID, user::FIRST_UID))
            .set("/linux/gidMappings", map(user::ID, user::FIRST_GID))
    }

    /// Gives the process exactly these capabilities in every set but the ambient one.
    #[must_use]
    pub fn capabilities(self, names: &[&str]) -> Self {
        self.set(
            "/process/capabilities",
            json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [] }),
        )
    }

    /// Writes `config.json`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> &Path {
        let text = serde_json::to_vec_pretty(&self.spec).expect("a JSON value");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
        &self.dir
    }

    /// The not yet started `run`, without the id.
    #[must_use]
    pub fn run_command(&self) -> Invocation {
        self.write();
        self.case.ketch().arg("run").arg("--bundle").arg(&self.dir)
    }

    /// The not yet started `create`, without the id.
    #[must_use]
    pub fn create_command(&self) -> Invocation {
        self.write();
        self.case.ketch().arg("create").arg("--bundle").arg(&self.dir)
    }

    /// `run` in the foreground.
    #[must_use]
    pub fn run(&self) -> Output {
        let out = self.run_command().arg(&self.id).run();
        // A run that failed half-way must have cleaned up by itself; the leak check looks.
        drop(Container::adopt(self.case, &self.id));
        out
    }

    /// `run` in the foreground, expected to succeed; gives what the container wrote, trimmed.
    ///
    /// # Panics
    /// When it did not succeed.
    #[track_caller]
    #[must_use]
    pub fn prints(&self) -> String {
        self.run().ok().text().to_owned()
    }

    /// `create`, expected to succeed.
    ///
    /// # Panics
    /// When it did not succeed.
    #[track_caller]
    #[must_use]
    pub fn create(&self) -> Container<'a> {
        let output = self.create_command().arg(&self.id).run().ok();
        Container::created(self.case, &self.id, output)
    }

    /// `create` and `start`, expected to succeed.
    ///
    /// # Panics
    /// When one did not succeed.
    #[track_caller]
    #[must_use]
    pub fn start(&self) -> Container<'a> {
        let container = self.create();
        let _ = container.start().ok();
        container
    }

    /// The container's cgroup folder for `controller`.
    #[must_use]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        // Without a path the folder would have the container's name.
        let path = self.spec["linux"]["cgroupsPath"].as_str().unwrap_or(&self.id);
        self.case.layout.cgroup_dir(controller, path)
    }
}

/// The folder and everything in it, without following links.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if all[next].symlink_metadata().is_ok_and(|m| m.is_dir()) {
            all.extend(fs::read_dir(&all[next]).expect("read a folder").flatten().map(|entry| entry.path()));
        }
        next += 1;
    }
    all
}

/// Debian's static busybox with a link for each applet, and the folders that a spec mounts on.
fn make_rootfs(rootfs: &Path) {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    let applets = APPLETS.get_or_init(|| {
        let list = Command::new(BUSYBOX).arg("--list").output().expect("busybox-static is installed").stdout;
        String::from_utf8_lossy(&list).lines().map(str::to_owned).collect()
    });
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "run", "mnt"] {
        fs::create_dir_all(rootfs.join(folder)).expect("make the rootfs");
    }
    // By a process of its own: a descriptor of ours, open for writing, would be inherited by whatever another test starts
    // meanwhile, and busybox be busy ("text file busy") until that has executed its program.
    let copied = Command::new("cp").arg(BUSYBOX).arg(rootfs.join("bin/busybox")).status();
    assert!(copied.is_ok_and(|status| status.success()), "copy busybox");
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/tmp:/bin/sh\n")
        .expect("write passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nwww:x:33:\n").expect("write group");
}

/// As `runc spec` writes it, but without a terminal, with a writable root and a cgroup path.
fn default_spec(cgroup: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": []
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "ketch",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

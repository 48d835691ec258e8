//! Cgroups that are delegated to the user: what systemd does for a user's session, by hand.
//!
//! Called by the `rootless` tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::Case;
use crate::runtime::Invocation;
use crate::user;

/// A cgroup of the user's in every hierarchy; it goes at the end of the test.
#[derive(Debug)]
pub struct Delegation {
    folders: Vec<PathBuf>,
    /// The path of the cgroup in each of them.
    pub path: String,
}

impl Delegation {
    /// Makes the cgroups.
    ///
    /// # Panics
    /// When one cannot be made.
    #[must_use]
    pub fn new(case: &Case) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies: Vec<PathBuf> = if case.layout.is_v2() {
            vec![root.to_owned()]
        } else {
            let all = fs::read_dir(root).expect("read /sys/fs/cgroup").flatten().map(|entry| entry.path());
            all.filter(|folder| folder.join("tasks").exists()).collect()
        };
        let folders = hierarchies.iter().map(|hierarchy| hierarchy.join(&case.tag)).collect();
        let delegation = Self { folders, path: format!("/{}", case.tag) };
        for (folder, hierarchy) in delegation.folders.iter().zip(&hierarchies) {
            fs::create_dir(folder).expect("make a cgroup");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read(hierarchy.join(file))
                    && hierarchy.ends_with("cpuset")
                {
                    fs::write(folder.join(file), value).expect("set the cpuset");
                }
            }
            for file in [
                "",
                "tasks",
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
                "cpuset.cpus",
                "cpuset.mems",
            ] {
                let path = folder.join(file);
                if path.exists() {
                    user::own(&path);
                }
            }
            if case.layout.is_v2() {
                fs::create_dir(folder.join("runtime")).expect("make the runtime's own cgroup");
                user::own(&folder.join("runtime"));
                user::own(&folder.join("runtime/cgroup.procs"));
            }
        }
        delegation
    }

    /// The command, started in the user's cgroup (on v2 one below it, as a cgroup with others below has no processes).
    #[must_use]
    pub fn inside(&self, command: Invocation) -> Invocation {
        let enter = |folder: &PathBuf| {
            let below = folder.join("runtime");
            let folder = if below.exists() { below } else { folder.clone() };
            format!("echo $$ >{}/cgroup.procs; ", folder.display())
        };
        let script: String = self.folders.iter().map(enter).chain(["exec \"$@\"".to_owned()]).collect();
        command.through_shell(&script)
    }

    /// Takes them away from the user, with that of a container in them that has ended.
    pub fn take_back(self, id: &str) {
        for folder in &self.folders {
            let _ = fs::remove_dir(folder.join(id));
        }
    }

    /// The container's cgroup in the hierarchy of `controller`.
    #[must_use]
    pub fn container(&self, case: &Case, controller: &str, id: &str) -> PathBuf {
        case.layout.cgroup_dir(controller, &self.path).join(id)
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        // A process that has just ended may hold them for a moment; what stays is a leak, for the check to find.
        for _ in 0..500 {
            for folder in &self.folders {
                let _ = fs::remove_dir(folder.join("runtime"));
                let _ = fs::remove_dir(folder);
            }
            if !self.folders.iter().any(|folder| folder.exists()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

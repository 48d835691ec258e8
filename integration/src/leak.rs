//! What a case must not leave behind: mounts, cgroups, processes and state folders that bear its tag.
//!
//! The tag is in the case's folder, its container ids and its cgroup names, and in an environment variable of every
//! runtime process, so that the check finds what belongs to the case and nothing else on a shared machine.
//! `suite` calls it after each case; `sweep` then takes away what was found, so that the next case starts clean.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// Marks every process of the runtime under test; a container's own process has its own environment.
pub const TAG_VARIABLE: &str = "KETCH_INTEGRATION_TAG";

/// What was found.
#[derive(Debug, Default)]
pub struct Leaks {
    pub mounts: Vec<String>,
    pub cgroups: Vec<PathBuf>,
    pub processes: Vec<(i32, String)>,
    pub state: Vec<PathBuf>,
}

impl Leaks {
    /// Looks for everything that bears `tag`, and for entries left in `state_root`.
    #[must_use]
    pub fn find(tag: &str, state_root: &Path) -> Self {
        Self {
            mounts: mounts(tag),
            cgroups: cgroups(tag),
            processes: processes(tag),
            state: fs::read_dir(state_root).into_iter().flatten().flatten().map(|e| e.path()).collect(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
            && self.cgroups.is_empty()
            && self.processes.is_empty()
            && self.state.is_empty()
    }

    /// Takes away what was found: kills, removes, unmounts. Everything here bears the tag of one of our own cases.
    pub fn sweep(&self) {
        for (pid, _) in &self.processes {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for point in self.mounts.iter().rev() {
            let _ = unmount(point.as_str(), UnmountFlags::DETACH);
        }
        for cgroup in self.cgroups.iter().rev() {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            // The kernel refuses until the last process is gone; what stays shows up as the next find.
            for _ in 0..100 {
                if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("left behind:")?;
        self.mounts.iter().try_for_each(|m| write!(f, "\n  mount {m}"))?;
        self.cgroups.iter().try_for_each(|c| write!(f, "\n  cgroup {}", c.display()))?;
        self.processes.iter().try_for_each(|(pid, why)| write!(f, "\n  process {pid} {why}"))?;
        self.state.iter().try_for_each(|s| write!(f, "\n  state {}", s.display()))
    }
}

fn mounts(tag: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(tag))
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

/// Parents before their children.
fn cgroups(tag: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, tag: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().contains(tag) {
                    found.push(path.clone());
                }
                if depth > 0 {
                    walk(&path, tag, depth - 1, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), tag, 5, &mut found);
    found
}

fn processes(tag: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let proc = entry.path();
        if let Some(why) = belongs(&proc, tag)
            && !is_gone(&proc)
        {
            let command = fs::read(proc.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push((pid, format!("{command:?} ({why})")));
        }
    }
    found
}

fn belongs(proc: &Path, tag: &str) -> Option<&'static str> {
    let holds = |file: &str, text: &str| {
        fs::read(proc.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    };
    // The tag ends in a separator so that case 1 does not claim what is case 11's.
    if holds("environ", &format!("{TAG_VARIABLE}={tag}\0")) {
        return Some("environment");
    }
    if holds("cgroup", tag) {
        return Some("cgroup");
    }
    ["root", "cwd"]
        .into_iter()
        .find(|link| fs::read_link(proc.join(link)).is_ok_and(|to| to.to_string_lossy().contains(tag)))
}

fn is_gone(proc: &Path) -> bool {
    match fs::read_to_string(proc.join("stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

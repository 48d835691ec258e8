//! The process above the one that measures: when that has ended, however it did, everything of it is ended and taken away.
//!
//! What is its, is told by its tag: in the arguments of daemons and shims, in the names of cgroups, in folders. Mounts and
//! interfaces go with the namespaces that the processes hold.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open};

/// Has a watcher run the measurement: in a group of its own, what ends this process does not end it.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let this = std::env::current_exe().expect("find this program");
    let status = Command::new(this).arg("watch").args(arguments).process_group(0).status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the measurement, ends it when nobody waits for it any more, and cleans up after it.
pub(crate) fn watch(arguments: &[String]) -> ExitCode {
    let open = |pid| pidfd_open(pid, PidfdFlags::empty()).expect("watch a process");
    let above = open(getppid().expect("a process above"));
    let this = std::env::current_exe().expect("find this program");
    let mut child = Command::new(this).arg("inside").args(arguments).spawn().expect("start the measurement");
    let tag = format!("kit{}n", child.id());
    let measuring = open(Pid::from_child(&child));
    let mut events = [&above, &measuring].map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
    while matches!(poll(&mut events, None), Err(Errno::INTR)) {}
    if !events[0].revents().is_empty() {
        let _gone = child.kill();
    }
    let status = child.wait();
    let left = clean(&tag);
    if !left.is_empty() {
        eprintln!("left behind: {}", left.join(", "));
    }
    match status {
        Ok(status) if status.success() && left.is_empty() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Gives what could not be taken away.
fn clean(tag: &str) -> Vec<String> {
    let mut left = Vec::new();
    // What is killed may have started something meanwhile.
    for _ in 0..500 {
        let groups = cgroups(tag);
        let mut pids = daemons(tag);
        groups.iter().for_each(|group| pids.extend(members(group)));
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _gone = kill_process(pid, Signal::KILL);
        }
        groups.iter().for_each(|group| remove(group));
        left = pids.iter().map(|pid| format!("process {pid}")).collect();
        left.extend(cgroups(tag).iter().map(|group| group.display().to_string()));
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let folders = children(Path::new("/tmp/ketch-integration"));
    for folder in folders.into_iter().filter(|path| is_named(path, tag)) {
        if let Err(error) = fs::remove_dir_all(&folder) {
            left.push(format!("{}: {error}", folder.display()));
        }
    }
    left
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_named(path: &Path, tag: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(tag))
}

/// On v1 each hierarchy has its own; on v2 there is one tree.
fn cgroups(tag: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let trees = std::iter::once(root.to_owned()).chain(children(root));
    trees.flat_map(|tree| children(&tree)).filter(|path| path.is_dir() && is_named(path, tag)).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(group).iter().filter(|path| path.is_dir()) {
        pids.extend(members(child));
    }
    pids
}

fn remove(group: &Path) {
    children(group).iter().filter(|path| path.is_dir()).for_each(|child| remove(child));
    let _busy = fs::remove_dir(group);
}

/// Processes that have the tag among their arguments, as everything has that is started with a folder of the run.
fn daemons(tag: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    children(Path::new("/proc"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy() != own))
        .filter(|path| {
            let bytes = fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(&format!("/{tag}"))
        })
        .filter_map(|path| path.file_name()?.to_string_lossy().parse().ok())
        .collect()
}

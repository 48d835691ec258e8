//! The processes of a restored container, as criu has made them and before they run: found, looked at, and ended where they
//! have more rights than config.json gives.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ketch_sys::Errno;

use super::error::CriuError;
use super::mounts::Judge;
use crate::cgroup::{self, Cgroup};
use crate::plan::criu::bounds::{self, Bounds, KINDS, Links};
use crate::spec::NamespaceType;

/// The namespaces of the process or thread with this folder in procfs.
pub(super) fn links(folder: &Path) -> Result<Links, CriuError> {
    let link = |kind: NamespaceType| {
        let path = folder.join("ns").join(kind.proc_name());
        let link = fs::read_link(&path).map_err(CriuError::file("reading", path))?;
        Ok((kind, link.display().to_string()))
    };
    KINDS.into_iter().map(link).collect()
}

/// Judges every thread of the container with this first process; `others` are in its cgroup, but not its own.
///
/// # Errors
/// The first that has too much. All are killed then, as criu would let them run whatever it is told, and criu behind them:
/// it would wait for them for ever.
pub(super) fn judge(
    (first, criu): (i32, i32),
    (cgroup, others): (&Cgroup, &BTreeSet<i32>),
    (bounds, mounts): (&Bounds, &Judge),
) -> Result<(), CriuError> {
    let mut pids = BTreeSet::new();
    let judged = find(first, (cgroup, others), &mut pids).and_then(|()| {
        let own = links(&folder(first))?;
        let map = |name: &str| read(&folder(first).join(name)).map(Option::unwrap_or_default);
        let about = |excess| CriuError::Excess { pid: first, excess };
        bounds.judge_maps([&map("uid_map")?, &map("gid_map")?]).map_err(about)?;
        pids.iter().try_for_each(|pid| judge_process(*pid, (first, &own), (bounds, mounts)))
    });
    if judged.is_err() {
        for pid in std::iter::once(first).chain(pids).chain([criu]) {
            let _gone_before = cgroup::kill(pid);
        }
    }
    judged
}

/// The first process, what descends from it, and what is in the cgroup. All are stopped: none escapes from the lists. The
/// images name cgroups as well, so that the container's own alone may not have them all.
fn find(
    first: i32,
    (cgroup, others): (&Cgroup, &BTreeSet<i32>),
    pids: &mut BTreeSet<i32>,
) -> Result<(), CriuError> {
    let mut open = vec![first];
    // Without a cgroup a user's container has its descendants alone.
    open.extend(cgroup.pids().unwrap_or_default().iter().filter(|pid| !others.contains(*pid)));
    while let Some(pid) = open.pop() {
        if !pids.insert(pid) {
            continue;
        }
        for thread in threads(pid)? {
            let children = read(&thread.join("children"))?.unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    Ok(())
}

fn judge_process(
    pid: i32,
    (first, own): (i32, &Links),
    (bounds, mounts): (&Bounds, &Judge),
) -> Result<(), CriuError> {
    for thread in threads(pid)? {
        let Some(status) = alive(&thread)? else { continue };
        let found = match links(&thread) {
            Err(_) if alive(&thread)?.is_none() => continue,
            other => other?,
        };
        bounds
            .judge_namespaces(&found, pid == first)
            .and_then(|()| bounds.judge_status(&status))
            .map_err(|excess| CriuError::Excess { pid, excess })?;
        let kind = NamespaceType::Mount;
        if found.get(&kind) != own.get(&kind) {
            mounts.judge_inner(&thread)?;
        }
    }
    Ok(())
}

fn folder(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The folders of a process's threads; none when it is gone.
fn threads(pid: i32) -> Result<Vec<PathBuf>, CriuError> {
    let path = folder(pid).join("task");
    let listed = fs::read_dir(&path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>());
    match listed {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        other => other.map_err(CriuError::file("listing", path)),
    }
}

/// The status of a thread that has not ended.
fn alive(thread: &Path) -> Result<Option<String>, CriuError> {
    Ok(read(&thread.join("status"))?.filter(|status| !bounds::is_dead(status)))
}

/// The text of a file of procfs; none when its process is gone.
fn read(path: &Path) -> Result<Option<String>, CriuError> {
    match fs::read(path) {
        // A process may call itself anything.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(CriuError::file("reading", path)(error)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error().map(Errno::from_raw) == Some(Errno::ESRCH)
}

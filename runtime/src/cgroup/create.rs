//! Making a container's directories: parents first, controllers enabled on the way (v2), cpus and memory nodes taken
//! over from the parent (v1).

use std::path::{Path, PathBuf};

use ketch_sys::{Errno, cgroupfs};

use super::{Cgroup, CgroupError, FreezerState, Group};
use crate::plan::cgroup::{CgroupMode, CgroupPlan, GroupPlan, Inherit, Join, PathOrigin, Privilege};

/// What a v1 cpuset must have before a process can join it.
const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Whether a directory was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Made,
    Existing,
}

/// The directories made so far, which are taken back if a later step fails.
#[derive(Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    fn undo(self) {
        for path in self.0.iter().rev() {
            // The error that led here counts; what can't be removed was joined by others meanwhile.
            let _ = cgroupfs::remove_dir(path);
        }
    }
}

impl Cgroup {
    /// Makes the directories of a plan, ready to be joined; limits come later, by [`Cgroup::set`]. Directories that
    /// exist are taken, unless there are processes in them or they are frozen. On failure everything made is removed.
    pub fn create(plan: &CgroupPlan) -> Result<Cgroup, CgroupError> {
        let mut made = Made::default();
        let result = Self::create_all(plan, &mut made);
        if result.is_err() {
            made.undo();
        }
        result
    }

    fn create_all(plan: &CgroupPlan, made: &mut Made) -> Result<Cgroup, CgroupError> {
        let mut cgroup =
            Cgroup { mode: plan.mode, groups: Vec::with_capacity(plan.groups.len()), unit: None };
        let mut existing: Vec<usize> = Vec::new();
        for group_plan in &plan.groups {
            let group = Group::new(group_plan.controllers.clone(), &group_plan.path, group_plan.join);
            let created = create_group(plan, group_plan, &group, made);
            match created.and_then(|found| may_be_joined(plan, &group).map(|()| found)) {
                Ok(Found::Made) => {}
                Ok(Found::Existing) => existing.push(cgroup.groups.len()),
                Err(_) if group_plan.join == Join::IfPossible => continue,
                Err(error) if is_expected(plan, &error) => {
                    if plan.mode == CgroupMode::Unified && plan.limits.need_controllers() {
                        return Err(CgroupError::RootlessLimits { source: Box::new(error) });
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            cgroup.groups.push(group);
        }
        cgroup.refuse_used(&existing)?;
        Ok(cgroup)
    }

    /// Refuses directories that were there before and are in use. As in runc, on v1 one hierarchy stands for all.
    fn refuse_used(&self, existing: &[usize]) -> Result<(), CgroupError> {
        let is_existing = |controller: &str| {
            existing
                .iter()
                .any(|&index| self.mode == CgroupMode::Unified || self.groups[index].has(controller))
        };
        if is_existing("devices") {
            match self.pids() {
                Ok(pids) if pids.is_empty() => {}
                Ok(pids) => return Err(CgroupError::NotEmpty { count: pids.len() }),
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
        }
        if is_existing("freezer") && self.freezer_state()? == FreezerState::Frozen {
            return Err(CgroupError::Frozen);
        }
        Ok(())
    }
}

/// Refuses the directories of a plan that are there and in use, without making any.
pub(super) fn refuse_used_before(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let mut cgroup = Cgroup { mode: plan.mode, groups: Vec::new(), unit: None };
    for group in &plan.groups {
        if cgroupfs::open_dir(Path::new(&group.path)).is_ok() {
            cgroup.groups.push(Group::new(group.controllers.clone(), &group.path, group.join));
        }
    }
    cgroup.refuse_used(&(0..cgroup.groups.len()).collect::<Vec<_>>())
}

/// A rootless container goes without the cgroups that it may not have, if it asked for none.
fn is_expected(plan: &CgroupPlan, error: &CgroupError) -> bool {
    plan.privilege == Privilege::Rootless && plan.path == PathOrigin::Default && error.is_refusal()
}

/// A v1 directory that is somebody else's can be there and take no process of a rootless container.
fn may_be_joined(plan: &CgroupPlan, group: &Group) -> Result<(), CgroupError> {
    if plan.privilege == Privilege::Root || group.has("") {
        return Ok(());
    }
    let tasks = group.path.join("tasks");
    match cgroupfs::open_file_to_write(&tasks) {
        Ok(_) => Ok(()),
        Err(source) => Err(CgroupError::Join { path: tasks, source }),
    }
}

pub(super) fn create_group(
    plan: &CgroupPlan,
    group_plan: &GroupPlan,
    group: &Group,
    made: &mut Made,
) -> Result<Found, CgroupError> {
    let root = Path::new(&group_plan.mountpoint);
    let found = make(&group.path, root, made)?;
    if plan.mode == CgroupMode::Unified {
        enter_domain(plan, group, root)?;
    }
    let parent = group.path.parent().filter(|_| group_plan.inherit == Inherit::Cpuset && group.path != root);
    // The parent needs its own even where the container asks for something else: what it may ask for is part of them.
    let inherited = match parent {
        Some(parent) => {
            CPUSET_FILES.map(|file| inherit(parent, root, file)).into_iter().collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    for write in &group_plan.before_join {
        group.apply(write, &mut Default::default())?;
    }
    for (file, value) in CPUSET_FILES.into_iter().zip(inherited) {
        let asked = group_plan.before_join.iter().any(|write| write.file == file);
        // A new directory has nothing yet; one that exists keeps what it has.
        if !asked && (found == Found::Made || group.read(file)?.trim().is_empty()) {
            group.write(file, value.trim())?;
        }
    }
    Ok(found)
}

fn make(path: &Path, root: &Path, made: &mut Made) -> Result<Found, CgroupError> {
    match cgroupfs::make_dir(path) {
        Ok(()) => {
            made.0.push(path.to_owned());
            Ok(Found::Made)
        }
        Err(error) if error.errno == Errno::EEXIST => Ok(Found::Existing),
        Err(error) => {
            match path.parent().filter(|parent| error.errno == Errno::ENOENT && parent.starts_with(root)) {
                Some(parent) if parent != root => {
                    make(parent, root, made)?;
                    make(path, parent, made)
                }
                // A read-only mount answers EROFS even for what exists.
                _ if error.errno == Errno::EROFS && cgroupfs::open_dir(path).is_ok() => Ok(Found::Existing),
                _ => Err(CgroupError::Make { path: path.to_owned(), source: error }),
            }
        }
    }
}

/// v1 cpuset: gives a directory that has no cpus or memory nodes those of its parent, which is given its own first if
/// need be. Returns what the directory has then.
fn inherit(path: &Path, root: &Path, file: &str) -> Result<String, CgroupError> {
    let group = Group::new(Vec::new(), path, Join::Required);
    let value = group.read(file)?;
    match path.parent() {
        Some(parent) if value.trim().is_empty() && path != root => {
            let value = inherit(parent, root, file)?;
            group.write(file, value.trim())?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// v2: makes every controller of the mount available in the new directory, and refuses a directory that limits could
/// not work in.
pub(super) fn enter_domain(plan: &CgroupPlan, group: &Group, root: &Path) -> Result<(), CgroupError> {
    let top = Group::new(Vec::new(), root, Join::Required);
    let controllers = |group: &Group| group.read("cgroup.controllers");
    let wanted = controllers(&top)?;
    // A directory's controllers are what its parent enabled for it, so one look at the end shows all levels.
    if group.path != root && controllers(group)? != wanted {
        enable(root, &group.path);
    }
    // The root itself has no type.
    let kind = group.read_if_present("cgroup.type")?.unwrap_or_default();
    match kind.trim() {
        "domain invalid" | "domain threaded" | "threaded" if plan.limits.need_domain() => {
            Err(CgroupError::Threaded { path: group.path.clone(), state: kind.trim().to_owned() })
        }
        // There are processes above. Thread-aware controllers work all the same.
        "domain invalid" => group.write("cgroup.type", "threaded").or(Ok(())),
        _ => Ok(()),
    }
}

/// Enables on each level above `path` what that level has. What can't be enabled shows when a limit needs it.
fn enable(root: &Path, path: &Path) {
    let mut levels: Vec<&Path> =
        path.ancestors().skip(1).take_while(|level| level.starts_with(root)).collect();
    levels.reverse();
    for level in levels {
        let group = Group::new(Vec::new(), level, Join::Required);
        let read = |file| group.read(file).unwrap_or_default();
        let enabled = read("cgroup.subtree_control");
        let missing: Vec<String> = read("cgroup.controllers")
            .split_whitespace()
            .filter(|controller| !enabled.split_whitespace().any(|other| other == *controller))
            .map(|controller| format!("+{controller}"))
            .collect();
        if missing.is_empty() || group.write("cgroup.subtree_control", &missing.join(" ")).is_ok() {
            continue;
        }
        for controller in missing {
            let _ = group.write("cgroup.subtree_control", &controller);
        }
    }
}

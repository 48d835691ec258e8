//! Intel RDT: makes, joins, limits, reads and removes a container's groups in resctrl.
//!
//! The executor of [`crate::plan::resctrl`]. Works by descriptors of directories that are checked to be resctrl's.
//! Called by `container`; a configuration without `linux.intelRdt` costs nothing here.

pub mod stats;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::{Errno, SyscallError, cgroupfs, path, resctrl};
use thiserror::Error;

use crate::plan::resctrl::{GroupOrigin, ResctrlPlan};

/// A step in resctrl failed.
#[derive(Debug, Error)]
pub enum ResctrlError {
    /// Not a group, or none.
    #[error("cannot open resctrl group {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A class of service that nobody has made.
    #[error(
        "clos dir {} not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)",
        path.display()
    )]
    NoClass {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A group could not be made; the machine has a small number of classes.
    #[error("cannot make resctrl group {}{status}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What resctrl says.
        status: LastStatus,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A file was not written.
    #[error("failed to write {value:?} to {}{status}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: Box<str>,
        /// What resctrl says.
        status: LastStatus,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A file was not read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A file holds something else than a number.
    #[error("unable to parse {content:?} of {} as a number", path.display())]
    NoNumber {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
    /// A group could not be removed.
    #[error("cannot remove resctrl group {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: SyscallError,
    },
}

/// resctrl's own words on its last refusal (`info/last_cmd_status`), which an error number can't tell.
#[derive(Debug, Default)]
pub struct LastStatus(Box<str>);

impl std::fmt::Display for LastStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (last_cmd_status: {})", self.0) }
    }
}

impl LastStatus {
    fn of(root: BorrowedFd<'_>) -> Self {
        let status = cgroupfs::read_value(root, "info/last_cmd_status").unwrap_or_default();
        Self(status.trim_end().into())
    }
}

/// The groups of one container.
#[derive(Debug)]
pub struct Group {
    root: OwnedFd,
    mountpoint: PathBuf,
    dir: OwnedFd,
    path: PathBuf,
    monitor: Option<(OwnedFd, PathBuf)>,
}

impl Group {
    /// Whether the group is there already: then it is not the container's to remove.
    ///
    /// # Errors
    /// resctrl is not where it was seen.
    pub fn is_there(plan: &ResctrlPlan) -> Result<bool, ResctrlError> {
        let root = open(&plan.mountpoint)?;
        let group = cgroupfs::open_sub_dir(&root, Path::new(&plan.group));
        Ok(plan.group.is_empty() || group.is_ok())
    }

    /// Makes what is to be made, and sets its schemata. What a failure leaves is for [`remove`].
    ///
    /// # Errors
    /// The step that failed, with resctrl's own words.
    pub fn make(plan: &ResctrlPlan) -> Result<Self, ResctrlError> {
        Self::make_below(open(&plan.mountpoint)?, plan)
    }

    fn make_below(root: OwnedFd, plan: &ResctrlPlan) -> Result<Self, ResctrlError> {
        let path = plan.path();
        if !plan.group.is_empty() && plan.origin != GroupOrigin::Existing {
            make_dir(root.as_fd(), root.as_fd(), Path::new(&plan.group), &path)?;
        }
        let name = if plan.group.is_empty() { "." } else { plan.group.as_str() };
        let dir = cgroupfs::open_sub_dir(&root, Path::new(name)).map_err(|source| match plan.origin {
            GroupOrigin::Existing => ResctrlError::NoClass { path: path.clone(), source },
            GroupOrigin::Container | GroupOrigin::Shared => ResctrlError::Open { path: path.clone(), source },
        })?;
        let mut group = Self { root, mountpoint: plan.mountpoint.clone(), dir, path, monitor: None };
        group.set(&plan.schemata)?;
        if let (Some(name), Some(path)) = (&plan.monitor, plan.monitor_path()) {
            let name = Path::new("mon_groups").join(name);
            make_dir(group.root.as_fd(), group.dir.as_fd(), &name, &path)?;
            let dir = cgroupfs::open_sub_dir(&group.dir, &name)
                .map_err(|source| ResctrlError::Open { path: path.clone(), source })?;
            group.monitor = Some((dir, path));
        }
        Ok(group)
    }

    /// The groups of a container that exists; none when they are gone.
    ///
    /// # Errors
    /// They can't be opened.
    pub fn find(
        mountpoint: &Path,
        path: &Path,
        monitor: Option<&Path>,
    ) -> Result<Option<Self>, ResctrlError> {
        let there = |path: &Path| match resctrl::open_dir(path) {
            Err(error) if is_gone(&error) => Ok(None),
            other => other.map(Some).map_err(|source| ResctrlError::Open { path: path.to_owned(), source }),
        };
        let (Some(root), Some(dir)) = (there(mountpoint)?, there(path)?) else { return Ok(None) };
        let monitor = match monitor {
            Some(path) => there(path)?.map(|dir| (dir, path.to_owned())),
            None => None,
        };
        Ok(Some(Self { root, mountpoint: mountpoint.to_owned(), dir, path: path.to_owned(), monitor }))
    }

    /// Puts a process into the groups; its later children are born there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn join(&self, pid: i32) -> Result<(), ResctrlError> {
        // The class first: a move there leaves every monitoring group.
        let groups = [Some((&self.dir, &self.path)), self.monitor.as_ref().map(|(dir, path)| (dir, path))];
        groups
            .into_iter()
            .flatten()
            .try_for_each(|(dir, path)| self.write((dir, path), "tasks", &pid.to_string()))
    }

    /// Sets the class's schemata; nothing for an empty text.
    ///
    /// # Errors
    /// resctrl refuses one of the lines.
    pub fn set(&self, schemata: &str) -> Result<(), ResctrlError> {
        if schemata.is_empty() { Ok(()) } else { self.write((&self.dir, &self.path), "schemata", schemata) }
    }

    fn write(&self, (dir, path): (&OwnedFd, &PathBuf), file: &str, value: &str) -> Result<(), ResctrlError> {
        cgroupfs::write_value(dir, file, value).map_err(|source| ResctrlError::Write {
            path: path.join(file),
            value: value.into(),
            status: LastStatus::of(self.root.as_fd()),
            source,
        })
    }
}

fn open(path: &Path) -> Result<OwnedFd, ResctrlError> {
    resctrl::open_dir(path).map_err(|source| ResctrlError::Open { path: path.to_owned(), source })
}

/// One that is there already will do.
fn make_dir(
    root: BorrowedFd<'_>,
    below: BorrowedFd<'_>,
    name: &Path,
    path: &Path,
) -> Result<(), ResctrlError> {
    match path::make_dir(below, name, 0o755) {
        Ok(()) => Ok(()),
        Err(error) if error.errno == Errno::EEXIST => Ok(()),
        Err(source) => {
            Err(ResctrlError::Make { path: path.to_owned(), status: LastStatus::of(root), source })
        }
    }
}

/// Removes a group of the container's; a class takes its monitoring groups along. One that is gone is removed.
///
/// # Errors
/// The kernel refuses.
pub fn remove(path: &Path) -> Result<(), ResctrlError> {
    let failed = |source| ResctrlError::Remove { path: path.to_owned(), source };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let removed = resctrl::open_dir(parent).and_then(|dir| cgroupfs::remove_sub_dir(dir, Path::new(name)));
    match removed {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map_err(failed),
    }
}

/// The directory is not there, or resctrl itself is not mounted any more.
fn is_gone(error: &SyscallError) -> bool {
    matches!(error.errno, Errno::ENOENT | Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
    pub(super) fn make_dirs(path: &Path) {
        fs::create_dir_all(path).unwrap();
    }

    /// A folder in place of resctrl: it takes what a group is told, but makes no files in a new one.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ketch-resctrl-{name}-{}", std::process::id()));
            make_dirs(&path);
            Self(path)
        }

        fn with_group(self, name: &str) -> Self {
            make_dirs(&self.0.join(name));
            ["tasks", "schemata"]
                .iter()
                .for_each(|file| fs::write(self.0.join(name).join(file), "").unwrap());
            self
        }

        fn make(&self, rdt: &str) -> Result<Group, ResctrlError> {
            let plan = ResctrlPlan::new(&serde_json::from_str(rdt).unwrap(), "web", &self.0);
            Group::make_below(path::open_host(&self.0, path::PATH | path::DIRECTORY).unwrap(), &plan)
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_class_is_limited_and_joined_with_its_monitoring_group() {
        let folder = Folder::new("join").with_group("gold").with_group("gold/mon_groups/web");
        let group =
            folder.make(r#"{"closID": "gold", "schemata": ["L3:0=ff"], "enableMonitoring": true}"#).unwrap();
        assert_eq!(folder.text("gold/schemata"), "L3:0=ff\n");
        group.join(77).unwrap();
        assert_eq!(
            (folder.text("gold/tasks"), folder.text("gold/mon_groups/web/tasks")),
            ("77".into(), "77".into())
        );
    }

    #[test]
    fn a_group_is_made_for_the_container() {
        let folder = Folder::new("make");
        // The new folder has no schemata file.
        let error = folder.make(r#"{"l3CacheSchema": "L3:0=f"}"#).unwrap_err();
        assert!(folder.0.join("web").is_dir());
        assert!(error.to_string().ends_with("web/schemata"), "{error}");
    }

    #[test]
    fn resctrls_own_words_are_told() {
        let folder = Folder::new("words");
        fs::create_dir(folder.0.join("info")).unwrap();
        fs::write(folder.0.join("info/last_cmd_status"), "Mask out of range\n").unwrap();
        let error = folder.make(r#"{"schemata": ["L3:0=fffff"]}"#).unwrap_err().to_string();
        assert!(error.ends_with(" (last_cmd_status: Mask out of range)"), "{error}");
    }

    #[test]
    fn a_class_without_schemata_must_be_there() {
        let folder = Folder::new("class");
        let error = folder.make(r#"{"closID": "gold"}"#).unwrap_err().to_string();
        assert!(error.contains("gold not accessible (must be pre-created"), "{error}");
        assert!(!folder.0.join("gold").exists());
    }

    #[test]
    fn what_is_gone_is_removed() {
        remove(Path::new("/nonexistent/web")).unwrap();
        assert!(
            Group::find(Path::new("/nonexistent"), Path::new("/nonexistent/web"), None).unwrap().is_none()
        );
    }
}

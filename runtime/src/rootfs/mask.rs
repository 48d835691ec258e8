//! After the root has become `/`: mounts that were only waiting to become read-only, the root itself, read-only paths
//! and masks.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::mount::{self, Extent, Parameter};
use ketch_sys::{Errno, SyscallError, path, stat};

use super::options::attributes;
use super::{ContainerRoot, RootDir, RootfsError};
use crate::mountinfo::unescape;
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::RootfsPlan;

/// Makes read-only and hides what the plan says. The last step that touches the root: afterwards no descriptor of it is
/// left.
///
/// # Errors
/// [`RootfsError`] of the first path that could not be treated. A path that does not exist is none.
pub fn finalize(plan: &RootfsPlan, entered: ContainerRoot) -> Result<(), RootfsError> {
    let (root, readonly_later) = entered.into_parts();
    for (destination, mounted) in readonly_later {
        mount::set_attributes(&mounted, Extent::Single, mount::READ_ONLY, 0)
            .map_err(|source| RootfsError::ReadonlyMount(destination, source))?;
    }
    if plan.readonly {
        mount::set_attributes(&root, Extent::Single, mount::READ_ONLY, 0)
            .map_err(RootfsError::ReadonlyRoot)?;
    }
    for path in &plan.readonly_paths {
        make_readonly(&root, path)
            .map_err(|source| RootfsError::ReadonlyPath { path: path.clone(), source })?;
    }
    mask(&root, plan)
}

/// What is at `path`, or nothing.
fn existing(root: &RootDir, path: &Path) -> Result<Option<OwnedFd>, SyscallError> {
    match root.open(path, path::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a read-only bind of `path` onto itself.
fn make_readonly(root: &RootDir, path: &Path) -> Result<(), SyscallError> {
    let Some(at) = existing(root, path)? else { return Ok(()) };
    let tree = mount::clone_tree(&at, Extent::Tree)?;
    mount::set_attributes(&tree, Extent::Single, mount::READ_ONLY, 0)?;
    mount::attach(&tree, &at)
}

/// Covers directories with one empty read-only tmpfs, and everything else with the container's `/dev/null`, which is
/// checked to be that device: an image's own file in its place would be bound over what is to be hidden
/// (CVE-2025-31133).
fn mask(root: &RootDir, plan: &RootfsPlan) -> Result<(), RootfsError> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked_paths {
        let failed = |what| move |source| RootfsError::MaskedPath { what, path: path.clone(), source };
        let Some(at) = existing(root, path).map_err(failed("path"))? else { continue };
        let is_dir = stat::status(&at).map_err(failed("path"))?.is_dir();
        if is_dir {
            let cover = match &empty {
                Some(empty) => mount::clone_tree(empty, Extent::Single).map_err(failed("dir"))?,
                None => read_only_tmpfs(&plan.mount_label).map_err(failed("dir"))?,
            };
            mount::attach(&cover, &at).map_err(failed("dir"))?;
            empty.get_or_insert(cover);
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(
                    root.open_checked_device(Path::new("/dev/null"), 1, 3)
                        .map_err(RootfsError::MaskSource)?,
                ),
            };
            let cover = mount::clone_tree(null, Extent::Single).map_err(failed("path"))?;
            mount::attach(&cover, &at).map_err(failed("path"))?;
        }
    }
    Ok(())
}

/// A detached tmpfs that holds nothing and takes nothing.
pub(super) fn read_only_tmpfs(label: &str) -> Result<OwnedFd, SyscallError> {
    let context = mount::open_fs("tmpfs")?;
    let mut parameters = vec![
        Parameter::Text("source", "tmpfs"),
        Parameter::Flag("ro"),
        Parameter::Text("nr_blocks", "1"),
        Parameter::Text("nr_inodes", "1"),
    ];
    if !label.is_empty() {
        parameters.push(Parameter::Text("context", label));
    }
    for parameter in parameters {
        mount::configure(&context, parameter)?;
    }
    mount::create(&context, "tmpfs", attributes(MountFlags::READ_ONLY))
}

/// For `--no-pivot`, where the host's tree stays reachable below the root: takes away, or covers, every whole procfs
/// and sysfs of the host. With one of them in the mount namespace, the kernel would let the container mount an
/// unmasked one of its own.
pub(super) fn cover_host_pseudo_filesystems(plan: &RootfsPlan) -> Result<(), SyscallError> {
    let table = fs::read("/proc/self/mountinfo").map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        SyscallError::new("read", "/proc/self/mountinfo", errno)
    })?;
    // A place whose name is no text can't be covered, and ends this with an error.
    let table = String::from_utf8_lossy(&table);
    for place in table.lines().filter_map(whole_pseudo_filesystem) {
        if place.starts_with(&plan.path) {
            continue;
        }
        match mount::set_propagation_of_path(&place, Extent::Tree, mount::Propagation::Slave) {
            // Gone with a parent.
            Err(error) if error.errno == Errno::ENOENT => continue,
            other => other?,
        }
        match mount::detach_path(&place) {
            Err(error) if matches!(error.errno, Errno::EINVAL | Errno::EPERM) => {
                let at = path::open_host(&place, path::PATH | path::DIRECTORY)?;
                mount::attach(read_only_tmpfs("")?, at.as_fd())?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo, if it is a whole procfs or sysfs.
fn whole_pseudo_filesystem(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let kind = file_system.split(' ').next()?;
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    (root == "/" && matches!(kind, "proc" | "sysfs")).then(|| PathBuf::from(unescape(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pseudo_filesystems_are_found_in_mountinfo() {
        let place = |line| whole_pseudo_filesystem(line);
        assert_eq!(
            place("24 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw"),
            Some(PathBuf::from("/proc"))
        );
        assert_eq!(place("25 1 0:23 / /a\\040b rw - sysfs sysfs rw"), Some(PathBuf::from("/a b")));
        assert_eq!(place("24 1 0:22 /sys /proc/sys ro - proc proc rw"), None);
        assert_eq!(place("24 1 0:22 / /tmp rw - tmpfs tmpfs rw"), None);
        assert_eq!(place("nonsense"), None);
    }
}

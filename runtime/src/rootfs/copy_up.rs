//! `tmpcopyup`: a new tmpfs starts with a copy of the directory that it covers.
//!
//! Both sides are descriptors: the source inside the root, the destination a tmpfs that is not attached yet, so that
//! nobody can put a symlink in the way. Symlinks are copied, never followed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ketch_sys::path::{self, NodeKind, Resolve};
use ketch_sys::{Errno, SyscallError, stat};

use super::error::MountError;

/// Copies what is in `from` into `to`: types, modes, owners and contents.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), MountError> {
    path::without_umask(|| copy_entries(from, to, Path::new("")))
}

fn copy_entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>, below: &Path) -> Result<(), MountError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MountError::CopyUp { path, source }
    };
    for name in path::list_dir(from).map_err(failed(below))? {
        let name = Path::new(&name);
        let shown = below.join(name);
        let entry = path::open_at(from, name, path::PATH | path::NO_FOLLOW, 0, Resolve::InRoot)
            .map_err(failed(&shown))?;
        let status = stat::status(&entry).map_err(failed(&shown))?;
        if status.is_dir() {
            path::make_dir(to, name, 0o700).map_err(failed(&shown))?;
            let flags = path::READ | path::DIRECTORY | path::NO_FOLLOW;
            let made =
                path::open_at(to, name, flags, 0, Resolve::BeneathSameMount).map_err(failed(&shown))?;
            copy_entries(entry.as_fd(), made.as_fd(), &shown)?;
            take_over(made.as_fd(), &status).map_err(failed(&shown))?;
        } else {
            copy_entry(from, to, name, &status).map_err(failed(&shown))?;
        }
    }
    Ok(())
}

/// Gives the copy the owner and the mode of the original; the owner first, as a change of it clears set-id bits.
fn take_over(copy: BorrowedFd<'_>, original: &stat::Status) -> Result<(), SyscallError> {
    path::change_owner(copy, original.uid, original.gid)?;
    path::change_mode(copy, original.permissions())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &Path,
    status: &stat::Status,
) -> Result<(), SyscallError> {
    if status.is_symlink() {
        let target = path::read_link(from, name)?;
        path::make_symlink(Path::new(&target), to, name)?;
    } else if status.is_file() {
        return copy_file(from, to, name, status);
    } else {
        let kind = [NodeKind::Character, NodeKind::Block, NodeKind::Fifo]
            .into_iter()
            .find(|kind| kind.file_type() == status.file_type());
        // A socket means nothing without the process that listens on it.
        let Some(kind) = kind else { return Ok(()) };
        path::make_node(to, name, kind, status.permissions(), status.special_device)?;
    }
    let copy = path::open_at(to, name, path::PATH | path::NO_FOLLOW, 0, Resolve::InRoot)?;
    path::change_owner(copy, status.uid, status.gid)
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &Path,
    status: &stat::Status,
) -> Result<(), SyscallError> {
    // Non-blocking, should a pipe have taken the file's place meanwhile.
    let flags = path::READ | path::NO_FOLLOW | path::NON_BLOCKING;
    let mut original = File::from(path::open_at(from, name, flags, 0, Resolve::BeneathNoSymlinks)?);
    let flags = path::WRITE | path::CREATE | path::EXCLUSIVE | path::NO_FOLLOW;
    let mut copy = File::from(path::open_at(to, name, flags, 0o600, Resolve::BeneathSameMount)?);
    std::io::copy(&mut original, &mut copy).map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        SyscallError::new("write", name.display().to_string(), errno)
    })?;
    take_over(copy.as_fd(), status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links_as_they_are() {
        let dir = std::env::temp_dir().join(format!("ketch-copyup-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for name in ["", "from", "from/sub", "to"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("from/sub/file"), "contents").unwrap();
        fs::set_permissions(dir.join("from/sub/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(dir.join("from/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", dir.join("from/link")).unwrap();
        let open = |name| path::open_host(&dir.join(name), path::PATH | path::DIRECTORY).unwrap();
        copy_tree(open("from").as_fd(), open("to").as_fd()).unwrap();
        assert_eq!(fs::read(dir.join("to/sub/file")).unwrap(), b"contents");
        assert_eq!(fs::metadata(dir.join("to/sub/file")).unwrap().mode() & 0o7777, 0o4711);
        assert_eq!(fs::metadata(dir.join("to/sub")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_link(dir.join("to/link")).unwrap(), Path::new("/etc/passwd"));
        fs::remove_dir_all(&dir).unwrap();
    }
}

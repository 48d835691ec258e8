//! [`RootDir`]: the only path API inside a container's root.
//!
//! Every path that the bundle or the image can influence is resolved here, below a descriptor of the root, and comes
//! back as a descriptor; what is done next is done to that descriptor, so that nothing can be swapped between the check
//! and the use (CVE-2019-18837, CVE-2021-30465, CVE-2024-45310). Used by everything else in `rootfs`; knows nothing of
//! mounts.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ketch_sys::error::SyscallError;
use ketch_sys::path::{self, Resolve};
use ketch_sys::{Errno, stat};

type Result<T> = std::result::Result<T, SyscallError>;

/// As many symlinks as the kernel follows in one path.
const MOST_SYMLINKS: u32 = 40;

/// The mode of directories that are made on the way to a mount point.
const NEW_DIR_MODE: u32 = 0o755;

/// A directory that is `/` for every path resolved through it.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

/// Something inside the root, held by a descriptor.
#[derive(Debug)]
pub struct Resolved {
    /// An `O_PATH` handle.
    pub fd: OwnedFd,
    /// The path that was walked to it: absolute within the root, no symlinks. Right when it was walked; never to be
    /// opened again.
    pub path: PathBuf,
    /// Whether it was made by this walk.
    pub created: bool,
}

/// What [`RootDir::resolve_or_create`] makes where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A directory, 0755 but for the umask.
    Directory,
    /// An empty file, 0644 but for the umask.
    File,
}

/// Whether the last component may be a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed, inside the root; a dangling one is created at its target.
    Follow,
    /// It is refused with `ELOOP`.
    Refuse,
}

/// A walk in progress: where it is, and the names that led there.
struct Walk<'a> {
    root: &'a RootDir,
    /// `None` while the walk is at the root itself.
    at: Option<OwnedFd>,
    path: PathBuf,
}

impl Walk<'_> {
    fn dir(&self) -> BorrowedFd<'_> {
        self.at.as_ref().map_or(self.root.fd.as_fd(), AsFd::as_fd)
    }

    fn enter(&mut self, name: &OsStr, dir: OwnedFd) {
        self.at = Some(dir);
        self.path.push(name);
    }

    fn back_to_root(&mut self) {
        self.at = None;
        self.path = PathBuf::from("/");
    }

    /// `..`: the parent is looked up from the root again, as the directory may have been moved meanwhile.
    fn up_to_parent(&mut self) -> Result<()> {
        if self.at.is_some() {
            self.path.pop();
            let parent = if self.path == Path::new("/") {
                None
            } else {
                let flags = path::PATH | path::DIRECTORY;
                Some(path::open_at(&self.root.fd, &self.path, flags, 0, Resolve::InRootNoSymlinks)?)
            };
            self.at = parent;
        }
        Ok(())
    }
}

impl RootDir {
    /// Takes a handle on a directory as the root.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The calling process's `/`: for use after the container's root has become it.
    ///
    /// # Errors
    /// What open(2) fails with.
    pub fn of_process() -> Result<Self> {
        path::open_host(Path::new("/"), path::PATH | path::DIRECTORY).map(Self::new)
    }

    /// Opens what is at `path`. Symlinks are followed inside the root unless `flags` has `O_NOFOLLOW`; magic links
    /// never are. With `flags` other than `O_PATH` this opens whatever the image has put there, so a device that needs
    /// checking is to be opened by [`RootDir::open_checked_device`].
    ///
    /// # Errors
    /// What openat2(2) fails with.
    pub fn open(&self, path: &Path, flags: i32) -> Result<OwnedFd> {
        path::open_at(&self.fd, path, flags, 0, Resolve::InRoot)
    }

    /// An `O_PATH` handle on the character device `major:minor` at `path`.
    ///
    /// # Errors
    /// What openat2(2) fails with; `ENODEV` when something else is there.
    pub fn open_checked_device(&self, path: &Path, major: u32, minor: u32) -> Result<OwnedFd> {
        let device = self.open(path, path::PATH)?;
        if !stat::status(&device)?.is_character_device(major, minor) {
            return Err(SyscallError::new("fstat", path.display().to_string(), Errno::ENODEV));
        }
        Ok(device)
    }

    /// Finds `path`, making what is missing: directories on the way, and `missing` at its end. Symlinks are followed
    /// inside the root, dangling ones too, by making what they point to.
    ///
    /// # Errors
    /// What the system calls fail with; `ELOOP` for too many symlinks, or a last one that `last` refuses.
    pub fn resolve_or_create(&self, path: &Path, missing: Missing, last: LastLink) -> Result<Resolved> {
        let mut walk = Walk { root: self, at: None, path: PathBuf::from("/") };
        let mut rest = components(path);
        let mut links = 0;
        let mut created = false;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                walk.up_to_parent()?;
                continue;
            }
            let name_path = Path::new(&name);
            let is_last = rest.is_empty();
            created = false;

            // Nearly every component is a directory, which one call finds.
            let flags = path::PATH | path::NO_FOLLOW;
            match path::open_at(walk.dir(), name_path, flags | path::DIRECTORY, 0, Resolve::BeneathNoSymlinks)
            {
                Ok(dir) => {
                    walk.enter(&name, dir);
                    continue;
                }
                Err(error) if error.errno == Errno::ENOENT => {
                    match self.make(&walk, &name, is_last, missing) {
                        Ok(fd) => {
                            walk.enter(&name, fd);
                            created = true;
                        }
                        // Somebody else has just made it: look again.
                        Err(error) if error.errno == Errno::EEXIST && links < MOST_SYMLINKS => {
                            links += 1;
                            rest.push_front(name);
                        }
                        Err(error) => return Err(named(error, path)),
                    }
                    continue;
                }
                Err(error) if matches!(error.errno, Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => return Err(named(error, path)),
            }

            // InRoot's bits lack NO_SYMLINKS, so that O_PATH|O_NOFOLLOW gives a handle on a symlink itself; a single
            // component that is not followed cannot lead anywhere else.
            let entry = path::open_at(walk.dir(), name_path, flags, 0, Resolve::InRoot)
                .map_err(|error| named(error, path))?;
            if !stat::status(&entry)?.is_symlink() {
                if !is_last {
                    return Err(SyscallError::new("openat2", path.display().to_string(), Errno::ENOTDIR));
                }
                walk.enter(&name, entry);
                continue;
            }
            links += 1;
            if links > MOST_SYMLINKS || (is_last && last == LastLink::Refuse) {
                return Err(SyscallError::new("openat2", path.display().to_string(), Errno::ELOOP));
            }
            let target = PathBuf::from(path::read_link(&entry, Path::new(""))?);
            if target.is_absolute() {
                walk.back_to_root();
            }
            for component in components(&target).into_iter().rev() {
                rest.push_front(component);
            }
        }
        let Walk { at, path, .. } = walk;
        let fd = match at {
            Some(fd) => fd,
            None => path::reopen_dir(&self.fd, path::PATH)?,
        };
        Ok(Resolved { fd, path, created })
    }

    fn make(&self, walk: &Walk<'_>, name: &OsStr, is_last: bool, missing: Missing) -> Result<OwnedFd> {
        let name = Path::new(name);
        if is_last && missing == Missing::File {
            let flags = path::READ | path::CREATE | path::EXCLUSIVE | path::NO_FOLLOW;
            path::open_at(walk.dir(), name, flags, 0o644, Resolve::BeneathNoSymlinks)
        } else {
            path::make_dir(walk.dir(), name, NEW_DIR_MODE)?;
            // Not through a symlink, and no longer if it has been replaced by anything but a directory meanwhile.
            let flags = path::PATH | path::DIRECTORY | path::NO_FOLLOW;
            path::open_at(walk.dir(), name, flags, 0, Resolve::BeneathNoSymlinks)
        }
    }

    /// The directory at `path`, made if missing.
    ///
    /// # Errors
    /// As [`RootDir::resolve_or_create`].
    pub fn folder(&self, path: &Path) -> Result<OwnedFd> {
        Ok(self.resolve_or_create(path, Missing::Directory, LastLink::Follow)?.fd)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The names of `path`; `..` stays, as only the walk knows where it leads.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// `error` with the whole path in place of the component that it stumbled over.
fn named(error: SyscallError, path: &Path) -> SyscallError {
    SyscallError::new(error.call, path.display().to_string(), error.errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A scratch root with a canary beside it, which nothing may reach.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Self, RootDir) {
            let dir = std::env::temp_dir().join(format!("ketch-rootdir-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            fs::create_dir(dir.join("root")).unwrap();
            fs::create_dir(dir.join("host")).unwrap();
            let root = path::open_host(&dir.join("root"), path::PATH | path::DIRECTORY).unwrap();
            (Self(dir), RootDir::new(root))
        }

        fn root(&self, below: &str) -> PathBuf {
            self.0.join("root").join(below)
        }

        fn host_is_untouched(&self) -> bool {
            fs::read_dir(self.0.join("host")).unwrap().next().is_none()
                && fs::read_dir(&self.0).unwrap().count() == 2
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn dir(root: &RootDir, path: &str) -> Result<Resolved> {
        root.resolve_or_create(Path::new(path), Missing::Directory, LastLink::Follow)
    }

    #[test]
    fn missing_directories_are_made_and_reported() {
        let (scratch, root) = Scratch::new("mkdir");
        let made = dir(&root, "/a/b/../c").unwrap();
        assert_eq!(made.path, Path::new("/a/c"));
        assert!(made.created);
        assert!(scratch.root("a/b").is_dir() && scratch.root("a/c").is_dir());
        let again = dir(&root, "a/c/").unwrap();
        assert!(!again.created);
        assert_eq!(stat::status(&again.fd).unwrap().inode, fs::metadata(scratch.root("a/c")).unwrap().ino());
        assert_eq!(dir(&root, "/").unwrap().path, Path::new("/"));
    }

    #[test]
    fn dots_never_leave_the_root() {
        let (scratch, root) = Scratch::new("dots");
        let resolved = dir(&root, "/../../host/x").unwrap();
        assert_eq!(resolved.path, Path::new("/host/x"));
        assert!(scratch.root("host/x").is_dir());
        assert!(scratch.host_is_untouched());
    }

    #[test]
    fn links_stay_inside_absolute_relative_and_dangling_ones() {
        let (scratch, root) = Scratch::new("links");
        let host = scratch.0.join("host");
        symlink(&host, scratch.root("absolute")).unwrap();
        symlink("../../../../../host", scratch.root("relative")).unwrap();
        symlink("/jump", scratch.root("dangling")).unwrap();
        symlink("/tmp/foo", scratch.root("jump")).unwrap();

        let through = dir(&root, "/absolute/x").unwrap();
        assert!(through.path.starts_with(&host), "the host's path, but below the root");
        assert!(scratch.root(&host.join("x").to_string_lossy()[1..]).is_dir());
        assert_eq!(dir(&root, "/relative/x").unwrap().path, Path::new("/host/x"));
        let file = root
            .resolve_or_create(Path::new("/dangling/baz/hosts"), Missing::File, LastLink::Follow)
            .unwrap();
        assert_eq!(file.path, Path::new("/tmp/foo/baz/hosts"));
        assert!(scratch.root("tmp/foo/baz/hosts").is_file());
        assert!(scratch.host_is_untouched());
    }

    #[test]
    fn a_last_link_can_be_refused_and_loops_end() {
        let (scratch, root) = Scratch::new("refuse");
        fs::create_dir(scratch.root("real")).unwrap();
        symlink("/real", scratch.root("proc")).unwrap();
        symlink("/loop2", scratch.root("loop1")).unwrap();
        symlink("/loop1", scratch.root("loop2")).unwrap();
        let error =
            root.resolve_or_create(Path::new("/proc"), Missing::Directory, LastLink::Refuse).unwrap_err();
        assert_eq!(error.errno, Errno::ELOOP);
        assert_eq!(dir(&root, "/loop1/x").unwrap_err().errno, Errno::ELOOP);
        fs::write(scratch.root("file"), "").unwrap();
        assert_eq!(dir(&root, "/file/x").unwrap_err().errno, Errno::ENOTDIR);
        assert_eq!(dir(&root, "/file").unwrap().path, Path::new("/file"));
    }

    #[test]
    fn set_group_id_bits_are_inherited_and_files_are_never_truncated() {
        let (scratch, root) = Scratch::new("modes");
        fs::create_dir(scratch.root("s")).unwrap();
        fs::set_permissions(scratch.root("s"), fs::Permissions::from_mode(0o7755)).unwrap();
        dir(&root, "/s/a/b").unwrap();
        assert_ne!(fs::metadata(scratch.root("s/a/b")).unwrap().mode() & 0o2000, 0);
        fs::write(scratch.root("f"), "data").unwrap();
        root.resolve_or_create(Path::new("/f"), Missing::File, LastLink::Follow).unwrap();
        assert_eq!(fs::read(scratch.root("f")).unwrap(), b"data");
    }

    #[test]
    fn a_false_device_is_refused() {
        let (scratch, root) = Scratch::new("null");
        fs::write(scratch.root("null"), "not a device").unwrap();
        assert_eq!(root.open_checked_device(Path::new("/null"), 1, 3).unwrap_err().errno, Errno::ENODEV);
        let host = RootDir::of_process().unwrap();
        host.open_checked_device(Path::new("/dev/null"), 1, 3).unwrap();
        host.open_checked_device(Path::new("/dev/null"), 1, 5).unwrap_err();
    }
}

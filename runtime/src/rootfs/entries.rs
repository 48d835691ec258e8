//! [`Entries`]: nodes, symlinks and their removal below a [`RootDir`], folder by folder. Called by `dev`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ketch_sys::path::{self, NodeKind, Resolve};
use ketch_sys::{Errno, SyscallError, stat};

use super::root_dir::RootDir;

type Result<T> = std::result::Result<T, SyscallError>;

/// Makes and removes entries of a root. The folder of the last one stays open, as the next is mostly in the same: it was
/// resolved below the root once, and no later change of the tree leads anywhere else.
#[derive(Debug)]
pub struct Entries<'r> {
    root: &'r RootDir,
    folder: Option<(PathBuf, OwnedFd)>,
}

/// A node for [`Entries::make_node`].
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// Where.
    pub path: &'a Path,
    /// What.
    pub kind: NodeKind,
    /// Its device number; 0 for a pipe.
    pub device: u64,
    /// Permission bits, exactly.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl<'r> Entries<'r> {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(root: &'r RootDir) -> Self {
        Self { root, folder: None }
    }

    /// The directory that holds `path`, made if missing, and the last name of `path`.
    fn folder_of<'p>(&mut self, path: &'p Path) -> Result<(&OwnedFd, &'p Path)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SyscallError::new("mkdirat", path.display().to_string(), Errno::EINVAL));
        };
        let known = self.folder.take().filter(|(known, _)| known == parent);
        let folder = match known {
            Some(known) => known,
            None => (parent.to_owned(), self.root.folder(parent)?),
        };
        Ok((&self.folder.insert(folder).1, Path::new(name)))
    }

    /// Makes a device node; the umask applies. What is there already is left alone and reported as `EEXIST`.
    ///
    /// # Errors
    /// What mknodat(2) fails with; `ENODEV` when the node was replaced before it was looked at.
    pub fn make_node(&mut self, node: &NewNode<'_>) -> Result<()> {
        let (folder, name) = self.folder_of(node.path)?;
        path::make_node(folder, name, node.kind, node.mode, node.device)?;
        let is_ours = |status: &stat::Status| {
            status.file_type() == node.kind.file_type() && status.special_device == node.device
        };
        let replaced = || SyscallError::new("fstat", node.path.display().to_string(), Errno::ENODEV);
        let status = stat::status_at(folder, name)?;
        if !is_ours(&status) {
            return Err(replaced());
        }
        if (status.uid, status.gid) != (node.uid, node.gid) {
            let flags = path::PATH | path::NO_FOLLOW;
            let made = path::open_at(folder, name, flags, 0, Resolve::BeneathNoSymlinks)?;
            if !is_ours(&stat::status(&made)?) {
                return Err(replaced());
            }
            path::change_owner(&made, node.uid, node.gid)?;
        }
        Ok(())
    }

    /// Makes a symlink; the target is not looked at.
    ///
    /// # Errors
    /// What symlinkat(2) fails with.
    pub fn make_symlink(&mut self, target: &Path, link: &Path) -> Result<()> {
        let (folder, name) = self.folder_of(link)?;
        path::make_symlink(target, folder, name)
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// What unlinkat(2) fails with.
    pub fn unlink(&mut self, path: &Path) -> Result<()> {
        let (folder, name) = self.folder_of(path)?;
        path::unlink(folder, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nodes_and_links_land_in_the_root_though_dev_is_a_link_to_the_host() {
        // CVE-2026-41579, CVE-2026-47766.
        let scratch = std::env::temp_dir().join(format!("ketch-entries-{}", std::process::id()));
        let _ = fs::remove_dir_all(&scratch);
        for folder in [&scratch, &scratch.join("host"), &scratch.join("root")] {
            fs::create_dir(folder).unwrap();
        }
        symlink(scratch.join("host"), scratch.join("root/dev")).unwrap();
        let root = path::open_host(&scratch.join("root"), path::PATH | path::DIRECTORY).unwrap();
        let root = RootDir::new(root);
        let mut entries = Entries::new(&root);

        entries.make_symlink(Path::new("pts/ptmx"), Path::new("/dev/ptmx")).unwrap();
        let node = NewNode {
            path: Path::new("/dev/pipe"),
            kind: NodeKind::Fifo,
            device: 0,
            mode: 0o666,
            uid: ketch_sys::credential::effective_uid(),
            gid: ketch_sys::credential::effective_gid(),
        };
        entries.make_node(&node).unwrap();
        assert_eq!(entries.make_node(&node).unwrap_err().errno, Errno::EEXIST);
        assert_eq!(fs::read_dir(scratch.join("host")).unwrap().count(), 0);
        entries.make_node(&NewNode { path: Path::new("/elsewhere/pipe"), ..node }).unwrap();
        assert!(scratch.join("root/elsewhere/pipe").exists());
        entries.unlink(Path::new("/dev/ptmx")).unwrap();
        assert_eq!(entries.unlink(Path::new("/dev/ptmx")).unwrap_err().errno, Errno::ENOENT);
        assert_eq!(entries.unlink(Path::new("/a/..")).unwrap_err().errno, Errno::EINVAL);
        fs::remove_dir_all(&scratch).unwrap();
    }
}

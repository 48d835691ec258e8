//! An overlay of layers that is mounted where no path leads to, and goes with its descriptor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, open_tree,
};

use crate::blocking::on_a_thread;
use crate::mounted;

/// What is to be seen in it.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    /// The uppermost first.
    pub(crate) lower: Vec<&'a Path>,
    /// The upper and the work folder; none of what is only read.
    pub(crate) writable: Option<(&'a Path, &'a Path)>,
}

/// What is changed is to be whole in the upper folder, whatever the kernel's defaults are.
const WHOLE: [&str; 3] = ["index", "redirect_dir", "metacopy"];

impl Overlay<'_> {
    /// Mounts it: without devices, and where it is written to without setuid and programs too.
    ///
    /// # Errors
    /// The kernel's; more layers than it takes (500, before Linux 6.8 what fits into a page of options: 190).
    pub(crate) fn mount(&self) -> io::Result<OwnedFd> {
        match self.layer_by_layer() {
            // `lowerdir+` is of Linux 6.8.
            Err(Errno::INVAL) => self.in_a_page(),
            mounted => Ok(mounted?),
        }
    }

    /// Each layer is a string of its own, so none is too long.
    fn layer_by_layer(&self) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &self.lower {
            fsconfig_set_string(&context, "lowerdir+", *layer)?;
        }
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if let Some((upper, work)) = self.writable {
            fsconfig_set_string(&context, "upperdir", upper)?;
            fsconfig_set_string(&context, "workdir", work)?;
            for option in WHOLE {
                fsconfig_set_string(&context, option, "off")?;
            }
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        } else {
            fsconfig_set_flag(&context, "ro")?;
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// By mount(2), which wants a place: one in a mount namespace that ends with its thread, so that a killed daemon leaves
    /// nothing mounted.
    fn in_a_page(&self) -> io::Result<OwnedFd> {
        on_a_thread("overlay", || Ok(self.in_a_page_of_this_thread())).map_err(io::Error::other)?
    }

    fn in_a_page_of_this_thread(&self) -> io::Result<OwnedFd> {
        mounted::own_namespace()?;
        let layers = Opened::all(self.lower.iter().copied())?;
        let writable = self.writable.map(|(upper, work)| Opened::all([upper, work])).transpose()?;
        let mut options = format!("lowerdir={}", layers.joined());
        let mut flags = MountFlags::NODEV;
        if let Some(folders) = &writable {
            options += &format!(",upperdir={},workdir={}", folders.path(0), folders.path(1));
            options.extend(WHOLE.map(|option| format!(",{option}=off")));
            flags |= MountFlags::NOSUID | MountFlags::NOEXEC;
        } else {
            flags |= MountFlags::RDONLY;
        }
        let place = self.lower.first().ok_or(Errno::INVAL)?;
        let options = std::ffi::CString::new(options)?;
        mount("overlay", *place, "overlay", flags, Some(options.as_c_str()))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(CWD, *place, clone)?)
    }
}

/// Folders by their descriptors, whose names are short: mount(2) takes one page of options. They must be opened in the mount
/// namespace that they are mounted in.
#[derive(Debug)]
pub(crate) struct Opened(Vec<OwnedFd>);

impl Opened {
    /// # Errors
    /// One is not there.
    pub(crate) fn all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = paths.into_iter().map(|path| open(path, flags, Mode::empty()));
        opened.collect::<rustix::io::Result<_>>().map(Self)
    }

    fn path(&self, place: usize) -> String {
        self.0.get(place).map(|folder| format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap_or_default()
    }

    /// As `lowerdir=` takes them.
    pub(crate) fn joined(&self) -> String {
        let paths: Vec<_> = (0..self.0.len()).map(|place| self.path(place)).collect();
        paths.join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;
    use rustix::fs::{RawMode, openat};
    use std::io::{Read, Write};

    const LAYERS: usize = 150;

    fn read(root: &OwnedFd, name: &str) -> String {
        let mut text = String::new();
        let file = openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        std::fs::File::from(file).read_to_string(&mut text).unwrap();
        text
    }

    fn write(root: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(root, name, flags, Mode::from_bits_truncate(0o644 as RawMode))?;
        std::fs::File::from(file).write_all(b"new").map_err(|_| Errno::IO)
    }

    #[test]
    fn both_ways_show_the_same() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounts need root");
            return;
        }
        let scratch = Folder::new("overlay");
        // Together far more than a page.
        let layers: Vec<_> = (0..LAYERS).map(|n| scratch.path().join(format!("{n:060}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir(layer).unwrap();
            std::fs::write(layer.join("top"), n.to_string()).unwrap();
            std::fs::write(layer.join(n.to_string()), "").unwrap();
        }
        let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
        let lower: Vec<&Path> = layers.iter().map(std::path::PathBuf::as_path).collect();
        type Way = fn(&Overlay<'_>) -> io::Result<OwnedFd>;
        let ways: [Way; 2] = [|overlay| overlay.in_a_page(), |overlay| Ok(overlay.layer_by_layer()?)];
        for way in ways {
            let root = match way(&Overlay { lower: lower.clone(), writable: None }) {
                // Linux before 6.8 has the other way only.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => continue,
                root => root.unwrap(),
            };
            assert_eq!(read(&root, "top"), "0");
            assert_eq!(read(&root, "149"), "");
            assert_eq!(write(&root, "new"), Err(Errno::ROFS));
            drop(root);
            for folder in [&upper, &work] {
                std::fs::create_dir(folder).unwrap();
            }
            let root = way(&Overlay { lower: lower.clone(), writable: Some((&upper, &work)) }).unwrap();
            write(&root, "new").unwrap();
            assert_eq!(read(&root, "new"), "new");
            drop(root);
            assert_eq!(std::fs::read(upper.join("new")).unwrap(), b"new");
            std::fs::remove_dir_all(&upper).unwrap();
            std::fs::remove_dir_all(&work).unwrap();
        }
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!table.contains(&*scratch.path().to_string_lossy()), "nothing stays mounted");
    }
}

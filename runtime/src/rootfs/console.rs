//! The container's terminal: made inside its own devpts, without trusting one path of its `/dev`.

use std::os::fd::OwnedFd;
use std::path::Path;

use ketch_sys::mount::{self, Extent};
use ketch_sys::path::{self, Resolve};
use ketch_sys::{stat, terminal};

use super::{LastLink, Missing, RootDir, RootfsError};
use crate::spec::ConsoleSize;

/// The inode number of `ptmx` in every devpts (fs/devpts/inode.c).
const PTMX_INODE: u64 = 2;

/// A pair of a new terminal.
#[derive(Debug)]
pub struct Console {
    /// The side of whoever drives the terminal.
    pub master: OwnedFd,
    /// The side of the container's process.
    pub peer: OwnedFd,
}

/// Makes a terminal in the devpts at `/dev/pts` below `root`, with the size that the bundle asks for.
///
/// # Errors
/// [`RootfsError::FalsePtmx`] when there is no devpts, [`RootfsError::Console`] for what the kernel refuses.
pub fn open_console(root: &RootDir, size: Option<&ConsoleSize>) -> Result<Console, RootfsError> {
    let failed = |step| move |source| RootfsError::Console { step, source };
    let devpts = root
        .open(Path::new("/dev/pts"), path::PATH | path::DIRECTORY)
        .map_err(failed("open /dev/pts of the container"))?;
    if stat::file_system(&devpts).map_err(failed("verify ptmx handle"))? != stat::DEVPTS {
        return Err(RootfsError::FalsePtmx("it is not on a real devpts mount"));
    }
    // On the mount that was just checked, and no symlink: so it is devpts' own file, and opening it does nothing else
    // than make a terminal (CVE-2025-52565).
    let flags = path::READ_WRITE | path::NO_CONTROLLING_TERMINAL;
    let master = path::open_at(&devpts, Path::new("ptmx"), flags, 0, Resolve::BeneathSameMount)
        .map_err(failed("open ptmx of the container"))?;
    let status = stat::status(&master).map_err(failed("verify ptmx handle"))?;
    if status.inode != PTMX_INODE || !status.is_character_device(5, 2) {
        return Err(RootfsError::FalsePtmx("it is not a real char ptmx device"));
    }
    let peer =
        terminal::open_peer(&master).map_err(failed("failed to get peer end of newly-allocated console"))?;
    if let Some(size) = size.filter(|size| size.height != 0 && size.width != 0) {
        let characters = |length| u16::try_from(length).unwrap_or(u16::MAX);
        terminal::set_size(&master, characters(size.height), characters(size.width))
            .map_err(failed("set the console size"))?;
    }
    Ok(Console { master, peer })
}

impl Console {
    /// Binds the container's side onto `/dev/console`, which is made if missing and may not be a symlink.
    ///
    /// # Errors
    /// [`RootfsError::Console`].
    pub fn mount_on_dev_console(&self, root: &RootDir) -> Result<(), RootfsError> {
        let failed = |step| move |source| RootfsError::Console { step, source };
        let target = root
            .resolve_or_create(Path::new("/dev/console"), Missing::File, LastLink::Refuse)
            .map_err(failed("create /dev/console mount target"))?;
        let tree = mount::clone_tree(&self.peer, Extent::Single).map_err(failed("mount /dev/console"))?;
        mount::attach(&tree, &target.fd).map_err(failed("mount /dev/console"))
    }

    /// Makes the container's side the calling process's standard streams.
    ///
    /// # Errors
    /// [`RootfsError::Console`].
    pub fn use_as_standard_streams(&self) -> Result<(), RootfsError> {
        for stream in 0..=2 {
            path::duplicate_onto_standard_stream(&self.peer, stream)
                .map_err(|source| RootfsError::Console { step: "dup the console", source })?;
        }
        Ok(())
    }
}

//! Standard streams that are the host's `/dev/null` become the container's.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ketch_sys::{SyscallError, path, stat};

use super::{RootDir, RootfsError};
use crate::procfs::ProcFs;

/// Replaces each standard stream that is `/dev/null` by the `/dev/null` below `root`, so that no file of the host's
/// `/dev` stays open in the container. The replacement is checked to be that device before it is opened for writing:
/// an image's symlink in its place would give the container a writable file of its choice. Call it after the root was
/// entered; `procfs` is the one from before.
///
/// # Errors
/// [`RootfsError::DevNull`].
pub fn reopen_null_streams(root: &RootDir, procfs: &ProcFs) -> Result<(), RootfsError> {
    reopen(root, procfs).map_err(RootfsError::DevNull)
}

fn reopen(root: &RootDir, procfs: &ProcFs) -> Result<(), SyscallError> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [input.as_fd(), output.as_fd(), error.as_fd()];
    let mut null = None;
    for (number, stream) in (0..).zip(streams) {
        if !stat::status(stream)?.is_character_device(1, 3) {
            continue;
        }
        let opened = match &null {
            Some(opened) => opened,
            None => {
                let checked = root.open_checked_device(Path::new("/dev/null"), 1, 3)?;
                null.insert(procfs.reopen(checked.as_fd(), path::READ_WRITE)?)
            }
        };
        path::duplicate_onto_standard_stream(opened, number)?;
    }
    Ok(())
}

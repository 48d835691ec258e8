//! The working directory of the container's process.

use std::path::Path;

use ketch_sys::{Errno, process};

use super::root_dir::{LastLink, Missing};
use super::{RootDir, RootfsError};

/// Makes `path` below `root`, with what is missing on the way. Call it after the root was entered.
///
/// # Errors
/// [`RootfsError::WorkingDir`].
pub fn make_working_dir(root: &RootDir, path: &Path) -> Result<(), RootfsError> {
    root.resolve_or_create(path, Missing::Directory, LastLink::Follow)
        .map(|_| ())
        .map_err(|source| RootfsError::WorkingDir { path: path.to_owned(), source })
}

/// Checks that the working directory is below `/`: after a change to a path like `/proc/self/fd/7/../..` it may be a
/// directory of the host (CVE-2024-21626). Call it after every change that the bundle has a say in.
///
/// # Errors
/// [`RootfsError::OutsideWorkingDir`] and [`RootfsError::UnknownWorkingDir`].
pub fn verify_working_dir() -> Result<(), RootfsError> {
    match process::current_dir() {
        Ok(path) if path.first() == Some(&b'/') => Ok(()),
        // getcwd(2) says "(unreachable)/..." and getcwd(3) makes ENOENT of it.
        Ok(_) => Err(RootfsError::OutsideWorkingDir),
        Err(error) if error.errno == Errno::ENOENT => Err(RootfsError::OutsideWorkingDir),
        Err(error) => Err(RootfsError::UnknownWorkingDir(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_the_root_is_fine() {
        verify_working_dir().unwrap();
    }
}

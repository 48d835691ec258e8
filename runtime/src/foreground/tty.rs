//! The caller's terminal, while a container's terminal is shown on it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::terminal::{self, Settings};

use super::ForegroundError;
use crate::init::Shown;

/// The terminal that the caller sits at; put back as it was when this is dropped.
#[derive(Debug)]
pub struct HostTerminal {
    fd: OwnedFd,
    before: Settings,
}

impl HostTerminal {
    /// The first of stderr, stdout and stdin that is a terminal, else the controlling terminal.
    pub fn find() -> Result<Self, ForegroundError> {
        let standard = [
            std::io::stderr().as_fd().try_clone_to_owned(),
            std::io::stdout().as_fd().try_clone_to_owned(),
            std::io::stdin().as_fd().try_clone_to_owned(),
        ];
        for fd in standard.into_iter().flatten() {
            if let Ok(before) = terminal::settings(&fd) {
                return Ok(Self { fd, before });
            }
        }
        let fd = OwnedFd::from(File::open("/dev/tty").map_err(ForegroundError::OpenTerminal)?);
        let before = terminal::settings(&fd).map_err(ForegroundError::Terminal)?;
        Ok(Self { fd, before })
    }

    /// Passes keys on as they are typed.
    pub(super) fn set_raw(&self) -> Result<(), ForegroundError> {
        terminal::apply(&self.fd, &self.before.clone().raw()).map_err(ForegroundError::Terminal)
    }

    /// What a terminal that is shown on this one has of it.
    pub(super) fn shown(&self) -> Shown {
        Shown { size: terminal::size(&self.fd).ok() }
    }

    /// Gives `other` this terminal's size. Errors do not count: either may have gone away just now.
    pub(super) fn copy_size_to(&self, other: BorrowedFd<'_>) {
        if let Ok((rows, columns)) = terminal::size(&self.fd) {
            let _ = terminal::set_size(other, rows, columns);
        }
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        let _ = terminal::apply(&self.fd, &self.before);
    }
}

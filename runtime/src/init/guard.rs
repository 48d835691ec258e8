//! The end of a process whose start has failed.

use std::os::fd::AsFd;
use std::time::Duration;

use ketch_sys::process::{self, Child};
use ketch_sys::signal;

use super::InitError;
use super::protocol::ProtocolError;

/// A half-started process must not outlive the error that ends its start.
pub(super) struct KillOnDrop(pub(super) Option<Child>);

impl KillOnDrop {
    pub(super) fn child(&self) -> Result<&Child, InitError> {
        self.0.as_ref().ok_or_else(|| ProtocolError::Ended.into())
    }

    /// A child that fell silent is ending, or has ended: the error then says how.
    pub(super) fn how_it_ended(&self, error: InitError) -> InitError {
        const SOON: Duration = Duration::from_secs(10);
        let (InitError::Protocol(ProtocolError::Ended), Some(child)) = (&error, &self.0) else {
            return error;
        };
        match process::poll_readable(&[child.pidfd.as_fd()], Some(SOON)) {
            Ok(ended) if ended.first() == Some(&true) => {
                process::wait(&child.pidfd).map_or(error, InitError::Died)
            }
            _ => error,
        }
    }

    pub(super) fn disarm(&mut self) -> Result<Child, InitError> {
        self.0.take().ok_or_else(|| ProtocolError::Ended.into())
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It may have ended by itself; waiting reaps it either way.
            let _ended = process::pidfd_send_signal(&child.pidfd, signal::KILL);
            let _reaped = process::wait(&child.pidfd);
        }
    }
}

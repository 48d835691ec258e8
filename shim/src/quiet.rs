//! A shim that has had nothing to do for a while gives back the pages of its program. Most of a node's shims stand idle, and
//! what starting and ending containers takes is most of the binary; waiting takes little of it.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long nothing must have happened.
const QUIET: Duration = Duration::from_secs(1);

/// Knows when something happens.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    stirred: Notify,
}

impl Quiet {
    /// Something has happened: a call has been answered, a process has ended.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Waits for quiet after each stir, for ever. No timer runs while nothing happens.
    pub(crate) async fn run(&self) {
        loop {
            self.stirred.notified().await;
            while timeout(QUIET, self.stirred.notified()).await.is_ok() {}
            // A program that is locked in memory stays there.
            let _released = ketch_shim_sys::release_program();
        }
    }
}

//! What a container has written, of one that runs and of one that has ended. Called by routes and by `node`'s executor.

use super::container::Container;
use super::lifecycle::{folder_of, log_of};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::logs;

/// Reads it.
///
/// # Errors
/// The driver can't be read; the disk.
pub async fn read(daemon: &Daemon, container: &Container, options: logs::Options) -> Result<logs::Entries> {
    if let Some(log) = container.log() {
        return log.read(options).await;
    }
    let config = container.read(|record| log_of(&record.host_config));
    logs::read_ended(&config, &folder_of(daemon, &container.id), &container.id, options).await
}

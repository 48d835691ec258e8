//! `delete`: takes away a container whose shim is gone. It reads what either shim has left in the bundle.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use ketch_runtime_client::read_pid_file;
use ketch_shim_api::task::DeleteResponse;
use prost::Message;
use rustix::process::{getpid, set_child_subreaper};

use crate::arguments::Arguments;
use crate::bootstrap::default_runtime;
use crate::container::{self, CLEANUP, INIT_PID, runtime_for};
use crate::error::ShimError;
use crate::reaper::Reaper;
use crate::{record, rootfs, sandbox, socket};

/// 128 and SIGKILL: what a container that is deleted by force has ended with.
const KILLED: u32 = 137;

/// The action `delete`: prints a DeleteResponse. What can't be taken away is said on stderr, and the rest goes.
///
/// # Errors
/// The bundle can't be found, or the answer can't be written.
pub(crate) fn delete(arguments: &Arguments) -> Result<(), ShimError> {
    let bundle = bundle(arguments)?;
    let config = container::options(&bundle);
    let runtime = runtime_for(&config, &bundle, &arguments.namespace, &default_runtime());
    let reaper = Reaper::default();
    // What the runtime kills is reaped here, not by whoever is above.
    let _not_reaper = set_child_subreaper(Some(getpid()));
    let events = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShimError::system("start the event loop"))?;
    let deleted = events.block_on(async {
        tokio::select! {
            deleted = runtime.delete(&reaper, &arguments.id, true, CLEANUP) => deleted,
            _ended = reaper.run() => Ok(()),
        }
    });
    if let Err(error) = deleted
        && !error.is_no_container()
    {
        warn(&format!("delete the container {}: {}", arguments.id, error.words()));
    }
    if !rootfs::unmount_all(&bundle.join("rootfs")) {
        warn("unmount the root file system");
    }
    sandbox::clean_up(&bundle);
    record::remove(&bundle);
    if let Ok(address) = std::fs::read_to_string(bundle.join("address"))
        && let Some(path) = address.trim().strip_prefix("unix://")
    {
        socket::remove_dead(path.as_ref());
    }
    let response = DeleteResponse {
        pid: read_pid_file(&bundle.join(INIT_PID)).map_or(0, i32::unsigned_abs),
        exit_status: KILLED,
        exited_at: Some(SystemTime::now().into()),
    };
    std::io::stdout()
        .write_all(&response.encode_to_vec())
        .map_err(ShimError::system("tell containerd the end"))
}

/// The bundle of the flags, else the one of that id beside the current folder.
fn bundle(arguments: &Arguments) -> Result<PathBuf, ShimError> {
    if let Some(bundle) = &arguments.bundle {
        return Ok(bundle.clone());
    }
    let here = std::env::current_dir().map_err(ShimError::system("find the current folder"))?;
    Ok(here.parent().unwrap_or(&here).join(&arguments.id))
}

fn warn(text: &str) {
    let _untold = writeln!(std::io::stderr(), "{text}");
}

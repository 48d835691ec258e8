//! A container's memory and state to a folder of images, and from one.

use std::rc::Rc;

use ketch_runtime_client::{Checkpoint, Restore};
use ketch_shim_api::events::TaskCheckpointed;
use ketch_shim_api::options::CheckpointOptions;
use ketch_shim_api::task::CheckpointTaskRequest;
use ketch_shim_api::wire::{Any, Empty};

use crate::container::{Container, INIT_PID};
use crate::error::ShimError;
use crate::launch::launch;
use crate::process::Action;
use crate::server::Limits;
use crate::service::Shim;

/// Writes the images of a running container.
///
/// # Errors
/// It does not run, or the runtime fails.
pub(crate) async fn save(
    shim: &Shim,
    request: &CheckpointTaskRequest,
    limits: Limits,
) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let init = &container.init;
    let _changing = init.changing.lock().await;
    init.state.get().allow(Action::Checkpoint)?;
    let options = request.options.as_ref().map(Any::unpack::<CheckpointOptions>).transpose();
    let options = options.map_err(|source| ShimError::Decode { what: "the checkpoint's options", source })?;
    let options = options.flatten().unwrap_or_default();
    let (work, keep) = match options.work_path.as_str() {
        "" => (container.bundle.join("criu-work"), false),
        path => (path.into(), true),
    };
    let images = if request.path.is_empty() { &options.image_path } else { &request.path };
    let saved = container
        .runtime
        .checkpoint(
            shim.reaper.as_ref(),
            &container.id,
            &Checkpoint {
                image_path: images,
                work_path: &work.to_string_lossy(),
                parent_path: &options.parent_path,
                leave_running: !options.exit,
                tcp_established: options.open_tcp,
                ext_unix_sk: options.external_unix_sockets,
                shell_job: options.terminal,
                file_locks: options.file_locks,
                empty_namespaces: &options.empty_namespaces,
                manage_cgroups_mode: &options.cgroups_mode,
            },
            limits.images(),
        )
        .await;
    if saved.is_err() {
        // criu's own log says why; the folder it is in goes.
        let _none = std::fs::copy(work.join("dump.log"), container.bundle.join("criu-dump.log"));
    }
    if !keep {
        let _gone = std::fs::remove_dir_all(&work);
    }
    saved.map_err(ShimError::runtime("OCI runtime checkpoint failed"))?;
    let event = TaskCheckpointed { container_id: container.id.clone(), checkpoint: images.clone() };
    shim.events.publish("/tasks/checkpointed", &event);
    Ok(Empty {})
}

/// The start of a container that is made from a folder of images.
///
/// # Errors
/// The streams can't be opened, or the runtime fails.
pub(crate) async fn restore(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    images: &str,
    limits: Limits,
) -> Result<(), ShimError> {
    let pid_file = container.bundle.join(INIT_PID);
    let work = container.criu_work();
    launch(shim, container, &container.init, &pid_file, async |socket, stdio| {
        let options = Restore {
            bundle: &container.bundle,
            pid_file: &pid_file,
            image_path: images,
            work_path: &work.to_string_lossy(),
            console_socket: socket,
            no_pivot: container.config.no_pivot_root,
            stdio,
        };
        let restored =
            container.runtime.restore(shim.reaper.as_ref(), &container.id, options, limits.images()).await;
        restored.map_err(ShimError::runtime("OCI runtime restore failed"))
    })
    .await
}

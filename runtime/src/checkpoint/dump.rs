//! A checkpoint: a container's processes, saved to a folder of images.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ketch_sys::error::errno_text;
use ketch_sys::{path, stat, stream};

use super::error::{CriuError, step};
use super::images::{Folder, NetworkMark};
use super::message::{self, Features, Kind};
use super::mounts;
use super::service::{Criu, Start};
use super::streams;
use crate::log;
use crate::plan::criu::external::ForeignMounts;
use crate::plan::criu::{CriuOptions, Final, PageServer, SharedFlags, external_namespace};
use crate::spec::{Namespace, NamespaceType};

const LOG_FILE: &str = "dump.log";

/// How much is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// Memory, for a later checkpoint to have less to save. The container runs on.
    Memory,
}

/// How a container is to be saved.
#[derive(Debug)]
pub struct CheckpointRequest {
    /// The folder of images, made if it is not there.
    pub images: PathBuf,
    /// The folder of criu's log; that of the images without.
    pub work: Option<PathBuf>,
    /// Earlier images, relative to the folder of these.
    pub parent: Option<PathBuf>,
    /// How much.
    pub extent: Extent,
    /// What becomes of the processes.
    pub processes: Final,
    /// What the restore has to be told as well.
    pub shared: SharedFlags,
    /// Whether TCP connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Whether deleted files get a name.
    pub link_remap: bool,
    /// Where pages go.
    pub page_server: Option<PageServer>,
    /// A descriptor of the caller's that gets a zero byte once the page server is ready.
    pub status_fd: Option<i32>,
}

/// The container to save.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its first process.
    pub pid: i32,
    /// Its root on the host.
    pub rootfs: &'a Path,
    /// Its mounts from outside.
    pub mounts: &'a ForeignMounts,
    /// Its namespaces, as configured.
    pub namespaces: &'a [Namespace],
    /// The freezer's folder, where there is one.
    pub freezer: Option<&'a Path>,
    /// criu's configuration file.
    pub config_file: Option<String>,
    /// Whether it is shown a folder of its own for sd_notify(3).
    pub notify: bool,
    /// Where its standard streams lead, by [`streams::names`].
    pub descriptors: &'a [String],
}

/// Saves the container.
///
/// # Errors
/// What can't be done, or what criu could not: the container runs on then.
pub fn checkpoint(request: &CheckpointRequest, subject: &Subject<'_>) -> Result<(), CriuError> {
    let criu = Criu::find()?;
    let images = Folder::make(&request.images)?;
    images.check()?;
    check_parent(request)?;
    let work = request.work.as_deref().map(Folder::make).transpose()?;
    let mut status = request.status_fd.map(take_status_fd).transpose()?;
    let features =
        Features { memory_tracking: request.extent == Extent::Memory, lazy_pages: request.shared.lazy_pages };
    if features != Features::default() {
        criu.check_features(features)?;
    }
    let (options, network) = options(request, subject)?;
    let kind = match request.extent {
        Extent::Whole => Kind::Dump,
        Extent::Memory => Kind::PreDump,
    };
    if request.extent == Extent::Whole {
        images.write_descriptors(subject.descriptors)?;
        images.write_network(network.as_ref())?;
        images.write_notify(subject.notify)?;
    }
    log::debug(format_args!("criu options: {options:?}"));
    let mut start = Start::plain();
    let folders = start.take_folders(images.path(), work.as_ref().map(Folder::path));
    let saved = criu.start(&start).and_then(|mut session| {
        let answer = session.converse(&message::request(kind, &options, folders), &mut |response, _| {
            if response.script == "status-ready"
                && let Some(status) = status.take()
            {
                tell_ready(status);
            }
            Ok(())
        })?;
        if answer.kind() != kind {
            return Err(CriuError::Unexpected(answer.kind()));
        }
        session.finish()
    });
    saved.map_err(|error| error.with_log(work.as_ref().unwrap_or(&images), LOG_FILE))
}

/// What criu is asked for, and the network namespace that the container has joined.
fn options(
    request: &CheckpointRequest,
    subject: &Subject<'_>,
) -> Result<(CriuOptions, Option<NetworkMark>), CriuError> {
    let parent = request.parent.as_ref().map(|parent| parent.display().to_string());
    let mut options = CriuOptions {
        shared: request.shared,
        log_file: LOG_FILE,
        root: subject.rootfs.to_owned(),
        config_file: subject.config_file.clone(),
        pid: Some(subject.pid),
        leave_running: request.processes == Final::Running,
        tcp_skip_in_flight: request.tcp_skip_in_flight,
        link_remap: request.link_remap,
        freeze_cgroup: subject.freezer.map(|path| path.display().to_string()),
        page_server: request.page_server.clone(),
        parent_image: parent,
        ..CriuOptions::default()
    };
    let mut network = None;
    for kind in [NamespaceType::Network, NamespaceType::Pid] {
        let joined = |namespace: &&Namespace| namespace.namespace_type() == Some(kind);
        if subject.namespaces.iter().find(joined).is_some_and(|found| found.join_path().is_some()) {
            // The one that the container is in, whatever the path leads to by now.
            let file = format!("/proc/{}/ns/{}", subject.pid, kind.proc_name());
            let opened = path::open_host(Path::new(&file), path::PATH);
            let status =
                opened.and_then(stat::status).map_err(step("looking at the container's namespaces"))?;
            options.external.push(external_namespace(kind, status.inode));
            if kind == NamespaceType::Network {
                network = Some(NetworkMark::of(status.inode)?);
            }
        }
    }
    if request.extent == Extent::Whole {
        options.mounts = mounts::of_container(subject.pid, subject.mounts)?;
        options.external.extend(streams::fifos(subject.descriptors).cloned());
    }
    Ok((options, network))
}

/// `--parent-path` is what criu links to from within the folder of images.
fn check_parent(request: &CheckpointRequest) -> Result<(), CriuError> {
    let Some(parent) = &request.parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(CriuError::ParentPath(None));
    }
    let folder = request.images.join(parent);
    let refused =
        |reason: String| CriuError::ParentPath(Some(format!("stat {}: {reason}", folder.display())));
    match std::fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(refused("not a directory".to_owned())),
        Err(error) => Err(refused(crate::error::io_text(&error))),
    }
}

fn take_status_fd(number: i32) -> Result<OwnedFd, CriuError> {
    let invalid = |reason: String| CriuError::StatusFd { number, reason };
    let copy = stream::copy_inherited(number).map_err(|error| invalid(errno_text(error.errno)))?;
    if !stream::is_writable(&copy) {
        return Err(invalid("not writable".to_owned()));
    }
    Ok(copy)
}

/// Whoever waits for the byte may also wait for the end of the stream.
fn tell_ready(status: OwnedFd) {
    if let Err(error) = File::from(status).write_all(&[0]) {
        log::warn(format_args!("can't write \\0 to status fd: {}", crate::error::io_text(&error)));
    }
}

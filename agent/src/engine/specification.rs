//! A container's config.json: what of it must be looked up in the root, on the host and with other containers is gathered here, and
//! `bundle` makes it. Called by `lifecycle`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::bundle::{self, Input, Shm};
use super::container::Record;
use super::lifecycle::{ROOT, bundle_of, make_folder};
use super::security::Security;
use super::{apparmor, devices, mounts, namespaces, root, task, users};
use crate::blocking::blocking;
use crate::compat;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

/// How many containers may have their IPC namespace from one another.
const MOST_DONORS: u32 = 16;

/// What the runtime is to make; mounts volumes and images for it.
///
/// # Errors
/// A user, a device or a source of a mount that is not there; the disk.
pub(super) async fn specification(
    daemon: &Arc<Daemon>,
    record: &Record,
    bundle: &Path,
    joined: &namespaces::Joined,
) -> Result<Value> {
    let root = bundle.join(ROOT);
    let added: Vec<String> = record.host_config.group_add.clone().unwrap_or_default();
    let (place, name) = (root.clone(), record.config.user.clone());
    let user = blocking(move || {
        users::find(&name, &root::read(&place, "etc/passwd")?, &root::read(&place, "etc/group")?, &added)
    })
    .await?;
    let mut all = mounts_of(daemon, record).await?;
    all.extend(joined.files.iter().cloned());
    all.extend(task::files(daemon, record)?);
    // What lies below another comes after it.
    all.sort_by_key(|one| one["destination"].as_str().map_or(0, |at| at.matches('/').count()));
    let devices = devices::of(&record.host_config)?;
    let mut args = Vec::new();
    if daemon.has_init(record) {
        args.extend([crate::init::PATH.to_owned(), "--".to_owned()]);
        let program = match daemon.config.containers.init_path.as_str() {
            "" => std::env::current_exe().map_err(|error| Error::internal("finding this program", &error))?,
            chosen => chosen.into(),
        };
        // After an upgrade in its place the new one serves as well.
        let program = program.to_string_lossy();
        let program = program.strip_suffix(" (deleted)").unwrap_or(&program);
        all.push(namespaces::bound_read_only(program, crate::init::PATH));
    }
    args.push(record.path.clone());
    args.extend(record.args.iter().cloned());
    let shared = record.mounts.iter().any(|one| one.shown.propagation.ends_with("shared"));
    let slave = record.mounts.iter().any(|one| one.shown.propagation.ends_with("slave"));
    let shm = shm_of(daemon, record, bundle).await?;
    let security = Security::of(record)?;
    let host = &daemon.engine.host;
    if security.apparmor_profile(&record.host_config, host) == Some(apparmor::DEFAULT) {
        blocking(apparmor::ensure_default).await?;
    }
    bundle::config(&Input {
        config: &record.config,
        host_config: &record.host_config,
        host,
        security: &security,
        seccomp: &daemon.engine.seccomp,
        args,
        user: &user,
        cgroup: cgroup_of(daemon, record),
        root: root.to_string_lossy().into_owned(),
        namespaces: joined.namespaces.clone(),
        mounts: all,
        shm,
        devices: devices.devices,
        device_rules: devices.rules,
        propagation: if shared {
            Some("shared")
        } else if slave {
            Some("slave")
        } else {
            None
        },
    })
}

/// The container's cgroup, below the daemon's or the one that it asks for.
fn cgroup_of(daemon: &Daemon, record: &Record) -> String {
    let asked = &record.host_config.resources.cgroup_parent;
    let parent = if asked.is_empty() { daemon.cgroup_parent() } else { asked };
    format!("{}/{}", parent.trim_end_matches('/'), record.id)
}

async fn shm_of(daemon: &Arc<Daemon>, record: &Record, bundle: &Path) -> Result<Shm> {
    let mode = record.host_config.ipc_mode.as_str();
    Ok(match mode {
        "host" => Shm::At("/dev/shm".to_owned()),
        "none" => Shm::None,
        "shareable" => {
            let (path, size, owner) = (bundle.join("shm"), record.host_config.shm_size, daemon.ids.root());
            let shown = path.to_string_lossy().into_owned();
            blocking(move || root::mount_shm(&path, size, owner)).await?;
            Shm::At(shown)
        }
        _ => match mode.strip_prefix("container:") {
            Some(donor) => Shm::At(shm_of_donor(daemon, donor)?),
            None => Shm::Own,
        },
    })
}

/// What a container shares with those that join its IPC namespace: its own, the host's, or what it has from another.
fn shm_of_donor(daemon: &Daemon, donor: &str) -> Result<String> {
    let mut name = donor.to_owned();
    // Names may lead in a circle by now.
    for _ in 0..MOST_DONORS {
        let donor = daemon.engine.find(&name)?;
        let mode = donor.read(|record| record.host_config.ipc_mode.clone());
        match (mode.as_str(), mode.strip_prefix("container:")) {
            ("host", _) => return Ok("/dev/shm".to_owned()),
            ("shareable", _) => {
                return Ok(bundle_of(daemon, &donor.id).join("shm").to_string_lossy().into_owned());
            }
            (_, Some(other)) => other.clone_into(&mut name),
            _ => return Err(Error::new(Kind::Internal, compat::not_shareable(&donor.id))),
        }
    }
    Err(Error::new(Kind::Internal, compat::not_shareable(&name)))
}

async fn mounts_of(daemon: &Arc<Daemon>, record: &Record) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for (path, options) in record.host_config.tmpfs.iter().flatten() {
        all.push(mounts::specified_tmpfs(path, options)?);
    }
    for (number, planned) in record.mounts.iter().enumerate() {
        let source = match planned.shown.kind.as_str() {
            "image" => daemon.mount_image(record, planned, number).await?,
            "volume" => daemon.mount_volume(record, planned, all.len()).await?,
            "bind" => bind_source(planned).await?,
            _ => PathBuf::new(),
        };
        all.push(mounts::specified(planned, &source.to_string_lossy()));
    }
    Ok(all)
}

/// Where a bind is from; it may be on a file system that does not answer.
async fn bind_source(planned: &mounts::Planned) -> Result<PathBuf> {
    let (source, makes) = (PathBuf::from(&planned.shown.source), planned.makes_source);
    blocking(move || {
        if !source.exists() {
            if !makes {
                return Err(Error::invalid(compat::no_bind_source(&source.to_string_lossy())));
            }
            make_folder(&source, 0o755)?;
        }
        Ok(source)
    })
    .await
}

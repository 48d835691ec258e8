//! Mounts of a service's containers.

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::objects::container::{BindOptions, Mount, MountKind, TmpfsOptions, VolumeOptions};
use ketch_cluster::objects::{Driver, Given};
use ketch_engine_api::mount as api;

use crate::Refusal;
use crate::given;

/// What a bind's propagation is when its other options are given without one.
const PROPAGATION: &str = "rprivate";

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// # Errors
/// A type or propagation that there is not.
pub fn of(mount: api::Mount) -> Result<Mount, Refusal> {
    let mut of = Mount {
        kind: kind_of(&mount.kind)?,
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        bind: mount.bind_options.map(bind_of).transpose()?.unwrap_or_default(),
        image_subpath: mount.image_options.unwrap_or_default().subpath,
        ..Mount::default()
    };
    given::note(&mut of.given, Given::VolumeOptions, mount.volume_options.as_ref());
    given::note(&mut of.given, Given::TmpfsOptions, mount.tmpfs_options.as_ref());
    of.volume = mount.volume_options.map(volume_of).unwrap_or_default();
    of.tmpfs = mount.tmpfs_options.map(tmpfs_of).unwrap_or_default();
    Ok(of)
}

/// None is a bind: Docker's first.
fn kind_of(text: &str) -> Result<MountKind, Refusal> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "" | "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        "npipe" => MountKind::NamedPipe,
        "cluster" => MountKind::Cluster,
        "image" => MountKind::Image,
        _ => return Err(texts::mount_kind(text)),
    })
}

fn bind_of(options: api::BindOptions) -> Result<BindOptions, Refusal> {
    let mut propagation = options.propagation.to_ascii_lowercase();
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation.as_str()) {
        return Err(texts::mount_propagation(&options.propagation));
    }
    if propagation.is_empty() && options != api::BindOptions::default() {
        PROPAGATION.clone_into(&mut propagation);
    }
    Ok(BindOptions {
        propagation,
        non_recursive: options.non_recursive,
        create_mountpoint: options.create_mountpoint,
        read_only_non_recursive: options.read_only_non_recursive,
        read_only_force_recursive: options.read_only_force_recursive,
    })
}

fn volume_of(options: api::VolumeOptions) -> VolumeOptions {
    let driver = |it: api::Driver| Driver { name: it.name, options: it.options.unwrap_or_default() };
    VolumeOptions {
        no_copy: options.no_copy,
        labels: options.labels.unwrap_or_default(),
        driver: options.driver_config.map(driver),
        subpath: options.subpath,
    }
}

fn tmpfs_of(options: api::TmpfsOptions) -> TmpfsOptions {
    TmpfsOptions {
        size_bytes: u64::try_from(options.size_bytes).unwrap_or_default(),
        mode: options.mode,
        options: options.options.unwrap_or_default(),
    }
}

#[must_use]
pub fn shown(mount: &Mount) -> api::Mount {
    let image = api::ImageOptions { subpath: mount.image_subpath.clone() };
    api::Mount {
        kind: kind_shown(mount.kind).to_owned(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        consistency: String::new(),
        bind_options: Some(bind_shown(&mount.bind)).filter(|it| *it != api::BindOptions::default()),
        volume_options: given::part(&mount.given, Given::VolumeOptions, volume_shown(&mount.volume)),
        image_options: Some(image).filter(|it| !it.subpath.is_empty()),
        tmpfs_options: given::part(&mount.given, Given::TmpfsOptions, tmpfs_shown(&mount.tmpfs)),
    }
}

fn kind_shown(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::NamedPipe => "npipe",
        MountKind::Cluster => "cluster",
        MountKind::Image => "image",
    }
}

fn bind_shown(options: &BindOptions) -> api::BindOptions {
    api::BindOptions {
        propagation: options.propagation.clone(),
        non_recursive: options.non_recursive,
        create_mountpoint: options.create_mountpoint,
        read_only_non_recursive: options.read_only_non_recursive,
        read_only_force_recursive: options.read_only_force_recursive,
    }
}

fn volume_shown(options: &VolumeOptions) -> api::VolumeOptions {
    let driver = |it: &Driver| api::Driver {
        name: it.name.clone(),
        options: Some(it.options.clone()).filter(|options| !options.is_empty()),
    };
    api::VolumeOptions {
        no_copy: options.no_copy,
        labels: Some(options.labels.clone()).filter(|labels| !labels.is_empty()),
        subpath: options.subpath.clone(),
        driver_config: options.driver.as_ref().map(driver),
    }
}

fn tmpfs_shown(options: &TmpfsOptions) -> api::TmpfsOptions {
    api::TmpfsOptions {
        size_bytes: i64::try_from(options.size_bytes).unwrap_or(i64::MAX),
        mode: options.mode,
        options: Some(options.options.clone()).filter(|options| !options.is_empty()),
    }
}

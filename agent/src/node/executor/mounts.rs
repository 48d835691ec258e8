//! A service's mounts in the engine's terms. Pure.

use ketch_cluster::objects::container::{Mount, MountKind, VolumeOptions as Options};
use ketch_engine_api::mount::{self, BindOptions, Driver, ImageOptions, TmpfsOptions, VolumeOptions};

/// One of them; the error is why there is no such mount here.
pub(super) fn mount(asked: &Mount) -> Result<mount::Mount, String> {
    let mut mount = mount::Mount {
        source: asked.source.clone(),
        target: asked.target.clone(),
        read_only: asked.read_only,
        consistency: asked.consistency.clone(),
        ..mount::Mount::default()
    };
    match asked.kind {
        MountKind::Bind => {
            "bind".clone_into(&mut mount.kind);
            mount.bind_options = Some(BindOptions {
                propagation: asked.bind.propagation.clone(),
                non_recursive: asked.bind.non_recursive,
                create_mountpoint: asked.bind.create_mountpoint,
                read_only_non_recursive: asked.bind.read_only_non_recursive,
                read_only_force_recursive: asked.bind.read_only_force_recursive,
            });
        }
        MountKind::Volume => {
            "volume".clone_into(&mut mount.kind);
            mount.volume_options = Some(volume(&asked.volume));
        }
        MountKind::Tmpfs => {
            "tmpfs".clone_into(&mut mount.kind);
            let options = asked.tmpfs.options.clone();
            mount.tmpfs_options = Some(TmpfsOptions {
                size_bytes: i64::try_from(asked.tmpfs.size_bytes).unwrap_or(i64::MAX),
                mode: asked.tmpfs.mode,
                options: Some(options).filter(|all| !all.is_empty()),
            });
        }
        MountKind::Image => {
            "image".clone_into(&mut mount.kind);
            mount.image_options = Some(ImageOptions { subpath: asked.image_subpath.clone() });
        }
        MountKind::NamedPipe => {
            return Err(format!("invalid mount {:?}: named pipes are of Windows", asked.target));
        }
        MountKind::Cluster => {
            return Err(format!("invalid mount {:?}: this node has no cluster volumes (CSI)", asked.target));
        }
    }
    Ok(mount)
}

fn volume(asked: &Options) -> VolumeOptions {
    VolumeOptions {
        no_copy: asked.no_copy,
        labels: Some(asked.labels.clone()).filter(|labels| !labels.is_empty()),
        subpath: asked.subpath.clone(),
        driver_config: asked.driver.as_ref().map(|driver| Driver {
            name: driver.name.clone(),
            options: Some(driver.options.clone()).filter(|options| !options.is_empty()),
        }),
    }
}

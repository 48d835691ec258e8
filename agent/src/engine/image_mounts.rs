//! Mounts of images (`--mount type=image`): an image's files in a container, read-only. What holds the image's layers is a root of
//! its own beside the container's, until that goes; an image that is removed by force is still there for the container.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::Record;
use super::lifecycle::{bundle_of, make_folder};
use super::mounts::Planned;
use super::root;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::image::held;
use crate::volume::subpath_of;

impl Daemon {
    /// Finds the images that a container mounts, and holds them.
    ///
    /// # Errors
    /// No such image; the disk. What was held goes with the container's root.
    pub(super) async fn hold_images(self: &Arc<Self>, record: &mut Record) -> Result<()> {
        if !record.mounts.iter().any(|one| one.shown.kind == "image") {
            return Ok(());
        }
        let bundle = bundle_of(self, &record.id);
        let (daemon, id, mut planned) = (Arc::clone(self), record.id.clone(), record.mounts.clone());
        record.mounts = blocking(move || {
            for (number, one) in planned.iter_mut().enumerate().filter(|(_, one)| one.shown.kind == "image") {
                // That of another container's mount is known by its id.
                let name = if one.image.is_empty() { &one.shown.name } else { &one.image };
                let image = daemon.images.find(name)?;
                let _rootfs = daemon.images.prepare(&image, &held(&id, number))?;
                one.image = image.id.to_string();
                one.shown.source = place(&bundle, number).to_string_lossy().into_owned();
            }
            Ok(planned)
        })
        .await?;
        Ok(())
    }

    /// Mounts an image in the bundle, and gives the place of what is asked for of it.
    ///
    /// # Errors
    /// The kernel; the image has no such folder or file, or it is a link that leads out.
    pub(super) async fn mount_image(
        self: &Arc<Self>,
        record: &Record,
        planned: &Planned,
        number: usize,
    ) -> Result<PathBuf> {
        let bundle = bundle_of(self, &record.id);
        let (daemon, root, subpath) = (Arc::clone(self), held(&record.id, number), planned.subpath.clone());
        blocking(move || {
            let whole = place(&bundle, number);
            make_folder(&whole, 0o700)?;
            root::mount(&[daemon.images.rootfs(&root)?.read_only()], &whole)?;
            if subpath.is_empty() {
                return Ok(whole);
            }
            let part = bundle.join(format!("image-{number}-part"));
            root::mount_opened(&subpath_of(&whole, &subpath)?, &part)?;
            Ok(part)
        })
        .await
    }
}

fn place(bundle: &Path, number: usize) -> PathBuf {
    bundle.join(format!("image-{number}"))
}

//! Places to work in that are nobody's container: a folder, and an image's root that may be written to. Both go with what
//! holds them, and when the daemon starts; neither is in any table.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Images;
use super::staging::{Staged, make_folder};
use super::state::{Image, Layer};
use crate::error::{Error, Result};
use crate::overlay::Overlay;

/// A folder that only root enters.
#[derive(Debug)]
pub struct Scratch(Staged);

/// An image's root with an upper folder of its own, mounted where no path leads to.
#[derive(Debug)]
pub struct Work {
    /// In front of the folder: the mount goes first.
    root: OwnedFd,
    staged: Staged,
    _layers: Vec<Arc<Layer>>,
}

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Work {
    /// The root.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// What has been changed.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.staged.path().join("upper")
    }
}

impl Images {
    /// A new folder, empty. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn scratch(&self) -> Result<Scratch> {
        let made = self.staging().folder().map(Scratch);
        made.map_err(|error| Error::internal("making a folder to work in", &error))
    }

    /// Mounts an image's layers, or nothing, to be changed. Blocks.
    ///
    /// # Errors
    /// The disk, the kernel.
    pub fn work_on(&self, image: Option<&Image>) -> Result<Work> {
        let failed = |error: io::Error| Error::internal("mounting an image to work on", &error);
        let staged = self.staging().folder().map_err(failed)?;
        for name in ["upper", "work", "empty"] {
            make_folder(&staged.path().join(name)).map_err(failed)?;
        }
        let layers = image.map(|image| image.layers.clone()).unwrap_or_default();
        let mut lower: Vec<PathBuf> = Vec::new();
        for layer in layers.iter().rev().map(|layer| self.folders().layer(&layer.record)) {
            // overlayfs takes none twice; the uppermost counts.
            if !lower.contains(&layer) {
                lower.push(layer);
            }
        }
        super::snapshot::like_root(
            lower.first().map(PathBuf::as_path),
            &staged.path().join("upper"),
            self.ids().root(),
        )
        .map_err(failed)?;
        if lower.is_empty() {
            // overlayfs wants one.
            lower.push(staged.path().join("empty"));
        }
        let (upper, work) = (staged.path().join("upper"), staged.path().join("work"));
        let root = mount(&lower, &upper, &work).map_err(failed)?;
        Ok(Work { root, staged, _layers: layers })
    }

    /// The root of a container that does not run, to be changed. Blocks.
    ///
    /// # Errors
    /// It has none; the kernel.
    pub fn writable(&self, container: &str) -> Result<OwnedFd> {
        let rootfs = self.rootfs(container)?;
        mount(&rootfs.lower, &rootfs.upper, &rootfs.work)
            .map_err(|error| Error::internal(format_args!("mounting the root of {container}"), &error))
    }
}

fn mount(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    Overlay { lower: lower.iter().map(PathBuf::as_path).collect(), writable: Some((upper, work)) }.mount()
}

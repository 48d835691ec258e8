//! Containers' roots: an upper folder of their own over an image's layers.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ketch_shim_api::types::Mount;

use super::Images;
use super::digest::Digest;
use super::staging::make_folder;
use super::state::{Image, SNAPSHOTS, Snapshot, SnapshotRecord};
use crate::blocking::drop_later;
use crate::error::{Error, Kind, Result};
use crate::remap::Owner;
use crate::store::Table;

/// A container's root.
#[derive(Clone, Debug, PartialEq)]
pub struct Rootfs {
    /// What a shim mounts at the bundle's root.
    pub mounts: Vec<Mount>,
    /// The layers' folders, the uppermost first.
    pub lower: Vec<PathBuf>,
    /// What the container has changed.
    pub upper: PathBuf,
    /// overlayfs's own.
    pub work: PathBuf,
}

impl Images {
    /// Makes a container's root; one that is there already is given again. The layers below it stay until it is released. It is
    /// remembered with whatever is written next, which is its container.
    ///
    /// # Errors
    /// The disk.
    pub fn prepare(&self, image: &Image, container: &str) -> Result<Rootfs> {
        self.prepare_of(Snapshot { image: image.id, layers: image.layers.clone() }, container)
    }

    /// The same without any image.
    ///
    /// # Errors
    /// The disk.
    pub fn prepare_empty(&self, container: &str) -> Result<Rootfs> {
        self.prepare_of(Snapshot { image: Digest::of(b""), layers: Vec::new() }, container)
    }

    fn prepare_of(&self, snapshot: Snapshot, container: &str) -> Result<Rootfs> {
        if self.has_root(container) {
            return self.rootfs(container);
        }
        let failed = |error: io::Error| {
            Error::internal(format_args!("making the root of container {container}"), &error)
        };
        let lower = snapshot.layers.last().map(|layer| self.folders().layer(&layer.record));
        let staged = self.staging().folder().map_err(failed)?;
        for name in ["upper", "work"] {
            make_folder(&staged.path().join(name)).map_err(failed)?;
        }
        like_root(lower.as_deref(), &staged.path().join("upper"), self.ids().root()).map_err(failed)?;
        let record = SnapshotRecord {
            image: snapshot.image,
            layers: snapshot.layers.iter().map(|layer| layer.diff_id).collect(),
        };
        let folder = self.folders().snapshot(container);
        // A leftover without a record is nobody's.
        drop(self.staging().discard(&folder));
        staged.keep(&folder).map_err(failed)?;
        // Looked at and taken in one step: an image that goes meanwhile is not what a container is made of.
        let mut state = self.state();
        // One without layers, on which a build begins, is none that could go.
        let is_here = snapshot.layers.is_empty() || state.images.contains_key(&snapshot.image);
        let put = match is_here {
            true => self.store().put_with_next(SNAPSHOTS, container, &record),
            false => Err(Error::not_found(crate::compat::no_such_image(&snapshot.image.to_string()))),
        };
        if let Err(error) = put {
            drop(state);
            drop(self.staging().discard(&folder));
            return Err(error);
        }
        let _none = state.snapshots.insert(container.to_owned(), snapshot);
        drop(state);
        self.rootfs(container)
    }

    /// A container's root. Does not block.
    ///
    /// # Errors
    /// It has none.
    pub fn rootfs(&self, container: &str) -> Result<Rootfs> {
        let state = self.state();
        if let Some(image) = state.broken.get(container) {
            let text = format!("the root of container {container} has lost a layer of its image {image}");
            return Err(Error::new(Kind::Internal, text));
        }
        let snapshot = state
            .snapshots
            .get(container)
            .ok_or_else(|| Error::not_found(format!("container {container} has no root")))?;
        let folder = self.folders().snapshot(container);
        let mut lower: Vec<PathBuf> = Vec::new();
        for layer in snapshot.layers.iter().rev() {
            // One that is there twice counts where it is the uppermost, which hides all that the other would show; overlayfs
            // takes none twice.
            let layer = self.folders().layer(&layer.record);
            if !lower.contains(&layer) {
                lower.push(layer);
            }
        }
        lower.push(self.folders().ground.clone());
        Ok(Rootfs::new(lower, folder.join("upper"), folder.join("work")))
    }

    /// The images that containers' roots, and the images that they mount, are made of, with the containers. Does not block.
    #[must_use]
    pub fn roots(&self) -> Vec<(String, super::digest::Digest)> {
        self.state()
            .snapshots
            .iter()
            .map(|(root, snapshot)| (owner(root).to_owned(), snapshot.image))
            .collect()
    }

    /// Whether there is anything of a container's root, a broken one too. Does not block.
    #[must_use]
    pub fn has_root(&self, container: &str) -> bool {
        let state = self.state();
        state.snapshots.contains_key(container) || state.broken.contains_key(container)
    }

    /// Removes a container's root, with what holds the images that it mounts, and the layers that only they had. Nothing of it
    /// may be mounted any more.
    ///
    /// # Errors
    /// The disk.
    pub fn release(&self, container: &str) -> Result<()> {
        self.release_with(&[], container)
    }

    /// The same together with what else is remembered by the container's id, in one step.
    ///
    /// # Errors
    /// The disk; nothing is removed then.
    pub fn release_with(&self, tables: &[Table], container: &str) -> Result<()> {
        self.store().remove_from(&[&[SNAPSHOTS], tables].concat(), container)?;
        let mut state = self.state();
        let _image = state.broken.remove(container);
        drop(state.snapshots.remove(container));
        let further =
            state.snapshots.keys().chain(state.broken.keys()).filter(|root| owner(root) == container);
        let further: Vec<String> = further.cloned().collect();
        drop(state);
        drop_later(self.staging().discard(&self.folders().snapshot(container)));
        for root in further {
            self.release_with(&[], &root)?;
        }
        self.collect_garbage()
    }

    /// Takes away a folder on the data root's disk that is nobody's any more, at once for whoever looks.
    pub fn discard(&self, folder: &Path) {
        drop_later(self.staging().discard(folder));
    }
}

/// What holds the `number`th mount of a container as a root of its own: it has an image's layers, and changes nothing.
#[must_use]
pub fn held(container: &str, number: usize) -> String {
    format!("{container}-{number}")
}

/// The container of a root, or of what holds an image that it mounts.
#[must_use]
pub(super) fn owner(root: &str) -> &str {
    root.split_once('-').map_or(root, |(container, _)| container)
}

impl Rootfs {
    /// The image's files alone, to be mounted where nothing is written: in the place of the ground is the upper folder, which
    /// is empty, as overlayfs wants two at least.
    #[must_use]
    pub fn read_only(&self) -> Mount {
        let layers = self.lower.iter().rev().skip(1).rev().chain([&self.upper]);
        let layers: Vec<_> = layers.map(|layer| layer.to_string_lossy().into_owned()).collect();
        Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![
                format!("lowerdir={}", layers.join(":")),
                "index=off".to_owned(),
                "redirect_dir=off".to_owned(),
                "metacopy=off".to_owned(),
            ],
        }
    }

    fn new(lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let layers: Vec<_> = lower.iter().map(|layer| text(layer)).collect();
        // More than a page of them is shortened by whoever mounts: they are beside each other.
        let mount = Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![
                format!("lowerdir={}", layers.join(":")),
                format!("upperdir={}", text(&upper)),
                format!("workdir={}", text(&work)),
                // Whatever the kernel's defaults are: what is changed is to be whole in the upper folder.
                "index=off".to_owned(),
                "redirect_dir=off".to_owned(),
                "metacopy=off".to_owned(),
            ],
        };
        Self { mounts: vec![mount], lower, upper, work }
    }
}

/// A root is as the image's uppermost layer has it: overlayfs shows the upper folder's mode and owner. That of no image is
/// `root`'s.
pub(super) fn like_root(lower: Option<&Path>, upper: &Path, root: Owner) -> io::Result<()> {
    let (mut mode, (mut user, mut group)) = (0o755, root);
    if let Some(lower) = lower {
        let about = fs::metadata(lower)?;
        (mode, user, group) = (about.mode() & 0o7777, about.uid(), about.gid());
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(mode))?;
    std::os::unix::fs::chown(upper, Some(user), Some(group))
}

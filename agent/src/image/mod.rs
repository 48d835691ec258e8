//! Images: content by digest, layers unpacked for overlayfs, names, and containers' roots on top.
//!
//! ```text
//! tar of an archive --load--+
//! registry ----------pull---+--> staging --verify--> blobs/<hex>, layers/<number> --> store: layers, images, names
//! container's upper --commit-+                                                  |
//!                                                      prepare --> snapshots/<container>/{upper,work}
//! ```
//! Knows neither the API nor containers but by id. Everything here blocks on the disk but what says otherwise: a caller in an
//! async task goes through `spawn_blocking`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use ketch_engine_api::image::ImageConfig;
use ketch_node::measure::{Counter, Spans};

use crate::blocking::drop_later;
use crate::compat;
use crate::error::{Error, Kind, Result};
use crate::events::Events;
use crate::locks::locked;
use crate::remap::Ids;
use crate::store::Store;

mod ahead;
pub mod changes;
pub mod digest;
mod direct;
pub mod giving;
mod ground;
pub mod import;
pub(crate) mod inflate;
mod layers;
mod list;
pub mod load;
mod load_layers;
mod marks;
pub(crate) mod pack;
pub mod progress;
pub mod reference;
pub mod registry;
mod remove;
pub mod save;
pub mod sharing;
mod snapshot;
pub mod spec;
mod staging;
mod state;
mod step;
mod tag;
pub mod unpack;
mod work;

pub use layers::Bounds;
pub use list::ListOptions;
pub use remove::{PruneOptions, RemoveOptions, User};
pub use snapshot::{Rootfs, held};
pub use state::{Blob, Image, ImageRecord, Layer, LayerRecord};
pub use step::Step;
pub use work::{Scratch, Work};

use digest::Digest;
use reference::{AnyReference, Reference};
use staging::Staging;
use state::{Folders, State};

/// All images; clones share them.
#[derive(Clone, Debug)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folders: Folders,
    staging: Arc<Staging>,
    /// Layers' folders, while they are filled.
    unpacking: Arc<Staging>,
    store: Store,
    events: Arc<Events>,
    /// Never held over a wait for the disk: whoever reads it waits for nobody's.
    state: Mutex<State>,
    /// Held by whoever changes what is on the disk, from its look at the state to the state's own change: one at a time.
    changing: Mutex<()>,
    registries: registry::Registries,
    giving: giving::Giving,
    marked: marks::Marked,
    bounds: Mutex<Bounds>,
    ids: Ids,
    /// Held by the one prune that runs.
    pruning: Mutex<()>,
    pulls: Pulls,
}

/// Pulls so far.
#[derive(Debug, Default)]
pub struct Pulls {
    pub(crate) took: Spans,
    pub(crate) failed: Counter,
}

impl Image {
    /// What it runs on.
    #[must_use]
    pub fn platform(&self) -> spec::Platform {
        self.file.platform()
    }

    /// What a container is started with.
    #[must_use]
    pub fn config(&self) -> ImageConfig {
        self.file.config.clone().unwrap_or_default()
    }
}

impl Images {
    /// Opens what is below the data root, and takes away what a killed daemon has left half done.
    ///
    /// # Errors
    /// The disk; a data root whose path overlayfs can't be told.
    pub fn open(data_root: &Path, store: Store, events: Arc<Events>) -> Result<Self> {
        Self::open_for(data_root, &Ids::default(), store, events)
    }

    /// The same where containers' users are others on the host: all that is below the data root is theirs.
    ///
    /// # Errors
    /// As [`Images::open`].
    pub(crate) fn open_for(data_root: &Path, ids: &Ids, store: Store, events: Arc<Events>) -> Result<Self> {
        let data_root = std::path::absolute(data_root).map_err(|error| {
            Error::internal(format_args!("the data root {}", data_root.display()), &error)
        })?;
        if !state::fits_an_option(&data_root) {
            return Err(Error::invalid(format!(
                "the data root {} has a colon, a comma or a backslash, which options of an overlay can't hold",
                data_root.display()
            )));
        }
        let folders = Folders {
            blobs: data_root.join("image/blobs"),
            layers: data_root.join("layers"),
            snapshots: data_root.join("snapshots"),
            ground: data_root.join("image/ground"),
        };
        let clearing = |folder: &Path, error: &std::io::Error| {
            Error::internal(format_args!("clearing {}", folder.display()), error)
        };
        let staging = data_root.join("image/staging");
        let staging = Staging::open(staging.clone()).map_err(|error| clearing(&staging, &error))?;
        let unpacking = data_root.join("image/unpacking");
        let unpacking =
            Staging::open_spread(unpacking.clone()).map_err(|error| clearing(&unpacking, &error))?;
        ground::lay(&folders.ground, ids)
            .map_err(|error| Error::internal(format_args!("making {}", folders.ground.display()), &error))?;
        let state = Mutex::new(State::open(&folders, &store, &staging)?);
        Ok(Self(Arc::new(Inner {
            folders,
            staging,
            unpacking,
            store,
            events,
            state,
            changing: Mutex::default(),
            registries: registry::Registries::default(),
            giving: giving::Giving::default(),
            marked: marks::Marked::default(),
            bounds: Mutex::default(),
            ids: ids.clone(),
            pruning: Mutex::default(),
            pulls: Pulls::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0.state)
    }

    /// To be had before the state, by who changes both.
    fn changing(&self) -> MutexGuard<'_, ()> {
        locked(&self.0.changing)
    }

    fn folders(&self) -> &Folders {
        &self.0.folders
    }

    /// Whose the files of roots are.
    pub(crate) fn ids(&self) -> &Ids {
        &self.0.ids
    }

    fn staging(&self) -> &Arc<Staging> {
        &self.0.staging
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    /// The image of a name, a name and a digest, an id, or the beginning of an id that no other has. Does not block.
    ///
    /// # Errors
    /// There is none, or the name is none: dockerd's texts.
    pub fn find(&self, name: &str) -> Result<Arc<Image>> {
        self.state().find(name)
    }

    /// The same, if it is for this platform.
    ///
    /// # Errors
    /// There is none, or it is for another: dockerd's texts.
    pub fn find_for(&self, name: &str, platform: &spec::Platform) -> Result<Arc<Image>> {
        let image = self.find(name)?;
        let offered = image.platform();
        if platform.fitness(&offered).is_some() {
            return Ok(image);
        }
        Err(Error::not_found(format!(
            "image with reference {name} was found but its platform ({}) does not match the specified platform ({})",
            offered.text(),
            platform.text()
        )))
    }

    /// The image of an id. Does not block.
    #[must_use]
    pub fn with_id(&self, id: Digest) -> Option<Arc<Image>> {
        self.state().images.get(&id).cloned()
    }

    /// How many there are. Does not block.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state().images.len()
    }

    /// The bytes of all layers, each counted once. Does not block.
    #[must_use]
    pub fn layers_size(&self) -> u64 {
        self.state().layers.values().map(|layer| layer.record.size).sum()
    }

    /// Removes whatever nothing uses.
    ///
    /// # Errors
    /// The disk.
    pub fn collect_garbage(&self) -> Result<()> {
        if !self.state().has_garbage() {
            return Ok(());
        }
        let changing = self.changing();
        let garbage = self.state().take_garbage();
        let unmarked = self.unmark(garbage.blobs());
        let taken = garbage.take_away(self.folders(), self.store(), self.staging());
        drop(changing);
        drop_later(taken?);
        unmarked
    }

    fn registries(&self) -> &registry::Registries {
        &self.0.registries
    }

    /// Changes how registries are reached.
    pub fn set_registries(&self, settings: registry::Settings) {
        self.0.registries.set(settings);
    }

    /// Changes what a layer may have.
    pub fn set_bounds(&self, bounds: Bounds) {
        *locked(&self.0.bounds) = bounds;
    }

    /// Tells that something happened to an image that is known by a name.
    fn publish_as(&self, action: &str, id: &str, image: &Image, name: &str) {
        let mut attributes = image.labels().cloned().unwrap_or_default();
        let _none = attributes.insert("name".to_owned(), name.to_owned());
        self.0.events.publish("image", action, id, attributes);
    }

    /// Tells that something happened to an image.
    fn publish(&self, action: &str, image: &Image, name: &str) {
        let mut attributes = image.labels().cloned().unwrap_or_default();
        let _none = attributes.insert("name".to_owned(), name.to_owned());
        self.0.events.publish("image", action, &image.id.to_string(), attributes);
    }
}

impl State {
    fn find(&self, name: &str) -> Result<Arc<Image>> {
        let reference: AnyReference =
            name.parse().map_err(|error: reference::ReferenceError| Error::invalid(error.to_string()))?;
        let reference = match reference {
            AnyReference::Id(id) => {
                let found = self.images.get(&id).cloned();
                return found.ok_or_else(|| Error::not_found(compat::no_such_image(&id.to_string())));
            }
            AnyReference::Named(reference) => reference.with_default_tag(),
        };
        let by_name = self.id_of(&reference).and_then(|id| self.images.get(&id));
        by_name
            .or_else(|| self.by_prefix(name))
            .cloned()
            .ok_or_else(|| Error::new(Kind::NotFound, compat::no_such_image(&reference.familiar())))
    }

    /// The digest decides where a reference has both.
    fn id_of(&self, reference: &Reference) -> Option<Digest> {
        let key = match reference.digest {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        self.names.get(&key).copied()
    }

    fn by_prefix(&self, name: &str) -> Option<&Arc<Image>> {
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(image), None) => Some(image),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod sharing_tests;

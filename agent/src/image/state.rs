//! What there is: blobs, layers, images, names and containers' roots, in memory as the store has them.
//!
//! A thing is in use while anything holds its `Arc` beside the maps here: an image its layers, a pull what it has fetched, a
//! container's root its layers. Garbage is what only the maps hold; nothing else is ever removed. What is on disk without
//! being here, or the reverse, is mended when the daemon starts: every change makes files first and the record last, and
//! removes in the other order. Only what the file system says is not there is gone: whatever else a disk answers when the daemon
//! starts ends the start, and an image that this version can't read is kept for the one that can.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::digest::Digest;
use super::reference::Reference;
use super::spec::{Descriptor, ImageFile, chain_ids};
use super::staging::{Staged, Staging, make_folder};
use crate::error::{Error, Result};
use crate::store::{Store, Table};

pub(super) const LAYERS: Table = Table("layers");
pub(super) const IMAGES: Table = Table("images");
pub(super) const NAMES: Table = Table("image_names");
pub(super) const SNAPSHOTS: Table = Table("snapshots");

/// A file named by its digest.
#[derive(Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A layer that is unpacked.
#[derive(Debug)]
pub struct Layer {
    /// Of its tar.
    pub diff_id: Digest,
    /// What is kept of it.
    pub record: LayerRecord,
    /// The blobs that it can be made from again.
    pub blobs: Vec<Arc<Blob>>,
    /// What was made of a plain one for a push; made again after a restart.
    pub(super) gzip: Mutex<Option<Arc<Blob>>>,
}

/// The same in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its folder's name.
    pub number: u64,
    /// Of its files, in bytes.
    pub size: u64,
    /// Of its tar, in bytes.
    pub tar_size: u64,
    /// How it came.
    pub forms: Vec<Descriptor>,
}

/// An image that is here.
#[derive(Debug)]
pub struct Image {
    /// Its config's digest.
    pub id: Digest,
    /// Its config, read.
    pub file: ImageFile,
    /// Its layers, the lowest first.
    pub layers: Vec<Arc<Layer>>,
    /// What is kept of it.
    pub record: ImageRecord,
    /// The names of its stacks of layers, the whole one last.
    pub chain: Vec<Digest>,
    /// Its config and manifests.
    pub(super) blobs: Vec<Arc<Blob>>,
}

/// The same in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What it was made from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// It was made here by a build or a commit: a build's cache may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built: bool,
    /// RFC 3339: when it got a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tagged: Option<String>,
    /// Manifests that it came by.
    #[serde(default)]
    pub manifests: Vec<Digest>,
}

/// What is kept for an image that can't be read.
#[derive(Debug)]
pub(super) struct Unread {
    _layers: Vec<Arc<Layer>>,
    _blobs: Vec<Arc<Blob>>,
}

/// An image of the store, as it is found on the disk.
enum Found {
    Whole(Arc<Image>),
    /// A file or a layer of it is not there.
    Gone(String),
    Unread(Unread),
}

/// A container's root, in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub(super) image: Digest,
    /// The lowest first.
    pub(super) layers: Vec<Digest>,
}

/// A container's root.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) image: Digest,
    pub(super) layers: Vec<Arc<Layer>>,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) blobs: PathBuf,
    pub(super) layers: PathBuf,
    pub(super) snapshots: PathBuf,
    /// What is below every container's layers.
    pub(super) ground: PathBuf,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<Digest, Arc<Blob>>,
    pub(super) layers: HashMap<Digest, Arc<Layer>>,
    pub(super) images: HashMap<Digest, Arc<Image>>,
    /// By name with tag, or with digest.
    pub(super) names: BTreeMap<Reference, Digest>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    /// Containers' roots that a layer below is lost of, with their images: what the containers wrote is kept.
    pub(super) broken: BTreeMap<String, Digest>,
    /// Images that this version can't read, by their keys in the store: another may.
    pub(super) unread: BTreeMap<String, Unread>,
    next_layer: u64,
}

impl Layer {
    /// Whether a blob is one that it came as, or that was made of it for a push.
    pub(super) fn has_form(&self, digest: Digest) -> bool {
        // One that is being made just now has been sent nowhere.
        let made = self.gzip.try_lock().ok().and_then(|gzip| gzip.as_ref().map(|blob| blob.digest));
        made == Some(digest) || self.record.forms.iter().any(|form| form.digest == digest)
    }
}

impl Image {
    /// The bytes of all its layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.record.size).sum()
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.file.config.as_ref()?.labels.as_ref()
    }
}

impl Folders {
    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(super) fn layer(&self, layer: &LayerRecord) -> PathBuf {
        self.layer_of(layer.number)
    }

    fn layer_of(&self, number: u64) -> PathBuf {
        self.layers.join(number.to_string())
    }

    pub(super) fn snapshot(&self, container: &str) -> PathBuf {
        self.snapshots.join(container)
    }
}

impl State {
    /// What the store has and the disk too; the rest of both is taken away.
    pub(super) fn open(folders: &Folders, store: &Store, staging: &Arc<Staging>) -> Result<Self> {
        for folder in [&folders.blobs, &folders.layers, &folders.snapshots] {
            make_folder(folder)
                .map_err(|error| Error::internal(format_args!("making {}", folder.display()), &error))?;
        }
        let mut state = Self::default();
        for path in entries(&folders.blobs)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(digest) = name.and_then(|name| Digest::of_hex(name).ok()) {
                let about = fs::symlink_metadata(&path).map_err(|error| reading(&path, &error))?;
                let _none = state.blobs.insert(digest, Arc::new(Blob { digest, size: about.len() }));
            } else {
                drop(staging.discard(&path));
            }
        }
        for (key, record) in store.all::<LayerRecord>(LAYERS)? {
            state.open_layer(folders, store, &key, record)?;
        }
        for (key, record) in store.all::<ImageRecord>(IMAGES)? {
            match state.open_image(folders, &key, record)? {
                Found::Whole(image) => drop(state.images.insert(image.id, image)),
                Found::Gone(why) => {
                    warn!("the image {key} is not whole any more, {why}: it is forgotten");
                    store.remove(IMAGES, &key)?;
                }
                Found::Unread(kept) => drop(state.unread.insert(key, kept)),
            }
        }
        for (key, id) in store.all::<Digest>(NAMES)? {
            match key.parse::<Reference>() {
                Ok(name) if state.images.contains_key(&id) => drop(state.names.insert(name, id)),
                _ if state.unread.contains_key(&id.to_string()) => {}
                _ => store.remove(NAMES, &key)?,
            }
        }
        for (container, record) in store.all::<SnapshotRecord>(SNAPSHOTS)? {
            let layers = record.layers.iter().map(|layer| state.layers.get(layer).cloned());
            match layers.collect::<Option<Vec<_>>>() {
                Some(layers) => {
                    drop(state.snapshots.insert(container, Snapshot { image: record.image, layers }));
                }
                None => {
                    warn!("the root of container {container} has lost a layer");
                    let _none = state.broken.insert(container, record.image);
                }
            }
        }
        state.sweep_folders(folders, store, staging)?;
        Ok(state)
    }

    fn open_layer(&mut self, folders: &Folders, store: &Store, key: &str, record: LayerRecord) -> Result<()> {
        self.next_layer = self.next_layer.max(record.number + 1);
        let diff_id = key
            .parse::<Digest>()
            .map_err(|error| Error::internal(format_args!("reading the record of layer {key}"), &error))?;
        let folder = folders.layer(&record);
        if !is_there(&folder)? {
            warn!("the folder of layer {diff_id} is gone: it is forgotten");
            return store.remove(LAYERS, key);
        }
        if !fs::metadata(&folder).map_err(|error| reading(&folder, &error))?.is_dir() {
            return Err(reading(&folder, &io::ErrorKind::NotADirectory.into()));
        }
        let blobs = record.forms.iter().filter_map(|form| self.blobs.get(&form.digest).cloned()).collect();
        let _none =
            self.layers.insert(diff_id, Arc::new(Layer { diff_id, record, blobs, gzip: Mutex::default() }));
        Ok(())
    }

    fn open_image(&mut self, folders: &Folders, key: &str, record: ImageRecord) -> Result<Found> {
        let Ok(id) = key.parse::<Digest>() else {
            warn!("the image {key} has a name that this version can't read: it is kept, and not shown");
            return Ok(Found::Unread(self.all()));
        };
        let path = folders.blob(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(&path)? => {
                return Ok(Found::Gone("its config is gone".to_owned()));
            }
            Err(error) => return Err(reading(&path, &error)),
        };
        let file = match ImageFile::parse(&bytes) {
            Ok(file) => file,
            Err(error) => {
                warn!("the image {key} can't be read: {error}: it is kept, and not shown");
                return Ok(Found::Unread(self.unread(id, &bytes, &record)));
            }
        };
        Ok(self
            .put_together(id, file, record)
            .map_or_else(|error| Found::Gone(error.message), |image| Found::Whole(Arc::new(image))))
    }

    /// What an image has that can't be read: as many of its layers as can be made out, or all there are.
    fn unread(&mut self, id: Digest, config: &[u8], record: &ImageRecord) -> Unread {
        if Digest::of(config) != id {
            let kept = self.all();
            // What comes in of it is written in its place.
            drop(self.blobs.remove(&id));
            return kept;
        }
        let file: Option<Value> = serde_json::from_slice(config).ok();
        let layers = file.as_ref().and_then(|file| file.get("rootfs")?.get("diff_ids")?.as_array());
        let Some(layers) = layers else { return self.all() };
        let layer = |name: &Value| self.layers.get(&name.as_str()?.parse().ok()?).cloned();
        let Some(layers) = layers.iter().map(layer).collect() else { return self.all() };
        let blobs = record.manifests.iter().chain([&id]).filter_map(|blob| self.blobs.get(blob).cloned());
        Unread { _layers: layers, _blobs: blobs.collect() }
    }

    fn all(&self) -> Unread {
        Unread {
            _layers: self.layers.values().cloned().collect(),
            _blobs: self.blobs.values().cloned().collect(),
        }
    }

    /// Puts an image together of what is here.
    pub(super) fn image(&self, id: Digest, config: &[u8], record: ImageRecord) -> Result<Image> {
        let file = ImageFile::parse(config)
            .map_err(|error| Error::invalid(format!("the image's config can't be read: {error}")))?;
        self.put_together(id, file, record)
    }

    fn put_together(&self, id: Digest, file: ImageFile, record: ImageRecord) -> Result<Image> {
        let layers = file.rootfs.diff_ids.iter().map(|layer| {
            self.layers
                .get(layer)
                .cloned()
                .ok_or_else(|| Error::not_found(format!("the image's layer {layer} is not here")))
        });
        let layers = layers.collect::<Result<_>>()?;
        let blobs = record.manifests.iter().chain([&id]).filter_map(|blob| self.blobs.get(blob).cloned());
        let chain = chain_ids(&file.rootfs.diff_ids);
        Ok(Image { id, layers, chain, blobs: blobs.collect(), file, record })
    }

    /// Folders that no record names.
    fn sweep_folders(&mut self, folders: &Folders, store: &Store, staging: &Arc<Staging>) -> Result<()> {
        drop(self.take_garbage().take_away(folders, store, staging)?);
        let known: HashSet<PathBuf> =
            self.layers.values().map(|layer| folders.layer(&layer.record)).collect();
        let roots: HashSet<PathBuf> =
            self.snapshots.keys().chain(self.broken.keys()).map(|name| folders.snapshot(name)).collect();
        for (folder, known) in [(&folders.layers, known), (&folders.snapshots, roots)] {
            for path in entries(folder)?.iter().filter(|path| !known.contains(*path)) {
                drop(staging.discard(path));
            }
        }
        Ok(())
    }

    /// The number of a new layer's folder.
    pub(super) fn next_layer(&mut self) -> u64 {
        self.next_layer += 1;
        self.next_layer - 1
    }

    /// Whether there is anything that nothing holds.
    pub(super) fn has_garbage(&self) -> bool {
        self.layers.values().any(is_unused) || self.blobs.values().any(is_unused)
    }

    /// Forgets what nothing holds. Who does so is the one that is changing things, and takes it away before another does.
    pub(super) fn take_garbage(&mut self) -> Garbage {
        // Layers first: they hold blobs.
        let layers = self.layers.extract_if(|_, layer| is_unused(layer));
        let layers = layers.map(|(diff_id, layer)| (diff_id, layer.record.number)).collect();
        let blobs = self.blobs.extract_if(|_, blob| is_unused(blob)).map(|(digest, _)| digest).collect();
        Garbage { layers, blobs }
    }

    /// The names of an image, by text.
    pub(super) fn names_of(&self, id: Digest) -> impl Iterator<Item = &Reference> {
        self.names.iter().filter(move |(_, named)| **named == id).map(|(name, _)| name)
    }

    /// The images that were made from this one here.
    pub(super) fn has_children(&self, id: Digest) -> bool {
        self.images.values().any(|image| image.record.parent == Some(id))
    }
}

/// All that is in a folder; one that can't be read to its end is never taken for an empty one.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| reading(folder, &error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(|error| reading(folder, &error))
}

/// Whether there is anything of a name, be it a link to what is not there just now.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(reading(path, &error)),
    }
}

fn reading(path: &Path, error: &io::Error) -> Error {
    Error::internal(format_args!("reading {}", path.display()), error)
}

fn is_unused<T>(thing: &Arc<T>) -> bool {
    Arc::strong_count(thing) == 1
}

/// What is forgotten, and still on the disk.
#[derive(Debug)]
pub(super) struct Garbage {
    /// With their folders' numbers.
    layers: Vec<(Digest, u64)>,
    blobs: Vec<Digest>,
}

impl Garbage {
    pub(super) fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// Out of the store and of its place; it is gone from the disk when what this gives is dropped.
    pub(super) fn take_away(
        self,
        folders: &Folders,
        store: &Store,
        staging: &Arc<Staging>,
    ) -> Result<Vec<Staged>> {
        let mut taken = Vec::new();
        let mut outcome = Ok(());
        for (diff_id, number) in self.layers {
            // They are forgotten, and no later removal finds one that is left out: all are tried.
            match store.remove(LAYERS, &diff_id.to_string()) {
                Ok(()) => taken.push(staging.discard(&folders.layer_of(number))),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        taken.extend(self.blobs.iter().map(|digest| staging.discard(&folders.blob(*digest))));
        outcome.map(|()| taken)
    }
}

/// As a path that an option may hold: overlayfs splits its own at colons, and mounts split theirs at commas.
pub(super) fn fits_an_option(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains([':', ',', '\\']))
}

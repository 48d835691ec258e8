//! The images of a build's steps: each is its parent with what one instruction has changed, and is what the cache is made of.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Images;
use super::changes::open_folder;
use super::digest::{Digest, Summing};
use super::layers::Promised;
use super::pack::{Of, pack};
use super::spec::{History, ImageFile, Platform, RootFs};
use super::state::{Image, ImageRecord, Layer};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// A step that has been done.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What it was done to; nothing for the first of `FROM scratch`.
    pub parent: Option<Arc<Image>>,
    /// What it runs on, where there is no parent.
    pub platform: Platform,
    /// The container that did it; empty for none.
    pub container: String,
    /// The Dockerfile's maintainer.
    pub author: String,
    /// What the image's containers are started with.
    pub config: Value,
    /// The same with the step's own command: by this the cache is asked.
    pub container_config: Value,
    /// The command, for the history.
    pub command: String,
}

impl Images {
    /// Makes an image of what a container has changed. Blocks.
    ///
    /// # Errors
    /// It has no root; the disk.
    pub fn add_step(&self, step: &Step) -> Result<Arc<Image>> {
        let upper = self.rootfs(&step.container)?.upper;
        let image = self.add_step_of(step, &upper)?;
        self.publish("create", &image, &image.id.to_string());
        Ok(image)
    }

    /// Makes an image of the changes in a folder, which is an overlay's upper one. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn add_step_of(&self, step: &Step, upper: &Path) -> Result<Arc<Image>> {
        let layer = self.layer_of_changes(upper)?;
        let config = config(step, layer.as_deref())?;
        let parent = step.parent.as_ref().map(|parent| parent.id);
        self.add_image(&config, ImageRecord { parent, built: true, ..ImageRecord::default() })
    }

    /// What a build's cache restores: the parent with one more of the history's steps of another image, whose layer is here;
    /// nothing where that image's history tells of more layers than it has.
    ///
    /// # Errors
    /// The disk.
    pub fn restore_step(
        &self,
        parent: Option<&Arc<Image>>,
        of: &Image,
        config: &Value,
    ) -> Result<Option<Arc<Image>>> {
        let at = parent.map_or(0, |parent| parent.file.history.len());
        let history = of.file.history.get(..=at).unwrap_or_default();
        let layers = history.iter().filter(|step| !step.empty_layer).count();
        let Some(diff_ids) = of.file.rootfs.diff_ids.get(..layers) else { return Ok(None) };
        let mut file = json!({
            "architecture": of.file.architecture,
            "config": config,
            "container_config": {},
            "created": history.last().and_then(|step| step.created.clone()),
            "history": history,
            "os": of.platform().os,
            "rootfs": RootFs { kind: "layers".to_owned(), diff_ids: diff_ids.to_vec() },
        });
        for (key, text) in [("author", &of.file.author), ("variant", &of.file.variant)] {
            if !text.is_empty() {
                file[key] = json!(text);
            }
        }
        let bytes = encoded(&file)?;
        let parent = parent.map(|parent| parent.id);
        self.add_image(&bytes, ImageRecord { parent, built: true, ..ImageRecord::default() }).map(Some)
    }

    /// Makes an image another's child, as a cache has found it to be.
    ///
    /// # Errors
    /// The disk.
    pub fn adopt(&self, image: &Image, parent: &Image) -> Result<()> {
        let config = self.read_blob(image.id)?;
        let record = ImageRecord { parent: Some(parent.id), ..ImageRecord::default() };
        self.add_image(&config, record).map(drop)
    }

    /// The images that were made from this one here by builds and commits, or from nothing.
    #[must_use]
    pub fn built_from(&self, parent: Option<Digest>) -> Vec<Arc<Image>> {
        let state = self.state();
        let children =
            state.images.values().filter(|image| image.record.built && image.record.parent == parent);
        children.cloned().collect()
    }

    /// What has been changed in an overlay's upper folder, as a layer; `None` for nothing at all.
    pub(super) fn layer_of_changes(&self, upper: &Path) -> Result<Option<Arc<Layer>>> {
        let failed = |error: io::Error| Error::internal("packing what was changed", &error);
        let folder = open_folder(upper).map_err(failed)?;
        let (file, staged) = self.staging().file().map_err(failed)?;
        // What is sparse in the folder is not in the tar.
        let file = Bounded { file, left: self.free()?.bytes };
        let writer = io::BufWriter::with_capacity(256 << 10, Summing::new(file));
        let packed = pack(&folder, Of::Changes, self.ids(), writer).map_err(failed)?;
        let (_file, digest, size) = packed.into_inner().map_err(|error| failed(error.into_error()))?.finish();
        if size <= EMPTY {
            return Ok(None);
        }
        let tar = std::fs::File::open(staged.path()).map_err(failed)?;
        self.add_staged_layer(staged, tar, digest, &Promised::default()).map(Some)
    }
}

/// A tar without members, in bytes.
const EMPTY: u64 = 1024;

/// A file that leaves room for others on the disk.
struct Bounded {
    file: std::fs::File,
    left: u64,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::StorageFull, "no space left on device"))?;
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A config's bytes, which are bounded as those of a registry's.
pub(super) fn encoded(file: &Value) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(file).map_err(|error| Error::internal("encoding an image", &error))?;
    ImageFile::read(&bytes).map(|_| bytes).map_err(Error::invalid)
}

/// The new image's config, its keys in dockerd's order.
fn config(step: &Step, layer: Option<&Layer>) -> Result<Vec<u8>> {
    let created = Timestamp::now();
    let parent: Option<&ImageFile> = step.parent.as_ref().map(|parent| &parent.file);
    let platform = parent.map_or_else(|| step.platform.clone(), ImageFile::platform);
    let mut diff_ids = parent.map(|parent| parent.rootfs.diff_ids.clone()).unwrap_or_default();
    diff_ids.extend(layer.map(|layer| layer.diff_id));
    let mut history = parent.map(|parent| parent.history.clone()).unwrap_or_default();
    history.push(History {
        created: Some(created.to_string()),
        author: step.author.clone(),
        created_by: step.command.clone(),
        comment: String::new(),
        empty_layer: layer.is_none(),
    });
    let fields = [
        ("architecture", json!(platform.architecture)),
        ("author", json!(step.author)),
        ("config", step.config.clone()),
        ("container", json!(step.container)),
        ("container_config", step.container_config.clone()),
        ("created", json!(created)),
        ("docker_version", json!("28.5.0")),
        ("history", json!(history)),
        ("os", json!(platform.os)),
        ("rootfs", json!(RootFs { kind: "layers".to_owned(), diff_ids })),
        ("variant", json!(platform.variant.unwrap_or_default())),
    ];
    // Go leaves out what is empty.
    let fields = fields.into_iter().filter(|(_, value)| value.as_str() != Some(""));
    encoded(&Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect()))
}

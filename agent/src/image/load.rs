//! `docker load`: archives of images, as docker (with `manifest.json`) and as OCI (`index.json`, `oci-layout`) have them.
//!
//! What describes an archive may come last, so its files are staged as they arrive, each summed; then images are put
//! together of them. Links between files are followed by name, inside the archive only.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::Images;
use super::digest::{Digest, Summing};
use super::direct::DirectFile;
use super::inflate::Inflate;
use super::load_layers::Wanted;
use super::progress::Progress;
use super::reference::Reference;
use super::spec::{Descriptor, ImageFile, Manifest, Platform};
use super::staging::Staged;
use super::state::{Image, ImageRecord};
use crate::error::{Error, Kind, Result};
use crate::paths;
use crate::tar::{Kind as Member, Reader};

/// As many files as an archive may have.
const MOST_FILES: usize = 100_000;
/// Documents that are read into memory, in bytes.
const DOCUMENT: u64 = 8 << 20;
/// Links that lead to links.
const MOST_LINKS: usize = 8;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Tell nothing but which images there are.
    pub quiet: bool,
    /// Only for this platform.
    pub platform: Option<Platform>,
}

/// One of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

pub(super) struct File {
    pub(super) path: PathBuf,
    /// Until it is kept as a layer's blob.
    pub(super) staged: Mutex<Option<Staged>>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

#[derive(Default)]
pub(super) struct Archive {
    files: HashMap<String, File>,
    links: HashMap<String, String>,
}

/// An image of an archive that is here.
struct Loaded {
    image: Arc<Image>,
    tags: Vec<Reference>,
    parent: Option<Digest>,
}

impl Images {
    /// Reads an archive and keeps its images. Blocks.
    ///
    /// # Errors
    /// The stream's, the disk's, and whatever is wrong with the archive. Images before the wrong one stay.
    pub fn load(&self, stream: impl Read, options: &LoadOptions, progress: &Progress) -> Result<()> {
        let loaded = self.load_archive(stream, options, progress);
        // Of one that failed, the layers of the image that did not come about.
        self.collect_garbage()?;
        loaded
    }

    fn load_archive(&self, stream: impl Read, options: &LoadOptions, progress: &Progress) -> Result<()> {
        let archive = self.stage(stream)?;
        let loaded = if archive.file("manifest.json").is_some() {
            self.load_docker(&archive, options, progress)?
        } else if archive.file("index.json").is_some() {
            self.load_oci(&archive, options, progress)?
        } else {
            // dockerd looks for the format before this one then, and does not find it.
            return Err(Error::new(Kind::Internal, "open manifest.json: no such file or directory"));
        };
        drop(archive);
        self.link_parents(&loaded)
    }

    fn stage(&self, stream: impl Read) -> Result<Archive> {
        let read = |error: io::Error| match error.kind() {
            // Go's words.
            io::ErrorKind::UnexpectedEof => Error::invalid("unexpected EOF"),
            _ => Error::invalid(format!("reading the archive: {error}")),
        };
        let mut reader = Reader::new(Inflate::new(stream).map_err(read)?);
        let mut archive = Archive::default();
        let all = self.free()?.bytes;
        let mut left = all;
        while let Some(entry) = reader.next_entry().map_err(read)? {
            let Some(path) = inside(&String::from_utf8_lossy(&entry.path)) else {
                let name = String::from_utf8_lossy(&entry.path);
                return Err(Error::invalid(format!("{name:?} leads out of the archive")));
            };
            if archive.files.len() + archive.links.len() >= MOST_FILES {
                return Err(Error::invalid(format!("the archive has more than {MOST_FILES} files")));
            }
            let link = String::from_utf8_lossy(&entry.link).into_owned();
            match entry.kind {
                Member::File => {
                    left = left.checked_sub(entry.size).ok_or_else(|| {
                        Error::invalid(format!(
                            "no space left on device: the archive has more than {all} bytes"
                        ))
                    })?;
                    let staging = |error: io::Error| Error::internal("staging the archive", &error);
                    let (file, staged) = self.staging().file().map_err(staging)?;
                    let mut file = DirectFile::new(file, entry.size);
                    let mut summing = Summing::new(&mut reader);
                    let _size = io::copy(&mut summing, &mut file).map_err(read)?;
                    file.flush().map_err(staging)?;
                    let (_, digest, size) = summing.finish();
                    let at = staged.path().to_owned();
                    let file = File { path: at, staged: Mutex::new(Some(staged)), digest, size };
                    let _older = archive.files.insert(path, file);
                }
                Member::HardLink => drop(inside(&link).and_then(|to| archive.links.insert(path, to))),
                Member::Symlink => {
                    let (folder, _) = path.rsplit_once('/').unwrap_or(("", ""));
                    let to = inside(&format!("{folder}/{link}"));
                    drop(to.and_then(|to| archive.links.insert(path, to)));
                }
                _ => {}
            }
        }
        let mut behind = reader.into_inner();
        let _rest = io::copy(&mut behind, &mut io::sink()).map_err(read)?;
        Ok(archive)
    }

    fn load_docker(
        &self,
        archive: &Archive,
        options: &LoadOptions,
        progress: &Progress,
    ) -> Result<Vec<Loaded>> {
        let items: Option<Vec<Item>> = archive.document("manifest.json")?;
        let items = items
            .ok_or_else(|| Error::invalid("invalid manifest, manifest cannot be null (but can be [])"))?;
        let mut loaded = Vec::new();
        let mut ids = Vec::new();
        let mut tagged = false;
        for item in items {
            let config = archive.read(&item.config)?;
            let file = ImageFile::read(&config)
                .map_err(|error| Error::invalid(format!("{}: {error}", item.config)))?;
            if !is_wanted(&file, options) {
                continue;
            }
            let names = item.layers.unwrap_or_default();
            if names.len() != file.rootfs.diff_ids.len() {
                return Err(Error::invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    names.len(),
                    file.rootfs.diff_ids.len()
                )));
            }
            let wanted = names.into_iter().zip(&file.rootfs.diff_ids);
            let wanted: Vec<_> =
                wanted.map(|(name, diff_id)| Wanted { name, diff_id: *diff_id, descriptor: None }).collect();
            let layers = self.load_layers(archive, &wanted, options, progress)?;
            let mut tags = Vec::new();
            for text in item.repo_tags.unwrap_or_default() {
                let name: Reference = text
                    .parse()
                    .map_err(|error: super::reference::ReferenceError| Error::invalid(error.to_string()))?;
                if name.tag.is_none() {
                    return Err(Error::invalid(format!("invalid tag {text:?}")));
                }
                tags.push(name);
            }
            let (image, owners) = self.add_named_image(&config, ImageRecord::default(), &tags)?;
            drop(layers);
            ids.push(image.id);
            tagged = !tags.is_empty();
            let parent = item.parent.as_deref().and_then(|parent| parent.parse().ok());
            loaded.push(self.announce(Loaded { image, tags, parent }, &owners, progress));
        }
        if !tagged {
            for id in ids {
                progress.stream(&format!("Loaded image ID: {id}\n"));
            }
        }
        Ok(loaded)
    }

    fn load_oci(&self, archive: &Archive, options: &LoadOptions, progress: &Progress) -> Result<Vec<Loaded>> {
        let index: Manifest = archive.document("index.json")?;
        let mut loaded = Vec::new();
        for descriptor in index.manifests.unwrap_or_default() {
            let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            // The second may be a tag alone, which names nothing.
            let tags = names.iter().filter_map(|name| descriptor.annotations.get(*name)).find_map(|text| {
                let name = text.parse::<Reference>().ok().filter(|name| name.tag.is_some());
                name.filter(|_| text.contains(':'))
            });
            let Some((digest, manifest)) = chosen(archive, &descriptor, options)? else { continue };
            let (Some(config), layers) = (manifest.config, manifest.layers.unwrap_or_default()) else {
                return Err(Error::invalid(format!("the manifest {digest} has no config")));
            };
            let bytes = archive.read(&blob(config.digest))?;
            if Digest::of(&bytes) != config.digest {
                return Err(Error::invalid(format!("the config {} has another digest", config.digest)));
            }
            let file = ImageFile::read(&bytes)
                .map_err(|error| Error::invalid(format!("the config {}: {error}", config.digest)))?;
            if layers.len() != file.rootfs.diff_ids.len() {
                return Err(Error::invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    layers.len(),
                    file.rootfs.diff_ids.len()
                )));
            }
            let wanted = layers.into_iter().zip(&file.rootfs.diff_ids);
            let wanted: Vec<_> = wanted
                .map(|(layer, diff_id)| Wanted {
                    name: blob(layer.digest),
                    diff_id: *diff_id,
                    descriptor: Some(layer),
                })
                .collect();
            let kept = self.load_layers(archive, &wanted, options, progress)?;
            let manifest = self.add_blob(&archive.read(&blob(digest))?)?;
            let record = ImageRecord { manifests: vec![manifest.digest], ..ImageRecord::default() };
            let tags: Vec<_> = tags.into_iter().collect();
            let (image, owners) = self.add_named_image(&bytes, record, &tags)?;
            drop((kept, manifest));
            let id = image.id;
            if tags.is_empty() {
                progress.stream(&format!("Loaded image ID: {id}\n"));
            }
            loaded.push(self.announce(Loaded { image, tags, parent: None }, &owners, progress));
        }
        Ok(loaded)
    }

    /// Tells of a loaded image, and of those whose names it has taken.
    fn announce(&self, loaded: Loaded, owners: &[Option<Digest>], progress: &Progress) -> Loaded {
        for (name, owner) in loaded.tags.iter().zip(owners) {
            if let Some(other) = owner {
                progress.stream(&format!(
                    "The image {} already exists, renaming the old one with ID {other} to empty string\n",
                    name.familiar()
                ));
            }
            progress.stream(&format!("Loaded image: {}\n", name.familiar()));
        }
        self.publish("load", &loaded.image, &loaded.image.id.to_string());
        loaded
    }

    /// An image's parent is another of the archive, if it has one step less.
    fn link_parents(&self, loaded: &[Loaded]) -> Result<()> {
        for one in loaded {
            let parent = one.parent.and_then(|id| loaded.iter().find(|other| other.image.id == id));
            let Some(parent) = parent.filter(|parent| parent.image.id != one.image.id) else { continue };
            let (steps, below) = (&one.image.file.history, &parent.image.file.history);
            if steps.len() == below.len() + 1 && steps.starts_with(below) {
                let record = ImageRecord { parent: Some(parent.image.id), ..ImageRecord::default() };
                let config = self.read_blob(one.image.id)?;
                let _image = self.add_image(&config, record)?;
            }
        }
        Ok(())
    }
}

impl Archive {
    pub(super) fn file(&self, name: &str) -> Option<&File> {
        let mut name = inside(name)?;
        for _ in 0..MOST_LINKS {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name.clone_from(self.links.get(&name)?);
        }
        None
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self
            .file(name)
            .ok_or_else(|| Error::invalid(format!("open {name}: no such file or directory")))?;
        if file.size > DOCUMENT {
            return Err(Error::invalid(format!("{name} has more than {DOCUMENT} bytes")));
        }
        fs::read(&file.path).map_err(|error| Error::internal(format_args!("reading {name}"), &error))
    }

    fn document<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(|error| Error::invalid(format!("{name}: {error}")))
    }
}

/// A name in the archive, cleaned; `None` for one that leads out.
fn inside(name: &str) -> Option<String> {
    String::from_utf8(paths::inside(name.as_bytes())?).ok()
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn is_wanted(file: &ImageFile, options: &LoadOptions) -> bool {
    options.platform.as_ref().is_none_or(|wanted| wanted.fitness(&file.platform()).is_some())
}

/// The manifest of an image, or the one of an index that fits best.
fn chosen(
    archive: &Archive,
    descriptor: &Descriptor,
    options: &LoadOptions,
) -> Result<Option<(Digest, Manifest)>> {
    let mut digest = descriptor.digest;
    let wanted = options.platform.clone().unwrap_or_else(Platform::of_host);
    for _ in 0..MOST_LINKS {
        let bytes = archive.read(&blob(digest))?;
        if Digest::of(&bytes) != digest {
            return Err(Error::invalid(format!("the manifest {digest} has another digest")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("the manifest {digest}: {error}")))?;
        let Some(manifests) = &manifest.manifests else { return Ok(Some((digest, manifest))) };
        let fits = |one: &&Descriptor| {
            let fitness = one.platform.as_ref().map_or(Some(0), |offered| wanted.fitness(offered));
            fitness.filter(|_| archive.file(&blob(one.digest)).is_some())
        };
        match manifests.iter().filter(|one| fits(one).is_some()).max_by_key(|one| fits(one)) {
            Some(best) => digest = best.digest,
            None => return Ok(None),
        }
    }
    Err(Error::invalid("indexes of the archive lead in a circle"))
}

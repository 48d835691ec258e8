//! `docker save`: images as an archive that is both docker's and an OCI layout, its layers plain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use serde::Serialize;
use serde_json::json;

use super::Images;
use super::digest::{Digest, Summing};
use super::inflate::Inflate;
use super::reference::{AnyReference, Reference};
use super::spec::{Descriptor, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use super::state::{Image, Layer};
use crate::compat::no_such_image;
use crate::error::{Error, Result};
use crate::tar::{Entry, Kind, Writer};

/// Of a layer's tar at once.
const PIECE: usize = 256 << 10;
/// Pieces that are inflated before they are written.
const AHEAD: usize = 4;

/// One of `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<Digest, Source>,
}

/// A layer as it was distributed: a descriptor whose fields are in distribution's order, which is not OCI's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    media_type: String,
    size: u64,
    digest: Digest,
}

impl From<Descriptor> for Source {
    fn from(layer: Descriptor) -> Self {
        Self { media_type: layer.media_type, size: layer.size, digest: layer.digest }
    }
}

/// What is to be saved, with the names that it was asked for by.
#[derive(Debug)]
pub struct Selection(Vec<(Arc<Image>, Vec<Reference>)>);

impl Images {
    /// Finds what is to be saved: a name without a tag means all tags of it.
    ///
    /// # Errors
    /// There is none.
    pub fn select(&self, names: &[String]) -> Result<Selection> {
        let mut selected: Vec<(Arc<Image>, Vec<Reference>)> = Vec::new();
        let mut add = |image: Arc<Image>, name: Option<Reference>| {
            let at = selected.iter().position(|(other, _)| other.id == image.id).unwrap_or_else(|| {
                selected.push((image, Vec::new()));
                selected.len() - 1
            });
            if let Some(name) = name.filter(|name| name.tag.is_some())
                && let Some((_, names)) = selected.get_mut(at)
                && !names.contains(&name)
            {
                names.push(name);
            }
        };
        for text in names {
            let reference: AnyReference = text
                .parse()
                .map_err(|error: super::reference::ReferenceError| Error::invalid(error.to_string()))?;
            let AnyReference::Named(reference) = reference else {
                add(self.find(text)?, None);
                continue;
            };
            if reference.is_name_only() {
                let state = self.state();
                let tags = state.names.iter().filter(|(name, _)| name.name() == reference.name());
                let tags: Vec<_> = tags
                    .filter_map(|(name, id)| Some((state.images.get(id).cloned()?, name.clone())))
                    .collect();
                drop(state);
                if tags.is_empty() {
                    let by_id = self.find(text);
                    add(by_id.map_err(|error| Error { message: no_such_image(text), ..error })?, None);
                }
                for (image, name) in tags {
                    add(image, Some(name));
                }
                continue;
            }
            let by_name = self.state().id_of(&reference).is_some();
            let tag = Some(reference).filter(|reference| by_name && reference.digest.is_none());
            add(self.find(text)?, tag);
        }
        Ok(Selection(selected))
    }

    /// Writes an archive. Blocks.
    ///
    /// # Errors
    /// The stream's and the disk's.
    pub fn save(&self, selection: &Selection, stream: impl Write) -> Result<()> {
        let failed = |error: io::Error| Error::internal("writing the archive", &error);
        let mut blobs: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let mut layers: BTreeMap<Digest, &Arc<Layer>> = BTreeMap::new();
        let (mut items, mut index) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (image, names) in &selection.0 {
            let config = self.read_blob(image.id)?;
            let described: Vec<_> = image
                .layers
                .iter()
                .map(|layer| Descriptor::new(OCI_LAYER, layer.diff_id, layer.record.tar_size))
                .collect();
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(OCI_MANIFEST.to_owned()),
                config: Some(Descriptor::new(OCI_CONFIG, image.id, config.len() as u64)),
                layers: Some(described.clone()),
                manifests: None,
            };
            let manifest = encode(&manifest)?;
            let of_manifest = Descriptor::new(OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64);
            for name in names {
                let tag = name.tag.clone().unwrap_or_default();
                let mut named = of_manifest.clone();
                named.annotations.extend([
                    ("io.containerd.image.name".to_owned(), name.to_string()),
                    ("org.opencontainers.image.ref.name".to_owned(), tag.clone()),
                ]);
                index.push(named);
                if let Some(top) = image.layers.last() {
                    let tags = repositories.entry(name.familiar_name()).or_default();
                    let _none = tags.insert(tag, top.diff_id.hex());
                }
            }
            if names.is_empty() {
                index.push(of_manifest.clone());
            }
            items.push(Item {
                config: path(image.id),
                repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
                layers: image.layers.iter().map(|layer| path(layer.diff_id)).collect(),
                layer_sources: described.into_iter().map(|layer| (layer.digest, layer.into())).collect(),
            });
            let _same = blobs.insert(image.id, config);
            let _same = blobs.insert(of_manifest.digest, manifest);
            layers.extend(image.layers.iter().map(|layer| (layer.diff_id, layer)));
            self.publish("save", image, &image.id.to_string());
        }
        let mut writer = Writer::new(stream);
        for folder in ["blobs/", "blobs/sha256/"] {
            let entry = Entry {
                path: folder.as_bytes().to_vec(),
                kind: Kind::Directory,
                mode: 0o755,
                ..Entry::default()
            };
            writer.append(&entry).map_err(failed)?;
        }
        let all: BTreeSet<Digest> = blobs.keys().chain(layers.keys()).copied().collect();
        for digest in all {
            match (blobs.get(&digest), layers.get(&digest)) {
                (Some(bytes), _) => file(&mut writer, &path(digest), bytes).map_err(failed)?,
                (None, Some(layer)) => {
                    let entry = member(&path(digest), layer.record.tar_size);
                    writer.append(&entry).map_err(failed)?;
                    self.write_layer(layer, &mut writer)?;
                }
                (None, None) => {}
            }
        }
        let index = Manifest {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            manifests: Some(index),
            ..Manifest::default()
        };
        let mut manifest = encode(&items)?;
        manifest.push(b'\n');
        let mut documents = vec![
            ("index.json", encode(&index)?),
            ("manifest.json", manifest),
            ("oci-layout", encode(&json!({ "imageLayoutVersion": "1.0.0" }))?),
        ];
        if !repositories.is_empty() {
            let mut bytes = encode(&repositories)?;
            bytes.push(b'\n');
            documents.push(("repositories", bytes));
        }
        for (name, bytes) in documents {
            file(&mut writer, name, &bytes).map_err(failed)?;
        }
        let _stream = writer.finish().map_err(failed)?;
        Ok(())
    }

    /// Writes a layer's tar, byte for byte as it came.
    ///
    /// # Errors
    /// The stream's and the disk's; a blob that is not what it was.
    pub(super) fn write_layer(&self, layer: &Layer, writer: &mut impl Write) -> Result<()> {
        let failed =
            |error: io::Error| Error::internal(format_args!("reading layer {}", layer.diff_id), &error);
        let blob = layer
            .blobs
            .first()
            .ok_or_else(|| Error::not_found(format!("layer {} has no blob", layer.diff_id)))?;
        let stored = File::open(self.folders().blob(blob.digest)).map_err(failed)?;
        let mut content = Inflate::new(stored).map_err(failed)?;
        let mut summing = Summing::new(writer);
        let (sender, pieces) = sync_channel::<io::Result<Vec<u8>>>(AHEAD);
        // One thread inflates, this one sums and writes.
        let written: io::Result<()> = std::thread::scope(|scope| {
            let _inflating = scope.spawn(move || {
                let mut left = layer.record.tar_size;
                while left > 0 {
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
                    let mut piece = vec![0; size];
                    let read = content.read_exact(&mut piece).map(|()| piece);
                    let failed = read.is_err();
                    if sender.send(read).is_err() || failed {
                        return;
                    }
                    left -= size as u64;
                }
            });
            for piece in pieces {
                summing.write_all(&piece?)?;
            }
            Ok(())
        });
        written.map_err(failed)?;
        let (_, digest, _) = summing.finish();
        if digest != layer.diff_id {
            return Err(Error::invalid(format!("the blob of layer {} has become {digest}", layer.diff_id)));
        }
        Ok(())
    }
}

fn path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("encoding the archive", &error))
}

/// Times are none: the same image gives the same archive.
fn member(path: &str, size: u64) -> Entry {
    Entry { path: path.as_bytes().to_vec(), mode: 0o644, size, ..Entry::default() }
}

fn file<W: Write>(writer: &mut Writer<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    writer.append(&member(path, bytes.len() as u64))?;
    writer.write_all(bytes)
}

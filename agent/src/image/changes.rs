//! What a container has changed: as a list, as a layer of a new image, and its whole root as an archive.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::image::{Change, ImageConfig};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use serde_json::{Value, json};

use super::Images;
use super::digest::Digest;
use super::pack::{Of, Walk, is_opaque, pack};
use super::reference::Reference;
use super::snapshot::Rootfs;
use super::spec::{History, ImageFile};
use super::state::{Image, ImageRecord};
use super::unpack::is_whiteout;
use crate::error::{Error, Result};
use crate::overlay::Overlay;
use crate::timestamp::Timestamp;

const MODIFIED: u8 = 0;
const ADDED: u8 = 1;
const DELETED: u8 = 2;

/// How to commit.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The container: its root's changes are the new layer.
    pub container: String,
    /// The name that the image gets.
    pub reference: Option<Reference>,
    /// Who.
    pub author: String,
    /// Why.
    pub comment: String,
    /// What the image's containers are started with.
    pub config: ImageConfig,
    /// The container's own settings, as they are kept beside.
    pub container_config: Value,
    /// The container's command, for the history.
    pub command: String,
}

impl Images {
    /// What a container has changed, in `docker diff`'s order. Blocks.
    ///
    /// # Errors
    /// It has no root; the disk.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let rootfs = self.rootfs(container)?;
        compare(&rootfs)
            .map_err(|error| Error::internal(format_args!("comparing container {container}"), &error))
    }

    /// Writes a container's whole root as a tar, without what is mounted in it. Blocks.
    ///
    /// # Errors
    /// It has no root; the disk and the stream.
    pub fn export(&self, container: &str, stream: impl Write) -> Result<()> {
        let root = self.merged(container)?;
        let packed = pack(&root, Of::Everything, self.ids(), stream);
        let packed = packed.and_then(|mut stream| stream.flush());
        packed.map_err(|error| Error::internal(format_args!("exporting container {container}"), &error))
    }

    /// A container's root for reading, by a mount that nobody sees and that goes with the descriptor.
    ///
    /// # Errors
    /// It has no root; the kernel.
    pub fn merged(&self, container: &str) -> Result<OwnedFd> {
        let rootfs = self.rootfs(container)?;
        mount(&rootfs)
            .map_err(|error| Error::internal(format_args!("mounting the root of {container}"), &error))
    }

    /// Makes an image of what a container has changed, upon the image that it was made of. Blocks.
    ///
    /// # Errors
    /// It has no root; the disk.
    pub fn commit(&self, options: &CommitOptions) -> Result<Arc<Image>> {
        let rootfs = self.rootfs(&options.container)?;
        let (parent, below) = {
            let state = self.state();
            let snapshot = state.snapshots.get(&options.container);
            let snapshot = snapshot
                .ok_or_else(|| Error::not_found(format!("container {} has no root", options.container)))?;
            (state.images.get(&snapshot.image).cloned(), snapshot.layers.clone())
        };
        let layer = self.layer_of_changes(&rootfs.upper)?;
        let mut diff_ids: Vec<Digest> = below.iter().map(|layer| layer.diff_id).collect();
        diff_ids.extend(layer.as_ref().map(|layer| layer.diff_id));
        let empty = layer.is_none();
        let config = committed(options, parent.as_deref().map(|parent| &parent.file), &diff_ids, empty)?;
        let record = ImageRecord {
            parent: parent.as_ref().map(|parent| parent.id),
            built: true,
            ..ImageRecord::default()
        };
        let (image, _) = self.add_named_image(&config, record, options.reference.as_slice())?;
        self.publish("create", &image, &image.id.to_string());
        if let Some(name) = &options.reference {
            self.tag(&image, name)?;
        }
        Ok(image)
    }
}

/// The new image's config.
fn committed(
    options: &CommitOptions,
    parent: Option<&ImageFile>,
    diff_ids: &[Digest],
    empty_layer: bool,
) -> Result<Vec<u8>> {
    let created = Timestamp::now();
    let platform = parent.map_or_else(super::spec::Platform::of_host, ImageFile::platform);
    let mut history = parent.map(|parent| parent.history.clone()).unwrap_or_default();
    history.push(History {
        created: Some(created.to_string()),
        author: options.author.clone(),
        created_by: options.command.clone(),
        comment: options.comment.clone(),
        empty_layer,
    });
    let mut file = json!({
        "architecture": platform.architecture,
        "author": options.author,
        "comment": options.comment,
        "config": options.config,
        "container": options.container,
        "container_config": options.container_config,
        "created": created,
        "docker_version": "28.5.0",
        "history": history,
        "os": platform.os,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    if let (Some(variant), Some(fields)) = (platform.variant, file.as_object_mut()) {
        let _none = fields.insert("variant".to_owned(), json!(variant));
    }
    if let Some(fields) = file.as_object_mut() {
        // Go leaves these out when they are empty.
        for key in ["author", "comment"] {
            if fields.get(key).and_then(Value::as_str) == Some("") {
                let _empty = fields.shift_remove(key);
            }
        }
    }
    serde_json::to_vec(&file).map_err(|error| Error::internal("encoding an image", &error))
}

pub(super) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// All layers and the container's upper folder, to be read.
fn mount(rootfs: &Rootfs) -> io::Result<OwnedFd> {
    let lower = [&rootfs.upper].into_iter().chain(&rootfs.lower).map(PathBuf::as_path).collect();
    Overlay { lower, writable: None }.mount()
}

/// What lower layers show at a path.
struct Below {
    kind: FileType,
    size: i64,
    mode: u32,
    time: (i64, i64),
}

fn compare(rootfs: &Rootfs) -> io::Result<Vec<Change>> {
    let upper = open_folder(&rootfs.upper)?;
    let lower: Vec<OwnedFd> =
        rootfs.lower.iter().map(|layer| open_folder(layer)).collect::<io::Result<_>>()?;
    let mut walk = Walk::new(&upper)?;
    let mut changes: Vec<Change> = Vec::new();
    let mut listed: HashSet<String> = HashSet::new();
    while let Some(found) = walk.next()? {
        let below = below(&lower, Path::new(std::ffi::OsStr::from_bytes(&found.path)));
        let about = &found.about;
        let is_folder = found.is(FileType::Directory);
        let kind = match below {
            _ if is_whiteout(about) => DELETED,
            None => ADDED,
            Some(below) => {
                let same = is_folder
                    && below.kind == FileType::Directory
                    && below.size == about.st_size
                    && below.mode == about.st_mode
                    && below.time == (about.st_mtime, i64::try_from(about.st_mtime_nsec).unwrap_or_default())
                    && !is_opaque(&found.parent, found.name());
                if same {
                    continue;
                }
                MODIFIED
            }
        };
        let path = format!("/{}", String::from_utf8_lossy(&found.path));
        // A folder is changed by what changes in it, however deep.
        for (at, _) in path.match_indices('/').skip(1) {
            if listed.insert(path[..at].to_owned()) {
                changes.push(Change { path: path[..at].to_owned(), kind: MODIFIED });
            }
        }
        let _new = is_folder && listed.insert(path.clone());
        changes.push(Change { path, kind });
    }
    Ok(changes)
}

/// Looks a path up in layers, the uppermost first, as overlayfs does.
fn below(layers: &[OwnedFd], path: &Path) -> Option<Below> {
    let parts: Vec<PathBuf> =
        path.ancestors().filter(|part| *part != Path::new("")).map(Path::to_owned).collect();
    for layer in layers {
        let mut hidden = false;
        for part in parts.iter().rev() {
            let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(opened) = crate::resolve::openat2(layer, part, flags, resolve) else { break };
            let about = rustix::fs::fstat(&opened).ok()?;
            if is_whiteout(&about) {
                return None;
            }
            let kind = FileType::from_raw_mode(about.st_mode);
            if part == path {
                let time = (about.st_mtime, i64::try_from(about.st_mtime_nsec).unwrap_or_default());
                return Some(Below { kind, size: about.st_size, mode: about.st_mode, time });
            }
            if kind != FileType::Directory {
                return None;
            }
            hidden |= is_opaque(layer, part.as_os_str());
        }
        if hidden {
            return None;
        }
    }
    None
}

//! What lists, inspection and history show of images.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ketch_engine_api::image::{GraphDriver, HistoryItem, Inspect, Metadata, RootFs, Summary};
use serde_json::Value;

use super::Images;
use super::digest::Digest;
use super::reference::Reference;
use super::snapshot::owner;
use super::state::{Folders, Image, State};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// Which images are listed, and how.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Intermediate ones of builds too.
    pub all: bool,
    /// Sum up what images share.
    pub shared_size: bool,
    /// Only those that no tag names, or only those that one does.
    pub dangling: Option<bool>,
    /// Made before these images were.
    pub before: Vec<String>,
    /// Made after.
    pub since: Vec<String>,
    /// Made before this moment.
    pub until: Option<Timestamp>,
    /// Patterns of names.
    pub references: Vec<String>,
    /// `key` or `key=value`, all of them.
    pub labels: Vec<String>,
}

/// Whether all of these labels are there.
pub(super) fn has_labels<'a>(
    wanted: impl IntoIterator<Item = &'a String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    wanted.into_iter().all(|wanted| {
        let Some(labels) = labels else { return false };
        match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|label| label == value),
            None => labels.contains_key(wanted),
        }
    })
}

impl Image {
    /// When it was made.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.file.created.as_deref().and_then(Timestamp::parse)
    }
}

impl Images {
    /// Those that fit, the newest first.
    ///
    /// # Errors
    /// A filter names an image that is not there, or is no pattern.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Summary>> {
        let state = self.state();
        let mut until = options.until;
        for name in &options.before {
            until = [until, state.find(name)?.created()].into_iter().flatten().min();
        }
        let mut since = None;
        for name in &options.since {
            since = since.max(state.find(name)?.created());
        }
        let mut listed = Vec::new();
        for image in state.images.values() {
            let created = image.created();
            let in_time = until.is_none_or(|until| created.is_some_and(|created| created < until))
                && since.is_none_or(|since| created.is_some_and(|created| created > since));
            if in_time
                && (options.labels.is_empty() || has_labels(&options.labels, image.labels()))
                && let Some(summary) = state.summary(image, options)?
            {
                listed.push((created, image, summary));
            }
        }
        if options.shared_size {
            let mut uses: HashMap<&Digest, u32> = HashMap::new();
            for link in state.images.values().flat_map(|image| &image.chain) {
                *uses.entry(link).or_default() += 1;
            }
            for (_, image, summary) in &mut listed {
                let shared = image.chain.iter().zip(&image.layers);
                let shared = shared.filter(|(link, _)| uses.get(link).is_some_and(|uses| *uses > 1));
                let bytes: u64 = shared.map(|(_, layer)| layer.record.size).sum();
                summary.shared_size = i64::try_from(bytes).unwrap_or(i64::MAX);
            }
        }
        listed.sort_by(|(a, x, _), (b, y, _)| {
            (b.map(Timestamp::seconds), y.id).cmp(&(a.map(Timestamp::seconds), x.id))
        });
        Ok(listed.into_iter().map(|(_, _, summary)| summary).collect())
    }

    /// What `docker image inspect` shows.
    ///
    /// # Errors
    /// As [`Images::find`].
    pub fn inspect(&self, name: &str) -> Result<Inspect> {
        let state = self.state();
        let image = state.find(name)?;
        let (tags, digests) = familiar(state.names_of(image.id));
        let file = &image.file;
        let comment = match file.history.last() {
            Some(last) if file.comment.is_empty() => last.comment.clone(),
            _ => file.comment.clone(),
        };
        let tagged = image.record.last_tagged.clone();
        Ok(Inspect {
            id: image.id.to_string(),
            repo_tags: tags,
            repo_digests: digests,
            parent: image.record.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            comment,
            created: image.created().map(|created| created.to_string()).unwrap_or_default(),
            container: file.container.clone(),
            container_config: file.container_config.clone(),
            docker_version: file.docker_version.clone(),
            author: file.author.clone(),
            architecture: file.architecture.clone(),
            variant: file.variant.clone(),
            os: if file.os.is_empty() { "linux".to_owned() } else { file.os.clone() },
            os_version: file.os_version.clone(),
            size: image.size(),
            virtual_size: None,
            graph_driver: graph_driver(self.folders(), &image),
            root_fs: RootFs {
                kind: file.rootfs.kind.clone(),
                layers: file.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata { last_tag_time: tagged.unwrap_or_else(|| Timestamp::NEVER.to_string()) },
            config: match serde_json::to_value(image.config()) {
                Ok(Value::Object(config)) => config,
                _ => serde_json::Map::new(),
            },
        })
    }

    /// An image's steps, the last first.
    ///
    /// # Errors
    /// As [`Images::find`]; a config whose steps have more layers than it.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let state = self.state();
        let image = state.find(name)?;
        let mut layers = image.layers.iter();
        let mut items = Vec::with_capacity(image.file.history.len());
        for step in &image.file.history {
            let size = if step.empty_layer {
                0
            } else {
                let layer = layers.next();
                let layer =
                    layer.ok_or_else(|| Error::invalid("too many non-empty layers in History section"))?;
                layer.record.size
            };
            let created = step.created.as_deref().and_then(Timestamp::parse);
            items.push(HistoryItem {
                comment: step.comment.clone(),
                created: created.map_or(0, Timestamp::seconds),
                created_by: step.created_by.clone(),
                id: "<missing>".to_owned(),
                size,
                tags: None,
            });
        }
        items.reverse();
        let mut present = Some(image);
        for item in &mut items {
            let Some(image) = present else { break };
            item.id = image.id.to_string();
            let (tags, _) = familiar(state.names_of(image.id));
            item.tags = (!tags.is_empty()).then_some(tags);
            present = image.record.parent.and_then(|parent| state.images.get(&parent).cloned());
        }
        Ok(items)
    }
}

impl State {
    /// `None` for one that the options leave out.
    fn summary(&self, image: &Arc<Image>, options: &ListOptions) -> Result<Option<Summary>> {
        if options.dangling == Some(true) && self.has_children(image.id) {
            return Ok(None);
        }
        let mut shown = Vec::new();
        for name in self.names_of(image.id) {
            let mut wanted = options.references.is_empty();
            for pattern in &options.references {
                let matches = name.matches(pattern);
                wanted |=
                    matches.map_err(|error| Error::new(crate::error::Kind::Internal, error.to_string()))?;
            }
            if wanted {
                shown.push(name);
            }
        }
        let (tags, digests) = familiar(shown.into_iter());
        let unnamed = tags.is_empty() && digests.is_empty();
        let left_out = if unnamed {
            let intermediate = !options.all && self.has_children(image.id);
            intermediate || options.dangling == Some(false) || !options.references.is_empty()
        } else {
            options.dangling == Some(true) && !tags.is_empty()
        };
        if left_out {
            return Ok(None);
        }
        Ok(Some(Summary {
            containers: self
                .snapshots
                .iter()
                .filter(|(root, snapshot)| owner(root) == *root && snapshot.image == image.id)
                .count()
                .try_into()
                .unwrap_or(-1),
            created: image.created().map_or(0, Timestamp::seconds),
            id: image.id.to_string(),
            labels: image.labels().cloned(),
            parent_id: image.record.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            repo_digests: digests,
            repo_tags: tags,
            shared_size: -1,
            size: image.size(),
            virtual_size: None,
        }))
    }
}

/// Names by tag, and names by digest.
fn familiar<'a>(names: impl Iterator<Item = &'a Reference>) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<_>, Vec<_>) = names.partition(|name| name.digest.is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

/// Where an image's layers are, in overlay2's words.
fn graph_driver(folders: &Folders, image: &Image) -> GraphDriver {
    let mut layers = image.layers.iter().rev().map(|layer| folders.layer(&layer.record));
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let data = layers.next().map(|top| {
        let mut data = BTreeMap::new();
        let lower: Vec<_> = layers.map(text).collect();
        if !lower.is_empty() {
            let _none = data.insert("LowerDir".to_owned(), lower.join(":"));
        }
        let _none = data.insert("UpperDir".to_owned(), text(top));
        data
    });
    GraphDriver { data, name: "overlay2".to_owned() }
}

//! Removal: names first, then images that none is left of, then what only they had; and prune.

use std::collections::HashMap;
use std::sync::Arc;

use ketch_engine_api::image::{Deleted, Pruned};

use super::Images;
use super::digest::Digest;
use super::list::has_labels;
use super::reference::Reference;
use super::snapshot::owner;
use super::state::{IMAGES, Image, NAMES};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// A container that was made of an image.
#[derive(Clone, Debug)]
pub struct User {
    /// Its id.
    pub container: String,
    /// Its image.
    pub image: Digest,
    /// Whether it runs.
    pub running: bool,
}

/// How to remove.
#[derive(Clone, Debug, Default)]
pub struct RemoveOptions {
    /// Though several names or a stopped container have it.
    pub force: bool,
    /// Leave the images that it was made from.
    pub keep_parents: bool,
    /// Who uses images.
    pub users: Vec<User>,
}

/// What stands against a removal.
struct Conflict {
    text: String,
    used: bool,
}

/// Which images prune is to remove.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Those with names too.
    pub all: bool,
    /// Made before.
    pub until: Option<Timestamp>,
    /// `key` or `key=value`: they have all of these.
    pub labels: Vec<String>,
    /// And not all of these.
    pub not_labels: Vec<String>,
    /// Who uses images.
    pub users: Vec<User>,
}

impl Images {
    /// Removes a name, or an image with all its names.
    ///
    /// # Errors
    /// There is none, or something uses it: dockerd's texts.
    pub fn remove(&self, name: &str, options: &RemoveOptions) -> Result<Vec<Deleted>> {
        let done = self.remove_named(name, options)?;
        self.collect_garbage()?;
        Ok(done)
    }

    fn remove_named(&self, name: &str, options: &RemoveOptions) -> Result<Vec<Deleted>> {
        let image = self.find(name)?;
        let mut done = Vec::new();
        let names = self.names(image.id);
        if is_prefix(image.id, name) {
            if is_single(&names) {
                self.conflict(image.id, options, &names, !options.force, false)
                    .map_or(Ok(()), |conflict| Err(Error::conflict(conflict.text)))?;
                for name in &names {
                    self.untag(&image, name, &mut done)?;
                }
            }
            self.remove_image(&image, options, &mut done, false)?;
            return Ok(done);
        }
        if !options.force
            && is_single(&names)
            && let Some(user) = options.users.iter().find(|user| user.image == image.id)
        {
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its \
                 referenced image {}",
                short(&user.container),
                image.id.short()
            )));
        }
        let reference: Reference = name
            .parse()
            .map_err(|error: super::reference::ReferenceError| Error::invalid(error.to_string()))?;
        let reference = reference.with_default_tag();
        self.untag(&image, &reference, &mut done)?;
        let mut left = self.names(image.id);
        let same = |other: &Reference| other.name() == reference.name();
        if reference.digest.is_none() && !left.iter().any(|other| same(other) && other.digest.is_none()) {
            // The last tag of a repository takes its digests along.
            for name in left.iter().filter(|other| same(other)) {
                self.forget(name)?;
                done.push(Deleted::Untagged(name.familiar()));
            }
            left.retain(|other| !same(other));
        }
        if left.is_empty() {
            self.remove_image(&image, options, &mut done, true)?;
        }
        Ok(done)
    }

    /// Removes what nobody uses.
    ///
    /// # Errors
    /// The disk.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        let _one =
            self.0.pruning.try_lock().map_err(|_| Error::conflict("a prune operation is already running"))?;
        let before = self.layers_size();
        let mut chosen: Vec<Arc<Image>> = self.state().images.values().cloned().collect();
        chosen.sort_by_key(|image| image.id);
        let mut done = Vec::new();
        for image in chosen {
            let names = self.names(image.id);
            let has_children = self.state().has_children(image.id);
            let tagged = names.iter().any(|name| name.digest.is_none());
            let in_time = options.until.is_none_or(|until| image.created().is_some_and(|at| at <= until));
            let labelled = has_labels(&options.labels, image.labels())
                && (options.not_labels.is_empty() || !has_labels(&options.not_labels, image.labels()));
            if (has_children && (names.is_empty() || !options.all))
                || !in_time
                || !labelled
                || (tagged && !options.all)
            {
                continue;
            }
            let removal = RemoveOptions { users: options.users.clone(), ..RemoveOptions::default() };
            let mut texts: Vec<_> = names.iter().map(ToString::to_string).collect();
            if texts.is_empty() {
                texts.push(image.id.hex());
            }
            drop(image);
            for text in texts {
                // What is in use meanwhile stays; names that went with the one before are gone.
                if let Ok(removed) = self.remove(&text, &removal) {
                    done.extend(removed);
                }
            }
        }
        let reclaimed = before.saturating_sub(self.layers_size());
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into_iter().collect();
        self.0.events.publish("image", "prune", "", attributes);
        Ok(Pruned { images_deleted: (!done.is_empty()).then_some(done), space_reclaimed: reclaimed })
    }

    fn names(&self, id: Digest) -> Vec<Reference> {
        self.state().names_of(id).cloned().collect()
    }

    fn forget(&self, name: &Reference) -> Result<()> {
        let _changing = self.changing();
        self.store().remove(NAMES, &name.to_string())?;
        let _id = self.state().names.remove(name);
        Ok(())
    }

    fn untag(&self, image: &Image, name: &Reference, done: &mut Vec<Deleted>) -> Result<()> {
        let name = match name.digest {
            Some(digest) => &name.with_digest(digest),
            None => name,
        };
        self.forget(name)?;
        self.publish("untag", image, &image.id.to_string());
        done.push(Deleted::Untagged(name.familiar()));
        Ok(())
    }

    /// Removes an image with the names that are left, then those that it was made from, as far as nobody wants them.
    fn remove_image(
        &self,
        image: &Arc<Image>,
        options: &RemoveOptions,
        done: &mut Vec<Deleted>,
        quietly: bool,
    ) -> Result<()> {
        let Some(told) = self.remove_one(image, options, options.force, quietly)? else { return Ok(()) };
        let mut gone = vec![(Arc::clone(image), told)];
        // As many as a build has steps.
        let mut next = image.record.parent.filter(|_| !options.keep_parents);
        while let Some(parent) = next.and_then(|parent| self.with_id(parent)) {
            let Some(told) = self.remove_one(&parent, options, false, true)? else { break };
            next = parent.record.parent;
            gone.push((parent, told));
        }
        self.tell_gone(&gone, done);
        Ok(())
    }

    /// Tells what is gone with each image: a stack of layers is when no image has it and no container's root.
    fn tell_gone(&self, gone: &[(Arc<Image>, Vec<Deleted>)], done: &mut Vec<Deleted>) {
        // Which of them had a stack last.
        let mut lasts = HashMap::new();
        for (image, _) in gone {
            lasts.extend(image.chain.iter().map(|link| (*link, image.id)));
        }
        let state = self.state();
        for link in state.images.values().flat_map(|image| &image.chain) {
            let _kept = lasts.remove(link);
        }
        for root in state.snapshots.values() {
            let layers: Vec<_> = root.layers.iter().map(|layer| layer.diff_id).collect();
            for link in super::spec::chain_ids(&layers) {
                let _kept = lasts.remove(&link);
            }
        }
        drop(state);
        for (image, told) in gone {
            done.extend_from_slice(told);
            let links = image.chain.iter().rev().filter(|link| lasts.get(link) == Some(&image.id));
            done.extend(links.map(|link| Deleted::Deleted(link.to_string())));
        }
    }

    /// Removes one image, and gives what is to be told; nothing where `quietly` it stays.
    fn remove_one(
        &self,
        image: &Arc<Image>,
        options: &RemoveOptions,
        force: bool,
        quietly: bool,
    ) -> Result<Option<Vec<Deleted>>> {
        let mut done = Vec::new();
        let names = self.names(image.id);
        if let Some(conflict) = self.conflict(image.id, options, &names, !force, !force) {
            let dangling = names.is_empty() && !self.state().has_children(image.id);
            if quietly && (!dangling || conflict.used) {
                return Ok(None);
            }
            return Err(Error::conflict(conflict.text));
        }
        for name in &names {
            self.untag(image, name, &mut done)?;
        }
        let changing = self.changing();
        let mut state = self.state();
        let came = |root: &str| !options.users.iter().any(|user| user.container == owner(root));
        let user = state.snapshots.iter().find(|(root, snapshot)| snapshot.image == image.id && came(root));
        if let Some((container, _)) = user.filter(|_| !force) {
            // Made since the users were asked for.
            if quietly {
                return Ok(None);
            }
            let why = format!("image is being used by stopped container {}", short(container));
            let text = format!("conflict: unable to delete {} (must be forced) - {why}", image.id.short());
            return Err(Error::conflict(text));
        }
        // From now on no container is made of it.
        let removed = state.images.remove(&image.id);
        drop(state);
        if let Err(error) = self.store().remove(IMAGES, &image.id.to_string()) {
            self.state().images.extend(removed.map(|image| (image.id, image)));
            return Err(error);
        }
        drop((changing, removed));
        self.publish("delete", image, &image.id.to_string());
        done.push(Deleted::Deleted(image.id.to_string()));
        Ok(Some(done))
    }

    fn conflict(
        &self,
        id: Digest,
        options: &RemoveOptions,
        names: &[Reference],
        stopped: bool,
        referenced: bool,
    ) -> Option<Conflict> {
        let conflict = |force: &str, used: bool, why: String| {
            let text = format!("conflict: unable to delete {} ({force} be forced) - {why}", id.short());
            Some(Conflict { text, used })
        };
        if self.state().has_children(id) {
            return conflict("cannot", false, "image has dependent child images".to_owned());
        }
        let user = |running| options.users.iter().find(|user| user.image == id && user.running == running);
        if let Some(user) = user(true) {
            let why = format!("image is being used by running container {}", short(&user.container));
            return conflict("cannot", true, why);
        }
        if referenced && !names.is_empty() {
            return conflict("must", false, "image is referenced in multiple repositories".to_owned());
        }
        if let Some(user) = user(false).filter(|_| stopped) {
            let why = format!("image is being used by stopped container {}", short(&user.container));
            return conflict("must", true, why);
        }
        None
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn is_prefix(id: Digest, text: &str) -> bool {
    id.to_string().starts_with(text) || id.hex().starts_with(text)
}

/// One name; or one tag and digests of the same repository.
fn is_single(names: &[Reference]) -> bool {
    let mut tags = names.iter().filter(|name| name.digest.is_none());
    let first = tags.next();
    let Some(any) = first.or(names.first()) else { return false };
    names.len() == 1
        || (tags.next().is_none()
            && names.iter().any(|name| name.digest.is_some())
            && names.iter().all(|name| name.digest.is_none() || name.name() == any.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_and_its_digests_are_one_name() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let names = |texts: &[&str]| -> Vec<Reference> {
            texts.iter().map(|text| text.replace('D', &digest).parse().unwrap()).collect()
        };
        assert!(!is_single(&names(&[])));
        assert!(is_single(&names(&["a:1"])));
        assert!(is_single(&names(&["a:1", "a@D"])));
        assert!(is_single(&names(&["a@D"])));
        assert!(!is_single(&names(&["a:1", "b@D"])));
        assert!(!is_single(&names(&["a:1", "a:2"])));
    }
}

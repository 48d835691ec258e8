//! Names: given and taken; and an image's coming into being.

use std::sync::Arc;

use super::Images;
use super::digest::Digest;
use super::reference::Reference;
use super::state::{IMAGES, Image, ImageRecord, NAMES};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

impl Images {
    /// Makes an image of a config, whose layers are here. One that is here already is kept as it is.
    ///
    /// # Errors
    /// A config that is none, a layer that is not here, the disk.
    pub(super) fn add_image(&self, config: &[u8], record: ImageRecord) -> Result<Arc<Image>> {
        self.add_named_image(config, record, &[]).map(|(image, _)| image)
    }

    /// The same with names, in one step: nobody finds it without, as what a prune takes. Gives whose each name was, if another
    /// image's.
    ///
    /// # Errors
    /// As [`Images::add_image`].
    pub(super) fn add_named_image(
        &self,
        config: &[u8],
        record: ImageRecord,
        names: &[Reference],
    ) -> Result<(Arc<Image>, Vec<Option<Digest>>)> {
        let blob = self.add_blob(config)?;
        let _changing = self.changing();
        let image = self.put_image(blob.digest, config, record)?;
        names.iter().try_for_each(|name| self.put_name(image.id, name))?;
        let mut state = self.state();
        let _older = state.images.insert(image.id, Arc::clone(&image));
        let _whole_again = state.unread.remove(&image.id.to_string());
        let owners = names.iter().map(|name| state.names.insert(name.clone(), image.id));
        let owners = owners.map(|owner| owner.filter(|owner| *owner != image.id)).collect();
        Ok((image, owners))
    }

    /// Writes an image to the store, where it is not as it is to be. Called by who is changing things.
    fn put_image(&self, id: Digest, config: &[u8], record: ImageRecord) -> Result<Arc<Image>> {
        let record = match self.with_id(id) {
            Some(image) => {
                let mut merged = image.record.clone();
                merged.parent = merged.parent.or(record.parent);
                merged.built |= record.built;
                for manifest in record.manifests {
                    if !merged.manifests.contains(&manifest) {
                        merged.manifests.push(manifest);
                    }
                }
                if merged == image.record {
                    return Ok(image);
                }
                merged
            }
            None => record,
        };
        let image = Arc::new(self.state().image(id, config, record)?);
        if image.file.os != "linux" && !image.file.os.is_empty() {
            return Err(Error::invalid(format!("operating system is not supported: {}", image.file.os)));
        }
        self.store().put(IMAGES, &image.id.to_string(), &image.record)?;
        Ok(image)
    }

    /// Gives an image a name, taking it from whoever has it.
    ///
    /// # Errors
    /// The disk.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<()> {
        let _owner = self.name(image.id, name)?;
        let changing = self.changing();
        if let Some(present) = self.with_id(image.id) {
            let record =
                ImageRecord { last_tagged: Some(Timestamp::now().to_string()), ..present.record.clone() };
            self.store().put(IMAGES, &image.id.to_string(), &record)?;
            let tagged = Image {
                id: present.id,
                file: present.file.clone(),
                layers: present.layers.clone(),
                chain: present.chain.clone(),
                blobs: present.blobs.clone(),
                record,
            };
            let _older = self.state().images.insert(image.id, Arc::new(tagged));
        }
        drop(changing);
        self.publish("tag", image, &name.familiar());
        Ok(())
    }

    /// Gives a name, silently. Gives whose it was, if another's.
    pub(super) fn name(&self, id: Digest, name: &Reference) -> Result<Option<Digest>> {
        let _changing = self.changing();
        if self.with_id(id).is_none() {
            return Err(Error::not_found(crate::compat::no_such_image(&id.to_string())));
        }
        self.put_name(id, name)?;
        let owner = self.state().names.insert(name.clone(), id);
        Ok(owner.filter(|owner| *owner != id))
    }

    /// Writes a name to the store, where it is another's. Called by who is changing things.
    fn put_name(&self, id: Digest, name: &Reference) -> Result<()> {
        if self.state().names.get(name) == Some(&id) {
            return Ok(());
        }
        self.store().put(NAMES, &name.to_string(), &id)
    }
}

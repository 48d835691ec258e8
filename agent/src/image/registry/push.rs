//! `docker push`: layers that the registry lacks, the config, and the manifest last.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::auth::Credentials;
use super::connection::whole;
use super::repository::{Ask, Repository, problem};
use super::upload::Upload;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::digest::{Digest, Summing};
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::spec::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor, Manifest};
use crate::image::state::{Image, Layer};
use crate::locks::locked;

/// What to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// A tag, or a repository: all its tags.
    pub reference: Reference,
    /// Who asks.
    pub credentials: Credentials,
}

impl Images {
    /// Sends what is here by a name.
    ///
    /// # Errors
    /// In dockerd's words: no such tag, no access, a registry that does not answer or refuses.
    pub async fn push(&self, options: &PushOptions, progress: &Progress) -> Result<()> {
        let reference = &options.reference;
        progress.status(&format!("The push refers to repository [{}]", reference.name()));
        if reference.digest.is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let mut tags: Vec<(Reference, Arc<Image>)> = {
            let state = self.state();
            let named = state
                .names
                .iter()
                .filter(|(name, _)| name.digest.is_none() && name.name() == reference.name());
            named.filter_map(|(name, id)| Some((name.clone(), state.images.get(id).cloned()?))).collect()
        };
        if tags.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        if reference.tag.is_some() {
            tags.retain(|(name, _)| name.tag == reference.tag);
        }
        if tags.is_empty() {
            return Err(Error::not_found(format!("tag does not exist: {}", reference.familiar())));
        }
        let mut last = Error::new(Kind::Internal, format!("no endpoints found for {}", reference.name()));
        for endpoint in self.registries().endpoints(reference).into_iter().filter(|endpoint| !endpoint.mirror)
        {
            let repository =
                Arc::new(Repository::new(endpoint, reference, &options.credentials, "pull,push"));
            if let Err(error) = repository.ping().await {
                last = error;
                continue;
            }
            for (name, image) in &tags {
                self.push_tag(&repository, name, image, progress).await?;
            }
            return Ok(());
        }
        Err(last)
    }

    async fn push_tag(
        &self,
        repository: &Arc<Repository>,
        name: &Reference,
        image: &Arc<Image>,
        progress: &Progress,
    ) -> Result<()> {
        for layer in image.layers.iter().rev() {
            progress.part(&layer.diff_id.short(), "Preparing");
        }
        let original = self.original_manifest(image);
        let layers = self.push_layers(repository, name, image, original.as_ref(), progress).await?;
        let config = self.read_blob(image.id)?;
        if !repository.has_blob(image.id).await? {
            let body = Bytes::from(config.clone());
            let size = config.len() as u64;
            let _sent = repository.upload(image.id, size, None, &|| whole(body.clone()), &|_| {}).await?;
        }
        let (bytes, media_type) = match original {
            Some((bytes, manifest)) => {
                (bytes, manifest.media_type.unwrap_or_else(|| DOCKER_MANIFEST.to_owned()))
            }
            None => (manifest_of(image.id, config.len() as u64, &layers)?, DOCKER_MANIFEST.to_owned()),
        };
        let tag = name.tag.clone().unwrap_or_default();
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        repository.put_manifest(&tag, &media_type, bytes.clone().into()).await?;
        progress.status(&format!("{tag}: digest: {digest} size: {size}"));
        progress.aux_with_detail(&json!({ "Tag": tag, "Digest": digest, "Size": size }));
        let (images, image, name) = (self.clone(), Arc::clone(image), name.clone());
        blocking(move || {
            let _other = images.name(image.id, &name.with_digest(digest))?;
            images.publish_as("push", &name.familiar(), &image, &name.familiar_name());
            Ok(())
        })
        .await
    }

    /// Sends the layers that the registry lacks, some at once, and gives what they are there. The same layer twice is sent
    /// once.
    async fn push_layers(
        &self,
        repository: &Arc<Repository>,
        name: &Reference,
        image: &Arc<Image>,
        original: Option<&(Vec<u8>, Manifest)>,
        progress: &Progress,
    ) -> Result<Vec<Descriptor>> {
        let slots = Arc::new(Semaphore::new(self.registries().uploads()));
        let mut on_their_way = tokio::task::JoinSet::new();
        for (index, layer) in image.layers.iter().enumerate() {
            if image.layers[..index].iter().any(|before| before.diff_id == layer.diff_id) {
                continue;
            }
            let form = original.and_then(|(_, manifest)| manifest.layers.as_ref()?.get(index).cloned());
            let (images, repository, slots) = (self.clone(), Arc::clone(repository), Arc::clone(&slots));
            let (name, layer, progress) = (name.clone(), Arc::clone(layer), progress.clone());
            let _handle = on_their_way.spawn(async move {
                if slots.available_permits() == 0 {
                    progress.part(&layer.diff_id.short(), "Waiting");
                }
                let _slot =
                    slots.acquire().await.map_err(|error| Error::internal("waiting for a slot", &error))?;
                let sent = images.push_layer(&repository, &name, &layer, form, &progress).await?;
                Ok::<_, Error>((layer.diff_id, sent))
            });
        }
        let mut sent = std::collections::HashMap::new();
        while let Some(joined) = on_their_way.join_next().await {
            let (diff_id, form) = joined.map_err(|error| Error::internal("pushing a layer", &error))??;
            let _none = sent.insert(diff_id, form);
        }
        Ok(image.layers.iter().filter_map(|layer| sent.get(&layer.diff_id).cloned()).collect())
    }

    /// The manifest that the image came by, if all that it names is here as it names it.
    fn original_manifest(&self, image: &Image) -> Option<(Vec<u8>, Manifest)> {
        image.record.manifests.iter().find_map(|digest| {
            let bytes = self.read_blob(*digest).ok()?;
            let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
            let forms = manifest.layers.as_ref()?;
            let is_here = manifest.config.as_ref()?.digest == image.id
                && forms.len() == image.layers.len()
                && forms
                    .iter()
                    .zip(&image.layers)
                    .all(|(form, layer)| layer.blobs.iter().any(|blob| blob.digest == form.digest));
            is_here.then_some((bytes, manifest))
        })
    }

    async fn push_layer(
        &self,
        repository: &Repository,
        name: &Reference,
        layer: &Arc<Layer>,
        form: Option<Descriptor>,
        progress: &Progress,
    ) -> Result<Descriptor> {
        let id = layer.diff_id.short();
        let form = match form {
            Some(form) => form,
            None => self.compressed(layer).await?,
        };
        if repository.has_blob(form.digest).await? {
            progress.part(&id, "Layer already exists");
            return Ok(form);
        }
        let path = self.folders().blob(form.digest);
        let size = form.size;
        let open = || Upload::begin(path.clone(), size, id.clone(), progress.clone()).boxed_unsync();
        let retrying = |seconds: u64| {
            let plural = if seconds == 1 { "" } else { "s" };
            progress.part(&id, &format!("Retrying in {seconds} second{plural}"));
        };
        let from = self.repository_with(name, form.digest);
        let mounted = repository.upload(form.digest, size, from.as_deref(), &open, &retrying).await?;
        match from.filter(|_| mounted) {
            Some(from) => progress.part(&id, &format!("Mounted from {from}")),
            None => progress.part(&id, "Pushed"),
        }
        Ok(form)
    }

    /// Another repository of the same registry which should have a blob: an image with it was pulled from there, or pushed to.
    fn repository_with(&self, name: &Reference, digest: Digest) -> Option<String> {
        let state = self.state();
        let others = state.names.iter().filter(|(other, _)| {
            other.digest.is_some() && other.domain == name.domain && other.path != name.path
        });
        let mut with = others.filter(|(_, id)| {
            state.images.get(id).is_some_and(|image| image.layers.iter().any(|layer| layer.has_form(digest)))
        });
        with.next().map(|(other, _)| other.path.clone())
    }

    /// A form of the layer that every registry and client knows: what came compressed as it is, else gzip made now and kept.
    async fn compressed(&self, layer: &Arc<Layer>) -> Result<Descriptor> {
        let first = layer.record.forms.first().cloned();
        if let Some(form) = first.filter(|form| form.digest != layer.diff_id) {
            let media_type =
                if form.media_type.contains("zstd") { form.media_type } else { DOCKER_LAYER.to_owned() };
            return Ok(Descriptor::new(media_type, form.digest, form.size));
        }
        let (images, layer) = (self.clone(), Arc::clone(layer));
        blocking(move || {
            let failed = |error: io::Error| Error::internal("compressing a layer", &error);
            let mut gzip = locked(&layer.gzip);
            if let Some(blob) = gzip.as_ref() {
                return Ok(Descriptor::new(DOCKER_LAYER, blob.digest, blob.size));
            }
            let (file, staged) = images.staging().file().map_err(failed)?;
            let summing = Summing::new(file);
            let mut encoder = flate2::write::GzEncoder::new(summing, flate2::Compression::fast());
            images.write_layer(&layer, &mut encoder)?;
            let (_, digest, size) = encoder.finish().map_err(failed)?.finish();
            let blob = images.keep_blob(staged, digest, size)?;
            *gzip = Some(blob);
            Ok(Descriptor::new(DOCKER_LAYER, digest, size))
        })
        .await
    }
}

impl Repository {
    async fn put_manifest(&self, tag: &str, media_type: &str, bytes: Bytes) -> Result<()> {
        let sent = self
            .send(&Ask {
                method: Method::PUT,
                path: self.address(&format!("manifests/{tag}")),
                headers: vec![
                    (CONTENT_TYPE, media_type.to_owned()),
                    (CONTENT_LENGTH, bytes.len().to_string()),
                ],
                body: &|| whole(bytes.clone()),
            })
            .await?;
        if sent.status().is_success() { Ok(()) } else { Err(problem(sent).await) }
    }
}

/// As Docker's own tools write it: the digest depends on each space.
fn manifest_of(config: Digest, size: u64, layers: &[Descriptor]) -> Result<Vec<u8>> {
    let described = |media_type: &str, digest: Digest, size: u64| json!({ "mediaType": media_type, "size": size, "digest": digest });
    let layers: Vec<_> =
        layers.iter().map(|layer| described(&layer.media_type, layer.digest, layer.size)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": described(DOCKER_CONFIG, config, size),
        "layers": layers,
    });
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    manifest.serialize(&mut serializer).map_err(|error| Error::internal("encoding the manifest", &error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_dockers() {
        let digest = Digest::of(b"");
        let layer = Descriptor::new(DOCKER_LAYER, digest, 3);
        let text = String::from_utf8(manifest_of(digest, 2, &[layer]).unwrap()).unwrap();
        assert!(text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\": "), "{text}");
        assert!(text.contains("\"size\": 3,\n         \"digest\": \"sha256:e3b0"), "{text}");
    }
}

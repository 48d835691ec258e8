//! `docker push`: layers that the registry lacks, the config, and the manifest last.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::auth::Credentials;
use super::connection::whole;
use super::repository::{Ask, Repository, problem};
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::digest::{Digest, Summing};
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::spec::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor, Manifest};
use crate::image::state::{Image, Layer};
use crate::locks::locked;

/// Read from a layer at once.
const PIECE: usize = 128 << 10;
const STEP: u64 = 512 << 10;

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
        progress.status_with_detail(&format!("The push refers to repository [{}]", reference.name()));
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
            let repository = Repository::new(endpoint, reference, &options.credentials, "pull,push");
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
        repository: &Repository,
        name: &Reference,
        image: &Arc<Image>,
        progress: &Progress,
    ) -> Result<()> {
        for layer in image.layers.iter().rev() {
            progress.part(&layer.diff_id.short(), "Preparing");
        }
        let original = self.original_manifest(image);
        let mut layers = Vec::new();
        for (index, layer) in image.layers.iter().enumerate() {
            let form = match &original {
                Some((_, manifest)) => manifest.layers.as_ref().and_then(|forms| forms.get(index)).cloned(),
                None => None,
            };
            layers.push(self.push_layer(repository, layer, form, progress).await?);
        }
        let config = self.read_blob(image.id)?;
        if !repository.has_blob(image.id).await? {
            let body = Bytes::from(config.clone());
            repository.upload(image.id, config.len() as u64, &|| whole(body.clone())).await?;
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
        progress.status_with_detail(&format!("{tag}: digest: {digest} size: {size}"));
        progress.aux(&json!({ "Tag": tag, "Digest": digest, "Size": size }));
        let (images, image, name) = (self.clone(), Arc::clone(image), name.clone());
        let named = tokio::task::spawn_blocking(move || {
            let _other = images.name(image.id, &name.with_digest(digest))?;
            images.publish_as("push", &name.familiar(), &image, &name.familiar_name());
            Ok(())
        });
        named.await.map_err(|error| Error::internal("naming an image", &error))?
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
        repository.upload(form.digest, size, &open).await?;
        progress.part(&id, "Pushed");
        Ok(form)
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
        let made = tokio::task::spawn_blocking(move || {
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
        });
        made.await.map_err(|error| Error::internal("compressing a layer", &error))?
    }
}

impl Repository {
    /// Sends a blob whole, and lets the registry verify it.
    async fn upload(
        &self,
        digest: Digest,
        size: u64,
        body: &(dyn Fn() -> super::connection::Body + Send + Sync),
    ) -> Result<()> {
        let begun = self
            .send(&Ask {
                method: Method::POST,
                path: self.address("blobs/uploads/"),
                headers: vec![(CONTENT_LENGTH, "0".to_owned())],
                body: &|| whole(Bytes::new()),
            })
            .await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(problem(begun).await);
        }
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Error::invalid("the registry names no place to upload to"))?;
        let (_, path) = self.resolve(location)?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let sent = self
            .send(&Ask {
                method: Method::PUT,
                path: format!("{path}{joint}digest={}", digest.to_string().replace(':', "%3A")),
                headers: vec![
                    (CONTENT_LENGTH, size.to_string()),
                    (CONTENT_TYPE, "application/octet-stream".to_owned()),
                ],
                body,
            })
            .await?;
        if sent.status().is_success() { Ok(()) } else { Err(problem(sent).await) }
    }

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

/// A blob's file as a body, read by a thread of its own.
struct Upload {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Upload {
    fn begin(path: std::path::PathBuf, size: u64, id: String, progress: Progress) -> Self {
        let (sender, pieces) = mpsc::channel(8);
        drop(tokio::task::spawn_blocking(move || {
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            let (mut done, mut told) = (0, 0);
            loop {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    Bytes::from(piece)
                });
                let count = read.as_ref().map_or(0, Bytes::len) as u64;
                let failed = read.is_err();
                let ended = count == 0 && !failed;
                if ended || sender.blocking_send(read).is_err() || failed {
                    return;
                }
                done += count;
                if done - told >= STEP || done == size {
                    told = done;
                    progress.bytes(&id, "Pushing", done, size);
                }
            }
        }));
        Self { pieces, left: size }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                let piece = piece?;
                self.left = self.left.saturating_sub(piece.len() as u64);
                Ok(Frame::data(piece))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
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

//! `docker pull`: a manifest, the one for this machine if it is an index, its config, and its layers at once.

use std::sync::Arc;
use std::time::Instant;

use super::auth::Credentials;
use super::origin::Origin;
use super::repository::{Distribution, Fetched, Repository, reference_name};
use super::transfer::Wanted;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::sharing::{Peers, Shared, Step};
use crate::image::spec::{Descriptor, ImageFile, Platform};
use crate::image::state::{Blob, Image, ImageRecord};
use crate::image::{Images, Pulls};

/// Indexes that lead to indexes.
const DEPTH: usize = 4;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which; without tag and digest all tags of the repository.
    pub reference: Reference,
    /// For another machine than this.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credentials: Credentials,
}

impl Images {
    /// Fetches what a registry has by a name, and names it so here.
    ///
    /// # Errors
    /// In dockerd's words: no such manifest, no access, a registry that does not answer, content that is not what it says.
    pub async fn pull(&self, options: &PullOptions, progress: &Progress) -> Result<()> {
        self.counted(self.pull_named(options, progress)).await
    }

    /// One pull, however it goes.
    async fn counted(&self, pull: impl Future<Output = Result<()>>) -> Result<()> {
        let began = Instant::now();
        let pulled = pull.await;
        self.pulls().took.took(began.elapsed());
        self.pulls().failed.add(usize::from(pulled.is_err()));
        pulled
    }

    async fn pull_named(&self, options: &PullOptions, progress: &Progress) -> Result<()> {
        let _sweep = Sweep(self.clone());
        let reference = &options.reference;
        let mut last = Error::new(Kind::Internal, format!("no endpoints found for {}", reference.familiar()));
        for endpoint in self.registries().endpoints(reference) {
            let repository = Arc::new(Repository::new(endpoint, reference, &options.credentials, "pull"));
            match self.pull_from(&repository, options, progress).await {
                Ok(()) => return Ok(()),
                // What the registry itself says counts; where none answers, the next may.
                Err((Answered::Yes, error)) if !repository.is_mirror() => return Err(error),
                Err((_, error)) => last = error,
            }
        }
        Err(last)
    }

    /// The same of an image that is named by digest, from other nodes that have it, or from the registry for them.
    ///
    /// # Errors
    /// As [`Images::pull`], which may have it all the same.
    pub async fn pull_shared(
        &self,
        options: &PullOptions,
        peers: Arc<dyn Peers>,
        progress: &Progress,
    ) -> Result<()> {
        let Some(image) = options.reference.digest else { return self.pull(options, progress).await };
        self.counted(self.pull_with_others(options, Shared { image, peers }, progress)).await
    }

    async fn pull_with_others(
        &self,
        options: &PullOptions,
        shared: Shared,
        progress: &Progress,
    ) -> Result<()> {
        let reference = &options.reference;
        let mut turn = self.turn_of(shared.image).await;
        if self.find(&reference.familiar()).is_ok() {
            told(false, reference, progress);
            return Ok(());
        }
        // Many tasks of an image that can't be had do not try it one after another.
        if let Some(failed) = &turn.failed {
            return Err(failed.clone());
        }
        let _sweep = Sweep(self.clone());
        let origin = Arc::new(Origin::shared(self, options, shared));
        match self.pull_one(&origin, reference, options, progress).await {
            Ok(newer) => told(newer, reference, progress),
            Err(error) => {
                turn.failed = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// How pulls went so far.
    #[must_use]
    pub fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    async fn pull_from(
        &self,
        repository: &Arc<Repository>,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<(), (Answered, Error)> {
        let _pong = repository.ping().await.map_err(|error| (Answered::No, error))?;
        let answered = |error| (Answered::Yes, error);
        let reference = &options.reference;
        let mut wanted = vec![reference.clone()];
        if reference.is_name_only() {
            let tags = repository.tags().await.map_err(|error| answered(translated(error, reference)))?;
            wanted = tags.iter().filter_map(|tag| reference.with_tag(tag).ok()).collect();
        }
        let origin = Arc::new(Origin::of(self, options, Arc::clone(repository)));
        let mut newer = false;
        for one in &wanted {
            newer |= self.pull_one(&origin, one, options, progress).await.map_err(answered)?;
        }
        told(newer, reference, progress);
        Ok(())
    }

    /// One tag or digest. Gives whether it is new here.
    async fn pull_one(
        &self,
        origin: &Arc<Origin>,
        reference: &Reference,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<bool> {
        let name = reference_name(reference);
        let fetched = origin.manifest(&name, reference.digest).await;
        let fetched = fetched.map_err(|error| translated(error, reference))?;
        progress.headline(&name, &format!("Pulling from {}", familiar_path(reference)));
        let (image, newer) = self.pull_image(origin, &fetched, reference, options, progress).await?;
        progress.status(&format!("Digest: {}", fetched.digest));
        self.publish_as("pull", &reference.familiar(), &image, &reference.familiar_name());
        Ok(newer)
    }

    /// The image, by the name that was asked for and by digest, and whether anything is new.
    async fn pull_image(
        &self,
        origin: &Arc<Origin>,
        named: &Fetched,
        reference: &Reference,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<(Arc<Image>, bool)> {
        let mut fetched = named.clone();
        let mut kept: Vec<Arc<Blob>> = vec![self.keep_fetched(origin, &fetched.bytes).await?];
        for _ in 0..DEPTH {
            let Some(manifests) = &fetched.manifest.manifests else { break };
            let best = self.choose(manifests, options)?;
            origin.offer([best]);
            let (next, blob) = match self.local_manifest(best).await {
                Some(local) => local,
                None => {
                    let next = origin.manifest(&best.to_string(), Some(best)).await?;
                    let blob = self.keep_fetched(origin, &next.bytes).await?;
                    (next, blob)
                }
            };
            fetched = next;
            kept.push(blob);
        }
        let (Some(config), Some(layers)) = (&fetched.manifest.config, &fetched.manifest.layers) else {
            return Err(Error::invalid(format!("unsupported media type {}", fetched.media_type)));
        };
        // Of an image that is here already dockerd tells no layers.
        let is_here = self.state().images.contains_key(&config.digest);
        origin.offer(layers.iter().map(|layer| layer.digest).chain([config.digest]));
        origin.offers_all();
        let (bytes, config) = match self.local_document(config.digest).await {
            Some((bytes, blob)) => (bytes.into(), blob),
            None => {
                let bytes = origin.document(config.digest).await?;
                let blob = self.keep_fetched(origin, &bytes).await?;
                (bytes, blob)
            }
        };
        let file = ImageFile::read(&bytes)
            .map_err(|error| Error::invalid(format!("invalid rootfs in image configuration: {error}")))?;
        if file.rootfs.diff_ids.len() != layers.len() {
            return Err(Error::invalid("layers from manifest don't match image configuration"));
        }
        if !file.os.is_empty() && file.os != "linux" {
            return Err(Error::invalid(format!(
                "cannot download image with operating system \"{}\" when requesting \"linux\"",
                file.os
            )));
        }
        let wanted: Vec<_> = layers
            .iter()
            .zip(&file.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| Wanted { descriptor: descriptor.clone(), diff_id: *diff_id })
            .collect();
        let held = self.pull_layers(origin, &wanted, is_here, progress).await?;
        let record = ImageRecord {
            manifests: kept.iter().map(|blob| blob.digest).collect(),
            ..ImageRecord::default()
        };
        let mut names = vec![reference.with_digest(named.digest)];
        if reference.digest.is_none() {
            names.push(reference.clone());
        }
        let images = self.clone();
        let added = blocking(move || {
            let before = names.last().and_then(|name| images.state().id_of(name));
            let (image, _) = images.add_named_image(&bytes, record, &names)?;
            let newer = before != Some(image.id);
            Ok((image, newer))
        });
        let added = added.await?;
        drop((held, kept, config));
        Ok(added)
    }

    async fn pull_layers(
        &self,
        origin: &Arc<Origin>,
        wanted: &[Wanted],
        is_here: bool,
        progress: &Progress,
    ) -> Result<Vec<Arc<crate::image::Layer>>> {
        if let Some(foreign) = wanted.iter().find(|wanted| is_foreign(&wanted.descriptor)) {
            return Err(Error::invalid(format!(
                "layer {} is foreign ({}): layers from elsewhere than the registry are not supported",
                foreign.descriptor.digest, foreign.descriptor.media_type
            )));
        }
        // All are begun before the first is waited for; the order of messages is the layers'.
        let mut on_their_way = tokio::task::JoinSet::new();
        let mut layers = vec![None; wanted.len()];
        for (index, one) in wanted.iter().enumerate() {
            if let Some(layer) = self.layer(one.diff_id) {
                if !is_here {
                    progress.part(&one.descriptor.digest.short(), "Already exists");
                }
                let is_given = origin.mark().is_some_and(|by| {
                    let digest = one.descriptor.digest;
                    self.blob(digest).is_some() && self.marks_on(digest).contains(&by)
                });
                if let Some(shared) = origin.peers().filter(|_| is_given) {
                    shared.tell(one.descriptor.digest, Step::Has);
                }
                layers[index] = Some(layer);
                continue;
            }
            progress.part(&one.descriptor.digest.short(), "Pulling fs layer");
            let joined = self.transfer(origin, one);
            let (images, origin) = (self.clone(), Arc::clone(origin));
            let (one, progress) = (one.clone(), progress.clone());
            let _handle = on_their_way
                .spawn(async move { (index, images.follow(&origin, joined, &one, &progress).await) });
        }
        while let Some(joined) = on_their_way.join_next().await {
            let (index, layer) = joined.map_err(|error| Error::internal("pulling a layer", &error))?;
            // The others are given up, unless somebody else wants them, when the set goes.
            layers[index] = Some(layer?);
        }
        Ok(layers.into_iter().flatten().collect())
    }

    fn choose(&self, manifests: &[Descriptor], options: &PullOptions) -> Result<Digest> {
        let wanted = options.platform.clone().unwrap_or_else(Platform::of_host);
        let fitness = |one: &Descriptor| wanted.fitness(one.platform.as_ref()?);
        let best = manifests.iter().rev().filter(|one| fitness(one).is_some()).max_by_key(|one| fitness(one));
        best.map(|one| one.digest).ok_or_else(|| {
            let text = format!("no matching manifest for {} in the manifest list entries", wanted.text());
            Error::not_found(text)
        })
    }

    async fn local_document(&self, digest: Digest) -> Option<(Vec<u8>, Arc<Blob>)> {
        let blob = self.blob(digest)?;
        let images = self.clone();
        let bytes = tokio::task::spawn_blocking(move || images.read_blob(digest).ok()).await.ok()??;
        Some((bytes, blob))
    }

    async fn local_manifest(&self, digest: Digest) -> Option<(Fetched, Arc<Blob>)> {
        let (bytes, blob) = self.local_document(digest).await?;
        let manifest: crate::image::spec::Manifest = serde_json::from_slice(&bytes).ok()?;
        let media_type = manifest.media_type.clone().unwrap_or_default();
        Some((Fetched { bytes: bytes.into(), digest, media_type, manifest }, blob))
    }

    /// What has come, verified, and by whose credentials.
    async fn keep_fetched(&self, origin: &Origin, bytes: &bytes::Bytes) -> Result<Arc<Blob>> {
        let (images, bytes, by) = (self.clone(), bytes.clone(), origin.mark());
        blocking(move || {
            images.mark(Digest::of(&bytes), by)?;
            images.add_blob(&bytes)
        })
        .await
    }

    /// What a registry has by a name, without fetching it.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub async fn distribution(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Distribution> {
        let reference = reference.clone().with_default_tag();
        let mut last = Error::new(Kind::Internal, format!("no endpoints found for {}", reference.familiar()));
        for endpoint in self.registries().endpoints(&reference) {
            let repository = Repository::new(endpoint, &reference, credentials, "pull");
            if let Err(error) = repository.ping().await {
                last = error;
                continue;
            }
            match repository.inspect(&reference).await {
                Ok(found) => return Ok(found),
                Err(error) if repository.is_mirror() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

fn told(newer: bool, reference: &Reference, progress: &Progress) {
    let text = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
    progress.status(&format!("Status: {text} {}", reference.familiar()));
}

/// Takes away what a pull has fetched and no image has, however it ends: a client may have left.
pub(super) struct Sweep(pub(super) Images);

impl Drop for Sweep {
    fn drop(&mut self) {
        let images = self.0.clone();
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = images.collect_garbage() {
                tracing::warn!("after a pull: {}", error.message);
            }
        }));
    }
}

/// Whether a registry is there at all.
enum Answered {
    Yes,
    No,
}

fn is_foreign(descriptor: &Descriptor) -> bool {
    !descriptor.urls.is_empty()
        || descriptor.media_type.contains("foreign")
        || descriptor.media_type.contains("nondistributable")
}

/// A repository as `Pulling from` shows it.
fn familiar_path(reference: &Reference) -> &str {
    &reference.path
}

/// dockerd's words around the registry's.
fn translated(error: Error, reference: &Reference) -> Error {
    let because = |text: String| Error::new(Kind::NotFound, format!("{text}: {}", error.message));
    if error.message.starts_with("denied: ") {
        because(format!(
            "pull access denied for {}, repository does not exist or may require 'docker login'",
            reference.familiar_name()
        ))
    } else if error.message.starts_with("manifest unknown: ") {
        because(format!("manifest for {} not found", reference.familiar()))
    } else if error.message.starts_with("name unknown: ") {
        because(format!("repository {} not found", reference.familiar_name()))
    } else {
        // dockerd tells clients that the registry's answers are its own fault.
        match error.kind {
            Kind::Unauthorized | Kind::Forbidden | Kind::NotFound => {
                Error::new(Kind::Internal, error.message)
            }
            _ => error,
        }
    }
}

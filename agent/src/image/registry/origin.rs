//! Where a pull gets its parts: from a registry; and where nodes share what they have, from them before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ketch_node::mark::Mark;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};

use super::pull::PullOptions;
use super::repository::{DOCUMENT_LIMIT, Fetched, Repository};
use super::tls;
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::digest::Digest;
use crate::image::giving::Offer;
use crate::image::sharing::{Part, PieceError, Shared, Source, Step};

/// How long a document is waited for that others have or fetch: it has some kilobytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// As many nodes may not answer before the registry is asked.
const MOST_LOST: usize = 3;
/// What one node is asked for at once, in bytes.
const PIECE: u32 = 1 << 20;
/// As many answers of a document may be shorter: it is summed up after each.
const MOST_SHORT: usize = 16;
/// Between two questions for what is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

/// Of one pull.
#[derive(Debug)]
pub(super) struct Origin {
    /// Looked for when it is needed: where nodes share, it may not answer.
    repository: OnceCell<Arc<Repository>>,
    images: Images,
    options: PullOptions,
    /// Of whoever pulls.
    mark: Option<Mark>,
    shared: Option<(Shared, Offer)>,
}

impl Origin {
    /// A registry that has answered.
    pub(super) fn of(images: &Images, options: &PullOptions, repository: Arc<Repository>) -> Self {
        Self {
            repository: OnceCell::new_with(Some(repository)),
            images: images.clone(),
            options: options.clone(),
            mark: mark_of(images, options),
            shared: None,
        }
    }

    /// Other nodes first.
    pub(super) fn shared(images: &Images, options: &PullOptions, shared: Shared) -> Self {
        let mark = mark_of(images, options);
        let offer = images.offer(shared.image, mark);
        Self {
            repository: OnceCell::new(),
            images: images.clone(),
            options: options.clone(),
            mark,
            shared: Some((shared, offer)),
        }
    }

    /// The other nodes, where they share.
    pub(super) fn peers(&self) -> Option<&Shared> {
        self.shared.as_ref().map(|(shared, _)| shared)
    }

    /// By whose credentials all of it comes.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// These belong to the image.
    pub(super) fn offer(&self, blobs: impl IntoIterator<Item = Digest>) {
        if let Some((_, offer)) = &self.shared {
            offer.add(blobs);
        }
    }

    /// All that belongs to it is known.
    pub(super) fn offers_all(&self) {
        if let Some((_, offer)) = &self.shared {
            offer.is_all();
        }
    }

    /// The registry: the first of those that may have it which answers.
    ///
    /// # Errors
    /// None does.
    pub(super) async fn repository(&self) -> Result<&Arc<Repository>> {
        let look = async || {
            let reference = &self.options.reference;
            let mut last =
                Error::new(Kind::Internal, format!("no endpoints found for {}", reference.familiar()));
            for endpoint in self.images.registries().endpoints(reference) {
                let repository = Repository::new(endpoint, reference, &self.options.credentials, "pull");
                match repository.ping().await {
                    Ok(_pong) => return Ok(Arc::new(repository)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        self.repository.get_or_try_init(look).await
    }

    /// The manifest or index of a tag or digest; a digest is verified.
    pub(super) async fn manifest(&self, name: &str, digest: Option<Digest>) -> Result<Fetched> {
        let (Some((shared, _)), Some(digest)) = (&self.shared, digest) else {
            return self.repository().await?.manifest(name, digest).await;
        };
        let registry = async { Ok(self.repository().await?.manifest(name, Some(digest)).await?.bytes) };
        Fetched::read(document(shared, digest, registry).await?, String::new())
    }

    /// A small blob, verified.
    pub(super) async fn document(&self, digest: Digest) -> Result<Bytes> {
        let Some((shared, _)) = &self.shared else { return self.repository().await?.document(digest).await };
        document(shared, digest, async { self.repository().await?.document(digest).await }).await
    }
}

/// By whose credentials it comes; nobody's that can be told of where this node has a certificate for the registry.
fn mark_of(images: &Images, options: &PullOptions) -> Option<Mark> {
    let has_certificate = || {
        let endpoints = images.registries().endpoints(&options.reference);
        endpoints.iter().any(|endpoint| tls::has_own_certificate(&endpoint.certificates))
    };
    images.mark_of(&options.credentials).filter(|_| !has_certificate())
}

/// A manifest or config by its digest: from whoever has it, or from the registry, for all.
async fn document(
    shared: &Shared,
    digest: Digest,
    registry: impl Future<Output = Result<Bytes>> + Send,
) -> Result<Bytes> {
    let part = shared.part(digest);
    let until = Instant::now() + PATIENCE;
    let mut avoid = BTreeSet::new();
    let mut lost = 0;
    while lost < MOST_LOST && Instant::now() < until {
        let Some(found) = shared.peers.find(part, Step::Seeks, avoid.clone()).await else {
            return registry.await;
        };
        if found.registry || found.sources.is_empty() {
            break;
        }
        for source in found.sources {
            match timeout_at(until, collect(shared, &source, part)).await {
                Ok(Ok(Some(bytes))) => {
                    shared.tell(digest, Step::Has);
                    return Ok(bytes);
                }
                Ok(Ok(None)) => {
                    shared.peers.blame(&source.node, part);
                    let _new = avoid.insert(source.node);
                }
                Ok(Err(PieceError::NotYet)) => {}
                Ok(Err(PieceError::NotHere)) => drop(avoid.insert(source.node)),
                Ok(Err(PieceError::Lost(_))) => {
                    lost += 1;
                    let _new = avoid.insert(source.node);
                }
                Err(_late) => break,
            }
            if lost == MOST_LOST {
                break;
            }
        }
        sleep(PAUSE).await;
    }
    let fetched = registry.await;
    shared.tell(digest, if fetched.is_ok() { Step::Has } else { Step::GivesUp });
    fetched
}

/// All of a document as a node has it; none when that is another one.
async fn collect(shared: &Shared, source: &Source, part: Part) -> Result<Option<Bytes>, PieceError> {
    let mut all = BytesMut::new();
    let mut short = 0;
    while all.len() < DOCUMENT_LIMIT {
        match shared.peers.piece(source.clone(), part, (all.len() as u64, PIECE)).await {
            Ok(bytes) => {
                all.extend_from_slice(&bytes);
                if bytes.len() == PIECE as usize {
                    continue;
                }
            }
            // It ends there.
            Err(PieceError::NotHere) if !all.is_empty() => {
                return Ok((Digest::of(&all) == part.blob).then(|| all.freeze()));
            }
            Err(error) => return Err(error),
        }
        if Digest::of(&all) == part.blob {
            return Ok(Some(all.freeze()));
        }
        short += 1;
        if short == MOST_SHORT {
            return Err(PieceError::Lost("it gives a document in crumbs".to_owned()));
        }
    }
    Ok(None)
}

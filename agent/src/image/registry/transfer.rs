//! One layer on its way from a registry: fetched once for all who want it, summed, inflated and unpacked as it arrives, and
//! begun again where it broke.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::StatusCode;
use ketch_node::layers::{self, Failure, Gather, Served, Taker};
use ketch_node::mark::Mark;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::origin::Origin;
use super::pull::Sweep;
use super::repository::Repository;
use crate::blocking::{Arriving, blocking};
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::digest::Digest;
use crate::image::layers::{Promised, is_another_blob};
use crate::image::progress::Progress;
use crate::image::sharing::Shared;
use crate::image::spec::Descriptor;
use crate::image::state::Layer;
use crate::locks::locked;

/// A connection that brought so many bytes was worth it: it is made again at once, and does not count as an attempt.
const WORTH: u64 = 64 << 10;
/// Of a status 416.
const NOT_SATISFIABLE: &str = "416 Range Not Satisfiable";
/// Between two attempts, in seconds, times the number of those that failed.
const PAUSE: u64 = 5;
/// What waits between the connection and the thread that unpacks: a few buffers.
const QUEUE: usize = 32;
/// Between two messages to clients, in bytes.
const STEP: u64 = 512 << 10;
/// A connection over which nothing comes for so long is broken.
const SILENCE: Duration = Duration::from_secs(60);

/// How far one is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Begun,
    Waiting,
    Downloading(u64),
    Retrying(u64),
    Downloaded,
    Done(Arc<Layer>),
    Failed(Error),
}

/// One that is on its way; it is given up when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Transfer {
    phase: watch::Receiver<Phase>,
}

/// Who is asked for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Registry,
    /// Other nodes, and the registry when nobody else does.
    Nodes,
}

/// One client's part in a transfer.
#[derive(Debug)]
pub(super) struct Joined {
    transfer: Arc<Transfer>,
    /// Whether he has begun it.
    is_own: bool,
}

/// What is fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

impl Images {
    /// The transfer of a layer: the one that is on its way, or a new one. Who asks the registry alone waits for no other nodes: he
    /// joins none that does.
    pub(super) fn transfer(&self, origin: &Arc<Origin>, wanted: &Wanted) -> Joined {
        let registries = self.registries();
        let mut transfers = locked(&registries.transfers);
        transfers.retain(|_, transfer| transfer.strong_count() > 0);
        let of = (wanted.diff_id, if origin.peers().is_some() { Asked::Nodes } else { Asked::Registry });
        let present = transfers.get(&of).and_then(std::sync::Weak::upgrade);
        let failed = |transfer: &Arc<Transfer>| matches!(*transfer.phase.borrow(), Phase::Failed(_));
        if let Some(transfer) = present.filter(|transfer| !failed(transfer)) {
            return Joined { transfer, is_own: false };
        }
        let (sender, phase) = watch::channel(Phase::Begun);
        let transfer = Arc::new(Transfer { phase });
        let _none = transfers.insert(of, Arc::downgrade(&transfer));
        let (images, origin, wanted) = (self.clone(), Arc::clone(origin), wanted.clone());
        drop(tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = images.fetch(&origin, &wanted, &sender) => outcome,
                () = sender.closed() => return,
            };
            let _nobody = sender.send(match outcome {
                Ok(layer) => Phase::Done(layer),
                Err(error) => Phase::Failed(error),
            });
        }));
        Joined { transfer, is_own: true }
    }

    /// Tells one client how it goes, to the end. What another one began fails by his registry, his credentials, the nodes that he
    /// asked: then it is begun again, once for all who waited.
    pub(super) async fn follow(
        &self,
        origin: &Arc<Origin>,
        joined: Joined,
        wanted: &Wanted,
        progress: &Progress,
    ) -> Result<Arc<Layer>> {
        match joined.transfer.follow(wanted, progress).await {
            Err(error) if !joined.is_own => {
                debug!("layer {} is fetched again: {}", wanted.descriptor.digest, error.message);
                self.transfer(origin, wanted).transfer.follow(wanted, progress).await
            }
            done => done,
        }
    }

    async fn fetch(
        &self,
        origin: &Origin,
        wanted: &Wanted,
        phase: &watch::Sender<Phase>,
    ) -> Result<Arc<Layer>> {
        let slots = Arc::clone(&self.registries().slots);
        if slots.available_permits() == 0 {
            let _nobody = phase.send(Phase::Waiting);
        }
        let _slot =
            slots.acquire_owned().await.map_err(|error| Error::internal("waiting for a slot", &error))?;
        let attempts = self.registries().attempts();
        if let Some(shared) = origin.peers() {
            return self.fetch_shared((origin, shared), wanted, (phase, attempts)).await;
        }
        let repository = origin.repository().await?;
        self.take(wanted, (&Bringer::Registry(repository), origin.mark()), (phase, attempts)).await
    }

    /// From other nodes, and from the registry when the leader says so.
    async fn fetch_shared(
        &self,
        (origin, shared): (&Origin, &Shared),
        wanted: &Wanted,
        (phase, attempts): (&watch::Sender<Phase>, usize),
    ) -> Result<Arc<Layer>> {
        let fetch = Fetch { images: self, origin, wanted, phase, attempts };
        layers::fetch(&shared.nodes(wanted.descriptor.digest), wanted.descriptor.size, &fetch).await
    }

    fn liars(&self, digest: Digest, served: &[Served]) -> BTreeSet<String> {
        let Some(_held) = self.blob(digest) else { return BTreeSet::new() };
        let Ok(file) = File::open(self.folders().blob(digest)) else { return BTreeSet::new() };
        let is_right = |served: &Served| {
            let mut bytes = vec![0; usize::try_from(served.length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, served.from).is_ok_and(|()| served.was(&bytes))
        };
        served.iter().filter(|served| !is_right(served)).map(|served| served.node.clone()).collect()
    }

    /// Unpacks what is brought, and keeps it if it is what was wanted.
    async fn take(
        &self,
        wanted: &Wanted,
        (bringer, by): (&Bringer<'_>, Option<Mark>),
        (phase, attempts): (&watch::Sender<Phase>, usize),
    ) -> Result<Arc<Layer>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (images, promised) = (
            self.clone(),
            Promised {
                blob: Some(wanted.descriptor.digest),
                diff_id: Some(wanted.diff_id),
                media_type: Some(wanted.descriptor.media_type.clone()),
                by,
            },
        );
        let stream = Arriving::new(Bytes::new(), receiver);
        let is_given = matches!(bringer, Bringer::Nodes(..));
        let unpacking = tokio::task::spawn_blocking(move || {
            // Behind the layer, which nobody may be waiting for any more.
            let sweep = Sweep(images.clone());
            let added = match is_given {
                true => images.add_given_layer(stream, &promised),
                false => images.add_layer(stream, &promised),
            };
            (added, sweep)
        });
        let sink = Sink { to: &sender, phase, attempts };
        let fetched = match bringer {
            Bringer::Registry(repository) => download(repository, wanted, 0, &sink).await,
            Bringer::Nodes(gather, origin) => gather.run(&Shares { origin, wanted, sink: &sink }).await,
        };
        if let Err(error) = &fetched {
            let _gone = sender.send(Err(io::Error::other(error.message.clone()))).await;
        }
        drop(sender);
        let unpacked = unpacking.await.map_err(|error| Error::internal("unpacking a layer", &error))?;
        let (unpacked, _sweep) = unpacked;
        match (fetched, unpacked) {
            // The thread that unpacks has given up first, and says why.
            (Err(error), Err(unpacked)) if error.kind == Kind::NotModified => Err(unpacked),
            (Err(error), _) => Err(error),
            (Ok(()), unpacked) => unpacked,
        }
    }
}

/// Who brings a layer.
enum Bringer<'a> {
    Registry(&'a Repository),
    /// And what has come is given to others.
    Nodes(&'a Gather<'a>, &'a Origin),
}

/// Where what comes goes.
struct Sink<'a> {
    to: &'a mpsc::Sender<io::Result<Bytes>>,
    phase: &'a watch::Sender<Phase>,
    /// As often as the registry is asked.
    attempts: usize,
}

/// A layer that other nodes may have.
struct Fetch<'a> {
    images: &'a Images,
    origin: &'a Origin,
    wanted: &'a Wanted,
    phase: &'a watch::Sender<Phase>,
    attempts: usize,
}

impl layers::Fetch for Fetch<'_> {
    type Whole = Arc<Layer>;
    type Error = Error;

    fn attempt<'a>(&'a self, gather: &'a Gather<'_>) -> BoxFuture<'a, Result<Arc<Layer>>> {
        async move {
            let bringer = Bringer::Nodes(gather, self.origin);
            let (by, told) = (self.origin.mark(), (self.phase, self.attempts));
            self.images.take(self.wanted, (&bringer, by), told).await
        }
        .boxed()
    }

    fn failure(&self, error: &Error) -> Failure {
        let layer = self.wanted.descriptor.digest;
        debug!("layer {layer} came wrong, or not, from other nodes: {}", error.message);
        match error.kind {
            _ if is_another_blob(error) => Failure::AnotherBlob,
            Kind::InvalidArgument => Failure::Wrong,
            Kind::Unavailable => Failure::Cut,
            _ => Failure::Own,
        }
    }

    fn liars(&self, served: Vec<Served>) -> BoxFuture<'_, BTreeSet<String>> {
        let (images, digest) = (self.images.clone(), self.wanted.descriptor.digest);
        async move { blocking(move || Ok(images.liars(digest, &served))).await.unwrap_or_default() }.boxed()
    }
}

/// One try of it.
struct Shares<'a> {
    origin: &'a Origin,
    wanted: &'a Wanted,
    sink: &'a Sink<'a>,
}

impl Taker for Shares<'_> {
    type Error = Error;

    fn take(&self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        async move {
            let taken = self.sink.to.send(Ok(bytes)).await;
            taken.map_err(|_| Error::new(Kind::NotModified, "unpacking has ended"))
        }
        .boxed()
    }

    fn has_come_to(&self, done: u64) {
        let is_all = done == self.wanted.descriptor.size;
        let phase = if is_all { Phase::Downloaded } else { Phase::Downloading(done) };
        let _nobody = self.sink.phase.send(phase);
    }

    fn ask_registry(&self, done: u64) -> BoxFuture<'_, Result<()>> {
        async move { download(self.origin.repository().await?, self.wanted, done, self.sink).await }.boxed()
    }

    fn stopped(&self) -> Error {
        Error::new(Kind::Unavailable, "a node does not go on giving a layer")
    }
}

/// Fetches a blob from `from` to its end, again and again from where it broke.
async fn download(repository: &Repository, wanted: &Wanted, from: u64, sink: &Sink<'_>) -> Result<()> {
    let Sink { to, phase, attempts } = *sink;
    let total = wanted.descriptor.size;
    let (mut done, mut told, mut failures) = (from, from, 0);
    loop {
        let before = done;
        let broken = match repository.blob(wanted.descriptor.digest, done).await {
            Ok(response) => {
                // One that does not know ranges begins anew: what we have is skipped.
                let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { done };
                let mut body = response.into_body();
                loop {
                    let mut bytes = match tokio::time::timeout(SILENCE, body.frame()).await {
                        Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                        Ok(Some(Err(error))) => break error.to_string(),
                        Ok(None) if done >= total => return Ok(()),
                        Ok(None) => break "unexpected EOF".to_owned(),
                        Err(_) => break "i/o timeout".to_owned(),
                    };
                    let skipped = bytes.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                    drop(bytes.split_to(skipped));
                    skip -= skipped as u64;
                    done += bytes.len() as u64;
                    if done > total {
                        let digest = wanted.descriptor.digest;
                        return Err(Error::invalid(format!(
                            "filesystem layer verification failed for digest {digest}"
                        )));
                    }
                    if to.send(Ok(bytes)).await.is_err() {
                        return Err(Error::new(Kind::NotModified, "unpacking has ended"));
                    }
                    if done - told >= STEP || done == total {
                        told = done;
                        let _nobody = phase.send(Phase::Downloading(done));
                    }
                    if done == total {
                        let _nobody = phase.send(Phase::Downloaded);
                    }
                }
            }
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unauthorized | Kind::Forbidden) => {
                return Err(error);
            }
            // There is nothing behind what came: it is smaller than it is said to be.
            Err(error) if done > 0 && error.message.contains(NOT_SATISFIABLE) => {
                let digest = wanted.descriptor.digest;
                return Err(Error::invalid(format!(
                    "layer {digest} has {done} bytes, and its manifest says {total}"
                )));
            }
            Err(error) => error.message,
        };
        debug!("layer {} broke at byte {done}: {broken}", wanted.descriptor.digest);
        failures = if done - before >= WORTH { 0 } else { failures + 1 };
        if failures >= attempts {
            return Err(Error::new(Kind::Internal, broken));
        }
        for seconds in (1..=failures as u64 * PAUSE).rev() {
            let _nobody = phase.send(Phase::Retrying(seconds));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Transfer {
    /// Tells one client how it goes, to the end.
    async fn follow(&self, wanted: &Wanted, progress: &Progress) -> Result<Arc<Layer>> {
        let (id, total) = (wanted.descriptor.digest.short(), wanted.descriptor.size);
        let mut phase = self.phase.clone();
        let mut downloaded = false;
        loop {
            let present = phase.borrow_and_update().clone();
            let finished = matches!(present, Phase::Downloaded | Phase::Done(_));
            if finished && !downloaded {
                downloaded = true;
                progress.part(&id, "Verifying Checksum");
                progress.part(&id, "Download complete");
            }
            match present {
                Phase::Waiting => progress.part(&id, "Waiting"),
                Phase::Downloading(done) => progress.bytes(&id, "Downloading", done, total),
                Phase::Retrying(seconds) => {
                    let plural = if seconds == 1 { "" } else { "s" };
                    progress.part(&id, &format!("Retrying in {seconds} second{plural}"));
                }
                Phase::Begun | Phase::Downloaded => {}
                Phase::Done(layer) => {
                    progress.bytes(&id, "Extracting", total, total);
                    progress.part(&id, "Pull complete");
                    return Ok(layer);
                }
                Phase::Failed(error) => return Err(error),
            }
            if phase.changed().await.is_err() && !matches!(*phase.borrow(), Phase::Done(_) | Phase::Failed(_))
            {
                return Err(Error::new(Kind::Internal, "context canceled"));
            }
        }
    }
}

#[cfg(test)]
mod tests;

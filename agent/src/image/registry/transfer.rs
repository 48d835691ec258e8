//! One layer on its way from a registry: fetched once for all who want it, summed, inflated and unpacked as it arrives, and
//! begun again where it broke.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::pull::Sweep;
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::digest::Digest;
use crate::image::layers::Promised;
use crate::image::progress::Progress;
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

/// What is fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

impl Images {
    /// The transfer of a layer: the one that is on its way, or a new one.
    pub(super) fn transfer(&self, repository: &Arc<Repository>, wanted: &Wanted) -> Arc<Transfer> {
        let registries = self.registries();
        let mut transfers = locked(&registries.transfers);
        transfers.retain(|_, transfer| transfer.strong_count() > 0);
        let present = transfers.get(&wanted.diff_id).and_then(std::sync::Weak::upgrade);
        let failed = |transfer: &Arc<Transfer>| matches!(*transfer.phase.borrow(), Phase::Failed(_));
        if let Some(transfer) = present.filter(|transfer| !failed(transfer)) {
            return transfer;
        }
        let (sender, phase) = watch::channel(Phase::Begun);
        let transfer = Arc::new(Transfer { phase });
        let _none = transfers.insert(wanted.diff_id, Arc::downgrade(&transfer));
        let (images, repository, wanted) = (self.clone(), Arc::clone(repository), wanted.clone());
        drop(tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = images.fetch(&repository, &wanted, &sender) => outcome,
                () = sender.closed() => return,
            };
            let _nobody = sender.send(match outcome {
                Ok(layer) => Phase::Done(layer),
                Err(error) => Phase::Failed(error),
            });
        }));
        transfer
    }

    async fn fetch(
        &self,
        repository: &Repository,
        wanted: &Wanted,
        phase: &watch::Sender<Phase>,
    ) -> Result<Arc<Layer>> {
        let slots = Arc::clone(&self.registries().slots);
        if slots.available_permits() == 0 {
            let _nobody = phase.send(Phase::Waiting);
        }
        let _slot =
            slots.acquire_owned().await.map_err(|error| Error::internal("waiting for a slot", &error))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (images, promised) = (
            self.clone(),
            Promised {
                blob: Some(wanted.descriptor.digest),
                diff_id: Some(wanted.diff_id),
                media_type: Some(wanted.descriptor.media_type.clone()),
            },
        );
        let stream = Arriving { receiver, present: Bytes::new() };
        let unpacking = tokio::task::spawn_blocking(move || {
            // Behind the layer, which nobody may be waiting for any more.
            let sweep = Sweep(images.clone());
            (images.add_layer(stream, &promised), sweep)
        });
        let attempts = self.registries().attempts();
        let fetched = download(repository, wanted, attempts, &sender, phase).await;
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

/// Fetches a blob to its end, again and again from where it broke.
async fn download(
    repository: &Repository,
    wanted: &Wanted,
    attempts: usize,
    to: &mpsc::Sender<io::Result<Bytes>>,
    phase: &watch::Sender<Phase>,
) -> Result<()> {
    let total = wanted.descriptor.size;
    let (mut done, mut told, mut failures) = (0_u64, 0_u64, 0);
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

/// What arrives, read by the thread that unpacks.
struct Arriving {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    present: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.present = bytes?,
                None => return Ok(0),
            }
        }
        let count = self.present.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.present.split_to(count));
        Ok(count)
    }
}

impl Transfer {
    /// Tells one client how it goes, to the end.
    pub(super) async fn follow(&self, wanted: &Wanted, progress: &Progress) -> Result<Arc<Layer>> {
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

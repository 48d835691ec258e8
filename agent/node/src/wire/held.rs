//! An answer that holds turns of whoever gives it until the other end has taken its bytes: somebody who reads slowly is waited for a
//! while, and then neither the bytes nor the turns are kept for him.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::body::Body;

/// How long the other end may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the connection gets at once, in bytes: it keeps no more than that of an answer whose turns are given back.
const SLICE: usize = 16 << 10;

/// Bytes, and what is not given to anybody else before they are gone.
#[derive(Debug)]
pub struct Held {
    pub bytes: Bytes,
    pub turns: Vec<OwnedSemaphorePermit>,
}

/// Until all is taken, or the time is over.
#[derive(Debug, Clone)]
struct Slot(Arc<Mutex<Option<Held>>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes, copied: a slice would keep all of them. The inner none is the end, the outer one that the time is over.
    fn next(&self) -> Option<Option<Bytes>> {
        let mut slot = self.lock();
        let held = slot.as_mut()?;
        if held.bytes.is_empty() {
            return Some(None);
        }
        let length = held.bytes.len().min(SLICE);
        Some(Some(Bytes::copy_from_slice(&held.bytes.split_to(length))))
    }
}

/// Ends with the body, and with it what was held: a task that is aborted ends a moment later.
#[derive(Debug)]
struct Timer {
    slot: Slot,
    task: AbortHandle,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
        drop(self.slot.lock().take());
    }
}

impl Held {
    pub(super) fn body(self) -> Body {
        let slot = Slot(Arc::new(Mutex::new(Some(self))));
        let kept = slot.clone();
        // The body itself is not asked while the other end takes nothing.
        let timer = tokio::spawn(async move {
            sleep(PATIENCE).await;
            drop(kept.lock().take());
        });
        let timer = Timer { slot: slot.clone(), task: timer.abort_handle() };
        let state = Some((slot, timer));
        let frames = futures_util::stream::unfold(state, async |state| {
            let (slot, timer) = state?;
            match slot.next() {
                Some(None) => None,
                Some(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some((slot, timer)))),
                None => Some((Err("the answer was not taken in time".into()), None)),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    async fn piece(turns: &Arc<Semaphore>, length: usize) -> Body {
        let turn = Arc::clone(turns).acquire_owned().await.unwrap();
        Held { bytes: vec![7; length].into(), turns: vec![turn] }.body()
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_held_until_all_is_taken() {
        let turns = Arc::new(Semaphore::new(1));
        let mut body = piece(&turns, 3 * SLICE).await;
        for _ in 0..3 {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), SLICE);
            assert_eq!(turns.available_permits(), 0);
        }
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(turns.available_permits(), 1);
        drop(piece(&turns, SLICE).await);
        assert_eq!(turns.available_permits(), 1, "given up, it is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_not_waited_for() {
        let turns = Arc::new(Semaphore::new(1));
        let mut body = piece(&turns, 3 * SLICE).await;
        let _first = body.frame().await.unwrap().unwrap();
        sleep(PATIENCE + Duration::from_secs(1)).await;
        assert_eq!(turns.available_permits(), 1);
        assert!(body.frame().await.unwrap().is_err());
    }
}

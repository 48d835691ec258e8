//! Answers calls in the task of the connection that they came by, where calls are small and many: a task for each costs a wake of
//! another thread, and of a call that is nothing but a heartbeat that is a good part. Called by the server of calls.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

/// What runs the answers of one connection.
#[derive(Clone)]
pub(super) enum Answers {
    /// Each in a task of its own: some may take long to reckon.
    Apart,
    /// All in the connection's.
    Together(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>),
}

impl Answers {
    pub(super) fn together() -> Self {
        Self::Together(Arc::default())
    }

    /// Runs the connection, and beside it what it has given here to be run. What is not done when it ends goes on.
    pub(super) async fn beside<T>(self, mut connection: BoxFuture<'static, T>) -> T {
        let Self::Together(coming) = self else { return connection.await };
        let take = || mem::take(&mut *coming.lock().unwrap_or_else(PoisonError::into_inner));
        let mut running = FuturesUnordered::new();
        let ended = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                let came = take();
                let has_news = !came.is_empty();
                running.extend(came);
                // What was answered the connection sends.
                if !finish_some(&mut running, context) && !has_news {
                    return Poll::Pending;
                }
            }
        })
        .await;
        running.extend(take());
        if !running.is_empty() {
            drop(tokio::spawn(running.for_each(|()| std::future::ready(()))));
        }
        ended
    }
}

/// Whether one has ended.
fn finish_some(running: &mut FuturesUnordered<BoxFuture<'static, ()>>, context: &mut Context<'_>) -> bool {
    let mut has_ended = false;
    while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {
        has_ended = true;
    }
    has_ended
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Answers {
    fn execute(&self, answer: F) {
        match self {
            Self::Apart => TokioExecutor::new().execute(answer),
            Self::Together(coming) => {
                let answer = Box::pin(async { drop(answer.await) });
                coming.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            }
        }
    }
}

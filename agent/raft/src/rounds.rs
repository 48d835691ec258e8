//! A question that many have at once: it is put once for all who had it before it was put. Whoever comes while it is under way has the next
//! round, since the answer may be older than his question.
//!
//! Ten thousand workers come back to a new leader at one moment, and each session begins with a read: raft would be asked ten thousand times,
//! and what is to be committed would wait behind them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

/// The rounds of one question, whose answer is a `T`.
#[derive(Debug)]
pub(crate) struct Rounds<T> {
    asking: Mutex<Asking>,
    /// The last answer, and how many had asked before its question was put.
    answered: watch::Sender<(u64, Option<T>)>,
}

#[derive(Debug, Default)]
struct Asking {
    /// How many have asked.
    count: u64,
    is_under_way: bool,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { asking: Mutex::default(), answered: watch::Sender::new((0, None)) }
    }
}

impl<T: Clone + Send + Sync + 'static> Rounds<T> {
    /// The answer to a question that was put after this was called. `put` puts it, at `home`; it goes on when this is dropped.
    pub(crate) async fn answer<F>(
        self: &Arc<Self>,
        home: &Handle,
        put: impl Fn() -> F + Send + 'static,
    ) -> Option<T>
    where
        F: Future<Output = T> + Send,
    {
        let (own, is_first) = self.ask();
        if is_first {
            let this = Arc::clone(self);
            home.spawn(async move {
                while let Some(asked) = this.next_round() {
                    let answer = put().await;
                    this.answered.send_replace((asked, Some(answer)));
                }
            });
        }
        let mut answered = self.answered.subscribe();
        let answered = answered.wait_for(|(asked, _)| *asked >= own).await;
        answered.ok().and_then(|answered| answered.1.clone())
    }

    /// Which one the caller is, and whether nobody puts the question now.
    fn ask(&self) -> (u64, bool) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.count += 1;
        (asking.count, !std::mem::replace(&mut asking.is_under_way, true))
    }

    /// How many have asked, if any of them has no answer yet.
    fn next_round(&self) -> Option<u64> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let has_more = self.answered.borrow().0 < asking.count;
        asking.is_under_way = has_more;
        has_more.then_some(asking.count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Answers with the number of the question, a second after it was put.
    fn question(
        put: &Arc<AtomicU64>,
    ) -> impl Fn() -> futures_util::future::BoxFuture<'static, u64> + Send + 'static {
        let put = Arc::clone(put);
        move || {
            let number = put.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                number
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_a_question_is_under_way_has_the_next_one_with_all_others() {
        let (rounds, put) = (Arc::new(Rounds::default()), Arc::new(AtomicU64::new(0)));
        let home = Handle::current();
        let began = Instant::now();
        let first = rounds.answer(&home, question(&put));
        let others = async {
            sleep(Duration::from_millis(500)).await;
            join_all((0..1000).map(|_| rounds.answer(&home, question(&put)))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first, Some(1));
        assert!(others.iter().all(|answer| *answer == Some(2)), "{others:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(
            rounds.answer(&home, question(&put)).await,
            Some(3),
            "nothing that was answered before is"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_keeps_nobody_waiting() {
        let (rounds, put) = (Arc::new(Rounds::default()), Arc::new(AtomicU64::new(0)));
        let home = Handle::current();
        let given_up =
            tokio::time::timeout(Duration::from_millis(100), rounds.answer(&home, question(&put))).await;
        assert!(given_up.is_err());
        assert_eq!(rounds.answer(&home, question(&put)).await, Some(2));
        assert_eq!(put.load(Ordering::Relaxed), 2);
    }
}

//! What a session's stream is to say next: topics, not messages. However often one is rung and however slow the reader is,
//! each is kept once, and what is sent is as of the moment in which there is room for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// In the order in which they are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Managers,
    Membership,
    Logs,
    Tunnels,
    Measures,
    /// The dearest, and the only one that is held back.
    Assignment,
}

impl Topic {
    pub(super) const ALL: [Self; 6] =
        [Self::Managers, Self::Membership, Self::Logs, Self::Tunnels, Self::Measures, Self::Assignment];
}

/// Rung by whoever sees a change, read by one feeder.
#[derive(Debug)]
pub(super) struct Bell {
    topics: Mutex<BTreeSet<Topic>>,
    rung: Notify,
}

enum Next {
    Now(Topic),
    AtLatest(Instant),
    WhenRung,
}

impl Bell {
    /// Of a stream that has said nothing yet.
    pub(super) fn of_all() -> Self {
        Self { topics: Mutex::new(Topic::ALL.into()), rung: Notify::new() }
    }

    pub(super) fn ring(&self, topics: impl IntoIterator<Item = Topic>) {
        self.topics().extend(topics);
        self.rung.notify_one();
    }

    /// The next topic, once there is one; an assignment not before that moment.
    pub(super) async fn next(&self, assignment_from: Instant) -> Topic {
        loop {
            match self.take(assignment_from) {
                Next::Now(topic) => return topic,
                Next::WhenRung => self.rung.notified().await,
                Next::AtLatest(moment) => {
                    tokio::select! {
                        biased;
                        () = self.rung.notified() => {}
                        () = sleep_until(moment) => {}
                    }
                }
            }
        }
    }

    fn take(&self, assignment_from: Instant) -> Next {
        let mut topics = self.topics();
        match topics.first().copied() {
            None => Next::WhenRung,
            Some(Topic::Assignment) if Instant::now() < assignment_from => Next::AtLatest(assignment_from),
            Some(topic) => {
                topics.remove(&topic);
                Next::Now(topic)
            }
        }
    }

    fn topics(&self) -> MutexGuard<'_, BTreeSet<Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_topic_once_and_an_assignment_not_before_its_time() {
        let bell = Bell::of_all();
        bell.ring([Topic::Membership, Topic::Membership]);
        let begun = Instant::now();
        let from = begun + Duration::from_millis(100);
        for expected in Topic::ALL {
            assert_eq!(bell.next(from).await, expected);
        }
        assert_eq!(Instant::now(), from);
        bell.ring([Topic::Assignment, Topic::Assignment]);
        let from = Instant::now() + Duration::from_millis(100);
        let later = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            bell.ring([Topic::Logs]);
        };
        let (first, ()) = tokio::join!(bell.next(from), later);
        assert_eq!(first, Topic::Logs, "it does not wait behind the assignment");
        assert_eq!(Instant::now(), from - Duration::from_millis(70));
        assert_eq!(bell.next(from).await, Topic::Assignment);
        assert_eq!(Instant::now(), from);
    }
}

//! What tasks here use, measured while the leader wants it, and told to it: how much they have used since the measurement before, over
//! the time since. It ends with the session that it was asked for in; nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ketch_cluster::autoscale::Use;
use ketch_cluster::fault::Fault;
use ketch_cluster::id::TaskId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::session::Session;
use crate::calls::{Measure, MeasuresWanted, UsesTell};
use crate::executor::{Executor, Reading};

/// How long the leader has to take one.
const ANSWER: Duration = Duration::from_secs(5);
/// A container that can't be measured in that time holds up the others no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whatever the leader says.
const SHORTEST: Duration = Duration::from_millis(500);

/// Those of one session.
#[derive(Debug)]
pub(super) struct Measures {
    session: Session,
    wanted: watch::Sender<MeasuresWanted>,
    running: JoinSet<()>,
}

impl Measures {
    pub(super) fn new(session: Session) -> Self {
        Self { session, wanted: watch::Sender::default(), running: JoinSet::new() }
    }

    /// From now on these, and no others.
    pub(super) fn set(&mut self, wanted: MeasuresWanted) {
        self.wanted.send_replace(wanted);
        if self.running.is_empty() {
            self.running.spawn(measure(self.session.clone(), self.wanted.subscribe()));
        }
    }
}

async fn measure(session: Session, mut wanted: watch::Receiver<MeasuresWanted>) {
    let mut meter = Meter::default();
    loop {
        let MeasuresWanted { every, tasks } = wanted.borrow_and_update().clone();
        let uses = meter.uses(&session.hands.executor, &tasks).await;
        if !uses.is_empty() {
            let tell = UsesTell { session: session.number, uses };
            if let Err(error) = session.hands.links.ask(&session.leader, &tell, ANSWER).await {
                // What the session's end is to be said of, its heartbeats say.
                tracing::debug!(%error, "what tasks use is not told");
            }
        }
        if tasks.is_empty() {
            if wanted.changed().await.is_err() {
                return;
            }
        } else {
            sleep(every.max(SHORTEST)).await;
        }
    }
}

/// What was read last of each task.
#[derive(Debug, Default)]
struct Meter(BTreeMap<TaskId, (Instant, Reading)>);

impl Meter {
    async fn uses(
        &mut self,
        executor: &Arc<dyn Executor>,
        tasks: &[(TaskId, Measure)],
    ) -> Vec<(TaskId, Use)> {
        let read = |(task, what): &(TaskId, Measure)| {
            let (task, what) = (*task, *what);
            async move {
                let read = timeout(PATIENCE, executor.measure(task, what)).await;
                (task, Instant::now(), read.unwrap_or_else(|_| Err("it takes too long".to_owned())))
            }
        };
        let mut before = std::mem::take(&mut self.0);
        let mut uses = Vec::new();
        for (task, at, read) in join_all(tasks.iter().map(read)).await {
            let reading = match read {
                Ok(reading) => reading,
                Err(reason) => {
                    tracing::debug!(%task, reason, "not measured");
                    continue;
                }
            };
            uses.push((task, used(before.remove(&task), (at, reading))));
            self.0.insert(task, (at, reading));
        }
        uses
    }
}

/// Between two readings. Of a count that went back nothing is known: it was begun anew.
fn used(before: Option<(Instant, Reading)>, (at, now): (Instant, Reading)) -> Use {
    let rate = |count: fn(&Reading) -> Option<u64>, unit: u128| {
        let (then, before) = before.as_ref()?;
        let counted = count(&now)?.checked_sub(count(before)?)?;
        let nanoseconds = at.duration_since(*then).as_nanos();
        if nanoseconds == 0 {
            return None;
        }
        u64::try_from(u128::from(counted) * unit / nanoseconds).ok()
    };
    Use {
        // Nanoseconds in a nanosecond are CPUs.
        cpu: rate(|reading| reading.cpu, 1_000_000_000),
        memory: now.memory.filter(|_| !Fault::MemoryUntold.is_made()),
        requests: rate(|reading| reading.connections, 1000 * 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_what_has_come_since_over_the_time_since() {
        let begun = Instant::now();
        let reading = |cpu, connections| Reading { cpu: Some(cpu), memory: Some(7), connections };
        let first = (begun, reading(1_000, Some(10)));
        assert_eq!(used(None, first), Use { cpu: None, memory: Some(7), requests: None });
        let later = begun + Duration::from_secs(2);
        let second = (later, reading(3_000_001_000, Some(15)));
        let wanted = Use { cpu: Some(1_500_000_000), memory: Some(7), requests: Some(2_500) };
        assert_eq!(used(Some(first), second), wanted);
        let anew = (later, reading(0, None));
        assert_eq!(used(Some(first), anew), Use { cpu: None, memory: Some(7), requests: None });
        assert_eq!(used(Some(first), first).cpu, None, "no time has passed");
    }
}

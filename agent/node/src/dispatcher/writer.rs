//! Brings verdicts on nodes and ends of tasks into the store, many in one proposal, and never more than one proposal in
//! 100 ms: a thousand workers that end tasks at once are ten entries a second in the log.
//!
//! It holds only which nodes and tasks are to be looked at; what is written is judged when it is their turn.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::reconcilers::MOST_ACTIONS;
use ketch_cluster::store::StoreAction;
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::View;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::sessions::Sessions;
use super::{verdict, words};
use crate::manager::Leader;

/// Between two proposals.
pub(super) const PACE: Duration = Duration::from_millis(100);
/// How long a worker's word waits for its commit; after that the worker tells again.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Writer {
    pending: Mutex<Pending>,
    rung: Notify,
    /// Counts the rounds that are over.
    rounds: watch::Sender<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pending {
    nodes: BTreeSet<NodeId>,
    ends: BTreeSet<TaskId>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::default(), rung: Notify::new(), rounds: watch::Sender::default() }
    }

    pub(super) fn add_nodes(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.add(Pending { nodes: nodes.into_iter().collect(), ..Pending::default() });
    }

    pub(super) fn add_ends(&self, ends: BTreeSet<TaskId>) {
        self.add(Pending { ends, ..Pending::default() });
    }

    /// Those of the tasks whose end is in the store, once it is that of all or the patience is over.
    pub(super) async fn committed(&self, leader: &Leader, ends: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        let mut rounds = self.rounds.subscribe();
        let settled = || {
            leader.view(|view| {
                ends.iter().copied().filter(|id| words::is_settled(view, *id)).collect::<BTreeSet<_>>()
            })
        };
        let all = async { while settled().len() < ends.len() && rounds.changed().await.is_ok() {} };
        drop(timeout(PATIENCE, all).await);
        settled()
    }

    /// Writes what is to be written, until it is dropped.
    pub(super) async fn run(&self, leader: &Leader, sessions: &Sessions) {
        loop {
            while self.pending().is_empty() {
                self.rung.notified().await;
            }
            let round = self.pending().take();
            let written = leader
                .change(|view, now, _| {
                    let actions = round.actions(view, sessions, now);
                    Ok::<_, Infallible>((actions.len(), actions))
                })
                .await;
            self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
            match written {
                Ok(0) => {}
                Ok(_) => sleep(PACE).await,
                Err(error) => {
                    tracing::debug!(%error, "nodes and ends can't be written yet");
                    self.add(round);
                    sleep(PACE).await;
                }
            }
        }
    }

    fn add(&self, more: Pending) {
        let mut pending = self.pending();
        pending.nodes.extend(more.nodes);
        pending.ends.extend(more.ends);
        drop(pending);
        self.rung.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.ends.is_empty()
    }

    /// As many as one proposal holds. Neither kind keeps the other waiting.
    fn take(&mut self) -> Self {
        let room_for_nodes = MOST_ACTIONS - self.ends.len().min(MOST_ACTIONS / 2);
        let nodes = first(&mut self.nodes, room_for_nodes);
        let ends = first(&mut self.ends, MOST_ACTIONS - nodes.len());
        Self { nodes, ends }
    }

    fn actions(&self, view: &View<'_>, sessions: &Sessions, now: Timestamp) -> Vec<StoreAction> {
        let nodes = self.nodes.iter().filter_map(|id| {
            let standing = sessions.standing(*id)?;
            verdict::written(view.node(*id)?, &standing, now)
        });
        let ends = self.ends.iter().filter_map(|id| words::ended(view, *id, now));
        let ends = ends.map(|task| StoreAction::Update(task.into()));
        nodes.map(|node| StoreAction::Update(node.into())).chain(ends).collect()
    }
}

/// Takes the first ones out.
fn first<T: Ord + Copy>(from: &mut BTreeSet<T>, most: usize) -> BTreeSet<T> {
    let rest = match from.iter().nth(most).copied() {
        Some(after) => from.split_off(&after),
        None => BTreeSet::new(),
    };
    std::mem::replace(from, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(nodes: u128, ends: u128) -> Pending {
        Pending { nodes: (0..nodes).map(NodeId::of).collect(), ends: (0..ends).map(TaskId::of).collect() }
    }

    #[test]
    fn a_round_has_room_for_both_and_at_most_200() {
        for (nodes, ends, taken) in [
            (3, 4, (3, 4)),
            (500, 500, (100, 100)),
            (500, 10, (190, 10)),
            (10, 500, (10, 190)),
            (0, 201, (0, 200)),
        ] {
            let mut all = pending(nodes, ends);
            let round = all.take();
            assert_eq!((round.nodes.len(), round.ends.len()), taken);
            let rest = (nodes as usize - taken.0, ends as usize - taken.1);
            assert_eq!((all.nodes.len(), all.ends.len()), rest);
        }
    }
}

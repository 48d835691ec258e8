//! How many tasks may be preempted: in one pass, and within a minute, in the whole cluster and of one service.
//!
//! Counted in what was preempted of late, which the reaper keeps: the next leader counts the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::ServiceId;
use crate::objects::displacement::Cause;
use crate::objects::{ServiceMode, Task};
use crate::time::Timestamp;
use crate::view::View;

/// Whatever was displaced longer ago counts no more.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Within the window; in a large cluster a hundredth of its nodes.
pub(crate) const MOST: usize = 30;
const NODES_FOR_ONE: usize = 100;
/// Within the window, of one service; of a large one a tenth of what it asks for.
pub(crate) const MOST_OF_SERVICE: usize = 10;
const REPLICAS_FOR_ONE: u64 = 10;
/// In one pass; in a large cluster a third of what may be in the window.
pub(crate) const MOST_AT_ONCE: usize = 10;
const PASSES: usize = 3;

#[derive(Debug)]
pub(super) struct Budget<'v> {
    view: View<'v>,
    left: usize,
    /// When it may be more again.
    grows_at: Timestamp,
    of_service: BTreeMap<ServiceId, usize>,
}

impl<'v> Budget<'v> {
    pub(super) fn of(view: View<'v>, nodes: usize, now: Timestamp) -> Self {
        let mut preempted = 0;
        let mut of_service = BTreeMap::<_, usize>::new();
        let mut grows_at = now.after(WINDOW);
        for task in view.displaced_since(now.before(WINDOW)) {
            let counts = |it: &Cause, at: Timestamp| {
                matches!(it, Cause::Preempted { .. }) && !at.after(WINDOW).is_due(WINDOW, now)
            };
            if let Some(displaced) = task.displaced.as_ref().filter(|it| counts(&it.cause, it.at)) {
                preempted += 1;
                grows_at = grows_at.min(displaced.at.after(WINDOW));
                task.service.into_iter().for_each(|id| *of_service.entry(id).or_default() += 1);
            }
        }
        let most = MOST.max(nodes / NODES_FOR_ONE);
        let left = most.saturating_sub(preempted).min(MOST_AT_ONCE.max(most / PASSES));
        Self { view, left, grows_at, of_service }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// When the first of those that count counts no more.
    pub(super) fn grows_at(&self) -> Timestamp {
        self.grows_at
    }

    /// Whether all of them may be taken.
    pub(super) fn allows(&self, victims: &[Arc<Task>]) -> bool {
        let mut more = BTreeMap::<_, usize>::new();
        victims.iter().filter_map(|it| it.service).for_each(|id| *more.entry(id).or_default() += 1);
        let taken = |id| self.of_service.get(id).copied().unwrap_or_default();
        victims.len() <= self.left && more.iter().all(|(id, more)| taken(id) + more <= self.most_of(*id))
    }

    fn most_of(&self, service: ServiceId) -> usize {
        let asked = self.view.service(service).map_or(0, |service| match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            ServiceMode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
            ServiceMode::Global | ServiceMode::GlobalJob => 0,
        });
        MOST_OF_SERVICE.max(usize::try_from(asked / REPLICAS_FOR_ONE).unwrap_or(usize::MAX))
    }

    pub(super) fn spend(&mut self, victims: &[Arc<Task>]) {
        self.left = self.left.saturating_sub(victims.len());
        for id in victims.iter().filter_map(|it| it.service) {
            *self.of_service.entry(id).or_default() += 1;
        }
    }
}

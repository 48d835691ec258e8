//! Until when each node must have been heard. Moments are tokio's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    of: BTreeMap<NodeId, Instant>,
    order: BTreeSet<(Instant, NodeId)>,
}

impl Deadlines {
    pub(super) fn set(&mut self, node: NodeId, moment: Instant) {
        self.remove(node);
        self.of.insert(node, moment);
        self.order.insert((moment, node));
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        if let Some(moment) = self.of.remove(&node) {
            self.order.remove(&(moment, node));
        }
    }

    /// Whether the node's moment is then or before.
    pub(super) fn is_before(&self, node: NodeId, moment: Instant) -> bool {
        self.of.get(&node).is_some_and(|known| *known <= moment)
    }

    /// The next one to pass.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(moment, _)| *moment)
    }

    /// Takes the nodes out whose moment has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<NodeId> {
        let mut due = Vec::new();
        while let Some((_, node)) = self.order.first().copied().filter(|(moment, _)| *moment <= now) {
            self.remove(node);
            due.push(node);
        }
        due
    }

    /// Gives all of them more time.
    pub(super) fn postpone(&mut self, span: Duration) {
        self.order =
            std::mem::take(&mut self.order).into_iter().map(|(it, node)| (it + span, node)).collect();
        self.of.values_mut().for_each(|moment| *moment += span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_taken_once_and_all_can_be_postponed() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        for (node, seconds) in [(1, 5), (2, 3), (3, 9), (1, 7)] {
            deadlines.set(NodeId::of(node), at(seconds));
        }
        assert_eq!(deadlines.first(), Some(at(3)));
        assert!(deadlines.is_before(NodeId::of(1), at(7)) && !deadlines.is_before(NodeId::of(1), at(6)));
        assert!(!deadlines.is_before(NodeId::of(4), at(99)));
        assert_eq!(deadlines.take_due(at(2)), []);
        assert_eq!(deadlines.take_due(at(7)), [NodeId::of(2), NodeId::of(1)]);
        assert_eq!(deadlines.take_due(at(7)), []);
        deadlines.postpone(Duration::from_secs(4));
        assert_eq!(deadlines.first(), Some(at(13)));
        deadlines.remove(NodeId::of(3));
        assert_eq!(deadlines.first(), None);
        assert_eq!(deadlines.take_due(at(99)), []);
    }
}

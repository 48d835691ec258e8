//! Places of each node: for its connections, or for the pieces that it gets at once. Nobody keeps others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_cluster::id::NodeId;
use tokio::sync::Semaphore;

#[derive(Debug, Default)]
pub(super) struct Places {
    of: BTreeMap<NodeId, Arc<Semaphore>>,
    /// With so many nodes it is looked who has gone.
    swept_at: usize,
}

impl Places {
    /// Those of a node; so many when it has none in use.
    pub(super) fn of(&mut self, node: NodeId, most: usize) -> Arc<Semaphore> {
        if self.of.len() >= self.swept_at {
            // Whoever has a place, or waits for one, holds them.
            self.of.retain(|_, places| Arc::strong_count(places) > 1);
            self.swept_at = self.of.len().saturating_mul(2).max(64);
        }
        Arc::clone(self.of.entry(node).or_insert_with(|| Arc::new(Semaphore::new(most))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;

    #[tokio::test]
    async fn one_node_has_a_few_places_and_leaves_others_theirs() {
        let mut places = Places::default();
        let (one, other) = (NodeId::of(1), NodeId::of(2));
        let held: Vec<_> = (0..MOST).map(|_| places.of(one, MOST).try_acquire_owned().unwrap()).collect();
        assert!(places.of(one, MOST).try_acquire_owned().is_err());
        assert!(places.of(other, MOST).try_acquire_owned().is_ok());
        places.swept_at = 0;
        assert!(places.of(one, MOST).try_acquire_owned().is_err(), "a sweep forgets nobody who has turns");
        drop(held);
        assert!(places.of(one, MOST).try_acquire_owned().is_ok());
    }
}

//! What the leader has said of who may have which image from this node, for as long as it is believed.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::time::Instant;

/// How long a right is believed in.
const BELIEVED: Duration = Duration::from_secs(30);
/// And that there is none: a task may have come meanwhile.
const REFUSED: Duration = Duration::from_secs(5);
/// Between two warnings of one node.
const QUIET: Duration = Duration::from_secs(60);
/// As many words are remembered, and as many nodes that were warned of.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Rights {
    /// Whether it may, and until when that is believed.
    told: BTreeMap<(NodeId, String), (bool, Instant)>,
    warned: BTreeMap<NodeId, Instant>,
}

impl Rights {
    /// Whether a node may have an image, if that is known.
    pub(super) fn of(&self, node: NodeId, image: &str) -> Option<bool> {
        let (may, until) = self.told.get(&(node, image.to_owned()))?;
        (Instant::now() < *until).then_some(*may)
    }

    /// Remembers what the leader has said; gives whether a warning is due.
    pub(super) fn learn(&mut self, node: NodeId, image: &str, may: bool) -> bool {
        let now = Instant::now();
        if self.told.len() >= MOST {
            self.told.retain(|_, (_, until)| now < *until);
        }
        // Beyond that the leader is asked each time.
        if self.told.len() < MOST {
            let believed = if may { BELIEVED } else { REFUSED };
            self.told.insert((node, image.to_owned()), (may, now + believed));
        }
        !may && self.warns(node, now)
    }

    fn warns(&mut self, node: NodeId, now: Instant) -> bool {
        if self.warned.len() >= MOST {
            self.warned.retain(|_, until| now < *until);
        }
        if self.warned.len() >= MOST || self.warned.get(&node).is_some_and(|until| now < *until) {
            return false;
        }
        self.warned.insert(node, now + QUIET);
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_no_is_remembered_for_a_moment_and_told_once() {
        let mut rights = Rights::default();
        let node = NodeId::of(1);
        assert_eq!(rights.of(node, "a"), None);
        assert!(rights.learn(node, "a", false));
        assert_eq!(rights.of(node, "a"), Some(false));
        assert!(!rights.learn(node, "b", false), "a node is warned of once in a minute");
        assert!(!rights.learn(node, "c", true));
        advance(REFUSED).await;
        assert_eq!((rights.of(node, "a"), rights.of(node, "c")), (None, Some(true)));
        advance(BELIEVED).await;
        assert_eq!(rights.of(node, "c"), None);
        advance(QUIET).await;
        assert!(rights.learn(node, "a", false));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_images_as_somebody_names_are_not_kept() {
        let mut rights = Rights::default();
        for number in 0..3 * MOST {
            let _warned = rights.learn(NodeId::of(1), &number.to_string(), number % 2 == 0);
        }
        assert_eq!(rights.told.len(), MOST);
    }
}

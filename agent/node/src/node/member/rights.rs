//! What the leader has said of who may have which image from this node, for as long as it is believed.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::time::Instant;

use crate::mark::Mark;
use crate::worker::Right;

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
    /// By which mark, if there is a right, and until when that is believed.
    told: BTreeMap<Right, (Option<Mark>, Instant)>,
    warned: BTreeMap<NodeId, Instant>,
}

impl Rights {
    /// What the leader has said, if that is known.
    pub(super) fn of(&self, right: &Right) -> Option<Option<Mark>> {
        let (by, until) = self.told.get(right)?;
        (Instant::now() < *until).then_some(*by)
    }

    /// Remembers what the leader has said; gives whether a warning is due.
    pub(super) fn learn(&mut self, right: &Right, by: Option<Mark>) -> bool {
        let now = Instant::now();
        if self.told.len() >= MOST {
            self.told.retain(|_, (_, until)| now < *until);
        }
        // Beyond that the leader is asked each time.
        if self.told.len() < MOST {
            let believed = if by.is_some() { BELIEVED } else { REFUSED };
            self.told.insert(right.clone(), (by, now + believed));
        }
        by.is_none() && self.warns(right.node, now)
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
    use ketch_cluster::id::TaskId;
    use tokio::time::advance;

    use super::*;
    use crate::mark::Marks;

    fn right(image: &str) -> Right {
        let marks = Marks { salt: 1, by: Vec::new() };
        Right { node: NodeId::of(1), task: TaskId::of(1), image: image.to_owned(), marks }
    }

    #[tokio::test(start_paused = true)]
    async fn a_no_is_remembered_for_a_moment_and_told_once() {
        let mut rights = Rights::default();
        let mark = Mark::of(1, None);
        assert_eq!(rights.of(&right("a")), None);
        assert!(rights.learn(&right("a"), None));
        assert_eq!(rights.of(&right("a")), Some(None));
        assert!(!rights.learn(&right("b"), None), "a node is warned of once in a minute");
        assert!(!rights.learn(&right("c"), Some(mark)));
        let others = Marks { salt: 1, by: vec![Mark::of(1, Some("user"))] };
        assert_eq!(rights.of(&Right { marks: others, ..right("c") }), None, "another blob came otherwise");
        assert_eq!(rights.of(&Right { task: TaskId::of(2), ..right("c") }), None, "nor is it another task's");
        advance(REFUSED).await;
        assert_eq!((rights.of(&right("a")), rights.of(&right("c"))), (None, Some(Some(mark))));
        advance(BELIEVED).await;
        assert_eq!(rights.of(&right("c")), None);
        advance(QUIET).await;
        assert!(rights.learn(&right("a"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_images_as_somebody_names_are_not_kept() {
        let mut rights = Rights::default();
        for number in 0..3 * MOST {
            let by = (number % 2 == 0).then(|| Mark::of(1, None));
            let _warned = rights.learn(&right(&number.to_string()), by);
        }
        assert_eq!(rights.told.len(), MOST);
    }
}

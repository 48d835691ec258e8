//! What a reconciler answers: the changes that it wants, and when it wants to look again.
//!
//! Every reconciler makes one; the manager proposes its actions in their order, and calls the reconciler once more when
//! one of the objects that it looks at changes or when `wake_at` has come.

use crate::store::{Object, ObjectId, StoreAction};
use crate::time::Timestamp;

/// Actions are valid in any split that keeps their order. No object is updated twice in one: the second update would name a
/// version that the first one has overwritten.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reconciled {
    pub actions: Vec<StoreAction>,
    /// When to look again although nothing has changed; none when only a change can matter.
    pub wake_at: Option<Timestamp>,
}

impl Reconciled {
    pub fn create(&mut self, object: impl Into<Object>) {
        self.actions.push(StoreAction::Create(object.into()));
    }

    /// Writes an object whose `meta.version` is the one that was read.
    pub fn update(&mut self, object: impl Into<Object>) {
        self.actions.push(StoreAction::Update(object.into()));
    }

    pub fn remove(&mut self, id: impl Into<ObjectId>) {
        self.actions.push(StoreAction::Remove(id.into()));
    }

    /// Looks again at `moment` at the latest.
    pub fn wake(&mut self, moment: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(moment, |known| known.min(moment)));
    }

    /// Both: this one's actions first, the earlier wake.
    pub fn extend(&mut self, other: Self) {
        self.actions.extend(other.actions);
        if let Some(moment) = other.wake_at {
            self.wake(moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TaskId;

    #[test]
    fn the_earlier_wake_wins_and_the_order_stays() {
        let mut first = Reconciled::default();
        first.remove(TaskId::of(1));
        first.wake(Timestamp(9));
        let mut second = Reconciled::default();
        second.remove(TaskId::of(2));
        second.wake(Timestamp(5));
        first.extend(second);
        first.extend(Reconciled::default());
        assert_eq!(first.wake_at, Some(Timestamp(5)));
        let ids = [TaskId::of(1), TaskId::of(2)].map(|id| StoreAction::Remove(id.into()));
        assert_eq!(first.actions, ids);
    }
}

//! What a node holds, kept at both ends of its session, and the changes that lead from one such set to the next.
//!
//! Each item has a revision: the generation that set it. The digest is over ids and revisions, not over contents, so that
//! two ends of different versions agree on it; it tells whether both hold the same items, each as last sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Assignment, Item, ItemId};
use crate::control::size_of;
use crate::fault::Fault;

/// The items that a node has: as the manager has sent them, or as the worker has received them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    generation: u64,
    items: BTreeMap<ItemId, Revised>,
    digest: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Revised {
    revision: u64,
    item: Item,
}

/// A message of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignmentChanges {
    /// One more with each message of a session.
    pub generation: u64,
    pub base: Base,
    /// New ones, and changed ones as they are now.
    pub set: Vec<Item>,
    pub removed: Vec<ItemId>,
    /// Of what the node then holds.
    pub digest: u64,
}

/// What changes are to be applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Nothing: what they don't set is gone.
    Empty,
    /// What the node holds since the generation before.
    Previous,
}

/// The changes don't lead on from what is held; a complete set is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfStep {
    #[error("changes of generation {got} do not follow generation {held}")]
    Generation { held: u64, got: u64 },
    #[error(
        "the items held after the changes of generation {generation} are not those that the manager sent"
    )]
    Digest { generation: u64 },
}

impl Held {
    /// The messages that lead to `to`, none of whose items come to more than `most` bytes, but for one alone; none when nothing
    /// differs. What is held between them is to be acted on by nobody. The first one of a session is whole, whatever the node has.
    pub fn lead_to(&mut self, to: &Assignment, most: usize) -> Vec<AssignmentChanges> {
        let mut base = if self.generation == 0 { Base::Empty } else { Base::Previous };
        let (mut set, removed) = self.difference(base, to);
        if base == Base::Previous && set.is_empty() && removed.is_empty() {
            return Vec::new();
        }
        let mut parts = Vec::new();
        loop {
            let rest = set.split_off(fitting(&set, most));
            let is_last = rest.is_empty();
            let removed = if is_last { removed.clone() } else { Vec::new() };
            parts.push(self.send(base, set, removed));
            if is_last {
                return parts;
            }
            (set, base) = (rest, Base::Previous);
        }
    }

    /// What is to be set and what to be removed, so that `to` comes of `base`.
    fn difference(&self, base: Base, to: &Assignment) -> (Vec<Item>, Vec<ItemId>) {
        if base == Base::Empty {
            return (to.items().cloned().collect(), Vec::new());
        }
        let is_held = |id: &ItemId, item: &Item| {
            self.items.get(id).is_some_and(|held| held.item == *item || is_stale_by_fault(&held.item, item))
        };
        let set = to.items.iter().filter(|(id, item)| !is_held(id, item)).map(|(_, item)| item.clone());
        let removed =
            self.items.keys().filter(|id| !to.items.contains_key(*id) && !is_kept_by_fault(**id)).copied();
        (set.collect(), removed.collect())
    }

    fn send(&mut self, base: Base, set: Vec<Item>, removed: Vec<ItemId>) -> AssignmentChanges {
        let generation = self.generation + 1;
        let changes = AssignmentChanges { generation, base, set, removed, digest: 0 };
        let changes = AssignmentChanges { digest: self.digest_after(&changes), ..changes };
        self.take(&changes);
        changes
    }

    /// Takes a message of the manager's.
    ///
    /// # Errors
    /// When it does not lead on from what is held; then that stays as it was.
    pub fn receive(&mut self, changes: &AssignmentChanges) -> Result<(), OutOfStep> {
        let generation = changes.generation;
        if changes.base == Base::Previous && self.generation.checked_add(1) != Some(generation) {
            return Err(OutOfStep::Generation { held: self.generation, got: generation });
        }
        if self.digest_after(changes) != changes.digest {
            return Err(OutOfStep::Digest { generation });
        }
        self.take(changes);
        Ok(())
    }

    /// All that is held.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|held| &held.item)
    }

    /// That of the last message; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn digest_after(&self, changes: &AssignmentChanges) -> u64 {
        let set: BTreeSet<ItemId> = changes.set.iter().map(Item::id).collect();
        let kept = match changes.base {
            Base::Empty => 0,
            Base::Previous => {
                let gone: BTreeSet<ItemId> = set.iter().chain(&changes.removed).copied().collect();
                let gone =
                    gone.into_iter().filter_map(|id| Some(number_of(id, self.items.get(&id)?.revision)));
                gone.fold(self.digest, u64::wrapping_sub)
            }
        };
        set.into_iter().map(|id| number_of(id, changes.generation)).fold(kept, u64::wrapping_add)
    }

    fn take(&mut self, changes: &AssignmentChanges) {
        if changes.base == Base::Empty {
            self.items.clear();
        }
        for id in &changes.removed {
            self.items.remove(id);
        }
        for item in &changes.set {
            self.items.insert(item.id(), Revised { revision: changes.generation, item: item.clone() });
        }
        self.generation = changes.generation;
        self.digest = changes.digest;
    }
}

fn is_stale_by_fault(held: &Item, new: &Item) -> bool {
    let (Item::Service(held), Item::Service(new)) = (held, new) else { return false };
    Fault::NamesStale.is_made() && held.allowed.is_some()
        || Fault::LabelsStale.is_made() && held.labels != new.labels
}

fn is_kept_by_fault(id: ItemId) -> bool {
    Fault::ServiceKept.is_made() && matches!(id, ItemId::Service(_))
}

/// How many of the items make one message: at least one.
fn fitting(items: &[Item], most: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |item: &&Item| {
        bytes = bytes.saturating_add(size_of(*item).unwrap_or_default());
        bytes <= most
    };
    items.iter().take_while(fits).count().max(1).min(items.len())
}

/// A number that hangs on every bit of the item's id and revision; the digest is the sum of them all.
fn number_of(id: ItemId, revision: u64) -> u64 {
    let (kind, bits) = id.numbers();
    let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    [kind, high, low, revision].into_iter().fold(0, |number, part| scattered(number ^ part))
}

/// One step of the SplitMix64 generator (Steele, Lea and Flood, 2014), whose every output bit hangs on every input bit.
fn scattered(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

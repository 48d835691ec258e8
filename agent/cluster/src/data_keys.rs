//! The keys of encrypted networks: made with the cluster, and exchanged while traffic flows.
//!
//! Up to three are kept: the last one, the present one, and the next one. A node accepts datagrams of all three and sends
//! with the present one, so a rotation may reach the nodes in any order and at any speed: whoever has missed one still
//! understands the others, and is understood. Only a node that has missed two is cut off, which takes 12 to 24 hours.
//!
//! An association of ESP counts its packets in 32 bits and sends no more after the last one. A node that has sent half of them with the
//! present key says so in its description, and the next key is made before its time.
//!
//! The secrets are no keys of a cipher: each node derives one for each pair of nodes and direction. So no two senders share
//! a key, and a nonce can't be used twice by two of them.

use std::sync::Arc;
use std::time::Duration;

use crate::id::NewBits;
use crate::objects::cluster::{DataKey, SecretBytes};
use crate::objects::{Cluster, Node};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;

/// Docker's.
pub const ROTATION_PERIOD: Duration = Duration::from_secs(12 * 3600);
/// Between two keys at least, whatever nodes say: one that is cut off for two of them does not understand the others any more. The
/// half of an association that is left lasts that long at 2.3 million packets a second.
pub const LEAST_PERIOD: Duration = Duration::from_secs(15 * 60);
const KEPT: usize = 3;
/// The present one and the next one: nobody sends with a key that is as new as it can be.
const LEAST: usize = 2;

/// The key that a node sends with, of those that it has: the last but one.
#[must_use]
pub fn sending(keys: &[DataKey]) -> Option<&DataKey> {
    keys.iter().rev().nth(1)
}

/// Makes the first keys, then one more each [`ROTATION_PERIOD`], or when a node has worn the present one out. After an outage of many
/// periods it is one all the same.
#[must_use]
pub fn reconcile(view: &View<'_>, now: Timestamp, bits: NewBits<'_>) -> Reconciled {
    let mut wanted = Reconciled::default();
    let Some(cluster) = view.cluster() else { return wanted };
    let mut keys = cluster.data_keys.clone();
    if next_rotation(view, &keys).is_some_and(|(moment, period)| moment.is_due(period, now)) {
        keys.push(made(&keys, now, bits));
    }
    while keys.len() < LEAST {
        keys.push(made(&keys, now, bits));
    }
    keys.drain(..keys.len().saturating_sub(KEPT));
    if let Some((moment, _)) = next_rotation(view, &keys) {
        wanted.wake(moment);
    }
    if keys != cluster.data_keys {
        let mut cluster = Cluster::clone(cluster);
        cluster.meta.updated_at = now;
        cluster.data_keys = keys;
        wanted.update(cluster);
    }
    wanted
}

/// When the next key is made, and how long after the youngest that is.
fn next_rotation(view: &View<'_>, keys: &[DataKey]) -> Option<(Timestamp, Duration)> {
    let present = sending(keys).map(|key| key.generation);
    let is_worn = |node: &Arc<Node>| {
        let worn = node.description.as_ref().and_then(|it| it.worn_key);
        worn.is_some() && worn == present
    };
    let period = if view.nodes().any(is_worn) { LEAST_PERIOD } else { ROTATION_PERIOD };
    keys.last().map(|youngest| (youngest.made_at.after(period), period))
}

fn made(keys: &[DataKey], now: Timestamp, bits: NewBits<'_>) -> DataKey {
    let secret = [bits().to_be_bytes(), bits().to_be_bytes()].concat();
    let generation = keys.last().map_or(1, |youngest| youngest.generation + 1);
    DataKey { generation, made_at: now, secret: SecretBytes(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::store::Store;
    use crate::view::Observed;

    fn reconciled(store: &Store, now: Timestamp) -> Reconciled {
        let mut bits = fixture::counter(u128::from(now.0));
        reconcile(&View::new(store, &Observed::default()), now, &mut bits)
    }

    /// Lets it work at that moment: the generations afterwards, and the one that is sent with.
    fn at(store: &mut Store, now: Timestamp) -> (Vec<u64>, u64) {
        let wanted = reconciled(store, now);
        fixture::apply(store, wanted);
        assert_eq!(reconciled(store, now).actions, [], "it wants nothing more");
        let keys = &store.cluster().unwrap().data_keys;
        (keys.iter().map(|key| key.generation).collect(), sending(keys).unwrap().generation)
    }

    #[test]
    fn a_key_is_known_for_a_period_before_and_after_it_is_sent_with() {
        let mut store = fixture::store([fixture::cluster().into()]);
        let start = fixture::at(1000);
        assert_eq!(at(&mut store, start), (vec![1, 2], 1));
        let due = start.after(ROTATION_PERIOD);
        assert_eq!(reconciled(&store, start).wake_at, Some(due));
        assert_eq!(at(&mut store, Timestamp(due.0 - 1)), (vec![1, 2], 1));
        assert_eq!(at(&mut store, due), (vec![1, 2, 3], 2));
        let third = due.after(ROTATION_PERIOD);
        assert_eq!(reconciled(&store, due).wake_at, Some(third));
        assert_eq!(at(&mut store, third), (vec![2, 3, 4], 3));
        let much_later = third.after(ROTATION_PERIOD * 20);
        assert_eq!(at(&mut store, much_later), (vec![3, 4, 5], 4), "one, however late");
        let set_back = Timestamp(much_later.0 - 5_000_000_000);
        assert_eq!(
            at(&mut store, set_back),
            (vec![3, 4, 5], 4),
            "a clock that goes back a little makes none"
        );
        assert_eq!(at(&mut store, start), (vec![4, 5, 6], 5), "after one that was a year ahead it is one");
        assert_eq!(at(&mut store, start), (vec![4, 5, 6], 5));
    }

    #[test]
    fn a_key_that_a_node_has_worn_out_is_exchanged_before_its_time() {
        let mut worker = fixture::node(5);
        worker.description.as_mut().unwrap().worn_key = Some(1);
        let mut store = fixture::store([fixture::cluster().into(), worker.clone().into()]);
        let start = fixture::at(1000);
        assert_eq!(at(&mut store, start), (vec![1, 2], 1));
        let early = start.after(LEAST_PERIOD);
        assert_eq!(reconciled(&store, start).wake_at, Some(early));
        assert_eq!(at(&mut store, Timestamp(early.0 - 1)), (vec![1, 2], 1));
        assert_eq!(at(&mut store, early), (vec![1, 2, 3], 2));
        let later = early.after(LEAST_PERIOD * 2);
        assert_eq!(at(&mut store, later), (vec![1, 2, 3], 2), "what it says is of the key before");
        assert_eq!(reconciled(&store, later).wake_at, Some(early.after(ROTATION_PERIOD)));
    }

    #[test]
    fn secrets_have_32_bytes_and_differ() {
        let mut store = fixture::store([fixture::cluster().into()]);
        at(&mut store, fixture::at(1));
        let keys = &store.cluster().unwrap().data_keys;
        assert!(keys.iter().all(|key| key.secret.0.len() == 32 && key.secret.0[..16] != key.secret.0[16..]));
        assert_ne!(keys[0].secret, keys[1].secret);
        assert!(!format!("{:?}", keys[0]).contains("[0, "), "no log line has them");
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_do() {
        assert_eq!(reconciled(&Store::default(), fixture::at(1)), Reconciled::default());
    }
}

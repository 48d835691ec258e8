//! The leader's loop: what is committed and said wakes reconcilers, and what they want is proposed, one turn after another.

use std::time::Duration;

use futures_util::FutureExt;
use ketch_cluster::objects::Version;
use ketch_cluster::reconcilers::{Key, Outcome, Turn};
use ketch_cluster::store::{Object, StoreAction};
use ketch_raft::{Notice, Notices, ProposeError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::sleep;

use super::leader::{Leader, lock};
use crate::measure::TurnsNow;

/// It looks at the clock at least so often: the wall clock, by which reconcilers wait, may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// Between two tries while nothing can be committed.
const WITHOUT_QUORUM: Duration = Duration::from_millis(500);

/// Drives the reconcilers until it is dropped. `notices` are from before the leader's first look at the store.
pub(super) async fn drive(leader: &Leader, mut notices: Notices) {
    loop {
        let pause = loop {
            match turn(leader, &mut notices).await {
                Went::On => {}
                Went::ToRest => break until_next(leader),
                Went::Nowhere => break WITHOUT_QUORUM,
            }
        };
        tokio::select! {
            biased;
            notice = notices.next() => match notice {
                Some(notice) => leader.take_in(notice),
                // The log has ended, and the leadership will.
                None => std::future::pending().await,
            },
            () = leader.woken.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

fn until_next(leader: &Leader) -> Duration {
    let now = leader.now();
    let next_at = lock(&leader.reconcilers).next_at(now);
    next_at.map_or(LONGEST_SLEEP, |moment| moment.since(now)).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

enum Went {
    On,
    /// Nobody wants anything now.
    ToRest,
    /// Nothing can be changed.
    Nowhere,
}

/// Lets the next reconciler work.
async fn turn(leader: &Leader, notices: &mut Notices) -> Went {
    let Ok(held) = leader.turn().await else { return Went::Nowhere };
    while let Some(Some(notice)) = notices.next().now_or_never() {
        leader.take_in(notice);
    }
    let began = leader.now();
    let Some(turn) = next(leader) else { return Went::ToRest };
    let decided = leader.now();
    let outcome = commit(leader, held, &turn, notices).await;
    count(leader, &turn, outcome, (decided.since(began), leader.now().since(decided)));
    lock(&leader.reconcilers).settle(turn.key, outcome, leader.now());
    Went::On
}

fn count(leader: &Leader, turn: &Turn, outcome: Outcome, (deciding, committing): (Duration, Duration)) {
    let is_committed = outcome == Outcome::Committed;
    if turn.key == Key::Scheduler && is_committed {
        let (placed, unplaced) = turn.placements();
        leader.counted.placed.add(placed);
        leader.counted.unplaced.add(unplaced);
    }
    let (committed, refused) = (u64::from(is_committed), u64::from(!is_committed));
    leader.counted.turn(turn.key.reconciler(), &TurnsNow { committed, refused, deciding, committing });
}

fn next(leader: &Leader) -> Option<Turn> {
    let (now, mut bits) = (leader.now(), leader.bits());
    let mut reconcilers = lock(&leader.reconcilers);
    leader.view(|view| reconcilers.next(view, now, &mut bits))
}

/// Proposes the turn's parts in their order; what follows a refused one is made of a store that is no more.
async fn commit(
    leader: &Leader,
    mut held: OwnedMutexGuard<()>,
    turn: &Turn,
    notices: &mut Notices,
) -> Outcome {
    for part in turn.parts() {
        let (back, settled) = leader.settled(held, part.to_vec()).await;
        match (back, settled) {
            (Some(back), Ok(committed)) => {
                tell_displaced(part);
                take_in_until(leader, notices, committed.version).await;
                held = back;
            }
            (_, settled) => {
                let error = settled.err().unwrap_or(ProposeError::Uncertain);
                tracing::debug!(key = ?turn.key, %error, "a reconciler's turn was refused");
                return Outcome::Refused;
            }
        }
    }
    Outcome::Committed
}

/// Who was asked to make room or to move by this part, and why.
fn tell_displaced(part: &[StoreAction]) {
    for action in part {
        let StoreAction::Update(Object::Task(task)) = action else { continue };
        // Written once: later changes of the task are later than that.
        if let Some(displaced) = task.displaced.as_ref().filter(|it| it.at == task.meta.updated_at) {
            tracing::info!(service = task.service_name, task = %task.id, "{}", displaced.reason);
        }
    }
}

/// Takes in what was committed up to this version: its notice was sent before its proposer was told.
async fn take_in_until(leader: &Leader, notices: &mut Notices, version: Version) {
    while let Some(notice) = notices.next().await {
        let is_last = match &notice {
            Notice::Committed(committed) => committed.version >= version,
            Notice::Everything => true,
        };
        leader.take_in(notice);
        if is_last {
            return;
        }
    }
}

//! The leader's loop: what is committed and said wakes reconcilers, and what they want is proposed, one turn after another.

use std::time::Duration;

use futures_util::FutureExt;
use ketch_cluster::objects::Version;
use ketch_cluster::objects::displacement::Cause;
use ketch_cluster::reconcilers::{Key, Outcome, Turn};
use ketch_cluster::store::{Object, StoreAction};
use ketch_raft::{Notice, Notices, ProposeError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::sleep;

use super::leader::Leader;
use crate::locks::lock;
use crate::measure::TurnsNow;
use crate::news::{News, What};

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
                tell_displaced(leader, part);
                leader.counted.decisions.note_schedule(&committed.changes);
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

/// Lets users know who was asked to make room or to move by this part, and why.
fn tell_displaced(leader: &Leader, part: &[StoreAction]) {
    part.iter().filter_map(displaced_by).for_each(|news| leader.announce(news));
}

fn displaced_by(action: &StoreAction) -> Option<News> {
    let StoreAction::Update(Object::Task(task)) = action else { return None };
    // Written once: later changes of the task are later than that. One that does not move after all has no reason.
    let displaced = task.displaced.as_ref().filter(|it| it.at == task.meta.updated_at)?;
    let what = match displaced.cause {
        Cause::Preempted { .. } => What::Preempted { task: task.id },
        Cause::Rebalanced { .. } => What::Moves { task: task.id },
    };
    let reason = Some(&displaced.reason).filter(|reason| !reason.is_empty())?;
    Some(News { service: task.service?, name: task.service_name.to_string(), what, reason: reason.clone() })
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

#[cfg(test)]
mod tests {
    use ketch_cluster::control::create_service;
    use ketch_cluster::id::{NodeId, TaskId};
    use ketch_cluster::objects::displacement::Displacement;
    use ketch_cluster::objects::{Task, Version};
    use ketch_cluster::orchestrator::reconcile_service;
    use ketch_cluster::store::Store;
    use ketch_cluster::time::Timestamp;
    use ketch_cluster::view::{Observed, View};

    use super::*;
    use crate::fixture::objects;

    /// The first one of a service.
    fn task() -> Task {
        let (mut store, observed) = (Store::default(), Observed::default());
        let spec = objects::replicated("web", 1);
        let made = create_service(&View::new(&store, &observed), spec, Timestamp(1), &mut || 1);
        let (service, actions) = made.unwrap();
        store.apply(Version(1), &actions).unwrap();
        let view = View::new(&store, &observed);
        let wanted = reconcile_service(&view, service, Timestamp(1), &mut || 2);
        match wanted.actions.into_iter().next() {
            Some(StoreAction::Create(Object::Task(task))) => Task::clone(&task),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_displaced_is_told_once_and_with_why() {
        let at = Timestamp(7);
        let told = |cause, reason: &str, updated_at| {
            let displaced = Displacement { at, cause, reason: reason.to_owned() };
            let mut task = Task { displaced: Some(Box::new(displaced)), ..task() };
            task.meta.updated_at = updated_at;
            displaced_by(&StoreAction::Update(task.into())).map(|news| (news.name, news.what, news.reason))
        };
        let task = TaskId::of(2);
        let preempted = Cause::Preempted { by: TaskId::of(9), its_priority: 5, own_priority: 0 };
        let moves = Cause::Rebalanced { to: NodeId::of(3) };
        let of = |what, reason: &str| Some(("web".to_owned(), what, reason.to_owned()));
        assert_eq!(told(preempted, "room", at), of(What::Preempted { task }, "room"));
        assert_eq!(told(moves, "evens", at), of(What::Moves { task }, "evens"));
        assert_eq!(told(moves, "evens", Timestamp(8)), None, "it was told when it was decided");
        assert_eq!(told(moves, "", at), None, "it stays");
    }
}

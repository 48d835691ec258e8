//! What is checked of every action that an orchestrator wants.

use std::collections::BTreeMap;

use super::{Simulated, SlotKey, slot_key};
use crate::constraint::Constraints;
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{UpdateOrder, UpdateState};
use crate::objects::task::RestartCondition;
use crate::objects::{Task, TaskState};
use crate::orchestrator::fence;
use crate::orchestrator::service_view::{Ground, ended_by_itself, ground_of};
use crate::store::{Object, StoreAction};

impl Simulated {
    /// Remembers what the checks need of an action before it is committed.
    pub(super) fn note(&mut self, action: &StoreAction) {
        match action {
            StoreAction::Create(Object::Task(task)) if task.start_after.is_some() => self.note_attempt(task),
            StoreAction::Update(Object::Task(task)) => self.note_stop(task),
            _ => {}
        }
    }

    fn note_attempt(&mut self, task: &Task) {
        let key = (slot_key(self.service(), task), task.spec_version);
        self.attempts.entry(key).or_default().push(task.meta.created_at);
        // The policy that counted is the one of the task that ended; the tests never change it.
        let policy = task.spec.restart.unwrap_or_default();
        let made = &self.attempts[&key];
        let counted =
            made.iter().filter(|at| policy.window.is_zero() || at.after(policy.window) > self.now).count()
                as u64;
        assert!(policy.max_attempts == 0 || counted <= policy.max_attempts, "{counted} attempts: {made:?}");
    }

    fn note_stop(&mut self, task: &Task) {
        let old = Task::clone(self.store.task(task.id).unwrap());
        let of = slot_key(self.service(), &old);
        if task.desired_state == TaskState::Remove {
            self.down.remove(&of);
            self.attempts.retain(|(slot, _), _| *slot != of);
        } else if task.desired_state == TaskState::Shutdown
            && self.serves(&old)
            && !self.is_served_by_another(&old)
        {
            self.note_down(of, &old);
        }
    }

    /// Whether the task runs, is wanted, and could stay where it is: by the service's spec, and by its own, which is what the
    /// enforcer asks.
    fn serves(&self, task: &Task) -> bool {
        let specs = [&self.service().spec.task, &task.spec];
        let constraints = specs.map(|spec| Constraints::parse(&spec.placement.constraints).unwrap());
        let may_stay = task.node.and_then(|node| self.store.node(node)).is_some_and(|node| {
            node.status.state == NodeState::Ready
                && node.spec.availability != Availability::Drain
                && constraints.iter().all(|constraints| constraints.allow(node))
        });
        may_stay && self.running().iter().any(|running| running.id == task.id)
    }

    fn is_served_by_another(&self, task: &Task) -> bool {
        let of = slot_key(self.service(), task);
        self.running().iter().any(|other| other.id != task.id && slot_key(self.service(), other) == of)
    }

    /// The last serving task of a slot is stopped: only an update that stops first does so, to so many slots at once.
    fn note_down(&mut self, of: SlotKey, old: &Task) {
        let spec = &self.service().spec;
        let rolls_back =
            matches!(self.update_state(), Some(UpdateState::RollbackStarted | UpdateState::RollbackPaused));
        let config = if rolls_back { spec.rollback } else { spec.update }.unwrap_or_default();
        let order =
            if spec.labels.contains_key(fence::LABEL) { UpdateOrder::StopFirst } else { config.order };
        assert_eq!(order, UpdateOrder::StopFirst, "a serving task was stopped before the new one ran");
        self.forget_landed();
        self.down.entry(of).or_insert(old.meta.created_at);
        let most = if config.parallelism == 0 { usize::MAX } else { config.parallelism as usize };
        assert!(self.down.len() <= most, "too many are down: {:?} {:#?}", self.down, self.summary());
    }

    /// A slot is no more down once a newer task has run or ended by itself there, or nothing is wanted there.
    pub(super) fn forget_landed(&mut self) {
        if self.down.is_empty() {
            return;
        }
        let service = self.service().clone();
        let mut down = std::mem::take(&mut self.down);
        down.retain(|of, stopped_at| {
            let is_closed = of.2.is_some_and(|node| {
                let node = self.store.node(node).unwrap();
                node.status.state != NodeState::Ready || node.spec.availability != Availability::Active
            });
            let has_landed = self.store.tasks_of(service.id).any(|task| {
                let status = self.view().status(task).clone();
                let is_over = ended_by_itself(status.state);
                slot_key(&service, task) == *of
                    && task.meta.created_at > *stopped_at
                    && (status.running_since.is_some() || is_over)
            });
            // Lost where nothing is ever restarted: nobody waits for it.
            let is_given_up = !self
                .store
                .tasks_of(service.id)
                .any(|task| slot_key(&service, task) == *of && self.is_hoped_for(task));
            !is_closed && !has_landed && !is_given_up
        });
        self.down = down;
    }

    /// Whether the task is wanted, and is kept or will be replaced where it is not.
    fn is_hoped_for(&self, task: &Task) -> bool {
        let node = task.node.and_then(|node| self.store.node(node));
        let stays = task.node.is_none() || ground_of(node.map(AsRef::as_ref)) == Ground::Sound;
        let is_replaced = task.spec.restart.unwrap_or_default().condition != RestartCondition::None;
        task.desired_state <= TaskState::Running && (stays || is_replaced)
    }

    /// At most one task of a slot is wanted running on a node that is not down; one more where new ones start first.
    pub(super) fn check(&self) {
        let service = self.service();
        let mut wanted: BTreeMap<SlotKey, u64> = BTreeMap::new();
        let goals = TaskState::Running..=TaskState::Complete;
        for task in self.store.tasks().filter(|task| goals.contains(&task.desired_state)) {
            let node = task.node.and_then(|node| self.store.node(node));
            let is_lost = task.node.is_some() && ground_of(node.map(AsRef::as_ref)) == Ground::Lost;
            // A schedule may let a run go on beside the next one.
            let is_present = task.job_iteration == service.job.map(|job| job.iteration);
            if is_present && !is_lost && !self.view().state(task).is_terminal() {
                *wanted.entry(slot_key(service, task)).or_default() += 1;
            }
        }
        let configs = [service.spec.update, service.spec.rollback].map(Option::unwrap_or_default);
        let most = if configs.iter().any(|config| config.order == UpdateOrder::StartFirst) { 2 } else { 1 };
        for (slot, count) in wanted {
            assert!(count <= most, "{count} tasks are wanted running in {slot:?}: {:#?}", self.summary());
        }
    }
}

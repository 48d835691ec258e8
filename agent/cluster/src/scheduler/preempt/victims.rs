//! Which tasks of one node have to go so that another one fits, and what that costs.
//!
//! All that may go are taken away, and given their places again one after the other where the asker still fits beside them: those of
//! higher priorities first, then those whose service can't spare them, then small ones, then old ones. Who finds no place is a victim.
//! So none goes that need not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Asker, Making, Pass};
use crate::id::ServiceId;
use crate::label::priority::{self, Priority};
use crate::objects::task::RestartCondition;
use crate::objects::{Node, Service, ServiceMode, Task, TaskState};
use crate::scheduler::nodes::NodeRow;
use crate::scheduler::room;
use crate::time::Timestamp;
use crate::view::View;

/// For one task no more are taken.
const MOST_FOR_ONE: usize = 8;

/// A node's victims; none where room comes free by itself.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) victims: Vec<Arc<Task>>,
    /// The highest priority among them.
    highest: Option<Priority>,
    /// How many of them their services can't spare.
    missed: usize,
    /// For so long the asker may have to wait for them.
    grace: Duration,
}

impl Chosen {
    /// The least is chosen: the lowest priorities, then the fewest tasks, then those that are missed least, then those that go soonest.
    pub(super) fn cost(&self) -> (Option<Priority>, usize, usize, Duration) {
        (self.highest, self.victims.len(), self.missed, self.grace)
    }
}

/// What a service is worth as a victim, read once a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank {
    pub(super) priority: Priority,
    pub(super) may_go: Going,
}

/// Whether tasks of a service may be preempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// They would not come back, or nobody has said that the node can be without them.
    Never,
    /// As long as that many more go, others serve.
    Spare(usize),
}

pub(super) struct Ranks<'v> {
    view: View<'v>,
    known: BTreeMap<ServiceId, Rank>,
    yielding: BTreeMap<ServiceId, Option<Priority>>,
}

impl<'v> Ranks<'v> {
    pub(super) fn of(view: View<'v>) -> Self {
        Self { view, known: BTreeMap::new(), yielding: BTreeMap::new() }
    }

    pub(super) fn of_task(&mut self, task: &Task) -> Rank {
        let view = self.view;
        let service = task.service.and_then(|id| view.service(id));
        match service {
            Some(service) => *self.known.entry(service.id).or_insert_with(|| rank(&view, service)),
            None => Rank { priority: priority::of(&view, task), may_go: Going::Never },
        }
    }

    /// The lowest priority by which a task yields on the node of that row; none when none does.
    pub(super) fn lowest_on(&mut self, row: &NodeRow) -> Option<Priority> {
        let view = self.view;
        let yields = |id: ServiceId| {
            *self.yielding.entry(id).or_insert_with(|| view.service(id).and_then(|it| yields_by(it)))
        };
        row.services().map(|(service, _)| service).filter_map(yields).min()
    }
}

/// The priority by which tasks of the service yield; none when they never do.
fn yields_by(service: &Service) -> Option<Priority> {
    let asked = priority::asked(&service.spec.labels);
    let is_kept = match service.spec.mode {
        // A place on each node: only a service that speaks of priorities has said that it may yield there.
        ServiceMode::Global | ServiceMode::GlobalJob => asked.is_none(),
        // Such a task has no successor.
        ServiceMode::Replicated { .. } => {
            service.spec.task.restart.is_some_and(|it| it.condition == RestartCondition::None)
        }
        ServiceMode::ReplicatedJob { .. } => false,
    };
    (!is_kept).then(|| asked.unwrap_or_default())
}

fn rank(view: &View<'_>, service: &Service) -> Rank {
    let asked = priority::asked(&service.spec.labels);
    let may_go = yields_by(service).map_or(Going::Never, |_| Going::Spare(spare(view, service)));
    Rank { priority: asked.unwrap_or_default(), may_go }
}

/// How many of its tasks may go so that others serve, and no more are away than in an update.
fn spare(view: &View<'_>, service: &Service) -> usize {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return 0 };
    let serves = |task: &&Arc<Task>| {
        task.desired_state == TaskState::Running && view.state(task) == TaskState::Running
    };
    let serving = view.tasks_of(service.id).filter(serves).count();
    let away = usize::try_from(replicas).unwrap_or(usize::MAX).saturating_sub(serving);
    let most =
        usize::try_from(service.spec.update.unwrap_or_default().parallelism.max(1)).unwrap_or(usize::MAX);
    most.saturating_sub(away).min(serving.saturating_sub(1))
}

/// A task that may go.
struct Candidate {
    task: Arc<Task>,
    priority: Priority,
    is_missed: bool,
    /// Of its node's room, in millionths of what is scarcest.
    size: u64,
}

impl Candidate {
    /// The least is given its place again first.
    fn worth(&self) -> impl Ord + use<> {
        let made = (self.task.meta.created_at, self.task.id);
        (Reverse(self.priority), Reverse(self.is_missed), self.size, made)
    }

    fn add_to(&self, view: &View<'_>, row: &NodeRow) -> NodeRow {
        let mut more = row.clone();
        more.add(&self.task, view.status(&self.task));
        more
    }
}

impl Pass<'_> {
    /// Who has to go from the node of that row; none when the task would not fit there even without all that may go, or too many had to.
    pub(super) fn victims_on(&self, row: usize, asker: Asker<'_>, making: &mut Making<'_>) -> Option<Chosen> {
        let node = &self.table.rows()[row].node;
        let mut candidates = self.candidates(node, asker, making);
        let mut row = self.row_without(node, &candidates, making);
        if asker.pipeline.refusal(&row).is_some() {
            return None;
        }
        candidates.sort_by_key(Candidate::worth);
        let mut chosen = Chosen::default();
        for candidate in candidates {
            let more = candidate.add_to(self.view, &row);
            if asker.pipeline.refusal(&more).is_none() {
                row = more;
                continue;
            }
            chosen.highest = chosen.highest.max(Some(candidate.priority));
            chosen.missed += usize::from(candidate.is_missed);
            chosen.grace = chosen.grace.max(room::grace_of(&candidate.task));
            chosen.victims.push(candidate.task);
        }
        (chosen.victims.len() <= MOST_FOR_ONE && making.budget.allows(&chosen.victims)).then_some(chosen)
    }

    /// The same with smaller ones of the same rank in the place of large ones, where they do.
    pub(super) fn smaller(
        &self,
        row: usize,
        mut chosen: Chosen,
        asker: Asker<'_>,
        making: &mut Making<'_>,
    ) -> Chosen {
        let node = &self.table.rows()[row].node;
        let mut candidates = self.candidates(node, asker, making);
        candidates.sort_by_key(|it| (it.size, it.task.id));
        for index in 0..chosen.victims.len() {
            let Some(large) = candidates.iter().find(|it| it.task.id == chosen.victims[index].id) else {
                continue;
            };
            let is_alike = |it: &&Candidate| {
                (it.priority, it.is_missed) == (large.priority, large.is_missed)
                    && it.size < large.size
                    && chosen.victims.iter().all(|victim| victim.id != it.task.id)
            };
            let does = |small: &&Candidate| {
                let mut victims = chosen.victims.clone();
                victims[index] = Arc::clone(&small.task);
                making.budget.allows(&victims) && self.fits_without(node, &victims, asker, making)
            };
            if let Some(small) = candidates.iter().filter(is_alike).find(does) {
                chosen.victims[index] = Arc::clone(&small.task);
            }
        }
        chosen.victims.sort_by_key(|victim| victim.id);
        chosen
    }

    fn candidates(&self, node: &Node, asker: Asker<'_>, making: &mut Making<'_>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut spared = BTreeMap::<Option<ServiceId>, usize>::new();
        for task in self.view.tasks_on(node.id) {
            if !self.may_yield(task, making) {
                continue;
            }
            let rank = making.ranks.of_task(task);
            let Going::Spare(spare) = rank.may_go else { continue };
            if rank.priority >= asker.priority {
                continue;
            }
            let taken = making.taken_of(self.view, task.service);
            let spared = spared.entry(task.service).or_insert(taken);
            *spared += 1;
            candidates.push(Candidate {
                task: Arc::clone(task),
                priority: rank.priority,
                is_missed: *spared > spare,
                size: size_on(node, task),
            });
        }
        candidates
    }

    /// Whether it is there to stay, as far as anybody has decided, and comes back if it goes.
    fn may_yield(&self, task: &Task, making: &Making<'_>) -> bool {
        room::holds_room(self.view, task)
            && task.desired_state <= TaskState::Complete
            && !making.taken.contains(&task.id)
            && self.is_of_present_run(task)
    }

    /// Runs of a scheduled job may overlap: a slot of an earlier one is not filled again.
    fn is_of_present_run(&self, task: &Task) -> bool {
        let service = task.service.and_then(|id| self.view.service(id));
        let present = service.map(|service| service.job.map_or(0, |job| job.iteration));
        task.job_iteration.is_none() || task.job_iteration == present
    }

    /// The node without those that may go, and those that are on their way.
    fn row_without(&self, node: &Arc<Node>, candidates: &[Candidate], making: &Making<'_>) -> NodeRow {
        let may_go: BTreeSet<_> = candidates.iter().map(|it| it.task.id).collect();
        let may_go = |task: &Task| may_go.contains(&task.id);
        self.put.row(self.view, node, |task| !may_go(task) && !is_gone(task, self.now, making))
    }

    fn fits_without(
        &self,
        node: &Arc<Node>,
        victims: &[Arc<Task>],
        asker: Asker<'_>,
        making: &Making<'_>,
    ) -> bool {
        let stays =
            |task: &Arc<Task>| !victims.iter().any(|it| it.id == task.id) && !is_gone(task, self.now, making);
        asker.pipeline.refusal(&self.put.row(self.view, node, stays)).is_none()
    }
}

impl Making<'_> {
    /// How many of the service's tasks were taken in this pass.
    fn taken_of(&self, view: &View<'_>, service: Option<ServiceId>) -> usize {
        let of_service =
            |id: &&crate::id::TaskId| view.task(**id).is_some_and(|task| task.service == service);
        self.taken.iter().filter(of_service).count()
    }
}

fn is_gone(task: &Task, now: Timestamp, making: &Making<'_>) -> bool {
    room::is_leaving(task, now) || making.taken.contains(&task.id)
}

fn size_on(node: &Node, task: &Task) -> u64 {
    let Some(has) = node.description.as_ref().map(|it| &it.resources) else { return 0 };
    let reserved = &task.spec.resources.reservations;
    let part = |of: u64, all: u64| u128::from(of) * 1_000_000 / u128::from(all.max(1));
    let most = part(reserved.nano_cpus, has.nano_cpus).max(part(reserved.memory_bytes, has.memory_bytes));
    u64::try_from(most).unwrap_or(u64::MAX)
}

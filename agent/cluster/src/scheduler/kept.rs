//! That a scheduler which keeps its table says what one without memory says, whatever has happened in between: nodes that go,
//! come, fill up and change, tasks that end by a worker's word and by the log, turns of which only a part was committed.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::clusters::{cluster, spread_out};
use super::{Scheduler, schedule};
use crate::fixture::{self, at};
use crate::id::{NodeId, TaskId};
use crate::objects::node::{Availability, NodeState};
use crate::objects::{Node, Task, TaskState, Version};
use crate::reconcilers::Word;
use crate::store::{Object, ObjectId, Store, StoreAction};
use crate::view::{Observed, Told, View};

#[derive(Debug, Clone)]
enum Step {
    Turn(Index, NodeState),
    Avail(Index, Availability),
    Label(Index, &'static str, &'static str),
    Shrink(Index, u64),
    AddNode,
    RemoveNode(Index),
    /// Some more of a task's service.
    Birth(Index, usize),
    /// The end of a task in the log.
    End(Index, TaskState),
    /// The same by its worker's word.
    Tell(Index, TaskState),
    Stop(Index),
    Reap,
    /// A pass of which so many actions are committed, and the rest is refused.
    Pass(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let ends =
        || select(vec![TaskState::Failed, TaskState::Failed, TaskState::Rejected, TaskState::Complete]);
    let labels = select(vec![("zone", "a"), ("zone", "b"), ("rack", "1"), ("rack", "2"), ("other", "x")]);
    prop_oneof![
        2 => (index(), select(vec![NodeState::Down, NodeState::Ready])).prop_map(|(it, to)| Step::Turn(it, to)),
        1 => (index(), select(vec![Availability::Active, Availability::Pause])).prop_map(|(it, to)| Step::Avail(it, to)),
        1 => (index(), labels).prop_map(|(it, (key, value))| Step::Label(it, key, value)),
        1 => (index(), 0..8_u64).prop_map(|(it, to)| Step::Shrink(it, to)),
        1 => Just(Step::AddNode),
        1 => index().prop_map(Step::RemoveNode),
        4 => (index(), 1..5_usize).prop_map(|(it, count)| Step::Birth(it, count)),
        3 => (index(), ends()).prop_map(|(it, to)| Step::End(it, to)),
        3 => (index(), ends()).prop_map(|(it, to)| Step::Tell(it, to)),
        2 => index().prop_map(Step::Stop),
        1 => Just(Step::Reap),
        5 => select(vec![0_usize, 1, 2, 3, 1000, 1000, 1000]).prop_map(Step::Pass),
    ]
}

struct History {
    store: Store,
    observed: Observed,
    scheduler: Scheduler,
    ids: u128,
    seconds: u64,
}

impl History {
    fn commit(&mut self, actions: &[StoreAction]) {
        let next = Version(self.store.version().0 + 1);
        let changes = self.store.apply(next, actions).unwrap();
        for change in changes.iter().filter(|change| change.new.is_none()) {
            if let Some(ObjectId::Task(task)) = change.id() {
                self.observed.forget(task);
            }
        }
        self.scheduler.committed(&changes);
    }

    fn update(&mut self, object: impl Into<Object>) {
        self.commit(&[StoreAction::Update(object.into())]);
    }

    fn next_id(&mut self) -> u128 {
        self.ids += 1;
        spread_out(self.ids)
    }

    fn node(&self, index: Index) -> Option<Node> {
        let nodes: Vec<&Arc<Node>> = self.store.nodes().collect();
        (!nodes.is_empty()).then(|| Node::clone(*index.get(&nodes)))
    }

    /// One that some worker has, by the log.
    fn placed(&self, index: Index) -> Option<Arc<Task>> {
        let is_placed =
            |task: &&Arc<Task>| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
        let tasks: Vec<&Arc<Task>> = self.store.tasks().filter(is_placed).collect();
        (!tasks.is_empty()).then(|| Arc::clone(*index.get(&tasks)))
    }

    fn change_node(&mut self, index: Index, change: impl FnOnce(&mut Node)) {
        if let Some(mut node) = self.node(index) {
            change(&mut node);
            self.update(node);
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Turn(index, state) => self.change_node(index, |node| node.status.state = state),
            Step::Avail(index, to) => self.change_node(index, |node| node.spec.availability = to),
            Step::Label(index, key, value) => self.change_node(index, |node| {
                node.spec.labels.insert(key.to_owned(), value.to_owned());
            }),
            Step::Shrink(index, to) => self.change_node(index, |node| {
                node.description.as_mut().unwrap().resources.nano_cpus = to;
            }),
            Step::AddNode => {
                let node = Node { id: NodeId::of(self.next_id()), ..fixture::node(0) };
                self.commit(&[StoreAction::Create(node.into())]);
            }
            Step::RemoveNode(index) => {
                if let Some(node) = self.node(index) {
                    self.commit(&[StoreAction::Remove(node.id.into())]);
                }
            }
            Step::Birth(index, count) => self.birth(index, count),
            Step::End(index, state) => {
                if let Some(task) = self.placed(index) {
                    let mut task = Task::clone(&task);
                    (task.status.state, task.status.since) = (state, at(self.seconds));
                    self.update(task);
                }
            }
            Step::Tell(index, state) => self.tell(index, state),
            Step::Stop(index) => {
                if let Some(task) = self.placed(index).filter(|it| it.desired_state < TaskState::Shutdown) {
                    self.update(Task { desired_state: TaskState::Shutdown, ..Task::clone(&task) });
                }
            }
            Step::Reap => {
                let ended = self.store.tasks().filter(|task| task.status.state.is_terminal());
                let ended: Vec<_> = ended.map(|task| StoreAction::Remove(task.id.into())).collect();
                self.commit(&ended);
            }
            Step::Pass(most) => self.pass(most)?,
        }
        Ok(())
    }

    fn birth(&mut self, index: Index, count: usize) {
        let services: Vec<_> = self.store.services().cloned().collect();
        if services.is_empty() {
            return;
        }
        let service = index.get(&services);
        for slot in 0..count {
            let mut task = fixture::task(0, service, u64::try_from(slot).unwrap());
            task.id = TaskId::of(self.next_id());
            task.status.state = TaskState::Pending;
            task.meta.created_at = at(self.seconds);
            self.commit(&[StoreAction::Create(task.into())]);
        }
    }

    fn tell(&mut self, index: Index, state: TaskState) {
        let Some(task) = self.placed(index) else { return };
        let before = View::new(&self.store, &self.observed).status(&task).clone();
        let told = Told { state, ..Told::default() };
        if self.observed.note(task.id, told, at(self.seconds)) {
            let view = View::new(&self.store, &self.observed);
            self.scheduler.noted(&Word { task: &task, before: &before, after: view.status(&task) });
        }
    }

    fn pass(&mut self, most: usize) -> Result<(), TestCaseError> {
        self.seconds += 1;
        let view = View::new(&self.store, &self.observed);
        let now = at(self.seconds);
        let wanted = self.scheduler.schedule(&view, now);
        prop_assert_eq!(&wanted, &schedule(&view, now));
        let part = &wanted.actions[..most.min(wanted.actions.len())];
        self.commit(part);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_it_keeps_decides_nothing(objects in cluster(), steps in vec(step(), 1..40)) {
        let (store, observed, scheduler) = (fixture::store(objects), Observed::default(), Scheduler::default());
        let mut history = History { store, observed, scheduler, ids: 1_000_000, seconds: 1000 };
        history.pass(usize::MAX)?;
        for step in steps {
            history.take(step)?;
        }
        history.pass(usize::MAX)?;
        history.pass(usize::MAX)?;
    }
}

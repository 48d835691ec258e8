//! Two services, one of which waits for the other.

use super::*;
use crate::fixture::{self, at};
use crate::id::ServiceId;
use crate::objects::node::NodeState;
use crate::objects::service::{JobStatus, UpdateOrder};
use crate::objects::task::{RestartCondition, RestartPolicy, TaskRuntime};
use crate::objects::{TaskSpec, UpdateConfig};
use crate::orchestrator::reconcile_service;
use crate::store::Store;
use crate::view::{Observed, Told, View};

const DB: ServiceId = ServiceId::of(1);
const WEB: ServiceId = ServiceId::of(2);

/// Service 1 is the one that service 2 waits for.
struct Pair {
    store: Store,
    observed: Observed,
    bits: u128,
}

fn db(mode: ServiceMode) -> Service {
    let mut service = fixture::service(1, mode);
    service.spec.name = "db".to_owned();
    service.job = mode.is_job().then_some(JobStatus { iteration: 0, last_execution: at(0), schedule: None });
    service
}

fn web(on: &str) -> Service {
    let mut service = fixture::replicated(2, 2);
    service.spec.labels.insert(depends_on::LABEL.to_owned(), on.to_owned());
    service
}

impl Pair {
    fn new(services: impl IntoIterator<Item = Service>) -> Self {
        let objects = [fixture::cluster().into(), fixture::node(1).into()];
        let store = fixture::store(objects.into_iter().chain(services.into_iter().map(Object::from)));
        let mut it = Self { store, observed: Observed::default(), bits: 1000 };
        it.settle();
        it
    }

    fn settle(&mut self) {
        for service in [DB, WEB].into_iter().cycle().take(20) {
            let mut bits = fixture::counter(self.bits);
            let view = View::new(&self.store, &self.observed);
            let wanted = reconcile_service(&view, service, at(1000), &mut bits);
            self.bits = bits();
            fixture::apply(&mut self.store, wanted);
            self.place();
        }
    }

    /// The allocator and the scheduler: what is new gets a node.
    fn place(&mut self) {
        for task in self.store.tasks_new().cloned().collect::<Vec<_>>() {
            self.write(fixture::task_on(Task::clone(&task), &fixture::node(1), TaskState::Assigned));
        }
    }

    fn write(&mut self, object: impl Into<Object>) {
        let mut wanted = Reconciled::default();
        wanted.update(object);
        fixture::apply(&mut self.store, wanted);
    }

    /// The tasks of a service that are wanted.
    fn tasks(&self, service: ServiceId) -> Vec<Task> {
        let wanted = |task: &&Arc<Task>| task.desired_state < TaskState::Shutdown;
        self.store.tasks_of(service).filter(wanted).map(|task| Task::clone(task)).collect()
    }

    /// The workers say so of each wanted task of the service.
    fn tell(&mut self, service: ServiceId, state: TaskState) {
        for task in self.tasks(service) {
            self.observed.note(task.id, Told { state, ..Told::default() }, at(1000));
            if state.is_terminal() {
                let mut ended = Task::clone(self.store.task(task.id).unwrap());
                ended.status.state = state;
                self.write(ended);
            }
        }
        self.settle();
    }

    fn change(&mut self, service: ServiceId, change: impl FnOnce(&mut Service)) {
        let mut changed = Service::clone(self.store.service(service).unwrap());
        change(&mut changed);
        self.write(changed);
        self.settle();
    }

    /// What the waiting service's tasks say; nothing of those whose gate is open.
    fn said(&self) -> Vec<String> {
        self.store.tasks_at_gate(WEB).map(|task| task.status.error.to_string()).collect()
    }
}

#[test]
fn first_tasks_wait_and_say_for_what() {
    for (on, reason, until) in [
        ("db", "waiting for service db to start", TaskState::Starting),
        ("db:healthy", "waiting for service db to be healthy", TaskState::Running),
    ] {
        let mut pair = Pair::new([db(ServiceMode::Replicated { replicas: 3 }), web(on)]);
        assert_eq!(pair.said(), [reason; 2]);
        assert_eq!(pair.tasks(WEB).iter().filter(|task| task.status.state == TaskState::New).count(), 2);
        pair.tell(DB, TaskState::Preparing);
        assert_eq!(pair.said(), [reason; 2]);
        if until == TaskState::Running {
            pair.tell(DB, TaskState::Starting);
            assert_eq!(pair.said(), [reason; 2], "started is not healthy");
        }
        pair.tell(DB, until);
        assert_eq!(pair.said(), [""; 0]);
        assert!(pair.tasks(WEB).iter().all(|task| task.status.state == TaskState::Assigned));
        assert!(pair.tasks(WEB).iter().all(|task| task.status.error.is_empty()));
    }
}

#[test]
fn one_replica_of_many_is_not_enough() {
    let mut pair = Pair::new([db(ServiceMode::Replicated { replicas: 2 }), web("db")]);
    let first = pair.tasks(DB)[0].id;
    pair.observed.note(first, Told { state: TaskState::Running, ..Told::default() }, at(1000));
    pair.settle();
    assert_eq!(pair.said().len(), 2);
    pair.change(DB, |db| db.spec.mode = ServiceMode::Replicated { replicas: 1 });
    assert_eq!(pair.said().len(), 0, "nor is more than what is wanted waited for");
}

#[test]
fn a_service_that_is_not_there_is_waited_for_by_name() {
    let mut pair = Pair::new([web("db:healthy")]);
    assert_eq!(pair.said(), ["waiting for service db, which does not exist"; 2]);
    let mut wanted = Reconciled::default();
    wanted.create(db(ServiceMode::Replicated { replicas: 1 }));
    fixture::apply(&mut pair.store, wanted);
    pair.settle();
    assert_eq!(pair.said(), ["waiting for service db to be healthy"; 2]);
    pair.tell(DB, TaskState::Running);
    assert_eq!(pair.said().len(), 0);
}

#[test]
fn a_service_of_the_same_stack_comes_first() {
    let mut of_stack = db(ServiceMode::Replicated { replicas: 1 });
    of_stack.spec.name = "shop_db".to_owned();
    let mut waiting = web("db");
    waiting.spec.labels.insert("com.docker.stack.namespace".to_owned(), "shop".to_owned());
    let mut plain = fixture::replicated(3, 0);
    plain.spec.name = "db".to_owned();
    let pair = Pair::new([of_stack, waiting.clone(), plain.clone()]);
    assert_eq!(pair.said(), ["waiting for service shop_db to start"; 2]);
    let pair = Pair::new([waiting, plain]);
    assert_eq!(pair.said().len(), 0, "all none of its replicas are there");
}

#[test]
fn a_job_is_waited_for_until_it_is_complete() {
    let jobs =
        [ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 }, ServiceMode::GlobalJob];
    for mode in jobs {
        let mut pair = Pair::new([db(mode), web("db")]);
        assert_eq!(pair.said(), ["waiting for service db to complete"; 2]);
        pair.tell(DB, TaskState::Running);
        assert_eq!(pair.said().len(), 2);
        for _ in 0..2 {
            pair.tell(DB, TaskState::Complete);
        }
        assert_eq!(pair.said().len(), 0, "{mode:?}");
    }
}

#[test]
fn a_step_that_ended_well_and_never_runs_again_is_there() {
    let mut step = db(ServiceMode::Replicated { replicas: 1 });
    let restart = Some(RestartPolicy { condition: RestartCondition::OnFailure, ..RestartPolicy::default() });
    step.spec.task = TaskSpec { restart, ..TaskSpec::default() }.into();
    let mut pair = Pair::new([step, web("db:healthy")]);
    pair.tell(DB, TaskState::Complete);
    assert_eq!(pair.said().len(), 0);
}

#[test]
fn a_global_service_is_there_when_each_node_has_one() {
    let mut pair = Pair::new([db(ServiceMode::Global), web("db")]);
    pair.tell(DB, TaskState::Preparing);
    assert_eq!(pair.said().len(), 2);
    let mut node = fixture::node(1);
    node.meta.version = pair.store.node(node.id).unwrap().meta.version;
    node.status.state = NodeState::Down;
    pair.write(node);
    pair.settle();
    assert_eq!(pair.said().len(), 0, "no node is left that could have one");
}

/// Both run, and the one that is waited for is gone again.
fn started() -> Pair {
    let mut pair = Pair::new([db(ServiceMode::Replicated { replicas: 1 }), web("db:healthy")]);
    pair.tell(DB, TaskState::Running);
    pair.tell(WEB, TaskState::Running);
    pair.change(DB, |db| db.spec.name = "other".to_owned());
    pair
}

fn set_image(service: &mut Service) {
    let mut task = TaskSpec::clone(&service.spec.task);
    if let TaskRuntime::Container(container) = &mut task.runtime {
        container.image = "new".to_owned();
    }
    service.spec.task = task.into();
}

#[test]
fn restarts_and_updates_do_not_wait() {
    let mut pair = started();
    pair.tell(WEB, TaskState::Failed);
    assert_eq!(pair.tasks(WEB).iter().filter(|task| task.replaces.is_some()).count(), 2);
    assert_eq!(pair.said().len(), 0);
    let mut pair = started();
    pair.change(WEB, set_image);
    assert_eq!(pair.said().len(), 0);
}

#[test]
fn a_service_that_has_begun_is_scaled_without_waiting() {
    let mut pair = started();
    pair.change(WEB, |web| web.spec.mode = ServiceMode::Replicated { replicas: 3 });
    assert_eq!((pair.tasks(WEB).len(), pair.said().len()), (3, 0));
    pair.change(WEB, |web| web.spec.mode = ServiceMode::Replicated { replicas: 0 });
    pair.change(WEB, |web| web.spec.mode = ServiceMode::Replicated { replicas: 2 });
    assert_eq!(pair.said(), ["waiting for service db, which does not exist"; 2], "it begins again");
    pair.change(WEB, |web| web.spec.mode = ServiceMode::Replicated { replicas: 3 });
    assert_eq!(pair.said().len(), 3, "one that waits has not begun");
}

#[test]
fn what_replaces_a_waiting_task_waits_and_all_are_replaced_at_once() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut waiting = web("db");
        waiting.spec.update = Some(UpdateConfig { order, ..UpdateConfig::default() });
        let mut pair = Pair::new([waiting]);
        pair.change(WEB, set_image);
        assert_eq!(pair.said().len(), 2, "{order:?}");
        let images = pair.tasks(WEB).into_iter().map(|task| task.spec.container().unwrap().image.clone());
        assert_eq!(images.collect::<Vec<_>>(), ["new", "new"], "{order:?}");
    }
}

#[test]
fn a_label_that_is_taken_away_opens_the_gates() {
    let mut pair = Pair::new([web("db")]);
    pair.change(WEB, |web| web.spec.labels.clear());
    assert_eq!(pair.said().len(), 0);
    assert!(pair.tasks(WEB).iter().all(|task| task.node.is_some()));
    let mut pair = Pair::new([web("db")]);
    pair.change(WEB, |web| drop(web.spec.labels.insert(depends_on::LABEL.to_owned(), "db:".to_owned())));
    let told = "label ketch.depends_on: \"db:\" is not a service's name, with or without :healthy behind it";
    assert_eq!(pair.said(), [told; 2], "what can't be read starts nothing");
}

#[test]
fn tasks_that_wait_go_with_their_service() {
    let mut pair = Pair::new([web("db")]);
    let mut removal = Reconciled::default();
    removal.remove(WEB);
    fixture::apply(&mut pair.store, removal);
    pair.settle();
    assert_eq!(pair.said().len(), 0);
    assert!(pair.store.tasks_of(WEB).all(|task| task.status.state == TaskState::Shutdown));
}

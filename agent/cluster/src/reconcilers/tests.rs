//! The queue, one case at a time.

use std::sync::Arc;

use super::*;
use crate::fixture;
use crate::id::{NetworkId, NodeId, ServiceId};
use crate::label::{priority, rebalance};
use crate::objects::displacement::Promise;
use crate::objects::node::{NodeSpec, NodeState, NodeStatus};
use crate::objects::{
    Cluster, Labels, NetworkAttachment, Node, Service, ServiceMode, Task, TaskState, TaskStatus,
};
use crate::store::{Object, Store};
use crate::view::Observed;

const SERVICE: Key = Key::Service(ServiceId::of(1));
const REAPER: Key = Key::Reaper(ServiceId::of(1));
const NODE: Key = Key::Node(NodeId::of(1));

fn milliseconds(count: u64) -> Timestamp {
    Timestamp::default().after(Duration::from_millis(count))
}

/// The keys in the order of their turns, whatever they want.
fn turns(reconcilers: &mut Reconcilers, now: Timestamp) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some(key) = reconcilers.begin(now) {
        keys.push(key);
        reconcilers.settle(key, Outcome::Committed, now);
    }
    keys
}

fn woken(view: &View<'_>, change: Change) -> BTreeSet<Key> {
    touched::by_change(view, &change).into_iter().collect()
}

fn changed(old: impl Into<Object>, new: impl Into<Object>) -> Change {
    Change { old: Some(old.into()), new: Some(new.into()) }
}

#[test]
fn keys_run_in_the_order_in_which_they_were_woken_and_once() {
    let mut queue = Reconcilers::default();
    for key in [NODE, SERVICE, NODE, Key::DataKeys, SERVICE] {
        queue.wake(key, milliseconds(1));
    }
    assert_eq!(queue.next_at(milliseconds(1)), Some(milliseconds(1)));
    assert_eq!(turns(&mut queue, milliseconds(1)), [NODE, SERVICE, Key::DataKeys]);
    assert_eq!(queue.next_at(milliseconds(1)), None);
    assert!(queue.standings.is_empty(), "what rests costs nothing");
}

#[test]
fn a_clock_that_is_set_back_holds_nobody_up() {
    let mut queue = Reconcilers::default();
    let hour = milliseconds(3_600_000);
    assert_eq!(queue.begin(hour), None);
    queue.wait_until(SERVICE, hour.after(Duration::from_secs(5)));
    assert_eq!(turns(&mut queue, hour.before(Duration::from_millis(900))), [], "adjusted");
    assert_eq!(turns(&mut queue, milliseconds(1)), [SERVICE]);
}

#[test]
fn a_key_under_way_has_its_next_turn_after_it() {
    let now = milliseconds(1);
    let mut queue = Reconcilers::default();
    queue.wake(SERVICE, now);
    assert_eq!(queue.begin(now), Some(SERVICE));
    queue.wake(SERVICE, now);
    queue.wake(NODE, now);
    assert_eq!(queue.begin(now), Some(NODE));
    assert_eq!(queue.begin(now), None, "it would not see what its first turn is about to change");
    queue.settle(NODE, Outcome::Committed, now);
    queue.settle(SERVICE, Outcome::Committed, now);
    assert_eq!(turns(&mut queue, now), [SERVICE]);
    queue.settle(SERVICE, Outcome::Refused, now);
    assert_eq!(queue.next_at(now), None, "nothing was under way");
}

#[test]
fn a_refused_key_comes_last_then_waits_longer_and_longer_and_keeps_no_other_waiting() {
    let mut now = milliseconds(1000);
    let mut queue = Reconcilers::default();
    queue.wake(SERVICE, now);
    queue.wake(NODE, now);
    assert_eq!(queue.begin(now), Some(SERVICE));
    queue.settle(SERVICE, Outcome::Refused, now);
    assert_eq!(queue.begin(now), Some(NODE));
    queue.settle(NODE, Outcome::Committed, now);
    let mut pauses = Vec::new();
    for _ in 0..13 {
        assert_eq!(queue.begin(now), Some(SERVICE));
        queue.settle(SERVICE, Outcome::Refused, now);
        queue.wake(SERVICE, now);
        assert_eq!(queue.begin(now), None, "a change does not shorten its pause");
        queue.wake(NODE, now);
        assert_eq!(turns(&mut queue, now), [NODE]);
        let next = queue.next_at(now).unwrap();
        pauses.push(u64::try_from(next.since(now).as_millis()).unwrap());
        now = next;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000, 10_000, 10_000]);
    assert_eq!(turns(&mut queue, now), [SERVICE]);
    queue.wake(SERVICE, now);
    assert_eq!(turns(&mut queue, now), [SERVICE], "once it was accepted, all is forgotten");
}

#[test]
fn the_scheduler_waits_for_more_changes_but_not_for_ever() {
    let mut queue = Reconcilers::default();
    queue.wake(Key::Scheduler, milliseconds(1000));
    assert_eq!(queue.next_at(milliseconds(1000)), Some(milliseconds(1020)));
    for at in (1010..1100).step_by(10) {
        queue.wake(Key::Scheduler, milliseconds(at));
        assert_eq!(queue.begin(milliseconds(at)), None);
        assert_eq!(queue.next_at(milliseconds(at)), Some(milliseconds((at + 20).min(1100))));
    }
    assert_eq!(turns(&mut queue, milliseconds(1100)), [Key::Scheduler]);
    queue.wake(Key::Scheduler, milliseconds(1110));
    assert_eq!(queue.next_at(milliseconds(1110)), Some(milliseconds(1130)));
}

/// A node that a task which yields to nobody shares with one that yields: all who look there for room look in vain.
#[test]
fn passes_that_give_those_who_look_in_vain_their_turns_have_a_pause_between_them() {
    let sized = |number, priority: i32, cpus: u64| {
        let mut service = fixture::replicated(number, 1);
        service.spec.labels = Labels::from([(priority::LABEL.to_owned(), priority.to_string())]);
        Arc::make_mut(&mut service.spec.task).resources.reservations.nano_cpus = cpus * 1_000_000_000;
        service
    };
    let task = |service: &Service| fixture::task(service.id.bits(), service, 1);
    let node = fixture::node(1);
    let there = [sized(1, 0, 2), sized(2, 9, 2)];
    let waiting: Vec<_> = (3..=32).map(|number| sized(number, 5, 4)).collect();
    let running = there.iter().map(|it| fixture::task_on(task(it), &node, TaskState::Running));
    let pending = TaskStatus { state: TaskState::Pending, ..TaskStatus::default() };
    let pending = waiting.iter().map(|it| Task { status: pending.clone(), ..task(it) });
    let tasks = running.chain(pending).map(Object::from);
    let services = there.iter().chain(&waiting).cloned().map(Object::from);
    let mut store = fixture::store(tasks.chain(services).chain([node.clone().into()]));
    let observed = Observed::default();
    let (mut queue, mut now, mut passes) = (Reconcilers::default(), milliseconds(60_000), Vec::new());
    queue.wake(Key::Scheduler, now);
    while let Some(next) =
        queue.next_at(now).filter(|next| next.since(milliseconds(60_000)) < Duration::from_secs(5))
    {
        now = next;
        let view = View::new(&store, &observed);
        let Some(turn) = queue.next(&view, now, &mut fixture::counter(1)) else { continue };
        passes.push(now);
        let wanted = crate::reconciled::Reconciled { actions: turn.actions, wake_at: None };
        let changes = fixture::apply(&mut store, wanted);
        queue.scheduler.committed(&changes);
        queue.settle(turn.key, Outcome::Committed, now);
    }
    assert!(passes.len() > 5, "each has its turn: {passes:?}");
    assert!(passes.windows(2).all(|pair| pair[1].since(pair[0]) >= DEBOUNCE), "{passes:?}");
    assert!(store.tasks().all(|task| task.node.is_some() || !task.status.error.is_empty()));
}

#[test]
fn what_tasks_wake_is_gathered_from_the_first_on_unless_more_than_tasks_has_changed() {
    let mut queue = Reconcilers::default();
    for at in [1000, 1010, 1019] {
        queue.gather(SERVICE, milliseconds(at));
        assert_eq!(queue.next_at(milliseconds(at)), Some(milliseconds(1020)));
    }
    queue.wake(SERVICE, milliseconds(1019));
    assert_eq!(turns(&mut queue, milliseconds(1019)), [SERVICE]);
    queue.gather(SERVICE, milliseconds(1030));
    assert_eq!(queue.begin(milliseconds(1050)), Some(SERVICE));
    queue.gather(SERVICE, milliseconds(1051));
    queue.settle(SERVICE, Outcome::Committed, milliseconds(1060));
    assert_eq!(queue.next_at(milliseconds(1060)), Some(milliseconds(1080)), "of what came meanwhile");
    assert_eq!(queue.begin(milliseconds(1080)), Some(SERVICE));
    queue.gather(SERVICE, milliseconds(1081));
    queue.wake(SERVICE, milliseconds(1082));
    queue.settle(SERVICE, Outcome::Committed, milliseconds(1083));
    assert_eq!(turns(&mut queue, milliseconds(1083)), [SERVICE]);
}

#[test]
fn a_key_is_looked_at_again_at_its_moment() {
    let mut store = fixture::store([fixture::cluster().into()]);
    let observed = Observed::default();
    let mut queue = Reconcilers::of_leader(&View::new(&store, &observed));
    let now = milliseconds(1);
    let turn = queue.next(&View::new(&store, &observed), now, &mut fixture::counter(1)).unwrap();
    assert_eq!((turn.key, turn.parts().count()), (Key::DataKeys, 1));
    let part: Vec<_> = turn.parts().flatten().cloned().collect();
    let changes = store.apply(crate::objects::Version(2), &part).unwrap();
    let view = View::new(&store, &observed);
    queue.committed(&view, &changes, now);
    queue.settle(turn.key, Outcome::Committed, now);
    assert_eq!(queue.next(&view, now, &mut fixture::counter(9)), None);
    let due = now.after(crate::data_keys::ROTATION_PERIOD);
    assert_eq!(queue.next_at(now), Some(due));
    assert_eq!(queue.next(&view, due, &mut fixture::counter(9)).unwrap().key, Key::DataKeys);
}

#[test]
fn many_actions_are_parts_of_200() {
    let actions = (0..401).map(|bits| StoreAction::Remove(NodeId::of(bits).into())).collect();
    let turn = Turn { key: NODE, actions };
    assert_eq!(turn.parts().map(<[_]>::len).collect::<Vec<_>>(), [200, 200, 1]);
}

/// A cluster with a replicated service, a global one, and a task of the first on the first node.
fn cluster() -> (Store, Task) {
    let service = fixture::replicated(1, 1);
    let task = fixture::task_on(fixture::task(1, &service, 1), &fixture::node(1), TaskState::Assigned);
    let global = fixture::service(2, ServiceMode::Global);
    let objects = [fixture::cluster().into(), fixture::node(1).into(), service.into(), global.into()];
    (fixture::store(objects.into_iter().chain([task.clone().into()])), task)
}

#[test]
fn a_new_leader_looks_at_everything() {
    let (store, task) = cluster();
    let mut gone = fixture::store([]);
    fixture::apply(
        &mut gone,
        crate::reconciled::Reconciled { actions: vec![StoreAction::Create(task.into())], wake_at: None },
    );
    let observed = Observed::default();
    let of_cluster = [Key::Allocator, Key::Scheduler, Key::DataKeys, Key::Payloads];
    let of_gone: BTreeSet<_> = [SERVICE, REAPER, NODE].into_iter().chain(of_cluster).collect();
    assert_eq!(Key::all(&View::new(&gone, &observed)), of_gone, "also at what only tasks remember");
    let global = [Key::Service(ServiceId::of(2)), Key::Reaper(ServiceId::of(2))];
    let mut queue = Reconcilers::of_leader(&View::new(&store, &observed));
    let all: BTreeSet<_> = of_gone.into_iter().chain(global).collect();
    assert_eq!(turns(&mut queue, milliseconds(0)), all.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_task_wakes_what_reads_it() {
    let (store, task) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let told = Task { status: TaskStatus { message: "x".into(), ..task.status.clone() }, ..task.clone() };
    let its_own = BTreeSet::from([SERVICE, REAPER, NODE]);
    assert_eq!(woken(&view, changed(task.clone(), told)), its_own);
    let stopped = Task { desired_state: TaskState::Shutdown, ..task.clone() };
    let more = |keys: &[Key]| its_own.iter().chain(keys).copied().collect::<BTreeSet<_>>();
    assert_eq!(woken(&view, changed(task.clone(), stopped)), more(&[Key::Scheduler]));
    let ended =
        Task { status: TaskStatus { state: TaskState::Failed, ..TaskStatus::default() }, ..task.clone() };
    assert_eq!(woken(&view, changed(task.clone(), ended.clone())), more(&[Key::Scheduler]));
    assert_eq!(woken(&view, Change { old: Some(ended.clone().into()), new: None }), its_own);
    // What was in a network frees its addresses.
    let place = NetworkAttachment {
        network: NetworkId::of(1),
        addresses: Vec::new(),
        aliases: Vec::new(),
        driver_options: Labels::new(),
    };
    let networked = |task: &Task| Task { networks: vec![place.clone()], ..task.clone() };
    let end = changed(networked(&task), networked(&ended));
    assert_eq!(woken(&view, end), more(&[Key::Scheduler, Key::Allocator]));
}

#[test]
fn the_allocator_is_woken_by_tasks_that_it_can_give_something() {
    let (store, task) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let at =
        |state| Task { node: None, status: TaskStatus { state, ..TaskStatus::default() }, ..task.clone() };
    let wakes = |change: Change| woken(&view, change).contains(&Key::Allocator);
    assert!(wakes(Change { old: None, new: Some(at(TaskState::New).into()) }));
    assert!(!wakes(changed(at(TaskState::New), at(TaskState::Pending))));
    assert!(!wakes(changed(at(TaskState::Pending), Task { node: task.node, ..at(TaskState::Assigned) })));
}

#[test]
fn the_scheduler_is_woken_by_who_waits_and_by_room_and_not_by_what_it_has_placed() {
    let (store, task) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let at = |state| Task { status: TaskStatus { state, ..TaskStatus::default() }, ..task.clone() };
    let waiting = Task { node: None, ..at(TaskState::Pending) };
    let placed = at(TaskState::Assigned);
    let stopped = Task { desired_state: TaskState::Shutdown, ..placed.clone() };
    let wakes =
        |old: &Task, new: &Task| woken(&view, changed(old.clone(), new.clone())).contains(&Key::Scheduler);
    assert!(wakes(&Task { node: None, ..at(TaskState::New) }, &waiting));
    assert!(!wakes(&waiting, &placed));
    let promised = |node| Task { promised: Some(Box::new(Promise { node })), ..waiting.clone() };
    assert!(!wakes(&promised(placed.node.unwrap()), &placed));
    assert!(wakes(&promised(NodeId::of(77)), &placed), "what was kept for it is for others now");
    let given_up = Task { desired_state: TaskState::Shutdown, ..waiting.clone() };
    assert!(wakes(&waiting, &given_up), "what it was promised is for others now");
    assert!(wakes(&placed, &stopped), "the service has one less there");
    assert!(wakes(&stopped, &Task { desired_state: TaskState::Shutdown, ..at(TaskState::Failed) }));
}

#[test]
fn a_word_wakes_by_what_it_changes() {
    let (store, task) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let running = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let told = TaskStatus { message: "60 %".into(), ..running.clone() };
    let failed = TaskStatus { state: TaskState::Failed, ..running.clone() };
    let by = |before, after| touched::by_word(&view, &Word { task: &task, before, after });
    assert_eq!(by(&task.status, &running), [SERVICE]);
    assert_eq!(by(&running, &told), []);
    assert_eq!(by(&running, &failed), [SERVICE, Key::Scheduler]);
}

#[test]
fn a_node_wakes_services_there_and_those_on_each_node() {
    let (store, _) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let (node, mut down) = (fixture::node(1), fixture::node(1));
    down.status.state = crate::objects::node::NodeState::Down;
    let global = Key::Service(ServiceId::of(2));
    let all = BTreeSet::from([NODE, Key::Allocator, Key::Scheduler, SERVICE, global]);
    assert_eq!(woken(&view, changed(node.clone(), down)), all);
    let gone = Change { old: Some(node.clone().into()), new: None };
    assert!(woken(&view, gone).contains(&REAPER));
    let other = Change { old: None, new: Some(fixture::node(2).into()) };
    let of_other = [Key::Node(NodeId::of(2)), Key::Allocator, Key::Scheduler, global];
    assert_eq!(woken(&view, other), BTreeSet::from(of_other));
    let mut attached = node.clone();
    attached.meta.updated_at = milliseconds(1);
    assert_eq!(woken(&view, changed(node, attached)), BTreeSet::from([Key::Allocator]));
}

#[test]
fn services_that_are_rebalanced_look_once_at_many_nodes_that_come() {
    let nodes: Vec<Node> = (1..=50).map(fixture::node).collect();
    let mut service = fixture::replicated(1, 2);
    service.spec.labels.insert(rebalance::LABEL.to_owned(), "true".to_owned());
    let store = fixture::store(nodes.iter().cloned().map(Object::from).chain([service.into()]));
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let with = |state: NodeState, node: &Node| {
        let status = NodeStatus { state, message: "other".to_owned(), ..node.status.clone() };
        Node { status, ..node.clone() }
    };
    let shares = |old: &Node, new: &Node| {
        let change = changed(old.clone(), new.clone());
        touched::shares_by_change(&view, &change).collect::<Vec<_>>()
    };
    let ready = &nodes[0];
    let down = with(NodeState::Down, ready);
    assert_eq!(shares(&down, ready), [SERVICE]);
    assert_eq!(shares(ready, &down), [SERVICE]);
    assert_eq!(shares(ready, &with(NodeState::Ready, ready)), [], "its message");
    assert_eq!(shares(&down, &with(NodeState::Unknown, ready)), [], "it takes part in neither");
    let labels = Labels::from([("zone".to_owned(), "a".to_owned())]);
    let labelled = Node { spec: NodeSpec { labels, ..ready.spec.clone() }, ..ready.clone() };
    assert_eq!(shares(ready, &labelled), [SERVICE]);

    let changes: Vec<_> =
        nodes.iter().map(|node| changed(with(NodeState::Down, node), node.clone())).collect();
    let mut queue = Reconcilers::default();
    queue.committed(&view, &changes, milliseconds(1));
    assert!(!turns(&mut queue, milliseconds(400)).contains(&SERVICE));
    queue.committed(&view, &changes, milliseconds(450));
    assert_eq!(turns(&mut queue, milliseconds(600)).iter().filter(|key| **key == SERVICE).count(), 1);
}

#[test]
fn the_history_limit_wakes_every_reaper() {
    let (store, _) = cluster();
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let cluster = fixture::cluster();
    let mut shorter = Cluster::clone(&cluster);
    shorter.spec.task_history_limit = 1;
    let other = Key::Reaper(ServiceId::of(2));
    assert_eq!(
        woken(&view, changed(cluster.clone(), shorter)),
        BTreeSet::from([Key::DataKeys, REAPER, other])
    );
    assert_eq!(woken(&view, changed(cluster.clone(), cluster)), BTreeSet::from([Key::DataKeys]));
}

#[test]
fn what_waits_for_a_service_is_woken_by_it_and_by_its_tasks() {
    let (mut store, task) = cluster();
    let mut waiting = fixture::replicated(3, 1);
    waiting.spec.labels.insert("ketch.depends_on".to_owned(), "service-1".to_owned());
    let mut wanted = crate::reconciled::Reconciled::default();
    wanted.create(waiting.clone());
    fixture::apply(&mut store, wanted);
    let observed = Observed::default();
    let dependant = Key::Service(waiting.id);
    let running = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let words = |store: &Store| {
        let view = View::new(store, &observed);
        touched::by_word(&view, &Word { task: &task, before: &task.status, after: &running })
    };
    assert_eq!(words(&store), [SERVICE], "none of its tasks waits");
    let mut wanted = crate::reconciled::Reconciled::default();
    wanted.create(Task { gate: crate::objects::task::Gate::Closed, ..fixture::task(77, &waiting, 1) });
    fixture::apply(&mut store, wanted);
    assert_eq!(words(&store), [SERVICE, dependant]);
    let view = View::new(&store, &observed);
    let ended =
        Task { status: TaskStatus { state: TaskState::Failed, ..TaskStatus::default() }, ..task.clone() };
    assert!(woken(&view, changed(task, ended)).contains(&dependant));
    let service = fixture::replicated(1, 1);
    assert!(woken(&view, Change { old: None, new: Some(service.clone().into()) }).contains(&dependant));
    assert!(woken(&view, Change { old: Some(service.into()), new: None }).contains(&dependant));
    let mut down = fixture::node(1);
    down.status.state = crate::objects::node::NodeState::Down;
    assert!(woken(&view, changed(fixture::node(1), down)).contains(&dependant));
}

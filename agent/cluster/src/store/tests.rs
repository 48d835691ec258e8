//! The store against a naive one: a plain map, walked for every question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::objects::network::Subnet;
use crate::objects::task::NetworkAttachmentConfig;
use crate::objects::{Meta, NetworkAttachment, TaskSpec};

type Model = BTreeMap<ObjectId, Object>;

const STATES: [TaskState; 5] =
    [TaskState::New, TaskState::Pending, TaskState::Running, TaskState::Failed, TaskState::Orphaned];
const KINDS: [ObjectKind; 7] = [
    ObjectKind::Cluster,
    ObjectKind::Node,
    ObjectKind::Service,
    ObjectKind::Task,
    ObjectKind::Network,
    ObjectKind::Secret,
    ObjectKind::Config,
];

#[derive(Debug, Clone, Copy)]
enum Verb {
    Create,
    Update,
    StaleUpdate,
    Remove,
}

/// What may be done to an object; it becomes an action once it is known what the store holds.
#[derive(Debug, Clone)]
struct Step {
    verb: Verb,
    kind: ObjectKind,
    number: u128,
    /// What the object is made of or changed to: of its name, state, node and so on.
    variant: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        3 => Just(Verb::Create),
        6 => Just(Verb::Update),
        1 => Just(Verb::StaleUpdate),
        2 => Just(Verb::Remove),
    ];
    let kind = prop_oneof![2 => Just(ObjectKind::Task), 2 => prop::sample::select(&KINDS[..])];
    (verb, kind, 1..4_u128, 0..1000_usize).prop_map(|(verb, kind, number, variant)| Step {
        verb,
        kind,
        number,
        variant,
    })
}

fn transactions() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 1..5), 1..30)
}

/// "web", "Web" or "db": the first two are one name.
fn name(variant: usize) -> String {
    ["web", "Web", "db"][variant % 3].to_owned()
}

fn made(kind: ObjectKind, number: u128, variant: usize) -> Object {
    let plain = match kind {
        ObjectKind::Cluster => {
            Object::from(Cluster { id: crate::id::ClusterId::of(number), ..fixture::cluster() })
        }
        ObjectKind::Node => fixture::node(number).into(),
        ObjectKind::Service => fixture::replicated(number, 1).into(),
        ObjectKind::Task => {
            let of = fixture::replicated(1 + variant as u128 % 2, 1);
            fixture::task(number, &of, 1 + variant as u64 % 2).into()
        }
        ObjectKind::Network => fixture::network(number).into(),
        ObjectKind::Secret => Secret {
            id: SecretId::of(number),
            meta: Meta::default(),
            spec: crate::objects::SecretSpec::default(),
            internal: false,
        }
        .into(),
        ObjectKind::Config => Config {
            id: ConfigId::of(number),
            meta: Meta::default(),
            spec: crate::objects::ConfigSpec::default(),
        }
        .into(),
    };
    changed(&plain, variant)
}

fn address(variant: usize) -> Subnet {
    format!("10.0.0.{}/24", variant % 3).parse().unwrap()
}

fn attachment(variant: usize) -> NetworkAttachment {
    NetworkAttachment {
        network: NetworkId::of(1 + variant as u128 % 2),
        addresses: vec![address(variant)],
        aliases: Vec::new(),
        driver_options: crate::objects::Labels::new(),
    }
}

/// The object with something else in it.
fn changed(object: &Object, variant: usize) -> Object {
    match object.clone() {
        Object::Cluster(mut it) => {
            Arc::make_mut(&mut it).spec.autolock = variant.is_multiple_of(2);
            Object::Cluster(it)
        }
        Object::Node(mut it) => {
            Arc::make_mut(&mut it).attachments = vec![attachment(variant)];
            Object::Node(it)
        }
        Object::Service(mut it) => {
            let service = Arc::make_mut(&mut it);
            match variant % 4 {
                0 => service.spec.name = name(variant / 4),
                1 => {
                    service.spec.task =
                        Arc::new(TaskSpec { force_update: variant as u64 % 3, ..TaskSpec::default() })
                }
                2 => service.spec_version = Version(999),
                _ => {
                    service.endpoint.virtual_ips = vec![crate::objects::endpoint::VirtualIp {
                        network: NetworkId::of(1),
                        addresses: vec![address(variant)],
                    }];
                }
            }
            Object::Service(it)
        }
        Object::Task(mut it) => {
            let task = Arc::make_mut(&mut it);
            match variant % 7 {
                0 | 1 => task.status.state = STATES[variant / 7 % STATES.len()],
                2 => task.desired_state = STATES[variant / 7 % STATES.len()],
                3 => task.node = Some(NodeId::of(1 + variant as u128 / 7 % 2)),
                4 => task.networks = vec![attachment(variant / 7)],
                5 => task.slot = variant as u64 / 7 % 3,
                _ => {
                    let target = NetworkId::of(1 + variant as u128 / 7 % 2);
                    let wanted = NetworkAttachmentConfig {
                        target,
                        aliases: Vec::new(),
                        addresses: Vec::new(),
                        driver_options: crate::objects::Labels::new(),
                    };
                    Arc::make_mut(&mut task.spec).networks = vec![wanted];
                }
            }
            Object::Task(it)
        }
        Object::Network(mut it) => {
            Arc::make_mut(&mut it).spec.name = name(variant);
            Object::Network(it)
        }
        Object::Secret(mut it) => {
            Arc::make_mut(&mut it).spec.name = name(variant);
            Object::Secret(it)
        }
        Object::Config(mut it) => {
            Arc::make_mut(&mut it).spec.name = name(variant);
            Object::Config(it)
        }
    }
}

fn action(step: &Step, model: &Model) -> StoreAction {
    let fresh = made(step.kind, step.number, step.variant);
    let known = model.get(&fresh.id());
    match step.verb {
        Verb::Create => StoreAction::Create(fresh),
        Verb::Update => StoreAction::Update(known.map_or(fresh, |known| changed(known, step.variant))),
        Verb::StaleUpdate => StoreAction::Update(fresh.at(Version(777))),
        Verb::Remove => StoreAction::Remove(fresh.id()),
    }
}

/// What the action must do, by the words of store.md and nothing else; with the error that it must have.
fn expected(model: &mut Model, version: Version, action: &StoreAction) -> Result<(), StoreError> {
    match action {
        StoreAction::Create(object) => {
            let second_cluster = object.kind() == ObjectKind::Cluster
                && model.keys().any(|id| id.kind() == ObjectKind::Cluster);
            if model.contains_key(&object.id()) || second_cluster {
                return Err(StoreError::Exists(object.id()));
            }
            expected_name(model, object)?;
            model.insert(object.id(), written(object, version, Some(version)));
        }
        StoreAction::Update(object) => {
            let old = model.get(&object.id()).ok_or(StoreError::NotFound(object.id()))?.clone();
            if old.version() != object.version() {
                return Err(StoreError::OutOfSequence(object.id()));
            }
            expected_name(model, object)?;
            expected_task(&old, object)?;
            let spec_version = match (&old, object) {
                (Object::Service(old), Object::Service(new)) if old.spec == new.spec => {
                    Some(old.spec_version)
                }
                _ => Some(version),
            };
            model.insert(object.id(), written(object, version, spec_version));
        }
        StoreAction::Remove(id) => {
            let old = model.get(id).ok_or(StoreError::NotFound(*id))?;
            if let Object::Task(task) = old
                && task.status.state == TaskState::Running
            {
                return Err(StoreError::NotEnded(task.id));
            }
            model.remove(id);
        }
    }
    Ok(())
}

fn written(object: &Object, version: Version, spec_version: Option<Version>) -> Object {
    match (object.at(version), spec_version) {
        (Object::Service(service), Some(spec_version)) => {
            Service { spec_version, ..Service::clone(&service) }.into()
        }
        (object, _) => object,
    }
}

fn expected_name(model: &Model, object: &Object) -> Result<(), StoreError> {
    let Some(name) = object.unique_name() else { return Ok(()) };
    let taken = model.values().any(|other| {
        other.id() != object.id()
            && other.kind() == object.kind()
            && other.unique_name().is_some_and(|theirs| theirs.eq_ignore_ascii_case(name))
    });
    if taken { Err(StoreError::NameConflict { kind: object.kind(), name: name.to_owned() }) } else { Ok(()) }
}

fn expected_task(old: &Object, new: &Object) -> Result<(), StoreError> {
    let (Object::Task(old), Object::Task(new)) = (old, new) else { return Ok(()) };
    for (from, to) in [(old.status.state, new.status.state), (old.desired_state, new.desired_state)] {
        if to < from {
            return Err(StoreError::StateBackwards { task: old.id, from, to });
        }
    }
    let moved = old.node.is_some() && old.node != new.node;
    let changes = [("spec", old.spec != new.spec), ("slot", old.slot != new.slot), ("node", moved)];
    match changes.into_iter().find(|(_, changed)| *changed) {
        Some((field, _)) => Err(StoreError::Fixed { task: old.id, field }),
        None => Ok(()),
    }
}

/// Every question that the store answers from an index, answered by a walk over everything.
fn indexes_agree(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let tasks: Vec<&Arc<Task>> = model
        .values()
        .filter_map(|object| match object {
            Object::Task(task) => Some(task),
            _ => None,
        })
        .collect();
    let those = |wanted: &dyn Fn(&Task) -> bool| -> BTreeSet<TaskId> {
        tasks.iter().filter(|task| wanted(task)).map(|task| task.id).collect()
    };
    let live = |task: &Task| !task.status.state.is_terminal();
    prop_assert_eq!(ids(store.tasks_without_node()), those(&|task| live(task) && task.node.is_none()));
    prop_assert_eq!(ids(store.tasks_new()), those(&|task| task.status.state == TaskState::New));
    for number in 0..5 {
        let (service, node, network) = (ServiceId::of(number), NodeId::of(number), NetworkId::of(number));
        prop_assert_eq!(ids(store.tasks_of(service)), those(&|task| task.service == Some(service)));
        prop_assert_eq!(ids(store.tasks_on(node)), those(&|task| task.node == Some(node)));
        for slot in 0..4 {
            let in_slot = those(&|task| task.service == Some(service) && task.slot == slot);
            prop_assert_eq!(ids(store.tasks_in(service, slot)), in_slot);
        }
        let names = |task: &Task| {
            task.networks.iter().any(|attachment| attachment.network == network)
                || task.spec.networks.iter().any(|wanted| wanted.target == network)
        };
        prop_assert_eq!(ids(store.tasks_using(network)), those(&|task| live(task) && names(task)));
        let on_node: BTreeSet<NetworkId> = tasks
            .iter()
            .filter(|task| live(task) && task.node == Some(node))
            .flat_map(|task| task.networks.iter().map(|attachment| attachment.network))
            .collect();
        prop_assert_eq!(store.networks_on(node).collect::<BTreeSet<_>>(), on_node);
        for variant in 0..3 {
            let address = address(variant).address;
            prop_assert_eq!(store.holders_of(network, address), holders(model, network, address));
        }
    }
    for kind in KINDS {
        for name in ["web", "WEB", "db", "other"] {
            let found = model.values().find(|object| {
                object.kind() == kind
                    && object.unique_name().is_some_and(|theirs| theirs.eq_ignore_ascii_case(name))
            });
            prop_assert_eq!(store.by_name(kind, name), found.map(Object::id));
        }
    }
    Ok(())
}

fn ids<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeSet<TaskId> {
    tasks.map(|task| task.id).collect()
}

fn holders(model: &Model, network: NetworkId, address: IpAddr) -> Holders {
    let mut holders = Holders::default();
    for object in model.values() {
        let held = |attachments: &[NetworkAttachment]| {
            attachments
                .iter()
                .filter(|it| it.network == network && it.addresses[0].address == address)
                .count() as u64
        };
        let virtual_ips = |endpoint: &crate::objects::Endpoint| {
            endpoint
                .virtual_ips
                .iter()
                .filter(|it| it.network == network && it.addresses[0].address == address)
                .count() as u64
        };
        match object {
            Object::Service(service) => holders.live += virtual_ips(&service.endpoint),
            Object::Node(node) => holders.live += held(&node.attachments),
            Object::Task(task) if task.status.state.is_terminal() => holders.ended += held(&task.networks),
            Object::Task(task) => holders.live += held(&task.networks),
            _ => {}
        }
    }
    holders
}

fn contents(store: &Store) -> Model {
    store.snapshot().objects.into_iter().map(|object| (object.id(), object)).collect()
}

proptest! {
    #[test]
    fn the_store_is_the_naive_store(transactions in transactions()) {
        let mut store = Store::default();
        let mut twin = Store::default();
        let mut model = Model::new();
        for (index, steps) in transactions.iter().enumerate() {
            let version = Version(index as u64 + 1);
            let (before, mut after) = (store.clone(), model.clone());
            let mut actions = Vec::new();
            let mut outcome = Ok(());
            for step in steps {
                let action = action(step, &after);
                outcome = outcome.and_then(|()| expected(&mut after, version, &action));
                actions.push(action);
            }
            let applied = store.apply(version, &actions);
            prop_assert_eq!(twin.apply(version, &actions), applied.clone());
            prop_assert_eq!(applied.clone().map(drop), outcome.clone());
            match applied {
                Err(_) => prop_assert_eq!(&store, &before),
                Ok(changes) => {
                    prop_assert_eq!(store.version(), version);
                    prop_assert_eq!(undone(store.clone(), changes, before.version()), before);
                    model = after;
                }
            }
            prop_assert_eq!(contents(&store), model.clone());
            indexes_agree(&store, &model)?;
        }
        prop_assert_eq!(&store, &twin);
        let text = serde_json::to_string(&store.snapshot()).unwrap();
        prop_assert_eq!(Store::of(serde_json::from_str(&text).unwrap()), store);
    }
}

/// The store before these changes.
fn undone(mut store: Store, changes: Vec<Change>, version: Version) -> Store {
    for change in changes.into_iter().rev() {
        store.enter(&Change { old: change.new, new: change.old });
    }
    store.version = version;
    store
}

fn with_task(task: Task) -> Store {
    fixture::store([fixture::replicated(1, 1).into(), task.into()])
}

fn stored(store: &Store) -> Task {
    Task::clone(store.tasks().next().unwrap())
}

fn refusal(store: &mut Store, task: Task) -> String {
    store.apply(Version(2), &[StoreAction::Update(task.into())]).unwrap_err().to_string()
}

#[test]
fn a_task_never_goes_back() {
    let service = fixture::replicated(1, 1);
    let running = fixture::task_on(fixture::task(1, &service, 1), &fixture::node(1), TaskState::Running);
    let mut store = with_task(Task { desired_state: TaskState::Shutdown, ..running });
    let task = stored(&store);
    let mut back = task.clone();
    back.status.state = TaskState::Starting;
    assert_eq!(refusal(&mut store, back), format!("task {} can't go from Running back to Starting", task.id));
    let back = Task { desired_state: TaskState::Running, ..task.clone() };
    assert_eq!(refusal(&mut store, back), format!("task {} can't go from Shutdown back to Running", task.id));
}

#[test]
fn what_a_task_is_made_of_stays() {
    let service = fixture::replicated(1, 1);
    let mut store = with_task(Task { node: Some(NodeId::of(1)), ..fixture::task(1, &service, 1) });
    let task = stored(&store);
    let other_spec = Arc::new(TaskSpec { force_update: 9, ..TaskSpec::default() });
    let refused = [
        ("spec", Task { spec: other_spec, ..task.clone() }),
        ("service", Task { service: Some(ServiceId::of(2)), ..task.clone() }),
        ("slot", Task { slot: 2, ..task.clone() }),
        ("node", Task { node: Some(NodeId::of(2)), ..task.clone() }),
        ("node", Task { node: None, ..task.clone() }),
    ];
    for (field, changed) in refused {
        assert_eq!(refusal(&mut store, changed), format!("the {field} of task {} can't change", task.id));
    }
}

#[test]
fn a_task_leaves_after_its_end_or_before_a_worker_has_it() {
    let (service, node) = (fixture::replicated(1, 1), fixture::node(1));
    let leave = |task: Task| {
        let mut store = with_task(task);
        let removed = store.apply(Version(2), &[StoreAction::Remove(TaskId::of(1).into())]);
        removed.map(drop).map_err(|error| error.to_string())
    };
    let in_state = |state| fixture::task_on(fixture::task(1, &service, 1), &node, state);
    for state in [TaskState::New, TaskState::Pending, TaskState::Complete, TaskState::Orphaned] {
        assert_eq!(leave(in_state(state)), Ok(()));
    }
    for state in [TaskState::Assigned, TaskState::Ready, TaskState::Running] {
        let refusal = format!("task {} can't be removed: it has not ended", TaskId::of(1));
        assert_eq!(leave(in_state(state)), Err(refusal));
        let of_a_plain_container = Task { service: None, ..in_state(state) };
        assert_eq!(leave(of_a_plain_container), Ok(()));
    }
}

#[test]
fn a_node_is_chosen_once_and_late() {
    let mut store = with_task(fixture::task(1, &fixture::replicated(1, 1), 1));
    let chosen = Task { node: Some(NodeId::of(1)), ..stored(&store) };
    store.apply(Version(2), &[StoreAction::Update(chosen.into())]).unwrap();
    assert_eq!(store.tasks_without_node().count(), 0);
}

#[test]
fn a_stale_update_has_dockers_words() {
    let mut store = with_task(fixture::task(1, &fixture::replicated(1, 1), 1));
    let stale = fixture::task(1, &fixture::replicated(1, 1), 1);
    assert_eq!(refusal(&mut store, stale), "update out of sequence");
}

#[test]
fn a_name_is_taken_in_any_case_and_free_again_after_a_rename() {
    let named = |number, name: &str| {
        let mut service = fixture::replicated(number, 1);
        service.spec.name = name.to_owned();
        service
    };
    let mut store = fixture::store([named(1, "web").into()]);
    let error = store.apply(Version(2), &[StoreAction::Create(named(2, "WEB").into())]).unwrap_err();
    assert_eq!(error.to_string(), "name conflicts with an existing object: service WEB already exists");
    let mut renamed = Service::clone(store.service(ServiceId::of(1)).unwrap());
    renamed.spec.name = "db".to_owned();
    let actions = [StoreAction::Update(renamed.into()), StoreAction::Create(named(2, "WEB").into())];
    store.apply(Version(3), &actions).unwrap();
    assert_eq!(store.by_name(ObjectKind::Service, "web"), Some(ServiceId::of(2).into()));
}

#[test]
fn only_the_store_says_when_a_spec_was_written() {
    let mut store = fixture::store([fixture::replicated(1, 1).into()]);
    let read = || Service::clone(store.service(ServiceId::of(1)).unwrap());
    let same_spec = Service { spec_version: Version(50), ..read() };
    let mut other_spec = read();
    other_spec.meta.version = Version(2);
    other_spec.spec.labels.insert("a".to_owned(), "b".to_owned());
    store.apply(Version(2), &[StoreAction::Update(same_spec.into())]).unwrap();
    assert_eq!(store.service(ServiceId::of(1)).unwrap().spec_version, Version(1));
    store.apply(Version(3), &[StoreAction::Update(other_spec.into())]).unwrap();
    assert_eq!(store.service(ServiceId::of(1)).unwrap().spec_version, Version(3));
}

#[test]
fn thousands_of_tasks_share_their_services_spec() {
    let service = fixture::replicated(1, 2);
    let own_copy = |number| Task {
        spec: Arc::new(TaskSpec::clone(&service.spec.task)),
        ..fixture::task(number, &service, 1)
    };
    let store = fixture::store([service.clone().into(), own_copy(1).into(), own_copy(2).into()]);
    let text = serde_json::to_string(&store.snapshot()).unwrap();
    for store in [store, Store::of(serde_json::from_str(&text).unwrap())] {
        let spec = &store.service(service.id).unwrap().spec.task;
        assert!(store.tasks().all(|task| Arc::ptr_eq(&task.spec, spec)));
    }
}

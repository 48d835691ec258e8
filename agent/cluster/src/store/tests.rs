//! The store against a naive one: a plain map, walked for every question.

mod debug;
mod naive;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::objects::network::Subnet;
use crate::objects::task::NetworkAttachmentConfig;
use crate::objects::{Meta, NetworkAttachment, TaskSpec};
use naive::{expected, indexes_agree};

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
            superseded: false,
        }
        .into(),
        ObjectKind::Config => Config {
            id: ConfigId::of(number),
            meta: Meta::default(),
            spec: crate::objects::ConfigSpec::default(),
            superseded: false,
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
            let node = Arc::make_mut(&mut it);
            node.attachments = vec![attachment(variant)];
            let data_address = variant.is_multiple_of(2).then(|| address(variant).address);
            node.description.get_or_insert_default().data_address = data_address;
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

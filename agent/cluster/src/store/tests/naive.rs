//! The naive store: what an action must do, and what each question must be answered, by walks over a plain map.

use super::*;

/// What the action must do, by the words of store.md and nothing else; with the error that it must have.
pub(super) fn expected(model: &mut Model, version: Version, action: &StoreAction) -> Result<(), StoreError> {
    match action {
        StoreAction::Create(object) => {
            let second_cluster = object.kind() == ObjectKind::Cluster
                && model.keys().any(|id| id.kind() == ObjectKind::Cluster);
            if model.contains_key(&object.id()) || second_cluster {
                return Err(StoreError::Exists(object.id()));
            }
            expected_name(model, object)?;
            expected_claims(model, object)?;
            model.insert(object.id(), written(object, version, Some(version)));
        }
        StoreAction::Update(object) => {
            let old = model.get(&object.id()).ok_or(StoreError::NotFound(object.id()))?.clone();
            if old.version() != object.version() {
                return Err(StoreError::OutOfSequence(object.id()));
            }
            expected_name(model, object)?;
            expected_task(&old, object)?;
            expected_claims(model, object)?;
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

/// An object may keep what it has; what it takes nobody else may have.
fn expected_claims(model: &Model, object: &Object) -> Result<(), StoreError> {
    let claims = |object: &Object| -> BTreeSet<(NetworkId, IpAddr)> {
        let attached = |attachments: &[NetworkAttachment]| {
            attachments.iter().map(|it| (it.network, it.addresses[0].address)).collect()
        };
        match object {
            Object::Node(node) => attached(&node.attachments),
            Object::Task(task) if !task.status.state.is_terminal() => attached(&task.networks),
            Object::Service(service) => {
                let virtual_ips = service.endpoint.virtual_ips.iter();
                virtual_ips.map(|it| (it.network, it.addresses[0].address)).collect()
            }
            _ => BTreeSet::new(),
        }
    };
    let others = || model.values().filter(|other| other.id() != object.id());
    let taken = claims(object).into_iter().find(|claim| others().any(|other| claims(other).contains(claim)));
    match taken {
        Some((network, address)) => Err(StoreError::AddressInUse { network, address }),
        None => Ok(()),
    }
}

fn expected_task(old: &Object, new: &Object) -> Result<(), StoreError> {
    let (Object::Task(old), Object::Task(new)) = (old, new) else { return Ok(()) };
    let (from, to) = (old.status.state, new.status.state);
    if to < from {
        return Err(StoreError::StateBackwards { task: old.id, from, to });
    }
    if from.is_terminal() && to != from {
        return Err(StoreError::Ended { task: old.id, from, to });
    }
    let (from, to) = (old.desired_state, new.desired_state);
    if to < from {
        return Err(StoreError::StateBackwards { task: old.id, from, to });
    }
    let moved = old.node.is_some() && old.node != new.node;
    let changes = [("spec", old.spec != new.spec), ("slot", old.slot != new.slot), ("node", moved)];
    match changes.into_iter().find(|(_, changed)| *changed) {
        Some((field, _)) => Err(StoreError::Fixed { task: old.id, field }),
        None => Ok(()),
    }
}

/// Every question that the store answers from an index, answered by a walk over everything.
pub(super) fn indexes_agree(store: &Store, model: &Model) -> Result<(), TestCaseError> {
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
    prop_assert_eq!(ids(store.tasks_new()), those(&|task| task.status.state == TaskState::New));
    prop_assert_eq!(ids(store.tasks_pending()), those(&|task| task.status.state == TaskState::Pending));
    let nodes = model.values().filter_map(|object| match object {
        Object::Node(node) => Some(node),
        _ => None,
    });
    let with_address = nodes.filter(|node| node.data_address().is_some());
    prop_assert!(store.peers().eq(with_address), "{:?}", store.peers().collect::<Vec<_>>());
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

//! Each rule by an example, with its words.

use super::*;

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
    assert_eq!(store.tasks_on(NodeId::of(1)).count(), 1);
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

#[test]
fn a_service_keeps_the_task_spec_that_an_update_only_repeats() {
    let mut store = fixture::store([fixture::replicated(1, 1).into()]);
    let read = |store: &Store| Service::clone(store.service(ServiceId::of(1)).unwrap());
    let first = read(&store).spec.task;
    let sent = |service: &Service| {
        serde_json::from_str::<Service>(&serde_json::to_string(service).unwrap()).unwrap()
    };
    let mut relabelled = sent(&read(&store));
    relabelled.previous_spec = Some(sent(&read(&store)).spec);
    relabelled.spec.labels.insert("a".to_owned(), "b".to_owned());
    store.apply(Version(2), &[StoreAction::Update(relabelled.into())]).unwrap();
    assert!(Arc::ptr_eq(&read(&store).spec.task, &first));
    assert!(Arc::ptr_eq(&read(&store).previous_spec.unwrap().task, &first));
    let mut changed = sent(&read(&store));
    changed.previous_spec = Some(changed.spec.clone());
    changed.spec.task = Arc::new(TaskSpec { force_update: 1, ..TaskSpec::default() });
    store.apply(Version(3), &[StoreAction::Update(changed.into())]).unwrap();
    let mut back = sent(&read(&store));
    std::mem::swap(back.previous_spec.as_mut().unwrap(), &mut back.spec);
    store.apply(Version(4), &[StoreAction::Update(back.into())]).unwrap();
    assert!(Arc::ptr_eq(&read(&store).spec.task, &first), "a rollback has the spec of the old tasks");
}

#[test]
fn a_network_that_goes_leaves_its_name_at_once() {
    let mut store = fixture::store([fixture::network(1).into()]);
    let mut going = crate::objects::Network::clone(store.network(NetworkId::of(1)).unwrap());
    going.pending_delete = true;
    store.apply(Version(2), &[StoreAction::Update(going.clone().into())]).unwrap();
    let mut next = fixture::network(2);
    next.spec.name.clone_from(&going.spec.name);
    store.apply(Version(3), &[StoreAction::Create(next.into())]).unwrap();
    assert_eq!(store.by_name(ObjectKind::Network, &going.spec.name), Some(NetworkId::of(2).into()));
    store.apply(Version(4), &[StoreAction::Remove(NetworkId::of(1).into())]).unwrap();
    assert_eq!(store.by_name(ObjectKind::Network, &going.spec.name), Some(NetworkId::of(2).into()));
}

#[test]
fn an_end_stays_what_it_is() {
    let (service, node) = (fixture::replicated(1, 1), fixture::node(1));
    let mut store = with_task(fixture::task_on(fixture::task(1, &service, 1), &node, TaskState::Complete));
    for state in [TaskState::Shutdown, TaskState::Failed, TaskState::Orphaned] {
        let mut other = stored(&store);
        other.status.state = state;
        let told = format!("task {} has ended as Complete, and can't become {state:?}", other.id);
        assert_eq!(refusal(&mut store, other), told);
    }
    let mut same = stored(&store);
    same.status.message = "finished".into();
    store.apply(Version(2), &[StoreAction::Update(same.into())]).unwrap();
}

#[test]
fn an_address_has_one_holder() {
    let service = fixture::replicated(1, 2);
    let attached = |number| Task { networks: vec![attachment(0)], ..fixture::task(number, &service, 1) };
    let refused = |error: Result<Vec<Change>, StoreError>| error.unwrap_err().to_string();
    let mut store = fixture::store([attached(1).into(), service.clone().into()]);
    let told = format!("address 10.0.0.0 of network {} is in use", NetworkId::of(1));
    let mut node = fixture::node(1);
    node.attachments = vec![attachment(0)];
    let mut other = fixture::replicated(2, 1);
    other.endpoint.virtual_ips =
        vec![crate::objects::endpoint::VirtualIp { network: NetworkId::of(1), addresses: vec![address(0)] }];
    for object in [Object::from(attached(2)), node.into(), other.into()] {
        assert_eq!(refused(store.apply(Version(2), &[StoreAction::Create(object)])), told);
    }
    let mut ended = stored(&store);
    ended.status.state = TaskState::Shutdown;
    let handed_on = [StoreAction::Update(ended.into()), StoreAction::Create(attached(2).into())];
    store.apply(Version(2), &handed_on).unwrap();
}

#[test]
fn two_networks_share_no_subnet_and_no_identifier() {
    let allocated = |number, vni, subnet: &str| {
        let subnet = Some(subnet.parse::<Subnet>().unwrap());
        let pools = vec![crate::objects::network::IpamConfig { subnet, ..Default::default() }];
        let mut network = fixture::network(number);
        network.allocation = Some(crate::objects::network::NetworkAllocation { vni: Some(vni), pools });
        Object::from(network)
    };
    let mut store = fixture::store([allocated(1, 4096, "10.0.0.0/24")]);
    let mut refusal =
        |object| store.apply(Version(2), &[StoreAction::Create(object)]).unwrap_err().to_string();
    let told =
        |what: &str| format!("network {} has {what} of network {}", NetworkId::of(2), NetworkId::of(1));
    assert_eq!(refusal(allocated(2, 4096, "10.0.1.0/24")), told("the VXLAN identifier"));
    assert_eq!(refusal(allocated(2, 4097, "10.0.0.128/25")), told("addresses"));
    store.apply(Version(2), &[StoreAction::Create(allocated(2, 4097, "10.0.1.0/24"))]).unwrap();
}

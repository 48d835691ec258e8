//! What a node is given and what it never is, in random clusters of three nodes; and that the changes lead there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{
    Assignment, AssignmentChanges, Base, Held, Item, ItemId, NodeNetwork, OutOfStep, OwnAddress, Traffic,
};
use crate::fixture::{self, at};
use crate::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId};
use crate::objects::cluster::{DataKey, SecretBytes};
use crate::objects::container::{ConfigReference, ConfigTarget, FileTarget, SecretReference};
use crate::objects::endpoint::{Protocol, PublishMode, VirtualIp};
use crate::objects::network::{NetworkAllocation, Subnet};
use crate::objects::node::NodeState;
use crate::objects::task::TaskRuntime;
use crate::objects::{
    Config, ConfigSpec, ContainerSpec, Labels, Meta, NetworkAttachment, Node, PortConfig, Secret, SecretSpec,
    Service, Task, TaskState, TaskStatus,
};
use crate::store::{Object, Store};
use crate::view::{Observed, Told, View};

const NETWORKS: [u128; 3] = [1, 2, 3];
const INGRESS: u128 = 3;
const ENCRYPTED: u128 = 2;
const KEY: &str = "a key of 32 bytes, or some such..";
const NODE: NodeId = NodeId::of(1);

fn attachment(network: u128, host: u8) -> NetworkAttachment {
    let address = Subnet { address: [10, 0, u8::try_from(network).unwrap(), host].into(), prefix: 24 };
    NetworkAttachment {
        network: NetworkId::of(network),
        addresses: vec![address],
        aliases: Vec::new(),
        driver_options: Labels::new(),
    }
}

fn network(number: u128) -> Object {
    let mut network = fixture::network(number);
    network.spec.ingress = number == INGRESS;
    if number == ENCRYPTED {
        network.spec.driver.options.insert("encrypted".to_owned(), String::new());
    }
    network.allocation =
        Some(NetworkAllocation { vni: Some(4096 + u32::try_from(number).unwrap()), pools: Vec::new() });
    network.into()
}

fn node(number: u8, state: NodeState, in_mesh: bool) -> Node {
    let mut node = fixture::node(u128::from(number));
    node.status.state = state;
    node.description.as_mut().unwrap().data_address = Some(IpAddr::from([192, 168, 0, number]));
    node.attachments = in_mesh.then(|| attachment(INGRESS, 200 + number)).into_iter().collect();
    node
}

/// The service of that number uses the secret and the config of that number, and has an address in that network.
fn service(number: u128) -> Service {
    let mut service = fixture::replicated(number, 3);
    let secret =
        SecretReference { secret: SecretId::of(number), name: String::new(), file: FileTarget::default() };
    let config = ConfigReference {
        config: ConfigId::of(number),
        name: String::new(),
        target: ConfigTarget::File(FileTarget::default()),
    };
    let container =
        ContainerSpec { secrets: vec![secret], configs: vec![config], ..ContainerSpec::default() };
    Arc::make_mut(&mut service.spec.task).runtime = TaskRuntime::Container(Box::new(container));
    let addresses = attachment(number, 2).addresses;
    service.endpoint.virtual_ips = vec![VirtualIp { network: NetworkId::of(number), addresses }];
    service.endpoint.ports = vec![PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: 8000 + u16::try_from(number).unwrap(),
        publish_mode: PublishMode::Ingress,
    }];
    service
}

fn files(number: u128) -> [Object; 2] {
    let name = number.to_string();
    let secret = SecretSpec { name: name.clone(), data: vec![1], ..SecretSpec::default() };
    let config = ConfigSpec { name, ..ConfigSpec::default() };
    [
        Secret {
            id: SecretId::of(number),
            meta: Meta::default(),
            spec: secret,
            internal: false,
            superseded: false,
        }
        .into(),
        Config { id: ConfigId::of(number), meta: Meta::default(), spec: config, superseded: false }.into(),
    ]
}

/// A cluster with one key.
fn keys() -> Object {
    let secret = SecretBytes(KEY.as_bytes().to_vec());
    let mut cluster = fixture::cluster();
    cluster.data_keys = vec![DataKey { generation: 1, made_at: at(1), secret }];
    cluster.into()
}

fn objects() -> Vec<Object> {
    let of_number = |it| [network(it), service(it).into()].into_iter().chain(files(it));
    NETWORKS.into_iter().flat_map(of_number).chain([keys()]).collect()
}

/// A task of the service of that number, in the network of that number and perhaps in one more.
fn task(number: u8, service_number: u128, node: Option<NodeId>, state: TaskState) -> Task {
    let mut task = fixture::task(u128::from(number), &service(service_number), u64::from(number));
    task.node = node;
    task.status = TaskStatus { state, since: at(1), ..TaskStatus::default() };
    task.networks = vec![attachment(service_number, number)];
    task
}

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    use TaskState::{Assigned, Failed, Pending, Running, Shutdown};
    let state = select(vec![Pending, Assigned, Assigned, Running, Running, Running, Shutdown, Failed]);
    let desired = select(vec![Running, Running, Running, TaskState::Shutdown]);
    let more = select(vec![None, None, Some(1), Some(2)]);
    // 2 is a service's, above 200 are nodes'.
    let shape = (10..100_u8, select(NETWORKS.to_vec()), 1..4_u128, state, desired, more);
    vec(shape, 0..12).prop_map(|shapes| {
        let tasks = shapes.into_iter().map(|(number, service, node, state, desired, more)| {
            let mut task = task(number, service, Some(NodeId::of(node)), state);
            task.desired_state = desired;
            task.networks.extend(more.map(|network| attachment(network, number)));
            task
        });
        let mut seen = BTreeSet::new();
        tasks.filter(|task| seen.insert(task.id)).collect()
    })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let state = select(vec![NodeState::Ready, NodeState::Ready, NodeState::Down, NodeState::Unknown]);
    vec((state, any::<bool>()), 3).prop_map(|shapes| {
        (1..).zip(shapes).map(|(number, (state, in_mesh))| node(number, state, in_mesh)).collect()
    })
}

fn cluster() -> impl Strategy<Value = Store> {
    (nodes(), tasks()).prop_map(|(nodes, tasks)| {
        let nodes = nodes.into_iter().map(Object::from);
        fixture::store(objects().into_iter().chain(nodes).chain(tasks.into_iter().map(Object::from)))
    })
}

fn assigned(store: &Store) -> Assignment {
    Assignment::of(&View::new(store, &Observed::default()), NODE)
}

fn ids(assignment: &Assignment) -> BTreeSet<ItemId> {
    assignment.items().map(Item::id).collect()
}

fn may_run(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

/// A message as it comes out at the other end.
fn sent(changes: &AssignmentChanges) -> AssignmentChanges {
    serde_json::from_str(&serde_json::to_string(changes).unwrap()).unwrap()
}

/// What leads there, in one message.
fn next(manager: &mut Held, to: &Assignment) -> Option<AssignmentChanges> {
    manager.lead_to(to, usize::MAX).pop()
}

proptest! {
    #[test]
    fn changes_in_their_order_give_the_whole_set(stores in vec(cluster(), 1..6)) {
        let (mut manager, mut worker) = (Held::default(), Held::default());
        for (index, store) in stores.iter().enumerate() {
            let wanted = assigned(store);
            let changes = next(&mut manager, &wanted);
            prop_assert!(index > 0 || changes.is_some(), "the first is told though it is empty");
            if let Some(changes) = &changes {
                worker.receive(&sent(changes)).unwrap();
            }
            prop_assert!(worker.items().eq(wanted.items()));
            prop_assert_eq!(&worker, &manager);
            prop_assert_eq!(next(&mut manager, &wanted), None, "nothing differs any more");
        }
    }

    /// In parts that are small it is the same set at the end, and none is larger than it may be but for one item alone.
    #[test]
    fn parts_lead_to_the_whole_set(stores in vec(cluster(), 1..6), most in 1..20_000_usize) {
        let (mut manager, mut worker) = (Held::default(), Held::default());
        for (index, store) in stores.iter().enumerate() {
            let wanted = assigned(store);
            let parts = manager.lead_to(&wanted, most);
            prop_assert!(index > 0 || !parts.is_empty(), "the first is told though it is empty");
            for part in &parts {
                let sizes = part.set.iter().map(|item| crate::control::size_of(item).unwrap());
                prop_assert!(part.set.len() <= 1 || sizes.sum::<usize>() <= most);
                worker.receive(&sent(part)).unwrap();
            }
            prop_assert!(worker.items().eq(wanted.items()));
            prop_assert_eq!(&worker, &manager);
            prop_assert_eq!(manager.lead_to(&wanted, most), Vec::new(), "nothing differs any more");
        }
    }

    /// Whatever is lost, the worker knows, keeps what it has, and is set right by a complete set.
    #[test]
    fn a_lost_message_is_noticed(stores in vec(cluster(), 3..6), lost in 0..4_usize) {
        let (mut manager, mut worker) = (Held::default(), Held::default());
        worker.receive(&next(&mut manager, &assigned(&stores[0])).unwrap()).unwrap();
        let messages: Vec<_> =
            stores[1..].iter().filter_map(|store| next(&mut manager, &assigned(store))).collect();
        let (before, after) = messages.split_at(lost.min(messages.len()));
        before.iter().for_each(|message| worker.receive(message).unwrap());
        let held = worker.clone();
        for message in after.iter().skip(1) {
            worker.receive(message).unwrap_err();
            prop_assert_eq!(&worker, &held);
        }
        let wanted = assigned(&stores[0]);
        let another = next(&mut Held::default(), &wanted).unwrap();
        worker.receive(&sent(&another)).unwrap();
        prop_assert!(worker.items().eq(wanted.items()));
    }

    #[test]
    fn a_node_gets_what_its_tasks_use_and_nothing_else(store in cluster()) {
        let ids = ids(&assigned(&store));
        let of_node: Vec<_> = store.tasks_on(NODE).filter(|task| task.status.state >= TaskState::Assigned).collect();
        let running: Vec<_> = of_node.iter().filter(|task| may_run(task)).collect();
        let uses = |service| running.iter().any(|task| task.service == Some(ServiceId::of(service)));
        let in_mesh = !store.node(NODE).unwrap().attachments.is_empty();
        for number in NETWORKS {
            let in_network = running.iter().any(|it| it.networks.iter().any(|it| it.network == NetworkId::of(number)));
            let in_network = in_network || (number == INGRESS && in_mesh);
            prop_assert_eq!(ids.contains(&ItemId::Secret(SecretId::of(number))), uses(number));
            prop_assert_eq!(ids.contains(&ItemId::Config(ConfigId::of(number))), uses(number));
            prop_assert_eq!(ids.contains(&ItemId::Network(NetworkId::of(number))), in_network);
            if in_network {
                prop_assert!(ids.contains(&ItemId::Service(ServiceId::of(number))));
            }
        }
        for task in store.tasks() {
            prop_assert_eq!(ids.contains(&ItemId::Task(task.id)), of_node.iter().any(|it| it.id == task.id));
            let is_near = task.networks.iter().any(|it| ids.contains(&ItemId::Network(it.network)));
            prop_assert_eq!(ids.contains(&ItemId::Neighbour(task.id)), is_near && may_run(task));
        }
    }

    #[test]
    fn a_node_has_the_keys_while_a_task_of_its_is_in_an_encrypted_network(store in cluster()) {
        let encrypted = NetworkId::of(ENCRYPTED);
        let needed = store
            .tasks_on(NODE)
            .any(|task| may_run(task) && task.networks.iter().any(|it| it.network == encrypted));
        let wanted = assigned(&store);
        prop_assert_eq!(ids(&wanted).contains(&ItemId::DataKeys), needed);
        let sent = serde_json::to_string(&next(&mut Held::default(), &wanted)).unwrap();
        let key = serde_json::to_string(KEY.as_bytes()).unwrap();
        prop_assert_eq!(sent.contains(&key), needed, "not by another item either");
    }

    #[test]
    fn only_what_runs_and_stays_is_sent_traffic(store in cluster()) {
        for item in assigned(&store).items() {
            let Item::Neighbour(it) = item else { continue };
            let task = store.task(it.task).unwrap();
            let is_down = store.node(it.node).unwrap().status.state == NodeState::Down;
            let runs = task.status.state == TaskState::Running && !is_down;
            let stays = task.desired_state <= TaskState::Complete;
            prop_assert_eq!(it.traffic == Traffic::Serving, runs && stays);
            prop_assert_eq!(it.traffic == Traffic::Draining, runs && !stays);
        }
    }
}

#[test]
fn a_node_without_networks_learns_of_no_other() {
    let objects = objects().into_iter().chain([1, 2].map(|it| node(it, NodeState::Ready, false).into()));
    let far = task(9, 1, Some(NodeId::of(2)), TaskState::Running);
    assert_eq!(ids(&assigned(&fixture::store(objects.chain([far.into()])))), BTreeSet::new());
}

#[test]
fn a_node_of_the_mesh_knows_peers_services_and_their_tasks() {
    let objects = objects().into_iter().chain([1, 2].map(|it| node(it, NodeState::Ready, true).into()));
    let far = task(9, INGRESS, Some(NodeId::of(2)), TaskState::Running);
    let wanted = assigned(&fixture::store(objects.chain([far.clone().into()])));
    let services = NETWORKS.map(|it| ItemId::Service(ServiceId::of(it)));
    let others =
        [ItemId::Network(NetworkId::of(INGRESS)), ItemId::Neighbour(far.id), ItemId::Peer(NodeId::of(2))];
    assert_eq!(ids(&wanted), services.into_iter().chain(others).collect());
    let entry = wanted.items().find_map(|item| match item {
        Item::Service(it) if it.service == ServiceId::of(1) => Some(it.clone()),
        _ => None,
    });
    let entry = entry.unwrap();
    assert_eq!(
        (entry.virtual_ips.len(), entry.ports.len()),
        (0, 1),
        "its port, but no address in other networks"
    );
}

#[test]
fn a_new_leader_takes_no_task_out_of_the_balancers() {
    let traffic = |state: NodeState, observed: &Observed| {
        let near = task(8, 1, Some(NODE), TaskState::Assigned);
        let far = task(9, 1, Some(NodeId::of(2)), TaskState::Assigned);
        let nodes = [node(1, NodeState::Ready, false), node(2, state, false)].map(Object::from);
        let store =
            fixture::store(objects().into_iter().chain(nodes).chain([near.into(), far.clone().into()]));
        let wanted = Assignment::of(&View::new(&store, observed), NODE);
        let found = wanted.items().find_map(|item| match item {
            Item::Neighbour(it) if it.task == far.id => Some(it.traffic),
            _ => None,
        });
        found.unwrap()
    };
    let mut told = Observed::default();
    told.note(
        task(9, 1, None, TaskState::New).id,
        Told { state: TaskState::Running, ..Told::default() },
        crate::time::Timestamp::default(),
    );
    assert_eq!(traffic(NodeState::Unknown, &Observed::default()), Traffic::Unknown);
    assert_eq!(
        traffic(NodeState::Ready, &Observed::default()),
        Traffic::Unknown,
        "registered, not yet heard"
    );
    assert_eq!(traffic(NodeState::Down, &Observed::default()), Traffic::None);
    let mut prepared = Observed::default();
    prepared.note(
        task(9, 1, None, TaskState::New).id,
        crate::view::Told { state: TaskState::Preparing, ..crate::view::Told::default() },
        crate::time::Timestamp::default(),
    );
    assert_eq!(traffic(NodeState::Ready, &prepared), Traffic::None);
    assert_eq!(traffic(NodeState::Unknown, &told), Traffic::Serving);
    assert_eq!(traffic(NodeState::Ready, &told), Traffic::Serving);
    assert_eq!(traffic(NodeState::Down, &told), Traffic::None);
}

#[test]
fn what_is_not_as_the_manager_sent_it_is_refused() {
    let objects = objects().into_iter().chain([node(1, NodeState::Ready, true).into()]);
    let wanted = assigned(&fixture::store(objects));
    let (mut manager, mut worker) = (Held::default(), Held::default());
    let mut changes = next(&mut manager, &wanted).unwrap();
    changes.set.pop();
    assert_eq!(worker.receive(&changes), Err(OutOfStep::Digest { generation: 1 }));
    assert_eq!(worker, Held::default());
    let later = AssignmentChanges {
        generation: 5,
        base: Base::Previous,
        set: Vec::new(),
        removed: Vec::new(),
        digest: 0,
    };
    assert_eq!(worker.receive(&later), Err(OutOfStep::Generation { held: 0, got: 5 }));
}

#[test]
fn a_node_of_an_encrypted_mesh_has_the_keys() {
    let with_keys = |in_mesh: bool, pending_delete: bool| {
        let mut mesh = crate::objects::Network::clone(&fixture::network(INGRESS));
        mesh.spec.ingress = true;
        mesh.spec.driver.options.insert("encrypted".to_owned(), "true".to_owned());
        mesh.pending_delete = pending_delete;
        let store = fixture::store([keys(), mesh.into(), node(1, NodeState::Ready, in_mesh).into()]);
        ids(&assigned(&store)).contains(&ItemId::DataKeys)
    };
    assert!(with_keys(true, false));
    assert!(!with_keys(false, false));
    assert!(!with_keys(true, true), "it is the mesh no more");
}

/// So that the worker can say why a node forwards nothing in a network that is full.
#[test]
fn a_node_is_told_that_a_network_has_no_address_for_it() {
    let own = |attached: bool, driver: &str| {
        let mut network = fixture::network(1);
        network.spec.driver.name = driver.to_owned();
        let mut node = node(1, NodeState::Ready, false);
        node.attachments = attached.then(|| attachment(1, 9)).into_iter().collect();
        let task = task(10, 1, Some(NODE), TaskState::Running);
        let service = service(1);
        let store = fixture::store([network.into(), node.into(), service.into(), task.into()]);
        let wanted = assigned(&store);
        let found = wanted.items().find_map(|item| match item {
            Item::Network(NodeNetwork { own, .. }) => Some(own.clone()),
            _ => None,
        });
        found.unwrap()
    };
    assert_eq!(own(true, ""), OwnAddress::Given(attachment(1, 9).addresses));
    assert_eq!(own(false, "overlay"), OwnAddress::Missing);
    assert_eq!(own(false, "macvlan"), OwnAddress::NotNeeded);
}

/// The node is in network 1 alone, where `web` of the stack `x` is, and a stranger's `db`; `x_db` is in network 2.
#[test]
fn whom_a_label_allows_is_known_whether_the_node_is_told_of_them_or_not() {
    let named = |number: u128, name: &str| {
        let mut service = service(number);
        service.spec.name = name.to_owned();
        service
    };
    let mut web = named(1, "x_web");
    web.spec.labels =
        [(crate::label::allow::LABEL, "db:80,db:81,job:1,DB:5,*:443"), (crate::label::STACK, "x")]
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .into();
    // In a network of the task's, so that the node is told of it.
    let mut stranger = named(9, "db");
    stranger.endpoint.virtual_ips =
        vec![VirtualIp { network: NetworkId::of(1), addresses: attachment(1, 3).addresses }];
    let allowed = |more: Option<Service>| {
        let task = task(10, 1, Some(NODE), TaskState::Running);
        let all: [Object; 6] = [
            network(1),
            network(2),
            node(1, NodeState::Ready, false).into(),
            web.clone().into(),
            stranger.clone().into(),
            task.into(),
        ];
        let store = fixture::store(all.into_iter().chain(more.map(Object::from)));
        let entries = assigned(&store);
        let mut entries = entries.items().filter_map(|item| match item {
            Item::Service(entry) => Some(entry.clone()),
            _ => None,
        });
        let web = entries.find(|entry| entry.service == web.id).unwrap();
        assert!(entries.all(|entry| entry.allowed.is_none() && entry.name != "x_db"));
        web.allowed.unwrap()
    };
    assert_eq!(allowed(Some(named(2, "x_db"))), [("db".to_owned(), ServiceId::of(2))].into());
    assert_eq!(allowed(None), [("db".to_owned(), ServiceId::of(9))].into());
}

//! Whom no change and no word rings has nothing new: after any sequence of them each node holds what it is to have.

use std::collections::BTreeMap;

use ketch_cluster::id::{NetworkId, SecretId};
use ketch_cluster::objects::cluster::{ClusterNetworking, DataKey, RootCa, SecretBytes};
use ketch_cluster::objects::container::{ContainerSpec, FileTarget, SecretReference};
use ketch_cluster::objects::endpoint::VirtualIp;
use ketch_cluster::objects::network::{NetworkAllocation, Subnet};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{
    ClusterSpec, Endpoint, Labels, Meta, Network, NetworkAttachment, NetworkSpec, Secret, SecretSpec,
    Service, ServiceMode, ServiceSpec, Task, TaskSpec, TaskStatus,
};
use ketch_cluster::store::Store;
use ketch_cluster::view::{Observed, View};
use proptest::prelude::*;

use super::*;
use crate::dispatcher::interests::{Interests, Rings};

const NODES: u8 = 3;
const STATES: [TaskState; 7] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Preparing,
    TaskState::Running,
    TaskState::Failed,
    TaskState::Orphaned,
];

/// What happens. Numbers are of small sets, so that much of it concerns the same objects.
#[derive(Debug, Clone)]
enum Event {
    Node { number: u8, state: u8, in_network: Option<u8>, data_address: bool },
    Network { number: u8, with_vni: bool, encrypted: bool, ingress: bool },
    Service { number: u8, label: u8 },
    Task { number: u8, node: Option<u8>, networks: Vec<u8>, service: u8, state: usize, stop: bool },
    Secret { number: u8, label: u8 },
    DataKey(u64),
    Word { task: u8, state: usize },
    Remove(u8, u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..NODES, 0..4_u8, prop::option::of(0..3_u8), any::<bool>())
            .prop_map(|(number, state, in_network, data_address)| Event::Node { number, state, in_network, data_address }),
        1 => (0..3_u8, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(number, with_vni, encrypted, ingress)| Event::Network { number, with_vni, encrypted, ingress }),
        2 => (0..4_u8, 0..3_u8).prop_map(|(number, label)| Event::Service { number, label }),
        4 => (0..8_u8, prop::option::of(0..NODES), prop::collection::vec(0..3_u8, 0..3), 0..3_u8, 0..STATES.len(), any::<bool>())
            .prop_map(|(number, node, networks, service, state, stop)| Event::Task { number, node, networks, service, state, stop }),
        1 => (0..3_u8, 0..3_u8).prop_map(|(number, label)| Event::Secret { number, label }),
        1 => (0..3_u64).prop_map(Event::DataKey),
        3 => (0..8_u8, 2..STATES.len()).prop_map(|(task, state)| Event::Word { task, state }),
        1 => (0..5_u8, 0..8_u8).prop_map(|(kind, number)| Event::Remove(kind, number)),
    ]
}

fn attachment(network: u8, host: u8) -> NetworkAttachment {
    let address = Subnet { address: [10, 0, network, host].into(), prefix: 24 };
    NetworkAttachment {
        network: NetworkId::of(network.into()),
        addresses: vec![address],
        aliases: Vec::new(),
        driver_options: Labels::new(),
    }
}

/// The service of that number uses the secret of that number.
fn spec_of(service: u8) -> Arc<TaskSpec> {
    let secret = SecretReference {
        secret: SecretId::of(service.into()),
        name: String::new(),
        file: FileTarget { name: String::new(), uid: String::new(), gid: String::new(), mode: 0 },
    };
    let container = ContainerSpec { secrets: vec![secret], ..ContainerSpec::default() };
    Arc::new(TaskSpec { runtime: TaskRuntime::Container(Box::new(container)), ..TaskSpec::default() })
}

fn labels(label: u8) -> Labels {
    Labels::from([("a".to_owned(), label.to_string())])
}

/// The first is of a stack and lets one in by a name that two can have: the second one has it, and the last one, which is in no
/// network, takes it over for as long as it is there.
const SERVICES: [&str; 4] = ["x_web", "db", "service-2", "x_db"];

fn labels_of_service(number: u8, label: u8) -> Labels {
    let mut labels = labels(label);
    if number == 0 {
        labels.insert("com.docker.stack.namespace".to_owned(), "x".to_owned());
        labels.insert("ketch.allow".to_owned(), "db:80/tcp".to_owned());
    }
    labels
}

/// The object as the event leaves it, with the version that the store has; none of a word.
fn object_of(event: &Event, store: &Store) -> Option<Object> {
    let meta = Meta::default();
    let mut object = match *event {
        Event::Node { number, state, in_network, data_address } => {
            let mut node = objects::node(number.into());
            let states = [NodeState::Ready, NodeState::Down, NodeState::Unknown, NodeState::Disconnected];
            node.status.state = states[usize::from(state)];
            node.description.as_mut().unwrap().data_address =
                data_address.then(|| [192, 168, 0, number].into());
            node.attachments =
                in_network.map(|network| attachment(network, 200 + number)).into_iter().collect();
            Object::from(node)
        }
        Event::Network { number, with_vni, encrypted, ingress } => {
            let mut spec =
                NetworkSpec { name: format!("network-{number}"), ingress, ..NetworkSpec::default() };
            if encrypted {
                spec.driver.options.insert("encrypted".to_owned(), String::new());
            }
            let vni = with_vni.then(|| 4096 + u32::from(number));
            let allocation = Some(NetworkAllocation { vni, pools: Vec::new() });
            let id = NetworkId::of(number.into());
            Network { id, meta, spec, allocation, pending_delete: false }.into()
        }
        Event::Service { number, label } => {
            let spec = ServiceSpec {
                name: SERVICES[usize::from(number)].to_owned(),
                labels: labels_of_service(number, label),
                task: spec_of(number),
                mode: ServiceMode::Global,
                update: None,
                rollback: None,
                endpoint: None,
            };
            let virtual_ip = (number < 3).then(|| VirtualIp {
                network: NetworkId::of(number.into()),
                addresses: attachment(number, 100 + number).addresses,
            });
            Service {
                id: ServiceId::of(number.into()),
                meta,
                spec,
                spec_version: Version(1),
                previous_spec: None,
                previous_spec_version: None,
                endpoint: Endpoint { virtual_ips: virtual_ip.into_iter().collect(), ..Endpoint::default() },
                update_status: None,
                replicas_changed_at: None,
                job: None,
            }
            .into()
        }
        Event::Task { number, node, ref networks, service, state, stop } => {
            let networks: BTreeSet<u8> = networks.iter().copied().collect();
            let known = store.task(TaskId::of(number.into()));
            Task {
                meta,
                spec_version: Version(1),
                service: known.map_or(Some(ServiceId::of(service.into())), |task| task.service),
                slot: 1,
                node: known.and_then(|task| task.node).or(node.map(|node| NodeId::of(node.into()))),
                name: number.to_string().into(),
                status: TaskStatus { state: STATES[state], ..TaskStatus::default() },
                desired_state: if stop { TaskState::Shutdown } else { TaskState::Running },
                networks: networks.into_iter().map(|network| attachment(network, 10 + number)).collect(),
                ..Task::new(
                    TaskId::of(number.into()),
                    known.map_or_else(|| spec_of(service), |task| Arc::clone(&task.spec)),
                )
            }
            .into()
        }
        Event::Secret { number, label } => {
            let spec =
                SecretSpec { name: number.to_string(), labels: labels(label), ..SecretSpec::default() };
            Secret { id: SecretId::of(number.into()), meta, spec, internal: false, superseded: false }.into()
        }
        Event::DataKey(generation) => ketch_cluster::objects::Cluster {
            id: ClusterId::of(1),
            meta,
            spec: ClusterSpec::default(),
            networking: ClusterNetworking::default(),
            root_ca: RootCa::default(),
            shut_out: BTreeMap::new(),
            unlock_key: None,
            data_keys: vec![DataKey {
                generation,
                made_at: Timestamp::default(),
                secret: SecretBytes(vec![1]),
            }],
        }
        .into(),
        Event::Word { .. } | Event::Remove(..) => return None,
    };
    if let Some(known) = store.object(object.id()) {
        set_version(&mut object, known.version());
    }
    Some(object)
}

fn set_version(object: &mut Object, version: Version) {
    match object {
        Object::Cluster(it) => Arc::make_mut(it).meta.version = version,
        Object::Node(it) => Arc::make_mut(it).meta.version = version,
        Object::Service(it) => Arc::make_mut(it).meta.version = version,
        Object::Task(it) => Arc::make_mut(it).meta.version = version,
        Object::Network(it) => Arc::make_mut(it).meta.version = version,
        Object::Secret(it) => Arc::make_mut(it).meta.version = version,
        Object::Config(it) => Arc::make_mut(it).meta.version = version,
    }
}

fn action_of(event: &Event, store: &Store) -> Option<StoreAction> {
    if let Event::Remove(kind, number) = *event {
        let number = u128::from(number);
        return Some(StoreAction::Remove(match kind {
            0 => NodeId::of(number).into(),
            1 => NetworkId::of(number).into(),
            2 => ServiceId::of(number).into(),
            3 => SecretId::of(number).into(),
            _ => TaskId::of(number).into(),
        }));
    }
    let object = object_of(event, store)?;
    let is_known = store.object(object.id()).is_some();
    Some(if is_known { StoreAction::Update(object) } else { StoreAction::Create(object) })
}

/// Sessions of all nodes, as feeders keep them.
#[derive(Default)]
struct Sessions {
    interests: Interests,
    held: BTreeMap<NodeId, (Held, Held)>,
}

impl Sessions {
    fn feed(&mut self, view: &View<'_>, node: NodeId) {
        self.interests.set(view, node);
        let wanted = Assignment::of(view, node);
        let (sent, received) = self.held.entry(node).or_default();
        for changes in sent.lead_to(&wanted, usize::MAX) {
            received.receive(&changes).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whom_nothing_rings_has_nothing_new(events in prop::collection::vec(event(), 1..80)) {
        let (mut store, mut observed, mut sessions) = (Store::default(), Observed::default(), Sessions::default());
        let nodes: Vec<NodeId> = (0..NODES).map(|node| NodeId::of(node.into())).collect();
        for node in &nodes {
            sessions.feed(&View::new(&store, &observed), *node);
        }
        for event in events {
            let mut rings = Rings::default();
            if let Event::Word { task, state } = event {
                let task = TaskId::of(task.into());
                if store.task(task).is_some() && observed.note(task, word(STATES[state]), Timestamp(1)) {
                    rings = Rings::of_words(&sessions.interests, &View::new(&store, &observed), &[task]);
                }
            } else if let Some(action) = action_of(&event, &store) {
                let version = Version(store.version().0 + 1);
                // Some are refused: an ended task does not come back.
                let changes = store.apply(version, &[action]).unwrap_or_default();
                changes.iter().for_each(|change| sessions.interests.touched_by(change, &mut rings));
            }
            let view = View::new(&store, &observed);
            for node in &nodes {
                let of_node = rings.nodes.get(node).is_some_and(|topics| topics.contains(&Topic::Assignment));
                if of_node || rings.everyone.contains(&Topic::Assignment) {
                    sessions.feed(&view, *node);
                }
            }
            for (node, (_, received)) in &sessions.held {
                let wanted = Assignment::of(&view, *node);
                prop_assert!(received.items().eq(wanted.items()), "{} after {:?}", node, event);
            }
        }
    }
}

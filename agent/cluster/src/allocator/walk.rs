//! Random clusters: whatever is made, changed and removed in whatever order, nobody has what another one holds, everything
//! comes back, and the same history gives the same store.

mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::id::{NodeId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::task::NetworkAttachmentConfig;
use crate::objects::{EndpointSpec, Network, PortConfig, TaskSpec};
use crate::store::{Object, ObjectId, Store, StoreAction};
use crate::view::Observed;
use promises::*;

/// Ids are spread, so that they point all over a pool.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

#[derive(Debug, Clone)]
enum Step {
    CreateNetwork {
        number: u128,
        subnet: Option<usize>,
        ipv6: bool,
    },
    DeleteNetwork(u128),
    CreateService {
        number: u128,
        spec: ServiceShape,
    },
    UpdateService {
        number: u128,
        spec: ServiceShape,
    },
    RemoveService(u128),
    CreateTask {
        service: u128,
        node: Option<u128>,
    },
    CreateAttachment {
        network: u128,
        wanted: Option<u8>,
    },
    /// Of the task that is the so manieth.
    MoveTask {
        which: usize,
        to: TaskState,
        node: u128,
    },
    RemoveEnded(usize),
    SetNode {
        number: u128,
        state: NodeState,
    },
    RemoveNode(u128),
}

#[derive(Debug, Clone)]
struct ServiceShape {
    networks: Vec<u128>,
    /// Zero is any.
    published: Vec<u16>,
    mode: ResolutionMode,
    publish_mode: PublishMode,
}

fn shape() -> impl Strategy<Value = ServiceShape> {
    let mode = prop_oneof![4 => Just(ResolutionMode::Vip), 1 => Just(ResolutionMode::DnsRr)];
    let publish_mode = prop_oneof![4 => Just(PublishMode::Ingress), 1 => Just(PublishMode::Host)];
    let published = prop::collection::vec(prop_oneof![Just(0), 80_u16..84], 0..3);
    (prop::collection::vec(1..5_u128, 0..3), published, mode, publish_mode).prop_map(
        |(networks, published, mode, publish_mode)| ServiceShape { networks, published, mode, publish_mode },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let states = [
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Orphaned,
    ];
    let node_states = [NodeState::Ready, NodeState::Down, NodeState::Unknown, NodeState::Disconnected];
    prop_oneof![
        3 => (1..6_u128, prop::option::of(0..USER_SUBNETS.len()), any::<bool>())
            .prop_map(|(number, subnet, ipv6)| Step::CreateNetwork { number, subnet, ipv6 }),
        1 => (1..6_u128).prop_map(Step::DeleteNetwork),
        4 => (1..5_u128, shape()).prop_map(|(number, spec)| Step::CreateService { number, spec }),
        2 => (1..5_u128, shape()).prop_map(|(number, spec)| Step::UpdateService { number, spec }),
        1 => (1..5_u128).prop_map(Step::RemoveService),
        8 => (1..5_u128, prop::option::of(1..4_u128)).prop_map(|(service, node)| Step::CreateTask { service, node }),
        2 => (1..6_u128, prop::option::of(0..30_u8))
            .prop_map(|(network, wanted)| Step::CreateAttachment { network, wanted }),
        8 => (0..100_usize, prop::sample::select(states.to_vec()), 1..4_u128)
            .prop_map(|(which, to, node)| Step::MoveTask { which, to, node }),
        2 => (0..100_usize).prop_map(Step::RemoveEnded),
        3 => (1..4_u128, prop::sample::select(node_states.to_vec()))
            .prop_map(|(number, state)| Step::SetNode { number, state }),
        1 => (1..4_u128).prop_map(Step::RemoveNode),
    ]
}

/// Some overlap with each other, and with the parts of the cluster's pool.
const USER_SUBNETS: [&str; 6] =
    ["10.0.0.8/29", "10.0.0.16/30", "10.9.0.0/28", "10.9.0.8/29", "fd09::/125", "fd09::4/126"];

fn id(number: u128) -> u128 {
    number.wrapping_mul(SPREAD)
}

/// A history under way: the store and what the next task is called.
struct Walk {
    store: Store,
    tasks: u128,
}

impl Walk {
    /// A cluster whose pool has four subnets of five addresses, and three networks.
    fn new() -> Self {
        let mut cluster = fixture::cluster();
        cluster.networking.address_pools = vec!["10.0.0.0/27".parse().unwrap()];
        cluster.networking.subnet_size = 29;
        let mut mesh = fixture::network(id(1));
        mesh.spec.ingress = true;
        let others = [2, 3].map(|number| fixture::network(id(number)).into());
        let objects = [cluster.into(), mesh.into()].into_iter().chain(others);
        Self { store: fixture::store(objects), tasks: 0 }
    }

    fn commit(&mut self, actions: &[StoreAction]) {
        let next = crate::objects::Version(self.store.version().0 + 1);
        self.store.apply(next, actions).unwrap();
    }

    fn create(&mut self, object: impl Into<Object>) {
        let object = object.into();
        if self.store.object(object.id()).is_none() {
            self.commit(&[StoreAction::Create(object)]);
        }
    }

    fn remove(&mut self, id: impl Into<ObjectId>) {
        let id = id.into();
        if self.store.object(id).is_some() {
            self.commit(&[StoreAction::Remove(id)]);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::CreateNetwork { number, subnet, ipv6 } => self.create_network(*number, *subnet, *ipv6),
            Step::DeleteNetwork(number) => self.delete_network(*number),
            Step::CreateService { number, spec } => self.create(service(*number, spec)),
            Step::UpdateService { number, spec } => self.update_service(*number, spec),
            Step::RemoveService(number) => self.remove(ServiceId::of(id(*number))),
            Step::CreateTask { service, node } => self.create_task(*service, *node),
            Step::CreateAttachment { network, wanted } => self.create_attachment(*network, *wanted),
            Step::MoveTask { which, to, node } => self.move_task(*which, *to, *node),
            Step::RemoveEnded(which) => self.remove_ended(*which),
            Step::SetNode { number, state } => self.set_node(*number, *state),
            Step::RemoveNode(number) => self.remove(NodeId::of(id(*number))),
        }
    }

    fn create_network(&mut self, number: u128, subnet: Option<usize>, ipv6: bool) {
        let mut network = fixture::network(id(number));
        network.spec.ipv6 = ipv6;
        network.spec.ipam = subnet
            .map(|which| IpamConfig {
                subnet: Some(USER_SUBNETS[which].parse().unwrap()),
                ..IpamConfig::default()
            })
            .into_iter()
            .collect();
        self.create(network);
    }

    fn delete_network(&mut self, number: u128) {
        if let Some(network) = self.store.network(NetworkId::of(id(number))) {
            let network = Network { pending_delete: true, ..Network::clone(network) };
            self.commit(&[StoreAction::Update(network.into())]);
        }
    }

    fn update_service(&mut self, number: u128, shape: &ServiceShape) {
        if let Some(known) = self.store.service(ServiceId::of(id(number))) {
            let updated = Service { spec: service(number, shape).spec, ..Service::clone(known) };
            self.commit(&[StoreAction::Update(updated.into())]);
        }
    }

    fn create_task(&mut self, service: u128, node: Option<u128>) {
        if let Some(service) = self.store.service(ServiceId::of(id(service))) {
            self.tasks += 1;
            let task = fixture::task(id(self.tasks), service, 1);
            self.create(Task { node: node.map(|number| NodeId::of(id(number))), ..task });
        }
    }

    fn create_attachment(&mut self, network: u128, wanted: Option<u8>) {
        self.tasks += 1;
        let addresses = wanted.map(|last| IpAddr::from([10, 0, 0, last])).into_iter().collect();
        let config = NetworkAttachmentConfig { addresses, ..joining(network) };
        let spec = TaskSpec {
            runtime: TaskRuntime::Attachment { container: "c".to_owned() },
            networks: vec![config],
            ..TaskSpec::default()
        };
        let task = fixture::task(id(self.tasks), &fixture::replicated(1, 1), 0);
        self.create(Task { service: None, spec: Arc::new(spec), ..task });
    }

    /// What the scheduler, an orchestrator or a worker does with a task; one that has no addresses only ends.
    fn move_task(&mut self, which: usize, to: TaskState, node: u128) {
        let tasks: Vec<&Arc<Task>> = self.store.tasks().collect();
        let Some(task) = tasks.get(which % tasks.len().max(1)) else { return };
        let mut task = Task::clone(task);
        let state = task.status.state;
        if state.is_terminal() || state >= to || (task.status.state == TaskState::New && !to.is_terminal()) {
            return;
        }
        task.status.state = to;
        task.node = task.node.or(Some(NodeId::of(id(node))));
        self.commit(&[StoreAction::Update(task.into())]);
    }

    fn remove_ended(&mut self, which: usize) {
        let ended: Vec<TaskId> =
            self.store.tasks().filter(|task| task.status.state.is_terminal()).map(|task| task.id).collect();
        if let Some(task) = ended.get(which % ended.len().max(1)) {
            self.remove(*task);
        }
    }

    fn set_node(&mut self, number: u128, state: NodeState) {
        let number = id(number);
        self.create(fixture::node(number));
        let mut node = Node::clone(self.store.node(NodeId::of(number)).unwrap());
        node.status.state = state;
        self.commit(&[StoreAction::Update(node.into())]);
    }

    /// Lets the allocator work until it wants nothing, each of its actions committed alone.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..6 {
            let wanted = self.wanted();
            prop_assert_eq!(wanted.wake_at, None);
            if wanted.actions.is_empty() {
                return Ok(());
            }
            let objects: BTreeSet<ObjectId> = wanted.actions.iter().map(object_of).collect();
            prop_assert_eq!(objects.len(), wanted.actions.len(), "no object is written twice");
            for action in wanted.actions {
                self.commit(&[action]);
                nobody_shares_an_address(&self.store)?;
                no_subnet_overlaps(&self.store)?;
                no_task_has_lost_its_network(&self.store)?;
            }
        }
        prop_assert!(false, "the allocator still wants {:?}", self.wanted().actions);
        Ok(())
    }

    fn wanted(&self) -> Reconciled {
        reconcile(&View::new(&self.store, &Observed::default()), Timestamp(7))
    }
}

fn object_of(action: &StoreAction) -> ObjectId {
    match action {
        StoreAction::Create(object) | StoreAction::Update(object) => object.id(),
        StoreAction::Remove(id) => *id,
    }
}

fn joining(network: u128) -> NetworkAttachmentConfig {
    NetworkAttachmentConfig {
        target: NetworkId::of(id(network)),
        aliases: Vec::new(),
        addresses: Vec::new(),
        driver_options: BTreeMap::new(),
    }
}

fn service(number: u128, shape: &ServiceShape) -> Service {
    let mut service = fixture::replicated(id(number), 1);
    let networks = shape.networks.iter().map(|network| joining(*network)).collect();
    service.spec.task = Arc::new(TaskSpec { networks, ..TaskSpec::default() });
    let ports = shape.published.iter().zip(80..).map(|(published_port, target_port)| PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port,
        published_port: *published_port,
        publish_mode: shape.publish_mode,
    });
    service.spec.endpoint = Some(EndpointSpec { mode: shape.mode, ports: ports.collect() });
    service
}

fn run(steps: &[Step]) -> Result<Walk, TestCaseError> {
    let mut walk = Walk::new();
    walk.settle()?;
    for step in steps {
        walk.take(step);
        walk.settle()?;
        no_port_is_published_twice(&walk.store)?;
        whoever_waits_says_why(&walk.store)?;
        nodes_are_where_their_tasks_are(&walk.store)?;
    }
    Ok(walk)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nobody_gets_what_another_one_holds(steps in prop::collection::vec(step(), 1..60)) {
        let mut walk = run(&steps)?;
        prop_assert_eq!(&run(&steps)?.store, &walk.store, "the same history");
        everything_ends(&mut walk)?;
    }

    /// Much at once is as safe as one after the other.
    #[test]
    fn a_pass_over_many_changes_gives_nothing_twice(steps in prop::collection::vec(step(), 1..60)) {
        let mut walk = Walk::new();
        steps.iter().for_each(|step| walk.take(step));
        walk.settle()?;
        no_port_is_published_twice(&walk.store)?;
        whoever_waits_says_why(&walk.store)?;
        nodes_are_where_their_tasks_are(&walk.store)?;
        everything_ends(&mut walk)?;
    }
}

/// Nothing is left of anything once all users are gone, and the first subnet is free again.
fn everything_ends(walk: &mut Walk) -> Result<(), TestCaseError> {
    let tasks: Vec<Arc<Task>> = walk.store.tasks().cloned().collect();
    for mut task in tasks {
        if !task.status.state.is_terminal() {
            Arc::make_mut(&mut task).status.state = TaskState::Failed;
            walk.commit(&[StoreAction::Update(Object::Task(task))]);
        }
    }
    walk.settle()?;
    let services: Vec<ServiceId> = walk.store.services().map(|service| service.id).collect();
    services.into_iter().for_each(|service| walk.remove(service));
    (1..6).for_each(|number| walk.delete_network(number));
    walk.settle()?;
    prop_assert_eq!(walk.store.networks().count(), 0);
    prop_assert_eq!(walk.store.nodes().map(|node| node.attachments.len()).sum::<usize>(), 0);
    prop_assert!(holders(&walk.store).is_empty());
    walk.create_network(1, None, false);
    walk.settle()?;
    let first = walk.store.network(NetworkId::of(id(1))).unwrap().allocation.clone().unwrap();
    prop_assert_eq!(first.pools[0].subnet, Some("10.0.0.0/29".parse().unwrap()));
    Ok(())
}

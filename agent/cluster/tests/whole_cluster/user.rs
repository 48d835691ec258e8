//! What can happen, and what users ask for. Their requests go through `control`, which may refuse them.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::control::{self, RegistryAuth, Rollback, ServiceUpdate};
use ketch_cluster::id::ServiceId;
use ketch_cluster::objects::container::{FileTarget, SecretReference};
use ketch_cluster::objects::endpoint::{Protocol, PublishMode};
use ketch_cluster::objects::node::Availability;
use ketch_cluster::objects::resources::ResourceRequirements;
use ketch_cluster::objects::service::{FailureAction, UpdateOrder};
use ketch_cluster::objects::task::{NetworkAttachmentConfig, Placement, RestartPolicy, TaskRuntime};
use ketch_cluster::objects::{
    ContainerSpec, EndpointSpec, NetworkSpec, PortConfig, Resources, SecretSpec, ServiceMode, ServiceSpec,
    TaskSpec, UpdateConfig,
};
use ketch_cluster::store::{ObjectId, ObjectKind, StoreAction};
use proptest::prelude::*;

use crate::manager::Manager;

pub(crate) const GOOD: &str = "good";
/// A third of its tasks can't be prepared or started, and those that run end.
pub(crate) const FLAKY: &str = "flaky";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Replicated, Self::Global, Self::ReplicatedJob, Self::GlobalJob];
}

/// A service that is to be created.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) replicas: u64,
    pub(crate) image: &'static str,
    pub(crate) starts_first: bool,
    pub(crate) parallelism: u64,
    pub(crate) on_failure: FailureAction,
    pub(crate) max_attempts: u64,
    pub(crate) restart_delay: u64,
    pub(crate) in_zone: bool,
    pub(crate) published: Option<u16>,
    pub(crate) fenced: bool,
    /// Whether it waits for the service of the index before, if that is more than none.
    pub(crate) waits: bool,
    pub(crate) priority: Option<i32>,
    pub(crate) rebalanced: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            kind: Kind::Replicated,
            replicas: 3,
            image: GOOD,
            starts_first: false,
            parallelism: 1,
            on_failure: FailureAction::Pause,
            max_attempts: 0,
            restart_delay: 1,
            in_zone: false,
            published: Some(0),
            fenced: false,
            waits: false,
            priority: None,
            rebalanced: false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Create {
        index: usize,
        order: Order,
    },
    Image(usize, &'static str),
    Force(usize),
    Scale(usize, u64),
    Zone(usize, bool),
    Publish(usize, Option<u16>),
    RollBack(usize),
    Remove(usize),
    CreateNetwork(usize),
    RemoveNetwork(usize),
    CreateSecret(usize),
    RemoveSecret(usize),
    Availability(usize, Availability),
    Label(usize, &'static str),
    Join,
    Leave(usize),
    RemoveNode(usize),
    /// A node hears nothing for so many seconds; its tasks go on.
    Silence(usize, u64),
    /// A node is gone for so many seconds with all that ran there.
    Crash(usize, u64),
    FailTask(usize, usize),
    /// After so many more transactions.
    LeaderDies(u64),
    History(i64),
    Pass(u64),
}

pub(crate) fn order() -> impl Strategy<Value = Order> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let image = prop_oneof![2 => Just(GOOD), 1 => Just(FLAKY)];
    let on_failure =
        prop_oneof![Just(FailureAction::Pause), Just(FailureAction::Continue), Just(FailureAction::Rollback)];
    let published = published();
    let what = (kind, 0..5_u64, image, any::<bool>(), 0..3_u64, on_failure);
    let how = (
        prop_oneof![3 => Just(0), 1 => Just(2_u64)],
        0..4_u64,
        any::<bool>(),
        published,
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.3),
        prop_oneof![2 => Just(None), 1 => Just(Some(-1)), 1 => Just(Some(5))],
        prop::bool::weighted(0.4),
    );
    (what, how).prop_map(|(what, how)| {
        let (kind, replicas, image, starts_first, parallelism, on_failure) = what;
        let (max_attempts, restart_delay, in_zone, published, fenced, waits, priority, rebalanced) = how;
        Order {
            kind,
            replicas,
            image,
            starts_first,
            parallelism,
            on_failure,
            max_attempts,
            restart_delay,
            in_zone,
            published,
            fenced,
            waits,
            priority,
            rebalanced,
        }
    })
}

fn published() -> impl Strategy<Value = Option<u16>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(8080)), 1 => Just(Some(8081))]
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let (one, node) = (0..3_usize, 0..5_usize);
    let image = prop_oneof![2 => Just(GOOD), 1 => Just(FLAKY)];
    let availability =
        prop_oneof![Just(Availability::Active), Just(Availability::Pause), Just(Availability::Drain)];
    let services = prop_oneof![
        6 => (one.clone(), order()).prop_map(|(index, order)| Event::Create { index, order }),
        3 => (one.clone(), image).prop_map(|(index, image)| Event::Image(index, image)),
        1 => one.clone().prop_map(Event::Force),
        3 => (one.clone(), 0..6_u64).prop_map(|(index, to)| Event::Scale(index, to)),
        1 => (one.clone(), any::<bool>()).prop_map(|(index, zone)| Event::Zone(index, zone)),
        1 => (one.clone(), published()).prop_map(|(index, port)| Event::Publish(index, port)),
        2 => one.clone().prop_map(Event::RollBack),
        1 => one.clone().prop_map(Event::Remove),
    ];
    let others = prop_oneof![
        2 => one.clone().prop_map(Event::CreateNetwork),
        1 => one.clone().prop_map(Event::RemoveNetwork),
        1 => one.clone().prop_map(Event::CreateSecret),
        1 => one.prop_map(Event::RemoveSecret),
        1 => (-1..3_i64).prop_map(Event::History),
    ];
    let nodes = prop_oneof![
        3 => (node.clone(), availability).prop_map(|(node, to)| Event::Availability(node, to)),
        2 => (node.clone(), prop_oneof![Just("a"), Just("b")]).prop_map(|(node, zone)| Event::Label(node, zone)),
        1 => Just(Event::Join),
        1 => node.clone().prop_map(Event::Leave),
        1 => node.clone().prop_map(Event::RemoveNode),
        3 => (node.clone(), 1..40_u64).prop_map(|(node, seconds)| Event::Silence(node, seconds)),
        2 => (node.clone(), 1..40_u64).prop_map(|(node, seconds)| Event::Crash(node, seconds)),
        2 => (node, 0..5_usize).prop_map(|(node, index)| Event::FailTask(node, index)),
    ];
    prop_oneof![
        6 => services,
        3 => others,
        5 => nodes,
        1 => (0..12_u64).prop_map(Event::LeaderDies),
        5 => (0..3000_u64).prop_map(Event::Pass),
        3 => (3000..30_000_u64).prop_map(Event::Pass),
    ]
}

/// The request of an event about services, networks and secrets, as a transaction; none when it is refused, or no request.
pub(crate) fn request(manager: &mut Manager, event: &Event) -> Option<Vec<StoreAction>> {
    let now = manager.now;
    let mut bits = [manager.random.bits()].into_iter().cycle();
    let bits = &mut || bits.next().unwrap();
    let view = manager.view();
    match event {
        Event::Create { index, order } => {
            let spec = spec(manager, *index, order);
            control::create_service(&view, spec, now, bits).ok().map(|(_, actions)| actions)
        }
        Event::Image(index, image) => update(manager, *index, |spec| set_image(spec, image)),
        Event::Force(index) => {
            update(manager, *index, |spec| Arc::make_mut(&mut spec.task).force_update += 1)
        }
        Event::Scale(index, to) => update(manager, *index, |spec| spec.mode = scaled(spec.mode, *to)),
        Event::Zone(index, in_zone) => update(manager, *index, |spec| {
            Arc::make_mut(&mut spec.task).placement.constraints = constraints(*in_zone);
        }),
        Event::Publish(index, port) => update(manager, *index, |spec| spec.endpoint = endpoint(*port)),
        Event::RollBack(index) => {
            let id = service(manager, *index)?;
            let old = view.service(id)?;
            let rollback = Rollback::Previous;
            let registry_auth = RegistryAuth::Spec;
            let update =
                ServiceUpdate { version: old.meta.version, spec: old.spec.clone(), rollback, registry_auth };
            control::update_service(&view, id, update, now).ok()
        }
        Event::Remove(index) => control::remove_service(&view, service(manager, *index)?).ok(),
        Event::CreateNetwork(index) => {
            let spec = NetworkSpec { name: format!("network-{index}"), ..NetworkSpec::default() };
            control::create_network(&view, spec, now, bits).ok().map(|(_, actions)| actions)
        }
        Event::RemoveNetwork(index) => {
            let name = format!("network-{index}");
            let Some(ObjectId::Network(id)) = view.by_name(ObjectKind::Network, &name) else { return None };
            control::remove_network(&view, id, now).ok()
        }
        Event::CreateSecret(index) => {
            let (name, data) = (format!("secret-{index}"), b"data".to_vec());
            let spec = SecretSpec { name, data, ..SecretSpec::default() };
            control::create_secret(&view, spec, now, bits).ok().map(|(_, actions)| actions)
        }
        Event::RemoveSecret(index) => {
            let name = format!("secret-{index}");
            let Some(ObjectId::Secret(id)) = view.by_name(ObjectKind::Secret, &name) else { return None };
            control::remove_secret(&view, id, now).ok()
        }
        _ => None,
    }
}

fn service(manager: &Manager, index: usize) -> Option<ServiceId> {
    match manager.store.by_name(ObjectKind::Service, &format!("service-{index}")) {
        Some(ObjectId::Service(id)) => Some(id),
        _ => None,
    }
}

/// Whether the service of the next index waits for the one of this.
pub(crate) fn is_waited_for(manager: &Manager, index: usize) -> bool {
    let next = service(manager, index + 1).and_then(|id| manager.store.service(id));
    next.is_some_and(|next| next.spec.labels.contains_key("ketch.depends_on"))
}

/// `docker service update`.
pub(crate) fn update(
    manager: &Manager,
    index: usize,
    change: impl FnOnce(&mut ServiceSpec),
) -> Option<Vec<StoreAction>> {
    let id = service(manager, index)?;
    let old = manager.store.service(id)?;
    let mut spec = old.spec.clone();
    change(&mut spec);
    let (rollback, registry_auth) = (Rollback::None, RegistryAuth::Spec);
    let update = ServiceUpdate { version: old.meta.version, spec, rollback, registry_auth };
    control::update_service(&manager.view(), id, update, manager.now).ok()
}

pub(crate) fn set_image(spec: &mut ServiceSpec, image: &str) {
    if let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime {
        image.clone_into(&mut container.image);
    }
}

fn scaled(mode: ServiceMode, to: u64) -> ServiceMode {
    match mode {
        ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas: to },
        ServiceMode::ReplicatedJob { max_concurrent, .. } => {
            ServiceMode::ReplicatedJob { max_concurrent, total_completions: to }
        }
        mode => mode,
    }
}

fn constraints(in_zone: bool) -> Vec<String> {
    if in_zone { vec!["node.labels.zone==a".to_owned()] } else { Vec::new() }
}

fn endpoint(published: Option<u16>) -> Option<EndpointSpec> {
    let port = |published_port| PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port,
        publish_mode: PublishMode::Ingress,
    };
    published.map(|published| EndpointSpec { ports: vec![port(published)], ..EndpointSpec::default() })
}

/// On all networks and with all secrets that there are.
fn spec(manager: &Manager, index: usize, order: &Order) -> ServiceSpec {
    let mode = match order.kind {
        Kind::Replicated => ServiceMode::Replicated { replicas: order.replicas },
        Kind::Global => ServiceMode::Global,
        Kind::ReplicatedJob => ServiceMode::ReplicatedJob {
            max_concurrent: order.parallelism + 1,
            total_completions: order.replicas,
        },
        Kind::GlobalJob => ServiceMode::GlobalJob,
    };
    let config = UpdateConfig {
        parallelism: order.parallelism,
        failure_action: order.on_failure,
        monitor: Duration::from_secs(3),
        order: if order.starts_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
        ..UpdateConfig::default()
    };
    // A rollback that fails is paused, whatever its action.
    let rollback = UpdateConfig { failure_action: FailureAction::Continue, ..config };
    let is_job = mode.is_job();
    let fence = order.fenced.then(|| ("ketch.fence".to_owned(), "20s".to_owned()));
    let before = index.checked_sub(1).filter(|_| order.waits);
    let waits = before.map(|index| ("ketch.depends_on".to_owned(), format!("service-{index}:healthy")));
    let rank = order.priority.map(|it| ("ketch.priority".to_owned(), it.to_string()));
    let moves = order.rebalanced && order.kind == Kind::Replicated;
    let moves = moves.then(|| ("ketch.rebalance".to_owned(), "true".to_owned()));
    ServiceSpec {
        name: format!("service-{index}"),
        labels: fence.into_iter().chain(waits).chain(rank).chain(moves).collect(),
        task: task(manager, order).into(),
        mode,
        update: (!is_job).then_some(config),
        rollback: (!is_job).then_some(rollback),
        endpoint: endpoint(order.published),
    }
}

fn task(manager: &Manager, order: &Order) -> TaskSpec {
    let secrets = manager.store.secrets().map(|secret| SecretReference {
        secret: secret.id,
        name: secret.spec.name.clone(),
        file: FileTarget { name: secret.spec.name.clone(), ..FileTarget::default() },
    });
    let container = ContainerSpec {
        image: order.image.to_owned(),
        secrets: secrets.collect(),
        ..ContainerSpec::default()
    };
    let networks =
        manager.store.networks().filter(|it| !it.spec.ingress && !it.pending_delete).map(|network| {
            NetworkAttachmentConfig {
                target: network.id,
                aliases: Vec::new(),
                addresses: Vec::new(),
                driver_options: std::collections::BTreeMap::new(),
            }
        });
    TaskSpec {
        runtime: TaskRuntime::Container(Box::new(container)),
        resources: ResourceRequirements {
            reservations: Resources { nano_cpus: 400_000_000, ..Resources::default() },
            ..ResourceRequirements::default()
        },
        restart: Some(RestartPolicy {
            delay: Duration::from_secs(order.restart_delay),
            max_attempts: order.max_attempts,
            ..RestartPolicy::default()
        }),
        placement: Placement { constraints: constraints(order.in_zone), ..Placement::default() },
        networks: networks.collect(),
        ..TaskSpec::default()
    }
}

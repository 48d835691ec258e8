//! The objects that users ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::{ConfigId, NetworkId, SecretId};
use ketch_cluster::label::{priority, rebalance};
use ketch_cluster::objects::config::ConfigSpec;
use ketch_cluster::objects::container::{ConfigReference, ConfigTarget, FileTarget, SecretReference};
use ketch_cluster::objects::node::Availability;
use ketch_cluster::objects::resources::ResourceRequirements;
use ketch_cluster::objects::service::{FailureAction, UpdateOrder};
use ketch_cluster::objects::task::{NetworkAttachmentConfig, RestartCondition, RestartPolicy, TaskRuntime};
use ketch_cluster::objects::{
    ContainerSpec, Node, SecretSpec, SecretText, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use ketch_cluster::orchestrator::fence;
use ketch_cluster::store::{ObjectId, ObjectKind};
use ketch_cluster::view::View;
use ketch_node::executor::Work;

use crate::labels::Extras;
use crate::layers;
use crate::loads;
use crate::model::{Model, Replicas};
use crate::reach::Reach;

const FENCE: &str = "8s";
pub(crate) const CONFIG: &str = "settings";
const SETTING: &str = "verbosity ";

pub(crate) fn takes_tasks(node: &Node) -> bool {
    node.spec.availability == Availability::Active
}
/// Where room is scarce: of the eight CPUs of a node. All services have room on four nodes, and not on two.
const RESERVED: u64 = 500_000_000;

/// A service that is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation {
    pub(crate) number: u64,
    pub(crate) mode: ServiceMode,
    pub(crate) fence: Fence,
    pub(crate) order: UpdateOrder,
    pub(crate) replicas: Replicas,
    pub(crate) files: Files,
    pub(crate) extras: Extras,
    pub(crate) reach: Reach,
    pub(crate) image: Image,
    /// Where room is scarce.
    pub(crate) room: Option<Ranked>,
}

/// How a service ranks where room is scarce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) priority: Option<i32>,
    pub(crate) rebalanced: bool,
}

/// How a service names its image: nodes share those that have a digest, each for the same credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    Named,
    ByDigest(Option<&'static str>),
}

/// Whether a service has the label `ketch.fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    None,
    Some,
}

/// Whether its tasks use the secret and the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    None,
    Some,
}

/// What there is for a service to join and use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    network: Option<NetworkId>,
    secret: Option<SecretId>,
    config: Option<ConfigId>,
}

impl Surroundings {
    /// The config that has the name now: users may have given it other data.
    pub(crate) fn of(model: &Model, view: &View<'_>) -> Self {
        let config = match view.by_name(ObjectKind::Config, CONFIG) {
            Some(ObjectId::Config(config)) => Some(config),
            _ => model.config,
        };
        Self { network: model.network, secret: model.secret, config }
    }
}

pub(crate) fn spec(creation: Creation, surroundings: &Surroundings) -> ServiceSpec {
    // Containers crash here for no reason of the update.
    let failure_action = FailureAction::Continue;
    let update =
        UpdateConfig { parallelism: 2, failure_action, order: creation.order, ..UpdateConfig::default() };
    let mut labels = BTreeMap::new();
    if creation.fence == Fence::Some {
        labels.insert(fence::LABEL.to_owned(), FENCE.to_owned());
    }
    creation.extras.write(&mut labels);
    creation.reach.write(&mut labels);
    if let Some(room) = creation.room {
        labels.extend(room.priority.map(|it| (priority::LABEL.to_owned(), it.to_string())));
        labels.extend(room.rebalanced.then(|| (rebalance::LABEL.to_owned(), "true".to_owned())));
    }
    if creation.replicas == Replicas::Loads {
        labels.extend(loads::labels(creation.number));
    }
    let is_job = creation.mode.is_job();
    ServiceSpec {
        name: name_of(creation.number),
        labels,
        task: Arc::new(task(creation, surroundings)),
        mode: creation.mode,
        update: (!is_job).then_some(update),
        rollback: (!is_job).then_some(update),
        endpoint: creation.reach.endpoint(),
    }
}

/// The name of the service of that number.
pub(crate) fn name_of(number: u64) -> String {
    format!("service-{number}")
}

fn image_of(number: u64) -> String {
    format!("busybox:{number}")
}

/// The image of that number, by its digest where the one before is.
pub(crate) fn next_image(before: &str, number: u64) -> String {
    if before.contains('@') { layers::image_of(number) } else { image_of(number) }
}

pub(crate) fn set_image(spec: &mut ServiceSpec, number: u64) {
    if let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime {
        container.image = next_image(&container.image, number);
    }
}

fn task(creation: Creation, surroundings: &Surroundings) -> TaskSpec {
    let mut container = ContainerSpec { image: image_of(0), ..ContainerSpec::default() };
    if let Image::ByDigest(auth) = creation.image {
        container.image = layers::image_of(0);
        container.registry_auth = auth.map(SecretText::from);
    }
    if creation.files == Files::Some {
        container.secrets = surroundings.secret.map(secret_named).into_iter().collect();
        container.configs = surroundings.config.map(config_named).into_iter().collect();
    }
    let joined = surroundings.network.map(|target| NetworkAttachmentConfig {
        target,
        aliases: Vec::new(),
        addresses: Vec::new(),
        driver_options: BTreeMap::new(),
    });
    let restart = creation.mode.is_job().then(|| RestartPolicy {
        condition: RestartCondition::OnFailure,
        delay: Duration::from_secs(1),
        ..RestartPolicy::default()
    });
    let mut resources = ResourceRequirements::default();
    if creation.room.is_some() {
        resources.reservations.nano_cpus = RESERVED;
    }
    if creation.replicas == Replicas::Loads {
        // What their memory is measured by.
        resources.limits.memory_bytes = loads::MEMORY;
    }
    TaskSpec {
        resources,
        runtime: TaskRuntime::Container(Box::new(container)),
        networks: joined.into_iter().collect(),
        restart,
        ..TaskSpec::default()
    }
}

/// The secret of all services that use one.
pub(crate) fn secret() -> SecretSpec {
    SecretSpec { name: "key".to_owned(), data: b"nobody may read this".to_vec(), ..SecretSpec::default() }
}

/// The config of all services that use one. Its data counts up.
pub(crate) fn config(number: u64) -> ConfigSpec {
    let data = format!("{SETTING}{number}").into_bytes();
    ConfigSpec { name: CONFIG.to_owned(), data, ..ConfigSpec::default() }
}

fn file(name: &str) -> FileTarget {
    FileTarget { name: name.to_owned(), uid: "0".to_owned(), gid: "0".to_owned(), mode: 0o444 }
}

fn secret_named(secret: SecretId) -> SecretReference {
    SecretReference { secret, name: "key".to_owned(), file: file("key") }
}

fn config_named(config: ConfigId) -> ConfigReference {
    let target = ConfigTarget::File(file("/settings"));
    ConfigReference { config, name: CONFIG.to_owned(), target }
}

/// Whether a task was given what its spec names, and nothing else.
pub(crate) fn are_its_own(work: &Work) -> bool {
    let container = work.task.spec.container();
    let secrets = container.into_iter().flat_map(|it| &it.secrets).map(|it| it.secret);
    let configs = container.into_iter().flat_map(|it| &it.configs).map(|it| it.config);
    let is_whole = work.secrets.iter().all(|it| it.spec.data == secret().data)
        && work.configs.iter().all(|it| it.spec.data.starts_with(SETTING.as_bytes()));
    is_whole
        && secrets.collect::<BTreeSet<_>>() == work.secrets.iter().map(|it| it.id).collect()
        && configs.collect::<BTreeSet<_>>() == work.configs.iter().map(|it| it.id).collect()
}

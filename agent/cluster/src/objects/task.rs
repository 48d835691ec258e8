//! Tasks: one run of a container on one node. A task is never restarted; what replaces it is a new one in its slot.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::displacement::{Displacement, Promise};
use super::node::Platform;
use super::resources::ResourceRequirements;
use super::{
    ContainerSpec, Decision, Driver, Endpoint, GenericResource, Given, Labels, Meta, NetworkAttachment,
    PortConfig, Version,
};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    /// What was asked for when it was made; never changed. Not written where it is the plain one.
    #[serde(default = "TaskSpec::plain", skip_serializing_if = "TaskSpec::is_plain")]
    pub spec: Arc<TaskSpec>,
    /// The service's spec version that it was made of.
    pub spec_version: Version,
    /// None for a plain container's attachment to an overlay.
    pub service: Option<ServiceId>,
    /// The place in the service that it fills: from 1 for replicated ones, from 0 for jobs, 0 for global ones.
    pub slot: u64,
    /// Where it runs; for a global service from its birth, otherwise once the scheduler has chosen. Never changed after.
    pub node: Option<NodeId>,
    pub name: Arc<str>,
    pub labels: Labels,
    pub service_name: Arc<str>,
    pub service_labels: Labels,
    /// As committed: a manager's states up to assigned, then only an end. [`View`](crate::view::View) joins it with
    /// what the worker has told the leader since.
    pub status: TaskStatus,
    /// What managers want of it: ready (pulled and created, but held), running, complete (of a job), shutdown or remove.
    pub desired_state: TaskState,
    /// Whether managers asked it to stop before they knew that it had ended: then its end says nothing of it, not even when its
    /// container ended with 0, and no restart policy judges it.
    #[serde(default)]
    pub stop: Stop,
    /// When its restart delay ends: until then its desired state stays at ready. Only a task that was made since another
    /// one had ended by itself has it: these are the attempts that a restart policy counts.
    #[serde(default)]
    pub start_after: Option<Timestamp>,
    /// The task whose slot it took; none of the first in a slot. While it is held at ready, that one must stop first; after
    /// a minute of waiting it is started all the same.
    #[serde(default)]
    pub replaces: Option<TaskId>,
    /// Why managers asked it to leave a node where it could have stayed: the reason of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displaced: Option<Box<Displacement>>,
    /// While it waits for a node: which one it is to have before others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Box<Promise>>,
    /// Whether it waits for other services before it may have addresses and a node.
    #[serde(default)]
    pub gate: Gate,
    pub networks: Vec<NetworkAttachment>,
    /// The service's endpoint as it was allocated when the task was; of its virtual addresses those on the task's networks.
    pub endpoint: Option<Endpoint>,
    pub log_driver: Option<Driver>,
    /// What the scheduler has given it of the node's.
    #[serde(default)]
    pub generic_resources: Vec<GenericResource>,
    /// Of a job's task.
    #[serde(default)]
    pub job_iteration: Option<u64>,
    /// Why it was made and why it is where it is, for `ketchd cluster explain`; no decision is made of it.
    #[serde(default, skip_serializing_if = "Decision::is_unknown")]
    pub decision: Decision,
}

impl Task {
    /// A new one that is nobody's, wanted running, with nothing but what it runs: whoever makes it says the rest.
    #[must_use]
    pub fn new(id: TaskId, spec: Arc<TaskSpec>) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec,
            spec_version: Version::default(),
            service: None,
            slot: 0,
            node: None,
            name: Arc::default(),
            labels: Labels::new(),
            service_name: Arc::default(),
            service_labels: Labels::new(),
            status: TaskStatus::default(),
            desired_state: TaskState::Running,
            stop: Stop::default(),
            start_after: None,
            replaces: None,
            displaced: None,
            promised: None,
            gate: Gate::default(),
            networks: Vec::new(),
            endpoint: None,
            log_driver: None,
            generic_resources: Vec::new(),
            job_iteration: None,
            decision: Decision::default(),
        }
    }

    /// Its container's: service, slot or node, task, as Docker's. It ends with the task's id, so nothing else has it.
    #[must_use]
    pub fn container_name(&self) -> String {
        let slot = match self.slot {
            0 => self.node.map(|node| node.to_string()).unwrap_or_default(),
            slot => slot.to_string(),
        };
        format!("{}.{slot}.{}", self.service_name, self.id)
    }

    /// The task that such a name is of, if it is one.
    #[must_use]
    pub fn of_container_name(name: &str) -> Option<TaskId> {
        let (before, task) = name.rsplit_once('.')?;
        before.contains('.').then(|| task.parse().ok())?
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// It was not asked to stop, or had ended before.
    #[default]
    NotAsked,
    Asked,
}

/// Of the label `ketch.depends_on`. Once open, it stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    #[default]
    Open,
    /// It stays new, and says in its status what for.
    Closed,
}

static PLAIN: LazyLock<Arc<TaskSpec>> = LazyLock::new(Arc::default);

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskSpec {
    pub runtime: TaskRuntime,
    pub resources: ResourceRequirements,
    /// Docker's defaults when there is none.
    pub restart: Option<RestartPolicy>,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachmentConfig>,
    /// The cluster's default, then the node's, when there is none.
    pub log_driver: Option<Driver>,
    /// Counted up by `--force`: a task that differs in nothing else is replaced.
    pub force_update: u64,
    /// What says nothing, and was given all the same.
    pub given: BTreeSet<Given>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskRuntime {
    Container(Box<ContainerSpec>),
    /// A plain container of the node that joins an attachable overlay, by the id of that container.
    Attachment {
        container: String,
    },
}

impl Default for TaskRuntime {
    fn default() -> Self {
        Self::Container(Box::default())
    }
}

impl TaskSpec {
    /// The one that asks for nothing: always the same.
    #[must_use]
    pub fn plain() -> Arc<Self> {
        Arc::clone(&PLAIN)
    }

    fn is_plain(spec: &Arc<Self>) -> bool {
        *spec == *PLAIN
    }

    /// What is to run; none for an attachment.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerSpec> {
        match &self.runtime {
            TaskRuntime::Container(container) => Some(container),
            TaskRuntime::Attachment { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// Within the window; 0 is without bound.
    pub max_attempts: u64,
    /// 0 is all time.
    pub window: Duration,
}

impl Default for RestartPolicy {
    /// Docker's.
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    None,
    OnFailure,
    #[default]
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// `node.labels.zone == a`, as the user wrote them.
    pub constraints: Vec<String>,
    /// Descriptors to spread over, the outermost first: `node.labels.zone`.
    pub spread: Vec<String>,
    /// 0 is without bound.
    pub max_replicas_per_node: u64,
    /// What the image runs on; empty is anything.
    pub platforms: Vec<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachmentConfig {
    pub target: NetworkId,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Wanted addresses: of an attachment only.
    #[serde(default)]
    pub addresses: Vec<std::net::IpAddr>,
    #[serde(default)]
    pub driver_options: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When it entered that state, by the clock of the leader that was told: a worker tells ages, see [`view`](crate::view).
    pub since: Timestamp,
    /// When it came to run (healthy, if it has a health check), by the same clock; kept after its end.
    pub running_since: Option<Timestamp>,
    pub message: Arc<str>,
    pub error: Arc<str>,
    pub container: Option<ContainerStatus>,
    /// Ports of publish mode host, with what the node chose for those that were 0.
    pub ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    pub id: String,
    pub pid: u32,
    pub exit_code: i32,
}

/// Where a task is; it only moves forward. The numbers are those of SwarmKit's, with room between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    #[default]
    New = 0,
    /// It has its addresses, and waits for a node.
    Pending = 64,
    /// It has a node.
    Assigned = 192,
    /// The worker has it.
    Accepted = 256,
    /// Its image is pulled, its container made.
    Preparing = 320,
    /// Nothing is left to do but to start it.
    Ready = 384,
    /// Started, but not yet healthy.
    Starting = 448,
    Running = 512,
    /// Ended with exit code 0.
    Complete = 576,
    /// Ended because it was asked to.
    Shutdown = 640,
    /// Ended by itself otherwise, after it was started.
    Failed = 704,
    /// Could not be started here.
    Rejected = 768,
    /// Of desired states only: shut it down, then forget it.
    Remove = 800,
    /// Its node has been down for so long that nobody will ever say how it ended.
    Orphaned = 832,
}

impl TaskState {
    /// Whether it has ended: its container does not run, and never will again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

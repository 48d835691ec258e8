//! Services: how many of which task, how they are updated, how they are reached.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Endpoint, EndpointSpec, Labels, Meta, TaskSpec, Version};
use crate::id::ServiceId;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// The version at which `spec` was last written. A task of an older one is compared with `spec` to see whether it must
    /// be replaced.
    pub spec_version: Version,
    /// What `--rollback` goes back to.
    pub previous_spec: Option<ServiceSpec>,
    pub previous_spec_version: Option<Version>,
    pub endpoint: Endpoint,
    pub update_status: Option<UpdateStatus>,
    /// Of a job.
    pub job: Option<JobStatus>,
    /// When its replicas were last made more or fewer, by a user or by its load (`ketch.scale.*`): none while they are as it was made
    /// with. There are not fewer before its window has passed since, whoever leads.
    #[serde(default)]
    pub replicas_changed_at: Option<Timestamp>,
}

impl Service {
    /// Notes that the spec has other replicas than this mode, if it has.
    pub(crate) fn note_replicas(&mut self, before: ServiceMode, now: Timestamp) {
        if matches!(self.spec.mode, ServiceMode::Replicated { .. }) && self.spec.mode != before {
            self.replicas_changed_at = Some(now);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    #[serde(default)]
    pub labels: Labels,
    /// Shared with the tasks that run it.
    pub task: Arc<TaskSpec>,
    pub mode: ServiceMode,
    /// Docker's defaults when there is none.
    pub update: Option<UpdateConfig>,
    pub rollback: Option<UpdateConfig>,
    pub endpoint: Option<EndpointSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// So many, in slots from 1.
    Replicated { replicas: u64 },
    /// One on each node that the constraints allow.
    Global,
    /// So many runs to the end, so many at once; slots from 0.
    ReplicatedJob { max_concurrent: u64, total_completions: u64 },
    /// One run to the end on each node.
    GlobalJob,
}

impl ServiceMode {
    /// Whether each node has a place of its own.
    #[must_use]
    pub fn is_bound_to_nodes(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// Whether its tasks are to end.
    #[must_use]
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob)
    }
}

/// How slots are replaced by new ones, forward or back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// Slots at once; 0 is all.
    pub parallelism: u64,
    /// Between one slot's end and the next one's start, for each of the parallel ones.
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// How long a new task is watched after it runs; zero is Docker's default, see [`monitored`](Self::monitored).
    pub monitor: Duration,
    /// 0 to 1: more failed slots than that part of all is a failed update.
    pub max_failure_ratio: f32,
    pub order: UpdateOrder,
}

impl Eq for UpdateConfig {}

impl Default for UpdateConfig {
    /// Docker's.
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: MONITORED,
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// Docker's.
const MONITORED: Duration = Duration::from_secs(5);

impl UpdateConfig {
    /// How long a new task is watched after it runs.
    #[must_use]
    pub fn monitored(&self) -> Duration {
        if self.monitor.is_zero() { MONITORED } else { self.monitor }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    /// Of an update only.
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

/// Where an update is. Its progress is derived from the tasks; this is what they don't tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub state: UpdateState,
    /// To be shown. What belongs to the update is told by the service's spec version: a moment is one leader's clock.
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub message: String,
    /// How many slots the update had to replace when it began: what the failure ratio is a part of.
    pub slots: u64,
    /// How many slots had failed with its spec version before it began: two updates share one when the user goes on with a
    /// paused update by asking for the same spec again. It does not count these.
    #[serde(default)]
    pub failed_before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Counts up with each update, and with each run of a schedule; a task of an older one is removed.
    pub iteration: u64,
    pub last_execution: Timestamp,
    /// With the label `ketch.schedule`.
    #[serde(default)]
    pub schedule: Option<ScheduleStatus>,
}

/// How far a job's schedule has been gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleStatus {
    /// All due times up to this moment have made a run or have passed: none of them makes one again. Written with the
    /// iteration that it makes.
    pub decided_until: Timestamp,
    /// Whether the present iteration is a run: a job that was made with a schedule has none before its first due time.
    pub ran: bool,
    /// The last due time that made no run, to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Passed>,
}

/// A due time that made no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub due: Timestamp,
    pub why: PassedBecause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedBecause {
    /// It was found late, and `ketch.schedule.missed` is `skip`.
    Missed,
    /// The run before goes on, and `ketch.schedule.overlap` is `forbid`.
    Overlaps,
}

impl PassedBecause {
    /// As events and `ketchd cluster explain` say it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Missed => "it was missed",
            Self::Overlaps => "the run before goes on",
        }
    }
}

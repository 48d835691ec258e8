//! Services: `/services`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::endpoint::{Endpoint, EndpointSpec};
use super::network::AttachmentConfig;
use super::task::TaskSpec;
use super::{Map, Meta, Moment, Version, is_blank, is_default};

/// A service as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// What `--rollback` goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    pub endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// Of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
}

/// The body of `POST /services/create` and of `POST /services/{id}/update`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Shown as `{}` when there are none.
    pub labels: Option<Map>,
    pub task_template: TaskSpec,
    pub mode: ServiceMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Of old clients, in the task's place.
    #[serde(skip_serializing_if = "is_blank")]
    pub networks: Option<Vec<AttachmentConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
}

/// One of them; none is one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceMode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Global>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Global>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Replicated {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

/// On every node; it has no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Global {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReplicatedJob {
    /// Missing: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// Missing: as many as at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
}

/// How slots are replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfig {
    /// 0: all.
    pub parallelism: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: i64,
    /// `pause`, `continue`, `rollback`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failure_action: String,
    /// Nanoseconds; 0: 5 s.
    #[serde(skip_serializing_if = "is_default")]
    pub monitor: i64,
    pub max_failure_ratio: Ratio,
    /// `stop-first`, `start-first`.
    pub order: String,
}

/// A part of a whole, written as Go writes it: `0`, `0.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratio(pub f32);

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The shortest text that is this number, as Go finds it; as 64 bits its own text would be longer.
        let shortest = self.0.to_string().parse::<f64>().unwrap_or_default();
        if self.0 == 0.0 {
            serializer.serialize_u64(0)
        } else if self.0 == 1.0 {
            serializer.serialize_u64(1)
        } else {
            serializer.serialize_f64(shortest)
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f32::deserialize(deserializer).map(Self)
    }
}

/// Where an update is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Moment>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A service's tasks in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceStatus {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
}

/// Where a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStatus {
    pub job_iteration: Version,
    pub last_execution: Moment,
}

/// The answer of `POST /services/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceCreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
    pub warnings: Option<Vec<String>>,
}

/// The answer of `POST /services/{id}/update`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceUpdateResponse {
    pub warnings: Option<Vec<String>>,
}

//! How many replicas a service should have by the load of its tasks: the labels `ketch.scale.*`.
//!
//! Every few seconds the leader looks at each service that has them ([`look`]) with what workers have measured of its tasks ([`Use`]),
//! and makes what comes out ([`scaled`]) of the store of that moment. What was seen within the service's window is its
//! [`History`], which is the leader's alone: a new leader has none, and makes fewer only once its own window has passed. What
//! must outlive a leader is in the service: when it was last given other replicas.
//! Called by ketch-node's dispatcher. It must not know who measures, and how.

mod history;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::id::{ServiceId, TaskId};
use crate::label::scale::{self, Scale};
use crate::objects::{Service, ServiceMode, TaskState};
use crate::orchestrator::update;
use crate::store::StoreAction;
use crate::time::Timestamp;
use crate::view::View;
pub use history::{History, Load, Scaled, Sum};

/// What a task uses, as its worker has measured it over the last seconds; none of what can't be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Use {
    /// Billionths of a CPU.
    pub cpu: Option<u64>,
    /// Bytes, without files that the kernel has read and can drop.
    pub memory: Option<u64>,
    /// Connections that were opened to it, in thousandths of one a second.
    pub requests: Option<u64>,
}

impl Use {
    /// No more than that, of each kind that is there.
    fn at_most(self, most: Self) -> Self {
        let least =
            |told: Option<u64>, most: Option<u64>| told.map(|it| most.map_or(it, |most| it.min(most)));
        Self {
            cpu: least(self.cpu, most.cpu),
            memory: least(self.memory, most.memory),
            requests: least(self.requests, most.requests),
        }
    }
}

/// What comes of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Keep { standing: Standing, reason: String },
    Scale { replicas: u64, reason: String },
}

/// Why replicas stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The load asks for no others, or has not done so for long enough.
    Fits,
    /// The load asks for more, and there are as many as there may be.
    AtMost,
    /// It can't be told what the load asks for, or nothing may be changed now.
    Held,
}

/// What a service's labels ask for; none when it is not scaled.
#[must_use]
pub fn scale_of(service: &Service) -> Option<Scale> {
    // What can't be read, `control` has refused.
    let scale = scale::parse(&service.spec.labels).ok().flatten();
    scale.filter(|_| matches!(service.spec.mode, ServiceMode::Replicated { .. }))
}

/// Looks at a service with these labels, and notes in its history what was seen. `use_of` says what is known of a task.
pub fn look(
    view: &View<'_>,
    (service, scale): (&Service, &Scale),
    use_of: impl Fn(TaskId) -> Option<Use>,
    history: &mut History,
    now: Timestamp,
) -> Decision {
    let ServiceMode::Replicated { replicas } = service.spec.mode else {
        return history.hold("it is not replicated", 0, (scale, now));
    };
    match obstacle(view, service, replicas) {
        Some(obstacle) => history.hold(obstacle, replicas, (scale, now)),
        None => {
            let seen = Scaled {
                scale,
                resources: &service.spec.task.resources,
                replicas,
                changed_at: service.replicas_changed_at,
            };
            let most = most_of_one(&seen);
            let use_of = |task| use_of(task).map(|used| used.at_most(most));
            history.decide(seen, &load(view, service, use_of), now)
        }
    }
}

/// The service with so many replicas instead of `from`; nothing when it is not as it was looked at any more. It is no update by the
/// user: what `docker service rollback` goes back to stays, and no task is outdated by it.
#[must_use]
pub fn scaled(view: &View<'_>, id: ServiceId, (from, to): (u64, u64), now: Timestamp) -> Vec<StoreAction> {
    let service = view.service(id).filter(|service| {
        let is_as_seen = service.spec.mode == ServiceMode::Replicated { replicas: from };
        is_as_seen
            && scale_of(service).is_some_and(|scale| (scale.min..=scale.max).contains(&to))
            && obstacle(view, service, from).is_none()
    });
    let scaled = service.map(|service| {
        let mut scaled = Service::clone(service);
        scaled.meta.updated_at = now;
        scaled.spec.mode = ServiceMode::Replicated { replicas: to };
        scaled.note_replicas(service.spec.mode, now);
        StoreAction::Update(scaled.into())
    });
    scaled.into_iter().collect()
}

/// Why nothing may be changed, whatever the load is.
fn obstacle(view: &View<'_>, service: &Service, replicas: u64) -> Option<&'static str> {
    if replicas == 0 {
        return Some("it was given 0 replicas, and is scaled again once it is given others");
    }
    update::is_under_way(view, service).then_some("an update or rollback of it has not come to its end")
}

/// What one task counts for at most: ten times what it should have. A node that lies about one task can't have the service at its
/// most for long.
fn most_of_one(service: &Scaled<'_>) -> Use {
    const TIMES: u64 = 10;
    let Scaled { scale, resources, .. } = service;
    let of = |percent: u64, whole: u64| (whole / 100).saturating_mul(percent).saturating_mul(TIMES);
    Use {
        cpu: scale.cpu.map(|percent| of(percent, scale::cpus_of(resources))),
        memory: scale.memory.map(|percent| of(percent, scale::memory_of(resources).unwrap_or(u64::MAX))),
        requests: scale.requests.map(|target| target.saturating_mul(1000 * TIMES)),
    }
}

/// What is known of the tasks that run.
fn load(view: &View<'_>, service: &Service, use_of: impl Fn(TaskId) -> Option<Use>) -> Load {
    let mut load = Load::default();
    let runs = |task: &&std::sync::Arc<crate::objects::Task>| {
        task.desired_state == TaskState::Running && view.state(task) == TaskState::Running
    };
    for task in view.tasks_of(service.id).filter(runs) {
        load.add(use_of(task.id).unwrap_or_default());
    }
    load
}

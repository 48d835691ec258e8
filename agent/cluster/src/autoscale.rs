//! How many replicas a service should have by the load of its tasks: the labels `ketch.scale.*`.
//!
//! Every few seconds the leader looks at each service that has them ([`see`]) with what workers have measured of its tasks ([`Use`]),
//! and makes what comes out ([`scaled_together`]) of the store of that moment. What was seen within the service's window is its
//! [`History`], which is the leader's alone: a new leader has none, and makes fewer only once its own window has passed. What
//! must outlive a leader is in the service: when it was last given other replicas.
//! Called by ketch-node's dispatcher. It must not know who measures, and how.

mod history;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::control::{MAX_TRANSACTION_BYTES, size_of};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::label::scale::{self, Scale};
use crate::objects::{Service, ServiceMode, TaskState};
use crate::orchestrator::update;
use crate::reconcilers::MOST_ACTIONS;
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

/// What is there of a service with such labels at one moment. It is taken out of the store, which waits for nothing of what is made of it.
#[derive(Debug, Clone)]
pub struct Sight {
    pub service: Arc<Service>,
    pub scale: Scale,
    pub replicas: u64,
    /// Whose use is to be measured, and by which node: of all that may run.
    pub measured: Vec<(NodeId, TaskId)>,
    running: Vec<TaskId>,
    obstacle: Option<&'static str>,
}

/// Looks at all tasks of the service, once; none when it is not scaled.
#[must_use]
pub fn see(view: &View<'_>, service: ServiceId) -> Option<Sight> {
    let service = view.service(service)?;
    let scale = scale_of(service)?;
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return None };
    let (mut measured, mut running, mut is_outdated) = (Vec::new(), Vec::new(), false);
    for task in view.tasks_of(service.id) {
        let state = view.state(task);
        if (TaskState::Assigned..=TaskState::Running).contains(&state) {
            measured.extend(task.node.map(|node| (node, task.id)));
        }
        if task.desired_state == TaskState::Running && state == TaskState::Running {
            running.push(task.id);
        }
        is_outdated = is_outdated || update::is_outdated(view, service, task);
    }
    let obstacle = obstacle(service, || is_outdated);
    Some(Sight { service: Arc::clone(service), scale, replicas, measured, running, obstacle })
}

impl Sight {
    /// What may be told without knowing its load.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { scale, replicas, .. } = self;
        let bounds = format!("its load asks for {} to {} replicas", scale.min, scale.max);
        match self.obstacle {
            Some(obstacle) => format!("{bounds}, but it keeps {replicas}: {obstacle}"),
            None => bounds,
        }
    }

    /// Says what follows, and notes in the service's history what was seen. `use_of` says what is known of a task.
    pub fn decide(
        &self,
        use_of: impl Fn(TaskId) -> Option<Use>,
        history: &mut History,
        now: Timestamp,
    ) -> Decision {
        let Self { service, scale, replicas, .. } = self;
        if let Some(obstacle) = self.obstacle {
            return history.hold(obstacle, *replicas, (scale, now));
        }
        let seen = Scaled {
            scale,
            resources: &service.spec.task.resources,
            replicas: *replicas,
            changed_at: service.replicas_changed_at,
        };
        let most = most_of_one(&seen);
        let mut load = Load::default();
        for task in &self.running {
            load.add(use_of(*task).unwrap_or_default().at_most(most));
        }
        history.decide(seen, &load, now)
    }
}

/// Other replicas for a service: instead of how many, and how many.
pub type Change = (ServiceId, (u64, u64));

/// What one transaction holds of many changes.
#[derive(Debug, Default)]
pub struct Together {
    pub actions: Vec<StoreAction>,
    /// The services that are given others by them.
    pub given: Vec<ServiceId>,
    /// So many of the changes, from the first one on, are done with.
    pub seen: usize,
}

/// As many of the changes as one transaction holds; at least one, if there is one. See [`scaled`].
#[must_use]
pub fn scaled_together(view: &View<'_>, changes: &[Change], now: Timestamp) -> Together {
    let mut it = Together::default();
    let mut bytes = 0_usize;
    for (service, change) in changes {
        let actions = scaled(view, *service, *change, now);
        bytes = bytes.saturating_add(actions.iter().filter_map(size_of).sum());
        let is_full = it.actions.len() == MOST_ACTIONS || bytes > MAX_TRANSACTION_BYTES;
        if is_full && !it.actions.is_empty() {
            break;
        }
        it.seen += 1;
        it.given.extend((!actions.is_empty()).then_some(*service));
        it.actions.extend(actions);
    }
    it
}

/// The service with so many replicas instead of `from`; nothing when it is not as it was looked at any more. It is no update by the
/// user: what `docker service rollback` goes back to stays, and no task is outdated by it.
#[must_use]
pub fn scaled(view: &View<'_>, id: ServiceId, (from, to): (u64, u64), now: Timestamp) -> Vec<StoreAction> {
    let service = view.service(id).filter(|service| {
        let is_as_seen = service.spec.mode == ServiceMode::Replicated { replicas: from };
        is_as_seen
            && scale_of(service).is_some_and(|scale| (scale.min..=scale.max).contains(&to))
            && obstacle(service, || update::has_outdated(view, service)).is_none()
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
fn obstacle(service: &Service, has_outdated: impl FnOnce() -> bool) -> Option<&'static str> {
    if service.spec.mode == (ServiceMode::Replicated { replicas: 0 }) {
        return Some("it was given 0 replicas, and is scaled again once it is given others");
    }
    let is_under_way = update::has_begun(service) || has_outdated();
    is_under_way.then_some("an update or rollback of it has not come to its end")
}

/// What one task counts for at most: ten times what it should have. A node that lies about one task can't have the service at its
/// most for long.
fn most_of_one(service: &Scaled<'_>) -> Use {
    const TIMES: u64 = 10;
    let Scaled { scale, resources, .. } = service;
    // Never nothing: what is reserved may be a few bytes.
    let of = |percent: u64, whole: u64| {
        let most = u128::from(whole) * u128::from(percent) * u128::from(TIMES) / 100;
        u64::try_from(most).unwrap_or(u64::MAX).max(1)
    };
    Use {
        cpu: scale.cpu.map(|percent| of(percent, scale::cpus_of(resources))),
        memory: scale.memory.map(|percent| of(percent, scale::memory_of(resources).unwrap_or(u64::MAX))),
        requests: scale.requests.map(|target| target.saturating_mul(1000 * TIMES)),
    }
}

//! ketch's own labels in the simulation: what users ask for by them, and what must hold of services that have one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::{ConfigId, ServiceId};
use ketch_cluster::label::depends_on::{self, Until};
use ketch_cluster::label::{roll_on_change, schedule};
use ketch_cluster::objects::task::Gate;
use ketch_cluster::objects::{Labels, Service, ServiceMode, Task, TaskState};
use ketch_cluster::store::{ObjectId, ObjectKind, Store};
use ketch_cluster::time::Timestamp;

use crate::cluster::Cluster;
use crate::random::Random;
use crate::wishes;

/// Not ketch's: of services whose containers have a health check.
const SLOW: &str = "slow";
const HEALTH: Duration = Duration::from_secs(6);

/// How long after its start a task's container is healthy. Jobs have no health check here.
pub(crate) fn healthy_after(task: &Task) -> Duration {
    let is_slow = task.service_labels.contains_key(SLOW) && task.job_iteration.is_none();
    if is_slow { HEALTH } else { Duration::ZERO }
}

/// What a new service asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras {
    /// Its first tasks wait for that service.
    waits_for: Option<u64>,
    /// Until that is healthy, and not only started.
    until_healthy: bool,
    /// Its containers are healthy a while after their start.
    is_slow: bool,
    /// It runs each minute: the shortest that there is, as a run of the simulation takes a few.
    schedule: Option<&'static str>,
    rolls: bool,
}

impl Extras {
    /// `others` are the numbers of services that were made, in their order.
    pub(crate) fn drawn(mode: ServiceMode, others: &[u64], random: &mut Random) -> Self {
        let place = usize::try_from(random.below(others.len().max(1) as u64)).unwrap_or_default();
        let waits_for = others.get(place).copied().filter(|_| random.below(2) == 0);
        let overlap = ["forbid", "allow", "replace"];
        let schedule = overlap.get(random.below(6) as usize).copied().filter(|_| mode.is_job());
        let mut half = || random.below(2) == 0;
        let (until_healthy, is_slow, rolls) = (half(), half(), half());
        // The one that was made last may not be healthy yet.
        let newest = others.last().copied().filter(|_| until_healthy);
        let waits_for = waits_for.map(|number| newest.unwrap_or(number));
        Self { waits_for, until_healthy, is_slow, schedule, rolls }
    }

    pub(crate) fn write(self, labels: &mut Labels) {
        if let Some(number) = self.waits_for {
            let until = if self.until_healthy { ":healthy" } else { "" };
            labels.insert(depends_on::LABEL.to_owned(), format!("{}{until}", wishes::name_of(number)));
        }
        if self.is_slow {
            labels.insert(SLOW.to_owned(), "true".to_owned());
        }
        if let Some(overlap) = self.schedule {
            labels.insert(schedule::LABEL.to_owned(), "* * * * *".to_owned());
            labels.insert(schedule::OVERLAP.to_owned(), overlap.to_owned());
        }
        if self.rolls {
            labels.insert(roll_on_change::LABEL.to_owned(), "true".to_owned());
        }
    }

    /// A job that runs by the clock is never done for good: nobody waits for it here.
    pub(crate) fn is_done_some_time(self) -> bool {
        self.schedule.is_none()
    }
}

/// What was seen of services with labels.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By its name: a service that is waited for may be gone by now.
    named: BTreeMap<String, ServiceId>,
    /// Of which a container was started, on whichever machine.
    started: BTreeSet<ServiceId>,
    /// Of which one was healthy.
    healthy: BTreeSet<ServiceId>,
    /// That were there without a task to wait for.
    empty: BTreeSet<ServiceId>,
    /// Of each scheduled job the iteration, and up to where its due times were decided on.
    runs: BTreeMap<ServiceId, (u64, Timestamp)>,
    /// Up to where the log was looked at.
    looked: u64,
}

impl Seen {
    /// Looks at what is committed, and at what was started.
    pub(crate) fn look(&mut self, cluster: &Cluster) -> Result<(), String> {
        let Some((version, services)) = cluster.newest(|store| {
            let has_tasks = store.nodes().any(|node| wishes::takes_tasks(node));
            let services = store.services().map(|it| (Arc::clone(it), has_tasks)).collect::<Vec<_>>();
            (store.version().0, services)
        }) else {
            return Ok(());
        };
        if version < self.looked {
            return Ok(());
        }
        self.looked = version;
        for (service, nodes_take_tasks) in &services {
            self.named.insert(service.spec.name.clone(), service.id);
            if !wants_tasks(service) || !nodes_take_tasks {
                self.empty.insert(service.id);
            }
            self.look_at_runs(service)?;
        }
        let started: BTreeSet<_> = cluster.sites.iter().flat_map(|site| site.machine.services()).collect();
        self.healthy = cluster.sites.iter().flat_map(|site| site.machine.healthy()).collect();
        let new: BTreeSet<_> = started.difference(&self.started).copied().collect();
        self.started = started;
        services.iter().filter(|(it, _)| new.contains(&it.id)).try_for_each(|(it, _)| self.look_at_start(it))
    }

    /// Nothing of a service starts before what it waits for has started, or was healthy where it says so.
    fn look_at_start(&self, service: &Service) -> Result<(), String> {
        let others = depends_on::parse(&service.spec.labels).map_err(|it| it.to_string())?;
        for other in others {
            let there = match other.until {
                Until::Started => &self.started,
                Until::Healthy => &self.healthy,
            };
            let named = self.named.get(&other.name);
            if !named.is_some_and(|id| there.contains(id) || self.empty.contains(id)) {
                return Err(format!(
                    "{} starts before {} was {:?}",
                    service.spec.name, other.name, other.until
                ));
            }
        }
        Ok(())
    }

    /// No due time makes two runs: they are a minute apart.
    fn look_at_runs(&mut self, service: &Service) -> Result<(), String> {
        let Some((job, status)) = service.job.and_then(|job| Some((job, job.schedule?))) else {
            return Ok(());
        };
        let now = (job.iteration, status.decided_until);
        if let Some(before) = self.runs.insert(service.id, now) {
            let minute = |moment: Timestamp| moment.0 / 60_000_000_000;
            let minutes = minute(now.1).saturating_sub(minute(before.1));
            if now.0 < before.0 || now.0 - before.0 > minutes {
                return Err(format!("{} went from {before:?} to {now:?}", service.spec.name));
            }
        }
        Ok(())
    }
}

fn wants_tasks(service: &Service) -> bool {
    !matches!(
        service.spec.mode,
        ServiceMode::Replicated { replicas: 0 } | ServiceMode::ReplicatedJob { total_completions: 0, .. }
    )
}

/// Of a store: what waits at its gate holds nothing, and a run of a job is alone unless its label says otherwise.
pub(crate) fn always(store: &Store) -> Result<(), String> {
    for task in store.tasks().filter(|task| task.gate == Gate::Closed) {
        // A task that is bound to a node names it from its birth.
        let service = task.service.and_then(|id| store.service(id));
        let has_a_place = task.node.is_some() && service.is_some_and(|it| !it.spec.mode.is_bound_to_nodes());
        if has_a_place || !task.networks.is_empty() {
            return Err(format!("{} waits, and holds {:?} {:?}", task.id, task.node, task.networks));
        }
    }
    store.services().filter(|it| it.job.is_some()).try_for_each(|job| one_run(store, job))
}

fn one_run(store: &Store, job: &Service) -> Result<(), String> {
    if job.spec.labels.get(schedule::OVERLAP).is_some_and(|it| it == "allow") {
        return Ok(());
    }
    let is_wanted = |task: &&Arc<Task>| {
        task.desired_state == TaskState::Complete && task.status.state <= TaskState::Running
    };
    let runs: BTreeSet<_> = store.tasks_of(job.id).filter(is_wanted).map(|task| task.job_iteration).collect();
    // The tasks of an iteration that is over are written off together with the first ones of the next, and 200 at a time.
    if runs.len() > 2 { Err(format!("{} has the iterations {runs:?} to run", job.spec.name)) } else { Ok(()) }
}

/// Whether the service's tasks wait, and rightly: for what is not there, or waits itself.
pub(crate) fn waits(store: &Store, service: &Service) -> Result<bool, String> {
    let waiting = |id| store.tasks_of(id).find(|task| is_at_gate(task));
    let Some(task) = waiting(service.id) else { return Ok(false) };
    let others = depends_on::parse(&service.spec.labels).map_err(|it| it.to_string())?;
    let is_missing = |name: &str| match store.by_name(ObjectKind::Service, name) {
        Some(ObjectId::Service(id)) => waiting(id).is_some(),
        _ => true,
    };
    if others.iter().any(|other| is_missing(&other.name)) {
        Ok(true)
    } else {
        Err(format!("{} waits and need not: {}", service.spec.name, task.status.error))
    }
}

pub(crate) fn is_at_gate(task: &Task) -> bool {
    task.gate == Gate::Closed
        && task.desired_state <= TaskState::Complete
        && task.status.state <= TaskState::Running
}

/// Whether a service that asks for it, and its tasks, have the config that has the name now.
pub(crate) fn has_rolled(store: &Store, service: &Service) -> Result<(), String> {
    if !service.spec.labels.contains_key(roll_on_change::LABEL) {
        return Ok(());
    }
    let newest = store.by_name(ObjectKind::Config, wishes::CONFIG);
    let is_old = |config: &ConfigId| Some(ObjectId::Config(*config)) != newest;
    let used = |spec: &ketch_cluster::objects::TaskSpec| {
        let configs = spec.container().map(|it| it.configs.iter().map(|it| it.config).collect::<Vec<_>>());
        configs.unwrap_or_default()
    };
    let running = store.tasks_of(service.id).filter(|task| task.desired_state == TaskState::Running);
    let mut configs = used(&service.spec.task).into_iter().chain(running.flat_map(|task| used(&task.spec)));
    configs.find(is_old).map_or(Ok(()), |old| {
        Err(format!("{} has {old} where {newest:?} is called {}", service.spec.name, wishes::CONFIG))
    })
}

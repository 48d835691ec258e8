//! Services whose replicas follow their load (`ketch.scale.*`): which tasks workers are to measure, what they have told, and when it
//! is looked at ([`autoscale`] decides).
//!
//! ```text
//! a look, every 2 s:  view -> wanted -> Bell {Measures} ==> the worker measures, every 2 s
//!                     uses <- UsesTell <==================/
//!                     autoscale::look -> Leader::change(autoscale::scaled), World::announce
//! ```
//! All of it is this term's and no log's, but for the replicas that come of it: the next leader knows nothing at first, and holds.
//! Of a service without such labels nothing is kept, and while there is none nobody wakes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_cluster::autoscale::{self, Decision, History, Standing, Use};
use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::label::scale::Scale;
use ketch_cluster::objects::{ServiceMode, TaskState};
use ketch_cluster::store::{Change, Object, Store};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::View;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Dispatcher;
use super::bell::Topic;
use crate::calls::{Measure, MeasuresWanted};
use crate::news::{News, What};

/// Between two looks, and between two measurements.
const LOOK: Duration = Duration::from_secs(2);
/// What was told so long ago says nothing of now: three measurements have not come.
const STALE: Duration = Duration::from_secs(7);
/// So long it must hold before users are told: new tasks are measured for the first time, a new leader is told for the first time.
const HELD: Duration = Duration::from_secs(10);
/// So long the load must fit before that it does not is news again.
const FITTED: Duration = Duration::from_secs(60);

/// Of one term.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    table: Mutex<Table>,
    /// There may be a service that is scaled.
    begun: Notify,
}

#[derive(Debug, Default)]
struct Table {
    services: BTreeMap<ServiceId, Watched>,
    uses: BTreeMap<TaskId, (Instant, Use)>,
    wanted: BTreeMap<NodeId, Wanted>,
}

type Wanted = BTreeMap<TaskId, Measure>;

/// A service that is scaled.
#[derive(Debug)]
struct Watched {
    history: History,
    standing: Standing,
    since: Instant,
    /// What users were told last.
    told: Standing,
}

impl Watched {
    fn new() -> Self {
        let (standing, told) = (Standing::Fits, Standing::Fits);
        Self { history: History::default(), standing, since: Instant::now(), told }
    }

    /// Whether users are to be told of it now.
    fn is_news(&mut self, standing: Standing) -> bool {
        let now = Instant::now();
        if self.standing != standing {
            (self.standing, self.since) = (standing, now);
        }
        let patience = match standing {
            Standing::Fits => FITTED,
            Standing::Held => HELD,
            Standing::AtMost => Duration::ZERO,
        };
        let is_other = self.told != standing && now.duration_since(self.since) >= patience;
        if is_other {
            self.told = standing;
        }
        is_other && standing != Standing::Fits
    }
}

/// What comes of one look at one service.
struct Seen {
    service: ServiceId,
    name: String,
    replicas: u64,
    decision: Decision,
}

impl Scaling {
    /// Looks at all services, as a new leader, or when changes were missed.
    pub(super) fn look_for(&self, store: &Store) {
        let mut table = self.table();
        table.services.retain(|id, _| store.service(*id).is_some_and(|it| autoscale::scale_of(it).is_some()));
        for service in store.services().filter(|service| autoscale::scale_of(service).is_some()) {
            table.services.entry(service.id).or_insert_with(Watched::new);
        }
        self.begun.notify_one();
    }

    /// A service has changed.
    pub(super) fn take_in(&self, id: ServiceId, change: &Change) {
        let is_scaled = match &change.new {
            Some(Object::Service(service)) => autoscale::scale_of(service).is_some(),
            _ => false,
        };
        let mut table = self.table();
        if is_scaled {
            table.services.entry(id).or_insert_with(Watched::new);
            self.begun.notify_one();
        } else if table.services.remove(&id).is_some() {
            // What was wanted of its tasks is wanted no more.
            self.begun.notify_one();
        }
    }

    /// A worker's word on tasks of its own that it was asked for.
    pub(super) fn take(&self, node: NodeId, uses: Vec<(TaskId, Use)>) {
        let mut table = self.table();
        let Table { wanted, uses: known, .. } = &mut *table;
        let now = Instant::now();
        let is_wanted = |task: &TaskId| wanted.get(&node).is_some_and(|wanted| wanted.contains_key(task));
        known
            .extend(uses.into_iter().filter(|(task, _)| is_wanted(task)).map(|(task, it)| (task, (now, it))));
    }

    /// What a node is to measure.
    pub(super) fn wanted_of(&self, node: NodeId) -> MeasuresWanted {
        match self.table().wanted.get(&node) {
            None => MeasuresWanted::default(),
            Some(tasks) => MeasuresWanted {
                every: LOOK,
                tasks: tasks.iter().map(|(task, measure)| (*task, *measure)).collect(),
            },
        }
    }

    /// Whether there is anything to look at, or something to be taken back.
    fn is_asked(&self) -> bool {
        let table = self.table();
        !table.services.is_empty() || !table.wanted.is_empty()
    }

    /// What is to be measured as of now; gives the nodes for which that is something else than before.
    fn want(&self, view: &View<'_>) -> Vec<NodeId> {
        let mut table = self.table();
        let mut wanted = BTreeMap::<NodeId, Wanted>::new();
        for service in table.services.keys().filter_map(|id| view.service(*id)) {
            let Some(scale) = autoscale::scale_of(service) else { continue };
            for task in view.tasks_of(service.id) {
                let may_run = (TaskState::Assigned..=TaskState::Running).contains(&view.state(task));
                if let Some(node) = task.node.filter(|_| may_run) {
                    wanted.entry(node).or_default().insert(task.id, measure_for(&scale));
                }
            }
        }
        let (before, now) = (std::mem::replace(&mut table.wanted, wanted), Instant::now());
        let Table { wanted, uses, .. } = &mut *table;
        uses.retain(|_, (at, _)| now.duration_since(*at) < STALE);
        let nodes = before.keys().chain(wanted.keys()).copied();
        let changed = nodes.filter(|node| before.get(node) != wanted.get(node));
        changed.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    fn look(&self, view: &View<'_>, now: Timestamp) -> Vec<Seen> {
        let mut table = self.table();
        let Table { services, uses, .. } = &mut *table;
        let mut all = Vec::new();
        for (id, watched) in services {
            let Some(service) = view.service(*id) else { continue };
            let Some(scale) = autoscale::scale_of(service) else { continue };
            let ServiceMode::Replicated { replicas } = service.spec.mode else { continue };
            let use_of = |task| uses.get(&task).map(|(_, used)| *used);
            let decision = autoscale::look(view, (service, &scale), use_of, &mut watched.history, now);
            all.push(Seen { service: *id, name: service.spec.name.clone(), replicas, decision });
        }
        all
    }

    fn is_news(&self, service: ServiceId, standing: Standing) -> bool {
        self.table().services.get_mut(&service).is_some_and(|watched| watched.is_news(standing))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measure_for(scale: &Scale) -> Measure {
    if scale.requests.is_some() { Measure::Requests } else { Measure::Resources }
}

impl Dispatcher {
    /// Looks at services that are scaled for as long as there are any.
    pub(super) async fn scale(&self) {
        loop {
            while !self.scaling.is_asked() {
                self.scaling.begun.notified().await;
            }
            self.look_at_load().await;
            sleep(LOOK).await;
        }
    }

    async fn look_at_load(&self) {
        let now = self.leader.now();
        let (nodes, seen) = self.leader.view(|view| (self.scaling.want(view), self.scaling.look(view, now)));
        for node in nodes {
            self.sessions.ring_one(node, Topic::Measures);
        }
        for seen in seen {
            self.act_on(seen).await;
        }
    }

    async fn act_on(&self, seen: Seen) {
        let Seen { service, name, replicas: from, decision } = seen;
        match decision {
            Decision::Scale { replicas: to, reason } => {
                if self.give_replicas(service, (from, to)).await {
                    self.announce(News { service, name, what: What::Scaled { from, to }, reason });
                }
            }
            Decision::Keep { standing, reason } => {
                let what = match standing {
                    Standing::Fits => None,
                    Standing::Held => Some(What::ScaleHeld),
                    Standing::AtMost => Some(What::ScaleAtMost),
                };
                let is_news = self.scaling.is_news(service, standing);
                if let Some(what) = what.filter(|_| is_news) {
                    self.announce(News { service, name, what, reason });
                }
            }
        }
    }

    /// Whether they were given: the service may have been changed since it was looked at.
    async fn give_replicas(&self, service: ServiceId, change: (u64, u64)) -> bool {
        let given = self.leader.change(|view, now, _| {
            let actions = autoscale::scaled(view, service, change, now);
            Ok::<_, Infallible>((!actions.is_empty(), actions))
        });
        match given.await {
            Ok(is_given) => is_given,
            Err(error) => {
                tracing::debug!(%service, %error, "a service was not given the replicas that its load asks for");
                false
            }
        }
    }

    fn announce(&self, news: News) {
        let News { name, what, reason, .. } = &news;
        match what {
            What::Scaled { from, to } => tracing::info!(service = name, from, to, "scaled: {reason}"),
            What::ScaleHeld => tracing::warn!(service = name, "not scaled: {reason}"),
            What::ScaleAtMost => tracing::warn!(service = name, "not scaled any further: {reason}"),
        }
        self.leader.announce(news);
    }
}

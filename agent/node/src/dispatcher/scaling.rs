//! Services whose replicas follow their load (`ketch.scale.*`): which tasks workers are to measure, what they have told, and when it
//! is looked at ([`autoscale`] decides).
//!
//! ```text
//! a look, every 2 s:  autoscale::see -> wanted -> Bell {Measures} ==> the worker measures, every 2 s
//!   (of each service) uses <- UsesTell <==============================/
//!                     Sight::decide -> Leader::change(autoscale::scaled_together), World::announce
//! ```
//! The store is locked for one service's tasks at a time, and for nothing but to see them; what was decided is written together.
//! All of it is this term's and no log's, but for the replicas that come of it: the next leader knows nothing at first, and holds.
//! Of a service without such labels nothing is kept, and while there is none nobody wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_cluster::autoscale::{self, Decision, History, Sight, Standing, Together, Use};
use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::label::scale::Scale;
use ketch_cluster::store::{Change, Object, Store};
use ketch_cluster::time::Timestamp;
use tokio::sync::Notify;
use tokio::task::yield_now;
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
    /// Of tasks that are wanted, and perhaps stale.
    uses: BTreeMap<TaskId, (Instant, Use)>,
    wanted: BTreeMap<NodeId, Wanted>,
    /// Of these something else is wanted than they were told.
    changed: BTreeSet<NodeId>,
}

type Wanted = BTreeMap<TaskId, Measure>;

/// A service that is scaled.
#[derive(Debug)]
struct Watched {
    history: History,
    /// What is wanted of its tasks.
    measured: Vec<(NodeId, TaskId)>,
    measure: Measure,
    standing: Standing,
    since: Instant,
    /// What users were told last.
    told: Standing,
}

impl Watched {
    fn new() -> Self {
        let (standing, told) = (Standing::Fits, Standing::Fits);
        let (history, measured, measure) = (History::default(), Vec::new(), Measure::Resources);
        Self { history, measured, measure, standing, since: Instant::now(), told }
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

/// Other replicas that a service is to have.
struct Scaled {
    service: ServiceId,
    name: String,
    from: u64,
    to: u64,
    reason: String,
}

impl Scaling {
    /// Looks at all services, as a new leader, or when changes were missed.
    pub(super) fn look_for(&self, store: &Store) {
        let mut table = self.table();
        let is_scaled =
            |id: &ServiceId| store.service(*id).is_some_and(|it| autoscale::scale_of(it).is_some());
        let gone: Vec<_> = table.services.keys().copied().filter(|id| !is_scaled(id)).collect();
        gone.into_iter().for_each(|id| table.forget(id));
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
        } else if table.services.contains_key(&id) {
            table.forget(id);
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
        !table.services.is_empty() || !table.changed.is_empty()
    }

    fn services(&self) -> Vec<ServiceId> {
        self.table().services.keys().copied().collect()
    }

    /// Takes in what was seen of a service, and says what follows; nothing when it is not scaled any more.
    fn look(&self, id: ServiceId, sight: Option<Sight>, now: Timestamp) -> Option<Seen> {
        let mut table = self.table();
        let Some(sight) = sight else {
            table.forget(id);
            return None;
        };
        table.want(id, &sight);
        let Table { services, uses, .. } = &mut *table;
        let read_at = Instant::now();
        let is_fresh = |at: &Instant| read_at.duration_since(*at) < STALE;
        let use_of = |task| uses.get(&task).filter(|(at, _)| is_fresh(at)).map(|(_, used)| *used);
        let decision = sight.decide(use_of, &mut services.get_mut(&id)?.history, now);
        Some(Seen { service: id, name: sight.service.spec.name.clone(), replicas: sight.replicas, decision })
    }

    /// The nodes of which something else is wanted than they were told.
    fn take_changed(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.table().changed)
    }

    fn is_news(&self, service: ServiceId, standing: Standing) -> bool {
        self.table().services.get_mut(&service).is_some_and(|watched| watched.is_news(standing))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What is to be measured of a service's tasks from now on.
    fn want(&mut self, id: ServiceId, sight: &Sight) {
        let measure = measure_for(&sight.scale);
        let Some(watched) = self.services.get_mut(&id) else { return };
        if watched.measured == sight.measured && watched.measure == measure {
            return;
        }
        watched.measure = measure;
        let before = std::mem::replace(&mut watched.measured, sight.measured.clone());
        let stays: BTreeSet<_> = sight.measured.iter().copied().collect();
        self.unwant(before.into_iter().filter(|it| !stays.contains(it)));
        for (node, task) in stays {
            if self.wanted.entry(node).or_default().insert(task, measure) != Some(measure) {
                self.changed.insert(node);
            }
        }
    }

    fn unwant(&mut self, tasks: impl Iterator<Item = (NodeId, TaskId)>) {
        for (node, task) in tasks {
            self.uses.remove(&task);
            self.changed.insert(node);
            if let Some(wanted) = self.wanted.get_mut(&node) {
                wanted.remove(&task);
                if wanted.is_empty() {
                    self.wanted.remove(&node);
                }
            }
        }
    }

    /// A service that is not scaled any more: nothing is wanted of its tasks.
    fn forget(&mut self, id: ServiceId) {
        if let Some(watched) = self.services.remove(&id) {
            self.unwant(watched.measured.into_iter());
        }
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
        let mut scaled = Vec::new();
        for id in self.scaling.services() {
            let sight = self.leader.view(|view| autoscale::see(view, id));
            let seen = self.scaling.look(id, sight, now);
            scaled.extend(seen.and_then(|seen| self.act_on(seen)));
            yield_now().await;
        }
        for node in self.scaling.take_changed() {
            self.sessions.ring_one(node, Topic::Measures);
        }
        self.give_replicas(&scaled).await;
    }

    /// Tells users of replicas that stay, where that is news. Those that are to be others are returned.
    fn act_on(&self, seen: Seen) -> Option<Scaled> {
        let Seen { service, name, replicas: from, decision } = seen;
        match decision {
            Decision::Scale { replicas: to, reason } => Some(Scaled { service, name, from, to, reason }),
            Decision::Keep { standing, reason } => {
                let what = match standing {
                    Standing::Fits => None,
                    Standing::Held => Some(What::ScaleHeld),
                    Standing::AtMost => Some(What::ScaleAtMost),
                };
                let is_news = self.scaling.is_news(service, standing);
                if let Some(what) = what.filter(|_| is_news) {
                    self.leader.announce(News { service, name, what, reason });
                }
                None
            }
        }
    }

    /// Writes them, as many at once as one transaction holds. A service may have been changed since it was looked at: it stays as it is.
    async fn give_replicas(&self, scaled: &[Scaled]) {
        let mut rest: Vec<_> = scaled.iter().map(|it| (it.service, (it.from, it.to))).collect();
        while !rest.is_empty() {
            let written = self.leader.change(|view, now, _| {
                let Together { actions, given, seen } = autoscale::scaled_together(view, &rest, now);
                Ok::<_, Infallible>(((given, seen), actions))
            });
            let (given, seen) = match written.await {
                Ok(written) => written,
                Err(error) => {
                    tracing::debug!(%error, "services were not given the replicas that their load asks for");
                    return;
                }
            };
            rest.drain(..seen);
            for it in scaled.iter().filter(|it| given.contains(&it.service)) {
                let Scaled { service, name, from, to, reason } = it;
                let (what, name, reason) =
                    (What::Scaled { from: *from, to: *to }, name.clone(), reason.clone());
                self.leader.announce(News { service: *service, name, what, reason });
            }
        }
    }
}

//! Who is here: the workers' sessions, when each node was last heard, and what that makes of it.
//!
//! A session that is lost says nothing of its node yet: a worker that was killed may be back before its heartbeats are missed. A
//! node is down when its time has passed, or when it says that it leaves.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_ca::identity::Identity;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::store::Store;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::bell::{Bell, Topic};
use super::deadlines::Deadlines;
use super::interests::Rings;
use super::texts;
use super::verdict::{Registration, Standing};

/// A node is down after three heartbeats that were missed and one more period and a quarter, 8.5 s by default. An absence of
/// 5 s (two and a half periods) is to move nothing: it may begin just before a heartbeat, and TCP tries a new connection once a
/// second. The tasks of a node that is lost are to run elsewhere within 10 s.
const SILENT_PERIODS: u32 = 4;
const ON_ITS_WAY: u32 = 4;
/// Of a heartbeat's periods, whatever the cluster's spec says.
const SHORTEST: Duration = Duration::from_millis(100);
/// So many periods has a node to register with a new leader: it must find it first.
const GRACE: u32 = 6;
/// So many less, when raft does not hear the node either: the machine that led is lost, and its tasks are to run elsewhere within
/// 10 s of its end, of which the election has taken up to 2.4.
const SPARED: u32 = 3;

/// Of one node. Each was an agent that ended a moment before the next one began, as a rule.
const MOST_REPLACED: usize = 8;

/// One worker's session. Dropped, its stream ends.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u128,
    /// The worker's, and where it is.
    pub(super) process: Process,
    pub(super) bell: Arc<Bell>,
    pub(super) feeder: AbortHandle,
    /// Whether the worker can be asked for tunnels.
    pub(super) tunnels: bool,
    /// Where the node gives layers to others: a TCP port; zero: nowhere.
    pub(super) layers: u16,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.feeder.abort();
    }
}

/// What others need to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: u128,
    pub(super) tunnels: bool,
}

/// A worker's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// As drawn by itself; zero when it has none.
    pub(super) number: u128,
    pub(super) from: String,
}

/// A heartbeat that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// Until the next one.
    pub(super) period: Duration,
    pub(super) news: News,
}

/// Whether the node is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// Its certificate is another one.
    Certificate,
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    period: Duration,
    standings: BTreeMap<NodeId, Standing>,
    open: BTreeMap<NodeId, Session>,
    /// The processes whose sessions have ended by another one's: they can't be there any more.
    replaced: BTreeMap<NodeId, VecDeque<u128>>,
    deadlines: Deadlines,
}

impl Sessions {
    /// Looks at all nodes, as a new leader, or when changes were missed: those that are not known yet have time to come. One that
    /// is down already stays so until it registers.
    pub(super) fn look(&self, store: &Store) -> Vec<NodeId> {
        let mut table = self.table();
        table.period = period_of(store);
        let known: Vec<NodeId> = table.standings.keys().copied().collect();
        known.into_iter().filter(|node| store.node(*node).is_none()).for_each(|node| table.remove(node));
        let may_come = |state| matches!(state, NodeState::Unknown | NodeState::Ready);
        for node in store.nodes().filter(|node| may_come(node.status.state)) {
            table.expect(node.id);
        }
        table.standings.keys().copied().collect()
    }

    /// Takes the heartbeats' period from the cluster.
    pub(super) fn set_period(&self, store: &Store) {
        self.table().period = period_of(store);
    }

    #[must_use]
    pub(super) fn period(&self) -> Duration {
        self.table().period
    }

    /// A node is new in the cluster.
    pub(super) fn expect(&self, node: NodeId) {
        self.table().expect(node);
    }

    /// A node is none of the cluster any more.
    pub(super) fn remove(&self, node: NodeId) {
        self.table().remove(node);
    }

    /// A session begins, an older one of the node ends.
    pub(super) fn begin(&self, node: NodeId, session: Session, registration: Registration) {
        let mut table = self.table();
        table.replace(node, &session.process);
        table.open.insert(node, session);
        table.standings.insert(node, Standing::Here(Arc::new(registration)));
        table.heard(node);
    }

    /// Where the process is that has taken the node's place from this one: both have the node's keys. A process that has ended
    /// asks for nothing, so the agent that was started again is none of two.
    #[must_use]
    pub(super) fn double(&self, node: NodeId, process: u128) -> Option<String> {
        let table = self.table();
        let is_replaced = table.replaced.get(&node).is_some_and(|gone| gone.contains(&process));
        let there = table.open.get(&node).filter(|session| is_replaced && session.process.number != process);
        there.map(|session| session.process.from.clone())
    }

    /// A session's stream has no reader any more.
    pub(super) fn close(&self, node: NodeId, id: u128) {
        let mut table = self.table();
        if table.open.get(&node).is_some_and(|session| session.id == id) {
            table.open.remove(&node);
        }
    }

    /// Takes a heartbeat; none when there is no such session.
    pub(super) fn beat(&self, caller: &Identity, id: u128) -> Option<Beat> {
        let mut table = self.table();
        table.open.get(&caller.node).filter(|session| session.id == id)?;
        table.heard(caller.node);
        let news = match table.standings.get(&caller.node) {
            Some(Standing::Here(known)) => known.with_issuer_of(caller),
            _ => None,
        };
        let beat =
            Beat { period: table.period, news: news.as_ref().map_or(News::None, |_| News::Certificate) };
        if let Some(registration) = news {
            table.standings.insert(caller.node, Standing::Here(Arc::new(registration)));
        }
        Some(beat)
    }

    /// Whether that is the node's session.
    #[must_use]
    pub(super) fn has(&self, node: NodeId, id: u128) -> bool {
        self.table().open.get(&node).is_some_and(|session| session.id == id)
    }

    /// The node's session.
    #[must_use]
    pub(super) fn of(&self, node: NodeId) -> Option<Known> {
        let table = self.table();
        table.open.get(&node).map(|session| Known { id: session.id, tunnels: session.tunnels })
    }

    /// Where a node gives layers to others, `host:port`; none when it does not, or is not here.
    #[must_use]
    pub(super) fn layers_at(&self, node: NodeId) -> Option<String> {
        let table = self.table();
        let port = table.open.get(&node).map(|session| session.layers).filter(|port| *port != 0)?;
        let Standing::Here(registration) = table.standings.get(&node)? else { return None };
        let host = &registration.address;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// The node leaves: its session ends, and it is down. False when there is no such session.
    #[must_use]
    pub(super) fn leave(&self, node: NodeId, id: u128) -> bool {
        let mut table = self.table();
        let is_its = table.open.get(&node).is_some_and(|session| session.id == id);
        if is_its {
            table.lose(node, texts::LEFT);
        }
        is_its
    }

    /// The nodes whose time has passed: they are down. `unreached` are managers that raft does not hear.
    pub(super) fn take_silent(&self, unreached: &[NodeId]) -> Vec<NodeId> {
        let mut table = self.table();
        let now = Instant::now();
        let mut silent = table.deadlines.take_due(now);
        let early = now + table.period * SPARED;
        let is_late = |node: &NodeId| {
            table.standings.get(node) == Some(&Standing::Unheard) && table.deadlines.is_before(*node, early)
        };
        silent.extend(unreached.iter().copied().filter(is_late));
        for node in &silent {
            let is_unheard = table.standings.get(node) == Some(&Standing::Unheard);
            table.lose(*node, if is_unheard { texts::NEVER_HEARD } else { texts::SILENT });
        }
        silent
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.table().open.len()
    }

    /// When the next node's time passes.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.table().deadlines.first()
    }

    /// This leader was away for so long itself: that is no node's fault.
    pub(super) fn postpone(&self, span: Duration) {
        self.table().deadlines.postpone(span);
    }

    #[must_use]
    pub(super) fn standing(&self, node: NodeId) -> Option<Standing> {
        self.table().standings.get(&node).cloned()
    }

    pub(super) fn ring(&self, rings: &Rings) {
        let table = self.table();
        if !rings.everyone.is_empty() {
            table.open.values().for_each(|session| session.bell.ring(rings.everyone.iter().copied()));
        }
        for (node, topics) in &rings.nodes {
            if let Some(session) = table.open.get(node) {
                session.bell.ring(topics.iter().copied());
            }
        }
    }

    pub(super) fn ring_one(&self, node: NodeId, topic: Topic) {
        if let Some(session) = self.table().open.get(&node) {
            session.bell.ring([topic]);
        }
    }

    /// Ends all of them.
    pub(super) fn clear(&self) {
        let mut table = self.table();
        *table = Table { period: table.period, ..Table::default() };
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn expect(&mut self, node: NodeId) {
        if let Entry::Vacant(standing) = self.standings.entry(node) {
            standing.insert(Standing::Unheard);
            self.deadlines.set(node, Instant::now() + self.period * GRACE);
        }
    }

    fn replace(&mut self, node: NodeId, by: &Process) {
        let before = self.open.get(&node).map(|session| session.process.number);
        let Some(before) = before.filter(|before| *before != 0 && *before != by.number) else { return };
        let gone = self.replaced.entry(node).or_default();
        gone.retain(|it| *it != by.number);
        gone.push_back(before);
        if gone.len() > MOST_REPLACED {
            gone.pop_front();
        }
    }

    fn heard(&mut self, node: NodeId) {
        self.deadlines.set(node, Instant::now() + self.period * SILENT_PERIODS + self.period / ON_ITS_WAY);
    }

    fn lose(&mut self, node: NodeId, why: &'static str) {
        self.open.remove(&node);
        self.deadlines.remove(node);
        self.standings.insert(node, Standing::Down(why));
    }

    fn remove(&mut self, node: NodeId) {
        self.open.remove(&node);
        self.deadlines.remove(node);
        self.standings.remove(&node);
        self.replaced.remove(&node);
    }
}

fn period_of(store: &Store) -> Duration {
    let config = store.cluster().map(|cluster| cluster.spec.dispatcher).unwrap_or_default();
    config.heartbeat_period.max(SHORTEST)
}

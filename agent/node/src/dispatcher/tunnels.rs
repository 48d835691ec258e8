//! Tunnels from managers to nodes' containers: who waits for one, and those that are open.
//!
//! A manager asks the leader, who tells the node by its session; the node opens the tunnel's other half by a connection of its own,
//! since nodes listen nowhere; both halves are joined here. What goes through is not looked at. Nothing of it enters the log. A
//! tunnel ends with its user, its node's session, or the leadership.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ketch_cluster::id::NodeId;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::bell::Topic;
use super::reached::{name_of, reached};
use super::{Dispatcher, texts};
use crate::calls::{SessionMessage, Target, TunnelAsked, TunnelWanted, Visit};
use crate::wire::{Answer, Flow, Refusal, splice, tunnel};

/// Of one node, at once: each is a connection and a request there.
pub(super) const MOST_OF_NODE: usize = 64;
/// For one manager's users, at once.
pub(super) const MOST_OF_MANAGER: usize = 512;
/// One that has been silent for so long, while one of its ends writes no more, gives its place to who wants one: behind it may be a
/// client who was killed, and a process that says nothing.
pub(super) const QUIET: Duration = Duration::from_secs(900);
/// How long a node has to open one.
const ARRIVAL: Duration = Duration::from_secs(8);

/// Of one term.
#[derive(Debug, Default)]
pub(super) struct Tunnels(Arc<Mutex<Table>>);

type Table = BTreeMap<(NodeId, u128), Tunnel>;

#[derive(Debug)]
struct Tunnel {
    /// The node's, when it was asked for.
    session: u128,
    visit: Visit,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The node is told, or about to be. Dropped, nobody waits any more.
    Awaited(oneshot::Sender<DuplexStream>),
    /// The node's half is there.
    Arrived,
    Open(AbortHandle, Arc<Flow>),
}

impl Tunnel {
    fn quiet_for(&self, now: Instant) -> Option<Duration> {
        match &self.stage {
            Stage::Open(_, flow) => flow.quiet_for(now).filter(|quiet| *quiet >= QUIET),
            Stage::Awaited(_) | Stage::Arrived => None,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Stage::Open(open, _) = &self.stage {
            open.abort();
        }
    }
}

/// A tunnel's place among all; dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    of: (NodeId, u128),
    table: Weak<Mutex<Table>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            lock(&table).remove(&self.of);
        }
    }
}

impl Dispatcher {
    /// Opens a tunnel to the node that has what is named, for a user of that manager.
    ///
    /// # Errors
    /// Nothing is named so ([`Refusal::NotFound`], [`Refusal::Invalid`]); its node can't be reached, or too many are open
    /// ([`Refusal::Unavailable`]).
    pub async fn reach(&self, by: NodeId, target: &Target) -> Result<DuplexStream, Refusal> {
        if self.leader.has_ended() {
            return Err(self.over());
        }
        let found = self
            .leader
            .view(|view| reached(view, target).map(|(node, scope)| (node, scope, name_of(view, node))));
        let (node, scope, name) = found?;
        tracing::info!(manager = %by, node = name, ?scope, "a manager asks for a way to a node's containers");
        let session = self.sessions.of(node);
        let session = session.ok_or_else(|| Refusal::Unavailable(texts::no_session(&name)))?;
        if !session.tunnels {
            return Err(Refusal::Unavailable(texts::before_tunnels(&name)));
        }
        let wanted = TunnelWanted { tunnel: self.leader.bits()(), visit: Visit { by, scope } };
        let (place, arriving) = self.tunnels.expect((node, &name), session.id, &wanted)?;
        self.sessions.ring_one(node, Topic::Tunnels);
        let theirs = match timeout(ARRIVAL, arriving).await {
            Ok(Ok(theirs)) => theirs,
            Ok(Err(_)) => return Err(Refusal::Unavailable(texts::no_session(&name))),
            Err(_) => return Err(Refusal::Unavailable(texts::no_tunnel(&name))),
        };
        let (ours, far) = tunnel();
        let (of, flow) = (place.of, Arc::<Flow>::default());
        let open = {
            let flow = Arc::clone(&flow);
            tokio::spawn(async move {
                splice(far, theirs, &flow).await;
                drop(place);
            })
        };
        self.tunnels.set_open(of, (open.abort_handle(), flow));
        Ok(ours)
    }

    /// A node opens its half.
    pub(super) fn open(&self, node: NodeId, asked: &TunnelAsked) -> Result<Answer, Refusal> {
        self.is_session(node, asked.session)?;
        let gone = || Refusal::NotFound("nobody waits for that tunnel any more".to_owned());
        let waiting = self.tunnels.arrive((node, asked.tunnel)).ok_or_else(gone)?;
        let (near, far) = tunnel();
        waiting.send(near).map_err(|_| gone())?;
        Ok(Answer::Tunnel(far))
    }
}

impl Tunnels {
    pub(super) fn expect(
        &self,
        (node, name): (NodeId, &str),
        session: u128,
        wanted: &TunnelWanted,
    ) -> Result<(Place, oneshot::Receiver<DuplexStream>), Refusal> {
        let of_node = |(of, _): (&(NodeId, u128), &Tunnel)| of.0 == node;
        let of_manager = |(_, it): (&(NodeId, u128), &Tunnel)| it.visit.by == wanted.visit.by;
        // Dropped outside the lock, as all that end.
        let mut ended = Vec::new();
        let mut table = lock(&self.0);
        if table.range((node, 0)..=(node, u128::MAX)).count() >= MOST_OF_NODE {
            let quiet = take_quiet(&mut table, of_node);
            ended.push(quiet.ok_or_else(|| Refusal::Unavailable(texts::crowded(name, MOST_OF_NODE)))?);
        }
        if table.iter().filter(|it| of_manager(*it)).count() >= MOST_OF_MANAGER {
            let quiet = take_quiet(&mut table, of_manager);
            ended.push(quiet.ok_or_else(|| Refusal::Unavailable(texts::busy(MOST_OF_MANAGER)))?);
        }
        let (waiting, arriving) = oneshot::channel();
        let of = (node, wanted.tunnel);
        table.insert(of, Tunnel { session, visit: wanted.visit, stage: Stage::Awaited(waiting) });
        drop(table);
        for tunnel in ended {
            tracing::warn!(node = name, by = %tunnel.visit.by, "a tunnel that was silent has given its place to another");
        }
        Ok((Place { of, table: Arc::downgrade(&self.0) }, arriving))
    }

    /// What a session is to be told: the tunnels that its node has not heard of.
    pub(super) fn news(&self, node: NodeId, told: &mut BTreeSet<u128>) -> Vec<SessionMessage> {
        let table = lock(&self.0);
        told.retain(|number| table.contains_key(&(node, *number)));
        let of_node = table.range((node, 0)..=(node, u128::MAX));
        let awaited = of_node.filter(|(_, it)| matches!(it.stage, Stage::Awaited(_)));
        let new = awaited.filter(|((_, number), _)| told.insert(*number));
        new.map(|((_, number), it)| SessionMessage::Tunnel(TunnelWanted { tunnel: *number, visit: it.visit }))
            .collect()
    }

    fn arrive(&self, of: (NodeId, u128)) -> Option<oneshot::Sender<DuplexStream>> {
        let mut table = lock(&self.0);
        let it = table.get_mut(&of)?;
        match std::mem::replace(&mut it.stage, Stage::Arrived) {
            Stage::Awaited(waiting) => Some(waiting),
            before => {
                it.stage = before;
                None
            }
        }
    }

    /// One that was ended meanwhile is cut.
    fn set_open(&self, of: (NodeId, u128), (open, flow): (AbortHandle, Arc<Flow>)) {
        match lock(&self.0).get_mut(&of) {
            Some(it) => it.stage = Stage::Open(open, flow),
            None => open.abort(),
        }
    }

    /// A session is over: so are its tunnels.
    pub(super) fn end_session(&self, node: NodeId, session: u128) {
        self.end(|of, it| of == node && it.session == session);
    }

    /// The node has another session now.
    pub(super) fn end_others(&self, node: NodeId, session: u128) {
        self.end(|of, it| of == node && it.session != session);
    }

    /// The node does not answer any more.
    pub(super) fn lose(&self, node: NodeId) {
        self.end(|of, _| of == node);
    }

    pub(super) fn clear(&self) {
        self.end(|_, _| true);
    }

    /// As of one that is open.
    #[cfg(test)]
    pub(super) fn open_one(&self, place: &Place, flow: Arc<Flow>) {
        self.set_open(place.of, (tokio::spawn(std::future::pending::<()>()).abort_handle(), flow));
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.0).len()
    }

    fn end(&self, is_meant: impl Fn(NodeId, &Tunnel) -> bool) {
        // Dropped outside the lock: whoever waits is woken, and gives back a place that is gone.
        let ended: Vec<Tunnel> =
            lock(&self.0).extract_if(.., |(node, _), it| is_meant(*node, it)).map(|(_, it)| it).collect();
        drop(ended);
    }
}

/// The one of these that has been silent for the longest time, if any has been for long.
fn take_quiet(table: &mut Table, is_meant: impl Fn((&(NodeId, u128), &Tunnel)) -> bool) -> Option<Tunnel> {
    let now = Instant::now();
    let meant = table.iter().filter(|it| is_meant(*it));
    let (_, of) = meant.filter_map(|(of, it)| Some((it.quiet_for(now)?, *of))).max()?;
    table.remove(&of)
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

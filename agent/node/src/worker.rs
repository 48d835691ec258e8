//! The worker of a node: it has a session with the leader, runs the tasks that it is given by the [`executor`](crate::executor),
//! and tells how they go.
//!
//! It owns the store of the node's tasks, and decides what each is to do next; it does not decide which tasks there are. A
//! node has one, whether it is a manager too or not. It runs on without managers, for ever, but for tasks with a fence.
//! `DESIGN.md` beside this folder says what survives a crash.

mod attaching;
mod backoff;
mod contact;
mod events;
mod hands;
mod kept;
mod layers;
mod logs;
mod measures;
mod moment;
mod networks;
mod roster;
mod runner;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod texts;
mod tunnels;
mod word;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::TaskState;
use ketch_cluster::objects::node::CaKeyId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::calls::ManagerAddress;
use crate::executor::Executor;
use crate::wire::Links;
use crate::world::World;
pub use attaching::AttachError;
pub use backoff::{Backoff, Met};
use contact::Contact;
use events::Events;
pub use events::WorkerEvent;
use hands::Hands;
pub use layers::Right;
use moment::Moment;
use networks::Networks;
use roster::Roster;
use session::{Present, Sessions};
pub use store::WorkerError;
use word::Words;

/// How long tasks have to stop when the node leaves its cluster.
const LEAVE: Duration = Duration::from_secs(60);
/// How long it is waited then until their ends are committed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a worker is made of.
pub struct WorkerParts {
    pub world: Arc<dyn World>,
    pub links: Arc<Links>,
    pub executor: Arc<dyn Executor>,
    pub node: NodeId,
    /// Where the node is to be reached; empty: where its connections come from.
    pub address: String,
    /// Where the leader is looked for, unless the worker has been told since.
    pub managers: Vec<ManagerAddress>,
    /// The roots that the node trusts.
    pub roots: Vec<CaKeyId>,
}

impl fmt::Debug for WorkerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerParts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A worker that runs. Dropped, it ends; its tasks' containers go on.
#[derive(Debug)]
pub struct Worker {
    node: NodeId,
    hands: Arc<Hands>,
    roster: Arc<Mutex<Roster>>,
    roots: watch::Sender<Vec<CaKeyId>>,
    /// The session, and what must go on without one.
    session: Lock<JoinSet<()>>,
    running: Lock<JoinSet<()>>,
}

impl Worker {
    /// Reads what the worker knew when it ended, however it ended, takes its tasks up, and looks for the leader. Within
    /// tokio's runtime.
    ///
    /// # Errors
    /// Its store can't be read.
    pub fn open(parts: WorkerParts) -> Result<Arc<Self>, WorkerError> {
        let WorkerParts { world, links, executor, node, address, managers, roots } = parts;
        let (store, writer, contents) = store::open(world.disk())?;
        let known = if contents.managers.is_empty() { managers } else { contents.managers.clone() };
        let contact = contents.contact.map_or_else(Moment::now, |at| Moment::ago(world.now().since(at)));
        let hands = Arc::new(Hands {
            world,
            links,
            executor,
            store,
            words: Words::default(),
            networks: Networks::default(),
            contact: Contact::new(contact),
            events: Events::new(known),
            present: Present::default(),
        });
        let (roots, roots_now) = watch::channel(roots);
        let mut running = JoinSet::new();
        running.spawn(writer.run());
        running.spawn(tell_networks(Arc::clone(&hands)));
        let roster = Arc::new(Mutex::new(Roster::take_up(Arc::clone(&hands), contents)));
        let sessions = Sessions {
            hands: Arc::clone(&hands),
            roster: Arc::clone(&roster),
            address,
            process: hands.world.bits(),
            roots: roots_now,
            is_removed: false,
        };
        let mut session = JoinSet::new();
        session.spawn(sessions.run());
        Ok(Arc::new(Self {
            node,
            hands,
            roster,
            roots,
            session: Lock::new(session),
            running: Lock::new(running),
        }))
    }

    /// What the node has to do itself, from the worker's beginning on. There is one listener.
    #[must_use]
    pub fn events(&self) -> mpsc::UnboundedReceiver<WorkerEvent> {
        self.hands.events.listen()
    }

    /// How many tasks of this node are in each state.
    #[must_use]
    pub fn states(&self) -> BTreeMap<TaskState, usize> {
        self.hands.words.states()
    }

    /// The managers, as the leader said last.
    #[must_use]
    pub fn managers(&self) -> Vec<ManagerAddress> {
        self.hands.events.managers()
    }

    /// The node has other keys or another certificate, and trusts these roots now: the leader sees it by a session that
    /// begins a moment later, though none of the roots may be new.
    pub fn trusts(&self, roots: Vec<CaKeyId>) {
        self.roots.send_replace(roots);
    }

    /// Ends the worker; containers go on, and are taken up when it is opened again.
    pub async fn shutdown(&self) {
        end(&self.session).await;
        self.roster.lock().await.end().await;
        end(&self.running).await;
        tracing::info!(node = %self.node, "the worker has ended");
    }

    /// Stops and removes all tasks, tells the leader that the node leaves the cluster, and ends the worker.
    pub async fn leave(&self) {
        // Held to the end: no assignment is taken any more.
        let mut roster = self.roster.lock().await;
        if timeout(LEAVE, roster.leave()).await.is_err() {
            tracing::warn!("tasks of the cluster that was left are not stopped yet");
        }
        if self.hands.present.is_one() {
            let _ = timeout(LAST_WORDS, self.hands.words.settled()).await;
            self.hands.present.leave(&self.hands.links).await;
        }
        end(&self.session).await;
        roster.end().await;
        end(&self.running).await;
    }
}

async fn tell_networks(hands: Arc<Hands>) {
    hands.networks.run(Arc::clone(&hands.executor)).await;
}

async fn end(parts: &Lock<JoinSet<()>>) {
    let mut parts = std::mem::take(&mut *parts.lock().unwrap_or_else(PoisonError::into_inner));
    parts.shutdown().await;
}

//! What the node has to do itself of what the leader told the worker.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::calls::{ManagerAddress, Membership};

/// What the node acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// The managers, when they have changed.
    Managers(Vec<ManagerAddress>),
    /// What the node is to be, when it has changed, and once in each session.
    Membership(Membership),
    /// The leader does not know the node any more, or has shut it out. Its tasks are stopped.
    Removed,
}

/// Keeps what was told until somebody listens.
#[derive(Debug)]
pub(super) struct Events(Mutex<Told>);

#[derive(Debug)]
struct Told {
    managers: Vec<ManagerAddress>,
    sender: mpsc::UnboundedSender<WorkerEvent>,
    /// Until it is taken.
    receiver: Option<mpsc::UnboundedReceiver<WorkerEvent>>,
}

impl Events {
    pub(super) fn new(managers: Vec<ManagerAddress>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self(Mutex::new(Told { managers, sender, receiver: Some(receiver) }))
    }

    /// From the worker's beginning on; a second listener hears nothing.
    pub(super) fn listen(&self) -> mpsc::UnboundedReceiver<WorkerEvent> {
        self.lock().receiver.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    pub(super) fn managers(&self) -> Vec<ManagerAddress> {
        self.lock().managers.clone()
    }

    /// Whether these are others than before.
    pub(super) fn take_managers(&self, managers: Vec<ManagerAddress>) -> bool {
        let mut told = self.lock();
        let is_new = told.managers != managers;
        if is_new {
            told.managers.clone_from(&managers);
            send(&told, WorkerEvent::Managers(managers));
        }
        is_new
    }

    pub(super) fn send(&self, event: WorkerEvent) {
        send(&self.lock(), event);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(told: &Told, event: WorkerEvent) {
    // Whoever listened may be gone, as when the node ends.
    let _ = told.sender.send(event);
}

//! Tunnels of managers to this node's containers: opened when the leader wants one, and answered by the executor. They end with
//! the session that they came by.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::session::Session;
use crate::calls::{TunnelAsked, TunnelWanted};
use crate::wire::{Flow, splice, tunnel};

/// At once. The leader counts as well, to 64: this one is for a leader that does not, and for those that it has cut just now.
const MOST: usize = 80;
/// How long the leader has to take one.
const ANSWER: Duration = Duration::from_secs(5);

/// Those of one session.
#[derive(Debug)]
pub(super) struct Tunnels {
    session: Session,
    running: JoinSet<()>,
}

impl Tunnels {
    pub(super) fn new(session: Session) -> Self {
        Self { session, running: JoinSet::new() }
    }

    pub(super) fn begin(&mut self, wanted: TunnelWanted) {
        while self.running.try_join_next().is_some() {}
        if self.running.len() >= MOST {
            tracing::warn!(by = %wanted.visit.by, "not opened for a manager: {MOST} tunnels are open");
            return;
        }
        self.running.spawn(serve(self.session.clone(), wanted));
    }
}

async fn serve(session: Session, wanted: TunnelWanted) {
    let asked = TunnelAsked { session: session.number, tunnel: wanted.tunnel };
    let theirs = match session.hands.links.tunnel(&session.leader, &asked, ANSWER).await {
        Ok(theirs) => theirs,
        Err(error) => return tracing::debug!(%error, "nobody takes a tunnel that was asked for"),
    };
    let executor = Arc::clone(&session.hands.executor);
    // Whoever answers may hand its end on, as for a terminal: both are cut here when the session ends.
    let ((near, far), flow) = (tunnel(), Flow::default());
    tokio::join!(executor.serve(wanted.visit, near), splice(far, theirs, &flow));
}

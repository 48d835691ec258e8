//! One session's stream: what it says, and when. It is a task of its own, so that a slow reader holds up nobody else; and it makes
//! a message only when there is room for it, so that a slow reader costs one message and the set of topics that it has missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ketch_cluster::assignment::{Assignment, Held};
use ketch_cluster::id::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Dispatcher;
use super::bell::{Bell, Topic};
use super::membership::{managers, membership};
use crate::calls::{ManagerAddress, MeasuresWanted, Membership, SessionMessage};
use crate::wire::Answer;

/// Between two assignments of a node.
const PACE: Duration = Duration::from_millis(100);

/// A node's secrets and configs alone may come to more than a message can carry. Of the items as they are: as JSON, bytes take up
/// to four times that.
const MOST_ITEMS: usize = 4 << 20;

/// What a session's stream has said.
#[derive(Debug)]
pub(super) struct Feeder {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) node: NodeId,
    pub(super) session: u128,
    pub(super) bell: Arc<Bell>,
    pub(super) sender: mpsc::Sender<Bytes>,
    told: Told,
}

#[derive(Debug, Default)]
struct Told {
    managers: Vec<ManagerAddress>,
    membership: Option<Membership>,
    held: Held,
    logs: BTreeSet<u64>,
    tunnels: BTreeSet<u128>,
    measures: MeasuresWanted,
}

/// Nobody reads any more.
struct Unread;

impl Feeder {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        (node, session): (NodeId, u128),
        sender: mpsc::Sender<Bytes>,
    ) -> Self {
        let bell = Arc::new(Bell::of_all());
        Self { dispatcher, node, session, bell, sender, told: Told::default() }
    }

    /// Until nobody reads.
    pub(super) async fn run(mut self) {
        drop(self.feed().await);
        self.dispatcher.sessions.close(self.node, self.session);
        self.dispatcher.tunnels.end_session(self.node, self.session);
    }

    async fn feed(&mut self) -> Result<(), Unread> {
        let heartbeat = self.dispatcher.sessions.period();
        self.send(&SessionMessage::Begun { session: self.session, heartbeat }).await?;
        let mut assignment_from = Instant::now();
        loop {
            let topic = tokio::select! {
                biased;
                () = self.sender.closed() => return Err(Unread),
                topic = self.bell.next(assignment_from) => topic,
            };
            // What is said is as of when it can be sent.
            drop(self.sender.reserve().await.map_err(|_| Unread)?);
            for message in self.messages(topic) {
                self.send(&message).await?;
            }
            if topic == Topic::Assignment {
                assignment_from = Instant::now() + PACE;
            }
        }
    }

    async fn send(&self, message: &SessionMessage) -> Result<(), Unread> {
        match Answer::message(message) {
            Ok(bytes) => self.sender.send(bytes).await.map_err(|_| Unread),
            Err(error) => {
                tracing::error!(node = %self.node, %error, "a session ends");
                Err(Unread)
            }
        }
    }

    /// What is to be said of it; nothing when it was said.
    fn messages(&mut self, topic: Topic) -> Vec<SessionMessage> {
        match topic {
            Topic::Managers => self.managers().into_iter().collect(),
            Topic::Membership => self.membership().into_iter().collect(),
            Topic::Assignment => self.assignment(),
            Topic::Logs => self.dispatcher.logs.news(self.node, &mut self.told.logs),
            Topic::Tunnels => self.dispatcher.tunnels.news(self.node, &mut self.told.tunnels),
            Topic::Measures => self.measures().into_iter().collect(),
        }
    }

    fn managers(&mut self) -> Option<SessionMessage> {
        let managers = self.dispatcher.leader.view(|view| managers(view));
        (managers != self.told.managers).then(|| {
            self.told.managers.clone_from(&managers);
            SessionMessage::Managers(managers)
        })
    }

    fn membership(&mut self) -> Option<SessionMessage> {
        let renewals = self.dispatcher.leader.renewals().borrow().clone();
        let membership = self.dispatcher.leader.view(|view| membership(view, self.node, &renewals))?;
        (self.told.membership.as_ref() != Some(&membership)).then(|| {
            self.told.membership = Some(membership.clone());
            SessionMessage::Membership(membership)
        })
    }

    fn measures(&mut self) -> Option<SessionMessage> {
        let wanted = self.dispatcher.scaling.wanted_of(self.node);
        (wanted != self.told.measures).then(|| {
            self.told.measures.clone_from(&wanted);
            SessionMessage::Measures(wanted)
        })
    }

    /// The first one is whole, whatever the node has.
    fn assignment(&mut self) -> Vec<SessionMessage> {
        let node = self.node;
        let wanted = self.dispatcher.leader.view(|view| {
            self.dispatcher.interests().set(view, node);
            Assignment::of(view, node)
        });
        let mut parts = self.told.held.lead_to(&wanted, MOST_ITEMS);
        let last = parts.pop().map(SessionMessage::Assignment);
        parts.into_iter().map(SessionMessage::AssignmentPart).chain(last).collect()
    }
}

//! The worker's end of its session with the leader: it looks for the leader, says what it is and has, does what comes, and
//! begins again when the session is lost. Tasks don't mind.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::assignment::{AssignmentChanges, Held};
use ketch_cluster::objects::node::{CaKeyId, NodeDescription};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::{Backoff, Met};
use super::events::WorkerEvent;
use super::hands::Hands;
use super::logs::Readers;
use super::measures::Measures;
use super::roster::Roster;
use super::store::Row;
use super::tunnels::Tunnels;
use crate::calls::{Heartbeat, Leave, ManagerAddress, SessionAsked, SessionMessage, Tell};
use crate::wire::{CallError, Destination, Links, Messages, Refusal};
use crate::world::DialError;

/// How long a manager has to answer: a session, and news.
const ANSWER: Duration = Duration::from_secs(5);
/// How long news are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// Until ends are told again of which it is not known that they are committed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked at what the node is made of.
const DESCRIBE: Duration = Duration::from_secs(20);
/// While there is no address to try.
const NOBODY: Duration = Duration::from_secs(1);

/// Why a session has ended, or has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Another manager leads; where, if that is known.
    Elsewhere(Option<ManagerAddress>),
    /// The leader does not know this node.
    Removed(String),
    /// The worker ends it: what it said when it began holds no more.
    Changed,
    /// No answer came in time. The connection is not asked again: after an outage TCP tries it less and less often, and a node
    /// that could not be reached for 5 s would be down before it is heard.
    Late,
    Lost(String),
    /// The leader knows the node, and takes no session of it.
    Refused(String),
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        match error.leader() {
            Some(leader) => Self::Elsewhere(leader),
            None if error == CallError::Late => Self::Late,
            None => match error {
                CallError::Refused(Refusal::Invalid(reason)) => Self::Refused(reason),
                error => Self::Lost(error.to_string()),
            },
        }
    }
}

/// Holds one session after another.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) hands: Arc<Hands>,
    pub(super) roster: Arc<Mutex<Roster>>,
    /// Where the node is to be reached.
    pub(super) address: String,
    /// Drawn for this process.
    pub(super) process: u128,
    pub(super) roots: watch::Receiver<Vec<CaKeyId>>,
    /// Whether the leader has said since the last session that it does not know the node.
    pub(super) is_removed: bool,
}

/// The session that is on, for who has to end it.
#[derive(Debug, Default)]
pub(super) struct Present(watch::Sender<Option<(Destination, u128)>>);

impl Present {
    fn set(&self, session: Option<(Destination, u128)>) {
        self.0.send_replace(session);
    }

    /// The leader, and the session's number.
    pub(super) fn session(&self) -> Option<(Destination, u128)> {
        self.0.borrow().clone()
    }

    /// The same, once there is one.
    pub(super) async fn begun(&self) -> (Destination, u128) {
        let mut sessions = self.0.subscribe();
        loop {
            if let Some(session) = sessions.borrow_and_update().clone() {
                return session;
            }
            // The sender is here as well: it can't end first.
            drop(sessions.changed().await);
        }
    }

    pub(super) fn is_one(&self) -> bool {
        self.session().is_some()
    }

    /// Tells the leader that the node leaves its cluster, so that it is not waited for. Without a session nobody is told.
    pub(super) async fn leave(&self, links: &Links) {
        let Some((leader, session)) = self.session() else { return };
        if let Err(error) = links.ask(&leader, &Leave { session }, ANSWER).await {
            tracing::warn!(%error, "the leader does not know that this node leaves");
        }
    }
}

/// A session that has begun, as its parts know it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) hands: Arc<Hands>,
    pub(super) leader: Destination,
    pub(super) number: u128,
}

impl Sessions {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut addresses = Addresses::default();
        loop {
            let Some(manager) = addresses.next(&self.hands) else {
                sleep(NOBODY).await;
                continue;
            };
            let began = Instant::now();
            let end = self.hold(&manager).await;
            tracing::info!(manager = manager.address, ?end, "no session with this manager any more");
            backoff.tried_for(began.elapsed());
            let met = if matches!(end, End::Elsewhere(_)) { Met::Follower } else { Met::Another };
            match end {
                // Once, or two managers that take each other for the leader would be asked without a rest.
                End::Elsewhere(Some(leader)) => {
                    if addresses.lead_to(leader) {
                        continue;
                    }
                }
                End::Removed(reason) => self.lose_all(&reason).await,
                End::Changed => addresses.stay(manager),
                End::Late => {
                    self.hands.links.renew();
                    addresses.was_led = false;
                }
                End::Refused(reason) => {
                    tracing::error!(reason, "the leader takes no session of this node");
                    addresses.was_led = false;
                }
                End::Elsewhere(None) | End::Lost(_) => addresses.was_led = false,
            }
            sleep(backoff.next(met, self.hands.world.bits())).await;
        }
    }

    /// Returns when the session has ended.
    async fn hold(&mut self, manager: &ManagerAddress) -> End {
        match self.begin(Destination::manager(manager)).await {
            Err(end) => end,
            Ok(begun) => {
                let Session { leader, number, .. } = &begun.session;
                self.hands.present.set(Some((leader.clone(), *number)));
                let Err(end) = self.follow(begun).await;
                self.hands.present.set(None);
                end
            }
        }
    }

    async fn begin(&mut self, leader: Destination) -> Result<Begun, End> {
        let description = self.hands.executor.describe().await;
        let asked = SessionAsked {
            description: description.clone(),
            roots: self.roots.borrow_and_update().clone(),
            words: self.hands.words.begin(),
            address: self.address.clone(),
            process: self.process,
            tunnels: true,
            layers: self.hands.executor.layers().map_or(0, |layers| layers.port()),
        };
        let sent = Instant::now();
        let opened = self.hands.links.open(&leader, &asked, ANSWER).await;
        let mut messages = opened.map_err(|error| match error {
            CallError::Refused(Refusal::Denied(reason)) => End::Removed(reason),
            CallError::Dial(error @ DialError::ShutOut { .. }) => End::Removed(error.to_string()),
            error => error.into(),
        })?;
        let first = timeout(ANSWER, messages.next()).await.unwrap_or(Err(CallError::Late))?;
        let Some(SessionMessage::Begun { session, heartbeat }) = first else {
            return Err(End::Lost("the session's first message is another one".to_owned()));
        };
        let session = Session { hands: Arc::clone(&self.hands), leader, number: session };
        session.heard(sent);
        self.is_removed = false;
        tracing::info!(manager = session.leader.address, "in a session");
        Ok(Begun { session, heartbeat, description, messages })
    }

    /// Does what the leader says, until the session ends.
    async fn follow(&mut self, begun: Begun) -> Result<Infallible, End> {
        let Begun { session, heartbeat, description, mut messages } = begun;
        let mut parts = JoinSet::new();
        parts.spawn(session.clone().beat(heartbeat));
        parts.spawn(session.clone().tell());
        parts.spawn(watch_description(Arc::clone(&self.hands), description));
        let mut following = Following {
            held: Held::default(),
            readers: Readers::new(session.clone()),
            measures: Measures::new(session.clone()),
            tunnels: Tunnels::new(session),
        };
        loop {
            let message = tokio::select! {
                biased;
                Some(end) = parts.join_next() => {
                    return Err(end.unwrap_or_else(|error| End::Lost(error.to_string())));
                }
                Ok(()) = self.roots.changed() => return Err(End::Changed),
                message = messages.next() => message?,
            };
            let message = message.ok_or_else(|| End::Lost("the manager has ended it".to_owned()))?;
            self.act(&mut following, message).await?;
        }
    }

    async fn act(&self, following: &mut Following, message: SessionMessage) -> Result<(), End> {
        match message {
            SessionMessage::Begun { .. } => return Err(End::Lost("it begins twice".to_owned())),
            SessionMessage::Managers(managers) => self.take_managers(managers).await,
            SessionMessage::Membership(membership) => {
                self.hands.events.send(WorkerEvent::Membership(membership));
            }
            SessionMessage::AssignmentPart(changes) => following.receive(&changes)?,
            SessionMessage::Assignment(changes) => {
                following.receive(&changes)?;
                self.roster.lock().await.take(&following.held).await;
            }
            SessionMessage::Logs(wanted) => {
                let roster = self.roster.lock().await;
                let tasks = wanted.tasks.iter().map(|id| (*id, roster.task(*id))).collect();
                following.readers.begin(wanted, tasks);
            }
            SessionMessage::LogsEnd { subscription } => following.readers.end(subscription),
            SessionMessage::Tunnel(wanted) => following.tunnels.begin(wanted),
            SessionMessage::Measures(wanted) => following.measures.set(wanted),
        }
        Ok(())
    }

    async fn take_managers(&self, managers: Vec<ManagerAddress>) {
        if !managers.is_empty() && self.hands.events.take_managers(managers.clone()) {
            self.hands.store.write(vec![Row::managers(&managers)]).await;
        }
    }

    /// The node has nothing any more.
    async fn lose_all(&mut self, reason: &str) {
        if std::mem::replace(&mut self.is_removed, true) {
            return;
        }
        tracing::error!(reason, "the cluster does not know this node");
        self.hands.events.send(WorkerEvent::Removed);
        self.roster.lock().await.take(&Held::default()).await;
    }
}

/// What a session begins with.
struct Begun {
    session: Session,
    heartbeat: Duration,
    description: NodeDescription,
    messages: Messages<SessionMessage>,
}

/// What is known in one session only.
struct Following {
    held: Held,
    readers: Readers,
    measures: Measures,
    tunnels: Tunnels,
}

impl Following {
    fn receive(&mut self, changes: &AssignmentChanges) -> Result<(), End> {
        self.held.receive(changes).map_err(|error| {
            tracing::warn!(%error, "asking for the whole assignment again");
            End::Changed
        })
    }
}

impl Session {
    /// A manager has answered what was sent at that moment.
    fn heard(&self, sent: Instant) {
        self.hands.contact.heard(sent);
        if self.hands.contact.is_kept() {
            let at = self.hands.contact.at(self.hands.world.now());
            self.hands.store.note(Row::contact(at));
        }
    }

    async fn beat(self, mut period: Duration) -> End {
        loop {
            sleep(period).await;
            let sent = Instant::now();
            let beat = Heartbeat { session: self.number };
            match self.hands.links.ask(&self.leader, &beat, period.max(GATHER)).await {
                Ok(taken) => period = taken.next,
                Err(error) => return error.into(),
            }
            self.heard(sent);
        }
    }

    /// Tells news, and ends until they are committed.
    async fn tell(self) -> End {
        let words = &self.hands.words;
        loop {
            if words.has_uncommitted() {
                let _ = timeout(AGAIN, words.news()).await;
                words.tell_again();
            } else {
                words.news().await;
            }
            sleep(GATHER).await;
            let news = words.take_news();
            if news.is_empty() {
                continue;
            }
            let tell = Tell { session: self.number, words: news };
            match self.hands.links.ask(&self.leader, &tell, ANSWER).await {
                Ok(taken) => words.committed(&taken.committed),
                Err(error) => return error.into(),
            }
        }
    }
}

/// Ends when the node is not any more what the session began with.
async fn watch_description(hands: Arc<Hands>, told: NodeDescription) -> End {
    loop {
        sleep(DESCRIBE).await;
        if hands.executor.describe().await != told {
            return End::Changed;
        }
    }
}

/// Which manager is tried next: the one that was said to lead, then each in turn.
#[derive(Debug, Default)]
struct Addresses {
    turn: VecDeque<ManagerAddress>,
    is_begun: bool,
    /// Whether the last one was named by another.
    was_led: bool,
}

impl Addresses {
    /// The node's own order holds at first; after that each round begins with any of them, or all workers would come to one.
    fn next(&mut self, hands: &Hands) -> Option<ManagerAddress> {
        if self.turn.is_empty() {
            self.turn.extend(hands.events.managers());
            if std::mem::replace(&mut self.is_begun, true) && !self.turn.is_empty() {
                let first = hands.world.bits() % u128::try_from(self.turn.len()).unwrap_or(1);
                self.turn.rotate_left(usize::try_from(first).unwrap_or(0));
            }
        }
        self.turn.pop_front()
    }

    /// Another manager is said to lead; whether it may be tried at once.
    fn lead_to(&mut self, leader: ManagerAddress) -> bool {
        let was_led = self.was_led;
        self.stay(leader);
        self.was_led = true;
        !was_led
    }

    fn stay(&mut self, manager: ManagerAddress) {
        self.was_led = false;
        self.turn.retain(|it| it.address != manager.address);
        self.turn.push_front(manager);
    }
}

//! Clients: each asks one thing after another of any manager, and remembers what it saw last. They are no machines: one stands
//! beside the manager that it asks, which may be cut off from all others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use super::api::{self, Asked};
use super::history::{History, Ticket};
use super::register::{Action, Answer, Seen};
use crate::cluster::Cluster;
use crate::random::Random;
use crate::site::Site;

/// A client waits no longer; what it asked for may still be done.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between an answer and the next question, in milliseconds.
const THINKS: u64 = 250;

pub(crate) type Recorded = Arc<Mutex<History>>;

pub(crate) fn lock(history: &Recorded) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) history: Recorded,
    clients: Vec<Client>,
    /// Of the next write.
    value: u64,
}

#[derive(Debug, Default)]
struct Client {
    waits: Option<Waiting>,
    /// When it asks next.
    next: Duration,
    /// The object that it saw last.
    seen: Option<(String, Seen)>,
}

#[derive(Debug)]
struct Waiting {
    name: String,
    until: Duration,
    outcome: Outcome,
}

/// None until it is known.
type Outcome = Arc<Mutex<Option<Answer>>>;

/// A request under way. When its manager dies with it, nobody knows its outcome.
struct Open {
    history: Recorded,
    ticket: Ticket,
    outcome: Outcome,
}

impl Open {
    fn tell(&self, answer: Answer) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_none() {
            *outcome = Some(answer);
            lock(&self.history).tell(&self.ticket, answer);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tell(Answer::Unknown);
    }
}

impl Clients {
    pub(crate) fn new(count: usize) -> Self {
        let clients = std::iter::repeat_with(Client::default).take(count).collect();
        Self { history: Recorded::default(), clients, value: 0 }
    }

    /// Those that have an answer take it, those that have waited enough ask; `names` are the objects of now.
    pub(crate) fn go_on(&mut self, cluster: &Cluster, random: &mut Random, names: &[String]) {
        let now = cluster.elapsed();
        for number in 0..self.clients.len() {
            if self.hear(number, now) {
                self.clients[number].next = now + Duration::from_millis(random.below(THINKS));
            }
            let client = &self.clients[number];
            if client.waits.is_none() && client.next <= now {
                let site = &cluster.sites[pick(random, cluster.sites.len())];
                let name = &names[pick(random, names.len())];
                self.ask_something(number, (site, name), now, random);
            }
        }
    }

    /// Whether no client waits.
    pub(crate) fn are_done(&mut self, now: Duration) -> bool {
        for number in 0..self.clients.len() {
            let _now_or_before = self.hear(number, now);
        }
        self.clients.iter().all(|client| client.waits.is_none())
    }

    /// Every manager is asked what each object is, by a client of its own.
    pub(crate) fn read_all(&mut self, cluster: &Cluster, names: &[String]) {
        for site in &cluster.sites {
            for name in names {
                self.clients.push(Client::default());
                let number = self.clients.len() - 1;
                self.ask(number, (site, name), cluster.elapsed(), Action::Read);
            }
        }
    }

    /// Whether the client was told, or has waited enough.
    fn hear(&mut self, number: usize, now: Duration) -> bool {
        let client = &mut self.clients[number];
        let Some(waiting) = &client.waits else { return false };
        let mut outcome = waiting.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_none() && now >= waiting.until {
            // What comes now is for nobody: in the history its outcome stays open.
            *outcome = Some(Answer::Unknown);
        }
        let Some(answer) = *outcome else { return false };
        drop(outcome);
        if let Answer::Read(seen) = answer {
            client.seen = seen.map(|seen| (waiting.name.clone(), seen));
        }
        client.waits = None;
        true
    }

    /// Mostly reads, and updates of what this client has seen, however long ago.
    fn ask_something(
        &mut self,
        number: usize,
        (site, name): (&Site, &str),
        now: Duration,
        random: &mut Random,
    ) {
        self.value += 1;
        let value = self.value;
        let (name, action) = match (random.below(20), self.clients[number].seen.clone()) {
            (0..=8, _) => (name.to_owned(), Action::Read),
            (9..=16, Some((name, seen))) => (name, Action::Replace { seen, value }),
            (17, Some((name, seen))) => (name, Action::Remove { seen }),
            _ => (name.to_owned(), Action::Create { value }),
        };
        self.ask(number, (site, &name), now, action);
    }

    fn ask(&mut self, number: usize, (site, name): (&Site, &str), now: Duration, action: Action) {
        let ticket = lock(&self.history).ask(name, action);
        let outcome = Outcome::default();
        let open = Open { history: Arc::clone(&self.history), ticket, outcome: Arc::clone(&outcome) };
        let asked = Asked { name: name.to_owned(), action };
        let waiting = Waiting { name: name.to_owned(), until: now + PATIENCE, outcome };
        self.clients[number].waits = Some(waiting);
        // Without an agent the request is dropped, and its outcome as open as any that is lost.
        let _runs = site.order(move |node| async move { open.tell(api::ask(&node, asked).await) }.boxed());
    }
}

fn pick(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap_or(0)
}

//! What happens, told to whoever listens: `docker events`, Compose. The last 256 are kept for those who ask for what was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::locks::locked;

/// How many are kept, as dockerd does.
const KEPT: usize = 256;
/// How far a listener may be behind before it loses the oldest.
const BUFFERED: usize = 1024;

/// One event, as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Before version 1.52, of containers and images: the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The same: the object's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The same: the container's image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `network`, `volume`, `daemon`; of the cluster `service`, `node`, `secret`, `config`, `network`.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// `create`, `start`, `die`...; some end in `: ` and an operand.
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`, or `swarm`.
    pub scope: &'static str,
    /// Seconds since 1970.
    pub time: u64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

/// The object of an event.
#[derive(Clone, Debug, Serialize)]
pub struct Actor {
    /// Its id; a volume's is its name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels, name and image; what else the action has.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// All of them.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
    count: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), sender: broadcast::channel(BUFFERED).0, count: AtomicU64::new(0) }
    }
}

impl Events {
    /// Tells everyone of something that happened here.
    pub fn publish(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        self.tell(kind, "local", action.into(), Actor { id: id.to_owned(), attributes });
    }

    /// Tells everyone of something that happened to the cluster.
    pub fn publish_of_cluster(
        &self,
        kind: &'static str,
        action: &'static str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        self.tell(kind, "swarm", action.to_owned(), Actor { id: id.to_owned(), attributes });
    }

    fn tell(&self, kind: &'static str, scope: &'static str, action: String, actor: Actor) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let legacy = matches!(kind, "container" | "image");
        let from = if kind == "container" { actor.attributes.get("image").cloned() } else { None };
        let event = Event {
            status: if legacy { action.clone() } else { String::new() },
            id: if legacy { actor.id.clone() } else { String::new() },
            from: from.unwrap_or_default(),
            kind,
            action,
            actor,
            scope,
            time: since.as_secs(),
            time_nano: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        };
        // Under the lock, so that nobody who asks for what was and what comes gets one twice or not at all.
        let mut kept = locked(&self.kept);
        if kept.len() == KEPT {
            drop(kept.pop_front());
        }
        kept.push_back(event.clone());
        let _before = self.count.fetch_add(1, Ordering::Relaxed);
        let _listeners = self.sender.send(event);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> u64 {
        self.sender.receiver_count() as u64
    }

    /// What was and what comes.
    pub fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = locked(&self.kept);
        (kept.iter().cloned().collect(), self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let events = Events::default();
        for number in 0..KEPT + 2 {
            events.publish("container", number.to_string(), "id", BTreeMap::new());
        }
        let (was, mut comes) = events.listen();
        assert_eq!((was.len(), was[0].action.as_str()), (KEPT, "2"));
        events.publish("volume", "create", "v", BTreeMap::new());
        assert_eq!(comes.try_recv().map(|event| event.action).ok().as_deref(), Some("create"));
    }
}

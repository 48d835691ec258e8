//! What is counted in ketchd itself, beside what its modules count.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use ketch_node::measure::{Counter, Spans, SpansNow};

use super::cluster::LastSums;

/// The classes of requests: the first word of the path behind the version, and `other`.
pub(super) const CLASSES: [&str; 20] = [
    "_ping",
    "auth",
    "build",
    "cluster",
    "configs",
    "containers",
    "distribution",
    "events",
    "exec",
    "images",
    "info",
    "networks",
    "nodes",
    "secrets",
    "services",
    "swarm",
    "system",
    "tasks",
    "volumes",
    "other",
];
/// As their first digit says.
pub(super) const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
pub struct Counted {
    requests: [Requests; CLASSES.len()],
    /// How long the node's networks of the cluster took to be made so, each time.
    pub(crate) networks: Spans,
    /// What kept one of them from it.
    pub(crate) network_problems: Counter,
    /// Layers between this node and others.
    pub(crate) layers: Arc<LayersCounted>,
    /// Requests of clients that another node has answered.
    pub(crate) asked_elsewhere: Answers,
    /// Requests of managers about tasks' containers here.
    pub(crate) visits: Answers,
    /// Of the cluster, where this node leads it.
    pub(super) sums: LastSums,
}

/// Pieces of layers, in both directions.
#[derive(Debug, Default)]
pub(crate) struct LayersCounted {
    pub(crate) given: Pieces,
    pub(crate) received: Pieces,
    /// Nodes that gave wrong bytes, each time.
    pub(crate) wrong: Counter,
}

/// Those of one direction.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// From a request to its bytes, turns and rates that were waited for among it.
    pub(crate) took: Spans,
    pub(crate) bytes: Counter,
    /// Requests that had none: what was asked for was not there, or not yet.
    pub(crate) none: Counter,
}

impl Pieces {
    /// How a request for a piece has ended, which has brought so many bytes.
    pub(crate) fn ended(&self, bytes: Option<usize>, took: Duration) {
        match bytes {
            Some(bytes) => {
                self.took.took(took);
                self.bytes.add(bytes);
            }
            None => self.none.add(1),
        }
    }
}

/// Answers by the class of their status.
#[derive(Debug, Default)]
pub(crate) struct Answers([Counter; STATUSES.len()]);

impl Answers {
    pub(crate) fn count(&self, status: StatusCode) {
        let digit = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.0.get(digit) {
            counter.add(1);
        }
    }

    /// In the order of [`STATUSES`].
    pub(super) fn counts(&self) -> [u64; STATUSES.len()] {
        std::array::from_fn(|digit| self.0[digit].count())
    }
}

#[derive(Debug, Default)]
struct Requests {
    answered: Answers,
    /// Until the answer begins.
    took: Spans,
}

impl Counted {
    /// An answer to a request for that path.
    pub(crate) fn answered(&self, path: &str, status: StatusCode, took: Duration) {
        let Some(requests) = self.requests.get(class(path)) else { return };
        requests.took.took(took);
        requests.answered.count(status);
    }

    /// Of each class that was asked for: the answers by status, and how long they took.
    pub(super) fn requests(&self) -> Vec<(&'static str, [u64; STATUSES.len()], SpansNow)> {
        let all = CLASSES.into_iter().zip(&self.requests);
        let all = all.map(|(class, requests)| (class, requests.answered.counts(), requests.took.now()));
        all.filter(|(_, _, took)| took.count > 0).collect()
    }
}

fn class(path: &str) -> usize {
    let mut words = path.split('/').filter(|word| !word.is_empty());
    let is_version = |word: &str| {
        word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let word = match words.next() {
        Some(word) if is_version(word) => words.next(),
        word => word,
    };
    CLASSES.iter().position(|class| Some(*class) == word).unwrap_or(CLASSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_few_classes() {
        for (path, wanted) in [
            ("/v1.50/containers/abc/json", "containers"),
            ("/services", "services"),
            ("/v1.50", "other"),
            ("/volumesx", "other"),
            ("/", "other"),
            ("/_ping", "_ping"),
        ] {
            assert_eq!(CLASSES[class(path)], wanted, "{path}");
        }
    }

    #[test]
    fn pieces_that_nobody_had_are_no_spans() {
        let pieces = Pieces::default();
        pieces.ended(Some(7), Duration::from_millis(2));
        pieces.ended(None, Duration::from_secs(4));
        assert_eq!((pieces.took.now().count, pieces.bytes.count(), pieces.none.count()), (1, 7, 1));
    }

    #[test]
    fn answers_are_counted_by_class_and_status() {
        let counted = Counted::default();
        counted.answered("/v1.50/nodes", StatusCode::OK, Duration::from_millis(2));
        counted.answered("/nodes/x", StatusCode::NOT_FOUND, Duration::from_millis(2));
        let all = counted.requests();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0, all[0].1, all[0].2.count), ("nodes", [0, 1, 0, 1, 0], 2));
    }
}

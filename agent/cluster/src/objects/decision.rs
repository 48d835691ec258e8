//! What was decided of a task, in the few bytes that go into the log with it: a new leader can say it too.
//!
//! Written by the orchestrators at a task's birth and by the scheduler with its node; read by [`explain`](crate::explain) alone.
//! Nothing else may be derived from it: what reconcilers need has fields of its own.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    #[serde(skip_serializing_if = "Cause::is_unknown")]
    pub cause: Cause,
    /// Of a task that the scheduler has chosen a node for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
}

impl Decision {
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a task was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An older manager has made it, or it is no service's.
    #[default]
    Unknown,
    /// The service was created.
    Created,
    /// The service wants more tasks than it did when it was created.
    Scaled,
    /// The service has a task on each node, and this one has come, or is open to it again.
    NodeCame,
    /// Of a job: an iteration of it has begun.
    Run,
    /// The one before has ended by itself, with that code if a container of it ran.
    Restarted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// The node of the one before is down, or has left.
    NodeDown,
    /// The node of the one before was removed from the cluster.
    NodeRemoved,
    /// The node of the one before is drained.
    Drained,
    /// The one before was asked to leave its node, which is there: it does not fit there any more, or others come first.
    Moved,
    /// The service's spec has changed.
    Updated,
    /// The service goes back to its spec of before.
    RolledBack,
}

impl Cause {
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

/// What the scheduler saw when it chose the task's node, as three numbers in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct Placed {
    /// How many nodes there were.
    pub nodes: u32,
    /// How many live tasks of the service were on the chosen one.
    pub of_service: u32,
    /// How many live tasks were on it.
    pub live: u32,
}

impl From<[u32; 3]> for Placed {
    fn from([nodes, of_service, live]: [u32; 3]) -> Self {
        Self { nodes, of_service, live }
    }
}

impl From<Placed> for [u32; 3] {
    fn from(placed: Placed) -> Self {
        [placed.nodes, placed.of_service, placed.live]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_few_bytes_of_it() {
        let placed = Some(Placed { nodes: 10_000, of_service: 0, live: 95 });
        for (decision, text) in [
            (Decision::default(), "{}"),
            (Decision { cause: Cause::Created, placed }, r#"{"cause":"created","placed":[10000,0,95]}"#),
            (
                Decision { cause: Cause::Restarted { exit_code: Some(1) }, placed: None },
                r#"{"cause":{"restarted":{"exit_code":1}}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&decision).unwrap(), text);
            assert_eq!(serde_json::from_str::<Decision>(text).unwrap(), decision);
        }
    }
}

//! How long an engine is waited for: three times ketchd's own promises (issue 6), which a bench is to hold, not a test that shares
//! its machine; and Docker's slower numbers where dockerd runs the same test.
//!
//! Called by the `mesh_cluster` tests.

use std::time::Duration;

use crate::ketchd::Maker;

/// The numbers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the leader's death to another one.
    pub election: Duration,
    /// From a node's death to its tasks running elsewhere.
    pub replacement: Duration,
    /// Until a node is told as down.
    pub down: Duration,
    /// Until a manager that has lost the others refuses to answer.
    pub lost_quorum: Duration,
    /// An absence that moves nothing.
    pub blip: Duration,
}

impl Pace {
    /// Those of an engine. ketchd's: issue 6; a node is down after three missed heartbeats of 2 s. dockerd's: heartbeats of 5 s,
    /// elections after 10 to 20 ticks of 1 s, replacements after a restart delay of 5 s; all of it doubled.
    #[must_use]
    pub fn of(maker: &Maker) -> Self {
        let seconds = Duration::from_secs;
        match maker {
            Maker::Ketch(_) => Self {
                election: seconds(9),
                replacement: seconds(30),
                down: seconds(27),
                lost_quorum: seconds(45),
                blip: seconds(5),
            },
            Maker::Docker | Maker::Debian => Self {
                election: seconds(60),
                replacement: seconds(60),
                down: seconds(40),
                lost_quorum: seconds(40),
                blip: seconds(5),
            },
        }
    }
}

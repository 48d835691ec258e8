//! What a log is opened with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy, StepDownPolicy};

use crate::network::Patience;
use crate::{Blocking, DataKeys, Entropy, Peer, SnapshotFiles, Transport};

/// Entries in one message to a follower, each up to a transaction of 200 actions.
const ENTRIES_IN_A_MESSAGE: u64 = 64;

/// How a manager takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    pub me: Peer,
    pub timing: Timing,
    pub retention: Retention,
    pub blocking: Blocking,
    /// Of the draws of election timeouts: random in production, the simulation's in a simulation.
    pub seed: u64,
    pub start: Start,
}

/// Raft's clock (`Raft.HeartbeatTick` and `Raft.ElectionTick` of the cluster's spec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub tick: Duration,
    /// A leader is heard of this often.
    pub heartbeat_ticks: u32,
    /// A follower that hears of none for one to two times this long stands for election.
    pub election_ticks: u32,
}

/// When the log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries of a snapshot that stay in the log, for followers that are a little behind.
    pub keep: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As part of the cluster that the disk knows; of none when it is empty.
    Resume,
    /// As the only voter, with whatever the disk holds: when the other managers are lost for good.
    ForceNewCluster,
}

/// What is outside.
pub struct World<B> {
    /// The log's storage: a file, or one that forgets what was not synced.
    pub log: B,
    pub snapshots: Arc<dyn SnapshotFiles>,
    pub transport: Arc<dyn Transport>,
    pub entropy: Entropy,
    /// Seal the log and the snapshots on this disk. Each manager has its own.
    pub data_keys: DataKeys,
}

impl<B> fmt::Debug for World<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("snapshots", &self.snapshots).finish_non_exhaustive()
    }
}

impl Timing {
    fn election(self) -> Duration {
        self.tick * self.election_ticks
    }

    /// A peer may take an election's time for one part of a snapshot, and ten times that, or a minute, to read it all.
    pub(crate) fn patience(self) -> Patience {
        let install = (self.election() * 10).max(Duration::from_secs(60));
        Patience { part: self.election(), install }
    }
}

impl Settings {
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let election = milliseconds(self.timing.election());
        let config = Config {
            cluster_name: "ketch".to_owned(),
            heartbeat_interval: milliseconds(self.timing.tick * self.timing.heartbeat_ticks),
            election_timeout_min: election,
            election_timeout_max: election.saturating_mul(2),
            install_snapshot_timeout: milliseconds(self.timing.patience().install),
            max_payload_entries: ENTRIES_IN_A_MESSAGE,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.retention.snapshot_every),
            max_in_snapshot_log_to_keep: self.retention.keep,
            // Beyond what the next snapshot will purge anyway.
            replication_lag_threshold: self.retention.snapshot_every.saturating_mul(2),
            // A manager that comes back from a partition must not unseat a leader that works.
            enable_pre_vote: Some(true),
            // A leader that no quorum answers falls silent, so that followers that hear it alone stop following it.
            quorum_loss_probe_interval: Some(election.saturating_mul(4)),
            // The last commit is saved without a sync of its own, so a restarted leader has to be elected again.
            enable_leader_restore: Some(false),
            removed_leader_step_down: StepDownPolicy::After(election),
            ..Config::default()
        };
        config.validate()
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

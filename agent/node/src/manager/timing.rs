//! Raft's clock and the length of its log, of the cluster's settings.
//!
//! The settings count in Docker's ticks, ten for an election and one for a heartbeat, of which Docker makes seconds: its next
//! leader comes after 10 to 20 s. Here it is to lead within 3 s of the leader's death. A tick is 60 ms, so that a follower
//! which hears of no leader for `election` (600 ms) to twice that stands, after it has kept its lease, which is twice that
//! (1.2 s): 1.8 to 2.4 s. A heartbeat is each 180 ms, so that a lease takes six that are lost.

use std::time::Duration;

use ketch_cluster::objects::cluster::RaftConfig;
use ketch_raft::{Retention, Timing};

const TICK: Duration = Duration::from_millis(60);
/// Of one of Docker's heartbeats.
const HEARTBEAT_TICKS: u32 = 3;
/// An election is longer than so many heartbeats.
const LEAST_RATIO: u32 = 3;
/// Just under a second: a member that has missed three is shown as unreachable.
const MOST_HEARTBEAT_TICKS: u32 = 16;

pub(super) fn timing(raft: &RaftConfig) -> Timing {
    let election_ticks = raft.election_tick.max(LEAST_RATIO);
    let most = (election_ticks / LEAST_RATIO).min(MOST_HEARTBEAT_TICKS);
    let heartbeat_ticks = raft.heartbeat_tick.saturating_mul(HEARTBEAT_TICKS).clamp(1, most);
    Timing { tick: TICK, heartbeat_ticks, election_ticks }
}

pub(super) fn retention(raft: &RaftConfig) -> Retention {
    Retention { snapshot_every: raft.snapshot_interval.max(1), keep: raft.log_entries_for_slow_followers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(election_tick: u32, heartbeat_tick: u32) -> Timing {
        timing(&RaftConfig { election_tick, heartbeat_tick, ..RaftConfig::default() })
    }

    #[test]
    fn dockers_defaults_make_a_leader_within_three_seconds() {
        let timing = of(10, 1);
        let election = timing.tick * timing.election_ticks;
        assert_eq!(election, Duration::from_millis(600));
        assert!(election * 4 < Duration::from_millis(2500), "the lease and the longest election");
        assert_eq!(timing.tick * timing.heartbeat_ticks, Duration::from_millis(180));
    }

    #[test]
    fn whatever_is_set_an_election_takes_three_heartbeats() {
        for (election, heartbeat) in [(0, 0), (1, 5), (2, 1), (10, 9), (100, 1), (u32::MAX, u32::MAX)] {
            let timing = of(election, heartbeat);
            assert!(timing.heartbeat_ticks >= 1, "{timing:?}");
            assert!(timing.election_ticks / timing.heartbeat_ticks >= 3, "{timing:?}");
            assert!(timing.tick * timing.heartbeat_ticks < Duration::from_secs(1), "{timing:?}");
        }
    }
}

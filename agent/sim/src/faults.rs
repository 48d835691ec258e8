//! What goes wrong while a cluster works.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::locks::lock;
use crate::random::Random;
use crate::requests::Known;
use crate::scene::{Clocks, Power, Scene, Work};

/// A fault that ends by itself at a moment of the run.
#[derive(Debug, Clone, Copy)]
struct Open {
    until: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Down(usize),
    Parted(usize, usize),
    Skewed(usize),
}

/// The faults of a run: so many at once that a majority of managers is there mostly, not always.
#[derive(Debug)]
pub(crate) struct Faults {
    open: Vec<Open>,
    scene: Scene,
    /// How often all machines are still to lose power.
    blackouts: u32,
    /// Requests that were acknowledged until the last look.
    acknowledged: u64,
    /// Jobs' tasks that had ended until then, by machine.
    ended: Vec<u64>,
    /// Whom to kill, and when: the machine on which a job's task has ended, and who leads.
    ambush: Option<(Duration, usize)>,
    doomed: Option<Doomed>,
}

/// A machine that is to lose power in the middle of its next sync.
#[derive(Debug, Clone, Copy)]
struct Doomed {
    index: usize,
    /// Until then; without a sync it is spared.
    until: Duration,
    /// It is away for so long.
    away: Duration,
}

/// So many open faults are enough, but for those that are directed.
const MOST: usize = 3;

impl Faults {
    pub(crate) fn new(scene: Scene) -> Self {
        let blackouts = if scene.power == Power::FailsEverywhere { 2 } else { 0 };
        let ended = vec![0; scene.managers + scene.workers];
        Self { open: Vec::new(), scene, blackouts, acknowledged: 0, ended, ambush: None, doomed: None }
    }

    /// Ends what is to end, and begins a new one now and then.
    pub(crate) fn go_on(&mut self, cluster: &mut Cluster, random: &mut Random, known: &Known) {
        let now = cluster.elapsed();
        let (ended, open) = self.open.iter().partition(|fault| fault.until <= now);
        self.open = open;
        end(cluster, ended);
        self.black_out(cluster, random, lock(known).acknowledged);
        self.lie_in_wait(cluster, random);
        self.strike(cluster, random);
        if self.open.len() < MOST && random.below(60) == 0 {
            self.begin(cluster, random);
        }
    }

    /// All machines lose power, in the very moment that somebody was told that something is done.
    fn black_out(&mut self, cluster: &mut Cluster, random: &mut Random, acknowledged: u64) {
        let is_news = std::mem::replace(&mut self.acknowledged, acknowledged) < acknowledged;
        if self.blackouts == 0 || !is_news || random.below(4) != 0 {
            return;
        }
        self.blackouts -= 1;
        for index in 0..cluster.sites.len() {
            if !cluster.is_down(index) {
                cluster.power_off(index, random);
                let until = cluster.elapsed() + Duration::from_millis(random.between(100, 3_000));
                self.open.push(Open { until, kind: Kind::Down(index) });
            }
        }
    }

    /// A job's task has ended: its worker and the leader are killed before, while or just after that is acknowledged.
    fn lie_in_wait(&mut self, cluster: &mut Cluster, random: &mut Random) {
        if self.scene.work != Work::Jobs {
            return;
        }
        for index in 0..cluster.sites.len() {
            let ended = cluster.sites[index].machine.jobs_ended();
            let is_news = std::mem::replace(&mut self.ended[index], ended) < ended;
            if is_news && self.ambush.is_none() && self.open.is_empty() && random.below(2) == 0 {
                let at = cluster.elapsed() + Duration::from_millis(50 * random.below(9));
                self.ambush = Some((at, index));
                cluster.look_who_leads();
            }
        }
        let Some((_, worker)) = self.ambush.take_if(|(at, _)| *at <= cluster.elapsed()) else { return };
        let until = cluster.elapsed() + Duration::from_millis(random.between(100, 10_000));
        let victims = [Some(worker), cluster.leading().filter(|leader| *leader != worker)];
        for index in
            victims.into_iter().flatten().filter(|index| !cluster.is_down(*index)).collect::<Vec<_>>()
        {
            if random.below(2) == 0 {
                cluster.kill(index);
            } else {
                cluster.power_off(index, random);
            }
            self.open.push(Open { until, kind: Kind::Down(index) });
        }
    }

    /// A sync has failed: the machine loses power, and what was to be synced is there in part.
    fn strike(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let Some(Doomed { index, until, away }) = self.doomed else { return };
        let is_struck = cluster.sites[index].disk.has_failed();
        if !is_struck && cluster.elapsed() < until {
            return;
        }
        self.doomed = None;
        if !is_struck {
            cluster.sites[index].disk.spare();
        } else if cluster.is_down(index) {
            // Its agent was killed in the same moment.
            cluster.sites[index].disk.crash(random);
        } else {
            cluster.power_off(index, random);
            self.open.push(Open { until: cluster.elapsed() + away, kind: Kind::Down(index) });
        }
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self, cluster: &mut Cluster, random: &mut Random) {
        cluster.note("heal");
        if let Some(doomed) = &mut self.doomed {
            doomed.until = Duration::ZERO;
        }
        self.strike(cluster, random);
        end(cluster, std::mem::take(&mut self.open));
    }

    fn begin(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let all = cluster.sites.len() as u64;
        let pick = |random: &mut Random| usize::try_from(random.below(all)).unwrap_or(0);
        let (one, other) = (pick(random), pick(random));
        let until = cluster.elapsed() + Duration::from_millis(random.between(100, 12_000));
        let kind = match random.below(8) {
            0 | 1 if !cluster.is_down(one) => {
                cluster.kill(one);
                Kind::Down(one)
            }
            2 if !cluster.is_down(one) => {
                cluster.power_off(one, random);
                Kind::Down(one)
            }
            3 if !cluster.is_down(one) && self.doomed.is_none() => {
                cluster.note(&format!("node-{one} is to lose power in a sync"));
                cluster.sites[one].disk.fail_at_next_sync();
                let away = Duration::from_millis(random.between(100, 12_000));
                self.doomed = Some(Doomed { index: one, until, away });
                return;
            }
            4..=6 if one != other => {
                cluster.part(one, other);
                Kind::Parted(one, other)
            }
            7 if self.scene.clocks == Clocks::Jump => {
                let seconds = i64::try_from(random.below(120)).unwrap_or(0) - 60;
                cluster.note(&format!("clock of node-{one} is {seconds} s ahead"));
                set_clock(cluster, one, seconds);
                Kind::Skewed(one)
            }
            _ => return,
        };
        self.open.push(Open { until, kind });
    }
}

fn end(cluster: &mut Cluster, faults: Vec<Open>) {
    for fault in faults {
        match fault.kind {
            Kind::Down(index) => cluster.start(index),
            Kind::Parted(one, other) => cluster.join_again(one, other),
            Kind::Skewed(index) => set_clock(cluster, index, 0),
        }
    }
}

fn set_clock(cluster: &Cluster, index: usize, seconds: i64) {
    let mut skew = cluster.sites[index].skew.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *skew = seconds * 1_000_000_000;
}

//! What goes wrong while a cluster works.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::random::Random;

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

/// Whether clocks jump. Managers count fences by their wall clock, so then no service has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    Good,
    Jump,
}

/// The faults of a run: so many at once that a majority of managers is there mostly, not always.
#[derive(Debug)]
pub(crate) struct Faults {
    open: Vec<Open>,
    clocks: Clocks,
}

impl Faults {
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self { open: Vec::new(), clocks }
    }

    /// Ends what is to end, and begins a new one now and then.
    pub(crate) fn go_on(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let now = cluster.elapsed();
        let (ended, open) = self.open.iter().partition(|fault| fault.until <= now);
        self.open = open;
        end(cluster, ended);
        if self.open.len() < 3 && random.below(60) == 0 {
            self.begin(cluster, random);
        }
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self, cluster: &mut Cluster) {
        cluster.note("heal");
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
            2 | 3 if !cluster.is_down(one) => {
                cluster.power_off(one, random);
                Kind::Down(one)
            }
            4..=6 if one != other => {
                cluster.part(one, other);
                Kind::Parted(one, other)
            }
            7 if self.clocks == Clocks::Jump => {
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

//! How many replicas a service should have by the load of its tasks: the labels `ketch.scale.*`.
//!
//! The leader looks every few seconds: it sums what the workers have told of a service's running tasks ([`Load`]), and asks
//! [`History::decide`], which remembers the looks within the service's window. What it answers is written as the service's
//! replicas; nothing else is in the log. A new leader has no history: it makes fewer only once its own window has passed.
//! Integers only: thousandths of a replica, so that the same looks give the same answer everywhere.

use std::time::Duration;

use crate::label::scale::{self, Scale};
use crate::objects::resources::ResourceRequirements;
use crate::objects::{Service, ServiceMode};
use crate::time::Timestamp;

/// For so long more must have been wanted before there are more. With a look every 5 s a step is answered within 15 s.
const UP: Duration = Duration::from_secs(8);

/// A look that comes later than that after the one before does not go on with it.
const MOST_BETWEEN: Duration = Duration::from_secs(60);

/// A tenth more or less is no reason: thousandths.
const TOO_MUCH: u64 = 1100;
const TOO_LITTLE: u64 = 900;

/// What the workers have told of a service's running tasks within the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How many tasks run.
    pub running: u64,
    /// Sums over the tasks of which it was told; none when nobody has told.
    pub cpu: Option<Sum>,
    pub memory: Option<Sum>,
    pub requests: Option<Sum>,
}

/// Of one kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Of how many tasks; at least one.
    pub tasks: u64,
    /// Billionths of a CPU, bytes, or thousandths of a request a second.
    pub amount: u64,
}

/// What is to be done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Keep(String),
    Scale { replicas: u64, reason: String },
}

/// The looks at one service within its window, the oldest first: how many replicas, in thousandths, the load asked for.
#[derive(Debug, Clone, Default)]
pub struct History {
    looks: Vec<(Timestamp, u64)>,
}

/// A service with what it asks for.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    pub scale: &'a Scale,
    pub resources: &'a ResourceRequirements,
    /// What it has in its spec now.
    pub replicas: u64,
}

impl History {
    /// Takes a look, and says how many replicas there should be from now on. More within seconds, and at most twice as many
    /// at once (or four more); fewer when fewer were enough for the whole window. Without the load of one kind that is asked
    /// for it holds, and so does what it knows of that time.
    pub fn decide(&mut self, service: Scaled<'_>, load: &Load, now: Timestamp) -> Decision {
        let Scaled { scale, replicas, .. } = service;
        let bounded = replicas.clamp(scale.min, scale.max);
        if bounded != replicas {
            let reason = format!("{replicas} replicas are not within {} to {}", scale.min, scale.max);
            return Decision::Scale { replicas: bounded, reason };
        }
        let wanted = wanted(service, load);
        // Nothing is known of this moment: it speaks for what there is.
        self.note(
            now,
            wanted.as_ref().map_or(replicas.saturating_mul(1000), |wanted| wanted.thousandths),
            scale.window,
        );
        match wanted {
            Err(missing) => Decision::Keep(format!(
                "holds {replicas} replicas: nothing is known of the {missing} of its tasks"
            )),
            Ok(wanted) => self.weigh(service, &wanted, now),
        }
    }

    fn weigh(&self, service: Scaled<'_>, wanted: &Wanted, now: Timestamp) -> Decision {
        let Scaled { scale, replicas, .. } = service;
        let within = |bound: u64| bound.clamp(scale.min, scale.max);
        let of_late = self.since(now, UP).and_then(|looks| looks.min()).unwrap_or(0);
        let most = replicas.saturating_mul(2).max(replicas.saturating_add(4));
        let more = within(of_late.div_ceil(1000).min(most));
        if of_late > replicas.saturating_mul(TOO_MUCH) && more > replicas {
            return Decision::Scale { replicas: more, reason: wanted.to_string() };
        }
        let in_window =
            self.since(now, scale.window.max(UP)).and_then(|looks| looks.max()).unwrap_or(u64::MAX);
        let fewer = within(in_window.div_ceil(1000));
        if in_window < replicas.saturating_mul(TOO_LITTLE) && fewer < replicas {
            return Decision::Scale { replicas: fewer, reason: wanted.to_string() };
        }
        Decision::Keep(wanted.to_string())
    }

    /// The looks since so long ago; none when the history does not reach back so far.
    fn since(&self, now: Timestamp, span: Duration) -> Option<impl Iterator<Item = u64>> {
        let first = now.before(span);
        let reaches_back = self.looks.first().is_some_and(|(at, _)| *at <= first);
        reaches_back.then(|| self.looks.iter().filter(move |(at, _)| *at >= first).map(|(_, wanted)| *wanted))
    }

    fn note(&mut self, now: Timestamp, wanted: u64, window: Duration) {
        // A clock that was set, or a time without looks: what was before says nothing of now.
        if self.looks.last().is_some_and(|(last, _)| *last > now || now.since(*last) > MOST_BETWEEN) {
            self.looks.clear();
        }
        self.looks.push((now, wanted));
        // One look from before the window says that the history reaches back so far.
        let first = now.before(window.max(UP));
        let old = self.looks.iter().filter(|(at, _)| *at <= first).count();
        self.looks.drain(..old.saturating_sub(1));
    }
}

/// The service with so many replicas. It is no update by the user: what `docker service rollback` goes back to stays, and no
/// task is outdated by it.
#[must_use]
pub fn with_replicas(service: &Service, replicas: u64, now: Timestamp) -> Service {
    let mut scaled = service.clone();
    scaled.meta.updated_at = now;
    scaled.spec.mode = ServiceMode::Replicated { replicas };
    scaled
}

/// How many replicas the load asks for, and by which kind of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    thousandths: u64,
    by: &'static str,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, tenths) = (self.thousandths / 1000, self.thousandths % 1000 / 100);
        write!(f, "by the {} of its tasks, {whole}.{tenths} replicas are wanted", self.by)
    }
}

/// The most that any kind asks for; or the kind of which nothing is known.
fn wanted(service: Scaled<'_>, load: &Load) -> Result<Wanted, &'static str> {
    let Scaled { scale, resources, .. } = service;
    let percent = |percent: u64, of: u64| u128::from(percent) * u128::from(of) / 100;
    let kinds = [
        ("CPU use", scale.cpu.map(|target| percent(target, scale::cpus_of(resources))), load.cpu),
        (
            "memory use",
            scale.memory.map(|it| percent(it, scale::memory_of(resources).unwrap_or(1))),
            load.memory,
        ),
        ("requests", scale.requests.map(|target| u128::from(target) * 1000), load.requests),
    ];
    let mut most = Wanted { thousandths: 0, by: "load" };
    for (by, target, sum) in kinds {
        let Some(target) = target else { continue };
        let sum = sum.filter(|sum| sum.tasks > 0).ok_or(by)?;
        let thousandths = thousandths(load.running, sum, target.max(1));
        if thousandths >= most.thousandths {
            most = Wanted { thousandths, by };
        }
    }
    Ok(most)
}

/// Those of which nothing was told are taken to have just what they should have.
fn thousandths(running: u64, sum: Sum, target: u128) -> u64 {
    let untold = u128::from(running.saturating_sub(sum.tasks));
    let told = u128::from(sum.amount).saturating_mul(1000) / target;
    u64::try_from(told.saturating_add(untold * 1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

//! What was seen of a service within its window, and what follows from it. Integers only: thousandths of a replica, so that the same
//! looks give the same answer everywhere.

use std::time::Duration;

use super::{Decision, Standing, Use};
use crate::label::scale::{self, Scale};
use crate::objects::resources::ResourceRequirements;
use crate::time::Timestamp;

/// For so long more must have been wanted before there are more, and so long ago must the last change be. With measurements and
/// looks every 2 s a step is answered within 12 s.
pub(super) const UP: Duration = Duration::from_secs(6);

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
    pub cpu: Sum,
    pub memory: Sum,
    pub requests: Sum,
}

/// Of one kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Of how many tasks it was told.
    pub tasks: u64,
    /// Billionths of a CPU, bytes, or thousandths of a request a second.
    pub amount: u64,
}

impl Sum {
    fn add(&mut self, amount: Option<u64>) {
        if let Some(amount) = amount {
            self.tasks += 1;
            self.amount = self.amount.saturating_add(amount);
        }
    }
}

impl Load {
    /// One more task that runs.
    pub fn add(&mut self, used: Use) {
        self.running += 1;
        self.cpu.add(used.cpu);
        self.memory.add(used.memory);
        self.requests.add(used.requests);
    }
}

/// A service with what it asks for.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    pub scale: &'a Scale,
    pub resources: &'a ResourceRequirements,
    /// What it has in its spec now.
    pub replicas: u64,
    /// Since when.
    pub changed_at: Option<Timestamp>,
}

/// The looks at one service within its window, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct History {
    looks: Vec<Look>,
}

/// How many replicas the load asked for, in thousandths: by what was told alone, and if those of which nothing was told had just
/// what they should.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Timestamp,
    least: u64,
    most: u64,
}

impl History {
    /// Takes a look, and says how many replicas there should be from now on. More within seconds, and at most twice as many
    /// at once (or four more); fewer when fewer were enough for the whole window, and nothing was changed within it. Without the
    /// load of one kind that is asked for it holds.
    pub fn decide(&mut self, service: Scaled<'_>, load: &Load, now: Timestamp) -> Decision {
        let Scaled { scale, replicas, .. } = service;
        let bounded = replicas.clamp(scale.min, scale.max);
        if bounded != replicas {
            let reason = format!("{replicas} replicas are not within {} to {}", scale.min, scale.max);
            return Decision::Scale { replicas: bounded, reason };
        }
        match wanted(service, load) {
            Err(missing) => self.hold(&missing, replicas, (scale, now)),
            Ok(wanted) => {
                self.note(Look { at: now, least: wanted.least, most: wanted.most }, scale.window);
                self.weigh(service, &wanted, now)
            }
        }
    }

    /// Nothing is known of this moment: it speaks for what there is.
    pub(super) fn hold(&mut self, why: &str, replicas: u64, (scale, now): (&Scale, Timestamp)) -> Decision {
        self.note(Look { at: now, least: 0, most: replicas.saturating_mul(1000) }, scale.window);
        Decision::Keep { standing: Standing::Held, reason: format!("holds {replicas} replicas: {why}") }
    }

    fn weigh(&self, service: Scaled<'_>, wanted: &Wanted, now: Timestamp) -> Decision {
        let Scaled { scale, replicas, changed_at, .. } = service;
        let within = |bound: u64| bound.clamp(scale.min, scale.max);
        // A moment that is yet to come was made by a clock that was wrong.
        let rested = |span: Duration| changed_at.is_none_or(|at| at > now || now.since(at) >= span);
        let of_late = self.since(now, UP).and_then(|looks| looks.map(|look| look.least).min()).unwrap_or(0);
        if of_late > replicas.saturating_mul(TOO_MUCH) {
            let most = replicas.saturating_mul(2).max(replicas.saturating_add(4));
            let more = within(of_late.div_ceil(1000).min(most));
            if more > replicas && rested(UP) {
                return Decision::Scale { replicas: more, reason: wanted.to_string() };
            }
            if replicas == scale.max {
                let reason = format!("{wanted}; there may be {}", scale.max);
                return Decision::Keep { standing: Standing::AtMost, reason };
            }
        }
        let window = scale.window.max(UP);
        let in_window = self.since(now, window).and_then(|looks| looks.map(|look| look.most).max());
        let fewer = in_window.map_or(replicas, |most| within(most.div_ceil(1000)));
        let is_less = in_window.is_some_and(|most| most < replicas.saturating_mul(TOO_LITTLE));
        if is_less && fewer < replicas && rested(window) {
            return Decision::Scale { replicas: fewer, reason: wanted.to_string() };
        }
        Decision::Keep { standing: Standing::Fits, reason: wanted.to_string() }
    }

    /// The looks since so long ago; none when the history does not reach back so far.
    fn since(&self, now: Timestamp, span: Duration) -> Option<impl Iterator<Item = &Look>> {
        let first = now.before(span);
        let reaches_back = self.looks.first().is_some_and(|look| look.at <= first);
        reaches_back.then(|| self.looks.iter().filter(move |look| look.at >= first))
    }

    fn note(&mut self, look: Look, window: Duration) {
        // A clock that was set, or a time without looks: what was before says nothing of now.
        let breaks = |last: &Look| last.at > look.at || look.at.since(last.at) > MOST_BETWEEN;
        if self.looks.last().is_some_and(breaks) {
            self.looks.clear();
        }
        self.looks.push(look);
        // One look from before the window says that the history reaches back so far.
        let first = look.at.before(window.max(UP));
        let old = self.looks.iter().take_while(|look| look.at <= first).count();
        self.looks.drain(..old.saturating_sub(1));
    }
}

/// How many replicas the load asks for, and by which kind of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Of what was told alone.
    least: u64,
    /// With those of which nothing was told at what they should have.
    most: u64,
    by: &'static str,
    untold: u64,
    running: u64,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, tenths) = (self.most / 1000, self.most % 1000 / 100);
        write!(f, "by the {} of its tasks, {whole}.{tenths} replicas are wanted", self.by)?;
        match self.untold {
            0 => Ok(()),
            untold => write!(f, " (nothing is told of {untold} of {})", self.running),
        }
    }
}

/// The most that any kind asks for; or why that is not known.
fn wanted(service: Scaled<'_>, load: &Load) -> Result<Wanted, String> {
    let Scaled { scale, resources, .. } = service;
    if load.running == 0 {
        return Err("none of its tasks runs".to_owned());
    }
    let percent = |percent: u64, of: u64| u128::from(percent) * u128::from(of) / 100;
    let memory = scale::memory_of(resources).unwrap_or(1);
    let kinds = [
        ("CPU use", scale.cpu.map(|target| percent(target, scale::cpus_of(resources))), load.cpu),
        ("memory use", scale.memory.map(|target| percent(target, memory)), load.memory),
        ("requests", scale.requests.map(|target| u128::from(target) * 1000), load.requests),
    ];
    let mut all = Wanted { least: 0, most: 0, by: "load", untold: 0, running: load.running };
    for (by, target, sum) in kinds {
        let Some(target) = target else { continue };
        if sum.tasks == 0 {
            return Err(format!("nothing is known of the {by} of its tasks"));
        }
        let least = u128::from(sum.amount).saturating_mul(1000) / target.max(1);
        let untold = load.running.saturating_sub(sum.tasks);
        let most = capped(least.saturating_add(u128::from(untold) * 1000));
        all.least = all.least.max(capped(least));
        if most >= all.most {
            (all.most, all.by, all.untold) = (most, by, untold);
        }
    }
    Ok(all)
}

fn capped(thousandths: u128) -> u64 {
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

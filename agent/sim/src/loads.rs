//! Services that follow their load, of processors, memory or requests: the loads that their containers have, which are a seed's like all
//! ids, and what must hold of their replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_cluster::id::ServiceId;
use ketch_cluster::label::scale;
use ketch_cluster::objects::{Labels, Service, ServiceMode, ServiceSpec};
use ketch_node::executor::Reading;

use crate::cluster::Cluster;
use crate::random::Random;
use crate::scene::{Clocks, Loads, Scene};

const LEAST: u64 = 1;
const MOST: u64 = 6;
const WINDOW: Duration = Duration::from_secs(15);
/// No two changes are closer to each other than this; seen from outside, one is seen a step late.
const APART: Duration = Duration::from_secs(6);
const SLACK: Duration = Duration::from_millis(500);

/// So long a load stays as it is.
const STEP: u64 = 8;
/// Every so often nobody measures for as long.
const SILENCE: u64 = 20;
/// What was measured before holds so long; a look and a change come after.
const FORGOTTEN: u64 = 10;
/// From then on a service's load is much or little and stays so, and it is measured: the cluster is to come to rest.
const CALM: u64 = 76;
/// Bytes that a task may have.
pub(crate) const MEMORY: u64 = 64 << 20;

/// What such a service asks for: half a CPU each, half of its memory, or fifty requests a second.
pub(crate) fn labels(number: u64) -> Labels {
    let kind = match number / 2 % 3 {
        0 => scale::CPU,
        1 => scale::MEMORY,
        _ => scale::REQUESTS,
    };
    let window = format!("{}s", WINDOW.as_secs());
    let (least, most) = (LEAST.to_string(), MOST.to_string());
    let all = [(scale::MIN, least), (scale::MAX, most), (kind, "50".to_owned()), (scale::WINDOW, window)];
    all.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
}

pub(crate) fn is_followed(spec: &ServiceSpec) -> bool {
    spec.labels.contains_key(scale::MIN)
}

/// Whether nothing is measured at that moment of the run.
fn is_silent(now: Duration) -> bool {
    now.as_secs() < CALM && now.as_secs() / SILENCE % 3 == 2
}

/// What is measured of a container that runs since then.
pub(crate) fn reading(service: ServiceId, since: Duration, now: Duration) -> Result<Reading, String> {
    if is_silent(now) {
        return Err("nothing is measured now".to_owned());
    }
    let used = used(service, since, now);
    let memory = MEMORY / 1000 * rate(service, now.as_secs());
    // At half a CPU fifty a second.
    Ok(Reading { cpu: Some(used), memory: Some(memory), connections: Some(used / 10_000_000) })
}

/// Nanoseconds of a CPU that a container has used between two moments of the run.
fn used(service: ServiceId, since: Duration, now: Duration) -> u64 {
    (since.as_secs()..=now.as_secs())
        .map(|second| {
            let (begins, ends) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            let span = ends.min(now).saturating_sub(begins.max(since));
            let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or_default();
            nanoseconds / 1000 * rate(service, second)
        })
        .sum()
}

/// Thousandths of a CPU in that second: little, what it should be, or much, with a tenth of noise.
fn rate(service: ServiceId, second: u64) -> u64 {
    let seed = seed_of(service);
    let of_step = [50, 500, 950][usize::try_from(Random::new(seed ^ (second / STEP)).below(3)).unwrap_or(0)];
    let at_last = if most_at_last(service) == MOST { 950 } else { 50 };
    let base = if second < CALM { of_step } else { at_last };
    base * Random::new(seed.wrapping_add(second)).between(950, 1050) / 1000
}

fn seed_of(service: ServiceId) -> u64 {
    service.to_string().bytes().fold(0, |all: u64, byte| all.rotate_left(5) ^ u64::from(byte))
}

/// The replicas that its load asks for once all is well: as many or as few as there may be.
fn most_at_last(service: ServiceId) -> u64 {
    if Random::new(seed_of(service)).below(2) == 0 { MOST } else { LEAST }
}

/// Whether a service has in the end what its load asks for, by whatever that is measured.
pub(crate) fn has_followed(service: &Service) -> Result<(), String> {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return Ok(()) };
    let wanted = most_at_last(service.id);
    if !is_followed(&service.spec) || replicas == wanted {
        return Ok(());
    }
    Err(format!("{} has {replicas} replicas where its load asks for {wanted}", service.spec.name))
}

/// What was seen of services that follow their load.
#[derive(Debug)]
pub(crate) struct Followed {
    scene: Scene,
    /// Up to where the log was looked at: another manager's store may be older.
    looked: u64,
    /// Replicas, and when they were first seen.
    seen: BTreeMap<ServiceId, (u64, Duration)>,
}

impl Followed {
    pub(crate) fn new(scene: Scene) -> Self {
        Self { scene, looked: 0, seen: BTreeMap::new() }
    }

    /// Looks at what is committed.
    pub(crate) fn look(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        if self.scene.loads == Loads::Ignored {
            return Ok(());
        }
        let Some((version, services)) = cluster.newest(|store| {
            let followed = store.services().filter(|service| is_followed(&service.spec));
            let with_mode = followed.map(|service| (service.id, service.spec.mode));
            (store.version().0, with_mode.collect::<Vec<_>>())
        }) else {
            return Ok(());
        };
        if version < self.looked {
            return Ok(());
        }
        self.looked = version;
        for (service, mode) in services {
            let ServiceMode::Replicated { replicas } = mode else { continue };
            if self.seen.get(&service).is_none_or(|(before, _)| *before != replicas) {
                cluster.note(&format!("service {service} follows its load: {replicas} replicas"));
            }
            self.judge(service, replicas, cluster.elapsed())?;
        }
        Ok(())
    }

    fn judge(&mut self, service: ServiceId, replicas: u64, now: Duration) -> Result<(), String> {
        let Some((before, since)) = self.seen.get(&service).copied() else {
            // As users have made it: the first look brings it into its bounds.
            self.seen.insert(service, (replicas, now));
            return Ok(());
        };
        if before == replicas {
            return Ok(());
        }
        self.seen.insert(service, (replicas, now));
        let what = format!("{service} was given {replicas} replicas instead of {before}");
        if !(LEAST..=MOST).contains(&replicas) {
            return Err(format!("{what}: not within {LEAST} to {MOST}"));
        }
        let was_outside = !(LEAST..=MOST).contains(&before);
        if was_outside || self.scene.clocks == Clocks::Jump {
            return Ok(());
        }
        let least = if replicas < before { WINDOW } else { APART };
        if now.saturating_sub(since) + SLACK < least {
            return Err(format!("{what} after {:?}", now.saturating_sub(since)));
        }
        if is_silent(now) && now.as_secs() % SILENCE >= FORGOTTEN {
            return Err(format!("{what} at {now:?}, when nothing was known of its load"));
        }
        Ok(())
    }
}

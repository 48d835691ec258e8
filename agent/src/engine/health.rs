//! A container's health: its probe is run again and again, and three failures in a row make it unhealthy. Docker's HEALTHCHECK
//! runs a process in the container; by label the daemon itself asks over HTTP or TCP (`probe`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ketch_engine_api::container::{Health, HealthConfig, Probe};
use tracing::debug;

use super::container::{Container, Probed, Record};
use super::probe::{self, Kind, Outcome};
use super::signal;
use crate::daemon::Daemon;
use crate::locks::locked;
use crate::timestamp::Timestamp;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// How many probes are shown.
const KEPT: usize = 5;
/// Says that an unhealthy container is started again, which Docker never does.
const RESTART_LABEL: &str = "ketch.health.restart";

/// When probes run, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Plan {
    fn of(config: &HealthConfig) -> Self {
        let or = |nanos: i64, default: Duration| match u64::try_from(nanos) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => default,
        };
        Self {
            interval: or(config.interval, INTERVAL),
            timeout: or(config.timeout, TIMEOUT),
            start_period: or(config.start_period, Duration::ZERO),
            start_interval: or(config.start_interval, START_INTERVAL),
            retries: u32::try_from(config.retries).ok().filter(|retries| *retries > 0).unwrap_or(RETRIES),
        }
    }

    /// How long until the next probe, so long after the start.
    fn pause(&self, health: &Health, since_start: Duration) -> Duration {
        if health.status == "starting" && since_start < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// Enters a probe; whether the status has changed.
    fn enter(&self, health: &mut Health, probe: Probe, since_start: Duration) -> bool {
        let before = health.status.clone();
        if probe.exit_code == 0 {
            health.failing_streak = 0;
            "healthy".clone_into(&mut health.status);
        } else if !(health.status == "starting" && since_start < self.start_period) {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                "unhealthy".clone_into(&mut health.status);
            }
        }
        health.log.push(probe);
        let surplus = health.log.len().saturating_sub(KEPT);
        drop(health.log.drain(..surplus));
        before != health.status
    }
}

/// Begins to probe a container that has just been started, or taken over.
pub(super) fn begin(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    end(container);
    let (config, labels, shell) = container.read(|Record { config, .. }| {
        let (labels, shell) = (config.labels.clone(), config.shell.clone());
        (config.healthcheck.clone(), labels.unwrap_or_default(), shell.unwrap_or_default())
    });
    let Some(kind) = Kind::of(config.as_ref(), &labels, &shell) else {
        container.change(|record| record.state.health = None);
        container.life.send_modify(|life| life.probed = Probed::Never);
        return;
    };
    let plan = Plan::of(&config.unwrap_or_default());
    container.change(|record| {
        record.state.health = Some(Health { status: "starting".to_owned(), ..Health::default() });
    });
    container.life.send_modify(|life| life.probed = Probed::Starting);
    let probes = tokio::spawn(run(Arc::clone(daemon), Arc::clone(container), kind, plan));
    *locked(&container.probes) = Some(probes.abort_handle());
}

/// Ends it. What nobody probes is unhealthy to Docker, a container that has ended too.
pub(super) fn end(container: &Container) {
    let probes = locked(&container.probes).take();
    let Some(probes) = probes else { return };
    probes.abort();
    container.change(|record| {
        if let Some(health) = &mut record.state.health {
            "unhealthy".clone_into(&mut health.status);
        }
    });
}

async fn run(daemon: Arc<Daemon>, container: Arc<Container>, kind: Kind, plan: Plan) {
    let started = container.read(|record| record.state.started_at);
    loop {
        let health = container.read(|record| record.state.health.clone().unwrap_or_default());
        tokio::time::sleep(plan.pause(&health, Timestamp::now().since(started))).await;
        // A frozen container can't answer.
        if container.read(|record| record.state.paused) {
            continue;
        }
        let start = Timestamp::now();
        let Outcome { exit_code, output } = probe::run(&daemon, &container, &kind, plan.timeout).await;
        let end = Timestamp::now();
        daemon.engine.count_probe(exit_code != 0);
        let probe = Probe { start: start.to_string(), end: end.to_string(), exit_code, output };
        let changed = container.change(|record| {
            let health = record.state.health.get_or_insert_default();
            plan.enter(health, probe, end.since(started)).then(|| health.status.clone())
        });
        if let Some(status) = changed {
            container.publish(&daemon, format!("health_status: {status}"));
            let probed = if status == "healthy" { Probed::Healthy } else { Probed::Unhealthy };
            container.life.send_modify(|life| life.probed = probed);
            if status == "unhealthy" && restarts(&daemon, &container) {
                restart(&daemon, &container);
                return;
            }
        }
    }
}

/// Whether an unhealthy container is started again: its label says so, or the daemon's setting.
fn restarts(daemon: &Daemon, container: &Container) -> bool {
    let default = daemon.config.live().restart_unhealthy;
    container.read(|Record { config, host_config, .. }| {
        let label = config.labels.as_ref().and_then(|labels| labels.get(RESTART_LABEL));
        let wanted = label.map_or(default, |value| value == "true");
        wanted && !matches!(host_config.restart_policy.name.as_str(), "" | "no")
    })
}

/// Ends it as `stop` would; its policy starts it again, with its pause.
fn restart(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    debug!("container {} is unhealthy, and is started again", container.id);
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    container.unwell.store(true, Ordering::SeqCst);
    drop(tokio::spawn(async move {
        container.publish_with(&daemon, "health_restart", &[("reason", "unhealthy".to_owned())]);
        if let Err(error) = signal::end_for_restart(&daemon, &container).await {
            debug!("ending {} for a restart: {error}", container.id);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i64) -> Probe {
        Probe { exit_code, ..Probe::default() }
    }

    #[test]
    fn failures_count_after_the_start_period_and_the_first_success_ends_it() {
        let plan = Plan::of(&HealthConfig { start_period: 5_000_000_000, ..HealthConfig::default() });
        let mut health = Health { status: "starting".into(), ..Health::default() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(9));
        assert_eq!(plan.pause(&health, early), START_INTERVAL);
        for _ in 0..9 {
            assert!(!plan.enter(&mut health, probe(1), early));
        }
        assert_eq!((health.failing_streak, health.log.len()), (0, KEPT));
        assert!(plan.enter(&mut health, probe(0), early));
        assert_eq!((health.status.as_str(), plan.pause(&health, early)), ("healthy", INTERVAL));
        assert!(!plan.enter(&mut health, probe(1), early) && !plan.enter(&mut health, probe(1), late));
        assert!(plan.enter(&mut health, probe(1), late));
        assert_eq!((health.status.as_str(), health.failing_streak), ("unhealthy", 3));
    }
}
